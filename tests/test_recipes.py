"""From a tiny data set to weights files that say where they come from; recipes of stages; two processes."""

import json
import os
import socket
import subprocess
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from replication import recipes
from replication.data.stacks import dataset_hash, load_stacks
from replication.files import SHIPPED, ReplicationError, sha256_file
from replication.hdr import io
from replication.model import SubNetwork
from replication.recipes import run_recipe, train_subnetworks
from replication.reconstruct import infer_stack
from replication.train import Recipe
from replication.weights import read_safetensors, save_weights, weights_path
from tests.conftest import files
from tests.conftest import vds as make_vds

BRIEF = {"dataset": "vds", "patches": 6, "batch_size": 2, "device": "cpu"}


@pytest.fixture
def vds(tmp_path, monkeypatch):
    """The paper's tree, small: three scenes of one patch each to train, one to validate."""
    monkeypatch.setenv("REPLICATION_DATA", str(tmp_path))
    make_vds(tmp_path, side=72)
    return tmp_path


def frames(root, ev):
    return sorted(root.glob(f"vds/train/set/*/*_{ev}EV_true.jpg.png"))


def facts(path):
    return {key: json.loads(value) for key, value in read_safetensors(path)[1].items()}


def assert_same(path, other, **tolerances):
    one, two = (read_safetensors(p)[0] for p in (path, other))
    torch.testing.assert_close(one, two, **tolerances or {"rtol": 0, "atol": 0})


def test_trained_weights_say_where_they_come_from(vds, capsys):
    output, options = vds / "out", BRIEF | {"seed": 2**50, "flips": True}
    written = train_subnetworks([-1], output, **options)
    assert written == {-1: output / "ev-1.safetensors"}
    assert files(output) == ["ev-1.safetensors", "log.csv"]
    found = facts(written[-1])
    assert Recipe(**found["recipe"]) == Recipe(patches=6, batch_size=2, seed=2**50, flips=True)
    assert found["dataset_hash"] == dataset_hash(load_stacks("vds", "train"))
    known = {"ev": -1, "activation": "mprelu", "dataset": "vds", "inputs": "true", "init": None}
    known |= {"device": "cpu", "processes": 1, "patches_in_data": 3}
    assert {key: found[key] for key in known} == known
    psnr = found["validation"]["psnr_db"]
    before, truth = (load_stacks("vds", "val")[0].images[ev] / 255 for ev in (0, -1))
    expected = -10 * np.log10(np.mean((before - truth) ** 2))
    assert psnr["identity"] == pytest.approx(expected, abs=1e-3)
    warned = "the unchanged image" in capsys.readouterr().err
    assert warned == (psnr["deep_chain"] < psnr["identity"])
    content = written[-1].read_bytes()
    assert train_subnetworks([-1], output, **options) == written
    assert written[-1].read_bytes() == content


@pytest.mark.parametrize("finished", [True, False])
def test_resuming_another_training_is_refused(vds, weights_folder, monkeypatch, finished):
    if not finished:
        monkeypatch.setattr(recipes, "_validation", lambda *_: 1 / 0)
    with nullcontext() if finished else pytest.raises(ZeroDivisionError):
        train_subnetworks([2], vds / "out", **BRIEF)
    others = {"activation": "relu", "init": weights_folder, "inferred_from": weights_folder}
    for key, value in (others | {"seed": 4} | ({} if finished else {"data": None})).items():
        if key == "data":
            for path in frames(vds, 3):
                Image.new("RGB", (72, 72)).save(path)
        options = BRIEF if key == "data" else BRIEF | {key: value}
        name = {"inferred_from": "inputs", "data": "dataset_hash"}.get(key, key)
        with pytest.raises(ReplicationError, match=f"was trained with another {name}"):
            train_subnetworks([2], vds / "out", **options)


def test_training_starts_from_weights_of_the_same_kind_only(vds, weights_folder, tmp_path):
    options = BRIEF | {"learning_rate": 1e-12, "frozen_norm": 1.0}
    written = train_subnetworks([1], vds / "out", init=weights_folder, **options)
    start = read_safetensors(weights_path(1, weights_folder))[0]["r4.weight"]
    torch.testing.assert_close(read_safetensors(written[1])[0]["r4.weight"], start)
    save_weights(SubNetwork("relu"), weights_path(1, tmp_path), {"ev": 1, "activation": "relu"})
    for ev, message in ((1, "is for the activation relu, not prelu"), (-1, r"No weights at .*ev-1")):
        with pytest.raises(ReplicationError, match=message):
            train_subnetworks([ev], vds / "other", init=tmp_path, **options)


def test_inferred_inputs_take_the_place_of_the_true_ones(vds, weights_folder, chain):
    inferred = train_subnetworks([2], vds / "out", inferred_from=weights_folder, **BRIEF)[2]
    assert facts(inferred)["inputs"] == "inferred"
    for photo, path in zip(frames(vds, 0), frames(vds, 1), strict=True):
        io.write_png(path, infer_stack(io.read_image(photo), chain, device="cpu")[1])
    assert_same(inferred, train_subnetworks([2], vds / "truth", **BRIEF)[2])


