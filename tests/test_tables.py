"""The verdict rule case by case, and tables whose cells are computed here in another way."""

import math
import statistics

import numpy as np
import pandas as pd
import pytest

from replication import paper
from replication.evaluation.rows import read_rows
from replication.files import REFERENCE
from replication.report import drawings, tables
from replication.report.tables import verdict

SURE, UNSURE = (0.5, 1.5), (-0.5, 2.5)


@pytest.mark.parametrize(
    ("facts", "word"),
    [
        ({"difference": None}, "untested"),
        ({"difference": math.nan}, "untested"),
        ({}, "supported"),
        ({"difference": -1, "interval": (-1.5, -0.5)}, "contradicted"),
        ({"interval": UNSURE}, "inconclusive"),
        ({"interval": (0.0, 1.0)}, "inconclusive"),
        ({"interval": (math.nan, math.nan)}, "inconclusive"),
        ({"p": 0.049}, "supported"),
        ({"p": 0.05}, "inconclusive"),
        ({"p": math.nan}, "inconclusive"),
        ({"seeds": 3, "over_seeds": SURE}, "supported"),
        ({"seeds": 3, "over_seeds": UNSURE}, "inconclusive"),
        ({"seeds": 3, "over_seeds": (-1.5, -0.5)}, "inconclusive"),
        ({"seeds": 1, "over_seeds": (math.nan, math.nan)}, "inconclusive"),
        ({"moves": True}, "inconclusive"),
        ({"moves": False}, "supported"),
        ({"metric": "drim_loss"}, "contradicted"),
        ({"metric": "log_rmse_clipped", "difference": -1, "interval": (-2, -0.1)}, "supported"),
        ({"metric": "pu21_psnr"}, "supported, too small to be seen"),
        ({"metric": "pu21_psnr", "difference": 3.5, "interval": (3, 4)}, "supported"),
        ({"metric": "pu21_psnr", "difference": -1, "interval": (-2, -1)},
         "contradicted, too small to be seen"),
        ({"metric": "pu21_psnr", "interval": UNSURE}, "inconclusive"),
    ],
)  # fmt: skip
def test_verdict(facts, word):
    assert verdict(**({"difference": 1.0, "interval": SURE, "scenes": 10} | facts))[0] == word


def test_the_evidence_has_interval_scenes_seeds_and_training():
    _, text = verdict(
        1, SURE, scenes=10, seeds=3, over_seeds=UNSURE, p=0.0004, moves=True, training="9 patches"
    )
    assert text == (
        "+1.00 dB [0.50, 1.50] over 10 scenes, [-0.50, 2.50] over 3 seeds, p < 0.001, 9 patches, "
        "training loss still falling"
    )
    assert verdict(1, SURE, scenes=2, seeds=1)[1] == "+1.00 dB [0.50, 1.50] over 2 scenes, 1 seed"


def test_markdown_table():
    frame = pd.DataFrame(
        {
            "method": ["a|b", "c\nd", "e"],
            "n": [1, 20, 300],
            "PSNR": [1.234, 5.0, 4.999],
            "x": [math.nan, math.inf, -1.0],
            "gain": ["–", "+1.0 [0.1, 2.0]", "3 of 10"],
            "link": ["[01](a.ipynb)"] * 3,
        }
    )
    assert tables.markdown_table(frame).splitlines() == [
        "| method | n | PSNR | x | gain | link |",
        "|:---|---:|---:|---:|---:|:---|",
        "| a\\|b | 1 | 1.23 | – | – | [01](a.ipynb) |",
        "| c d | 20 | 5.00 | ∞ | +1.0 [0.1, 2.0] | [01](a.ipynb) |",
        "| e | 300 | 5.00 | -1.00 | 3 of 10 | [01](a.ipynb) |",
    ]
    assert "| 1.2 |" in tables.markdown_table(frame, decimals=1)


def test_text_is_no_wider_than_a_screen_and_loses_nothing():
    frame = pd.DataFrame({"method": ["a", "b"]} | {f"c{n}": [f"{n}a", f"{n}b"] for n in range(29)})
    blocks = tables.as_text(frame, width=40).split("\n\n")
    assert len(blocks) > 1
    assert all(max(map(len, block.splitlines())) <= 40 for block in blocks)
    assert [[line[0] for line in block.splitlines()] for block in blocks] == [list("mab")] * len(
        blocks
    )
    assert set(frame.to_numpy().ravel()) <= set(" ".join(blocks).split())
    heads = [block.splitlines()[0] for block in tables.as_text(frame, 40, together=3).split("\n\n")]
    assert {head.count("c") % 3 for head in heads[:-1]} == {0}
    assert tables.as_text("one **holds** sentence\ntwo", width=12) == "one holds\n  sentence\ntwo"


@pytest.fixture
def hdr_rows():
    """Ten scenes; the chain is 1 dB and 2 Q above the curve; one scene has no clipped pixel."""
    return pd.DataFrame(
        {
            "dataset": "mini",
            "scene": f"s{number}",
            "method": method,
            "psnr": 25 + number + shift,
            "hdrvdp2_q": 45 + 2 * number + 2 * shift,
            "pu21_psnr": 20 + number + shift,
            "log_rmse_unclipped": 0.1,
            "log_rmse_clipped": np.nan if number == 9 else 0.3 - shift / 100,
        }
        for method, shift in {"masia": -9, "tone_curve": 0, "deep_chain": 1}.items()
        for number in range(10)
    )


