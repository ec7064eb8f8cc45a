"""Inverse tone mapping of Kovaleski and Oliveira, the paper's [19] (SIBGRAPI 2014).

It stretches the linear range over the display's and boosts clipped regions up to their edges.
Constants: ``KovaleskiOliveiraEO`` of the HDR Toolbox of January 2018. doi 10.1109/SIBGRAPI.2014.29.
"""

from __future__ import annotations

import numpy as np

from replication.baselines import expansion
from replication.baselines.expansion import GAMMA, check_positive
from replication.files import ReplicationError

THRESHOLD = 254
"""A channel above this level of 255 counts as clipped."""


def expand(
    ldr: np.ndarray,
    *,
    min_luminance: float = 0.3,
    max_luminance: float = 1200.0,
    intended_range: bool = False,
    sigma_s: float = 150.0,
    sigma_r: float = 25 / 255,
) -> np.ndarray:
    """Expand a photo: ``(L (max_luminance - min_luminance) + min_luminance) * boost``.

    ``boost = 3 e + 1``, where e is the mask of clipped pixels, smoothed along the luminance L.

    Args:
        ldr: uint8, or float in [0, 1], (H, W, 3), display-encoded RGB.
        min_luminance: Darkest luminance of the display in cd/m2, not negative.
        max_luminance: Brightest luminance of the display in cd/m2, above `min_luminance`.
        intended_range: Divide the boost by 4, as the publication means it. Then clipped regions reach
            `max_luminance`; in the toolbox of 2018 they reach four times that.
        sigma_s: Width of the bilateral grid in pixels, positive.
        sigma_r: Width of the grid in display-encoded values, positive; raised to the power 2.2.

    Returns:
        float32 (H, W, 3), linear RGB in cd/m2; black pixels are 0, below `min_luminance`.

    Raises:
        ReplicationError: Not a picture, or an option is out of range.
    """
    check_positive(sigma_s=sigma_s, sigma_r=sigma_r)
    if not 0 <= min_luminance < max_luminance < np.inf:
        found = f"{min_luminance} and {max_luminance}"
        raise ReplicationError(f"The range needs 0 <= min_luminance < max_luminance, not {found}.")
    linear, luminance = expansion.linearise(ldr)
    brightest = np.asarray(ldr).max(axis=2)
    if brightest.dtype == np.uint8:
        clipped = brightest > THRESHOLD
    else:  # single precision, so that float32 and float64 pictures give the same
        clipped = brightest.astype(np.float32) > np.float32(THRESHOLD / 255)
    near = expansion.bilateral_grid(clipped, luminance, sigma_s=sigma_s, sigma_r=sigma_r**GAMMA)
    boost = (3 * near + 1) / (4 if intended_range else 1)
    expanded = (luminance * (max_luminance - min_luminance) + min_luminance) * boost
    return expansion.recolour(linear, luminance, expanded)
