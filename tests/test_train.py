"""The loss against hand-made numbers; the loop against itself: resume is exact, nothing is half-written."""

import dataclasses
import errno
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from replication import train as module
from replication.data.patches import PatchSet
from replication.files import ReplicationError, locked
from replication.train import Recipe, chain_losses, pixel_loss, read_log, train
from replication.weights import read_safetensors, write_safetensors
from tests.conftest import files, small


@pytest.fixture(scope="module")
def scenes():
    rng = np.random.default_rng(0)
    base = [rng.integers(0, 256, (height, height + 12, 3), np.uint8) for height in (40, 36)]
    return [{0: im, 1: im // 2 + 100, 2: im // 4 + 180, -1: im // 2} for im in base]


@pytest.fixture(scope="module")
def patches(scenes):
    return PatchSet(scenes, (0, 1, 2), size=16, stride=4)


RECIPE = Recipe(patches=24, batch_size=2, schedule="cosine", frozen_norm=0.5, flips=True)


# ------------------------------------------------------------------------------------- losses


@pytest.mark.parametrize(("norm", "expected"), [(1, 0.1), (2, 0.3)])
def test_norm_2_learns_the_mean_and_norm_1_the_median(norm, expected):
    targets = torch.tensor([0.1, 0.1, 0.7]).reshape(3, 1, 1, 1).expand(3, 3, 4, 4)
    grid = torch.linspace(0, 1, 101)
    losses = [pixel_loss(v.expand(3, 3, 4, 4), targets, norm).item() for v in grid]
    assert grid[int(np.argmin(losses))].item() == pytest.approx(expected)


def test_a_chained_loss_is_that_of_the_clamped_inferred_image(patches):
    networks, images = {ev: small(seed=ev).eval() for ev in (1, 2)}, patches.gather(torch.arange(3))
    first = chain_losses({1: networks[1]}, images, "teacher")
    inferred = networks[1](images[0]).clamp(0, 1)
    second = chain_losses({2: networks[2]}, {1: inferred, 2: images[2]}, "teacher")
    torch.testing.assert_close(chain_losses(networks, images, "chained"), first + second)
    (gradient,) = torch.autograd.grad(second[0], inferred)
    assert gradient.abs().max() > 0  # it reaches the network before


# ------------------------------------------------------------------------------------ patches


def test_patches_are_the_same_part_of_every_exposure(scenes, patches):
    large = np.zeros((608, 912, 3), np.uint8)
    assert len(PatchSet([{0: large}, {0: large[:63]}], (0,))) == 55 * 85
    assert len(patches) == 7 * 10 + 6 * 9
    images = patches.gather(torch.tensor([0, 13, 70 + 10]))
    for row, (scene, top, left) in enumerate([(0, 0, 0), (0, 4, 12), (1, 4, 4)]):
        for ev in (0, 1, 2):
            expected = scenes[scene][ev][top : top + 16, left : left + 16]
            assert np.array_equal((images[ev][row].permute(1, 2, 0) * 255).round(), expected)
    assert images[0].is_contiguous(memory_format=torch.channels_last)


def test_flips_mirror_the_patch(patches):
    flips = torch.tensor([[False, False], [True, False], [False, True], [True, True]])
    found = patches.gather(torch.full((4,), 5), flips)[0]
    for flipped, axes in zip(found, ((), (1,), (2,), (1, 2)), strict=True):
        assert torch.equal(flipped, found[0].flip(axes))


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


BAD = [
    ({"mode": "student"}, "Unknown mode 'student'"),
    ({"batch_size": "8"}, "batch_size is a whole number in .* not '8'"),
    ({"learning_rate": "1e-3"}, "learning_rate is a number"),  # how YAML reads 1e-3
    ({"learning_rate": float("nan")}, "learning_rate"),
    ({"seed": 2**63}, "seed"),
    ({"patches": 2, "batch_size": 3}, "batch_size"),
]


@pytest.mark.parametrize(("values", "message"), BAD)
def test_bad_recipes_are_refused(values, message):
    with pytest.raises(ReplicationError, match=message):
        Recipe.of(values)


@pytest.mark.parametrize(("native", "used"), [(True, "bfloat16"), (False, "float32")])
def test_auto_precision_is_what_the_processor_has(monkeypatch, capsys, native, used):
    monkeypatch.setattr(module, "has_bfloat16", lambda device: native)
    assert Recipe(precision="auto").on(torch.device("cpu")).precision == used
    assert len(capsys.readouterr().out.splitlines()) == (0 if native else 1)


def test_the_log_of_a_long_run_stays_small():
    for steps in (1, 10, 100, 1000, 30_000, 400_000, 18_000_000):
        assert min(steps, 20) <= steps // Recipe(patches=steps).log_every <= 600


# --------------------------------------------------------------------------------------- loop


def interrupted(step, *arguments, **options):
    """Train to Ctrl-C before a step; every step before it leaves a checkpoint."""
    draw = module._draw

    def stopping(count, recipe, number):
        if number == step:
            raise KeyboardInterrupt
        return draw(count, recipe, number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHECKPOINT_SECONDS", -1)
        patch.setattr(module, "_draw", stopping)
        with pytest.raises(KeyboardInterrupt):
            train(*arguments, **options)


def test_training_learns(patches, tmp_path):
    train({1: small()}, patches, Recipe(patches=480, batch_size=8, learning_rate=5e-3), tmp_path)
    losses = [row["loss"] for row in read_log(tmp_path / "log.csv")]
    assert losses[-1] < 0.5 * losses[0]
    assert len(losses) == 30  # of 60 steps


NAMES = ("often", "once")


@pytest.mark.parametrize("mode", ["teacher", "chained"])
def test_interrupted_and_resumed_equals_uninterrupted_bitwise(patches, tmp_path, mode):
    recipe = dataclasses.replace(RECIPE, mode=mode)
    for seed, step in ((1, 5), (3, 9)):  # the second time, the weights come from the checkpoint
        networks = {1: small(seed=seed), 2: small(seed=seed + 1)}
        interrupted(step, networks, patches, recipe, tmp_path / "often")
        assert files(tmp_path / "often") == ["checkpoint.safetensors", "log.csv"]
    for name in (*NAMES, "once"):  # the third time, nothing is left to do
        final = train({1: small(seed=1), 2: small(seed=2)}, patches, recipe, tmp_path / name)
        assert files(tmp_path / name) == ["final.safetensors", "log.csv"]
    once, often = (read_safetensors(tmp_path / n / final.name)[0] for n in NAMES)
    assert all(torch.equal(once[key], often[key]) for key in once)
    assert once["model.+1.features.0.1.num_batches_tracked"] == 6  # then the statistics are frozen
    logs = [pd.read_csv(tmp_path / n / "log.csv").drop(columns="patches_per_s") for n in NAMES]
    assert logs[0].step.tolist() == list(range(1, 13))
    pd.testing.assert_frame_equal(*logs)


def full(path, data):
    with open(path, "wb") as stream:
        stream.write(data[:100])
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("fault", ["diverged", "full disk"])
def test_a_fault_keeps_the_last_good_checkpoint(patches, tmp_path, monkeypatch, fault):
    interrupted(4, {1: small()}, patches, RECIPE, tmp_path)
    before = (tmp_path / "checkpoint.safetensors").read_bytes()
    monkeypatch.setattr(module, "CHECKPOINT_SECONDS", -1)
    if fault == "diverged":
        poison = torch.nn.Threshold(float("inf"), float("nan"))
        monkeypatch.setattr(module, "for_training", lambda net: torch.nn.Sequential(net, poison))
        message = "diverged: the loss is not finite near step 5 of 12; .*checkpoint is .*/checkpoint"
    else:
        monkeypatch.setattr(Path, "write_bytes", full)
        message = "Cannot write .*checkpoint.*: No space left"
    with pytest.raises(ReplicationError, match=message):
        train({1: small()}, patches, RECIPE, tmp_path)
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before
    assert files(tmp_path) == ["checkpoint.safetensors", "log.csv"]


def test_a_checkpoint_of_another_training_is_refused(patches, tmp_path):
    interrupted(2, {1: small()}, patches, RECIPE, tmp_path, facts={"dataset": "a"})
    other = dataclasses.replace(RECIPE, seed=1)
    with pytest.raises(ReplicationError, match=r"checkpoint.* trained with another seed, 0, not 1"):
        train({1: small()}, patches, other, tmp_path, facts={"dataset": "a"})
    with pytest.raises(ReplicationError, match="trained with another dataset, a, not b"):
        train({1: small()}, patches, RECIPE, tmp_path, facts={"dataset": "b"})


def test_damaged_files_and_a_folder_in_use_are_refused(patches, tmp_path):
    interrupted(4, {1: small()}, patches, RECIPE, tmp_path)
    log, checkpoint = tmp_path / "log.csv", tmp_path / "checkpoint.safetensors"

    def refused(message):
        with pytest.raises(ReplicationError, match=message):
            train({1: small()}, patches, RECIPE, tmp_path)

    with locked(tmp_path):
        refused("in use by another process")
    log.write_bytes(log.read_bytes()[:-80] + b"\xff,,\n")
    refused(r"log\.csv is no readable training log")
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole[:-80])
    refused(r"checkpoint\.safetensors is no readable safetensors")
    checkpoint.write_bytes(whole)
    tensors, metadata = read_safetensors(checkpoint)
    write_safetensors(checkpoint, dict(list(tensors.items())[5:]), metadata)
    refused(r"checkpoint\.safetensors is no whole checkpoint")


def test_seeded_restores_the_generators():
    state = torch.get_rng_state()
    assert torch.equal(small(seed=2**50).r4.weight, small(seed=2**50).r4.weight)
    assert torch.equal(state, torch.get_rng_state())
