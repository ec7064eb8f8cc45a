"""Inverse tone mapping of Kovaleski and Oliveira, the paper's [19] (SIBGRAPI 2014).

It stretches the linear range over the display's and boosts clipped regions up to their edges.
Constants: ``KovaleskiOliveiraEO`` of the HDR Toolbox of January 2018. doi 10.1109/SIBGRAPI.2014.29.
"""

from __future__ import annotations

import numpy as np

from replication.baselines.expansion import GAMMA, bilateral_grid, linearise, recolour
from replication.files import ReplicationError

THRESHOLD = 254  # a channel above this level of 255 counts as clipped
_WIDTHS = {"sigma_s": 150.0, "sigma_r": (25 / 255) ** GAMMA}  # of the grid, in pixels and in linear light


def expand(
    ldr: np.ndarray, min_luminance: float = 0.3, max_luminance: float = 1200.0, intended_range: bool = False
) -> np.ndarray:
    """Expand a photo: ``(L (max_luminance - min_luminance) + min_luminance) * boost``.

    ``boost = 3 e + 1``, where e is the mask of clipped pixels, smoothed along the luminance L.

    Args:
        ldr: uint8, or float in [0, 1], (H, W, 3), display-encoded RGB.
        min_luminance: Darkest luminance of the display in cd/m2, not negative.
        max_luminance: Brightest luminance of the display in cd/m2, above `min_luminance`.
        intended_range: Divide the boost by 4, as the publication means it. Then clipped regions reach
            `max_luminance`; in the toolbox of 2018 they reach four times that.

    Returns:
        float32 (H, W, 3), linear RGB in cd/m2; black pixels are 0, below `min_luminance`.

    Raises:
        ReplicationError: Not a picture, or the range is none.
    """
    if not 0 <= min_luminance < max_luminance < np.inf:
        found = f"{min_luminance} and {max_luminance}"
        raise ReplicationError(f"The range needs 0 <= min_luminance < max_luminance, not {found}.")
    linear, luminance = linearise(ldr)
    brightest = np.asarray(ldr).max(axis=2)
    if brightest.dtype == np.uint8:
        clipped = brightest > THRESHOLD
    else:  # single precision, so that float32 and float64 pictures give the same
        clipped = brightest.astype(np.float32) > np.float32(THRESHOLD / 255)
    near = bilateral_grid(clipped, luminance, **_WIDTHS)
    boost = (3 * near + 1) / (4 if intended_range else 1)
    expanded = (luminance * (max_luminance - min_luminance) + min_luminance) * boost
    return recolour(linear, luminance, expanded)
