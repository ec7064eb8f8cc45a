"""Two processes on the CPU against one: the same weights; and no process waits for a lost one."""

import contextlib
import errno
import multiprocessing
import os
import queue
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from replication import parallel
from replication.data.patches import PatchSet
from replication.files import ROOT, ReplicationError
from replication.model import SubNetwork
from replication.train import Recipe, read_log, seeded, train
from replication.weights import read_safetensors, weights_path
from tests.test_cli import tiny_vds

SECONDS = 60
BASE = {"patches": 32, "batch_size": 4, "schedule": "cosine", "flips": True}
RECIPES = {
    f"{mode}-{frozen}": Recipe(**BASE, mode=mode, frozen_norm=frozen)
    for mode in ("teacher", "chained")
    for frozen in (0.0, 0.5)
}


class Doubles(PatchSet):
    """In float64, where Adam does not enlarge the rounding of gradients that are zero but for it."""

    def gather(self, *arguments):
        return {ev: patch.double() for ev, patch in super().gather(*arguments).items()}


def patches():
    rng = np.random.default_rng(0)
    base = rng.integers(0, 256, (40, 52, 3), np.uint8)
    return Doubles([{0: base, 1: base // 2 + 100, 2: base // 4 + 180}], (0, 1, 2), size=16)


def networks():
    return {
        1: seeded(lambda: SubNetwork("prelu", kernels=4), 1).double(),
        2: seeded(lambda: SubNetwork("mprelu", kernels=4), 2).double(),
    }


def trained(recipe, folder, *, stop_after=None):
    """State after training; the stopped run goes on with new networks, as a new process would."""
    if stop_after is not None:
        train(networks(), patches(), recipe, folder, log_every=2, stop_after=stop_after)
    nets = networks()
    train(nets, patches(), recipe, folder, log_every=2)
    return {
        f"{ev}.{key}": value.numpy()
        for ev, net in nets.items()
        for key, value in net.state_dict().items()
    }


def in_bfloat16(folder):
    """First and last loss of a short run of autocast, rounding and all."""
    part = patches()
    part.__class__ = PatchSet  # float32
    recipe = Recipe(patches=96, batch_size=4, precision="bfloat16")
    train({1: seeded(lambda: SubNetwork(kernels=4), 1)}, part, recipe, folder, log_every=2)
    log = read_log(folder / "log.csv")
    return log[0]["loss"], log[-1]["loss"]


def normalised(make, x, grad):
    """Output, gradients and running statistics of a normalisation of this process's share."""
    norm = make(x.shape[1]).double()
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(0.5, 2, x.shape[1]))
    x = parallel.share(x).clone().requires_grad_()
    y = norm(x)
    y.backward(parallel.share(grad))
    found = (y.detach(), x.grad, norm.weight.grad, norm.bias.grad, *norm.state_dict().values())
    return [tensor.numpy() for tensor in found]


def norm_input():
    generator = torch.Generator().manual_seed(0)
    x, grad = torch.randn(2, 4, 3, 5, 6, dtype=torch.double, generator=generator)
    return x * torch.tensor([1.0, 3, 0.2]).view(3, 1, 1) + torch.arange(4.0).view(4, 1, 1, 1), grad


def told(work, *arguments, **options):
    try:
        work(*arguments, **options)
    except ReplicationError as error:
        return str(error)
    return None


def train_on_a_full_disk(folder, rank):
    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.MonkeyPatch.context() as patched:
        if rank == 0:
            patched.setattr("replication.train.write_safetensors", refuse)
        train(networks(), patches(), Recipe(**BASE), folder)


def as_one_of_two(rank, port, folder, results):
    """All that two processes do together; the last thing is that the second one dies."""
    torch.set_num_threads(1)
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_PORT": port}
    os.environ.update({key: str(value) for key, value in place.items()}, MASTER_ADDR="127.0.0.1")
    found = {}
    with parallel.group("cpu", SECONDS) as device:
        found["place"] = (device, parallel.rank(), parallel.size())
        found["norm"] = normalised(parallel.BatchNorm2d, *norm_input())
        for name, recipe in RECIPES.items():
            found[name] = trained(recipe, folder / name)
        found["resumed"] = trained(RECIPES["chained-0.5"], folder / "resumed", stop_after=3)
        found["bfloat16"] = in_bfloat16(folder / "bfloat16")
        odd = Recipe(**BASE | {"batch_size": 5})
        found["odd"] = told(train, networks(), patches(), odd, folder / "odd")
        own = Recipe(**BASE, seed=rank)
        found["differ"] = told(train, networks(), patches(), own, folder / "differ")
        nets = networks()
        if rank == 1:
            forward = nets[2].forward
            nets[2].forward = lambda x: forward(x) * float("nan")
        found["nan"] = told(train, nets, patches(), Recipe(**BASE), folder / "nan", log_every=2)
        (folder / "broken").mkdir(exist_ok=True)
        (folder / "broken" / "checkpoint.safetensors").write_text("not one")
        found["broken"] = told(train, networks(), patches(), Recipe(**BASE), folder / "broken")
        found["full"] = told(train_on_a_full_disk, folder / "full", rank)
        if rank == 1:
            results.put((rank, found))
            results.close()
            results.join_thread()
            os._exit(9)
        found["lost"] = told(train, networks(), patches(), Recipe(**BASE), folder / "lost")
    results.put((rank, found))


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("together")


@pytest.fixture(scope="module")
def both(folder):
    """What each of two processes found."""
    context = multiprocessing.get_context("spawn")
    results, port = context.Queue(), free_port()
    workers = [
        context.Process(target=as_one_of_two, args=(rank, port, folder, results), daemon=True)
        for rank in (0, 1)
    ]
    for worker in workers:
        worker.start()
    found = {}
    try:
        while len(found) < 2 and any(worker.is_alive() for worker in workers):
            with contextlib.suppress(queue.Empty):
                found.update([results.get(timeout=1)])
    finally:
        for worker in workers:
            worker.join(5)
            worker.kill()
    assert sorted(found) == [0, 1], "a process failed; see its traceback on stderr"
    return found[0], found[1]


def test_each_process_knows_its_place(both):
    assert [found["place"] for found in both] == [("cpu", 0, 2), ("cpu", 1, 2)]
    assert (parallel.rank(), parallel.size()) == (0, 1)


def test_normalisation_of_two_shares_is_that_of_the_whole_batch(both):
    alone = normalised(nn.BatchNorm2d, *norm_input())
    (y, x_grad, weight, bias, *state), (y1, x_grad1, weight1, bias1, *state1) = (
        found["norm"] for found in both
    )
    joined = [
        np.concatenate([y, y1]),
        np.concatenate([x_grad, x_grad1]),
        weight + weight1,
        bias + bias1,
    ]
    for ours, truth in zip([*joined, *state], alone, strict=True):
        np.testing.assert_allclose(ours, truth, rtol=1e-9, atol=1e-12)
    for ours, truth in zip(state1, state, strict=True):
        np.testing.assert_array_equal(ours, truth)


@pytest.mark.parametrize("name", RECIPES)
def test_two_processes_train_the_weights_of_one(both, folder, tmp_path, name):
    alone = trained(RECIPES[name], tmp_path)
    first, second = (found[name] for found in both)
    for key, truth in alone.items():
        np.testing.assert_array_equal(first[key], second[key], err_msg=key)
        limit = 1e-5 * np.abs(truth).max()
        np.testing.assert_allclose(first[key], truth, rtol=0, atol=limit, err_msg=key)
    logs = [read_log(place / "log.csv") for place in (folder / name, tmp_path)]
    for ours, truth in zip(*logs, strict=True):
        assert ours["patches"] == truth["patches"]
        assert ours["loss"] == pytest.approx(truth["loss"], rel=1e-5)
    assert sorted(p.name for p in (folder / name).iterdir()) == ["final.safetensors", "log.csv"]


def test_two_processes_train_in_bfloat16(both, tmp_path):
    first, last = in_bfloat16(tmp_path)
    assert last < first
    for found in both:
        assert found["bfloat16"] == pytest.approx((first, last), rel=0.02)


def test_two_processes_resume_exactly(both):
    for found in both:
        once, resumed = found["chained-0.5"], found["resumed"]
        assert all(np.array_equal(once[key], resumed[key]) for key in once)


def test_an_error_is_told_by_every_process(both, folder):
    for found in both:
        assert "batch of 5 cannot be shared equally by 2 processes" in found["odd"]
        assert found["differ"] == "The processes differ in recipe or data."
        assert "diverged: the loss is not finite near step 2" in found["nan"]
        assert f"{folder / 'broken' / 'checkpoint'}.safetensors is no readable" in found["broken"]
        assert "checkpoint.safetensors: No space left on device" in found["full"]


def test_a_lost_process_is_told_and_not_waited_for(both):
    assert both[0]["lost"].startswith("Process 0 of the training lost the others")
    assert "\n" not in both[0]["lost"]


def torchrun(tmp_path, *arguments):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = os.environ | {"REPLICATION_DATA": str(tmp_path), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, "-m", "replication", "--", "train", *map(str, arguments)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )


def test_command_line_under_torchrun(tmp_path):
    tiny_vds(tmp_path)
    output = tmp_path / "out"
    arguments = ["--dataset", "vds", "--device", "cpu", "--patches", 8, "-o", output, "--ev", 1]
    done = torchrun(tmp_path, *arguments, "--batch-size", 4)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"EV +1: {weights_path(1, output)}\n"
    assert sorted(path.name for path in output.iterdir()) == ["ev+1.safetensors", "log.csv"]
    assert read_safetensors(weights_path(1, output))[1]["processes"] == "2"
