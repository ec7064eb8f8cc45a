"""The networks against the paper's arithmetic, finite differences and measured receptive fields."""

import pytest
import torch
from torch import nn

from replication.fast import InferenceNetwork
from replication.files import ReplicationError
from replication.model import (
    DeepChain,
    MPReLU,
    PReLU,
    ShallowNetwork,
    SubNetwork,
    activation_for,
    as_prelu,
    parameter_count,
)
from replication.paper import RECEPTIVE_FIELD
from replication.train import seeded
from tests.conftest import plain, randomise_norms


def test_mprelu_is_equation_5():
    x = torch.tensor([-2.0, -0.5, 0.0, 0.5, 2.0])
    assert torch.equal(MPReLU(init=0.3)(x), torch.tensor([-2.0, -0.5, 0.0, 0.15, 0.6]))


@pytest.mark.parametrize("alpha", [-0.5, 0.0, 0.25, 1.0, 1.7])
@pytest.mark.parametrize("channels", [1, 3])
def test_mprelu_gradients_against_finite_differences(alpha, channels):
    layer = MPReLU(channels, alpha).double()
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 3, 4, 5, dtype=torch.double, generator=generator)
    x = (x + 0.05 * x.sign()).requires_grad_()  # away from the kink
    assert torch.autograd.gradcheck(
        lambda x, a: torch.func.functional_call(layer, {"weight": a}, x), (x, layer.weight)
    )


def test_mprelu_at_zero_takes_the_side_of_equation_5():
    x = torch.zeros(1, requires_grad=True)
    MPReLU(init=0.3)(x).backward()
    assert x.grad.item() == pytest.approx(0.3)


@pytest.mark.parametrize("alpha", [-0.5, 0.0, 0.25, 1.7])
@pytest.mark.parametrize("channels", [1, 3])
def test_prelu_is_that_of_torch(channels, alpha):
    x = torch.randn(2, 3, 8, 8, dtype=torch.double)
    x[0, 0, 0, 0] = 0
    results = []
    for layer in (PReLU(channels, alpha), nn.PReLU(channels, alpha)):
        here = x.clone().requires_grad_()
        layer.double()(here).square().mul(torch.arange(8)).sum().backward()
        results.append((here.grad, layer.weight.grad))
    for ours, torchs in zip(*results, strict=True):
        torch.testing.assert_close(ours, torchs)


@pytest.mark.parametrize("channels", [1, 3])
def test_mprelu_is_minus_prelu_of_minus_x(channels):
    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    ours, torchs = MPReLU(channels, 0.2), nn.PReLU(channels, 0.2)
    ours(x).square().sum().backward()
    gradient, x.grad = x.grad, None
    (-torchs(-x)).square().sum().backward()
    torch.testing.assert_close(gradient, x.grad)
    torch.testing.assert_close(ours.weight.grad, torchs.weight.grad, rtol=1e-5, atol=1e-5)


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
    expected = convolutions + reconstruction + blocks * 2 * 32 + blocks  # + norm's affine, + α
    assert parameter_count(SubNetwork("prelu")) == parameter_count(SubNetwork("mprelu")) == expected


def test_receptive_field_of_the_feature_extraction_is_measured_as_67():
    network = SubNetwork("leaky_relu").double().eval()  # slope never zero: no path is cut
    for block in network.features:
        nn.init.constant_(block[0].weight, 1.0)
    x = torch.zeros(1, 3, 101, 101, dtype=torch.double, requires_grad=True)
    hidden = x
    for block in network.features:
        hidden = block(hidden)
    hidden[0, :, 50, 50].sum().backward()
    rows, columns = x.grad[0].abs().sum(0).nonzero(as_tuple=True)
    height, width = rows.max() - rows.min() + 1, columns.max() - columns.min() + 1
    assert (height, width) == (RECEPTIVE_FIELD, RECEPTIVE_FIELD) == (67, 67)


