"""What the three inverse tone mappers share: linear light, bilateral grid, colour.

Which program and settings they follow: DEVIATIONS D23. Pictures without contrast: D24.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage

from replication.images import check_picture, luminance

GAMMA = 2.2  # of the display, which the inverse tone mappers undo; they do not know the camera's own curve
_LARGEST = float(np.finfo(np.float32).max)
_PAD = 3
_TAPS = np.exp(-0.5 * np.arange(-1, 2) ** 2)


def linearise(ldr: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Undo the display gamma: ``I = x^2.2``.

    Args:
        ldr: uint8, or float in [0, 1], (H, W, 3), display-encoded RGB.

    Returns:
        float64 (H, W, 3), linear RGB in [0, 1], and float64 (H, W), its luminance in [0, 1].

    Raises:
        ReplicationError: Not a picture, see `images.check_picture`.
    """
    ldr = check_picture(ldr)
    if ldr.dtype == np.uint8:
        linear = np.take((np.arange(256) / 255) ** GAMMA, ldr)
    else:
        linear = ldr.astype(np.float64) ** GAMMA
    return linear, np.minimum(luminance(linear), 1.0)


def recolour(linear: np.ndarray, luminance: np.ndarray, expanded: np.ndarray) -> np.ndarray:
    """Give an expanded luminance, float64 (H, W) in cd/m2, the colours of a picture from `linearise`.

    Returns ``linear * expanded / luminance``: float32 (H, W, 3), cd/m2, finite; 0 where luminance is 0.
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratio = expanded / luminance
    ratio[~np.isfinite(ratio)] = 0
    return np.minimum(linear * ratio[..., None], _LARGEST).astype(np.float32)


def bilateral_grid(
    data: np.ndarray, guide: np.ndarray, *, sigma_s: float, sigma_r: float, value_range: tuple = (0.0, 1.0)
) -> np.ndarray:
    """Smooth `data` over pixels that are near in position and in the value of `guide`.

    Pixel (i, j) with guide value g is at ``(i/sigma_s, j/sigma_s, (g - lowest)/sigma_r)`` of a coarse
    grid. Data and counts are added up in the nearest cells (halves rounded up), smoothed by the
    3 x 3 x 3 kernel ``exp(-r^2/2)``, divided (0 without count) and read by trilinear interpolation.

    Args:
        data: (H, W), what is smoothed.
        guide: float (H, W) within `value_range`, what keeps its edges; often `data` itself.
        value_range: Lowest and highest value of the grid.
        sigma_s: Width of the smoothing in pixels, positive.
        sigma_r: Width of the smoothing in guide values, positive.

    Returns:
        float64 (H, W). Source: Chen, Paris, Durand, SIGGRAPH 2007, doi 10.1145/1276377.1276506.
    """
    lowest, highest = value_range
    height, width = data.shape
    place = np.empty((3, height, width))
    place[0] = (np.arange(height) / sigma_s)[:, None]
    place[1] = np.arange(width) / sigma_s
    place[2] = (guide - lowest) / sigma_r
    lengths = (height - 1) / sigma_s, (width - 1) / sigma_s, (highest - lowest) / sigma_r
    shape = tuple(int(length) + 1 + 2 * _PAD for length in lengths)

    nearest = np.floor(place + 0.5).astype(np.int64) + _PAD
    cell = np.ravel_multi_index(tuple(nearest), shape).ravel()
    size = math.prod(shape)
    total = _blur(np.bincount(cell, data.ravel(), size).reshape(shape))
    count = _blur(np.bincount(cell, minlength=size).reshape(shape).astype(np.float64))
    mean = np.divide(total, count, out=np.zeros(shape), where=count > 0)
    return ndimage.map_coordinates(mean, place + _PAD, order=1, mode="nearest")


def _blur(grid: np.ndarray) -> np.ndarray:
    """3 x 3 x 3 kernel exp(-r^2/2), not normalised, zero outside the grid."""
    for axis in range(3):
        grid = ndimage.correlate1d(grid, _TAPS, axis=axis, mode="constant")
    return grid
