"""Response correction against the authors' program, and on images with a known answer."""

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from replication.files import ReplicationError
from replication.metrics import correct_response, pu21_psnr
from replication.metrics.response import _correct
from tests.conftest import SHARED_GOLDEN

GOLDEN = Path(__file__).parent / "golden"
NAMES = ("noise5", "blur15", "gamma11", "scale08", "ldr8", "local")
# The authors' least squares loses digits where the cubes of a grey image's luminance are nearly dependent
LOOSE = {("mini_disk", name): 1e-3 for name in ("gamma11", "scale08", "ldr8")}


def blocks_of_4(image):
    height, width = image.shape[0] // 4, image.shape[1] // 4
    return image[: 4 * height, : 4 * width].reshape(height, 4, width, 4, 3).mean(axis=(1, 3))


def compare_with_the_authors(golden, pair, name, test, reference):
    """Coefficients and PU21-PSNR; returns the corrected images."""
    (luv, (first, second)), (rgb, (third,)) = (_correct(test, reference, s) for s in ("luv", "rgb"))
    tolerance = LOOSE.get((pair, name), 1e-6)
    np.testing.assert_allclose(first, golden[f"{pair}__{name}__luv_x1"], atol=tolerance)
    np.testing.assert_allclose(second, golden[f"{pair}__{name}__luv_x2"], atol=1e-6)
    np.testing.assert_allclose(third, golden[f"{pair}__{name}__rgb_x"], atol=1e-6)
    want = np.ravel(golden[f"{pair}__{name}__psnr"])
    grey = [0.212656, 0.715158, 0.072186]  # their weights of luminance
    for n, image in enumerate((test, luv, rgb)):
        # beyond 60 dB, digits of the float32 input show
        close = {"abs": 1e-4} if want[n] < 60 else {"rel": 0.1}
        assert pu21_psnr(image, reference, channels="rgb") == pytest.approx(want[n], **close)
        assert pu21_psnr(image @ grey, reference @ grey) == pytest.approx(want[n + 3], **close)
    return luv, rgb


@pytest.mark.parametrize("name", NAMES)
def test_coefficients_and_scores_equal_the_authors(name):
    golden = json.loads((GOLDEN / "response.json").read_text())
    with np.load(GOLDEN / "hdrvdp2.npz") as file:
        pair = file[f"disk_{name}"].astype(float), file["disk_reference"].astype(float)
    compare_with_the_authors(golden, "mini_disk", name, *pair)


@pytest.mark.skipif(not SHARED_GOLDEN.is_dir(), reason="complete results elsewhere")
@pytest.mark.parametrize("pair", ["mini_bottles", "mini_disk"])
def test_corrected_images_equal_the_authors(pair):
    golden = np.load(SHARED_GOLDEN / "crf_correction.npz")
    images = np.load(SHARED_GOLDEN / "inputs" / f"vdp_{pair}.npz")
    names = [*NAMES, "clip95"] if pair == "mini_bottles" else NAMES
    for name in names:
        test, reference = images[name].astype(float), images["identical"].astype(float)
        luv, rgb = compare_with_the_authors(golden, pair, name, test, reference)
        for space, image in (("luv", luv), ("rgb", rgb)):
            want = golden[f"{pair}__{name}__{space}__b4"]
            np.testing.assert_allclose(blocks_of_4(image), want, rtol=1e-4)


def scene(seed=0, spread=1.0):
    rng = np.random.default_rng(seed)
    return 50 * np.exp(spread * rng.normal(size=(20, 30, 3)))


@pytest.mark.parametrize("space", ["luv", "rgb"])
def test_identical_images_come_back(space):
    for image in (scene(), scene().astype(np.float32), np.full((4, 5, 3), 7.0)):
        corrected = correct_response(image, image, space=space)
        assert corrected.dtype == np.float64
        np.testing.assert_allclose(corrected, np.maximum(image, 0.005), rtol=1e-9)


@pytest.mark.parametrize("space", ["luv", "rgb"])
def test_a_smooth_error_of_tone_is_removed_and_noise_stays(space):
    reference = scene(spread=0.7)
    toned = 30 * (reference / 50) ** 1.3
    noisy = reference * np.exp(0.3 * np.random.default_rng(1).normal(size=reference.shape))
    for test, gain in ((toned, 15), (noisy, 0)):
        raw = pu21_psnr(test, reference)
        after = pu21_psnr(correct_response(test, reference, space=space), reference)
        assert gain <= after - raw < gain + 25


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("space", ["luv", "rgb"])
def test_degenerate_images_stay_finite(space):
    rng = np.random.default_rng(0)
    levels = np.where(rng.random((20, 30, 1)) > 0.5, 1.0, 1000.0) * np.ones(3)
    constant, black = np.full((20, 30, 3), 7.0), np.zeros((20, 30, 3))
    images = [constant, black, levels, scene(), scene(1, 9).clip(0, 1e14), scene() * [1, 0, 0]]
    pixel = np.ones((1, 1, 3))
    for test, reference in [*product(images, images), (pixel, 3 * pixel)]:
        corrected = correct_response(test, reference, space=space)
        assert np.isfinite(corrected).all()
        assert corrected.min() >= 0
    np.testing.assert_allclose(correct_response(constant, 3 * constant, space="luv"), 21, rtol=1e-6)


@pytest.mark.parametrize(
    ("shape", "space", "words"),
    [
        ((20, 31, 3), "luv", "differ in shape"),
        ((20, 30), "luv", r"needs \(H, W, 3\)"),
        ((20, 30, 3), "lab", "luv or rgb, not 'lab'"),
    ],
)
def test_bad_input_is_refused(shape, space, words):
    with pytest.raises(ReplicationError, match=words):
        correct_response(np.ones(shape), np.ones((20, 30, 3)[: len(shape)]), space=space)