def test_whole_subnetwork_sees_two_pixels_more():
    network = SubNetwork("leaky_relu").double().eval()
    for part in network.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.constant_(part.weight, 0.01)
    x = torch.zeros(1, 3, 101, 101, dtype=torch.double, requires_grad=True)
    network.residual(x)[0, :, 50, 50].sum().backward()
    rows = x.grad[0].abs().sum((0, 2)).nonzero()
    assert rows.max() - rows.min() + 1 == 69


@pytest.mark.parametrize("activation", ["prelu", "mprelu", "relu", "leaky_relu"])
def test_residual_is_bounded_and_added(activation):
    network = randomise_norms(SubNetwork(activation)).eval()
    x = torch.rand(1, 3, 33, 20)
    with torch.no_grad():
        residual = network.residual(x)
        assert residual.abs().max() < 1
        torch.testing.assert_close(network(x), x + residual)


def test_an_mprelu_network_is_a_prelu_network_also_while_training():
    network = randomise_norms(SubNetwork("mprelu"))
    twin = as_prelu(network)
    x = torch.rand(4, 3, 40, 40)
    target = x * 0.5
    for step in range(3):
        losses = []
        for one in (network, twin):
            optimizer = torch.optim.SGD(one.parameters(), 0.05)
            loss = (one(x) - target).abs().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[0] == pytest.approx(losses[1], rel=1e-5), step
    with pytest.raises(ReplicationError, match="MPReLU"):
        as_prelu(SubNetwork("prelu"))


@pytest.mark.parametrize("activation", ["prelu", "mprelu"])
@pytest.mark.parametrize("frozen", [False, True])
def test_subnetwork_is_its_layers_one_after_the_other(activation, frozen):
    """Values, gradients and running statistics; in float64, so that only the order can differ."""
    x = torch.rand(2, 3, 20, 24, dtype=torch.double)
    results = []
    for compute in (SubNetwork.forward, plain):
        network = randomise_norms(seeded(lambda: SubNetwork(activation, kernels=4), 0)).double()
        for part in network.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.train(not frozen)
        y = compute(network, x)
        y.square().mean().backward()
        gradients = {name: p.grad for name, p in network.named_parameters()}
        results.append({"y": y, **gradients, **dict(network.named_buffers())})
    for name, truth in results[1].items():
        torch.testing.assert_close(results[0][name], truth, rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize("activation", ["prelu", "mprelu", "relu", "leaky_relu"])
@pytest.mark.parametrize("size", [(1, 1), (5, 70), (64, 64)])
def test_inference_network_is_the_subnetwork(activation, size):
    network = randomise_norms(SubNetwork(activation)).eval()
    x = torch.rand(1, 3, *size)
    with torch.inference_mode():
        torch.testing.assert_close(InferenceNetwork(network)(x), network(x), atol=2e-6, rtol=0)


def test_chain_takes_the_clamped_image_before_and_extends():
    chain = randomise_norms(DeepChain((1, 2, 3, 4, -1))).eval()
    assert chain.evs == (1, 2, 3, 4, -1)
    x = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        images = chain(x)
        torch.testing.assert_close(images[2], chain[2](images[1].clamp(0, 1)))
        torch.testing.assert_close(images[-1], chain[-1](x))
    assert activation_for(2) == chain[2].activation == "prelu"
    assert activation_for(-1) == chain[-1].activation == "mprelu"


@pytest.mark.parametrize("evs", [(1, 3), (0, 1), (-2,)])
def test_chain_with_a_missing_link_is_refused(evs):
    with pytest.raises(ReplicationError, match="no chain"):
        DeepChain(evs)


def test_unknown_activation_is_refused():
    with pytest.raises(ReplicationError, match=r"'swish'.*prelu"):
        SubNetwork("swish")


def test_shallow_network_has_three_and_three_layers_with_skips():
    network = ShallowNetwork()
    kinds = [type(m) for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert kinds == [nn.Conv2d] * 3 + [nn.ConvTranspose2d] * 3
    for part in network.deconvolutions:
        nn.init.zeros_(part.weight)
        nn.init.zeros_(part.bias)
    x = torch.rand(1, 3, 9, 12)
    torch.testing.assert_close(network(x), x)  # with silent layers the input skip is all
