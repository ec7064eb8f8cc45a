"""The absolute scale of HDR images: HDR-VDP-2, DRIM and PU21 judge cd/m2.

Merged radiance is relative, and the paper does not say how it scaled: DEVIATIONS D25.
"""

from __future__ import annotations

import numpy as np

from replication.files import ReplicationError
from replication.images import check_photo, check_radiance
from replication.images import luminance as luminance_of

PERCENTILE, LUMINANCE = 99.9, 1000.0  # the fixed percentile of the truth's luminance, and its cd/m2
CLIPPED = 251  # lowest clipped level of 255; resampled or compressed photos blur 255
BRIGHTEST = 1e15  # largest radiance that metrics accept: the sun has 1.6e9, float32 ends at 3e38

PROTOCOL = (
    "ground truth: 99.9th luminance percentile = 1000 cd/m2; "
    "test: same mean luminance over the pixels that EV 0 holds unclipped (no channel above 250)"
)


def clipped_channels(ldr: np.ndarray) -> np.ndarray:
    """How many channels of each pixel of a photo, uint8 (H, W, 3), are clipped: uint8 (H, W), 0 to 3."""
    return np.count_nonzero(check_photo(ldr) >= CLIPPED, axis=2).astype(np.uint8)


def scale_reference(hdr: np.ndarray, luminance: float = LUMINANCE) -> np.ndarray:
    """Scale linear RGB (H, W, 3) to float32 in cd/m2: 99.9th percentile of luminance at `luminance`.

    Raises:
        ReplicationError: No radiance map, a percentile of 0, or a luminance that is not positive.
    """
    hdr = check_radiance(hdr)
    if not 0 < luminance < np.inf:
        raise ReplicationError(f"The luminance of the reference must be positive, not {luminance}.")
    present = float(np.percentile(luminance_of(hdr), PERCENTILE))
    if not present > 0:
        raise ReplicationError(f"The {PERCENTILE} % luminance percentile of the reference is 0.")
    return _scaled(hdr, luminance / present, "reference")


def scale_test(test: np.ndarray, reference: np.ndarray, unclipped_mask: np.ndarray) -> np.ndarray:
    """Scale a test to the mean luminance that the reference has where EV 0 is unclipped.

    Args:
        test: (H, W, 3), linear RGB, any unit.
        reference: (H, W, 3), linear RGB, cd/m2, from :func:`scale_reference`.
        unclipped_mask: bool (H, W), ``clipped_channels(ldr) == 0``.

    Returns:
        float32 (H, W, 3), cd/m2.

    Raises:
        ReplicationError: No radiance maps, other shapes, an empty mask, or black images there.
    """
    test, reference, mask = check_radiance(test), check_radiance(reference), unclipped_mask
    if not test.shape == reference.shape == (*mask.shape, 3) or mask.dtype != bool:
        found = f"{test.shape}, {reference.shape} and {mask.dtype} {mask.shape}"
        wanted = "Test, reference and mask of unclipped pixels must be (H, W, 3), (H, W, 3) and bool (H, W)"
        raise ReplicationError(f"{wanted}, not {found}.")
    if not mask.any():
        raise ReplicationError("EV 0 holds no unclipped pixel to scale the test by.")
    means = [float(luminance_of(image[mask]).mean()) for image in (test, reference)]
    if not min(means) > 0:
        black = ("test", "reference")[int(np.argmin(means))]
        raise ReplicationError(f"The {black} is black wherever EV 0 is unclipped.")
    return _scaled(test, means[1] / means[0], "test")


def _scaled(hdr: np.ndarray, factor: float, name: str) -> np.ndarray:
    scaled = hdr.astype(np.float64) * factor
    if not max(scaled.max(), hdr.max()) <= BRIGHTEST:
        raise ReplicationError(f"The {name} holds values too bright to scale: {hdr.max():g}.")
    return scaled.astype(np.float32)
