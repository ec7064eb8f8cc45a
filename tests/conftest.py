"""What several test modules share."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from replication.model import DeepChain, SubNetwork
from replication.train import seeded
from replication.weights import save_weights, weights_path

SHARED_GOLDEN = Path(__file__).resolve().parents[2] / "shared" / "golden"
"""Complete reference results; not part of the repository, so what needs them is an extra."""

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _fixed_random_numbers() -> None:
    """No test depends on the ones before it."""
    torch.manual_seed(0)


def small(activation: str = "mprelu", *, seed: int = 0, kernels: int = 4, **options) -> SubNetwork:
    return seeded(lambda: SubNetwork(activation, kernels=kernels, **options), seed)


def files(folder: Path) -> list[str]:
    """Files under a folder but for its lock, by relative path."""
    found = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    return [name for name in found if name != ".lock"]


def randomise_norms(network: nn.Module, seed: int = 0) -> nn.Module:
    """Give every normalisation non-trivial statistics, so that folding and sign flips are tested."""
    generator = torch.Generator().manual_seed(seed)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.weight.data.uniform_(0.5, 1.5, generator=generator)
            part.bias.data.uniform_(-1, 1, generator=generator)
            part.running_mean.uniform_(-1, 1, generator=generator)
            part.running_var.uniform_(0.5, 2, generator=generator)
    return network


@pytest.fixture(scope="session")
def chain() -> DeepChain:
    """An untrained chain of the paper's shape with residuals of moderate size."""
    network = randomise_norms(seeded(DeepChain, 0))
    with torch.no_grad():
        for ev in network.evs:
            network[ev].r4.weight.mul_(0.2)
    return network.eval()


@pytest.fixture(scope="session")
def weights_folder(chain, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    for ev in chain.evs:
        save_weights(chain[ev], weights_path(ev, folder), {"ev": ev})
    return folder


@pytest.fixture
def photo() -> np.ndarray:
    """A smooth colour picture with a clipped spot, 48x61."""
    y, x = np.mgrid[0:48, 0:61] / 48
    spot = np.exp(-((x - 0.6) ** 2 + (y - 0.4) ** 2) * 20)
    picture = np.stack([0.2 + x * 0.5, 0.1 + y * 0.6, 0.5 - 0.2 * x], -1) + spot[..., None]
    return np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)
