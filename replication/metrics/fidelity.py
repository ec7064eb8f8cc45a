"""PSNR, SSIM and MS-SSIM as the tables use them (Section 6.1), from well-kept libraries.

Protocol (the paper names the three metrics, not their settings; DEVIATIONS D10): RGB, mean over the
channels, whole image; SSIM of Wang et al. 2004 (11×11 Gaussian window, σ 1.5, K 0.01 and 0.03, valid
region) and MS-SSIM of Wang et al. 2003 (five scales). Tables report the mean of per-image values.
"""

from __future__ import annotations

import numpy as np
import pytorch_msssim
import torch
from skimage.metrics import peak_signal_noise_ratio

from replication.files import ReplicationError

PROTOCOL = "RGB mean over channels, whole image; Wang SSIM 11x11 sigma 1.5 valid; MS-SSIM 5 scales"
SSIM_MINIMUM, MS_SSIM_MINIMUM = 11, 161
"""Smallest image side in pixels that SSIM and MS-SSIM are defined for."""


def _checked(test, reference, data_range, minimum=1) -> tuple[np.ndarray, np.ndarray]:
    test, reference = np.asarray(test), np.asarray(reference)
    if test.shape != reference.shape:
        raise ReplicationError(
            f"Images to compare differ in shape: {test.shape} and {reference.shape}."
        )
    if test.ndim != 3 or test.shape[2] != 3:
        raise ReplicationError(f"Images to compare must be (H, W, 3), not {test.shape}.")
    if min(test.shape[:2]) < minimum:
        raise ReplicationError(
            f"This metric needs sides of at least {minimum} pixels, not {test.shape[:2]}."
        )
    if not data_range > 0:
        raise ReplicationError(f"data_range must be positive, not {data_range}.")
    if not (np.isfinite(test).all() and np.isfinite(reference).all()):
        raise ReplicationError("Images to compare hold NaN or infinite values.")
    return test, reference


def psnr(test: np.ndarray, reference: np.ndarray, *, data_range: float) -> float:
    """Peak signal-to-noise ratio in dB, over all pixels and channels of one image.

    Parameters
    ----------
    test, reference
        ``(H, W, 3)``, any real dtype.
    data_range
        Largest possible value: 255 for uint8, 1 for floats in [0, 1].

    Returns
    -------
    float
        dB; infinite for identical images.

    Raises
    ------
    ReplicationError
        If shapes differ or are not ``(H, W, 3)``, values are not finite, or data_range is not positive.
    """
    test, reference = _checked(test, reference, data_range)
    if np.array_equal(test, reference):
        return float("inf")
    # float64, so that the unsigned difference cannot wrap and scikit-image guesses nothing
    return float(
        peak_signal_noise_ratio(
            reference.astype(np.float64), test.astype(np.float64), data_range=data_range
        )
    )


def _batch(image: np.ndarray) -> torch.Tensor:
    return (
        torch.from_numpy(np.ascontiguousarray(image, np.float32))
        .permute(2, 0, 1)[None]
        .contiguous()
    )


def ssim(test: np.ndarray, reference: np.ndarray, *, data_range: float) -> float:
    """Structural similarity (doi:10.1109/TIP.2003.819861), mean over RGB.

    Parameters
    ----------
    test, reference, data_range
        As in :func:`psnr`; sides of at least 11 pixels.

    Returns
    -------
    float
        In [-1, 1]; 1 for identical images.

    Raises
    ------
    ReplicationError
        As in :func:`psnr`, or if the image is too small.
    """
    test, reference = _checked(test, reference, data_range, SSIM_MINIMUM)
    return float(pytorch_msssim.ssim(_batch(test), _batch(reference), data_range=data_range))


def ms_ssim(test: np.ndarray, reference: np.ndarray, *, data_range: float) -> float:
    """Multi-scale structural similarity (doi:10.1109/ACSSC.2003.1292216), five scales, mean over RGB.

    Parameters
    ----------
    test, reference, data_range
        As in :func:`psnr`; sides of at least 161 pixels.

    Returns
    -------
    float
        In [0, 1]; 1 for identical images.

    Raises
    ------
    ReplicationError
        As in :func:`psnr`, or if the image is too small.
    """
    test, reference = _checked(test, reference, data_range, MS_SSIM_MINIMUM)
    return float(pytorch_msssim.ms_ssim(_batch(test), _batch(reference), data_range=data_range))
