"""The verdict rule case by case, and tables whose cells are computed here in another way."""

import math
import statistics

import pandas as pd
import pytest

from replication.evaluation.rows import read_rows
from replication.files import REFERENCE
from replication.report import tables
from replication.report.tables import verdict

SURE, UNSURE = (0.5, 1.5), (-0.5, 2.5)
NAN = (math.nan, math.nan)
# fmt: off
CASES = {
    "untested": [{"difference": None}, {"difference": math.nan}],
    "supported": [{}, {"p": 0.049}, {"seeds": 3, "over_seeds": SURE}, {"moves": False},
        {"metric": "log_rmse_clipped", "difference": -1, "interval": (-2, -0.1)},
        {"metric": "pu21_psnr", "difference": 3.5, "interval": (3, 4)}],
    "contradicted": [{"difference": -1, "interval": (-1.5, -0.5)}, {"metric": "drim_loss"}],
    "inconclusive": [{"interval": UNSURE}, {"interval": (0.0, 1.0)}, {"interval": NAN}, {"p": 0.05},
        {"p": math.nan}, {"seeds": 3, "over_seeds": UNSURE}, {"seeds": 3, "over_seeds": (-2, -1)},
        {"seeds": 1, "over_seeds": NAN}, {"moves": True}, {"metric": "pu21_psnr", "interval": UNSURE}],
    "supported, too small to be seen": [{"metric": "pu21_psnr"}],
}
# fmt: on


@pytest.mark.parametrize(("word", "cases"), CASES.items())
def test_verdict(word, cases):
    for facts in cases:
        assert verdict(**({"difference": 1.0, "interval": SURE, "scenes": 10} | facts))[0] == word


def test_the_evidence_has_interval_scenes_seeds_and_training():
    facts = {"scenes": 10, "seeds": 3, "over_seeds": UNSURE, "p": 0.0004, "training": "9 patches"}
    assert verdict(1, SURE, moves=True, **facts)[1] == (
        "+1.00 dB [0.50, 1.50] over 10 scenes, [-0.50, 2.50] over 3 seeds, p < 0.001, 9 patches, "
        "training loss still falling"
    )
    assert verdict(1, SURE, scenes=2, seeds=1)[1] == "+1.00 dB [0.50, 1.50] over 2 scenes, 1 seed"


def test_markdown_table():
    names = {"method": ["a|b", "c\nd"], "n": [1, 20], "PSNR": [1.234, 5.0], "x": [math.nan, math.inf]}
    texts = {"gain": ["–", "+1.0 [0.1, 2.0]"], "won": ["3 of 10", "–"], "link": ["[01](a.md)"] * 2}
    assert tables.markdown_table(pd.DataFrame(names | texts)).splitlines() == [
        "| method | n | PSNR | x | gain | won | link |",
        "|:---|---:|---:|---:|---:|---:|:---|",
        "| a\\|b | 1 | 1.23 | – | – | 3 of 10 | [01](a.md) |",
        "| c d | 20 | 5.00 | ∞ | +1.0 [0.1, 2.0] | – | [01](a.md) |",
    ]


def test_text_is_no_wider_than_a_screen_and_loses_nothing():
    frame = pd.DataFrame({"method": ["a", "b"]} | {f"c{n}": [f"{n}a", f"{n}b"] for n in range(29)})
    blocks = tables.as_text(frame, width=40).split("\n\n")
    assert all(max(map(len, block.splitlines())) <= 40 for block in blocks)
    assert {tuple(line[0] for line in block.splitlines()) for block in blocks} == {("m", "a", "b")}
    assert set(frame.to_numpy().ravel()) <= set(" ".join(blocks).split())
    heads = [block.splitlines()[0] for block in tables.as_text(frame, 40, together=3).split("\n\n")]
    assert {head.count("c") % 3 for head in heads[:-1]} == {0}
    assert tables.as_text("one **holds** sentence\ntwo", width=12) == "one holds\n  sentence\ntwo"


