"""The committed results: complete, consistent with each other, and the tables made from them."""

import numpy as np
import pytest

from replication import paper, report
from replication.baselines import tone_curve
from replication.evaluate import chain_hash
from replication.files import sha256_file
from replication.reconstruct import WEIGHTS, load_chain
from replication.train import read_log

TABLES = report.REFERENCE / "tables"
EVS = (-3, -2, -1, 1, 2, 3)

# Measured once by independent code on the same pictures: mean PSNR over scenes, RGB, range 255.
INDEPENDENT = {
    ("hdrps", "identity"): (10.18, 12.92, 18.38, 17.49, 11.44, 8.06),
    ("empa", "identity"): (9.64, 12.25, 17.68, 17.07, 11.27, 8.22),
    ("hdrps", "tone_curve_unrounded"): (28.94, 31.56, 37.02, 36.48, 32.92, 30.52),
    ("empa", "tone_curve_unrounded"): (34.39, 34.69, 36.44, 35.45, 31.70, 30.17),
}


@pytest.fixture(scope="module")
def rows():
    return report.read_rows(TABLES / "table4.csv")


def test_tables_in_readme_and_report_are_what_the_rows_say():
    report.update_tables(check=True)


def test_table_4_is_complete(rows):
    methods = {"identity", "tone_curve", "tone_curve_unrounded", "deep_chain"}
    for dataset, scenes in {"hdrps": 10, "empa": 15, "mini": 12}.items():
        part = rows[rows["dataset"] == dataset]
        assert set(part["split"]) == {"test"}
        assert set(part["method"]) == methods
        assert part.groupby(["method", "ev"])["scene"].nunique().eq(scenes).all()
        assert len(part) == scenes * len(methods) * len(EVS)


@pytest.mark.parametrize(("dataset", "method"), INDEPENDENT)
def test_baselines_agree_with_independent_code(rows, dataset, method):
    part = rows[(rows["dataset"] == dataset) & (rows["method"] == method)]
    means = part.groupby("ev")["psnr"].mean()
    np.testing.assert_allclose([means[ev] for ev in EVS], INDEPENDENT[dataset, method], atol=0.02)


def test_rows_name_the_shipped_weights_and_curves(rows):
    hashes = rows.groupby("method")["weights_hash"].unique()
    assert list(hashes["deep_chain"]) == [chain_hash(load_chain(), WEIGHTS)]
    assert list(hashes["tone_curve"]) == [sha256_file(tone_curve.REFERENCE)[:12]]
    assert list(hashes["identity"]) == ["none"]


def test_weights_are_small_and_their_logs_are_there():
    for ev in EVS:
        assert (WEIGHTS / f"ev{ev:+d}.safetensors").stat().st_size < 1_000_000
        log = read_log(report.REFERENCE / "logs" / f"ev{ev:+d}.csv")
        assert log[-1]["patches"] == load_chain().metadata[ev]["recipe"]["patches"]
        assert log[-1]["loss"] < log[0]["loss"]


def test_paper_tables_agree_with_each_other():
    # Table 2's chain is Table 4's EV +3; Table 3's MPReLU rows are Table 4's darker exposures
    assert paper.TABLE2["chain"] == paper.TABLE4[3]
    for ev in (-1, -2, -3):
        assert paper.TABLE3[ev, "mprelu"] == paper.TABLE4[ev]
