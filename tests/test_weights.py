"""Weights go out and come back whole; what does not fit is refused with a sentence."""

import pytest
import torch
from safetensors.torch import save_file

from replication.files import ReplicationError
from replication.model import DeepChain
from replication.weights import (
    FAITHFUL,
    WEIGHTS,
    chain_hash,
    load_weights,
    save_weights,
    weights_folder,
    weights_path,
)
from tests.conftest import small


def test_weights_round_trip_and_the_same_weights_are_the_same_bytes(tmp_path):
    facts = {f"fact {number} é": {"psnr": number} for number in range(20)} | {"ev": -1}
    first = save_weights(small(seed=3), tmp_path / "a.safetensors", facts)
    again = dict(sorted(facts.items(), reverse=True))
    second = save_weights(small(seed=3), tmp_path / "b.safetensors", again)
    assert first.read_bytes() == second.read_bytes()
    other = small(seed=4)
    assert load_weights(other, first, -1) == facts
    for name, value in small(seed=3).state_dict().items():
        assert torch.equal(other.state_dict()[name], value)


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


@pytest.mark.parametrize("fault", ["nan", "inf", "cut", "another network", "missing"])
def test_broken_weights_are_one_sentence(tmp_path, fault):
    network, path = (small(kernels=8 if fault == "another network" else 4), tmp_path / "a.safetensors")
    message = "holds NaN or infinite .*r3.0.bias"
    if fault in ("nan", "inf"):
        torch.nn.init.constant_(network.r3[0].bias, float(fault))
    save_weights(network, path, {})
    if fault == "cut":
        path.write_bytes(path.read_bytes()[:-100])
        message = "is no readable safetensors"
    elif fault == "another network":
        message = "does not fit"
    elif fault == "missing":
        path.unlink()
        message = "No weights at"
    with pytest.raises(ReplicationError, match=message) as error:
        load_weights(small(), path)
    assert str(path) in str(error.value)


def test_metadata_of_other_programs_are_kept_as_text(tmp_path):
    save_file(small().state_dict(), tmp_path / "a.safetensors", {"format": "pt"})
    assert load_weights(small(seed=1), tmp_path / "a.safetensors", 1) == {"format": "pt"}


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
