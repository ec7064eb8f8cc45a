"""The committed results: complete, consistent with each other, and equal to independent measurements."""

import subprocess

import numpy as np
import pandas as pd
import pytest

from replication.data.stacks import SHOWABLE
from replication.evaluation import radiance
from replication.evaluation.ablation import STUDIES
from replication.evaluation.rows import read_rows
from replication.files import REFERENCE, ROOT, SHIPPED, sha256_file
from replication.model import activation_for
from replication.reconstruct import load_chain
from replication.report.figures import pictures_of
from replication.report.tables import PROTOCOL_SCALING
from replication.train import Recipe, read_log
from replication.weights import FAITHFUL, WEIGHTS, chain_hash

EVS = (-3, -2, -1, 1, 2, 3)
SCENES = {"hdrps": 10, "empa": 15, "mini": 12}

# Measured once by independent code on the same pictures, mean over the test scenes: PSNR per EV (RGB,
# range 255); tone-mapped PSNR, Q, log10 luminance error where EV 0 clips and where not.
TABLE4 = {
    ("hdrps", "identity"): (10.18, 12.92, 18.38, 17.49, 11.44, 8.06),
    ("empa", "identity"): (9.64, 12.25, 17.68, 17.07, 11.27, 8.22),
    ("hdrps", "tone_curve_unrounded"): (28.94, 31.56, 37.02, 36.48, 32.92, 30.52),
    ("empa", "tone_curve_unrounded"): (34.39, 34.69, 36.44, 35.45, 31.70, 30.17),
}
# fmt: off
TABLE5 = {
    ("hdrps", "linearised"): (20.07, 47.92, 0.534, 0.222), ("empa", "linearised"): (20.45, 53.73),
    ("hdrps", "tone_curve"): (31.30, 55.40, 0.292, 0.039), ("empa", "tone_curve"): (32.50, 60.18),
    ("hdrps", "oracle_curve"): (38.00, 57.57, 0.142, 0.019), ("empa", "oracle_curve"): (38.08, 60.99),
    ("hdrps", "huo"): (18.16, 47.40, 0.375, 0.669), ("empa", "huo"): (17.95, 52.02),
    ("hdrps", "kovaleski_oliveira"): (22.09, 52.20, 0.343, 0.222),
    ("hdrps", "masia"): (18.93, 48.40, 0.450, 0.386), ("empa", "masia"): (19.24, 53.61),
    ("hdrps", "three_frames"): (35.81, 59.67, 0.184, 0.028), ("empa", "three_frames"): (37.99, 66.05),
    ("hdrps", "truth_where_clipped"): (37.19, 64.69, 0, 0.039), ("hdrps", "true_response"): (33.1, 55.0),
    ("empa", "truth_where_clipped"): (36.09, 64.55), ("empa", "true_response"): (35.0, 60.3),
    ("empa", "kovaleski_oliveira"): (21.61, 55.74),
}
# fmt: on


def read(name):
    folder = "ablations" if name in STUDIES else "tables"
    return read_rows(REFERENCE / folder / f"{name}.csv")


def test_tables_4_and_5_are_complete_and_name_weights_and_curves():
    chain, faithful = (chain_hash(load_chain(folder), folder) for folder in (WEIGHTS, FAITHFUL))
    known = {"deep_chain": chain, "deep_chain_faithful": faithful, "identity": "none"}
    known["tone_curve"] = sha256_file(SHIPPED / "tone_curve.csv")[:12]
    names = {m.name for m in radiance.photo_methods() + radiance.truth_methods()}
    methods = {"table4": {*known, "tone_curve_unrounded"}}
    methods["table5"] = names | {"deep_chain_faithful"}
    for table, evs in {"table4": 6, "table5": 1}.items():
        rows = read(table)
        assert set(rows["split"]) == {"test"}
        counts = rows.groupby(["dataset", "method"])["scene"].agg(["nunique", "size"])
        assert counts.to_dict("index") == {
            (dataset, method): {"nunique": count, "size": count * evs}
            for dataset, count in SCENES.items()
            for method in methods[table]
        }
        for method in known.keys() & methods[table]:
            assert set(rows.loc[rows["method"] == method, "weights_hash"]) == {known[method]}


