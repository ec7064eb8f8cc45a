"""The networks against the paper's arithmetic, receptive fields, and PyTorch's layers."""

import numpy as np
import pytest
import torch
from torch import nn

from replication.files import ReplicationError
from replication.model import (
    DeepChain,
    MPReLU,
    PerChannel,
    ShallowNetwork,
    SubNetwork,
    as_prelu,
    chain_evs,
    parameter_count,
)
from replication.train import seeded
from tests.conftest import randomise_norms


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_mprelu_scripts():
    x = torch.randn(2, 3, 8, 8)
    network = randomise_norms(nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), MPReLU())).eval()
    torch.testing.assert_close(torch.jit.script(network)(x), network(x))


def test_parameter_count_follows_section_4_2():
    convolutions = (3 * 9 + 1) * 32 + 6 * (32 * 9 + 1) * 32
    reconstruction = 2 * (7 * 32 + 1) * 32 + (32 * 9 + 1) * 32 + (2 * 32 + 1) * 3
    expected = convolutions + reconstruction + 10 * (2 * 32 + 1)  # γ, β and α of ten blocks
    assert parameter_count(SubNetwork("prelu")) == parameter_count(SubNetwork("mprelu")) == expected


def test_receptive_field_of_the_whole_subnetwork():
    network = SubNetwork("leaky_relu").double().eval()  # slope never zero: no path is cut
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.constant_(layer.weight, 0.01)
            nn.init.zeros_(layer.bias)  # tanh stays where its slope is 1
    x = torch.zeros(1, 3, 101, 101, dtype=torch.double, requires_grad=True)
    network.residual(x)[0, :, 50, 50].sum().backward()
    for places in x.grad[0].abs().sum(0).nonzero().T:
        assert places.max() - places.min() + 1 == 67 + 2  # r3 is 3x3


def test_the_names_of_the_weights_stay():
    names = set(SubNetwork("prelu").state_dict())
    assert {"features.0.0.weight", "features.6.1.running_var", "features.3.2.weight"} <= names
    assert {"r1.0.weight", "r2.1.bias", "r3.2.weight", "r4.bias"} <= names
    assert len(names) == 10 * (2 + 5 + 1) + 2


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_the_mirror_of_an_mprelu_network_trains_alike(optimizer):
    """Outputs, losses and steps agree, and every γ keeps its sign."""
    network = randomise_norms(seeded(lambda: SubNetwork("mprelu", kernels=8), 0)).double()
    mirror = as_prelu(network)
    assert {type(block[2]) for block in (*mirror.features, mirror.r3)} == {nn.PReLU}
    assert torch.equal(mirror.r1[1].weight, network.r1[1].weight)
    x, found = torch.rand(4, 3, 16, 16, dtype=torch.double), []
    for one in (network, mirror):
        step, values = optimizer(one.parameters(), 0.01), []
        for _ in range(4):
            loss = (one(x) - x / 2).abs().mean()
            step.zero_grad()
            loss.backward()
            step.step()
            values.append(loss.item())
        found.append(values + one.eval()(x).mean((0, 2, 3)).tolist())  # running statistics, too
    np.testing.assert_allclose(*found, rtol=1e-9)
    with pytest.raises(ReplicationError, match="MPReLU"):
        as_prelu(mirror)


@torch.no_grad()
def test_in_evaluation_each_exposure_is_inferred_from_the_8_bit_one_before():
    chain = randomise_norms(DeepChain((1, 2, 3, 4, -1))).eval()
    x = torch.rand(2, 3, 16, 16)
    images = chain(x)
    assert [ev for ev, _ in chain.exposures(x)] == list(images) == [1, 2, 3, 4, -1]
    for ev, before in ((2, images[1]), (-1, x)):
        expected = (chain[ev](before).clamp(0, 1) * 255).round() / 255
        torch.testing.assert_close(images[ev], expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        *((lambda evs=evs: DeepChain(evs), "no chain") for evs in ((1, 3), (0, 1), (-2,))),
        (lambda: SubNetwork("swish"), r"'swish'.*prelu"),
    ],
)
def test_networks_that_cannot_be(make, message):
    with pytest.raises(ReplicationError, match=message):
        make()
    assert chain_evs([-2, 1, -1]) == (1, -1, -2)


def test_shallow_network_has_three_and_three_layers_with_skips():
    network, without = ShallowNetwork(), ShallowNetwork(skip=False)
    kinds = [type(m) for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert kinds == [nn.Conv2d] * 3 + [nn.ConvTranspose2d] * 3
    x = torch.rand(1, 3, 9, 12)
    without.load_state_dict(network.state_dict())
    torch.testing.assert_close(network(x), without(x) + x)
    for part in (*network.convolutions[1:], network.deconvolutions[0]):
        nn.init.zeros_(part.weight)
        nn.init.zeros_(part.bias)
    first = network.convolutions[0](x).relu()  # all that is left comes by the skips
    hidden = (network.deconvolutions[1](torch.zeros_like(first)) + first).relu()
    torch.testing.assert_close(network(x), network.deconvolutions[2](hidden) + x)


def test_per_channel_treats_each_colour_alike():
    network = PerChannel(SubNetwork(channels=1, kernels=4)).eval()
    x = torch.rand(2, 3, 8, 9)
    torch.testing.assert_close(network(x[:, [2, 0, 1]]), network(x)[:, [2, 0, 1]])
    torch.testing.assert_close(network(x)[:, :1], network.network(x[:, :1]))
