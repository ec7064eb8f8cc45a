"""The absolute scale on which HDR images are compared: stated once, applied everywhere.

Radiance from a stack is relative and the baselines' peaks are a matter of taste, but HDR-VDP-2 and
PU21 judge cd/m2. The paper does not say how it scaled. Here: the ground truth is scaled so that the
99.9th percentile of its luminance is 1000 cd/m2, and the test to the same mean luminance over the
pixels that EV 0 holds unclipped, those that every method can know (DEVIATIONS D25).
"""

from __future__ import annotations

import numpy as np

from replication.files import ReplicationError
from replication.images import check_radiance
from replication.images import luminance as luminance_of

PERCENTILE, LUMINANCE = 99.9, 1000.0
"""Which percentile of the ground truth's luminance is fixed, and where, in cd/m2."""

CLIPPED = 251
"""Lowest level of 255 that counts as clipped; pictures that were resampled or compressed blur 255."""

PROTOCOL = (
    "ground truth: 99.9th luminance percentile = 1000 cd/m2; "
    "test: same mean luminance over the pixels that EV 0 holds unclipped (no channel above 250)"
)


def clipped_channels(ldr: np.ndarray, *, level: int = CLIPPED) -> np.ndarray:
    """How many channels of each pixel a photo holds clipped.

    Parameters
    ----------
    ldr : uint8 array (H, W, 3)
        EV 0, RGB.
    level : int
        Lowest level that counts as clipped, 1 to 255.

    Returns
    -------
    np.ndarray
        uint8, shape (H, W), 0 to 3; ``== 0`` is the mask of unclipped pixels.

    Raises
    ------
    ReplicationError
        If the photo is not uint8 RGB or the level is out of range.
    """
    ldr = np.asarray(ldr)
    if ldr.ndim != 3 or ldr.shape[2] != 3 or ldr.dtype != np.uint8 or not ldr.size:
        raise ReplicationError(
            f"Clipping is found in a uint8 image (H, W, 3), not {ldr.dtype} {ldr.shape}."
        )
    if not 1 <= level <= 255:
        raise ReplicationError(f"The level of clipping must be within 1 and 255, not {level}.")
    return np.count_nonzero(ldr >= level, axis=2).astype(np.uint8)


def scale_reference(
    hdr: np.ndarray, percentile: float = PERCENTILE, luminance: float = LUMINANCE
) -> np.ndarray:
    """Scale a relative radiance map to absolute luminance.

    Parameters
    ----------
    hdr : float array (H, W, 3)
        Linear RGB, finite, not negative.
    percentile : float
        Percentile of its luminance that is fixed, 0 to 100 (linear between order statistics).
    luminance : float
        What that percentile becomes, cd/m2, positive.

    Returns
    -------
    np.ndarray
        float32, shape (H, W, 3), cd/m2; the colours are kept.

    Raises
    ------
    ReplicationError
        If the image is no radiance map, an option is out of range, the percentile of its luminance
        is 0, or a value does not fit into float32.
    """
    hdr = check_radiance(hdr)
    if not (0 <= percentile <= 100 and 0 < luminance < np.inf):
        raise ReplicationError(
            "The reference needs a percentile within 0 and 100 and a positive luminance, "
            f"not {percentile} and {luminance}."
        )
    present = float(np.percentile(luminance_of(hdr), percentile))
    if not present > 0:
        raise ReplicationError(f"The {percentile} % luminance percentile of the reference is 0.")
    return _scaled(hdr, luminance / present)


def scale_test(test: np.ndarray, reference: np.ndarray, unclipped_mask: np.ndarray) -> np.ndarray:
    """Scale a test to the mean luminance that the reference has where EV 0 is unclipped.

    Parameters
    ----------
    test : float array (H, W, 3)
        Linear RGB in any unit, finite, not negative.
    reference : float array (H, W, 3)
        Linear RGB in cd/m2, from :func:`scale_reference`.
    unclipped_mask : bool array (H, W)
        True where EV 0 holds no clipped channel: ``clipped_channels(ldr) == 0``.

    Returns
    -------
    np.ndarray
        float32, shape (H, W, 3), cd/m2.

    Raises
    ------
    ReplicationError
        If an image is no radiance map, the shapes differ, the mask is not of truth values or holds
        no pixel, one of the images is black there, or a value does not fit into float32.
    """
    test, reference = check_radiance(test), check_radiance(reference)
    mask = np.asarray(unclipped_mask)
    if not test.shape == reference.shape == (*mask.shape, 3) or mask.dtype != bool:
        raise ReplicationError(
            "Test, reference and mask of unclipped pixels must be (H, W, 3), (H, W, 3) and "
            f"bool (H, W), not {test.shape}, {reference.shape} and {mask.dtype} {mask.shape}."
        )
    if not mask.any():
        raise ReplicationError("EV 0 holds no unclipped pixel to scale the test by.")
    means = [float(luminance_of(image[mask]).mean()) for image in (test, reference)]
    for mean, name in zip(means, ("test", "reference"), strict=True):
        if not mean > 0:
            raise ReplicationError(f"The {name} is black wherever EV 0 is unclipped.")
    return _scaled(test, means[1] / means[0])


def _scaled(hdr: np.ndarray, factor: float) -> np.ndarray:
    scaled = hdr.astype(np.float64) * factor
    if not scaled.max() <= np.finfo(np.float32).max:
        raise ReplicationError("The radiance map holds values too bright for this scale.")
    return scaled.astype(np.float32)
