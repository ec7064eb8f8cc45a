"""The committed results: complete, consistent with each other, and the tables made from them."""

import subprocess

import numpy as np
import pandas as pd
import pytest

from replication import paper
from replication.baselines import tone_curve
from replication.data.stacks import SHOWABLE
from replication.evaluation import radiance as comparison
from replication.evaluation import rows as report
from replication.evaluation.ablation import STUDIES
from replication.files import ROOT, sha256_file
from replication.model import activation_for
from replication.reconstruct import load_chain
from replication.report import documents, tables
from replication.report.figures import MAXIMUM_BYTES, pictures_of
from replication.train import Recipe, read_log
from replication.weights import FAITHFUL, WEIGHTS, chain_hash

TABLES = report.REFERENCE / "tables"
EVS = (-3, -2, -1, 1, 2, 3)

# Measured once by independent code on the same pictures: mean PSNR over scenes, RGB, range 255.
INDEPENDENT = {
    ("hdrps", "identity"): (10.18, 12.92, 18.38, 17.49, 11.44, 8.06),
    ("empa", "identity"): (9.64, 12.25, 17.68, 17.07, 11.27, 8.22),
    ("hdrps", "tone_curve_unrounded"): (28.94, 31.56, 37.02, 36.48, 32.92, 30.52),
    ("empa", "tone_curve_unrounded"): (34.39, 34.69, 36.44, 35.45, 31.70, 30.17),
}


# Measured once by independent code: tone-mapped PSNR, Q, log10 luminance error where EV 0 clips and
# where not (hdrps only). Mean over the test scenes.
INDEPENDENT_TABLE5 = {
    ("hdrps", "linearised"): (20.07, 47.92, 0.534, 0.222),
    ("hdrps", "tone_curve"): (31.30, 55.40, 0.292, 0.039),
    ("hdrps", "oracle_curve"): (38.00, 57.57, 0.142, 0.019),
    ("hdrps", "huo"): (18.16, 47.40, 0.375, 0.669),
    ("hdrps", "kovaleski_oliveira"): (22.09, 52.20, 0.343, 0.222),
    ("hdrps", "masia"): (18.93, 48.40, 0.450, 0.386),
    ("hdrps", "three_frames"): (35.81, 59.67, 0.184, 0.028),
    ("hdrps", "truth_where_clipped"): (37.19, 64.69, 0, 0.039),
    ("hdrps", "true_response"): (33.1, 55.0),
    ("empa", "linearised"): (20.45, 53.73),
    ("empa", "tone_curve"): (32.50, 60.18),
    ("empa", "oracle_curve"): (38.08, 60.99),
    ("empa", "huo"): (17.95, 52.02),
    ("empa", "kovaleski_oliveira"): (21.61, 55.74),
    ("empa", "masia"): (19.24, 53.61),
    ("empa", "three_frames"): (37.99, 66.05),
    ("empa", "truth_where_clipped"): (36.09, 64.55),
    ("empa", "true_response"): (35.0, 60.3),
}


@pytest.fixture(scope="module")
def table5():
    return report.read_rows(TABLES / "table5.csv")


@pytest.fixture(scope="module")
def rows():
    return report.read_rows(TABLES / "table4.csv")


def test_tables_in_readme_and_report_are_what_the_rows_say():
    documents.update_tables(check=True)


def test_table_4_is_complete(rows):
    methods = {"identity", "tone_curve", "tone_curve_unrounded", "deep_chain"}
    methods.add("deep_chain_faithful")
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


def test_table_5_is_complete(table5):
    methods = [m.name for m in comparison.photo_methods() + comparison.truth_methods()]
    methods.append("deep_chain_faithful")
    for dataset, scenes in {"hdrps": 10, "empa": 15, "mini": 12}.items():
        part = table5[table5["dataset"] == dataset]
        assert set(part["method"]) == set(methods)
        assert len(part) == scenes * len(methods)
    assert set(table5["protocol"]) == {comparison.PROTOCOL}
    chain = table5[table5["method"] == "deep_chain"]
    assert set(chain["weights_hash"]) == {chain_hash(load_chain(), WEIGHTS)}


@pytest.mark.parametrize(("dataset", "method"), INDEPENDENT_TABLE5)
def test_hdr_comparison_agrees_with_independent_code(table5, dataset, method):
    part = table5[(table5["dataset"] == dataset) & (table5["method"] == method)]
    metrics = ["psnr", "hdrvdp2_q", "log_rmse_clipped", "log_rmse_unclipped"]
    expected = INDEPENDENT_TABLE5[dataset, method]
    ours = part[metrics[: len(expected)]].mean().to_numpy()
    tolerance = np.array([0.2, 0.3, 0.002, 0.002])[: len(expected)]
    assert (np.abs(ours - expected) <= tolerance).all(), ours


def test_inverse_tone_mappers_are_near_the_papers_figures(table5):
    # other pictures, the same methods: the protocol can hardly be another
    part = table5[table5["dataset"].isin(["hdrps", "empa"])]
    for method in ("huo", "kovaleski_oliveira", "masia"):
        means = part[part["method"] == method][["psnr", "hdrvdp2_q"]].mean()
        theirs = paper.TABLE5[method]
        assert abs(means["psnr"] - theirs["psnr"][0]) < 1.5
        assert abs(means["hdrvdp2_q"] - theirs["hdrvdp2_q"][0]) < theirs["hdrvdp2_q"][1]


