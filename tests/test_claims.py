"""Verdicts follow from the rows: change the rows, and the verdict changes."""

import pytest

from replication import paper
from replication.evaluation import rows as report
from replication.report import claims, documents


@pytest.fixture
def rows(monkeypatch):
    """Lets a test change the rows that a claim is judged by: name of the file -> function."""
    changes = {}
    real = claims.read_rows

    def read(path):
        frame = real(path)
        return changes[path.stem](frame) if path.stem in changes else frame

    monkeypatch.setattr(claims, "read_rows", read)
    return changes


def shifted(method, by, metric="psnr"):
    def change(frame):
        frame.loc[frame["method"] == method, metric] += by
        return frame

    return change


def verdict(part, number=0):
    return list(part())[number][3]


def test_every_claim_has_a_verdict_and_a_notebook():
    frame = claims.claims_frame()
    words = {f"**{word}**" for word in (claims.HOLDS, claims.DIRECTION, claims.NOT, claims.MIXED)}
    assert set(frame["verdict"]) <= words
    assert frame["notebook"].str.fullmatch(r"\[0\d\]\(\.\./notebooks/0\d_\w+\.ipynb\)").all()
    for table in "12345":
        assert frame["claim"].str.contains(f"Table {table}").any()


def test_a_better_shallow_network_would_refute_the_chain(rows):
    rows["table2"] = shifted("shallow", 60)
    assert verdict(claims._table2) == claims.NOT
    rows["table2"] = shifted("shallow", -60)
    assert verdict(claims._table2) == claims.HOLDS


def test_a_large_difference_in_all_seeds_would_be_seen(rows):
    assert verdict(claims._table3) == claims.NOT
    rows["table3"] = shifted("mprelu", 1.5)
    assert verdict(claims._table3) == claims.HOLDS
    rows["table3"] = shifted("mprelu", -1.5)
    assert verdict(claims._table3) == claims.NOT


def test_worse_exposures_would_refute_table_4(rows):
    rows["table4"] = shifted("deep_chain", -15)
    assert [verdict(claims._table4, n) for n in (0, 1)] == [claims.MIXED, claims.NOT]


def test_table_5_is_judged_by_every_difference(rows):
    rows["table5"] = shifted("deep_chain", -8)
    assert verdict(claims._table5) == claims.DIRECTION
    rows["table5"] = shifted("deep_chain", -14)
    assert verdict(claims._table5) == claims.MIXED
    rows["table5"] = shifted("deep_chain", 9, "hdrvdp2_q")
    assert [verdict(claims._table5, n) for n in (1, 2)] == [claims.HOLDS, claims.HOLDS]


def test_the_papers_own_numbers_stand_beside_ours():
    text = report.markdown_table(claims.claims_frame())
    chain, shallow = (paper.TABLE2[name]["psnr"][0] for name in ("chain", "shallow"))
    assert f"{chain - shallow:+.2f} dB" in text
    assert "+0.73, +1.74, +1.75 dB" in text


def test_literature_has_the_papers_own_result_and_room_for_ours():
    own = paper.TABLE5["deep_chain"]
    assert claims.LITERATURE["Deep Chain HDRI"] == (own["psnr"][0], own["hdrvdp2_q"][0])
    frame = claims.literature_frame({"deep chain, here": (30.0, 55.0)})
    assert list(frame["method"])[-1] == "deep chain, here"
    assert frame["method"].str.contains("published").sum() == len(claims.LITERATURE)


def test_a_run_on_vds_gets_a_report_with_the_papers_and_published_values(tmp_path):
    for name in ("table1", "table4", "table5"):
        frame = report.read_rows(report.REFERENCE / "tables" / f"{name}.csv")
        mine = frame[frame["dataset"] == "hdrps"].assign(dataset="vds")
        report.write_rows(tmp_path / "tables" / f"{name}.csv", mine)
    table3 = report.read_rows(report.REFERENCE / "ablations" / "table3.csv")
    one = table3[(table3["seed"] == 0) & table3["method"].isin(["mprelu", "prelu"])]
    report.write_rows(tmp_path / "tables" / "table3.csv", one.assign(dataset="vds"))
    text = documents.write_run_report(tmp_path).read_text()
    mine = report.read_rows(tmp_path / "tables" / "table5.csv").set_index("method")
    psnr, q = mine.loc["deep_chain", ["psnr", "hdrvdp2_q"]].mean()
    assert f"| Deep Chain HDRI, this run | {psnr:.2f} | {q:.2f} |" in text
    assert "| CEVR (published) | 34.67 | 59.00 |" in text
    assert "one seed, no verdict" in text
    assert "28.18 ± 2.77" in text
    assert "nan" not in text.lower()
    assert [line for line in text.splitlines() if line.startswith("## Table")] == [
        "## Table 1: PSNR between EV 0 and the other exposures",
        "## Table 3: the activation",
        "## Table 4: inferred against true exposures",
        "## Table 5: HDR images against the true ones",
    ]


def test_a_run_without_tables_has_no_report(tmp_path):
    assert documents.write_run_report(tmp_path) is None
    assert not list(tmp_path.iterdir())
