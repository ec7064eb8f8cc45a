"""How long the parts take: ``make benchmark`` (``pytest --benchmark-only``) times them at full size.

Without ``--benchmark-only`` each runs small, which only shows that it works. Nothing asserts a time.
`reference/BENCHMARK.md` has the results.
"""

import cv2
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from replication.baselines import huo, kovaleski_oliveira, masia
from replication.data.camera import VirtualCamera
from replication.fast import for_training
from replication.hdr import reinhard
from replication.images import to_uint8
from replication.metrics.drim import drim
from replication.metrics.hdrvdp2 import hdrvdp2
from replication.model import SubNetwork
from replication.paper import EVS, IMAGE_SIZE
from replication.provenance import usable_cores
from replication.reconstruct import infer_stack, load_chain, merge_stack
from replication.train import chain_losses, seeded

pytestmark = pytest.mark.benchmark(group="benchmarks")
ROUNDS = {"rounds": 3, "warmup_rounds": 1}


@pytest.fixture(scope="module")
def full(request):
    """Whether times are asked for; then torch may use every core, as it does for a user."""
    if not request.config.getoption("benchmark_only"):
        yield False
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(usable_cores())
    yield True
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def radiance(full):
    """A smooth scene of eight stops with some texture, of the paper's image size."""
    width, height = IMAGE_SIZE if full else (40, 30)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / width
    texture = np.random.default_rng(0).uniform(0.8, 1.25, (height, width, 3))
    return (2 ** (8 * x - 6 + 2 * np.sin(9 * y))[..., None] * texture).astype(np.float32)


@pytest.fixture(scope="module")
def frames(radiance):
    return VirtualCamera().stack(radiance)


def test_infer_stack(benchmark, frames):
    stack = benchmark.pedantic(infer_stack, (frames[0], load_chain()), {"device": "cpu"}, **ROUNDS)
    assert stack.keys() == {0, *EVS}


def test_response_and_merge_of_seven_frames(benchmark, frames):
    assert benchmark.pedantic(merge_stack, (frames,), **ROUNDS).shape == frames[0].shape


def test_reinhard_global(benchmark, radiance):
    assert benchmark.pedantic(reinhard.tone_map, (radiance,), **ROUNDS).shape == radiance.shape


# Training as in results/reference/BENCHMARK.md: "plain" is the network as the paper draws it.


class Traffic(TorchDispatchMode):
    """Adds up the bytes of all tensors that operations read and write; views cost nothing."""

    bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if not function.is_view:
            tensors = [t for t in tree_leaves((args, result)) if isinstance(t, torch.Tensor)]
            self.bytes += sum(tensor.numel() * tensor.itemsize for tensor in tensors)
        return result


def training_step(way, precision, batch, size, frozen=False):
    """A function that does one step of training, loss and update included."""
    form = torch.contiguous_format if way == "paper" else torch.channels_last
    network = seeded(SubNetwork, 0).to(memory_format=form)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.train(not frozen)
    images = {ev: torch.rand(batch, 3, size, size).to(memory_format=form) for ev in (0, 1)}
    called = for_training(network) if way == "ours" else network
    optimizer = torch.optim.Adam(network.parameters(), fused=way == "ours")

    def step():
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            parts = chain_losses({1: called}, images, "teacher")
        optimizer.zero_grad(set_to_none=True)
        parts[0].backward()
        optimizer.step()

    return step


def work(step):
    """Floating-point operations of the convolutions, and bytes that all operations move, of a step."""
    step()
    with FlopCounterMode(display=False) as counter:
        step()
    with Traffic() as traffic:
        step()
    return counter.get_total_flops(), traffic.bytes


def test_operations_of_a_step_follow_from_the_layers():
    """Forward, gradient of the weights, gradient of the input (not of the image): 2 per weight, pixel."""
    network = SubNetwork()
    weights = [m.weight.numel() for m in network.modules() if isinstance(m, nn.Conv2d)]
    operations, traffic = work(training_step("ours", "float32", 2, 16))
    assert operations == 2 * 2 * 16**2 * (3 * sum(weights) - weights[0])
    assert traffic > 4 * 2 * 16**2 * 32 * 10 * 6
    assert traffic < work(training_step("plain", "float32", 2, 16))[1]


