"""PSNR, SSIM and MS-SSIM of photos (Section 6.1), and PSNR and SSIM of HDR images on PU21 values.

The paper does not state settings (DEVIATIONS D10). Here: RGB, mean over channels, whole image; SSIM of
Wang et al. 2004 (11 x 11 Gaussian window of sigma 1.5, K 0.01 and 0.03, valid region, doi
10.1109/TIP.2003.819861); MS-SSIM of Wang et al. 2003 (five scales, doi 10.1109/ACSSC.2003.1292216).

PU21 (Mantiuk & Azimi 2021, variant "banding + glare", doi 10.1109/PCS50896.2021.9477471) encodes cd/m2 so
that equal steps are about equally visible. 256 is the code of 100 cd/m2 (DEVIATIONS D26).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytorch_msssim
import torch

from replication.files import ReplicationError
from replication.images import luminance as luminance_of
from replication.metrics.scaling import BRIGHTEST

PROTOCOL = "RGB mean over channels, whole image; Wang SSIM 11x11 sigma 1.5 valid; MS-SSIM 5 scales"
PU21_PROTOCOL = "PU21 banding_glare of BT.709 luminance in cd/m2, data_range 256; SSIM Wang 11x11 valid"
SSIM_MINIMUM, MS_SSIM_MINIMUM = 11, 161  # smallest image sides in pixels

_PU21 = (0.353487901, 0.3734658629, 8.277049286e-05, 0.9062562627, 0.09150303166, 0.9099517204)


def check_pair(
    test, reference, *, data_range: float = 1, side: int = 1, light: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Two finite images (H, W, 3) of one size; with `light` floats in cd/m2, also luminance (H, W)."""
    pair = np.asarray(test), np.asarray(reference)
    for image, name in zip(pair, ("The test image", "The reference image"), strict=True):
        if not (image.shape[2:] == (3,) or (light and image.ndim == 2)) or not image.size:
            shapes = "(H, W, 3) or (H, W)" if light else "(H, W, 3)"
            raise ReplicationError(f"{name} must be {shapes}, not {image.shape}.")
        if light and image.dtype.kind != "f":
            raise ReplicationError(f"{name} must be floating point, not {image.dtype}.")
        if light:
            _check_light(image, name)
        elif not np.isfinite(image).all():
            raise ReplicationError(f"{name} holds NaN or infinite values.")
    test, reference = pair
    if test.shape != reference.shape:
        raise ReplicationError(f"Images differ in shape: {test.shape} and {reference.shape}.")
    if min(test.shape[:2]) < side:
        raise ReplicationError(f"This metric needs sides of at least {side}, not {test.shape[:2]}.")
    if not 0 < data_range < np.inf:
        raise ReplicationError(f"data_range must be positive and finite, not {data_range}.")
    return pair


def _check_light(light: np.ndarray, name: str) -> None:
    if not ((light >= 0) & (light <= BRIGHTEST)).all():
        found = f"{light.min():g} to {light.max():g}"
        raise ReplicationError(f"{name} must be within 0 and {BRIGHTEST:g} cd/m2, not {found}.")


def psnr(test: np.ndarray, reference: np.ndarray, *, data_range: float) -> float:
    """Peak signal-to-noise ratio in dB over pixels and channels; infinite for identical images.

    Args:
        test: (H, W, 3), any real dtype, finite.
        reference: The same.
        data_range: Largest possible value: 255 for uint8, 1 for floats in [0, 1].

    Raises:
        ReplicationError: Other shapes, values that are not finite, data_range not positive.
    """
    return _psnr(*check_pair(test, reference, data_range=data_range), data_range)


def _psnr(test: np.ndarray, reference: np.ndarray, data_range: float) -> float:
    error = np.mean((test.astype(np.float64) - reference) ** 2)  # uint8 differences would wrap
    return float(10 * np.log10(data_range**2 / error)) if error > 0 else float("inf")


def ssim(test: np.ndarray, reference: np.ndarray, *, data_range: float) -> float:
    """Structural similarity in [-1, 1], 1 for identical images; input as :func:`psnr`, sides >= 11."""
    pair = check_pair(test, reference, data_range=data_range, side=SSIM_MINIMUM)
    return _similarity(pytorch_msssim.ssim, pair, data_range, np.float32)


def ms_ssim(test: np.ndarray, reference: np.ndarray, *, data_range: float) -> float:
    """Multi-scale SSIM in [0, 1]: a negative mean of a scale counts as 0; as :func:`ssim`, sides >= 161."""
    pair = check_pair(test, reference, data_range=data_range, side=MS_SSIM_MINIMUM)
    return _similarity(pytorch_msssim.ms_ssim, pair, data_range, np.float32)


def _similarity(metric: Callable, pair, data_range: float, dtype: type) -> float:
    planes = [np.ascontiguousarray(np.moveaxis(np.atleast_3d(x), 2, 0), dtype) for x in pair]
    return float(metric(*(torch.from_numpy(x)[None] for x in planes), data_range=data_range))


def pu21_encode(luminance: np.ndarray) -> np.ndarray:
    """Perceptually uniform values ``p7 (((p1 + p2 Y^p4) / (1 + p3 Y^p4))^p5 - p6)``, not below 0.

    Takes floats of any shape, 0 to 1e15 cd/m2 (clamped to 0.005 ... 10,000); gives float64, 0 to 595.4.
    """
    luminance = np.asarray(luminance, dtype=np.float64)
    _check_light(luminance, "Luminance")
    p1, p2, p3, p4, p5, p6 = _PU21
    power = np.clip(luminance, 0.005, 10000) ** p4
    return np.maximum(596.3148142 * (((p1 + p2 * power) / (1 + p3 * power)) ** p5 - p6), 0)


def pu21_psnr(
    test: np.ndarray, reference: np.ndarray, *, channels: str = "luminance", data_range: float = 256
) -> float:
    """``20 log10(data_range / rmse)`` of PU21 values in dB; infinite where all codes agree.

    Args:
        test: Float (H, W, 3) linear RGB, or luminance (H, W), **absolute**, 0 to 1e15 cd/m2.
        reference: The same.
        channels: ``luminance`` of RGB (the tables), or ``rgb``: over the three channels.
        data_range: Peak in PU21 values. Some programs take the reference's largest code.

    Raises:
        ReplicationError: Other shapes or options, NaN, negative or larger values.
    """
    return _psnr(*_encoded(test, reference, data_range, channels), data_range)


def pu21_ssim(test: np.ndarray, reference: np.ndarray, *, data_range: float = 256) -> float:
    """SSIM in [-1, 1] of the PU21 values of luminance; input as :func:`pu21_psnr`, sides >= 11."""
    pair = _encoded(test, reference, data_range, "luminance", SSIM_MINIMUM)
    return _similarity(pytorch_msssim.ssim, pair, data_range, np.float64)


def _encoded(test, reference, data_range: float, channels: str, side: int = 1) -> list[np.ndarray]:
    pair = check_pair(test, reference, data_range=data_range, side=side, light=True)
    if channels not in ("luminance", "rgb"):
        raise ReplicationError(f"channels must be luminance or rgb, not {channels!r}.")
    if pair[0].ndim == 3 and channels == "luminance":
        pair = [luminance_of(image) for image in pair]
    return [pu21_encode(image) for image in pair]