ORDERS = [
    ([0], {}, "EV \\+0 is the photo itself"),
    ([1, 3], {"mode": "chained"}, "no chain"),
    ([1, 2], {"inferred_from": "x"}, "one EV at a time"),
    ([1], {"activation": "swish"}, "Unknown activation 'swish'"),
]


@pytest.mark.parametrize(("evs", "options", "message"), ORDERS)
def test_bad_orders_are_refused(vds, evs, options, message):
    with pytest.raises(ReplicationError, match=message):
        train_subnetworks(evs, vds / "out", **BRIEF | options)


TINY = """
dataset: vds
stages:
  - {evs: [[1], [-1]], inputs: true, patches: 4, batch_size: 2, precision: auto, frozen_norm: 1}
  - {evs: [[2]], inputs: inferred, patches: 4, batch_size: 2, frozen_norm: 1}
  - {evs: [[1, 2]], patches: 4, batch_size: 2, learning_rate: 0.0001, frozen_norm: 1}
"""


def test_one_recipe_makes_all_weights_resumes_and_runs_in_two_processes(vds):
    """With frozen statistics, so that each process's own share of a batch does not matter."""
    recipe, output = vds / "recipe.yaml", vds / "out"
    recipe.write_text(TINY)
    written = run_recipe(recipe, output, device="cpu")
    assert written == {ev: weights_path(ev, output) for ev in (1, -1, 2)}
    last, first = facts(written[2]), facts(output / "stage2" / "ev+2.safetensors")
    assert last["recipe"]["mode"] == "chained"
    assert last["init"] == sha256_file(output / "stage2" / "ev+2.safetensors")
    assert (first["inputs"], first["init"], last["inputs"]) == ("inferred", None, "true")
    before = {path: path.read_bytes() for path in written.values()}
    (output / "stage3" / "ev+1ev+2" / "ev+1.safetensors").unlink()
    assert run_recipe(recipe, output, device="cpu") == written
    assert all(path.read_bytes() == content for path, content in before.items())

    recipe.with_name("odd.yaml").write_text(TINY.replace("batch_size: 2", "batch_size: 3"))
    code = "import sys; from replication.__main__ import main; codes = [main(['train', '--device',"
    code += " 'cpu', '--recipe', f'{name}.yaml', '-o', name]) for name in ('recipe', 'odd')];"
    code += " sys.exit(codes != [0, 2])"
    with socket.socket() as free:
        free.bind(("localhost", 0))
        shared = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(free.getsockname()[1])}
    shared |= {"WORLD_SIZE": "2", "PYTHONPATH": str(Path(recipes.__file__).parents[1])}
    start, both = partial(subprocess.Popen, [sys.executable, "-c", code], cwd=vds, stderr=-1), []
    for rank in "01":
        both.append(start(env=os.environ | shared | {"RANK": rank}))
    for process in both:
        said = process.communicate(timeout=200)[1].decode()
        assert process.returncode == 0, said
        assert "2 processes cannot share a batch of 3." in said
    assert facts(vds / "recipe" / "ev+2.safetensors")["processes"] == 2
    for ev, path in written.items():
        assert_same(weights_path(ev, vds / "recipe"), path, rtol=0, atol=2e-3)


def test_the_shipped_recipe_is_one_that_can_be_run():
    dataset, stages = recipes._read_recipe(SHIPPED / "recipe.yaml")
    alone = [([[ev], [-ev]], ev > 1) for ev in (1, 2, 3)]
    expected = "hdrps", [*alone, ([[1, 2, 3], [-1, -2, -3]], False)]
    assert (dataset, [stage[:2] for stage in stages]) == expected
    long, short = Recipe.of(stages[0][2]), Recipe.of(stages[3][2])
    assert (long.patches, long.frozen_norm, long.precision) == (400_000, 0.9, "auto")
    assert (short.patches, short.learning_rate, short.frozen_norm) == (48_000, 0.0003, 1)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("dataset:", "data:", "unknown key 'data'"),
        ("[[2]]", "[[2], [3]]", "no stage before infers the inputs of EVs .3."),
        ("learning_rate", "speed", "Unknown recipe key 'speed'"),
        ("inferred", "dreamt", "inputs are true or inferred, not 'dreamt'"),
        ("[[1], [-1]]", "[[1], [-2]]", "no chain"),
        ("[[1], [-1]]", "1", "is no training recipe"),
        ("stages:", "stages", "is no training recipe"),
    ],
)
def test_bad_recipe_files_are_one_sentence(tmp_path, old, new, message):
    path = tmp_path / "recipe.yaml"
    path.write_text(TINY.replace(old, new, 1))
    with pytest.raises(ReplicationError, match=rf"recipe\.yaml.*{message}"):
        run_recipe(path, tmp_path / "out")
