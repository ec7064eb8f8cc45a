"""Inverse tone mapping of Huo, Yang, Dong and Brost, the paper's [14] (The Visual Computer 30, 2014).

It inverts the response of the retina (Naka and Rushton's equation), with an adaptation that is half
local and half global. Constants are those of ``HuoPhysEO`` in the HDR Toolbox of January 2018, which
the paper used. doi 10.1007/s00371-013-0875-4.
"""

from __future__ import annotations

import numpy as np

from replication.baselines.expansion import bilateral_grid, linearise, recolour
from replication.files import ReplicationError
from replication.hdr.reinhard import log_mean

N = 0.86  # exponent of the response
_PASSES = ((16.0, 0.3), (10.0, 0.1))  # widths of the two bilateral filters, in pixels and in luminance


def expand(ldr: np.ndarray, *, max_luminance: float = 5000.0) -> np.ndarray:
    """Expand a photo: ``L / max(L) * ((max_luminance S)^N + (max_luminance M)^N)^(1/N)``.

    L is the linearised luminance, S is L after two bilateral filters, M its geometric mean.

    Args:
        ldr: uint8, or float in [0, 1], (H, W, 3), display-encoded RGB.
        max_luminance: Peak of the display in cd/m2. White exceeds it by up to ``2^(1/N)``, 2.2 times.

    Returns:
        float32 (H, W, 3), linear RGB in cd/m2; a black picture stays 0.

    Raises:
        ReplicationError: Not a picture, or `max_luminance` is not positive and finite.
    """
    if not 0 < max_luminance < np.inf:
        raise ReplicationError(f"max_luminance must be positive and finite, not {max_luminance}.")
    linear, luminance = linearise(ldr)
    local = luminance
    for sigma_s, sigma_r in _PASSES:
        local = np.clip(bilateral_grid(local, local, sigma_s=sigma_s, sigma_r=sigma_r), 0, 1)
    adaptation = (local**N + log_mean(luminance) ** N) ** (1 / N)
    brightest = luminance.max() or 1.0
    return recolour(linear, luminance, luminance * (max_luminance / brightest) * adaptation)
