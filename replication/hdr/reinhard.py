"""Photographic tone reproduction, global operator (Reinhard et al., SIGGRAPH 2002).

The paper tone-maps its radiance maps with this operator (Section 6.2, [29]) through the HDR Toolbox
for MATLAB. The conventions here are those of the toolbox of January 2018 (DEVIATIONS D18 and D20).

Sources: the operator, ACM TOG 21(3), 2002, doi 10.1145/566654.566575; automatic key and white point,
Reinhard, J. Graphics Tools 7(1), 2003, doi 10.1080/10867651.2002.10487554.
"""

from __future__ import annotations

import numpy as np

from replication.files import ReplicationError
from replication.images import check_radiance, luminance

DELTA = 1e-3  # offset in the logarithm of the mean, in the unit of the radiance
MIDDLE_KEY = 0.18
_EPSILON = 1e-9


def log_mean(luminance: np.ndarray) -> float:
    """Geometric mean ``exp(mean(ln(L + DELTA)))`` of luminances of any shape (2002, eq. 1)."""
    return float(np.exp(np.mean(np.log(np.asarray(luminance, dtype=np.float64) + DELTA))))


def order_statistic(values: np.ndarray, share: float) -> float:
    """Element ``round(n share)``, counted from 1, of the n values in ascending order; 0 if n is 0."""
    rank = max(int(np.floor(values.size * share + 0.5)), 1) - 1
    return float(np.partition(values, rank, axis=None)[rank]) if values.size else 0.0


def _log2_extremes(luminance: np.ndarray) -> np.ndarray:
    luminance = np.asarray(luminance, dtype=np.float64)
    return np.log2([order_statistic(luminance, share) + _EPSILON for share in (0.01, 0.99)])


def automatic_key(luminance: np.ndarray) -> float:
    """Key of an image, from where its mean lies between its extremes (2003).

    ``0.18 * 4^e``, ``e = (2 log2 Lmean - log2 Lmin - log2 Lmax) / (log2 Lmax - log2 Lmin)``, with the
    1 % and 99 % order statistics as Lmin and Lmax. The key is 0.18 where the formula does not hold:
    without contrast, or if DELTA lifts the mean of an almost black image above Lmax.
    Luminances have any shape and are not negative; the key is 0.045 to 0.72, without unit.
    """
    low, high = _log2_extremes(luminance)
    mean = np.log2(log_mean(luminance) + _EPSILON)
    if not (low < high and low <= mean <= high):
        return MIDDLE_KEY
    return float(MIDDLE_KEY * 4.0 ** ((2 * mean - low - high) / (high - low)))


def automatic_white(luminance: np.ndarray) -> float:
    """Smallest scaled luminance ``key L / Lmean`` that becomes white (2003): a positive number.

    ``1.5 * 2^(log2 Lmax - log2 Lmin - 5)`` with Lmin and Lmax as in `automatic_key`.
    """
    low, high = _log2_extremes(luminance)
    return float(1.5 * 2.0 ** (high - low - 5))


def tone_map_linear(hdr: np.ndarray, *, key: float | None = None, white: float | None = None) -> np.ndarray:
    """Compress a radiance map; the result is linear and not clipped.

    With ``Ls = key L / log_mean(L)``, RGB is multiplied by ``Ld / L``, where
    ``Ld = Ls (1 + Ls / white^2) / (1 + Ls)`` (2002, eqs. 2 and 4).

    Args:
        hdr: float (H, W, 3), linear RGB radiance, finite, not negative; DELTA assumes a mean near 1.
        key: What the geometric mean is mapped to; None: `automatic_key`.
        white: Scaled luminance that becomes 1, ``np.inf`` for none; None: `automatic_white`.

    Returns:
        float32 (H, W, 3), linear RGB, not negative; may exceed 1. Black stays 0.

    Raises:
        ReplicationError: Not a radiance map; key or white not positive.
    """
    hdr = check_radiance(hdr)
    if not all(value is None or value > 0 for value in (key, white)):
        raise ReplicationError(f"key and white must be positive, not {key} and {white}.")
    bright = luminance(hdr)
    key = automatic_key(bright) if key is None else key
    white = automatic_white(bright) if white is None else white
    scale = key / log_mean(bright)
    scaled = scale * bright
    ratio = scale * (1 + scaled / white**2) / (1 + scaled)
    return hdr * ratio[..., None].astype(np.float32)


def tone_map(
    hdr: np.ndarray, *, key: float | None = None, white: float | None = None, gamma: float = 2.2
) -> np.ndarray:
    """Picture for a display: `tone_map_linear`, clipped to [0, 1], to the power of ``1/gamma``.

    Returns float32 (H, W, 3), encoded RGB; `gamma` must be positive (ReplicationError), 1: linear.
    """
    if not gamma > 0:
        raise ReplicationError(f"The display gamma must be positive, not {gamma}.")
    linear = np.clip(tone_map_linear(hdr, key=key, white=white), 0, 1)
    return np.power(linear, np.float32(1 / gamma))
