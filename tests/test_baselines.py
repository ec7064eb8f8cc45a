"""Inverse tone mapping against the MATLAB toolbox, plain loops, and pictures with known answers."""

from pathlib import Path

import numpy as np
import pytest

from replication.baselines import huo, kovaleski_oliveira, masia
from replication.baselines.expansion import linearise
from replication.images import luminance
from tests.test_stacks import fails

GOLDEN = Path(__file__).parent / "golden" / "expansion_disks.npz"
VARIANTS = {
    "huophys_5000": (huo.expand, {"max_luminance": 5000}),
    "huophys_1000": (huo.expand, {"max_luminance": 1000}),
    "ko_paper": (kovaleski_oliveira.expand, {}),
    "ko_demo": (kovaleski_oliveira.expand, {"min_luminance": 0.1, "max_luminance": 5000}),
    "masia_n1m1": (masia.expand, {}),
    "masia_n0m1": (masia.expand, {"noise_removal": False}),
    "masia_n1m0": (masia.expand, {"multilinear": False}),
    "masia_n0m0": (masia.expand, {"noise_removal": False, "multilinear": False}),
}

pytestmark = pytest.mark.filterwarnings("ignore:Masia's exponent")
each_method = pytest.mark.parametrize("expand", [huo.expand, kovaleski_oliveira.expand, masia.expand])


def scene(height=38, width=51):
    """A colourful picture with clipped, almost clipped, dark and black pixels."""
    y, x = np.mgrid[:height, :width] / height
    waves = [0.5 + 0.4 * np.sin(6 * x * (c + 1) + 3 * y - c) for c in range(3)]
    noise = np.random.default_rng(0).normal(size=(height, width, 3))
    spot = np.exp(-40 * ((x - 0.7) ** 2 + (y - 0.4) ** 2))[..., None]
    picture = np.stack(waves, axis=2) + 0.05 * noise + spot
    picture[-4:, :5] = 0
    return np.rint(255 * np.clip(picture, 0, 1)).astype(np.uint8)


def grey(level, shape=(20, 30)):
    return np.full((*shape, 3), level, np.uint8)


def blocks_of_4(image):
    height, width = image.shape[0] // 4, image.shape[1] // 4
    image = image[: 4 * height, : 4 * width].astype(np.float64)
    return image.reshape(height, 4, width, 4, 3).mean(axis=(1, 3))


@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_the_toolbox(variant):
    expand, options = VARIANTS[variant]
    with np.load(GOLDEN) as golden:
        ours = expand(np.repeat(golden["mini_disk"][..., None], 3, axis=2), **options)
        assert ours.dtype == np.float32
        truth = golden[f"mini_disk__{variant}"][..., None].repeat(3, axis=2)
        np.testing.assert_allclose(ours[::2, ::2], truth, rtol=1e-6)
        ours = expand(golden["syn_disk"], **options)
        truth = golden[f"syn_disk__{variant}__b4"]
        np.testing.assert_allclose(blocks_of_4(ours)[::4, ::4], truth, rtol=1e-6)
        extremes = golden[f"syn_disk__{variant}__stat"][[0, 4]]
        np.testing.assert_allclose([ours.min(), ours.max()], extremes, rtol=1e-6)
        bright = linearise(golden["syn_disk"])[1]
        ours = [masia.exponent(bright), masia.exponent(bright, multilinear=False)]
        np.testing.assert_allclose(ours, golden["syn_disk__exponents"], atol=1e-9)


@each_method
def test_colours_are_kept_and_the_type_does_not_matter(expand):
    ldr = scene()
    linear, bright = linearise(ldr)
    hdr = expand(ldr)
    expected = linear * (luminance(hdr) / np.maximum(bright, 1e-300))[..., None]
    np.testing.assert_allclose(hdr, expected, rtol=1e-5)
    assert not hdr[-4:, :5].any(), "black stays black"
    for dtype in (np.float64, np.float32):
        picture = (ldr / 255).astype(dtype)
        np.testing.assert_allclose(expand(picture), hdr, rtol=1e-4)
        assert np.array_equal(picture, (ldr / 255).astype(dtype)), "the input is left alone"


@pytest.mark.parametrize("dtype", [np.uint8, np.float64, np.float32])
def test_clipping_starts_above_254(dtype):
    for level, boost, intended in ((254, 1, 0.25), (255, 4, 1)):
        ldr = grey(level) if dtype is np.uint8 else (grey(level) / 255).astype(dtype)
        truth = linearise(ldr)[0]
        options = {"min_luminance": 0, "max_luminance": 1}
        hdr = kovaleski_oliveira.expand(ldr, **options)
        np.testing.assert_allclose(hdr, truth * boost, rtol=1e-6)
        hdr = kovaleski_oliveira.expand(ldr, **options, intended_range=True)
        np.testing.assert_allclose(hdr, truth * intended, rtol=1e-6)


@each_method
@pytest.mark.parametrize(
    "ldr",
    [
        grey(0),
        grey(255, (1, 1)),
        grey(7, (3, 500)),
        np.nextafter(np.full((9, 9, 3), 0.3), np.eye(9)[..., None]),
        np.full((9, 9, 3), 1e-200),
        np.random.default_rng(0).random((17, 300, 3)).astype(np.float16),
    ],
)
def test_any_picture_gives_finite_radiance(expand, ldr):
    hdr = expand(ldr)
    assert np.isfinite(hdr).all()
    assert hdr.min() >= 0
    assert ldr.any() or not hdr.any()


def test_constant_pictures_by_hand():
    """The filters leave a constant as it is; M is its own mean, the key 1/2."""
    level = (128 / 255) ** 2.2
    bright = (level**0.86 + (level + 1e-3) ** 0.86) ** (1 / 0.86)
    gamma = 2.4379 + 0.2319 * np.log(level + 1e-3) - 1.1228 / 2
    for expand, constant, truth in (
        (huo.expand, 128, 5000 * bright),
        (kovaleski_oliveira.expand, 128, level * (1200 - 0.3) + 0.3),
        (kovaleski_oliveira.expand, 255, 4800),
        (masia.expand, 128, 5000 * level**gamma),
        (masia.expand, 255, 5000),
    ):
        np.testing.assert_allclose(expand(grey(constant)), truth, rtol=1e-6)


def test_a_negative_exponent_warns():
    """A dark picture with a lamp has a low key: the regression of 2009 turns its tones round."""
    night = grey(60)
    night[8:12, 13:17], night[-1] = 250, 20
    with pytest.warns(UserWarning, match="change places"):
        hdr = masia.expand(night, multilinear=False, noise_removal=False)
    assert hdr[10, 15, 0] < hdr[0, 0, 0] < hdr[-1, 0, 0]
    hdr = masia.expand(night, noise_removal=False)
    assert hdr[10, 15, 0] > hdr[0, 0, 0] > hdr[-1, 0, 0]


def test_bad_input_gets_one_sentence():
    fails("within 0 and 1", masia.expand, scene() / 1.0)
    fails("uint8 or floating point", kovaleski_oliveira.expand, scene().astype(int))
    fails("max_luminance must be positive", huo.expand, scene(), max_luminance=0)
    fails("not 2000 and 1200", kovaleski_oliveira.expand, scene(), min_luminance=2000)
