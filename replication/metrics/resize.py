"""Bicubic resizing with antialiasing (Keys 1981, a = -1/2), as HDR-VDP-2 resizes its maps.

References
----------
R. G. Keys, "Cubic convolution interpolation for digital image processing", IEEE Trans. ASSP 29(6),
1981, doi 10.1109/TASSP.1981.1163711.
"""

from __future__ import annotations

import warnings
from functools import lru_cache

import numpy as np
import torch
from scipy import sparse

from replication.files import ReplicationError


def resize_bicubic(image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Resize an image; when it shrinks, the kernel is stretched so that it also smooths.

    Output pixel ``x`` (from 1) lies at ``x/s + (1 - 1/s)/2`` of an axis scaled by ``s``. The
    kernel is 4 pixels wide, ``4/s`` when ``s < 1``, its weights are normalised to the sum 1, and
    the image is mirrored with its edge pixels repeated.

    Parameters
    ----------
    image : torch.Tensor (H, W)
        float64 or float32, any device.
    size : (int, int)
        New height and width, positive.

    Returns
    -------
    torch.Tensor
        Shape `size`, contiguous, same dtype and device; not a copy when nothing changes.
        Values overshoot the range of the image by up to a quarter of it beside edges.

    Raises
    ------
    ReplicationError
        If the image is not two-dimensional or a size is not positive.
    """
    if image.ndim != 2 or not image.numel() or min(size) < 1:
        raise ReplicationError(
            f"Resizing needs an image (H, W) and a positive size, not {tuple(image.shape)}, {size}."
        )
    for length in size:
        if image.shape[0] != length:
            image = _weights(image.shape[0], length, image.dtype, image.device) @ image
        image = image.T
    return image.contiguous()


@lru_cache(maxsize=64)
def _weights(length: int, target: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Sparse matrix (target, length) that resizes one axis."""
    scale = target / length
    shrink = min(scale, 1.0)
    centre = np.arange(1, target + 1) / scale + 0.5 * (1 - 1 / scale)
    first = np.floor(centre - 2 / shrink)
    taps = first[:, None] + np.arange(int(np.ceil(4 / shrink)) + 2)
    weights = _keys(shrink * (centre[:, None] - taps))
    weights /= weights.sum(axis=1, keepdims=True)
    place = (taps.astype(np.int64) - 1) % (2 * length)
    columns = np.where(place < length, place, 2 * length - 1 - place)
    rows = np.broadcast_to(np.arange(target)[:, None], columns.shape)
    matrix = sparse.csr_array(
        (weights.ravel(), (rows.ravel(), columns.ravel())), shape=(target, length)
    )
    matrix.eliminate_zeros()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse")
        return torch.sparse_csr_tensor(
            torch.from_numpy(matrix.indptr.astype(np.int64)),
            torch.from_numpy(matrix.indices.astype(np.int64)),
            torch.from_numpy(matrix.data),
            size=matrix.shape,
            dtype=dtype,
            device=device,
        )


def _keys(x: np.ndarray) -> np.ndarray:
    """Keys' cubic kernel with a = -1/2, on [-2, 2]."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x**2 + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))
