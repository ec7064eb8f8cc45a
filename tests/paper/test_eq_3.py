"""Eq. 3: L_all = l_pixel + λ l_tv, with λ = 0.001."""

import pytest
import torch

from replication.train import Recipe, chain_losses, loss


def test_hand_computed_example():
    inferred = torch.tensor([[0.1, 0.4], [0.3, 0.9]]).expand(1, 3, 2, 2)
    target = torch.full((1, 3, 2, 2), 0.2)
    pixel = 3 * (0.1 + 0.2 + 0.1 + 0.7) / 4  # three colours, four pixels
    variation = 3 * ((0.3 + 0.6) + (0.2 + 0.5)) / 4  # to the right, then down
    expected = [pixel + 0.001 * variation, pixel, variation]
    assert [part.item() for part in loss(inferred, target)] == pytest.approx(expected)
    assert loss(target, inferred)[2] == 0  # of the inferred image alone
    assert Recipe().tv_weight == 0.001


@pytest.mark.parametrize("mode", ["teacher", "chained"])
def test_losses_at_the_intermediate_exposures_are_added(mode):
    images = dict(enumerate(torch.rand(4, 1, 3, 8, 8)))
    networks = {ev: torch.nn.Identity() for ev in (1, 2, 3)}
    sources = {"teacher": (0, 1, 2), "chained": (0, 0, 0)}[mode]
    expected = sum(loss(images[i], images[j])[0] for i, j in zip(sources, networks, strict=True))
    assert chain_losses(networks, images, mode)[0].item() == pytest.approx(expected.item())
