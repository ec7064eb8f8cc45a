"""PSNR by hand; SSIM, MS-SSIM and PU21 against other libraries, plain loops and the original programs."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from skimage.data import coffee
from skimage.metrics import structural_similarity

from replication.files import ReplicationError
from replication.images import luminance
from replication.metrics import ms_ssim, psnr, pu21_encode, pu21_psnr, pu21_ssim, ssim
from tests.conftest import SHARED_GOLDEN

GOLDEN = Path(__file__).parent / "golden"
needs_shared = pytest.mark.skipif(not SHARED_GOLDEN.is_dir(), reason="complete results elsewhere")


@pytest.fixture(scope="module")
def photos():
    reference = coffee()[:200, :240]
    noise = np.random.default_rng(0).normal(0, 12, reference.shape)
    return np.clip(reference + noise, 0, 255).astype(np.uint8), reference


@pytest.fixture(scope="module")
def radiance():
    """Two noisy images of about 80 cd/m2."""
    rng = np.random.default_rng(0)
    smooth = ndimage.gaussian_filter(rng.normal(size=(40, 52, 3)), (3, 3, 0))
    reference = 80 * np.exp(smooth / smooth.std())
    test = reference * np.exp(0.2 * rng.normal(size=reference.shape))
    return test.astype(np.float32), reference.astype(np.float32)


def wang(test, reference, data_range):
    """SSIM of 2004 as scikit-image computes it."""
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return structural_similarity(test, reference, data_range=data_range, **options)


# --- photos ------------------------------------------------------------------------------------


def test_psnr_of_a_known_error_without_wrapping():
    reference = np.full((4, 5, 3), 200, np.uint8)
    test = reference.copy()
    test[0, 0, 0] = 210  # one of 60 values is off by 10
    expected = 10 * np.log10(255**2 / (100 / 60))
    assert psnr(test, reference, data_range=255) == pytest.approx(expected)
    assert psnr(test / 255, reference / 255, data_range=1) == pytest.approx(expected)
    assert psnr(reference, reference, data_range=255) == np.inf
    low, high = np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 255, np.uint8)
    assert psnr(low, high, data_range=255) == psnr(high, low, data_range=255) == pytest.approx(0)


def test_ssim_is_wangs_and_ms_ssim_forgives_noise(photos):
    test, reference = photos
    want = np.mean([wang(test[..., c], reference[..., c], 255) for c in range(3)])
    assert ssim(test, reference, data_range=255) == pytest.approx(want, abs=2e-5)
    assert ssim(test / 255, reference / 255, data_range=1) == pytest.approx(want, abs=2e-5)
    assert ssim(test, reference, data_range=255) < ms_ssim(test, reference, data_range=255) < 1


def test_ms_ssim_is_never_negative_but_ssim_is():
    """Opposite images have a negative covariance at every scale."""
    reference = np.random.default_rng(0).integers(0, 256, (176, 176, 3)).astype(np.uint8)
    assert ssim(255 - reference, reference, data_range=255) < -0.5
    assert ms_ssim(255 - reference, reference, data_range=255) == 0


@needs_shared
@pytest.mark.parametrize("kind", ["noise", "blur", "jpeg30", "ev1"])
def test_octave_references(kind):
    pictures = np.load(SHARED_GOLDEN / "inputs" / "ldr_pairs.npz")
    golden = json.loads((SHARED_GOLDEN / "ssim_octave.json").read_text())[f"ldr_bottles__{kind}"]
    pair = pictures[f"ldr_bottles__{kind}"], pictures["ldr_bottles__ref"]
    close = (psnr, "psnr", 1e-9), (ssim, "ssim_wang_rgb", 1e-4), (ms_ssim, "msssim_rgb", 9e-4)
    for metric, key, tolerance in close:
        assert metric(*pair, data_range=255) == pytest.approx(golden[key], abs=tolerance)


# --- PU21 --------------------------------------------------------------------------------------


def test_curve_equals_the_authors():
    with np.load(GOLDEN / "pu21.npz") as golden:
        encoded = pu21_encode(golden["luminance"])
        np.testing.assert_allclose(encoded, golden["pu21"], rtol=1e-10, atol=1e-12)
    assert pu21_encode(0) == pu21_encode(0.005) == pytest.approx(0, abs=1e-6)
    assert pu21_encode(1e9) == pu21_encode(10000) == pytest.approx(595.39, abs=0.01)


def test_pu21_psnr_by_hand(radiance):
    """Of 20 pixels one is at 1000 instead of 100 cd/m2; then RGB as its luminance, and as it is."""
    reference = np.full((4, 5), 100.0)
    test = reference.copy()
    test[0, 0] = 1000
    step = pu21_encode(1000.0) - pu21_encode(100.0)
    expected = 20 * np.log10(256 / (step / np.sqrt(20)))
    assert pu21_psnr(test, reference) == pytest.approx(expected)
    assert pu21_psnr(reference, reference) == np.inf
    colour = [np.repeat(image[..., None], 3, axis=2) for image in (test, reference)]
    assert pu21_psnr(*colour) == pu21_psnr(*colour, channels="rgb") == pytest.approx(expected)
    grey = [luminance(image) for image in radiance]
    assert pu21_psnr(*radiance) == pytest.approx(pu21_psnr(*grey))
    assert pu21_ssim(*radiance) == pytest.approx(pu21_ssim(*grey))
    codes = [pu21_encode(image) for image in radiance]
    assert pu21_psnr(*radiance, channels="rgb") == pytest.approx(psnr(*codes, data_range=256))


def test_pu21_psnr_equals_the_toolbox():
    """Its peak is the largest encoded value of the reference."""
    with np.load(GOLDEN / "reinhard_mini_disk.npz") as file:
        disk = file["hdr"]
    peak, white = float(pu21_encode(disk.max())), np.percentile(luminance(disk), 99.9)
    with np.load(GOLDEN / "pu21.npz") as golden:
        for name, test in (("scale08", disk * 0.8), ("gamma11", white * (disk / white) ** 1.1)):
            ours = pu21_psnr(test, disk, data_range=peak)
            assert ours == pytest.approx(float(golden[f"psnr_{name}"]), abs=2e-6)


def test_pu21_ssim_is_wangs(radiance):
    codes = [pu21_encode(luminance(image)) for image in radiance]
    for data_range in (256.0, 600.0):  # our window is single precision
        ours = pu21_ssim(*radiance, data_range=data_range)
        assert ours == pytest.approx(wang(*codes, data_range), abs=1e-5)


# --- input ---------------------------------------------------------------------------------------

GREY, BYTES = np.full((12, 13, 3), 50.0), np.full((170, 165, 3), 50, np.uint8)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("score", "test", "reference", "options", "words"),
    [
        (psnr, BYTES[..., 0], BYTES[..., 0], {}, r"The test image must be \(H, W, 3\)"),
        (psnr, GREY, np.inf * GREY, {}, "The reference image holds NaN or inf"),
        (ssim, BYTES[:10], BYTES[:10], {}, "at least 11"),
        (ms_ssim, BYTES[:160], BYTES[:160], {}, "at least 161"),
        (ms_ssim, BYTES, BYTES, {"data_range": 0}, "data_range must be positive"),
        (pu21_psnr, GREY[..., :2], GREY[..., :2], {}, r"\(H, W, 3\) or \(H, W\)"),
        (pu21_psnr, GREY * np.nan, GREY, {}, "The test image.*not nan to nan"),
        (pu21_psnr, -GREY, GREY, {}, "test image must be within 0 and 1e.15 cd/m2, not -50 to -50"),
        (pu21_psnr, GREY, np.float32(GREY * 6e36), {}, "reference image must be within 0 .* 3e.38"),
        (pu21_psnr, BYTES, BYTES, {}, "floating point"),
        (pu21_psnr, GREY, GREY, {"channels": "red"}, "luminance or rgb"),
        (pu21_ssim, GREY[1:], GREY, {}, "differ in shape"),
        (pu21_ssim, GREY[:10], GREY[:10], {}, "at least 11"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(score, test, reference, options, words):
    with pytest.raises(ReplicationError, match=words) as error:
        score(test, reference, **({"data_range": 255} | options))
    assert "\n" not in str(error.value)


def test_smallest_sizes_and_wrong_luminance():
    for score, image in ((ssim, BYTES[:11]), (ms_ssim, BYTES[:161]), (pu21_ssim, GREY[:11, :11])):
        assert score(image, image, data_range=255) == pytest.approx(1)
    with pytest.raises(ReplicationError, match="Luminance must be within"):
        pu21_encode(np.array([1, np.nan]))
