"""PU21 against its authors' curve, the MATLAB toolbox's PSNR, and SSIM in plain loops."""

import json
from pathlib import Path

import numpy as np
import pytest
import pytorch_msssim
import torch
from scipy import ndimage

from replication import metrics
from replication.files import ReplicationError
from replication.images import luminance
from replication.metrics.pu21 import pu21_encode, pu21_psnr, pu21_ssim
from tests.conftest import SHARED_GOLDEN

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "pu21.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def disk():
    """A grey scene of dark texture and bright disks, cd/m2."""
    with np.load(GOLDEN / "reinhard_mini_disk.npz") as file:
        return file["hdr"]


@pytest.fixture(scope="module")
def pair():
    rng = np.random.default_rng(0)
    smooth = ndimage.gaussian_filter(rng.normal(size=(40, 52, 3)), (3, 3, 0))
    reference = 80 * np.exp(smooth / smooth.std())
    test = reference * np.exp(0.2 * rng.normal(size=reference.shape))
    return test.astype(np.float32), reference.astype(np.float32)


# --- encoding --------------------------------------------------------------------------------


def test_curve_equals_the_authors(golden):
    encoded = pu21_encode(golden["luminance"])
    np.testing.assert_allclose(encoded, golden["pu21"], rtol=1e-10, atol=1e-12)
    assert encoded.dtype == np.float64


def test_landmarks():
    assert pu21_encode(0.005) == pytest.approx(0, abs=1e-6)
    assert pu21_encode(100) == pytest.approx(256, abs=0.5)
    assert pu21_encode(10000) == pytest.approx(595.39, abs=0.01)


def test_clamped_and_rising():
    assert pu21_encode(0) == pu21_encode(0.005) >= 0
    assert pu21_encode(1e9) == pu21_encode(1e4)
    assert (np.diff(pu21_encode(np.geomspace(0.006, 9999, 500))) > 0).all()
    assert pu21_encode(np.ones((2, 3, 4))).shape == (2, 3, 4)


# --- PSNR ------------------------------------------------------------------------------------


def test_psnr_by_hand():
    """Of 20 pixels one is at 1000 instead of 100 cd/m2."""
    reference = np.full((4, 5), 100.0)
    test = reference.copy()
    test[0, 0] = 1000
    step = pu21_encode(1000.0) - pu21_encode(100.0)
    expected = 20 * np.log10(256 / (step / np.sqrt(20)))
    assert pu21_psnr(test, reference) == pytest.approx(expected)
    assert pu21_psnr(reference, reference) == np.inf
    assert pu21_psnr(test, reference, data_range=512) == pytest.approx(expected + 20 * np.log10(2))
    colour = [np.repeat(image[..., None], 3, axis=2) for image in (test, reference)]
    assert pu21_psnr(*colour) == pytest.approx(expected)


def test_psnr_equals_the_toolbox(golden, disk):
    """Its peak is the largest encoded value of the reference."""
    peak = pu21_encode(disk.max())
    white = np.percentile(luminance(disk), 99.9)
    tests = {"scale08": disk * 0.8, "gamma11": white * (disk.astype(float) / white) ** 1.1}
    for name, test in tests.items():
        ours = pu21_psnr(test, disk, data_range=float(peak))
        assert ours == pytest.approx(float(golden[f"psnr_{name}"]), abs=2e-6)


def test_scores_are_of_luminance(pair):
    test, reference = pair
    grey = [luminance(image) for image in pair]
    assert pu21_psnr(test, reference) == pytest.approx(pu21_psnr(*grey))
    assert pu21_ssim(test, reference) == pytest.approx(pu21_ssim(*grey))


# --- SSIM ------------------------------------------------------------------------------------


