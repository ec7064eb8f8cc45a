"""How long the parts take: ``make benchmark`` (``pytest --benchmark-only``) times them at full size.

Without ``--benchmark-only`` each runs small, which only shows that it works. Nothing asserts a time.
"""

import numpy as np
import pytest
import torch
from torch import nn

from replication.data.camera import VirtualCamera
from replication.hdr import debevec, reinhard
from replication.model import InferenceNetwork, MPReLU, SubNetwork
from replication.paper import EVS, IMAGE_SIZE
from replication.provenance import usable_cores
from replication.reconstruct import infer_exposure, infer_stack
from replication.train import chain_losses, seeded

pytestmark = pytest.mark.benchmark(group="benchmarks")


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


@pytest.fixture(scope="module")
def patches(full):
    count, size = (16, 64) if full else (2, 16)
    generator = torch.Generator().manual_seed(0)
    return {
        ev: torch.rand(count, 3, size, size, generator=generator).to(
            memory_format=torch.channels_last
        )
        for ev in (0, 1, -1)
    }


def test_infer_one_exposure(benchmark, chain, frames):
    network = InferenceNetwork(chain[1])
    image = benchmark.pedantic(infer_exposure, (frames[0], network), rounds=3, warmup_rounds=1)
    assert image.shape == frames[0].shape


def test_infer_stack(benchmark, chain, frames):
    stack = benchmark.pedantic(
        infer_stack, (frames[0], chain), {"device": "cpu"}, rounds=2, warmup_rounds=1
    )
    assert stack.keys() == {0, *EVS}


def test_response_and_merge_of_seven_frames(benchmark, frames):
    times = [2.0**ev for ev in frames]

    def merge():
        images = list(frames.values())
        return debevec.merge(images, times, debevec.estimate_response(images, times))

    hdr = benchmark.pedantic(merge, rounds=5, warmup_rounds=1)
    assert hdr.shape == frames[0].shape


def test_reinhard_global(benchmark, radiance):
    picture = benchmark.pedantic(reinhard.tone_map, (radiance,), rounds=5, warmup_rounds=1)
    assert picture.shape == radiance.shape


@pytest.mark.parametrize(("activation", "ev"), [("prelu", 1), ("mprelu", -1)])
def test_training_step(benchmark, patches, activation, ev):
    network = seeded(lambda: SubNetwork(activation), 0).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), fused=True)

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = chain_losses({ev: network}, patches, "teacher")[0]
        loss.backward()
        optimizer.step()
        return loss.item()

    assert np.isfinite(benchmark.pedantic(step, rounds=8, warmup_rounds=2))


@pytest.mark.parametrize("activation", [nn.PReLU, MPReLU])
def test_activation_forward_and_backward(benchmark, full, activation):
    size = (16, 32, 64, 64) if full else (2, 4, 8, 8)
    x = torch.randn(size).to(memory_format=torch.channels_last).requires_grad_()
    grad = torch.randn(size).to(memory_format=torch.channels_last)
    module = activation()

    def both():
        x.grad = module.weight.grad = None
        module(x).backward(grad)
        return x.grad

    assert benchmark.pedantic(both, rounds=30, warmup_rounds=5).shape == size
