"""Fast modules against the plain networks: the same values, gradients and statistics."""

import copy

import pytest
import torch
from torch import nn

from replication.fast import (
    activate,
    choose_device,
    for_inference,
    for_training,
    full_precision,
    has_bfloat16,
)
from replication.files import ReplicationError
from replication.model import ACTIVATIONS, MPReLU, PerChannel, ShallowNetwork, SubNetwork
from replication.train import seeded
from tests.conftest import randomise_norms


def small(activation="mprelu", **options):
    return randomise_norms(seeded(lambda: SubNetwork(activation, kernels=4, **options), 0))


def freeze(network, frozen):
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.train(not frozen)


@pytest.mark.parametrize("alpha", [-0.5, 0.0, 0.25, 1.7])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", [nn.PReLU, MPReLU])
def test_activations_have_the_gradients_of_the_plain_ones(kind, channels, alpha):
    x = torch.randn(2, 3, 8, 8, dtype=torch.double)
    x[0, 0, 0, :3] = 0
    results = []
    for function in (activate, lambda layer, x: layer(x)):
        layer, here = kind(channels, alpha).double(), x.clone().requires_grad_()
        y = function(layer, here)
        y.sin().mul(torch.arange(8)).sum().backward()
        results.append((y, here.grad, layer.weight.grad))
    for ours, truth in zip(*results, strict=True):
        torch.testing.assert_close(ours, truth)


def results(network, quick, x):
    y = quick(x)
    y.square().mean().backward()
    gradients = {name: p.grad for name, p in network.named_parameters()}
    return {"y": y, **gradients, **dict(network.named_buffers())}


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_training_is_that_of_the_plain_network(activation, frozen):
    x = torch.rand(2, 3, 20, 24, dtype=torch.double)
    found = []
    for make in (for_training, lambda network: network):
        network = small(activation).double()
        freeze(network, frozen)
        found.append(results(network, make(network), x))
    for name, truth in found[1].items():
        torch.testing.assert_close(found[0][name], truth, rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize("frozen", [False, True])
def test_training_in_bfloat16_is_near_the_plain_network(frozen):
    x = torch.rand(2, 3, 20, 24)
    plain, network = small(), small()
    freeze(plain, frozen)
    freeze(network, frozen)
    truth = results(plain, plain, x)
    with torch.autocast("cpu", torch.bfloat16):
        ours = results(network, for_training(network), x)
    torch.testing.assert_close(ours["y"], truth["y"], rtol=0, atol=0.03)
    gradients = [torch.cat([p.grad.flatten() for p in n.parameters()]) for n in (plain, network)]
    assert torch.cosine_similarity(*gradients, 0) > 0.99


def test_compiled_training_is_training():
    x, found = torch.rand(2, 3, 12, 12), []
    for compiled in (False, True):
        network = small()
        quick = for_training(network)
        quick = torch.compile(quick, backend="eager") if compiled else quick  # no C++ compiler
        found.append(results(network, quick, x))
    for name, truth in found[0].items():
        torch.testing.assert_close(found[1][name], truth, rtol=1e-4, atol=1e-5, msg=name)


def test_fast_training_shares_the_parameters_and_leaves_others_alone():
    network, other = small(), ShallowNetwork()
    assert list(for_training(network).parameters()) == list(network.parameters())
    assert for_training(other) is other
    x = torch.rand(1, 3, 8, 8)
    grey = PerChannel(small(channels=1)).eval()
    torch.testing.assert_close(for_training(grey)(x), grey(x))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("size", [(1, 1), (5, 70), (64, 64)])
def test_inference_is_that_of_the_plain_network(activation, size):
    network = randomise_norms(SubNetwork(activation))
    before, state = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    x = torch.rand(1, 3, *size)
    quick = for_inference(network)
    assert network.training
    with torch.inference_mode():
        torch.testing.assert_close(quick(x), network.eval()(x), atol=2e-6, rtol=0)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert len(state) == len(torch.get_rng_state())


def test_inference_with_another_module_is_a_copy_in_evaluation_mode():
    network = PerChannel(small(channels=1))
    quick = for_inference(network)
    assert network.training
    assert not quick.training
    x = torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(quick(x), network.eval()(x))


@pytest.mark.parametrize("name", ["abacus", "cuda:x", "meta", "mps"])
def test_unknown_devices_are_refused(name):
    with pytest.raises(ReplicationError, match=f"Unknown device '{name}'"):
        choose_device(name)


@pytest.mark.parametrize(("gpus", "default"), [(0, "cpu"), (2, "cuda")])
def test_the_device_is_a_gpu_where_there_is_one(monkeypatch, gpus, default):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert choose_device(None) == torch.device(default)
    assert choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ReplicationError, match="Device cuda:2 is absent"):
        choose_device("cuda:2")
    if gpus:
        assert choose_device("cuda:1") == torch.device("cuda:1")


def test_full_precision_switches_tf32_off_and_back():
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    with full_precision():
        assert not matmul.allow_tf32
        assert not cudnn.allow_tf32
    assert (matmul.allow_tf32, cudnn.allow_tf32) == before
    assert isinstance(has_bfloat16(torch.device("cpu")), bool)