def naive_ssim(test, reference, data_range):
    """Wang's SSIM, window by window."""
    offset = np.arange(-5, 6)
    window = np.exp(-(offset[:, None] ** 2 + offset**2) / (2 * 1.5**2))
    window /= window.sum()
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    height, width = test.shape
    values = []
    for i, j in np.ndindex(height - 10, width - 10):
        x, y = test[i : i + 11, j : j + 11], reference[i : i + 11, j : j + 11]
        mx, my = (window * x).sum(), (window * y).sum()
        vx, vy = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum()
        covariance = (window * (x - mx) * (y - my)).sum()
        luminance_and_structure = (2 * mx * my + c1) * (2 * covariance + c2)
        values.append(luminance_and_structure / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    return np.mean(values)


@pytest.mark.parametrize("data_range", [256.0, 600.0])
def test_ssim_is_wangs(pair, data_range):
    encoded = [pu21_encode(luminance(image)) for image in pair]
    ours = pu21_ssim(*pair, data_range=data_range)
    assert ours == pytest.approx(naive_ssim(*encoded, data_range), abs=1e-9)
    tensors = [torch.from_numpy(image)[None, None] for image in encoded]
    other = float(pytorch_msssim.ssim(*tensors, data_range=data_range))
    assert ours == pytest.approx(other, abs=1e-5), "its window is in single precision"


def test_identical_and_worse_images(pair):
    test, reference = pair
    assert pu21_ssim(reference, reference) == pytest.approx(1)
    worse = test * np.exp(0.5 * np.random.default_rng(1).normal(size=test.shape))
    assert pu21_ssim(worse, reference) < pu21_ssim(test, reference) < 1
    assert pu21_psnr(worse, reference) < pu21_psnr(test, reference)


def test_black_images_are_scored():
    black = np.zeros((12, 12, 3))
    assert pu21_psnr(black, black) == np.inf
    assert np.isfinite(pu21_psnr(black + 1, black))
    assert -1 <= pu21_ssim(black + 1, black) < 1


# --- bad input -------------------------------------------------------------------------------

GREY = np.full((12, 13, 3), 50.0)


@pytest.mark.parametrize("score", [pu21_psnr, pu21_ssim])
@pytest.mark.parametrize(
    ("test", "reference", "options", "words"),
    [
        (GREY[1:], GREY, {}, "differ in shape"),
        (GREY[..., :2], GREY[..., :2], {}, r"\(H, W, 3\)"),
        (GREY[0, 0], GREY[0, 0], {}, r"\(H, W, 3\)"),
        (GREY[:0], GREY[:0], {}, r"\(H, W, 3\)"),
        (GREY[:0, :, 0], GREY[:0, :, 0], {}, r"\(H, W\)"),
        (GREY * np.nan, GREY, {}, "NaN"),
        (GREY, GREY * np.inf, {}, "infinite"),
        (-GREY, GREY, {}, "negative"),
        (-GREY[..., 0], GREY[..., 0], {}, "not negative"),
        (GREY[..., 0], GREY[..., 0] * np.nan, {}, "finite"),
        (GREY.astype(np.uint8), GREY.astype(np.uint8), {}, "floating point"),
        (GREY, GREY, {"data_range": 0}, "data_range must be positive"),
        (GREY, GREY, {"data_range": np.inf}, "data_range must be positive"),
    ],
)
def test_bad_input_is_told_in_one_sentence(score, test, reference, options, words):
    with pytest.raises(ReplicationError, match=words) as error:
        score(test, reference, **options)
    assert "\n" not in str(error.value)


def test_ssim_needs_its_window():
    assert pu21_ssim(GREY[:11, :11], GREY[:11, :11]) == pytest.approx(1)
    with pytest.raises(ReplicationError, match="at least 11 pixels"):
        pu21_ssim(GREY[:10], GREY[:10])


def test_the_package_exports_them():
    assert metrics.pu21_psnr is pu21_psnr
    assert metrics.pu21_ssim is pu21_ssim


# --- the complete golden results, where they are ---------------------------------------------


@pytest.mark.skipif(not SHARED_GOLDEN.is_dir(), reason="the complete golden results are not here")
@pytest.mark.parametrize("name", ["mini_bottles", "mini_disk", "syn_disk"])
def test_complete_golden_results(name):
    scores = json.loads((SHARED_GOLDEN / "metrics_HEAD.json").read_text())[name]
    with np.load(SHARED_GOLDEN / "inputs" / f"vdp_{name}.npz") as file:
        reference = file["identical"]
        peak = float(pu21_encode(reference.max()))
        for key, score in scores.items():
            ours = pu21_psnr(file[key], reference, data_range=peak)
            if score["psnr_pu21"] == 1000:  # how the toolbox writes infinity
                assert ours == np.inf
            else:
                assert ours == pytest.approx(score["psnr_pu21"], abs=1e-9)