PLAIN = [
    ("paper", "float32", 1),
    ("plain", "bfloat16", 8),
    ("plain", "float32", 8),
    ("plain", "float32", 16),
]
OURS = [("ours", form, batch) for form in ("float32", "bfloat16") for batch in (1, 8, 16, 32)]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("frozen", [False, True], ids=["live", "frozen"])
@pytest.mark.parametrize("way", PLAIN + OURS, ids=lambda way: "-".join(map(str, way)))
def test_training_speed(benchmark, full, capsys, way, frozen, threads):
    name, precision, batch = way
    if full:
        torch.set_num_threads(threads)
    step = training_step(name, precision, batch if full else 1, 64 if full else 16, frozen)
    benchmark.pedantic(step, rounds=9 if full else 1, warmup_rounds=3 if full else 0)
    if full:
        torch.set_num_threads(usable_cores())
        median = benchmark.stats.stats.median
        operations, traffic = work(step)
        line = f"{name} {precision} batch {batch}, {threads} threads, {'frozen' if frozen else 'live'}: "
        line += f"{batch / median:.1f} patches/s, {operations / median / 1e9:.0f} GFLOP/s, "
        line += f"{traffic / median / 1e9:.1f} GB/s; a patch: {operations / batch / 1e9:.2f} GFLOP, "
        with capsys.disabled():
            print(f"\n{line}{traffic / batch / 1e6:.0f} MB")


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("what", ["memory", "float32", "bfloat16"])
def test_ceiling(benchmark, full, capsys, what, threads):
    """The machine's: a = b + 2 c on arrays too large for any cache but the last, and a product."""
    torch.set_num_threads(threads if full else 1)
    if what == "memory":
        a, b, c = torch.rand(3, 2**26 if full else 16)
        cost, unit = 3 * a.numel() * 4, "GB/s"
        benchmark.pedantic(torch.add, (b, c), {"alpha": 2, "out": a}, rounds=9, warmup_rounds=2)
    else:
        side = 2048 if full else 8
        a = torch.rand(side, side).to(getattr(torch, what))
        cost, unit = 2 * side**3, "GFLOP/s"
        benchmark.pedantic(torch.mm, (a, a), rounds=9, warmup_rounds=2)
    if full:
        torch.set_num_threads(usable_cores())
        with capsys.disabled():
            speed = cost / benchmark.stats.stats.median / 1e9
            print(f"\nceiling {what}, {threads} threads: {speed:.0f} {unit}")


# The originals' seconds per megapixel under GNU Octave stand in results/reference/BENCHMARK.md.


@pytest.fixture(scope="module")
def comparison_pair(full):
    """A textured scene in cd/m2 and a noisy version, of the size that the originals were timed at."""
    height, width = (688, 912) if full else (40, 56)
    generator = np.random.default_rng(0)
    noise = generator.lognormal(3, 1.5, (height, width, 3)).astype(np.float32)
    reference = cv2.GaussianBlur(noise, (0, 0), 2) + np.float32(0.1)
    test = reference * generator.normal(1, 0.05, reference.shape).clip(0.5, 1.5)
    return test.astype(np.float32), reference


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("encoding", ["rgb-bt.709", "luminance"])
def test_hdrvdp2(benchmark, comparison_pair, encoding, dtype):
    pair = [image if encoding == "rgb-bt.709" else image[..., 1] for image in comparison_pair]
    result = benchmark.pedantic(hdrvdp2, (*pair, encoding, 33.5), {"dtype": dtype}, rounds=3)
    assert result.Q < 100


def test_drim(benchmark, comparison_pair):
    result = benchmark.pedantic(drim, (*comparison_pair, "rgb-bt.709", 33.5), rounds=3)
    assert result.P_loss.shape == comparison_pair[0].shape[:2]


@pytest.mark.parametrize("method", [huo, kovaleski_oliveira, masia], ids=lambda m: m.__name__[22:])
def test_expansion(benchmark, comparison_pair, method):
    reference = comparison_pair[1]
    ldr = to_uint8((reference / np.percentile(reference, 97)).clip(0, 1) ** (1 / 2.2))
    hdr = benchmark.pedantic(method.expand, (ldr,), rounds=5, warmup_rounds=1)
    assert hdr.shape == ldr.shape
