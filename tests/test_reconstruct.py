"""Whole image, tiles and patches against each other and against the network itself."""

import numpy as np
import pytest
import torch

from replication.fast import InferenceNetwork
from replication.files import ReplicationError
from replication.images import to_uint8
from replication.model import DeepChain
from replication.paper import EVS
from replication.reconstruct import (
    infer_exposure,
    infer_stack,
    load_chain,
    merge_stack,
    reconstruct,
)
from replication.weights import save_weights, weights_path


def plainly(network, image):
    """The definition: the subnetwork on the whole image, clamped."""
    x = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        return network(x).clamp(0, 1)[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("ev", [1, -1])
@pytest.mark.parametrize(("size", "tile"), [((150, 97), 32), ((81, 200), 50), ((10, 90), 64)])
def test_tiles_equal_the_whole_image(chain, ev, size, tile):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    network = InferenceNetwork(chain[ev])
    whole = infer_exposure(image, network, method="whole")
    np.testing.assert_allclose(whole, plainly(chain[ev], image), atol=1e-5)
    tiled = infer_exposure(image, network, method="tiled", tile=tile)
    np.testing.assert_allclose(tiled, whole, atol=1e-5)


def test_a_smaller_overlap_would_not_do(chain, monkeypatch):
    image = np.random.default_rng(0).integers(0, 256, (150, 97, 3), np.uint8)
    network = InferenceNetwork(chain[1])
    monkeypatch.setattr("replication.reconstruct.OVERLAP", 24)
    tiled = infer_exposure(image, network, method="tiled", tile=32)
    assert np.abs(tiled - infer_exposure(image, network, method="whole")).max() > 1e-4


def test_patches_average_the_overlapping_patches(chain):
    image = np.random.default_rng(1).integers(0, 256, (64, 70, 3), np.uint8)
    inferred = infer_exposure(image, InferenceNetwork(chain[1]), method="patches", stride=6)
    left, right = (plainly(chain[1], image[:, at : at + 64]) for at in (0, 6))
    np.testing.assert_allclose(inferred[:, :6], left[:, :6], atol=1e-5)
    np.testing.assert_allclose(inferred[:, 64:], right[:, 58:], atol=1e-5)
    np.testing.assert_allclose(inferred[:, 6:64], (left[:, 6:] + right[:, :58]) / 2, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (65, 63)])
@pytest.mark.parametrize("method", ["tiled", "whole", "patches"])
def test_any_size(chain, size, method):
    image = np.full((*size, 3), 100, np.uint8)
    network = InferenceNetwork(chain[-1])
    inferred = infer_exposure(image, network, method=method, stride=30)
    assert inferred.shape == (*size, 3)
    assert inferred.dtype == np.float32
    assert np.isfinite(inferred).all()


def test_stack_is_the_chain_on_8_bit_images(chain, photo):
    stack = infer_stack(photo, chain)
    assert list(stack) == sorted((*EVS, 0))
    assert stack[0] is photo or np.array_equal(stack[0], photo)
    by_hand = photo
    for ev in (1, 2, 3):
        by_hand = to_uint8(plainly(chain[ev], by_hand))
        difference = np.abs(by_hand.astype(int) - stack[ev])
        assert difference.max() <= 1  # a rounding at .5 may fall either way
        assert (difference > 0).mean() < 1e-3
        by_hand = stack[ev]


def test_reconstruct_merges_the_stack(chain, photo):
    hdr = reconstruct(photo, chain)
    assert hdr.dtype == np.float32
    assert hdr.shape == photo.shape
    assert np.isfinite(hdr).all()
    np.testing.assert_array_equal(hdr, merge_stack(infer_stack(photo, chain)))


def test_load_chain_finds_weights_and_further_evs(weights_folder, tmp_path):
    chain = load_chain(weights_folder)
    assert chain.metadata[-3] == {"ev": -3}
    assert not chain.training
    longer = DeepChain((*EVS, 4))
    for ev in longer.evs:
        save_weights(longer[ev], weights_path(ev, tmp_path), {"ev": ev})
    assert load_chain(tmp_path).evs == longer.evs


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros((4, 4), np.uint8), r"RGB array \(H, W, 3\), not \(4, 4\)"),
        (np.zeros((4, 4, 4), np.uint8), r"not \(4, 4, 4\)"),
        (np.zeros((0, 4, 3), np.uint8), r"not \(0, 4, 3\)"),
        (np.zeros((4, 4, 3), np.float32), "uint8 in 0..255, not float32"),
        ("photo.jpg", "not str"),
    ],
)
def test_bad_photos_are_refused(chain, bad, message):
    with pytest.raises(ReplicationError, match=message):
        infer_stack(bad, chain)


def test_bad_options_are_refused(chain, photo, tmp_path):
    with pytest.raises(ReplicationError, match="Unknown method 'fast'"):
        infer_stack(photo, chain, method="fast")
    with pytest.raises(ReplicationError, match="must be positive"):
        infer_stack(photo, chain, tile=0)
    with pytest.raises(ReplicationError, match=r"No weights folder at .*none"):
        load_chain(tmp_path / "none")
    with pytest.raises(ReplicationError, match=r"No weights at .*ev\+1"):
        load_chain(tmp_path)
