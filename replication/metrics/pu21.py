"""PSNR and SSIM of HDR images on perceptually uniform values (PU21).

Absolute luminance is encoded so that equal steps are about equally visible; then the metrics for
ordinary pictures apply. Protocol: luminance ``0.2126 R + 0.7152 G + 0.0722 B`` in cd/m2, variant
"banding + glare", the whole image, `data_range` 256: the encoded value of 100 cd/m2, the peak of an
ordinary display, as in the authors' own program. Brighter pixels have values up to 595.4; the range
stays 256, so that images of different peaks can be compared (DEVIATIONS D26).

References
----------
R. K. Mantiuk, M. Azimi, "PU21: A novel perceptually uniform encoding for adapting existing quality
metrics for HDR", Picture Coding Symposium 2021, doi 10.1109/PCS50896.2021.9477471.
"""

from __future__ import annotations

import numpy as np
from skimage.metrics import structural_similarity

from replication.files import ReplicationError
from replication.images import check_radiance
from replication.images import luminance as luminance_of
from replication.metrics.fidelity import SSIM_MINIMUM

DATA_RANGE = 256.0
"""Encoded value of 100 cd/m2 (256.38 to two places), which the scores take as their range."""

LOWEST, HIGHEST = 0.005, 10000.0
"""Luminance that the encoding covers, cd/m2; what lies outside is clamped."""

PROTOCOL = "PU21 banding_glare of BT.709 luminance in cd/m2, data_range 256; SSIM Wang 11x11 valid"

_P = (
    0.353487901,
    0.3734658629,
    8.277049286e-05,
    0.9062562627,
    0.09150303166,
    0.9099517204,
    596.3148142,
)


def pu21_encode(luminance: np.ndarray) -> np.ndarray:
    """Perceptually uniform values of absolute luminance (2021, variant "banding + glare").

    ``V = p7 (((p1 + p2 Y^p4) / (1 + p3 Y^p4))^p5 - p6)``, not below 0.

    Parameters
    ----------
    luminance : float array of any shape
        cd/m2, finite, not negative; clamped to 0.005 … 10,000.

    Returns
    -------
    np.ndarray
        float64, same shape, in 0 … 595.4; 100 cd/m2 gives about 256.

    Raises
    ------
    ReplicationError
        If a value is NaN, infinite or negative.
    """
    luminance = np.asarray(luminance, dtype=np.float64)
    if not (np.isfinite(luminance).all() and (luminance >= 0).all()):
        raise ReplicationError("PU21 encodes luminance that is finite and not negative.")
    p1, p2, p3, p4, p5, p6, p7 = _P
    power = np.clip(luminance, LOWEST, HIGHEST) ** p4
    return np.maximum(p7 * (((p1 + p2 * power) / (1 + p3 * power)) ** p5 - p6), 0)


def _encoded_pair(test, reference, data_range, minimum=1) -> tuple[np.ndarray, np.ndarray]:
    test, reference = np.asarray(test), np.asarray(reference)
    if test.shape != reference.shape:
        raise ReplicationError(
            f"Images to compare differ in shape: {test.shape} and {reference.shape}."
        )
    if not 0 < data_range < np.inf:
        raise ReplicationError(f"data_range must be positive and finite, not {data_range}.")
    if test.ndim == 3:
        test, reference = (luminance_of(check_radiance(image)) for image in (test, reference))
    if test.ndim != 2 or min(test.shape) < minimum:
        raise ReplicationError(
            f"Images to compare must be (H, W, 3), or luminance (H, W), with sides of at least "
            f"{minimum} pixels, not {test.shape}."
        )
    return pu21_encode(test), pu21_encode(reference)


def pu21_psnr(test: np.ndarray, reference: np.ndarray, *, data_range: float = DATA_RANGE) -> float:
    """Peak signal-to-noise ratio of PU21 values, ``20 log10(data_range / rmse)``.

    Other programs take the largest encoded value of the reference as the peak; pass it as
    `data_range` to compare with them.

    Parameters
    ----------
    test, reference : float array (H, W, 3) or (H, W)
        Linear RGB, of which the luminance is compared, or luminance; **absolute**, cd/m2, finite,
        not negative.
    data_range : float
        Peak in PU21 values, positive.

    Returns
    -------
    float
        dB; infinite for identical luminance (also where both lie beyond the range that PU21
        covers).

    Raises
    ------
    ReplicationError
        If shapes differ or are others, values are NaN, infinite or negative, or data_range is not
        positive.
    """
    test, reference = _encoded_pair(test, reference, data_range)
    error = float(np.mean((test - reference) ** 2))
    return float("inf") if error == 0 else float(10 * np.log10(data_range**2 / error))


def pu21_ssim(test: np.ndarray, reference: np.ndarray, *, data_range: float = DATA_RANGE) -> float:
    """Structural similarity of PU21 values (Wang et al. 2004, doi:10.1109/TIP.2003.819861).

    11 x 11 Gaussian window of sigma 1.5, valid region, K 0.01 and 0.03: as
    :func:`replication.metrics.ssim`, on luminance and in float64.

    Parameters
    ----------
    test, reference, data_range
        As in :func:`pu21_psnr`; sides of at least 11 pixels.

    Returns
    -------
    float
        In [-1, 1]; 1 for identical images.

    Raises
    ------
    ReplicationError
        As in :func:`pu21_psnr`, or if the image is too small.
    """
    test, reference = _encoded_pair(test, reference, data_range, SSIM_MINIMUM)
    return float(
        structural_similarity(
            test,
            reference,
            data_range=data_range,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )
