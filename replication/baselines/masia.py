"""Inverse tone mapping of Masia, Serrano and Gutierrez, the paper's [24] (Multimedia T. A. 76, 2017).

A gamma curve with an exponent from statistics of the picture, fitted to what viewers chose. Constants
are those of ``MasiaEO`` in the HDR Toolbox of January 2018, which the paper used. It has two
regressions: of 2017 (doi 10.1007/s11042-015-3036-0, which the paper cites, so our default) and of 2009
(doi 10.1145/1618452.1618506, the toolbox's default).
"""

from __future__ import annotations

import warnings

import numpy as np

from replication.baselines.expansion import bilateral_grid, linearise, recolour
from replication.hdr.reinhard import log_mean, order_statistic

MAX_OUTPUT = 5000.0  # cd/m2
MIDDLE_KEY = 0.5  # of a picture without contrast, for which the formula is 0/0


def exponent(luminance: np.ndarray, *, multilinear: bool = True) -> float:
    """Exponent of the expansion, from statistics of the linear luminance in [0, 1], of any shape.

    With the geometric mean M, the key ``k = (ln M - ln Lmin) / (ln Lmax - ln Lmin)`` and p, the
    percentage of pixels of at least 254/255, it is ``2.4379 + 0.2319 ln M - 1.1228 k + 0.0085 p``
    (2017, eq. 5; `multilinear`) or ``10.44 k - 6.282`` (2009), which can be negative. Lmin is the 1 %
    order statistic of the luminances above 0, Lmax the 99 % one of all.
    """
    luminance = np.asarray(luminance, dtype=np.float64).ravel()
    mean = np.log(log_mean(luminance))
    low, high = order_statistic(luminance[luminance > 0], 0.01), order_statistic(luminance, 0.99)
    key = MIDDLE_KEY
    if high > low:
        key = (mean - np.log(low)) / (np.log(high) - np.log(low))
    if not multilinear:
        return float(10.44 * key - 6.282)
    overexposed = 100 * np.mean(255 * luminance >= 254)
    return float(2.4379 + 0.2319 * mean - 1.1228 * key + 0.0085 * overexposed)


def expand(
    ldr: np.ndarray, *, max_output: float = MAX_OUTPUT, noise_removal=True, multilinear=True
) -> np.ndarray:
    """Expand a photo: ``max_output * L^exponent`` of the linearised luminance L.

    Args:
        ldr: uint8, or float in [0, 1], (H, W, 3), display-encoded RGB.
        max_output: What white becomes in cd/m2; detail and saturated colours can exceed it.
        noise_removal: Raise only the bilaterally smoothed base to the power; detail keeps its contrast.
        multilinear: True: the regression of 2017; False: of 2009. See `exponent`.

    Returns:
        float32 (H, W, 3), linear RGB in cd/m2; black stays 0. It warns of an exponent up to 0.

    Raises:
        ReplicationError: Not a picture.
    """
    linear, luminance = linearise(ldr)
    low, high = float(luminance.min()), float(luminance.max())
    if not high:
        return np.zeros(linear.shape, dtype=np.float32)
    power = exponent(luminance, multilinear=multilinear)
    if power <= 0:
        message = f"Masia's exponent is {power:.3g}: bright and dark tones change places."
        warnings.warn(message, stacklevel=2)
    base = luminance
    if noise_removal and high > low:
        widths = {"sigma_s": max(min(base.shape) / 16, 1.0), "sigma_r": 0.1 * (high - low)}
        base = bilateral_grid(luminance, luminance, value_range=(low, high), **widths)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        detail = np.divide(luminance, base, out=np.zeros_like(base), where=base > 0)
        return recolour(linear, luminance, max_output * detail * base**power)
