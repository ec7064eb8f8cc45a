"""Every profile, from training to report, on a small tree of its data made for the test."""

import csv
import os

import pytest
import yaml

from replication import files, runs
from replication.__main__ import main
from replication.data import stacks
from replication.evaluation.rows import read_rows
from replication.files import NOTEBOOKS, REFERENCE, ROOT, SHIPPED
from replication.hdr import io
from replication.model import SubNetwork, activation_for
from replication.train import Recipe, seeded
from replication.weights import save_weights, weights_path
from tests.conftest import frames, vds

DATASETS = {"quick": "mini", "open": "openstacks", "full": "openstacks", "paper": "vds"}
SHORT = {  # what differs between profiles is executed once; `make replicate` executes the quick one
    "open": ["07_hdr_comparison"],
    "full": ["03_train_ev"],
    "paper": ["03_train_ev", "06_ldr_stacks"],
}
BRIEF = {"patches": 16, "scaling_scenes": 1, "scene_number": 0, "jobs": 1, "ev": -3}


def openstacks(root):
    """Two data sets in one, with a manifest of their own."""
    rows = [("dataset", "scene", "split", "ev", "path")]
    splits = {"hdrps": ("train", "train", "val", "test"), "empa": ("test",)}
    for dataset, scene, split in ((d, n, s) for d in splits for n, s in enumerate(splits[d])):
        for ev, image in frames(scene).items():
            name = f"{dataset}{scene}"  # names of scenes are unique in openstacks
            rows.append((dataset, name, split, ev, f"{dataset}/{name}/ev{ev:+d}.png"))
            io.write_png(root / "openstacks" / rows[-1][-1], image)
    with open(root / "openstacks.csv", "w", newline="") as stream:
        csv.writer(stream).writerows(rows)


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A data folder with both, which kernels see, too; the shipped recipe, briefly."""
    vds(tmp_path)
    openstacks(tmp_path)
    code = f"import pathlib, replication.data.stacks as s; s.MANIFESTS = pathlib.Path({str(tmp_path)!r})"
    (tmp_path / "python").mkdir()
    (tmp_path / "python/sitecustomize.py").write_text(code)
    path = os.pathsep.join([str(ROOT), str(tmp_path / "python"), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.setenv("REPLICATION_DATA", str(tmp_path))
    monkeypatch.setattr(stacks, "MANIFESTS", tmp_path)
    recipe = yaml.safe_load((SHIPPED / "recipe.yaml").read_text())
    recipe["stages"] = [stage | {"patches": 16} for stage in recipe["stages"]]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    monkeypatch.setattr(files, "SHIPPED", tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", DATASETS)
def test_profiles_fit_the_notebooks(name):
    profile = runs.load_profile(name)
    assert profile["dataset"] == DATASETS[name]
    assert (profile["recipe"] is None) == ("03_train_ev" in profile["notebooks"])
    assert len(runs.plan(profile)) >= 8


@pytest.mark.parametrize("name", SHORT)
def test_profiles_run_from_training_to_report(small, name, capsys):
    out, profile = small / "out", runs.load_profile(name)
    for ev in () if profile["recipe"] else (1, 2, 3, -1, -2):  # the run trains the sixth
        network = seeded(lambda ev=ev: SubNetwork(activation_for(ev)), ev)
        facts = {"ev": ev, "activation": activation_for(ev), "dataset": profile["dataset"]}
        save_weights(network, weights_path(ev, out / "weights"), facts)
    known = [runs.notebook_parameters(NOTEBOOKS / f"{one}.ipynb") for one in SHORT[name]]
    brief = [f"{key}={value}" for key, value in BRIEF.items() if any(key in one for one in known)]
    words = [word for one in brief for word in ("-p", one)]
    assert main(["run", *SHORT[name], "--profile", name, "-o", str(out), *words]) == 0
    said = capsys.readouterr().err.splitlines()  # 16 patches are few
    assert all(line.startswith("warning: on the validation scenes, EV") for line in said)
    assert len(list((out / "weights").glob("ev*.safetensors"))) == 6
    for number, tested in {"4": {"vds"}, "5": {"hdrps", "empa"}}.items():
        path = out / "tables" / f"table{number}.csv"
        if path.exists():
            rows = read_rows(path)
            assert set(rows["dataset"]) == tested
            used = set(rows[rows["method"] == "deep_chain"]["weights_hash"])
            assert used.isdisjoint(read_rows(REFERENCE / "tables" / path.name)["weights_hash"])
            assert f"## Table {number}" in (out / "REPORT.md").read_text()


def test_the_paper_profile_trains_by_the_papers_recipe():
    known = vars(Recipe())
    tasks = [one for one in runs.plan(runs.load_profile("paper")) if one.notebook == "03_train_ev"]
    assert len(tasks) == 6
    for task in tasks:
        values = task.defaults | task.parameters
        assert Recipe(**{k: v for k, v in values.items() if k in known}) == Recipe()
