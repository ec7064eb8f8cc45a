"""The loss against hand-made numbers; the loop against itself: resume is exact, nothing is half-written."""

import errno
import functools
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from replication.data.patches import PatchSet, patch_count
from replication.files import ReplicationError
from replication.model import SubNetwork
from replication.train import (
    Recipe,
    chain_losses,
    pixel_loss,
    read_log,
    seeded,
    total_variation,
    train,
)
from replication.weights import load_weights, read_safetensors, save_weights


@pytest.fixture(scope="module")
def scenes():
    rng = np.random.default_rng(0)
    base = [
        rng.integers(0, 256, (40, 52, 3), np.uint8),
        rng.integers(0, 256, (36, 44, 3), np.uint8),
    ]
    return [{0: im, 1: im // 2 + 100, 2: im // 4 + 180, -1: im // 2} for im in base]


@pytest.fixture(scope="module")
def patches(scenes):
    return PatchSet(scenes, (0, 1, 2), size=16, stride=4)


def small(seed=0):
    return seeded(lambda: SubNetwork("mprelu", kernels=4), seed)


RECIPE = Recipe(patches=24, batch_size=2, schedule="cosine", frozen_norm=0.5, flips=True)


def test_pixel_loss_is_equation_4():
    target = torch.zeros(1, 3, 2, 2)
    inferred = torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    assert pixel_loss(inferred, target).item() == pytest.approx(
        0.6
    )  # L1 norm of a colour, mean of wh


def test_norm_2_learns_the_mean_and_norm_1_the_median():
    targets = torch.tensor([0.1, 0.1, 0.7]).reshape(3, 1, 1, 1).expand(3, 3, 4, 4)
    for norm, expected in ((1, 0.1), (2, 0.3)):
        grid = torch.linspace(0, 1, 101)
        losses = [pixel_loss(v.expand(3, 3, 4, 4), targets, norm).item() for v in grid]
        assert grid[int(np.argmin(losses))].item() == pytest.approx(expected)
    with pytest.raises(ReplicationError, match="norm"):
        Recipe(norm=3)
    with pytest.raises(ReplicationError, match="tv_weight"):
        Recipe(tv_weight=-1)


def test_total_variation_of_a_ramp():
    ramp = torch.arange(4.0).view(1, 1, 1, 4).expand(1, 1, 3, 4) / 10
    assert total_variation(ramp).item() == pytest.approx(
        3 * 3 * 0.1 / 12
    )  # 3 steps, 3 rows, 12 pixels


def test_patch_counts_of_the_paper():
    # 912x608 at stride 10 gives 4675 patches; about 39 of the 96 scenes make "about 180,000"
    assert patch_count(608, 912) == 55 * 85 == 4675
    assert 38 < 180_000 / patch_count(608, 912) < 39
    assert patch_count(63, 912) == 0


def test_patches_are_the_same_place_in_every_exposure(scenes, patches):
    assert len(patches) == 7 * 10 + 6 * 8
    indices = torch.tensor([0, 13, 70 + 9])
    images = patches.gather(indices)
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
    with pytest.raises(ReplicationError, match=r"scene 0 lacks EV \+3"):
        PatchSet(scenes, (0, 3))
    with pytest.raises(ReplicationError, match="64x64"):
        PatchSet(scenes, (0, 1))
    with pytest.raises(ReplicationError, match=r"EV \+1 has shape"):
        PatchSet([{0: scenes[0][0], 1: scenes[1][0]}], (0, 1), size=16)


def test_chained_and_teacher_losses_differ_only_in_the_input(patches):
    networks = {1: small(1).eval(), 2: small(2).eval()}
    images = patches.gather(torch.arange(3))
    with torch.no_grad():
        teacher = chain_losses(networks, images, "teacher")
        chained = chain_losses(networks, images, "chained")
        first = chain_losses({1: networks[1]}, images, "teacher")
        inferred = networks[1](images[0]).clamp(0, 1)
        second = chain_losses({2: networks[2]}, {1: inferred, 2: images[2]}, "teacher")
    torch.testing.assert_close(chained, first + second)
    assert not torch.allclose(teacher, chained)


def test_chained_loss_reaches_the_first_subnetwork_through_the_second(patches):
    networks = {1: small(1), 2: small(2)}
    chain_losses(networks, patches.gather(torch.arange(2)), "chained")[0].backward()
    with_both = networks[1].r4.weight.grad.clone()
    networks[1].zero_grad()
    chain_losses({1: networks[1]}, patches.gather(torch.arange(2)), "chained")[0].backward()
    assert not torch.allclose(with_both, networks[1].r4.weight.grad)


def test_training_learns(patches, tmp_path):
    recipe = Recipe(patches=480, batch_size=8, learning_rate=5e-3)
    train({1: small()}, patches, recipe, tmp_path, log_every=10)
    losses = [row["loss"] for row in read_log(tmp_path / "log.csv")]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("mode", ["teacher", "chained"])
def test_killed_and_resumed_equals_uninterrupted_bitwise(patches, tmp_path, mode):
    recipe = Recipe(**{**RECIPE.__dict__, "mode": mode})

    def networks():
        return {1: small(1), 2: small(2)}

    train(networks(), patches, recipe, tmp_path / "once", log_every=2)
    for _ in range(20):  # a new process each time: new networks, new optimizer
        path = train(networks(), patches, recipe, tmp_path / "often", log_every=2, stop_after=5)
        if path.name == "final.safetensors":
            break
    once, _ = read_safetensors(tmp_path / "once" / "final.safetensors")
    often, _ = read_safetensors(tmp_path / "often" / "final.safetensors")
    assert once.keys() == often.keys()
    assert all(torch.equal(once[key], often[key]) for key in once)
    steps = [[row["step"] for row in read_log(tmp_path / p / "log.csv")] for p in ("once", "often")]
    assert steps[0] == steps[1] == [2, 4, 6, 8, 10, 12]
    assert not (tmp_path / "once" / "checkpoint.safetensors").exists()


def test_interrupted_run_keeps_its_last_checkpoint(patches, tmp_path, monkeypatch):
    train({1: small()}, patches, RECIPE, tmp_path, stop_after=4)
    before = (tmp_path / "checkpoint.safetensors").read_bytes()
    calls = []

    def interrupt(*_):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return torch.zeros(2, dtype=torch.int64), None

    monkeypatch.setattr("replication.train._Order.batch", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train({1: small()}, patches, RECIPE, tmp_path)
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint.safetensors", "log.csv"]


def test_divergence_stops_with_one_sentence_and_keeps_the_checkpoint(patches, tmp_path):
    train({1: small()}, patches, RECIPE, tmp_path, stop_after=4)
    before = (tmp_path / "checkpoint.safetensors").read_bytes()
    network = small()
    original = network.forward
    network.forward = lambda x: original(x) * float("nan")
    with pytest.raises(ReplicationError, match=r"diverged.*checkpoint is .*checkpoint"):
        train({1: network}, patches, RECIPE, tmp_path)
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before


def test_frozen_normalisation_keeps_its_statistics(patches, tmp_path):
    recipe = Recipe(patches=24, batch_size=2, frozen_norm=1.0)
    network = small()
    train({1: network}, patches, recipe, tmp_path)
    assert network.features[0][1].running_mean.abs().max() == 0
    assert network.features[0][1].num_batches_tracked == 0


def test_checkpoint_of_another_recipe_is_refused(patches, tmp_path):
    train({1: small()}, patches, RECIPE, tmp_path, stop_after=2)
    with pytest.raises(ReplicationError, match="another recipe"):
        train({1: small()}, patches, Recipe(patches=24, batch_size=3), tmp_path)


def test_compiled_training_is_training(patches, tmp_path, monkeypatch):
    compiled = functools.partial(torch.compile, backend="aot_eager")  # needs no C++ compiler
    monkeypatch.setattr(torch, "compile", compiled)
    networks = [small(), small()]
    for network, options in zip(networks, ({}, {"compile": True}), strict=True):
        recipe = Recipe(
            patches=8, batch_size=2, precision="tf32", frozen_norm=0.5, learning_rate=1e-4
        )
        train({1: network}, patches, recipe, tmp_path / str(options), **options)
    x = patches.gather(torch.arange(4))[0]
    with torch.no_grad():
        torch.testing.assert_close(networks[0](x), networks[1](x), rtol=0, atol=1e-4)


def test_digest_tells_recipes_apart():
    assert Recipe().digest == Recipe(patches=18_000_000).digest != Recipe(seed=1).digest


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mode": "student"}, "Unknown mode 'student'"),
        ({"speed": 3}, "Unknown recipe key 'speed'"),
        ({"batch_size": 0}, "batch_size"),
        ({"frozen_norm": 2}, "frozen_norm"),
    ],
)
def test_bad_recipes_are_refused(values, message):
    with pytest.raises(ReplicationError, match=message):
        Recipe.of(values)


def test_weights_round_trip_with_metadata(tmp_path):
    network = small(3)
    path = save_weights(network, tmp_path / "ev-1.safetensors", {"ev": -1, "val": {"psnr": 30.5}})
    other = small(4)
    assert load_weights(other, path) == {"ev": -1, "val": {"psnr": 30.5}}
    assert all(
        torch.equal(a, b) for a, b in zip(network.parameters(), other.parameters(), strict=True)
    )


def test_broken_weights_are_one_sentence(tmp_path):
    path = save_weights(small(), tmp_path / "a.safetensors", {})
    broken = tmp_path / "b.safetensors"
    broken.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ReplicationError, match=r"b\.safetensors is no readable safetensors"):
        load_weights(small(), broken)
    with pytest.raises(ReplicationError, match="does not fit"):
        load_weights(SubNetwork("mprelu", kernels=8), path)
    with pytest.raises(ReplicationError, match="No weights at"):
        load_weights(small(), tmp_path / "none.safetensors")