def test_table_5_has_the_papers_numbers_ours_and_the_difference_to_the_tone_curve_first(hdr_rows):
    frame = tables.table5_frame(hdr_rows)
    assert list(frame)[:4] == [
        "method",
        *(f"PSNR (dB), {w}" for w in ("minus tone curve", "paper", "ours")),
    ]
    table = frame.set_index("method")
    assert list(table.index) == ["tone curve", "Masia [24]", "deep chain, our recipe"]
    chain = table.loc["deep chain, our recipe"]
    values = [26 + number for number in range(10)]
    mean, sigma = statistics.mean(values), statistics.stdev(values)
    assert list(chain)[:3] == ["+1.00 [1.00, 1.00]", "30.86 ± 3.36", f"{mean:.2f} ± {sigma:.2f}"]
    low, high = map(float, chain["PSNR (dB), 95 % interval"].strip("[]").split(","))
    assert mean - sigma < low < mean < high < mean + sigma
    assert list(table.loc["tone curve"])[:2] == ["–", "–"]
    assert tables.table5_text(hdr_rows).startswith("Table 5, mini, 12 test views\n")


def test_pairs_leave_out_what_a_scene_does_not_have_and_the_family_is_fixed(hdr_rows):
    extra = hdr_rows[hdr_rows["method"] == "masia"].assign(method="another")
    table = tables.paired_frame(pd.concat([hdr_rows, extra])).set_index(
        "deep chain, our recipe minus"
    )
    assert list(table.index) == ["tone curve", "Masia [24]"]
    line = table.loc["tone curve"]
    assert list(line)[:3] == ["+1.00 [1.00, 1.00]", f"{4 / 2**10:.3f}", "supported"]
    assert line["PU21-PSNR (dB): better?"] == "supported, too small to be seen"
    assert line["log error, clipped (n = 9)"] == "-0.010 [-0.010, -0.010]"
    assert line["log error, clipped (n = 9): better?"] == "supported"
    detail = tables.table5_detail(hdr_rows).set_index("method").loc["tone curve"]
    assert detail["log error, clipped (n = 9)"] == "0.300"
    assert detail["PU21-PSNR minus tone curve"] == "–"


def test_table_4_of_the_reference():
    rows = read_rows(REFERENCE / "tables" / "table4.csv")
    rows = rows[rows["dataset"] == "empa"]
    table = tables.table4_frame(rows).set_index("method")
    assert table.index[0] == "paper, on its own data"
    assert table.iloc[0]["EV +3"] == "28.18 ± 2.77"
    psnr = rows.pivot(index=["scene", "ev"], columns="method", values="psnr")
    gain = (psnr["deep_chain"] - psnr["tone_curve"]).groupby("scene").mean()
    assert table.loc["deep chain, our recipe"].iloc[0].startswith(f"{gain.mean():+.2f} [")


def test_ablation_table_has_seeds_and_the_papers_score():
    rows = read_rows(REFERENCE / "ablations" / "table2.csv")
    table = tables.ablation_frame(rows).set_index("contender")
    own = rows[rows["method"] == "shallow"]
    seeds = own.groupby("seed")["psnr"].mean()
    images = own.groupby("scene")["psnr"].mean()
    curve = rows[rows["method"] == "tone_curve"]["psnr"].mean()
    line = table.loc["shallow network [22]"]
    assert line["EV +3 minus tone curve"].startswith(f"{images.mean() - curve:+.2f} [")
    assert line["EV +3, paper"] == "17.52 ± 4.83"
    assert line["EV +3"] == f"{images.mean():.2f} ± {images.std():.2f}"
    assert line["EV +3, seeds"] == f"{seeds.min():.2f} … {seeds.max():.2f}"
    assert table.loc["tone curve", "EV +3, seeds"] == "–"
    sensitivity = read_rows(REFERENCE / "ablations" / "sensitivity.csv")
    assert not [name for name in tables.ablation_frame(sensitivity) if "paper" in name]


def test_scaling_study_has_the_protocol_first(hdr_rows):
    rows = pd.concat(
        hdr_rows.assign(scaling=scaling, hdrvdp2_q=hdr_rows["hdrvdp2_q"] + shift)
        for scaling, shift in (("a maximum", 3), (tables.PROTOCOL_SCALING, 0))
    )
    table = tables.scaling_frame(rows)
    assert list(table["scaling of test and truth"]) == [tables.PROTOCOL_SCALING, "a maximum"]
    assert list(table["tone curve"]) == ["54.00", "57.00"]


def test_residual_table_by_hand():
    rows = [("prelu", -1, "features.0", 0.2, 0.5, None), ("prelu", -1, "features.1", 0.2, 0.7, None),
            ("prelu", -1, "r4", None, 0.9, 0.25), ("mprelu", -1, "features.0", 0.2, 0.4, None),
            ("mprelu", -1, "r4", None, 1.0, 0.75)]  # fmt: skip
    names = ["method", "ev", "block", "alpha", "negative", "negative_features"]
    table = drawings.residual_frame(pd.DataFrame(rows, columns=names))
    assert table.iloc[0, :2].tolist() == ["PReLU", "-1"]
    np.testing.assert_allclose(table.iloc[:, 2:].to_numpy(float), [[60, 90, 25], [40, 100, 75]])


def test_every_method_has_a_label_and_competitors_are_the_papers():
    assert set(tables.COMPETITORS) == paper.TABLE5.keys() - {"deep_chain"}
    assert set(tables.FAMILY) <= tables.METHODS.keys()
    for entries in (tables.METHODS, tables.CONTENDERS):
        assert len({entry.label for entry in entries.values()}) == len(entries)
