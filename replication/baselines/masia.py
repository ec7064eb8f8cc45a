"""Inverse tone mapping after Masia, Serrano and Gutierrez, the paper's reference [24].

A gamma curve whose exponent follows from statistics of the picture, fitted to what viewers chose.
Constants and steps are those of the HDR Toolbox for MATLAB of January 2018 (its ``MasiaEO``), which
the paper used. It knows two regressions: the one of 2009 on the key alone, its default, and the
multilinear one of 2017, which is the publication that the paper cites, hence the default here.

References
----------
B. Masia, A. Serrano, D. Gutierrez, "Dynamic range expansion based on image statistics", Multimedia
Tools and Applications 76, 2017, doi 10.1007/s11042-015-3036-0.
B. Masia, S. Agustin, R. W. Fleming, O. Sorkine, D. Gutierrez, "Evaluation of reverse tone mapping
through varying exposure conditions", ACM TOG 28(5), 2009, doi 10.1145/1618452.1618506.
"""

from __future__ import annotations

import warnings

import numpy as np

from replication.baselines.bilateral import bilateral_grid
from replication.baselines.expansion import check_positive, linearise, recolour
from replication.hdr.reinhard import DELTA, log_mean

MIDDLE_KEY = 0.5
"""Key of a picture without contrast, for which the formula is 0/0."""


def exponent(luminance: np.ndarray, *, multilinear: bool = True, delta: float = DELTA) -> float:
    """Exponent of the expansion from statistics of the picture.

    With the geometric mean `M` (offset `delta`), the key ``k = (ln M - ln Lmin) / (ln Lmax - ln
    Lmin)`` and `p`, the percentage of pixels of at least 254/255 in linear luminance, it is
    ``2.4379 + 0.2319 ln M - 1.1228 k + 0.0085 p`` (2017, eq. 5) or ``10.44 k - 6.282`` (2009). Lmin
    is the 1 % order statistic of the luminances above 0, Lmax the 99 % one of all.

    Parameters
    ----------
    luminance : float array
        Linear luminance in [0, 1].
    multilinear : bool
        True: the regression of 2017; False: of 2009.
    delta : float
        Offset inside the geometric mean, positive.

    Returns
    -------
    float
        Dimensionless; can be 0 or negative (2009: below a key of 0.60; 2017: for almost black
        pictures). A picture without contrast (Lmax not above Lmin) has a key of 0.5.
    """
    luminance = np.asarray(luminance, dtype=np.float64).ravel()
    mean = np.log(log_mean(luminance, delta))
    low, high = _order_statistic(luminance[luminance > 0], 0.01), _order_statistic(luminance, 0.99)
    key = MIDDLE_KEY
    if high > low:
        key = (mean - np.log(low)) / (np.log(high) - np.log(low))
    if not multilinear:
        return float(10.44 * key - 6.282)
    overexposed = 100 * np.mean(255 * luminance >= 254)
    return float(2.4379 + 0.2319 * mean - 1.1228 * key + 0.0085 * overexposed)


def _order_statistic(values: np.ndarray, share: float) -> float:
    """Element ``round(n share)``, counted from 1, of the ascending values; 0 if there is none."""
    if not values.size:
        return 0.0
    rank = max(int(np.floor(values.size * share + 0.5)), 1) - 1
    return float(np.partition(values, rank)[rank])


def expand(
    ldr: np.ndarray,
    *,
    max_output: float = 5000.0,
    noise_removal: bool = True,
    multilinear: bool = True,
    delta: float = DELTA,
) -> np.ndarray:
    """Expand a photo.

    The linearised luminance is raised to the power of :func:`exponent` and multiplied by
    `max_output`. With noise removal only its bilaterally smoothed base is raised (widths: a
    sixteenth of the shorter side, at least one pixel, and a tenth of the range of luminance); the
    detail, luminance divided by base, keeps its contrast. The publications give no such widths.

    Parameters
    ----------
    ldr : uint8 array, or float array in [0, 1], shape (H, W, 3)
        RGB, display-encoded.
    max_output : float
        What white becomes, cd/m2, positive. Detail can exceed it, and with an exponent below 1
        saturated colours do.
    noise_removal : bool
        Expand only the base (default of the toolbox).
    multilinear : bool
        True: the regression of 2017; False: of 2009, the toolbox's default.
    delta : float
        Offset inside the geometric mean, positive (toolbox of 2018: 1e-3).

    Returns
    -------
    np.ndarray
        float32, shape (H, W, 3), linear RGB in cd/m2. A constant picture has a key of 0.5; a black
        one stays 0.

    Raises
    ------
    ReplicationError
        If the photo has another shape, dtype or range, or an option is not positive.

    Warns
    -----
    UserWarning
        If the exponent is 0 or negative: then dark tones become bright ones, as in the toolbox.
    """
    check_positive(max_output=max_output, delta=delta)
    linear, luminance = linearise(ldr)
    if not luminance.any():
        return np.zeros(linear.shape, dtype=np.float32)
    power = exponent(luminance, multilinear=multilinear, delta=delta)
    if power <= 0:
        warnings.warn(
            f"Masia's exponent is {power:.3g}: bright and dark tones change places.", stacklevel=2
        )
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if noise_removal:
            base = _base(luminance)
            detail = np.divide(luminance, base, out=np.zeros_like(base), where=base > 0)
            expanded = detail * base**power
        else:
            expanded = luminance**power
    return recolour(linear, luminance, max_output * expanded)


def _base(luminance: np.ndarray) -> np.ndarray:
    """Luminance under a bilateral filter of the size of the picture and of its range."""
    low, high = float(luminance.min()), float(luminance.max())
    if high == low:
        return luminance
    return bilateral_grid(
        luminance,
        luminance,
        value_range=(low, high),
        sigma_s=max(min(luminance.shape) / 16, 1.0),
        sigma_r=0.1 * (high - low),
    )
