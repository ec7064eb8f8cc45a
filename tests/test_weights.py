"""Weights go out and come back whole; what does not fit is refused with a sentence."""

import pytest
import torch
from safetensors.torch import save_file

from replication.files import ReplicationError
from replication.model import DeepChain, SubNetwork
from replication.train import seeded
from replication.weights import (
    FAITHFUL,
    WEIGHTS,
    chain_hash,
    load_weights,
    save_weights,
    weights_folder,
    weights_path,
)


def small(seed=0, activation="mprelu", kernels=4):
    return seeded(lambda: SubNetwork(activation, kernels=kernels), seed)


def test_weights_round_trip_with_metadata(tmp_path):
    network, other = small(3), small(4)
    path = save_weights(network, tmp_path / "ev-1.safetensors", {"ev": -1, "val": {"psnr": 30.5}})
    assert load_weights(other, path, -1) == {"ev": -1, "val": {"psnr": 30.5}}
    for name, value in network.state_dict().items():
        assert torch.equal(other.state_dict()[name], value)


def test_the_same_weights_are_the_same_bytes(tmp_path):
    facts = {f"fact {number} é": number for number in range(20)}
    first = save_weights(small(), tmp_path / "a.safetensors", facts).read_bytes()
    again = dict(sorted(facts.items(), reverse=True))
    assert save_weights(small(), tmp_path / "b.safetensors", again).read_bytes() == first
    assert load_weights(small(1), tmp_path / "a.safetensors") == facts


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path, value):
    network = small()
    torch.nn.init.constant_(network.r3[0].bias, value)
    path = save_weights(network, tmp_path / "a.safetensors", {})
    with pytest.raises(
        ReplicationError, match=r"a\.safetensors holds NaN or infinite .*r3\.0\.bias"
    ):
        load_weights(small(), path)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"ev": 2}, "is for the ev 2, not -1"),
        ({"activation": "prelu"}, "is for the activation prelu, not mprelu"),
    ],
)
def test_weights_of_another_ev_or_activation_are_refused(tmp_path, facts, message):
    path = save_weights(small(), tmp_path / "a.safetensors", facts)
    with pytest.raises(ReplicationError, match=message):
        load_weights(small(), path, -1)


def test_metadata_of_other_programs_are_kept_as_text(tmp_path):
    save_file(small().state_dict(), tmp_path / "a.safetensors", {"format": "pt"})
    assert load_weights(small(1), tmp_path / "a.safetensors", 1) == {"format": "pt"}


def test_broken_weights_are_one_sentence(tmp_path):
    path = save_weights(small(), tmp_path / "a.safetensors", {})
    broken = tmp_path / "b.safetensors"
    broken.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ReplicationError, match=r"b\.safetensors is no readable safetensors"):
        load_weights(small(), broken)
    with pytest.raises(ReplicationError, match="does not fit"):
        load_weights(small(kernels=8), path)
    with pytest.raises(ReplicationError, match="No weights at"):
        load_weights(small(), tmp_path / "none.safetensors")


def test_names_of_folders():
    assert weights_folder("reference", "run") == WEIGHTS
    assert weights_folder("faithful", "run") == FAITHFUL
    assert weights_folder("run", "somewhere").as_posix() == "somewhere/weights"
    assert weights_folder("my/own", "run").as_posix() == "my/own"
    assert weights_path(3, "a").as_posix() == "a/ev+3.safetensors"


def test_the_hash_of_a_chain_follows_its_files(tmp_path):
    chain = DeepChain((1, -1))
    for ev in chain.evs:
        save_weights(chain[ev], weights_path(ev, tmp_path), {"ev": ev})
    first = chain_hash(chain, tmp_path)
    assert first == chain_hash(chain, tmp_path)
    save_weights(chain[1], weights_path(1, tmp_path), {"ev": 1, "more": 0})
    assert len(first) == 12 != chain_hash(chain, tmp_path)
