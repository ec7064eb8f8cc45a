"""PSNR by hand, SSIM and MS-SSIM against scikit-image and a reference computed under Octave."""

import json

import numpy as np
import pytest
from skimage.data import coffee
from skimage.metrics import structural_similarity

from replication.files import ReplicationError
from replication.metrics import ms_ssim, psnr, ssim
from tests.conftest import SHARED_GOLDEN


@pytest.fixture(scope="module")
def pair():
    reference = coffee()[:200, :240]
    noise = np.random.default_rng(0).normal(0, 12, reference.shape)
    return np.clip(reference + noise, 0, 255).astype(np.uint8), reference


def test_psnr_of_a_known_error():
    reference = np.full((4, 5, 3), 200, np.uint8)
    test = reference.copy()
    test[0, 0, 0] = 210  # one of 60 values is off by 10
    expected = 10 * np.log10(255**2 / (100 / 60))
    assert psnr(test, reference, data_range=255) == pytest.approx(expected)
    assert psnr(test / 255, reference / 255, data_range=1) == pytest.approx(expected)
    assert psnr(reference, reference, data_range=255) == np.inf


def test_psnr_does_not_wrap_unsigned_differences():
    low, high = np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 255, np.uint8)
    assert psnr(low, high, data_range=255) == psnr(high, low, data_range=255) == pytest.approx(0)


def test_ssim_is_wangs_as_scikit_image_computes_it(pair):
    test, reference = pair
    expected = np.mean(
        [
            structural_similarity(
                test[..., c],
                reference[..., c],
                data_range=255,
                gaussian_weights=True,
                sigma=1.5,
                use_sample_covariance=False,
            )
            for c in range(3)
        ]
    )
    assert ssim(test, reference, data_range=255) == pytest.approx(expected, abs=2e-5)
    assert ssim(test / 255, reference / 255, data_range=1) == pytest.approx(expected, abs=2e-5)


def test_identical_images_score_one(pair):
    _, reference = pair
    assert ssim(reference, reference, data_range=255) == pytest.approx(1)
    assert ms_ssim(reference, reference, data_range=255) == pytest.approx(1)


def test_ms_ssim_falls_with_noise_but_less_than_ssim(pair):
    test, reference = pair
    assert ssim(test, reference, data_range=255) < ms_ssim(test, reference, data_range=255) < 1


@pytest.mark.skipif(not SHARED_GOLDEN.exists(), reason="the full reference pictures are not here")
@pytest.mark.parametrize("kind", ["noise", "blur", "jpeg30", "ev1"])
def test_octave_references(kind):
    pictures = np.load(SHARED_GOLDEN / "inputs" / "ldr_pairs.npz")
    golden = json.loads((SHARED_GOLDEN / "ssim_octave.json").read_text())[f"ldr_bottles__{kind}"]
    test, reference = pictures[f"ldr_bottles__{kind}"], pictures["ldr_bottles__ref"]
    assert psnr(test, reference, data_range=255) == pytest.approx(golden["psnr"], abs=1e-9)
    assert ssim(test, reference, data_range=255) == pytest.approx(golden["ssim_wang_rgb"], abs=1e-4)
    assert ms_ssim(test, reference, data_range=255) == pytest.approx(golden["msssim_rgb"], abs=9e-4)


@pytest.mark.parametrize("metric", [psnr, ssim, ms_ssim])
def test_bad_pairs_are_refused(metric, pair):
    test, reference = pair
    with pytest.raises(ReplicationError, match="differ in shape"):
        metric(test[1:], reference, data_range=255)
    with pytest.raises(ReplicationError, match=r"\(H, W, 3\)"):
        metric(test[..., 0], reference[..., 0], data_range=255)
    with pytest.raises(ReplicationError, match="NaN"):
        metric(np.full(test.shape, np.nan), reference, data_range=255)
    with pytest.raises(ReplicationError, match="data_range"):
        metric(test, reference, data_range=0)
    with pytest.raises(TypeError, match="data_range"):
        metric(test, reference)


def test_images_too_small_for_the_windows_are_refused(pair):
    test, reference = pair
    with pytest.raises(ReplicationError, match="at least 11 pixels"):
        ssim(test[:10], reference[:10], data_range=255)
    with pytest.raises(ReplicationError, match="at least 161 pixels"):
        ms_ssim(test[:160], reference[:160], data_range=255)
