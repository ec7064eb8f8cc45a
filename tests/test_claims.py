"""Verdicts follow from the rows: change the rows, and the verdict changes."""

import pandas as pd
import pytest

from replication.evaluation.rows import read_rows
from replication.files import REFERENCE
from replication.report import claims


@pytest.fixture
def rows(monkeypatch):
    """Lets a test change the rows that claims are judged by: name of the file -> function."""
    changes = {}

    def read(path):
        frame = read_rows(path)
        return changes[path.stem](frame) if path.stem in changes else frame

    monkeypatch.setattr(claims, "read_rows", read)
    monkeypatch.setattr(claims, "learning_curve_moves", lambda logs, methods: False)
    return changes


def shifted(method, by, metric="psnr"):
    def change(frame):
        frame.loc[frame["method"] == method, metric] += by
        return frame

    return change


def verdicts(part):
    return [claims.combined(one for _, one in found) for _, _, found, *_ in part()]


@pytest.fixture(scope="module")
def frame():
    return claims.claims_frame()


def test_every_claim_has_a_verdict_a_notebook_and_a_short_form(frame):
    words = {"supported", "contradicted", "inconclusive", "untested"}
    assert set(frame["verdict"].str.extract(r"^\*\*(\w+)")[0]) <= words
    assert frame["notebook"].str.fullmatch(r"\[0\d\]\(\.\./notebooks/0\d_\w+\.ipynb\)").all()
    assert frame["in brief"].str.len().max() <= 120
    for element in ("Table 1", "Table 2", "Table 3", "Table 4", "Table 5", "Figure 7"):
        assert frame["claim"].str.contains(element).any()
    assert frame.loc[frame["claim"].str.contains("blue"), "verdict"].tolist() == ["**untested**"]
    assert {"+10.66 dB", "+0.73 dB, +1.74 dB, +1.75 dB"} <= set(frame["paper"])
    for table, budget in {"Table 2": "4,000", "Table 3": "6,000"}.items():  # short: decide nothing
        line = frame[frame["claim"].str.contains(table)].iloc[0]
        assert line["verdict"].startswith("**inconclusive**")
        assert f"3 seeds, {budget}" in line["here"]
        assert "training loss still falling" in line["here"]


@pytest.mark.parametrize(("falls", "moves"), [(0.10, True), (0.02, False), (-0.10, False)])
def test_a_learning_curve_moves_if_the_last_quarter_is_lower(falls, moves):
    logs = pd.DataFrame(
        {"method": "chain", "ev": 1, "seed": 0, "patches": n, "loss": 1 - falls * (n > 75)}
        for n in range(1, 101)
    )
    assert claims.learning_curve_moves(logs, ["chain"]) is moves


def test_ablations_of_whole_length_would_be_judged_by_images_and_seeds(rows):
    assert verdicts(claims._ablations) == ["contradicted", "contradicted", "inconclusive"]
    rows["table2"] = shifted("chain", 60)
    rows["table3"] = shifted("mprelu", 1.5)
    assert verdicts(claims._ablations) == ["supported"] * 3
    rows["table3"] = shifted("mprelu", -1.5)
    assert verdicts(claims._ablations)[2] == "contradicted"


def test_stacks_are_judged_by_paired_tests_over_both_data_sets(rows):
    assert verdicts(claims._stacks) == ["supported", "supported", "inconclusive", "inconclusive"]
    rows["table4"] = shifted("deep_chain", -15)
    assert verdicts(claims._stacks)[1] == "contradicted"
    better = {"psnr": 5, "ssim": 0.1, "ms_ssim": 0.1}
    rows["table4"] = lambda f: f.assign(**{
        m: f[m] + by * (f["method"] == "deep_chain") for m, by in better.items()
    })  # fmt: skip
    assert verdicts(claims._stacks)[2] == "supported"
    rows["table4"] = lambda f: f.assign(psnr=f["psnr"] + 20 * (f["ev"] > 0))
    assert verdicts(claims._stacks)[3] == "supported"


def test_table_5_is_judged_by_every_difference(rows, monkeypatch):
    one = claims._TABLE5["pu21_psnr"]
    monkeypatch.setattr(claims, "_TABLE5", {"pu21_psnr": one})
    assert verdicts(claims._hdr_images) == ["inconclusive", "inconclusive", "untested"]
    rows["table5"] = shifted("deep_chain", -40, "pu21_psnr")
    assert verdicts(claims._hdr_images)[:2] == ["contradicted", "contradicted"]
    rows["table5"] = shifted("deep_chain", 1.9, "pu21_psnr")
    assert verdicts(claims._hdr_images)[1] == "supported, too small to be seen"
    rows["table5"] = lambda f: f.assign(pu21_psnr=f["psnr"] + 9 * (f["method"] == "deep_chain"))
    assert verdicts(claims._hdr_images)[1] == "supported"


def test_chain_verdict_has_median_and_scenes_won():
    rows = read_rows(REFERENCE / "tables" / "table4.csv")
    rows = rows[rows["dataset"] == "hdrps"]
    text = claims.chain_verdict(rows)
    psnr = rows.pivot_table(index="scene", columns="method", values="psnr")
    gain = psnr["deep_chain"] - psnr["tone_curve"]
    assert f"median {gain.median():+.2f} dB" in text
    assert f"better on {(gain > 0).sum()} of 10 scenes" in text
    assert "60 to 108 thousand patches" in text
    assert "1 training;" in claims.chain_verdict(rows.assign(weights_hash="0" * 12)) + ";"
