"""Inverse tone mapping after Huo, Yang, Dong and Brost, the paper's reference [14].

The response of the retina (Naka and Rushton's equation) is inverted, with an adaptation that is
half local and half of the whole picture. Constants and steps are those of the HDR Toolbox for
MATLAB of January 2018 (its ``HuoPhysEO``), which the paper used.

References
----------
Y. Huo, F. Yang, L. Dong, V. Brost, "Physiological inverse tone mapping based on retina response",
The Visual Computer 30, 2014, doi 10.1007/s00371-013-0875-4.
"""

from __future__ import annotations

import numpy as np

from replication.baselines.bilateral import bilateral_grid
from replication.baselines.expansion import check_positive, linearise, recolour
from replication.hdr.reinhard import DELTA, log_mean

_PASSES = ((16.0, 0.3), (10.0, 0.1))
"""Widths of the two bilateral filters, in pixels and in luminance."""


def expand(
    ldr: np.ndarray, *, max_luminance: float = 5000.0, n: float = 0.86, delta: float = DELTA
) -> np.ndarray:
    """Expand a photo.

    With the linearised luminance `L`, its twice bilaterally filtered `S` and its geometric mean
    `M` (offset `delta`), the expanded luminance is
    ``L / max(L) * ((max_luminance S)^n + (max_luminance M)^n)^(1/n)``. It is proportional to
    `max_luminance` and can exceed it: a white picture becomes ``2^(1/n)``, 2.2 times as bright.

    Parameters
    ----------
    ldr : uint8 array, or float array in [0, 1], shape (H, W, 3)
        RGB, display-encoded.
    max_luminance : float
        Peak of the display in cd/m2, positive. The toolbox's demonstration uses 5000 (here the
        default) and its function is meant to default to 3000; 1000 stands for a common display.
    n : float
        Exponent of the response, positive (2014: 0.86).
    delta : float
        Offset inside the geometric mean, positive (toolbox of 2018: 1e-3).

    Returns
    -------
    np.ndarray
        float32, shape (H, W, 3), linear RGB in cd/m2. A constant picture is expanded like any
        other, a black one stays 0.

    Raises
    ------
    ReplicationError
        If the photo has another shape, dtype or range, or an option is not positive.
    """
    check_positive(max_luminance=max_luminance, n=n, delta=delta)
    linear, luminance = linearise(ldr)
    brightest = luminance.max()
    if not brightest:
        return np.zeros(linear.shape, dtype=np.float32)
    local = luminance
    for sigma_s, sigma_r in _PASSES:
        local = bilateral_grid(
            local, local, value_range=(0.0, 1.0), sigma_s=sigma_s, sigma_r=sigma_r
        )
        np.clip(local, 0.0, 1.0, out=local)  # rounding
    adaptation = (local**n + log_mean(luminance, delta) ** n) ** (1 / n)
    return recolour(linear, luminance, luminance * (max_luminance / brightest) * adaptation)
