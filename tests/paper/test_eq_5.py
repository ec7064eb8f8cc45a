"""Eq. 5: minus PReLU(x) = αx if x >= 0, x if x < 0."""

import pytest
import torch

from replication.model import MPReLU


@pytest.mark.parametrize("alpha", [0.25, 0.0, 1.5, -0.5])
@pytest.mark.parametrize("x", [3.0, 0.0, -2.0])
def test_value_and_gradients_on_both_sides_and_at_zero(x, alpha):
    activation, point = MPReLU(init=alpha), torch.full((1, 1), x, requires_grad=True)
    activation(point).backward()
    assert activation(point).item() == (alpha * x if x >= 0 else x)
    assert point.grad.item() == (alpha if x >= 0 else 1)
    assert activation.weight.grad.item() == max(x, 0)


def test_an_alpha_for_each_channel_and_the_mirrored_prelu():
    activation, x = MPReLU(2), torch.tensor([[[-1.0, 4.0], [-1.0, 4.0]]])  # two channels
    assert activation.weight.tolist() == [0.25, 0.25]
    activation.weight.data = torch.tensor([0.5, 2.0])
    assert activation(x).tolist() == [[[-1, 2], [-1, 8]]]
    assert torch.equal(activation(x), -torch.prelu(-x, activation.weight))  # DEVIATIONS D5
