"""What several test modules share."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from replication.model import DeepChain
from replication.train import seeded
from replication.weights import save_weights, weights_path

SHARED_GOLDEN = Path(__file__).resolve().parents[2] / "shared" / "golden"
"""Complete reference results; not part of the repository, so what needs them is an extra."""

torch.set_num_threads(1)


def randomise_norms(network: nn.Module, seed: int = 0) -> nn.Module:
    """Give every normalisation non-trivial statistics, so that folding and sign flips are tested."""
    generator = torch.Generator().manual_seed(seed)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            for tensor, low, high in (
                (part.weight.data, 0.5, 1.5),
                (part.bias.data, -1, 1),
                (part.running_mean, -1, 1),
                (part.running_var, 0.5, 2),
            ):
                tensor.uniform_(low, high, generator=generator)
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
