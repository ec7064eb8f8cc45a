"""Tone mapping against the MATLAB toolbox and the formula."""

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from replication.hdr import reinhard
from replication.images import luminance
from replication.paper import EVS
from replication.reconstruct import merge_stack
from tests.test_stacks import fails

GOLDEN = Path(__file__).parent / "golden" / "reinhard_mini_disk.npz"
OPTIONS = {"auto": {}, "a018": {"key": 0.18}, "a018_wInf": {"key": 0.18, "white": np.inf}}


def scene():
    smooth = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(40, 52, 3)), (4, 4, 0))
    return np.exp(2 * smooth / smooth.std()).astype(np.float32)


def test_key_is_018_where_the_formula_does_not_hold():
    assert reinhard.automatic_key(np.full((5, 5), 3.0)) == 0.18, "no contrast"
    assert reinhard.automatic_key(np.linspace(1e-6, 2e-6, 9)) == 0.18, "mean lifted by delta"


@pytest.mark.parametrize("tag", OPTIONS)
def test_equals_the_toolbox(tag):
    """The automatic parameters, and the result, whole or as means of 4x4 blocks."""
    with np.load(GOLDEN) as golden:
        bright, truth = luminance(golden["hdr"]), [golden[name] for name in ("log_mean", "key", "white")]
        ours = reinhard.tone_map_linear(golden["hdr"], **OPTIONS[tag])
        if f"global_{tag}" in golden:
            np.testing.assert_allclose(ours, golden[f"global_{tag}"], rtol=1e-6)
        else:
            blocks = ours[:128].reshape(32, 4, 40, 4, 3).mean(axis=(1, 3), dtype=np.float64)
            np.testing.assert_allclose(blocks, golden[f"global_{tag}__b4"], rtol=1e-6)
    ours = reinhard.log_mean(bright), reinhard.automatic_key(bright), reinhard.automatic_white(bright)
    np.testing.assert_allclose(ours, truth, rtol=1e-10)


def test_is_the_formula():
    hdr = scene()
    ours = reinhard.tone_map_linear(hdr, key=0.3, white=2.0)
    bright = hdr.astype(float) @ [0.2126, 0.7152, 0.0722]
    scaled = 0.3 * bright / np.exp(np.log(bright + 1e-3).mean())
    display = scaled * (1 + scaled / 4) / (1 + scaled)
    np.testing.assert_allclose(ours, hdr * (display / bright)[..., None], rtol=1e-6)


def test_picture_is_clipped_and_gamma_encoded():
    hdr = scene()
    before, linear = hdr.copy(), reinhard.tone_map_linear(hdr)
    assert linear.max() > 1
    for gamma in (1.0, 2.2):
        picture = reinhard.tone_map(hdr, gamma=gamma)
        assert picture.dtype == np.float32
        np.testing.assert_allclose(picture, np.clip(linear, 0, 1) ** (1 / gamma), rtol=1e-5)
    assert np.array_equal(hdr, before), "the input is left alone"


@pytest.mark.parametrize(
    "hdr",
    [
        np.full((6, 7, 3), 1e-30),
        np.full((1, 1, 3), 1e38),
        np.full((1, 9, 3), 0.5) * (1 + 1e-7 * np.arange(9))[:, None],
        np.eye(9)[..., None].repeat(3, axis=2) * 1e30,
        np.geomspace(1e-35, 1e35, 27).reshape(3, 3, 3),
        np.random.default_rng(0).random((5, 200, 3)).astype(np.float16),
    ],
)
def test_any_radiance_gives_a_picture(hdr):
    picture = reinhard.tone_map(hdr)
    assert picture.min() >= 0
    assert picture.max() <= 1


def test_a_black_photo_stays_black_and_its_noise_dark():
    """The noise is that of a stack which the networks infer: radiance far below delta."""
    assert not reinhard.tone_map(np.zeros((5, 6, 3))).any()
    black = {ev: np.zeros((5, 6, 3), np.uint8) for ev in (*EVS, 0)}
    assert not reinhard.tone_map(merge_stack(black)).any()
    noise = 2.5e-6 * np.random.default_rng(0).uniform(1, 2, (40, 40, 3))
    assert reinhard.tone_map(noise).max() < 20 / 255


def test_bad_input_gets_one_sentence():
    grey = np.full((4, 4, 3), 0.5)
    fails(r"\(H, W, 3\)", reinhard.tone_map, grey[..., 0])
    fails("negative", reinhard.tone_map, -grey)
    fails("positive", reinhard.tone_map, grey, key=0)
    fails("gamma", reinhard.tone_map, grey, gamma=-1)