@pytest.fixture
def hdr_rows():
    """Ten scenes; the chain is 1 dB and 2 Q above the curve; one scene has no clipped pixel."""
    shifts = {"masia": -9, "tone_curve": 0, "deep_chain": 1}
    rows = pd.DataFrame({"method": m, "n": n, "by": by} for m, by in shifts.items() for n in range(10))
    values = {"psnr": 25 + rows["n"] + rows["by"], "hdrvdp2_q": 45 + 2 * rows["n"] + 2 * rows["by"]}
    values |= {"pu21_psnr": 20 + rows["n"] + rows["by"], "log_rmse_unclipped": 0.1}
    values["log_rmse_clipped"] = (0.3 - rows["by"] / 100).mask(rows["n"] == 9)
    return rows.assign(dataset="mini", scene="s" + rows["n"].astype(str), **values)


def test_table_5_has_the_difference_to_the_tone_curve_first_then_the_papers_numbers(hdr_rows):
    table = tables.table5_frame(hdr_rows).set_index("method")
    assert list(table.index) == ["tone curve", "Masia [24]", "deep chain, our recipe"]
    line = table.loc["deep chain, our recipe"]
    values = [26 + number for number in range(10)]
    mean, sigma = statistics.mean(values), statistics.stdev(values)
    assert list(line)[:3] == ["+1.00 [1.00, 1.00]", "30.86 ± 3.36", f"{mean:.2f} ± {sigma:.2f}"]
    low, high = map(float, line["PSNR (dB), 95 % interval"].strip("[]").split(","))
    assert mean - sigma < low < mean < high < mean + sigma
    assert tables.table5_text(hdr_rows).startswith("Table 5, mini, 12 test views\n")
    detail = tables.table5_detail(hdr_rows).set_index("method").loc["tone curve"]
    assert detail["log error, clipped (n = 9)"] == "0.300"
    assert detail["PU21-PSNR minus tone curve"] == "–"


def test_pairs_leave_out_what_a_scene_does_not_have_and_the_family_is_fixed(hdr_rows):
    extra = hdr_rows[hdr_rows["method"] == "masia"].assign(method="another")
    table = tables.paired_frame(pd.concat([hdr_rows, extra]))
    table = table.set_index("deep chain, our recipe minus")
    assert list(table.index) == ["tone curve", "Masia [24]"]
    line = table.loc["tone curve"]
    assert list(line)[:3] == ["+1.00 [1.00, 1.00]", f"{4 / 2**10:.3f}", "supported"]
    assert line["PU21-PSNR (dB): better?"] == "supported, too small to be seen"
    assert line["log error, clipped (n = 9)"] == "-0.010 [-0.010, -0.010]"
    assert line["log error, clipped (n = 9): better?"] == "supported"


def test_ablation_table_has_seeds_and_the_papers_score():
    rows = read_rows(REFERENCE / "ablations" / "table2.csv")
    table = tables.ablation_frame(rows).set_index("contender")
    own, curve = (rows[rows["method"] == name] for name in ("shallow", "tone_curve"))
    seeds, images = (own.groupby(by)["psnr"].mean() for by in ("seed", "scene"))
    line = table.loc["shallow network [22]"]
    gain = images.mean() - curve["psnr"].mean()
    assert line["EV +3 minus tone curve"].startswith(f"{gain:+.2f} [")
    assert line["EV +3, paper"] == "17.52 ± 4.83"
    assert line["EV +3"] == f"{images.mean():.2f} ± {images.std():.2f}"
    assert line["EV +3, seeds"] == f"{seeds.min():.2f} … {seeds.max():.2f}"
    assert table.loc["tone curve", "EV +3, seeds"] == "–"
    sensitivity = read_rows(REFERENCE / "ablations" / "sensitivity.csv")
    assert not [name for name in tables.ablation_frame(sensitivity) if "paper" in name]
