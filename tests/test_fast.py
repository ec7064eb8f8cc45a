"""Fast modules against the plain networks: the same values, gradients and statistics."""

import copy

import pytest
import torch
from torch import nn

from replication.fast import activate, choose_device, for_inference, for_training, full_precision
from replication.files import ReplicationError
from replication.model import ACTIVATIONS, MPReLU, PerChannel, ShallowNetwork, SubNetwork
from tests.conftest import randomise_norms, small


def pair(activation="mprelu", *, frozen=False, dtype=torch.float32):
    """The same small network twice."""
    network = randomise_norms(small(activation)).to(dtype)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.train(not frozen)
    return network, copy.deepcopy(network)


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
    network, plain = pair(activation, frozen=frozen, dtype=torch.double)
    found = results(network, for_training(network), x)
    for name, truth in results(plain, plain, x).items():
        torch.testing.assert_close(found[name], truth, rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize("frozen", [False, True])
def test_training_in_bfloat16_is_near_the_plain_network(frozen):
    x = torch.rand(2, 3, 20, 24)
    network, plain = pair(frozen=frozen)
    truth = results(plain, plain, x)
    with torch.autocast("cpu", torch.bfloat16):
        ours = results(network, for_training(network), x)
    torch.testing.assert_close(ours["y"], truth["y"], rtol=0, atol=0.03)
    gradients = [torch.cat([p.grad.flatten() for p in n.parameters()]) for n in (plain, network)]
    assert torch.cosine_similarity(*gradients, 0) > 0.99


def test_compiled_training_is_training():
    x, (network, plain) = torch.rand(2, 3, 12, 12), pair()
    compiled = torch.compile(for_training(network), backend="eager")  # needs no C++ compiler
    found = results(network, compiled, x)
    for name, truth in results(plain, plain, x).items():
        torch.testing.assert_close(found[name], truth, rtol=1e-4, atol=1e-5, msg=name)


def test_fast_modules_of_other_networks():
    network, other = small(), ShallowNetwork()
    assert list(for_training(network).parameters()) == list(network.parameters())
    assert for_training(other) is other
    x, grey = torch.rand(1, 3, 8, 8), PerChannel(small(channels=1))
    quick = for_inference(grey)
    assert grey.training
    assert not quick.training
    torch.testing.assert_close(quick(x), grey.eval()(x))
    torch.testing.assert_close(for_training(grey)(x), grey(x))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("size", [(1, 1), (5, 70), (64, 64)])
def test_inference_is_that_of_the_plain_network(activation, size):
    network = randomise_norms(SubNetwork(activation))
    before, x = copy.deepcopy(network.state_dict()), torch.rand(1, 3, *size)
    quick = for_inference(network)
    assert network.training
    with torch.inference_mode():
        torch.testing.assert_close(quick(x), network.eval()(x), atol=2e-6, rtol=0)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


@pytest.mark.parametrize(("gpus", "default"), [(0, "cpu"), (2, "cuda")])
def test_the_device_is_a_gpu_where_there_is_one(monkeypatch, gpus, default):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert choose_device(None) == torch.device(default)
    for known in ["cpu", "cuda:1"][: 1 + gpus]:
        assert choose_device(known) == torch.device(known)
    with pytest.raises(ReplicationError, match="Device cuda:2 is absent"):
        choose_device("cuda:2")
    for name in ("abacus", "cuda:x", "meta", "mps"):
        with pytest.raises(ReplicationError, match=f"Unknown device '{name}'"):
            choose_device(name)


def test_full_precision_switches_tf32_off_and_back():
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    with full_precision():
        assert (matmul.allow_tf32, cudnn.allow_tf32) == (False, False)
    assert (matmul.allow_tf32, cudnn.allow_tf32) == before
