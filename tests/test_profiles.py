"""Every profile, from training to report, on a small tree of its data made for the test."""

import csv
import os

import cv2
import numpy as np
import pytest
import yaml

from replication import files, runs
from replication.__main__ import main
from replication.data import stacks
from replication.data.stacks import load_stacks
from replication.evaluation.rows import read_rows
from replication.files import NOTEBOOKS, REFERENCE, ROOT, SHIPPED
from replication.hdr import io
from replication.model import SubNetwork, activation_for
from replication.train import Recipe, seeded
from replication.weights import save_weights, weights_path

DATASETS = {"quick": "mini", "open": "openstacks", "full": "openstacks", "paper": "vds"}
SAME = {  # as in another profile; the quick one and what needs no data are run in test_notebooks
    "quick": {"00_start_here", "01_data", "03_train_ev", "04_chain_vs_shallow", "05_mprelu_vs_prelu"},
    "full": {"00_start_here", "01_data", "04_chain_vs_shallow", "05_mprelu_vs_prelu", "07_hdr_comparison"},
    "paper": {"00_start_here"},
}
BRIEF = {
    "patches": 16,
    "scaling_scenes": 1,
    "seeds": 1,
    "scene_number": 0,
    "jobs": 1,
    "ev": -3,
    "precision": "float32",
}


def frames(number, side=176):
    """Smooth light and its seven exposures by a camera with gamma 2.2."""
    coarse = np.random.default_rng(number).uniform(-2.5, 1.5, (6, 6, 3)).astype(np.float32)
    light = 2 ** cv2.resize(coarse, (side, side))
    return light, {ev: np.uint8(255 * np.clip(light * 2.0**ev, 0, 1) ** (1 / 2.2)) for ev in range(-3, 4)}


def vds(root, layout="vds/{split}/set/{name}"):
    """The authors' folders."""
    for number in range(1, 7):
        name, split = f"t{number:02d}", "train" if number < 5 else "test"
        for ev, image in frames(number)[1].items():
            folder = root / layout.format(split=split, name=name)
            io.write_png(folder / f"{name}_{ev}EV_true.jpg.png", image)


