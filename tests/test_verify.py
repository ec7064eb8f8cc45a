"""A difference is found, told, and turned into an exit code; agreement is not imagined."""

import json
import shutil

import pytest

from replication.__main__ import main
from replication.evaluation import rows as report
from replication.files import ReplicationError
from replication.report.verify import TOLERANCE, compare_tables, verify

TABLE4 = report.REFERENCE / "tables" / "table4.csv"


@pytest.fixture
def run(tmp_path):
    """A run whose tables are the shipped rows of one data set."""
    for name in ("table4", "table5"):
        rows = report.read_rows(report.REFERENCE / "tables" / f"{name}.csv")
        report.write_rows(tmp_path / "tables" / f"{name}.csv", rows[rows["dataset"] == "mini"])
    facts = {"code_version": "x", "packages": {"torch": "1.0"}}
    (tmp_path / "provenance.json").write_text(json.dumps({"environment": facts}))
    return tmp_path


def change(run, metric, by, table="table4", row=5):
    path = run / "tables" / f"{table}.csv"
    rows = report.read_rows(path)
    rows.loc[row, metric] += by
    report.write_rows(path, rows)
    return rows.loc[row]


def test_the_shipped_rows_agree_with_themselves(run, capsys):
    found = verify(run)
    assert not found.differ
    assert [line.partition(":")[0] for line in found.agree] == ["table4.csv", "table5.csv"]
    assert all("all equal" in line for line in found.agree)
    assert any(line.startswith("torch: 1.0, reference 2") for line in found.notes)
    assert main(["verify", str(run)]) == 0
    assert "agree   table4.csv" in capsys.readouterr().out


def test_rounding_of_another_machine_is_no_difference(run):
    change(run, "psnr", 0.5 * TOLERANCE["psnr"])
    found = verify(run)
    assert not found.differ
    assert "largest difference: psnr" in found.agree[0]


@pytest.mark.parametrize(
    ("table", "metric", "by"),
    [("table4", "psnr", -0.02), ("table4", "ssim", 0.002), ("table5", "hdrvdp2_q", 0.1)],
)
def test_a_difference_is_told_with_its_place(run, capsys, table, metric, by):
    row = change(run, metric, by, table)
    assert main(["verify", str(run)]) == 2
    told = capsys.readouterr()
    assert f"differ  {table}.csv: 1 of " in told.out
    assert f"largest difference: {metric}" in told.out
    assert row["scene"] in told.out
    assert row["method"] in told.out
    assert told.err == "error: 1 table differs.\n"


def test_other_pictures_weights_and_rows_are_differences(run):
    path = run / "tables" / "table4.csv"
    for column, word in (("data_hash", "another true image"), ("weights_hash", "another weights")):
        rows = report.read_rows(path)
        rows.loc[0, column] = "0" * 12
        report.write_rows(run / "other.csv", rows)
        agree, sentence = compare_tables(run / "other.csv", TABLE4)
        assert not agree
        assert word in sentence
    rows = report.read_rows(path)
    rows.loc[0, "scene"] = "elsewhere"
    report.write_rows(run / "other.csv", rows)
    assert compare_tables(run / "other.csv", TABLE4)[1].startswith("other.csv: 1 rows are not in")


def test_two_runs_are_compared_in_all_their_tables(run, tmp_path_factory):
    other = tmp_path_factory.mktemp("runs") / "other"
    shutil.copytree(run, other)
    shutil.copy(report.REFERENCE / "ablations" / "table3.csv", run / "tables")
    shutil.copy(report.REFERENCE / "ablations" / "table3.csv", other / "tables")
    assert len(verify(run, other).agree) == 3
    change(other, "psnr", 1, "table3")
    assert [line.partition(":")[0] for line in verify(run, other).differ] == ["table3.csv"]


def test_nothing_to_compare_is_an_error(tmp_path):
    with pytest.raises(ReplicationError, match="has no tables to compare"):
        verify(tmp_path)
