"""Edge-preserving smoothing with a bilateral grid (Chen, Paris, Durand, SIGGRAPH 2007).

Shared by the bilateral mode of Reinhard's operator and by the inverse tone mapping baselines.

References
----------
J. Chen, S. Paris, F. Durand, "Real-time edge-aware image processing with the bilateral grid", ACM
TOG 26(3), 2007, doi 10.1145/1276377.1276506.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from replication.files import ReplicationError

_PAD = 3
_TAPS = np.exp(-0.5 * np.arange(-1, 2) ** 2)
_CELLS_AT_ONCE = 1 << 22


def bilateral_grid(
    data: np.ndarray,
    guide: np.ndarray,
    *,
    value_range: tuple[float, float],
    sigma_s: float,
    sigma_r: float,
) -> np.ndarray:
    """Smooth `data` over pixels that are near in position and in the value of `guide`.

    Pixel (i, j) with guide value `g` sits at ``(i/sigma_s, j/sigma_s, (g - lowest)/sigma_r)`` of a
    coarse grid. Data and counts are added up at the nearest cells (halves rounded up), smoothed
    with the 3 x 3 x 3 kernel ``exp(-r^2/2)``, divided (0 where there is no count), and read back by
    trilinear interpolation. With ``guide is data`` this is the bilateral filter, else the cross
    bilateral filter.

    Parameters
    ----------
    data : float array (H, W)
        What is smoothed.
    guide : float array (H, W)
        What keeps its edges; within `value_range`.
    value_range : (float, float)
        Lowest and highest value that the grid covers, in the unit of `guide`.
    sigma_s : float
        Width of the smoothing in pixels, positive.
    sigma_r : float
        Width of the smoothing in guide values, positive.

    Returns
    -------
    np.ndarray
        float64, shape (H, W), within the range of `data` up to rounding (or towards 0 beside cells
        without count).

    Raises
    ------
    ReplicationError
        If the arrays are not of one two-dimensional shape, hold NaN or infinite values, the guide
        leaves the range, or a width is not positive.

    Notes
    -----
    The grid is built for bands of rows, with the rows around them that matter, so that memory is
    bounded however small the widths are; the result does not depend on the bands.
    """
    data = np.asarray(data, dtype=np.float64)
    guide = np.asarray(guide, dtype=np.float64)
    if data.ndim != 2 or data.shape != guide.shape or not data.size:
        raise ReplicationError(
            "The bilateral grid needs data and guide of one shape (H, W), "
            f"not {data.shape} and {guide.shape}."
        )
    lowest, highest = value_range
    if not (np.isfinite(data).all() and guide.min() >= lowest and guide.max() <= highest):
        raise ReplicationError(
            "The bilateral grid needs finite data and a guide within "
            f"{lowest} and {highest}, not NaN, infinite or outside values."
        )
    if not (0 < sigma_s < np.inf and 0 < sigma_r < np.inf):
        raise ReplicationError(
            f"The widths of the bilateral grid must be positive, not {sigma_s} and {sigma_r}."
        )

    height, width = data.shape
    columns = int((width - 1) / sigma_s) + 1 + 2 * _PAD
    depth = int((highest - lowest) / sigma_r) + 1 + 2 * _PAD
    row_cell = _nearest(np.arange(height) / sigma_s)
    column_cell = _nearest(np.arange(width) / sigma_s) + _PAD
    column_place = np.arange(width) / sigma_s + _PAD

    smooth = np.empty_like(data)
    band = max(1, int(max(1, _CELLS_AT_ONCE // (columns * depth)) * sigma_s))
    for top in range(0, height, band):
        bottom = min(top + band, height)
        first = int(top / sigma_s) - 1
        last = int((bottom - 1) / sigma_s) + 2
        rows = slice(np.searchsorted(row_cell, first), np.searchsorted(row_cell, last, "right"))
        cell = (row_cell[rows, None] - first) * columns + column_cell
        cell = cell * depth + _nearest((guide[rows] - lowest) / sigma_r) + _PAD
        shape = (last - first + 1, columns, depth)
        size = shape[0] * columns * depth
        total = np.bincount(cell.ravel(), weights=data[rows].ravel(), minlength=size)
        count = np.bincount(cell.ravel(), minlength=size).astype(np.float64)
        total, count = _blur(total.reshape(shape)), _blur(count.reshape(shape))
        mean = np.divide(total, count, out=np.zeros(shape), where=count > 0)

        inner = slice(top, bottom)
        place = np.empty((3, bottom - top, width))
        place[0] = (np.arange(top, bottom) / sigma_s - first)[:, None]
        place[1] = column_place
        place[2] = (guide[inner] - lowest) / sigma_r + _PAD
        ndimage.map_coordinates(mean, place, output=smooth[inner], order=1, mode="nearest")
    return smooth


def _nearest(x: np.ndarray) -> np.ndarray:
    """Nearest integers of values that are not negative, halves rounded up."""
    return np.floor(x + 0.5).astype(np.int64)


def _blur(grid: np.ndarray) -> np.ndarray:
    """Separable 3 x 3 x 3 kernel exp(-r^2/2), not normalised, zero outside the grid."""
    for axis in range(3):
        grid = ndimage.correlate1d(grid, _TAPS, axis=axis, mode="constant")
    return grid