def with_manifests(root):
    """mini and openstacks, which has two data sets, with manifests of their own."""
    splits = ["train", "train", "val", "test"]
    scenes = [("mini", f"room{n}", split) for n, split in enumerate(splits)]
    scenes += [("hdrps", f"h{n}", split) for n, split in enumerate(splits)] + [("empa", "e0", "test")]
    tables = {"mini": [("panorama", "split")], "openstacks": [("dataset", "scene", "split", "ev", "path")]}
    tables["mini_frames"] = [("scene", "panorama", "ev", "path")]
    for number, (dataset, scene, split) in enumerate(scenes):
        light, images = frames(number)
        top = "mini" if dataset == "mini" else "openstacks"
        for ev, image in images.items():
            path = f"{dataset}/{scene}/ev{ev:+d}.png".removeprefix("mini/")
            io.write_png(root / top / path, image)
            row = (scene, scene, ev, path) if dataset == "mini" else (dataset, scene, split, ev, path)
            tables["mini_frames" if dataset == "mini" else "openstacks"].append(row)
        if dataset == "mini":
            io.write_hdr(root / "mini" / scene / "radiance.exr", light)
            tables["mini_frames"].append((scene, scene, "radiance", f"{scene}/radiance.exr"))
            tables["mini"].append((scene, split))
    for name, rows in tables.items():
        with open(root / f"{name}.csv", "w", newline="") as stream:
            csv.writer(stream).writerows(rows)


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A data folder with all of it, which kernels see, too; the shipped recipe, briefly."""
    vds(tmp_path)
    with_manifests(tmp_path)
    code = f"import pathlib, replication.data.stacks as s; s.MANIFESTS = pathlib.Path({str(tmp_path)!r})"
    (tmp_path / "python").mkdir()
    (tmp_path / "python/sitecustomize.py").write_text(code)
    path = os.pathsep.join([str(ROOT), str(tmp_path / "python"), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.setenv("REPLICATION_DATA", str(tmp_path))
    monkeypatch.setattr(stacks, "MANIFESTS", tmp_path)

    def brief(value):
        if isinstance(value, dict):
            return {k: 16 if k == "patches" else brief(v) for k, v in value.items()}
        return [brief(item) for item in value] if isinstance(value, list) else value

    shipped = SHIPPED / "recipe.yaml"
    recipe = yaml.safe_load(shipped.read_text()) if shipped.exists() else {"stages": [{"patches": 1}]}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(brief(recipe)))
    monkeypatch.setattr(files, "SHIPPED", tmp_path)
    return tmp_path


def test_the_small_trees_are_read_as_the_real_ones(tmp_path, small):
    vds(tmp_path / "flat", "vds/{split}_set/{name}")
    for root in (tmp_path, tmp_path / "flat"):
        assert [one.scene for one in load_stacks("vds", "test", root=root)] == ["test-t05", "test-t06"]
        learnt = load_stacks("vds", "train", root=root) + load_stacks("vds", "val", root=root)
        assert sorted(one.scene for one in learnt) == [f"train-t0{n}" for n in (1, 2, 3, 4)]
    assert {one.dataset for one in load_stacks("openstacks", "test")} == {"hdrps", "empa"}


@pytest.mark.parametrize("name", DATASETS)
def test_profiles_run_from_training_to_report(small, name, capsys):
    out, profile = small / "out", runs.load_profile(name)
    assert profile["dataset"] == DATASETS[name]
    assert (profile["recipe"] is None) == ("03_train_ev" in profile["notebooks"])
    assert len(runs.plan(profile)) >= 8  # its parameters are those of the notebooks
    trained_here = () if profile["recipe"] or name == "quick" else (1, 2, 3, -1, -2, -3)
    for ev in trained_here:  # one of the six is trained by the run and takes the place of its file
        network = seeded(lambda ev=ev: SubNetwork(activation_for(ev)), ev)
        facts = {"ev": ev, "activation": activation_for(ev), "dataset": profile["dataset"]}
        save_weights(network, weights_path(ev, out / "weights"), facts)
    names = sorted(profile["notebooks"].keys() - {"02_model", "08_your_photo"} - SAME.get(name, set()))
    known = [runs.notebook_parameters(NOTEBOOKS / f"{one}.ipynb") for one in names]
    brief = [f"{key}={value}" for key, value in BRIEF.items() if any(key in one for one in known)]
    words = [word for one in brief for word in ("-p", one)]
    status = main(["run", *names, "--profile", name, "-o", str(out), *words])
    assert capsys.readouterr().err == ""
    assert status == 0
    text = (out / "REPORT.md").read_text()
    written = {"01": 1, "04": 2, "05": 3, "06": 4, "07": 5}
    assert all(f"## Table {written[one[:2]]}" in text for one in names if one[:2] in written)
    assert ("| Deep Chain HDRI, this run |" in text) == (name == "paper")
    rows = read_rows(out / "tables" / "table4.csv")
    tested = {"mini": {"mini"}, "openstacks": {"hdrps", "empa"}, "vds": {"vds"}}
    assert set(rows["dataset"]) == tested[DATASETS[name]]
    used = set(rows[rows["method"] == "deep_chain"]["weights_hash"])
    shipped = read_rows(REFERENCE / "tables" / "table4.csv")
    assert bool(used & set(shipped["weights_hash"])) == (name == "quick")
    assert len(list((out / "weights").glob("ev*.safetensors"))) == (0 if name == "quick" else 6)


def test_the_paper_profile_trains_by_the_papers_recipe():
    known = vars(Recipe())
    tasks = [one for one in runs.plan(runs.load_profile("paper")) if one.notebook == "03_train_ev"]
    assert len(tasks) == 6
    for task in tasks:
        values = runs.notebook_parameters(NOTEBOOKS / "03_train_ev.ipynb") | task.parameters
        assert Recipe(**{k: v for k, v in values.items() if k in known}) == Recipe()
