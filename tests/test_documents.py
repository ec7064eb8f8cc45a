"""README, report and model card are what the rows say, and notice changed weights."""

import pytest

from replication.evaluation.rows import read_rows, write_rows
from replication.files import REFERENCE, ReplicationError
from replication.report.documents import update_block, update_tables, write_run_report


def test_documents_are_what_the_rows_say():
    update_tables(check=True)


def test_update_block_changes_only_the_block(tmp_path):
    path = tmp_path / "README.md"
    head, tail = b"# T\xc3\xa4 \r\nx <!-- a:start -->", b"<!-- a:end -->  \r\nlast, no newline"
    path.write_bytes(head + b"old" + tail)
    with pytest.raises(ReplicationError, match="block a is out of date"):
        update_block(path, "a", "1\n2", check=True)
    assert path.read_bytes() == head + b"old" + tail
    assert update_block(path, "a", "\n1\n2 ±\n\n")
    assert path.read_bytes() == head + "\r\n1\r\n2 ±\r\n".encode() + tail
    assert not update_block(path, "a", "1\n2 ±", check=True)
    assert [item.name for item in tmp_path.iterdir()] == ["README.md"]


START, END = "<!-- a:start -->", "<!-- a:end -->"


@pytest.mark.parametrize("text", ["", START, END + START, 2 * START + END, 2 * (START + END)])
def test_update_block_needs_one_block(tmp_path, text):
    path = tmp_path / "README.md"
    path.write_text(text)
    for new in ("new", f"x {END}"):
        with pytest.raises(ReplicationError, match="needs exactly one block from <!-- a:start -->"):
            update_block(path, "a", new)
    assert path.read_text() == text
    with pytest.raises(ReplicationError, match="Cannot read"):
        update_block(tmp_path / "missing.md", "a", "new")


def test_a_run_gets_a_report_with_the_papers_values(tmp_path):
    assert write_run_report(tmp_path) is None
    for name in ("table1", "table4", "table5"):
        frame = read_rows(REFERENCE / "tables" / f"{name}.csv")
        own = frame[frame["dataset"] == "hdrps"].assign(dataset="vds")
        write_rows(tmp_path / "tables" / f"{name}.csv", own)
    table3 = read_rows(REFERENCE / "ablations" / "table3.csv")
    one = table3[(table3["seed"] == 0) & table3["method"].isin(["mprelu", "prelu"])]
    write_rows(tmp_path / "tables" / "table3.csv", one.assign(dataset="vds"))
    text = write_run_report(tmp_path).read_text()
    assert "28.18 ± 2.77" in text
    assert text.count("1 seed") == text.count("1 seed, 6,000 patches per network; paper") == 3
    assert "nan" not in text.lower()
    titles = [line.partition(":")[0] for line in text.splitlines() if line.startswith("## Table")]
    assert titles == [f"## Table {number}" for number in (1, 3, 4, 5)]