def test_rows_agree_with_independent_code():
    rows = read("table4").groupby(["dataset", "method", "ev"])["psnr"].mean()
    for key, expected in TABLE4.items():
        np.testing.assert_allclose([rows[(*key, ev)] for ev in EVS], expected, atol=0.02)
    metrics = ["psnr", "hdrvdp2_q", "log_rmse_clipped", "log_rmse_unclipped"]
    rows = read("table5").groupby(["dataset", "method"])[metrics].mean()
    for key, expected in TABLE5.items():
        gap = np.abs(rows.loc[key].to_numpy()[: len(expected)] - expected)
        assert (gap <= [0.2, 0.3, 0.002, 0.002][: len(expected)]).all(), (key, gap)


def test_scaling_study_starts_from_the_protocol():
    study = read("scaling")
    own = study[study["scaling"] == PROTOCOL_SCALING]
    both = own.merge(read("table5"), on=["dataset", "scene", "method"], suffixes=("", "_table5"))
    assert len(both) == len(own) == 37 * 5
    np.testing.assert_allclose(both["hdrvdp2_q"], both["hdrvdp2_q_table5"], atol=1e-5)


@pytest.mark.parametrize("study", STUDIES)
def test_ablations_are_complete_and_have_the_tone_curve_of_table_4(study):
    rows, seeds = read(study), 2 if study == "sensitivity" else 3
    own = rows[rows["method"] != "tone_curve"]
    scored = STUDIES[study].keys() - {"chain_joint", "shallow_no_skip"}  # not trained long enough yet
    assert set(own["method"]) == scored
    assert set(rows["dataset"] + rows["split"]) == {"hdrpstest"}
    by = own.groupby(["method", "ev"])
    counts = by.agg({"seed": "nunique", "scene": "nunique", "psnr": "size"})
    assert (counts.to_numpy() == [seeds, 10, 10 * seeds]).all()
    logs = pd.read_csv(REFERENCE / "ablations" / f"{study}_logs.csv")
    for name, one in ((name, STUDIES[study][name]) for name in scored):
        seen = logs[logs["method"] == name].groupby(["seed", "ev"])["patches"].max()
        assert set(seen.index.get_level_values("ev")) == set(one.evs)
        assert len(seen) == seeds * len(one.evs)
        assert seen.nunique() == 1
    curve = rows[rows["method"] == "tone_curve"]
    both = curve.merge(read("table4"), on=["dataset", "scene", "ev", "method"], suffixes=("", "_4"))
    assert len(both) == len(curve)
    for metric, tolerance in {"psnr": 0.01, "ssim": 1e-3, "ms_ssim": 1e-3}.items():
        np.testing.assert_allclose(both[metric], both[f"{metric}_4"], atol=tolerance, rtol=0)


def test_weights_have_logs_and_the_faithful_ones_the_papers_recipe():
    for ev, facts in load_chain().metadata.items():
        log = read_log(REFERENCE / "logs" / f"ev{ev:+d}.csv")
        assert log[-1]["patches"] == facts["recipe"]["patches"]
        assert log[-1]["loss"] < log[0]["loss"]
    for ev, facts in load_chain(FAITHFUL).metadata.items():
        recipe = Recipe(**facts["recipe"])
        assert recipe == Recipe(patches=recipe.patches)
        found = facts["activation"], facts["inputs"], facts["init"]
        assert found == (activation_for(ev), "true", None)


def test_only_pictures_that_may_be_published_are_committed():
    kinds = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".gif", ".bmp", ".hdr", ".exr"}
    figures = {path for path in (REFERENCE / "figures").iterdir() if path.suffix in kinds}
    for path in figures:
        assert pictures_of(path) in {"none", *SHOWABLE}, path
        assert path.stat().st_size < 1_000_000
    if (ROOT / ".git").exists():  # a user's own photo may lie beside them
        command = ["git", "-C", ROOT, "ls-files", "-z"]
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        files = [ROOT / name for name in listed.split("\0") if name]
        assert {path for path in files if path.suffix.lower() in kinds} == figures