def test_scaling_study_starts_from_the_protocol(table5):
    study = report.read_rows(TABLES / "scaling.csv")
    own = study[study["scaling"] == tables.PROTOCOL_SCALING]
    both = own.merge(table5, on=["dataset", "scene", "method"], suffixes=("", "_table5"))
    assert len(both) == len(own) == 37 * 5
    np.testing.assert_allclose(both["hdrvdp2_q"], both["hdrvdp2_q_table5"], atol=1e-5)


@pytest.mark.parametrize("study", STUDIES)
def test_ablations_are_complete(study):
    ablation = report.read_rows(report.REFERENCE / "ablations" / f"{study}.csv")
    own = ablation[ablation["method"] != "tone_curve"]
    assert set(own["method"]) == STUDIES[study].keys()
    assert set(ablation["table"]) == {study}
    assert set(ablation["dataset"]) == {"hdrps"}
    assert set(ablation["split"]) == {"test"}
    seeds = 2 if study == "sensitivity" else 3
    runs = own.groupby(["method", "ev"]).agg(
        {"seed": "nunique", "scene": "nunique", "psnr": "size"}
    )
    assert (runs.to_numpy() == [seeds, 10, 10 * seeds]).all()
    logs = pd.read_csv(report.REFERENCE / "ablations" / f"{study}_logs.csv")
    for name, one in STUDIES[study].items():
        part = logs[logs["method"] == name]
        assert set(part["ev"]) == set(one.evs)
        seen = part.groupby(["seed", "ev"])["patches"].max()
        assert len(seen) == seeds * len(one.evs)
        assert seen.nunique() == 1


@pytest.mark.parametrize("study", STUDIES)
def test_ablations_have_the_tone_curve_of_table_4(study, rows):
    ablation = report.read_rows(report.REFERENCE / "ablations" / f"{study}.csv")
    keys = ["scene", "ev"]
    curve = ablation[ablation["method"] == "tone_curve"].set_index(keys)
    theirs = rows[(rows["dataset"] == "hdrps") & (rows["method"] == "tone_curve")].set_index(keys)
    both = curve.merge(theirs, on=keys, suffixes=("", "_table4"))
    for metric, tolerance in {"psnr": 0.01, "ssim": 1e-3, "ms_ssim": 1e-3}.items():
        np.testing.assert_allclose(both[metric], both[f"{metric}_table4"], atol=tolerance, rtol=0)
    assert (both["data_hash"] == both["data_hash_table4"]).all()


def test_rows_name_the_shipped_weights_and_curves(rows):
    hashes = rows.groupby("method")["weights_hash"].unique()
    assert list(hashes["deep_chain"]) == [chain_hash(load_chain(), WEIGHTS)]
    assert list(hashes["deep_chain_faithful"]) == [chain_hash(load_chain(FAITHFUL), FAITHFUL)]
    assert list(hashes["tone_curve"]) == [sha256_file(tone_curve.REFERENCE)[:12]]
    assert list(hashes["identity"]) == ["none"]


def test_weights_are_small_and_their_logs_are_there():
    for ev in EVS:
        assert (WEIGHTS / f"ev{ev:+d}.safetensors").stat().st_size < 1_000_000
        log = read_log(report.REFERENCE / "logs" / f"ev{ev:+d}.csv")
        assert log[-1]["patches"] == load_chain().metadata[ev]["recipe"]["patches"]
        assert log[-1]["loss"] < log[0]["loss"]


def test_faithful_weights_have_the_papers_recipe():
    for ev, facts in load_chain(FAITHFUL).metadata.items():
        recipe = Recipe(**facts["recipe"])
        assert recipe == Recipe(patches=recipe.patches)
        assert facts["activation"] == activation_for(ev)
        assert (facts["inputs"], facts["init"]) == ("true", None)


def test_paper_tables_agree_with_each_other():
    # Table 2's chain is Table 4's EV +3; Table 3's MPReLU rows are Table 4's darker exposures
    assert paper.TABLE2["chain"] == paper.TABLE4[3]
    for ev in (-1, -2, -3):
        assert paper.TABLE3[ev, "mprelu"] == paper.TABLE4[ev]


FIGURES = sorted((report.REFERENCE / "figures").glob("*.png"))
PICTURES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".gif", ".bmp", ".hdr", ".exr"}


@pytest.mark.parametrize("path", FIGURES, ids=lambda path: path.stem)
def test_committed_figures_show_only_pictures_that_may_be_published(path):
    assert pictures_of(path) in {"none", *SHOWABLE}
    assert path.stat().st_size <= MAXIMUM_BYTES


def test_no_other_pictures_are_committed():
    if (ROOT / ".git").exists():  # what lies beside them, such as a user's own photo, may stay
        listed = subprocess.run(
            ["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, text=True, check=True
        ).stdout
        files = [ROOT / name for name in listed.split("\0") if name]
    else:
        folders = ("replication", "notebooks", "tests", "results/reference")
        files = [path for name in folders for path in (ROOT / name).rglob("*")]
    assert sorted(path for path in files if path.suffix.lower() in PICTURES) == FIGURES
