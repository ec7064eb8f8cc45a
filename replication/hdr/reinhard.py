"""Photographic tone reproduction (Reinhard, Stark, Shirley, Ferwerda, SIGGRAPH 2002).

The paper tone-maps its radiance maps with this operator (Sec. 6.2, reference [29]) through the HDR
Toolbox for MATLAB. `global` and `bilateral` follow that toolbox as of January 2018, with the
automatic key and white point of Reinhard, "Parameter estimation for photographic tone reproduction"
(2003); `local` follows the publication itself, since the toolbox's own departs from it
(DEVIATIONS D18 to D20).

References
----------
E. Reinhard, M. Stark, P. Shirley, J. Ferwerda, "Photographic tone reproduction for digital
images", ACM TOG 21(3), 2002, doi 10.1145/566654.566575.
E. Reinhard, "Parameter estimation for photographic tone reproduction", J. Graphics Tools 7(1),
2003, doi 10.1080/10867651.2002.10487554.
"""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np

from replication.baselines.bilateral import bilateral_grid
from replication.files import ReplicationError
from replication.images import check_radiance, luminance

DELTA = 1e-3
"""Offset inside the logarithm of the mean (2018; depends on the unit of the radiance)."""

MIDDLE_KEY = 0.18
_EPSILON = 1e-9
_LOCAL_SCALES = 1.6 ** np.arange(9)


def log_mean(luminance: np.ndarray, delta: float = DELTA) -> float:
    """Geometric mean with an offset, ``exp(mean(ln(L + delta)))`` (2002, eq. 1).

    Parameters
    ----------
    luminance : float array
        Not negative.
    delta : float
        Offset that keeps black pixels finite; not scale-free, so the unit of `luminance` matters.

    Returns
    -------
    float
        In the unit of `luminance`.
    """
    return float(np.exp(np.mean(np.log(np.asarray(luminance, dtype=np.float64) + delta))))


def _log2_percentiles(luminance: np.ndarray) -> tuple[float, float]:
    """Log2 of the 1 % and 99 % order statistics (element ``round(n p)`` counted from 1)."""
    values = np.asarray(luminance, dtype=np.float64).ravel()
    ranks = [max(int(np.floor(values.size * p + 0.5)), 1) - 1 for p in (0.01, 0.99)]
    low, high = np.partition(values, ranks)[ranks]
    return float(np.log2(low + _EPSILON)), float(np.log2(high + _EPSILON))


def automatic_key(luminance: np.ndarray, delta: float = DELTA) -> float:
    """Key of an image from where its mean lies between its extremes (2003).

    ``0.18 * 4^((2 log2 Lmean - log2 Lmin - log2 Lmax) / (log2 Lmax - log2 Lmin))`` with the
    geometric mean of :func:`log_mean` and the 1 % and 99 % order statistics as Lmin and Lmax. An
    image without contrast gets 0.18; the exponent is kept within -16 and 16, which only almost
    constant images reach.

    Parameters
    ----------
    luminance : float array
        Not negative.
    delta : float
        See :func:`log_mean`.

    Returns
    -------
    float
        Positive, dimensionless.
    """
    low, high = _log2_percentiles(luminance)
    if high <= low:
        return MIDDLE_KEY
    exponent = (2 * np.log2(log_mean(luminance, delta) + _EPSILON) - low - high) / (high - low)
    return float(MIDDLE_KEY * 4.0 ** np.clip(exponent, -16, 16))


def automatic_white(luminance: np.ndarray) -> float:
    """Smallest scaled luminance that becomes white (2003).

    ``1.5 * 2^(log2 Lmax - log2 Lmin - 5)`` with the 1 % and 99 % order statistics.

    Parameters
    ----------
    luminance : float array
        Not negative.

    Returns
    -------
    float
        Positive, dimensionless (in scaled luminance ``key * L / Lmean``).
    """
    low, high = _log2_percentiles(luminance)
    return float(1.5 * 2.0 ** (high - low - 5))


def _local_adaptation(scaled: np.ndarray, key: float, phi: float, threshold: float) -> np.ndarray:
    """Mean of the largest neighbourhood without strong contrast (2002, eqs. 5 to 8)."""
    scaled = scaled.astype(np.float32)
    centre = _gaussian(scaled, _LOCAL_SCALES[0])
    adaptation = centre.copy()
    calm = np.ones(scaled.shape, dtype=bool)
    for scale, next_scale in pairwise(_LOCAL_SCALES):
        surround = _gaussian(scaled, next_scale)
        activity = np.abs(centre - surround) / (2.0**phi * key / scale**2 + centre)
        calm &= activity < threshold
        if not calm.any():
            break
        np.copyto(adaptation, centre, where=calm)
        centre = surround
    return adaptation.astype(np.float64)


def _gaussian(image: np.ndarray, scale: float) -> np.ndarray:
    """Unit-sum Gaussian ``exp(-r^2 / (scale/(2 sqrt 2))^2)``, borders mirrored, cut at 4 sigma."""
    sigma = scale / 4
    size = 2 * int(np.ceil(4 * sigma)) + 1
    return cv2.GaussianBlur(image, (size, size), sigma, borderType=cv2.BORDER_REFLECT)


