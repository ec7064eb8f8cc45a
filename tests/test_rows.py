"""Rows, summaries and tables."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pandas as pd
import pytest

from replication import paper
from replication.evaluation import rows as report
from replication.files import ReplicationError
from replication.report import tables


def row(**values):
    return {
        "table": "table4",
        "dataset": "mini",
        "split": "test",
        "scene": "001",
        "method": "identity",
        "ev": 1,
        "psnr": 20.0,
        "ssim": 0.9,
        "width": 384,
        "height": 256,
        "data_range": 255,
        "border": 0,
        "weights_hash": "none",
        "data_hash": "12345e67",
        "code_version": "0.1.0+unknown",
    } | values


@pytest.fixture
def rows():
    scores = {
        ("identity", 1): [17.1234567, 18.0, 19.5],
        ("identity", -1): [15.0, 16.0, 20.0],
        ("deep_chain", 1): [31.0, 32.0, 36.0],
        ("deep_chain", -1): [28.0, 29.5, 30.0],
    }
    return [
        row(scene=f"{number:03d}", method=method, ev=ev, psnr=psnr, ssim=psnr / 40)
        for (method, ev), values in scores.items()
        for number, psnr in enumerate(values, 1)
    ]


# --------------------------------------------------------------------------------------- rows


def test_rows_survive_the_file(rows, tmp_path):
    path = report.write_rows(tmp_path / "sub" / "rows.csv", rows)
    frame = report.read_rows(path)
    assert list(frame.columns) == [name for name in report.ROW_COLUMNS if name in rows[0]]
    assert len(frame) == 12
    first = frame.iloc[0]
    assert (first["method"], first["ev"], first["scene"]) == ("deep_chain", -1, "001")
    assert first["weights_hash"] == "none"  # no missing value
    assert first["data_hash"] == "12345e67"  # no number
    assert frame["ev"].dtype == np.int64
    assert frame["psnr"].dtype == np.float64
    found = {(r.method, r.ev, r.scene): r.psnr for r in frame.itertuples()}
    for given in rows:
        key = given["method"], given["ev"], given["scene"]
        assert found[key] == pytest.approx(given["psnr"], abs=5e-7)


def test_same_rows_give_the_same_bytes(rows, tmp_path):
    first = report.write_rows(tmp_path / "a.csv", rows).read_bytes()
    assert b"\r" not in first
    again = report.write_rows(tmp_path / "b.csv", report.read_rows(tmp_path / "a.csv"))
    assert again.read_bytes() == first
    shuffled = pd.DataFrame(rows[::-1])[list(rows[0])[::-1]]
    kept = shuffled.copy()
    assert report.write_rows(tmp_path / "c.csv", shuffled).read_bytes() == first
    pd.testing.assert_frame_equal(shuffled, kept)
    noisy = [r | {"psnr": r["psnr"] + 1e-9, "data_range": 255.0} for r in rows]
    assert report.write_rows(tmp_path / "d.csv", noisy).read_bytes() == first


def test_odd_values_are_kept(tmp_path):
    odd = [
        row(scene="NA", psnr=math.inf),
        row(scene="null", ssim=-1e-9),
        row(scene='a,"b"', data_range=1.0),
    ]
    frame = report.read_rows(report.write_rows(tmp_path / "rows.csv", odd)).set_index("scene")
    assert frame.loc["NA", "psnr"] == math.inf
    assert "-0.000000" not in (tmp_path / "rows.csv").read_text()
    assert frame.loc['a,"b"', "data_range"] == 1


def test_hdr_rows_have_no_ev(tmp_path):
    values = row(table="table5", hdrvdp2_q=56.0)
    del values["ev"], values["ssim"]
    frame = report.read_rows(report.write_rows(tmp_path / "rows.csv", [values]))
    assert list(report.summarise(frame, ["method"])) == [
        "method",
        "n",
        "psnr_mean",
        "psnr_sigma",
        "hdrvdp2_q_mean",
        "hdrvdp2_q_sigma",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"psnr": math.nan}, "row 2, column psnr: nan is not a number"),
        ({"psnr": None}, "row 2, column psnr: .* is not a number"),
        ({"psnr": "good"}, "row 2, column psnr: 'good' is not a number"),
        ({"scene": ""}, "row 2, column scene: '' is not a text"),
        ({"scene": None}, "row 2, column scene: .* is not a text"),
        ({"scene": 7}, "row 2, column scene: 7 is not a text"),
        ({"ev": 0.5}, "row 2, column ev: 0.5 is not a whole number"),
        ({"width": math.inf}, "row 2, column width: inf is not a whole number"),
        ({"pnsr": 1.0}, "unknown column pnsr; known are: table, dataset"),
        ({"scene": "001"}, "two rows for table4, mini, test, 001, identity, 1"),
    ],
)
def test_bad_rows_are_not_written(tmp_path, change, message):
    path = tmp_path / "rows.csv"
    path.write_text("old")
    bad = [row(), row(scene="002") | change]
    with pytest.raises(ReplicationError, match=message) as caught:
        report.write_rows(path, bad)
    assert str(path) in str(caught.value)
    assert path.read_text() == "old"


def test_missing_columns_and_files(rows, tmp_path):
    path = tmp_path / "rows.csv"
    with pytest.raises(ReplicationError, match="missing column code_version"):
        report.write_rows(path, pd.DataFrame(rows).drop(columns="code_version"))
    with pytest.raises(ReplicationError, match="no metric column; known are: psnr"):
        report.write_rows(path, pd.DataFrame(rows).drop(columns=["psnr", "ssim"]))
    with pytest.raises(ReplicationError, match="there are no rows"):
        report.write_rows(path, [])
    with pytest.raises(ReplicationError, match=r"Cannot read .*rows.csv"):
        report.read_rows(path)
    for text in ("", "a,b\n1,2,3,4\n5\n", "a,b\n1,2\n1,2,3\n"):
        path.write_text(text)
        with pytest.raises(ReplicationError, match="not a CSV table"):
            report.read_rows(path)
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ReplicationError, match=r"rows.csv: unknown column a"):
        report.read_rows(path)
    report.write_rows(path, rows)
    path.write_text(path.read_text().replace("18.000000", ""))
    with pytest.raises(
        ReplicationError, match=r"rows.csv: row 11, column psnr: '' is not a number"
    ):
        report.read_rows(path)


# ------------------------------------------------------------------------------------- tables


def test_summary_agrees_with_the_statistics_module(rows):
    frame = pd.DataFrame(rows)
    summary = report.summarise(frame, ["method", "ev"])
    assert len(summary) == 4
    assert list(summary["n"]) == [3] * 4
    for line in summary.itertuples():
        values = [r["psnr"] for r in rows if (r["method"], r["ev"]) == (line.method, line.ev)]
        assert line.psnr_mean == pytest.approx(statistics.mean(values))
        assert line.psnr_sigma == pytest.approx(statistics.stdev(values))  # divisor n - 1
        assert line.ssim_mean == pytest.approx(statistics.mean(values) / 40)
    assert list(report.summarise(frame)["ev"]) == [1, -1, 1, -1]
    one = report.summarise(frame[:1], ["method"], ["psnr"])
    assert one["psnr_sigma"].isna().all()
    assert list(one) == ["method", "n", "psnr_mean", "psnr_sigma"]


@pytest.mark.filterwarnings("error")
def test_summary_of_infinite_and_missing_values(rows):
    frame = pd.DataFrame([row(psnr=math.inf), row(scene="002", psnr=math.inf)])
    summary = report.summarise(frame, ["method"], ["psnr"])
    assert summary["psnr_mean"].iloc[0] == math.inf
    assert summary["psnr_sigma"].isna().all()
    with pytest.raises(ReplicationError, match="no column ms_ssim"):
        report.summarise(frame, ["method"], ["ms_ssim"])
    with pytest.raises(ReplicationError, match="empty cells in column ssim"):
        report.summarise(pd.DataFrame([row(), row(ssim=math.nan)]), ["method"])


def test_markdown_table():
    frame = pd.DataFrame(
        {
            "method": ["a|b", "c\nd", "e"],
            "n": [1, 20, 300],
            "PSNR": [1.234, 5.0, 4.999],
            "x": [math.nan, math.inf, -1.0],
        }
    )
    assert report.markdown_table(frame).splitlines() == [
        "| method | n | PSNR | x |",
        "| --- | ---: | ---: | ---: |",
        "| a\\|b | 1 | 1.23 | – |",
        "| c d | 20 | 5.00 | ∞ |",
        "| e | 300 | 5.00 | -1.00 |",
    ]
    text = report.markdown_table(frame, decimals={"PSNR": 1}, bold={"PSNR": "max", "x": "min"})
    assert text.splitlines()[1:] == [
        "| --- | ---: | ---: | ---: |",
        "| a\\|b | 1 | 1.2 | – |",
        "| c d | 20 | **5.0** | ∞ |",
        "| e | 300 | **5.0** | **-1.00** |",
    ]
    for bold in ({"PSNR": "best"}, {"SSIM": "max"}, {"method": "max"}):
        with pytest.raises(ReplicationError, match="in bold"):
            report.markdown_table(frame, bold=bold)


def test_paper_beside_ours_by_ev(rows):
    summary = report.summarise(pd.DataFrame(rows), ["method", "ev"])
    methods = {"identity": "EV 0 unchanged", "deep_chain": "Deep Chain"}
    table = report.paper_vs_ours(
        summary,
        paper.TABLE4,
        methods,
        metrics=("psnr", "ssim"),
        evs=(1, -1),
        paper_method="deep_chain",
    )
    assert report.markdown_table(table).splitlines() == [
        "| EV | method | n | PSNR (dB) paper | PSNR (dB) ours | SSIM paper | SSIM ours |",
        "| ---: | --- | ---: | ---: | ---: | ---: | ---: |",
        "| +1 | EV 0 unchanged | 3 | – | 18.21 ± 1.20 | – | 0.455 ± 0.030 |",
        "| +1 | Deep Chain | 3 | 31.90 ± 3.43 | 33.00 ± 2.65 | 0.969 ± 0.039 | 0.825 ± 0.066 |",
        "| -1 | EV 0 unchanged | 3 | – | 17.00 ± 2.65 | – | 0.425 ± 0.066 |",
        "| -1 | Deep Chain | 3 | 29.01 ± 3.83 | 29.17 ± 1.04 | 0.935 ± 0.056 | 0.729 ± 0.026 |",
    ]


def test_paper_beside_ours_for_every_table_of_the_paper():
    def summary(methods, evs, metrics):
        made = [
            row(method=method, scene=scene, **{"ev": ev}, **dict.fromkeys(metrics, 1.0))
            for method in methods
            for ev in evs
            for scene in ("a", "b")
        ]
        return report.summarise(pd.DataFrame(made), ["method", "ev"], metrics)

    def psnr(table):
        return list(table["PSNR (dB) paper"])

    one = summary(["identity"], paper.TABLE1, ["psnr"])
    table = report.paper_vs_ours(
        one, paper.TABLE1, {"identity": "EV 0"}, metrics=["psnr"], evs=[-3, 3],
        paper_method="identity",
    )  # fmt: skip
    assert psnr(table) == ["8.70", "7.62"]

    scores = ["psnr", "ssim", "ms_ssim"]
    two = summary(["shallow", "chain"], [3], scores)
    table = report.paper_vs_ours(two, paper.TABLE2, {"shallow": "[22]", "chain": "chain"})
    assert psnr(table) == ["17.52 ± 4.83", "28.18 ± 2.77"]
    assert "EV" not in table

    three = summary(["prelu", "mprelu"], [-1, -2], scores)
    names = {"prelu": "PReLU", "mprelu": "MPReLU"}
    table = report.paper_vs_ours(three, paper.TABLE3, names, evs=[-1, -2])
    assert psnr(table) == ["28.28 ± 2.96", "29.01 ± 3.83", "24.98 ± 3.92", "26.72 ± 4.54"]

    metrics = ["psnr", "hdrvdp2_q"]
    five = summary(["identity", "huo", "deep_chain"], [0], metrics)
    names = {"identity": "LDR", "huo": "[14]", "deep_chain": "Deep Chain"}
    table = report.paper_vs_ours(five, paper.TABLE5, names, metrics=metrics)
    assert psnr(table) == ["–", "18.43 ± 3.04", "30.86 ± 3.36"]
    assert list(table["VDP-Quality paper"]) == ["–", "50.00 ± 5.86", "56.36 ± 4.41"]

    with pytest.raises(ReplicationError, match=r"0 rows for masia, not one"):
        report.paper_vs_ours(five, paper.TABLE5, {"masia": "[24]"}, metrics=metrics)
    with pytest.raises(ReplicationError, match=r"2 rows for prelu, not one"):
        report.paper_vs_ours(three, paper.TABLE3, {"prelu": "PReLU"})
    with pytest.raises(ReplicationError, match="no number for identity"):
        report.paper_vs_ours(
            one, paper.TABLE1, {"identity": "EV 0"}, metrics=["psnr"], evs=[-3]
        )  # fmt: skip


# ------------------------------------------------------------------------------------- blocks


def test_update_block_changes_only_the_block(tmp_path):
    path = tmp_path / "README.md"
    head, tail = b"# T\xc3\xa4 \r\nx <!-- a:start -->", b"<!-- a:end -->  \r\nlast, no newline"
    path.write_bytes(head + b"old" + tail)
    with pytest.raises(ReplicationError, match="block a is out of date"):
        report.update_block(path, "a", "1\n2", check=True)
    assert path.read_bytes() == head + b"old" + tail
    assert report.update_block(path, "a", "\n1\n2 ±\n\n")
    assert path.read_bytes() == head + "\r\n1\r\n2 ±\r\n".encode() + tail
    assert not report.update_block(path, "a", "1\n2 ±")
    assert not report.update_block(path, "a", "1\n2 ±", check=True)
    assert [item.name for item in tmp_path.iterdir()] == ["README.md"]


@pytest.mark.parametrize(
    "text",
    [
        "nothing",
        "<!-- a:start -->",
        "<!-- a:end --> <!-- a:start -->",
        "<!-- a:start --> <!-- a:start --> <!-- a:end -->",
        "<!-- a:start --> <!-- a:end --> <!-- a:start --> <!-- a:end -->",
    ],
)
def test_update_block_needs_one_block(tmp_path, text):
    path = tmp_path / "README.md"
    path.write_text(text)
    with pytest.raises(ReplicationError, match=r"needs exactly one block from <!-- a:start -->"):
        report.update_block(path, "a", "new")
    assert path.read_text() == text


def test_update_block_refuses_markers_in_the_text_and_missing_files(tmp_path):
    path = tmp_path / "README.md"
    with pytest.raises(ReplicationError, match="Cannot read"):
        report.update_block(path, "a", "new")
    path.write_text("<!-- a:start --><!-- a:end -->")
    with pytest.raises(ReplicationError, match="exactly one block"):
        report.update_block(path, "a", "x <!-- a:end -->")


# ------------------------------------------------------------------------------------ Table 5


def hdr_row(**values):
    base = row(table="table5", hdrvdp2_q=50.0, log_rmse_clipped=0.3, log_rmse_unclipped=0.1)
    for name in ("ev", "ssim"):
        del base[name]
    return base | values


@pytest.fixture
def hdr_rows():
    """Ten scenes; the chain is 1 dB and 2 Q above the curve on each, but for one that does not clip."""
    rows = []
    for number in range(10):
        psnr, q = 25 + number, 45 + 2 * number
        for method, shift in {"masia": -9, "tone_curve": 0, "deep_chain": 1}.items():
            rows.append(
                hdr_row(
                    scene=f"s{number}",
                    method=method,
                    psnr=psnr + shift,
                    hdrvdp2_q=q + 2 * shift,
                    log_rmse_clipped=np.nan if number == 9 else 0.3 - shift / 100,
                )
            )
    return rows


def test_empty_errors_survive_the_file_and_other_cells_may_not_be_empty(hdr_rows, tmp_path):
    path = report.write_rows(tmp_path / "rows.csv", hdr_rows)
    frame = report.read_rows(path)
    assert frame["log_rmse_clipped"].isna().sum() == 3
    assert ",," in path.read_text()
    assert report.write_rows(tmp_path / "again.csv", frame).read_bytes() == path.read_bytes()
    summary = report.summarise(frame, by=["method"]).set_index("method")
    assert summary.loc["tone_curve", "log_rmse_clipped_mean"] == pytest.approx(0.3)
    hdr_rows[0]["log_rmse_unclipped"] = np.nan
    with pytest.raises(ReplicationError, match="log_rmse_unclipped"):
        report.write_rows(tmp_path / "bad.csv", hdr_rows)
    with pytest.raises(ReplicationError, match="log_rmse_clipped: 'none'"):
        report.write_rows(tmp_path / "bad.csv", [hdr_row(log_rmse_clipped="none")])


def test_table_5_has_the_papers_numbers_and_ours(hdr_rows):
    table = tables.table5_frame(pd.DataFrame(hdr_rows)).set_index("method")
    assert list(table.index) == ["tone curve", "Masia [24]", "deep chain"]  # baselines first
    assert table.loc["deep chain", "PSNR (dB), paper"] == "30.86 ± 3.36"
    assert table.loc["tone curve", "PSNR (dB), paper"] == "–"
    values = [26 + number for number in range(10)]
    mean, sigma = statistics.mean(values), statistics.stdev(values)
    assert table.loc["deep chain", "PSNR (dB), ours"] == f"{mean:.2f} ± {sigma:.2f}"
    low, high = map(float, table.loc["deep chain", "95 % interval"].strip("[]").split(","))
    assert mean - sigma < low < mean < high < mean + sigma
    text = tables.table5_text(pd.DataFrame(hdr_rows))
    assert text.startswith("mini, 12 test views, mean ± σ\n")
    assert "30.86 ± 3.36" in text


def test_text_is_no_wider_than_a_screen_and_loses_nothing():
    frame = pd.DataFrame(
        {"method": ["a", "b"]} | {f"column {n}": [f"{n}a", f"{n}b"] for n in range(9)}
    )
    text = tables.as_text(frame, width=40)
    assert max(map(len, text.splitlines())) <= 40
    blocks = [block.splitlines() for block in text.split("\n\n")]
    assert len(blocks) > 1
    for head, first, second in blocks:
        assert (head[:6], first[0], second[0]) == ("method", "a", "b")
    words = text.split()
    assert all(f"{n}{row}" in words for n in range(9) for row in "ab")
    wide = tables.as_text(frame)
    assert "\n\n" not in wide
    assert wide.split() == ["method", *" ".join(list(frame)[1:]).split(), *frame.to_numpy().ravel()]
    heads = [block.splitlines()[0] for block in tables.as_text(frame, 40, together=2).split("\n\n")]
    assert [head.count("column") for head in heads] == [2, 2, 2, 3]  # 9 = 4 pairs and one
    assert tables.as_text("one **holds** sentence\ntwo", width=12) == "one holds\n  sentence\ntwo"


def test_pairs_leave_out_what_a_scene_does_not_have(hdr_rows):
    table = tables.paired_frame(pd.DataFrame(hdr_rows)).set_index("deep chain minus")
    assert list(table.index) == ["tone curve", "Masia [24]"]
    assert table.loc["tone curve", "PSNR (dB)"] == "+1.00 [1.00, 1.00]"
    assert table.loc["Masia [24]", "VDP-Quality"] == "+20.00 [20.00, 20.00]"
    assert table.loc["tone curve", "log error, clipped"] == "-0.010 [-0.010, -0.010]"
    # ten (nine) signs of a kind: p is 2 / 2^10 (2 / 2^9), twice adjusted
    assert table.iloc[0, 1] == f"{4 / 2**10:.3f}"


def test_detail_and_verdict_are_made_from_the_numbers(hdr_rows):
    frame = pd.DataFrame(hdr_rows)
    detail = tables.table5_detail(frame).set_index("method")
    assert detail.loc["tone curve"].to_dict() == {
        "log error, unclipped": "0.100",
        "log error, clipped": "0.300",
    }
    verdict = tables.comparison_verdict(frame)
    assert verdict == (
        "mini: the chain beats 1 of the 1 inverse tone mappers in both measures, the best of them by "
        "+10.0 dB and +20.0 Q; against the tone curve it has +1.0 dB, +2.0 Q and a log error where "
        "EV 0 clips of 0.290 instead of 0.300."
    )


def test_scaling_study_has_the_protocol_first(hdr_rows):
    rows = [
        one | {"scaling": scaling, "hdrvdp2_q": one["hdrvdp2_q"] + shift}
        for one in hdr_rows
        for scaling, shift in (("maximum, truth 1000 cd/m2", 3), (tables.PROTOCOL_SCALING, 0))
    ]
    table = tables.scaling_frame(pd.DataFrame(rows))
    assert table.iloc[0].tolist() == [
        f"{tables.PROTOCOL_SCALING} (ours)",
        "54.00",
        "36.00",
        "56.00",
    ]
    assert table.iloc[1].tolist()[1:] == ["57.00", "39.00", "59.00"]
