"""Inverse tone mapping after Kovaleski and Oliveira, the paper's reference [19].

The linear range is stretched over the display's, and bright surroundings of clipped pixels are
boosted; the boost respects the picture's edges (cross bilateral grid). Constants and steps are those
of the HDR Toolbox for MATLAB of January 2018 (its ``KovaleskiOliveiraEO``), which the paper used.

References
----------
R. P. Kovaleski, M. M. Oliveira, "High-quality reverse tone mapping for a wide range of exposures",
SIBGRAPI 2014, doi 10.1109/SIBGRAPI.2014.29.
"""

from __future__ import annotations

import numpy as np

from replication.baselines.bilateral import bilateral_grid
from replication.baselines.expansion import GAMMA, check_positive, linearise, recolour
from replication.files import ReplicationError
from replication.images import check_picture

IMAGE_THRESHOLD, VIDEO_THRESHOLD = 254, 230
"""Levels of 255 above which a channel counts as clipped, in a photo and in video."""


def expand(
    ldr: np.ndarray,
    *,
    min_luminance: float = 0.3,
    max_luminance: float = 1200.0,
    video: bool = False,
    intended_range: bool = False,
    sigma_s: float = 150.0,
    sigma_r: float = 25 / 255,
) -> np.ndarray:
    """Expand a photo.

    The mask of pixels with a channel above the threshold is smoothed by a bilateral grid along the
    linearised luminance `L` to `e` in [0, 1]; the expanded luminance is
    ``(L (max_luminance - min_luminance) + min_luminance) * boost``. The toolbox of 2018 has
    ``boost = 3 e + 1``, so that clipped regions reach four times `max_luminance`; the publication
    means ``(3 e + 1) / 4``, where they reach `max_luminance` and the rest a quarter of it. The two
    differ by that factor alone.

    Parameters
    ----------
    ldr : uint8 array, or float array in [0, 1], shape (H, W, 3)
        RGB, display-encoded.
    min_luminance, max_luminance : float
        Range of the display in cd/m2, ``0 <= min_luminance < max_luminance``.
    video : bool
        Take the threshold for video, 230/255, instead of 254/255.
    intended_range : bool
        False: the boost of the toolbox of 2018; True: the publication's.
    sigma_s : float
        Width of the bilateral grid in pixels, positive.
    sigma_r : float
        Width of the bilateral grid in display-encoded values, positive; like the picture it is
        raised to the power 2.2.

    Returns
    -------
    np.ndarray
        float32, shape (H, W, 3), linear RGB in cd/m2; black pixels are 0, below `min_luminance`. A
        constant picture gets a constant boost: 4 (or 1) where clipped, else 1 (or 1/4).

    Raises
    ------
    ReplicationError
        If the photo has another shape, dtype or range, or an option is out of range.
    """
    check_positive(sigma_s=sigma_s, sigma_r=sigma_r)
    if not 0 <= min_luminance < max_luminance < np.inf:
        raise ReplicationError(
            "The display needs 0 <= min_luminance < max_luminance, "
            f"not {min_luminance} and {max_luminance}."
        )
    clipped = _clipped(ldr, VIDEO_THRESHOLD if video else IMAGE_THRESHOLD)
    linear, luminance = linearise(ldr)
    near = bilateral_grid(
        clipped, luminance, value_range=(0.0, 1.0), sigma_s=sigma_s, sigma_r=sigma_r**GAMMA
    )
    boost = 3 * near + 1
    if intended_range:
        boost /= 4
    expanded = (luminance * (max_luminance - min_luminance) + min_luminance) * boost
    return recolour(linear, luminance, expanded)


def _clipped(ldr: np.ndarray, level: int) -> np.ndarray:
    """Pixels with a channel above `level`, compared in single precision if not uint8."""
    ldr = check_picture(ldr)
    brightest = ldr.max(axis=2)
    if ldr.dtype == np.uint8:
        return brightest > level
    return brightest.astype(np.float32) > np.float32(level / 255)
