"""The networks against the paper's equations and arithmetic, finite differences, receptive fields."""

import numpy as np
import pytest
import torch
from torch import nn

from replication.files import ReplicationError
from replication.model import (
    ACTIVATIONS,
    DeepChain,
    MPReLU,
    PerChannel,
    ShallowNetwork,
    SubNetwork,
    activation_for,
    as_prelu,
    chain_evs,
    parameter_count,
)
from replication.paper import RECEPTIVE_FIELD
from replication.train import seeded
from tests.conftest import randomise_norms


def test_mprelu_is_equation_5():
    x = torch.tensor([-2.0, -0.5, 0.0, 0.5, 2.0], requires_grad=True)
    y = MPReLU(init=0.3)(x)
    torch.testing.assert_close(y, torch.tensor([-2.0, -0.5, 0.0, 0.15, 0.6]))
    y.sum().backward()
    torch.testing.assert_close(x.grad, torch.tensor([1, 1, 0.3, 0.3, 0.3]))


@pytest.mark.parametrize("alpha", [-0.5, 0.0, 0.25, 1.7])
@pytest.mark.parametrize("channels", [1, 3])
def test_mprelu_is_minus_prelu_of_minus_x(channels, alpha):
    x = torch.randn(2, 3, 4, 5, dtype=torch.double)
    ours, torchs = MPReLU(channels, alpha).double(), nn.PReLU(channels, alpha).double()
    found = []
    for y in (ours(a := x.clone().requires_grad_()), -torchs(-(b := x.clone().requires_grad_()))):
        y.square().sum().backward()
        found.append(y)
    torch.testing.assert_close(*found)
    torch.testing.assert_close(a.grad, b.grad)
    torch.testing.assert_close(ours.weight.grad, torchs.weight.grad)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_mprelu_scripts():
    x = torch.randn(2, 3, 8, 8)
    layer = MPReLU(3)
    assert torch.equal(torch.jit.script(layer)(x), layer(x))
    network = randomise_norms(nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), MPReLU())).eval()
    torch.testing.assert_close(torch.jit.script(network)(x), network(x))


def test_parameter_count_follows_section_4_2():
    convolutions = (3 * 9 + 1) * 32 + 6 * (32 * 9 + 1) * 32
    reconstruction = 2 * (7 * 32 + 1) * 32 + (32 * 9 + 1) * 32 + (2 * 32 + 1) * 3
    blocks = 10
    expected = convolutions + reconstruction + blocks * 2 * 32 + blocks  # + γ, β + α
    assert parameter_count(SubNetwork("prelu")) == parameter_count(SubNetwork("mprelu")) == expected


@pytest.mark.parametrize(("part", "field"), [("features", RECEPTIVE_FIELD), ("residual", 69)])
def test_receptive_field_is_measured(part, field):
    network = SubNetwork("leaky_relu").double().eval()  # slope never zero: no path is cut
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.constant_(layer.weight, 0.01)
    x = torch.zeros(1, 3, 101, 101, dtype=torch.double, requires_grad=True)
    y = network.residual(x) if part == "residual" else nn.Sequential(*network.features)(x)
    y[0, :, 50, 50].sum().backward()
    rows, columns = x.grad[0].abs().sum(0).nonzero(as_tuple=True)
    assert rows.max() - rows.min() + 1 == columns.max() - columns.min() + 1 == field


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_residual_is_bounded_and_added(activation):
    network = randomise_norms(SubNetwork(activation)).eval()
    x = torch.rand(1, 3, 33, 20)
    with torch.no_grad():
        residual = network.residual(x)
        assert residual.abs().max() < 1
        torch.testing.assert_close(network(x), x + residual)


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
    x = torch.rand(4, 3, 24, 24, dtype=torch.double)
    losses = {id(one): [] for one in (network, mirror)}
    assert torch.equal(mirror.r1[1].weight, network.r1[1].weight)
    for one in (network, mirror):
        step = optimizer(one.parameters(), 0.01)
        for _ in range(4):
            loss = (one(x) - x / 2).abs().mean()
            step.zero_grad()
            loss.backward()
            step.step()
            losses[id(one)].append(loss.item())
        losses[id(one)] += one.eval()(x).mean((0, 2, 3)).tolist()  # running statistics, too
    np.testing.assert_allclose(*losses.values(), rtol=1e-9)
    with pytest.raises(ReplicationError, match="MPReLU"):
        as_prelu(mirror)


@pytest.mark.parametrize("training", [True, False])
def test_each_exposure_is_inferred_from_the_clamped_one_before(training):
    chain = randomise_norms(DeepChain((1, 2, 3, 4, -1))).train(training)
    x = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        images = chain(x)
        order = [ev for ev, _ in chain.exposures(x)]
        by_hand = chain[2](images[1].clamp(0, 1)), chain[-1](x)
    assert order == list(images) == list(chain.evs) == [1, 2, 3, 4, -1]
    for image, expected in zip((images[2], images[-1]), by_hand, strict=True):
        if not training:
            expected = (expected.clamp(0, 1) * 255).round() / 255  # 8 bits
        torch.testing.assert_close(image, expected)
    assert activation_for(2) == chain[2].activation == "prelu"
    assert activation_for(-1) == chain[-1].activation == "mprelu"


@pytest.mark.parametrize("evs", [(1, 3), (0, 1), (-2,)])
def test_a_chain_with_a_gap_is_refused(evs):
    with pytest.raises(ReplicationError, match="no chain"):
        DeepChain(evs)
    assert chain_evs([-2, 1, -1]) == (1, -1, -2)


def test_unknown_activation_is_refused():
    with pytest.raises(ReplicationError, match=r"'swish'.*prelu"):
        SubNetwork("swish")


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