def test_the_same_weights_are_the_same_bytes(tmp_path):
    network = seeded(lambda: SubNetwork("relu"), 0)
    facts = {f"fact {number} é": number for number in range(20)}
    first = save_weights(network, tmp_path / "a.safetensors", facts).read_bytes()
    again = dict(sorted(facts.items(), reverse=True))
    assert save_weights(network, tmp_path / "b.safetensors", again).read_bytes() == first
    other = SubNetwork("relu")
    assert load_weights(other, tmp_path / "a.safetensors") == facts
    for name, value in network.state_dict().items():
        assert torch.equal(other.state_dict()[name], value)


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
train({1: network}, patches, Recipe(patches=800, batch_size=2), sys.argv[1], checkpoint_seconds=0)
"""


def test_kill_9_costs_the_time_since_the_last_checkpoint_and_nothing_else(tmp_path):
    def start(folder):
        return subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path / folder)])

    whole = start("whole")
    part, checkpoint = start("part"), tmp_path / "part" / "checkpoint.safetensors"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and part.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    part.kill()
    assert part.wait() == -signal.SIGKILL
    _, metadata = read_safetensors(checkpoint)
    assert 0 < int(metadata["step"]) < 400
    assert start("part").wait(120) == whole.wait(120) == 0
    names = ("whole", "part")
    one, other = (read_safetensors(tmp_path / name / "final.safetensors")[0] for name in names)
    assert all(torch.equal(one[key], other[key]) for key in one)


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
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint.safetensors", "log.csv"]


def test_without_a_terminal_progress_is_a_line_now_and_then(patches, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("replication.train.TELL_SECONDS", 0)
    recipe = Recipe(patches=2400, batch_size=2)
    train({1: small()}, patches, recipe, tmp_path, stop_after=4, log_every=2, label="EV +1")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert re.fullmatch(
        r"EV \+1: 8 of 2,400 patches, loss \d\.\d{4}, \d+ patches/s, \d+ min left", lines[1]
    )