def _bilateral_adaptation(scaled: np.ndarray, key: float) -> np.ndarray:
    """Bilateral mean of the scaled luminance in a compressed domain, as the toolbox takes it."""
    knee = 256 * key / 64
    compressed = scaled / (scaled + knee)
    smooth = bilateral_grid(
        compressed, compressed, value_range=(0.0, 1.0), sigma_s=1.6, sigma_r=0.025
    )
    room = 1 - smooth
    return np.divide(knee * smooth, room, out=np.zeros_like(smooth), where=room > 0)


def tone_map_linear(
    hdr: np.ndarray,
    *,
    operator: str = "global",
    key: float | None = None,
    white: float | None = None,
    delta: float = DELTA,
    phi: float = 8.0,
    threshold: float = 0.05,
) -> np.ndarray:
    """Compress a radiance map; the result is linear and not clipped.

    With ``Ls = key L / log_mean(L)`` every pixel's RGB is multiplied by ``Ld / L``,
    ``Ld = Ls (1 + Ls/white^2) / (1 + V)`` (2002, eqs. 2 to 4 and 9), where the adaptation `V` is

    * ``global``: `Ls` itself;
    * ``local``: `Ls` under the largest of eight Gaussians (widths 1 to 1.6^7 pixels) up to which
      the centre-surround activity stays below `threshold` (dodging and burning);
    * ``bilateral``: `Ls` under a bilateral filter, taken on ``Ls / (Ls + 4 key)``.

    Parameters
    ----------
    hdr : float array (H, W, 3)
        Linear RGB radiance, finite, not negative; `delta` assumes an average near 1 or above.
    operator : str
        global, local or bilateral.
    key : float, optional
        Brightness that the geometric mean is mapped to; :func:`automatic_key` if None.
    white : float, optional
        Scaled luminance that maps to 1, ``np.inf`` for none; :func:`automatic_white` if None.
    delta : float
        See :func:`log_mean`.
    phi : float
        Sharpening of ``local`` (2002: 8).
    threshold : float
        Activity at which the neighbourhood of ``local`` stops growing (2002: 0.05).

    Returns
    -------
    np.ndarray
        float32, shape (H, W, 3), linear, not negative; may exceed 1. An all-black image stays 0.

    Raises
    ------
    ReplicationError
        If the image has another shape, is not floating point, holds NaN, infinite or negative
        values, or an option is out of range.
    """
    hdr = check_radiance(hdr)
    if operator not in ("global", "local", "bilateral"):
        raise ReplicationError(f"Unknown operator {operator!r}: use global, local or bilateral.")
    if not all(value is None or value > 0 for value in (key, white, delta)):
        raise ReplicationError(
            f"Key, white and delta must be positive, not {key}, {white} and {delta}."
        )
    bright = luminance(hdr)
    if not bright.any():
        return np.zeros(hdr.shape, dtype=np.float32)
    if key is None:
        key = automatic_key(bright, delta)
    if white is None:
        white = automatic_white(bright)
    scale = key / log_mean(bright, delta)
    scaled = np.multiply(bright, scale, out=bright)
    if operator == "local":
        adaptation = _local_adaptation(scaled, key, phi, threshold)
    elif operator == "bilateral":
        adaptation = _bilateral_adaptation(scaled, key)
    else:
        adaptation = scaled
    ratio = scale * (1 + scaled / white**2) / (1 + adaptation)
    return hdr * ratio[..., None].astype(np.float32)


def tone_map(
    hdr: np.ndarray,
    *,
    operator: str = "global",
    key: float | None = None,
    white: float | None = None,
    delta: float = DELTA,
    phi: float = 8.0,
    threshold: float = 0.05,
    gamma: float = 2.2,
) -> np.ndarray:
    """Picture of a radiance map, ready for a display: ``clip(x, 0, 1)^(1/gamma)``.

    `x` is :func:`tone_map_linear` of the same arguments.

    Parameters
    ----------
    hdr : float array (H, W, 3)
        Linear RGB radiance, finite, not negative.
    operator, key, white, delta, phi, threshold
        See :func:`tone_map_linear`.
    gamma : float
        Display gamma, positive; 1 for a linear picture.

    Returns
    -------
    np.ndarray
        float32, shape (H, W, 3), in [0, 1], gamma-encoded RGB.

    Raises
    ------
    ReplicationError
        As :func:`tone_map_linear`, or if `gamma` is not positive.
    """
    if not gamma > 0:
        raise ReplicationError(f"The display gamma must be positive, not {gamma}.")
    linear = tone_map_linear(
        hdr,
        operator=operator,
        key=key,
        white=white,
        delta=delta,
        phi=phi,
        threshold=threshold,
    )
    np.clip(linear, 0.0, 1.0, out=linear)
    return np.power(linear, np.float32(1 / gamma), out=linear)
