"""Differences are found and named; agreement is not imagined."""

import json

import pytest

from replication.evaluation.rows import read_rows, write_rows
from replication.files import REFERENCE, ReplicationError
from replication.report import documents
from replication.report.verify import TOLERANCE, verify


@pytest.fixture
def run(tmp_path):
    """A run whose tables are the shipped rows of one data set."""
    for name in ("table4", "table5", "scaling"):
        rows = read_rows(REFERENCE / "tables" / f"{name}.csv")
        write_rows(tmp_path / "tables" / f"{name}.csv", rows[rows["dataset"] == "mini"])
    facts = {"code_version": "x", "packages": {"torch": "1.0"}}
    (tmp_path / "provenance.json").write_text(json.dumps({"environment": facts}))
    return tmp_path


def change(run, function, table="table4"):
    path = run / "tables" / f"{table}.csv"
    write_rows(path, function(read_rows(path)))


def cell(column, value, row=5):
    def function(rows):
        rows.loc[row, column] = rows.loc[row, column] + value if column in TOLERANCE else value
        return rows

    return function


def test_the_shipped_rows_agree_with_themselves(run):
    found = verify(run)
    assert (found.differ, len(found.agree)) == ([], 3)
    assert "agree   table4.csv: 360 rows; all equal" in str(found)
    assert "note    torch: 1.0, reference 2" in str(found)


@pytest.mark.parametrize(
    ("table", "function", "sentence"),
    [
        ("table4", cell("psnr", -0.02), "1 of 360 rows differ; largest difference: psnr"),
        ("table5", cell("hdrvdp2_q", 0.1), "rows differ; largest difference: hdrvdp2_q"),
        ("table5", cell("log_rmse_clipped", float("nan")), "differ; largest difference: log_rmse"),
        ("table4", cell("data_hash", "0" * 12), "largest difference: data_hash 000000000000,"),
        ("table4", cell("weights_hash", "0" * 12), "largest difference: weights_hash 0000"),
        ("table4", cell("scene", "elsewhere"), "1 rows are not in the reference, 1 rows of"),
        ("table4", lambda rows: rows.iloc[1:], "1 rows of the reference are missing"),
        ("table4", lambda rows: rows[rows["ev"] != 3], "60 rows of the reference are missing"),
    ],
)
def test_a_difference_is_named_with_its_place(run, table, function, sentence):
    change(run, function, table)
    (found,) = verify(run).differ
    assert found.startswith(f"{table}.csv: ")
    assert sentence in found


def test_what_a_run_does_not_claim_may_be_missing(run):
    change(run, lambda rows: rows[rows["method"] != "deep_chain_faithful"], "table4")
    change(run, lambda rows: rows[rows["scene"] < "e"], "scaling")  # a sample of scenes
    change(run, cell("psnr", 0.5 * TOLERANCE["psnr"]))  # rounding of another machine
    assert not verify(run).differ


def test_changed_weights_are_noticed(run, monkeypatch):
    monkeypatch.setattr(documents, "chain_hash", lambda chain, folder: "0" * 12)
    sentence = "The shipped weights have the hash 000000000000, but table4.csv was made"
    assert [found.startswith(sentence) for found in verify(run).differ] == [True]
    with pytest.raises(ReplicationError, match=sentence):
        documents.update_tables(check=True)


def test_nothing_to_compare_and_damaged_records_are_errors(run, tmp_path):
    (run / "provenance.json").write_text("[]")
    with pytest.raises(ReplicationError, match=r"Cannot read .*provenance\.json"):
        verify(run)
    with pytest.raises(ReplicationError, match="has no tables to compare"):
        verify(tmp_path / "empty")
