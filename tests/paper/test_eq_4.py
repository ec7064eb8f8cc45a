"""Eq. 4: the L1 norm over the colours of a pixel, averaged over w·h pixels."""

import pytest
import torch

from replication.train import pixel_loss


@pytest.mark.parametrize("repeats", [(1, 1, 1, 1), (1, 1, 2, 3), (4, 1, 1, 1)])
def test_sum_over_colours_mean_over_pixels_and_batch(repeats):
    inferred, target = torch.rand(2, 1, 3, 5, 8, dtype=torch.float64)
    norms = [abs(inferred - target)[0, :, v, u].sum().item() for v in range(5) for u in range(8)]
    found = pixel_loss(inferred.repeat(repeats), target.repeat(repeats)).item()
    assert found == pytest.approx(sum(norms) / (5 * 8))
