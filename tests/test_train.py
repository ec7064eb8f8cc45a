"""The loss against hand-made numbers; the loop against itself: resume is exact, nothing is half-written."""

import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from replication import recipes
from replication import train as module
from replication.data.patches import PatchSet, patch_count
from replication.data.stacks import dataset_hash, load_stacks
from replication.files import SHIPPED, ReplicationError, locked
from replication.model import SubNetwork
from replication.recipes import run_recipe, train_subnetworks
from replication.reconstruct import infer_stack
from replication.train import (
    Recipe,
    chain_losses,
    pixel_loss,
    read_log,
    seeded,
    total_variation,
    train,
)
from replication.weights import read_safetensors, save_weights, weights_path


@pytest.fixture(scope="module")
def scenes():
    rng = np.random.default_rng(0)
    base = [rng.integers(0, 256, (height, height + 12, 3), np.uint8) for height in (40, 36)]
    return [{0: im, 1: im // 2 + 100, 2: im // 4 + 180, -1: im // 2} for im in base]


@pytest.fixture(scope="module")
def patches(scenes):
    return PatchSet(scenes, (0, 1, 2), size=16, stride=4)


def small(seed=0):
    return seeded(lambda: SubNetwork("mprelu", kernels=4), seed)


RECIPE = Recipe(patches=24, batch_size=2, schedule="cosine", frozen_norm=0.5, flips=True)
DAMAGED = "is no readable safetensors|is no whole checkpoint"


def files(folder):
    return sorted(p.name for p in folder.iterdir() if p.name != ".lock")


# ------------------------------------------------------------------------------------- losses


def test_pixel_loss_is_equation_4():
    target = torch.zeros(1, 3, 2, 2)
    inferred = torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    assert pixel_loss(inferred, target).item() == pytest.approx(0.6)  # L1 norm of a colour


@pytest.mark.parametrize(("norm", "expected"), [(1, 0.1), (2, 0.3)])
def test_norm_2_learns_the_mean_and_norm_1_the_median(norm, expected):
    targets = torch.tensor([0.1, 0.1, 0.7]).reshape(3, 1, 1, 1).expand(3, 3, 4, 4)
    grid = torch.linspace(0, 1, 101)
    losses = [pixel_loss(v.expand(3, 3, 4, 4), targets, norm).item() for v in grid]
    assert grid[int(np.argmin(losses))].item() == pytest.approx(expected)


def test_total_variation_of_a_ramp():
    ramp = torch.arange(4.0).view(1, 1, 1, 4).expand(1, 1, 3, 4) / 10
    assert total_variation(ramp).item() == pytest.approx(3 * 3 * 0.1 / 12)  # steps, rows, pixels


def test_chained_and_teacher_losses_differ_only_in_the_input(patches):
    networks = {1: small(1).eval(), 2: small(2).eval()}
    images = patches.gather(torch.arange(3))
    teacher, chained = (chain_losses(networks, images, mode) for mode in ("teacher", "chained"))
    first = chain_losses({1: networks[1]}, images, "teacher")
    inferred = networks[1](images[0]).clamp(0, 1)
    second = chain_losses({2: networks[2]}, {1: inferred, 2: images[2]}, "teacher")
    torch.testing.assert_close(chained, first + second)
    assert not torch.allclose(teacher, chained)
    (gradient,) = torch.autograd.grad(second[0], inferred)
    assert gradient.abs().max() > 0  # the loss at EV +2 reaches the first subnetwork


# ------------------------------------------------------------------------------------ patches


def test_patch_counts_of_the_paper():
    # 912x608 at stride 10 gives 4675 patches; about 39 of the 96 scenes make "about 180,000"
    assert patch_count(608, 912) == 55 * 85 == 4675
    assert 38 < 180_000 / patch_count(608, 912) < 39
    assert patch_count(63, 912) == 0


def test_patches_are_the_same_part_of_every_exposure(scenes, patches):
    assert len(patches) == 7 * 10 + 6 * 9
    images = patches.gather(torch.tensor([0, 13, 70 + 10]))
    for row, (scene, top, left) in enumerate([(0, 0, 0), (0, 4, 12), (1, 4, 4)]):
        for ev in (0, 1, 2):
            expected = scenes[scene][ev][top : top + 16, left : left + 16]
            assert np.array_equal((images[ev][row].permute(1, 2, 0) * 255).round(), expected)
    assert images[0].is_contiguous(memory_format=torch.channels_last)


def test_flips_mirror_the_patch(patches):
    flips = torch.tensor([[False, False], [True, False], [False, True], [True, True]])
    plain, down, across, both = patches.gather(torch.full((4,), 5), flips)[0]
    assert torch.equal(down, plain.flip(1))
    assert torch.equal(across, plain.flip(2))
    assert torch.equal(both, plain.flip(1, 2))


def test_patch_set_refuses_what_it_cannot_cut(scenes):
    with pytest.raises(ReplicationError, match=r"scene 0: EV \+3 is missing"):
        PatchSet(scenes, (0, 3))
    with pytest.raises(ReplicationError, match="64x64"):
        PatchSet(scenes, (0, 1))
    with pytest.raises(ReplicationError, match=r"EV \+1 has shape"):
        PatchSet([{0: scenes[0][0], 1: scenes[1][0]}], (0, 1), size=16)


@pytest.mark.parametrize("batch", [3, 7, 25])
def test_every_epoch_draws_every_patch_once_in_a_new_order(batch):
    recipe = Recipe(batch_size=batch, patches=210, seed=2**62)
    drawn = torch.cat([module._draw(10, recipe, step)[0] for step in range(210 // batch)])
    epochs = drawn[: len(drawn) // 10 * 10].view(-1, 10)
    assert torch.equal(epochs.sort(1).values, torch.arange(10).expand(len(epochs), -1))
    assert len({tuple(epoch.tolist()) for epoch in epochs}) > len(epochs) // 2


# ------------------------------------------------------------------------------------- recipe


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mode": "student"}, "Unknown mode 'student'"),
        ({"norm": 3}, "Unknown norm 3"),
        ({"speed": 3}, "Unknown recipe key 'speed'"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": "8"}, "batch_size is a whole number in .* not '8'"),
        ({"learning_rate": "1e-3"}, "learning_rate is a number"),  # how YAML reads 1e-3
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"tv_weight": -1}, "tv_weight"),
        ({"frozen_norm": 2}, "frozen_norm"),
        ({"seed": 2**63}, "seed"),
        ({"patches": 2, "batch_size": 3}, "batch_size"),
    ],
)
def test_bad_recipes_are_refused(values, message):
    with pytest.raises(ReplicationError, match=message):
        Recipe.of(values)


@pytest.mark.parametrize(("native", "used"), [(True, "bfloat16"), (False, "float32")])
def test_auto_precision_is_what_the_processor_has(monkeypatch, capsys, native, used):
    monkeypatch.setattr(module, "has_bfloat16", lambda device: native)
    assert Recipe(precision="auto").on(torch.device("cpu")).precision == used
    assert len(capsys.readouterr().out.splitlines()) == (0 if native else 1)
    assert Recipe(precision="bfloat16").on(torch.device("cpu")).precision == "bfloat16"


# --------------------------------------------------------------------------------------- loop


def test_training_learns(patches, tmp_path):
    train({1: small()}, patches, Recipe(patches=480, batch_size=8, learning_rate=5e-3), tmp_path)
    losses = [row["loss"] for row in read_log(tmp_path / "log.csv")]
    assert losses[-1] < 0.5 * losses[0]
    assert len(losses) == 30  # of 60 steps


@pytest.mark.parametrize("mode", ["teacher", "chained"])
def test_stopped_and_resumed_equals_uninterrupted_bitwise(patches, tmp_path, mode):
    recipe = dataclasses.replace(RECIPE, mode=mode)
    for name, stop in (("once", None), ("often", 5)):
        for _ in range(4):  # a new process each time: new networks, new optimizer
            networks = {1: small(1), 2: small(2)}
            path = train(networks, patches, recipe, tmp_path / name, log_every=2, stop_after=stop)
        assert files(tmp_path / name) == ["final.safetensors", "log.csv"]
        assert path.name == "final.safetensors"
    once, often = (read_safetensors(tmp_path / n / path.name)[0] for n in ("once", "often"))
    assert all(torch.equal(once[key], often[key]) for key in once)
    logs = [read_log(tmp_path / name / "log.csv") for name in ("once", "often")]
    assert [row["step"] for row in logs[0]] == [2, 4, 6, 8, 10, 12]
    for one, other in zip(*logs, strict=True):
        keys = ("step", "patches", "epoch", "learning_rate")
        assert [one[key] for key in keys] == [other[key] for key in keys]


@pytest.mark.parametrize("batch", [1, 8])
def test_the_log_of_a_long_run_stays_small(batch):
    for steps in (1, 10, 100, 1000, 30_000, 400_000, 18_000_000):
        recipe = Recipe(patches=steps * batch, batch_size=batch)
        assert min(steps, 20) <= steps // recipe.log_every <= 600


@pytest.mark.parametrize("stop", [KeyboardInterrupt, ReplicationError])
def test_an_interrupted_run_keeps_its_last_checkpoint(patches, tmp_path, monkeypatch, stop):
    train({1: small()}, patches, RECIPE, tmp_path, stop_after=4)
    before = (tmp_path / "checkpoint.safetensors").read_bytes()
    network = small()
    if stop is KeyboardInterrupt:
        monkeypatch.setattr(module, "_draw", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    else:  # a loss that is not finite
        monkeypatch.setattr(module, "for_training", lambda net: torch.nn.Sequential(net, Nan()))
    with pytest.raises(
        stop, match=None if stop is KeyboardInterrupt else r"diverged.*checkpoint is"
    ):
        train({1: network}, patches, RECIPE, tmp_path)
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before
    assert files(tmp_path) == ["checkpoint.safetensors", "log.csv"]


class Nan(torch.nn.Module):
    def forward(self, x):
        return x * float("nan")


def test_frozen_normalisation_keeps_its_statistics(patches, tmp_path):
    network = small()
    train({1: network}, patches, Recipe(patches=24, batch_size=2, frozen_norm=1.0), tmp_path)
    assert network.features[0][1].running_mean.abs().max() == 0
    assert network.features[0][1].num_batches_tracked == 0


def test_a_checkpoint_of_another_training_is_refused(patches, tmp_path):
    train({1: small()}, patches, RECIPE, tmp_path, stop_after=2, facts={"dataset": "a"})
    other = dataclasses.replace(RECIPE, seed=1)
    with pytest.raises(ReplicationError, match=r"checkpoint.* trained with another seed, 0, not 1"):
        train({1: small()}, patches, other, tmp_path, facts={"dataset": "a"})
    with pytest.raises(ReplicationError, match="trained with another dataset, a, not b"):
        train({1: small()}, patches, RECIPE, tmp_path, facts={"dataset": "b"})


@pytest.mark.parametrize("what", ["checkpoint.safetensors", "log.csv", "a part"])
def test_damaged_files_are_one_sentence(patches, tmp_path, what):
    train({1: small()}, patches, RECIPE, tmp_path, stop_after=4, log_every=2)
    path = tmp_path / ("checkpoint.safetensors" if what == "a part" else what)
    if what == "a part":
        tensors, metadata = read_safetensors(path)
        module.weights.write_safetensors(path, dict(list(tensors.items())[5:]), metadata)
    else:
        path.write_bytes(path.read_bytes()[:-80] + b"\xff,,\n")
    words = "is no readable training log" if what == "log.csv" else f"{DAMAGED}"
    with pytest.raises(ReplicationError, match=rf"{path.name} ({words})"):
        train({1: small()}, patches, RECIPE, tmp_path)


def test_two_trainings_in_one_folder_are_refused(patches, tmp_path):
    with locked(tmp_path), pytest.raises(ReplicationError, match="in use by another process"):
        train({1: small()}, patches, RECIPE, tmp_path)


def test_a_full_disk_keeps_the_last_checkpoint(patches, tmp_path, monkeypatch):
    train({1: small()}, patches, RECIPE, tmp_path, stop_after=4)
    before = (tmp_path / "checkpoint.safetensors").read_bytes()

    def full(path, data):
        with open(path, "wb") as stream:
            stream.write(data[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ReplicationError, match=r"Cannot write .*checkpoint.*: No space left"):
        train({1: small()}, patches, RECIPE, tmp_path, stop_after=2)
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before
    assert files(tmp_path) == ["checkpoint.safetensors", "log.csv"]


def test_seeded_restores_the_generators():
    state = torch.get_rng_state()
    one, other = small(2**50), small(2**50)
    assert torch.equal(one.r4.weight, other.r4.weight)
    assert torch.equal(state, torch.get_rng_state())


# -------------------------------------------------------------------------------- the data sets


def tiny_vds(root, scenes=2):
    """The paper's tree, small; with four scenes, the names put one into validation."""
    for number in range(1, scenes + 1):
        light = np.random.default_rng(number).uniform(0, 1, (66, 75, 3))
        for ev in range(-3, 4):
            image = np.rint(255 * np.clip(light * 2.0**ev, 0, 1)).astype(np.uint8)
            path = root / "vds/train_set" / f"t{number:02d}" / f"t{number:02d}_{ev}EV_true.jpg.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)


@pytest.fixture
def vds(tmp_path, monkeypatch):
    monkeypatch.setenv("REPLICATION_DATA", str(tmp_path))
    tiny_vds(tmp_path)
    return tmp_path


BRIEF = {"dataset": "vds", "patches": 6, "batch_size": 2, "device": "cpu"}


def facts(path):
    return {key: json.loads(value) for key, value in read_safetensors(path)[1].items()}


def test_trained_weights_say_where_they_come_from(vds, capsys):
    output = vds / "out"
    written = train_subnetworks([-1], output, seed=2**50, flips=True, **BRIEF)
    path = written[-1]
    assert path == output / "ev-1.safetensors"
    assert files(output) == ["ev-1.safetensors", "log.csv"]
    found = facts(path)
    assert Recipe(**found["recipe"]) == Recipe(patches=6, batch_size=2, seed=2**50, flips=True)
    assert found["dataset_hash"] == dataset_hash(load_stacks("vds", "train"))
    known = {"ev": -1, "activation": "mprelu", "dataset": "vds", "inputs": "true", "init": None}
    known |= {"device": "cpu", "processes": 1, "patches_in_data": 2}
    assert {key: found[key] for key in known} == known
    unchanged = found["validation"]["psnr_db"]["identity"]
    before, truth = (load_stacks("vds", "val")[0].images[ev] / 255 for ev in (0, -1))
    assert unchanged == pytest.approx(-10 * np.log10(np.mean((before - truth) ** 2)), abs=1e-3)
    assert ("the unchanged image" in capsys.readouterr().err) == (
        found["validation"]["psnr_db"]["deep_chain"] < unchanged
    )
    bytes_before = path.read_bytes()
    assert train_subnetworks([-1], output, seed=2**50, flips=True, **BRIEF) == written
    assert path.read_bytes() == bytes_before


@pytest.mark.parametrize("finished", [True, False])
def test_resuming_another_training_is_refused(vds, weights_folder, monkeypatch, finished):
    output = vds / "out"
    if not finished:
        monkeypatch.setattr(recipes, "_validation", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train_subnetworks([2], output, **BRIEF)
    else:
        train_subnetworks([2], output, **BRIEF)
    for name, other in (
        ("activation", {"activation": "relu"}),
        ("init", {"init": weights_folder}),
        ("inputs", {"inferred_from": weights_folder}),
        ("seed", {"seed": 4}),
    ):
        with pytest.raises(ReplicationError, match=f"was trained with another {name}"):
            train_subnetworks([2], output, **BRIEF | other)
    if not finished:
        for path in (vds / "vds/train_set").rglob("*_3EV*"):
            Image.fromarray(np.zeros((66, 75, 3), np.uint8)).save(path)
        with pytest.raises(ReplicationError, match="was trained with another dataset_hash"):
            train_subnetworks([2], output, **BRIEF)


def test_training_starts_from_weights_of_the_same_kind_only(vds, weights_folder, tmp_path):
    options = BRIEF | {"learning_rate": 1e-12, "frozen_norm": 1.0}
    written = train_subnetworks([1], vds / "out", init=weights_folder, **options)
    start = read_safetensors(weights_path(1, weights_folder))[0]["r4.weight"]
    torch.testing.assert_close(read_safetensors(written[1])[0]["r4.weight"], start)
    save_weights(SubNetwork("relu"), weights_path(1, tmp_path), {"ev": 1, "activation": "relu"})
    with pytest.raises(ReplicationError, match="is for the activation relu, not prelu"):
        train_subnetworks([1], vds / "other", init=tmp_path, **options)
    with pytest.raises(ReplicationError, match=r"No weights at .*ev-1"):
        train_subnetworks([-1], vds / "other", init=tmp_path, **options)


def test_training_on_inferred_images_is_training_with_them_for_the_true_ones(
    vds, weights_folder, chain
):
    inferred = train_subnetworks([2], vds / "out", inferred_from=weights_folder, **BRIEF)[2]
    for folder in (vds / "vds/train_set").iterdir():
        photo = np.array(Image.open(folder / f"{folder.name}_0EV_true.jpg.png"))
        image = Image.fromarray(infer_stack(photo, chain, device="cpu")[1])
        image.save(folder / f"{folder.name}_1EV_true.jpg.png")
    truth = train_subnetworks([2], vds / "truth", **BRIEF)[2]
    one, other = (read_safetensors(path)[0] for path in (inferred, truth))
    assert all(torch.equal(one[key], other[key]) for key in other)
    assert facts(inferred)["inputs"] == "inferred"


@pytest.mark.parametrize(
    ("evs", "options", "message"),
    [
        ([0], {}, "EV \\+0 is the photo itself"),
        ([1, 3], {"mode": "chained"}, "no chain"),
        ([1, 2], {"inferred_from": "x"}, "one EV at a time"),
        ([1], {"threads": 0}, "threads must be positive"),
        ([1], {"device": "abacus"}, "Unknown device"),
        ([1], {"activation": "swish"}, "Unknown activation 'swish'"),
    ],
)
def test_bad_orders_are_refused(vds, evs, options, message):
    with pytest.raises(ReplicationError, match=message):
        train_subnetworks(evs, vds / "out", **BRIEF | options)


# -------------------------------------------------------------------------------- recipe files

TINY = """
dataset: vds
stages:
  - {evs: [[1], [-1]], inputs: true, patches: 4, batch_size: 2, precision: auto}
  - {evs: [[2]], inputs: inferred, patches: 4}
  - {evs: [[1, 2]], patches: 4, learning_rate: 0.0001}
"""


def test_one_recipe_makes_all_weights_and_resumes(vds, monkeypatch):
    monkeypatch.setattr(recipes, "usable_cores", lambda: 1)
    recipe, output = vds / "recipe.yaml", vds / "out"
    recipe.write_text(TINY)
    written = run_recipe(recipe, output, device="cpu")
    assert written == {ev: weights_path(ev, output) for ev in (1, -1, 2)}
    last, first = facts(written[2]), facts(output / "stage2" / "ev+2.safetensors")
    assert last["recipe"]["mode"] == "chained"
    assert last["init"] == module.sha256_file(output / "stage2" / "ev+2.safetensors")
    assert (first["inputs"], first["init"], last["inputs"]) == ("inferred", None, "true")
    before = {path: path.read_bytes() for path in written.values()}
    (output / "stage3" / "ev+1ev+2" / "ev+1.safetensors").unlink()
    assert run_recipe(recipe, output, device="cpu") == written
    assert all(path.read_bytes() == content for path, content in before.items())


def test_the_shipped_recipe_is_one_that_can_be_run():
    dataset, stages = module._read_recipe(SHIPPED / "recipe.yaml")
    assert dataset == "hdrps"
    assert [(groups, inferred) for groups, inferred, _ in stages] == [
        ([[1], [-1]], False),
        ([[2], [-2]], True),
        ([[3], [-3]], True),
        ([[1, 2, 3], [-1, -2, -3]], False),
    ]
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


# --------------------------------------------------------------------------- several processes

KILLED = """
import sys
from replication.data.patches import PatchSet
from replication.model import SubNetwork
from replication.train import Recipe, seeded, train
import numpy as np, torch
torch.set_num_threads(1)
image = np.random.default_rng(0).integers(0, 256, (40, 52, 3), np.uint8)
patches = PatchSet([{0: image, 1: image // 2 + 100}], (0, 1), size=16, stride=4)
network = seeded(lambda: SubNetwork("relu", kernels=2), 0)
train({1: network}, patches, Recipe(patches=160, batch_size=2), sys.argv[1], checkpoint_seconds=0)
"""


def test_a_killed_run_goes_on_where_it_was(tmp_path):
    def start(folder):
        return subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path / folder)])

    whole = start("whole")
    part, checkpoint = start("part"), tmp_path / "part" / "checkpoint.safetensors"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and part.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    part.send_signal(signal.SIGTERM)
    assert part.wait() == -signal.SIGTERM
    assert 0 < int(read_safetensors(checkpoint)[1]["step"]) < 80
    assert start("part").wait(120) == whole.wait(120) == 0
    one, other = (
        read_safetensors(tmp_path / n / "final.safetensors")[0] for n in ("whole", "part")
    )
    assert all(torch.equal(one[key], other[key]) for key in one)


TOGETHER = """
import sys
from replication.files import ReplicationError
from replication.recipes import train_subnetworks
for batch, folder in ((4, "even"), (3, "odd")):
    try:
        train_subnetworks([1, 2], sys.argv[1] + folder, dataset="vds", patches=12, batch_size=batch,
                          mode="chained", frozen_norm=1.0, device="cpu", threads=1)
    except ReplicationError as error:
        print(error, file=sys.stderr)
"""


def test_two_processes_train_the_weights_of_one(vds):
    """With frozen statistics, so that each process's own share does not matter."""
    script = vds / "together.py"
    script.write_text(TOGETHER)
    run = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", script, f"{vds}/two-"]
    path = os.pathsep.join(
        [str(Path(module.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    command = [sys.executable, "-m", *map(str, run)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "A batch of 3 cannot be shared equally by 2 processes." in done.stderr
    two = weights_path(1, vds / "two-even")
    options = BRIEF | {"patches": 12, "batch_size": 4, "frozen_norm": 1.0, "mode": "chained"}
    one = train_subnetworks([1, 2], vds / "one", **options)[1]
    assert (facts(two)["processes"], facts(one)["processes"]) == (2, 1)
    assert files(vds / "two-even") == ["ev+1.safetensors", "ev+2.safetensors", "log.csv"]
    states = [read_safetensors(path)[0] for path in (one, two)]
    for key in states[0]:
        torch.testing.assert_close(*(state[key] for state in states), rtol=0, atol=2e-3, msg=key)
    logs = [read_log(vds / name / "log.csv") for name in ("one", "two-even")]
    for ours, truth in zip(*logs, strict=True):
        assert ours["loss"] == pytest.approx(truth["loss"], rel=1e-3)
