"""What several test modules share."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from replication.hdr import io
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
    """Files under a folder but for locks, by relative path."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return sorted(path.relative_to(folder).as_posix() for path in paths)


def frames(number: int, side: int = 176) -> dict[int, np.ndarray]:  # MS-SSIM needs 161 pixels
    """Smooth light, photographed seven times by a camera with gamma 2.2."""
    coarse = np.random.default_rng(number).uniform(-2.5, 1.5, (6, 6, 3)).astype(np.float32)
    light = 2 ** cv2.resize(coarse, (side, side))
    photos = {ev: np.clip(light * 2.0**ev, 0, 1) ** (1 / 2.2) for ev in range(-3, 4)}
    return {ev: np.uint8(255 * photo) for ev, photo in photos.items()}


def vds(root: Path, side: int = 176) -> None:
    """The tree of the paper's data set: four scenes to train, two to test."""
    for number in range(1, 7):
        name, split = f"t{number:02d}", "train" if number < 5 else "test"
        for ev, image in frames(number, side).items():
            io.write_png(root / f"vds/{split}/set/{name}/{name}_{ev}EV_true.jpg.png", image)


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
