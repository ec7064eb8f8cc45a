"""Steerable pyramid with four orientations (Simoncelli & Freeman 1995), and bicubic resizing.

The filters are those of Karasaridis & Simoncelli (1996, "sp3"). Their taps come from pyrtools (MIT
licence, Copyright (c) 2016 LabForComputationalVision, see ``sp3_filters.LICENSE``). Images are mirrored
about their edge pixels. Filtering multiplies spectra, so every kernel costs the same. Sources: doi 10.1109/
ICIP.1995.537667 (pyramid), 10.1109/ICASSP.1996.547720 (filters), 10.1109/TASSP.1981.1163711 (bicubic).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import torch
from scipy import sparse
from scipy.fft import next_fast_len
from scipy.signal import convolve2d
from torch.nn.functional import pad

MINIMUM = 17  # smallest image side in pixels; a smaller image has no oriented level


def level_count(height: int, width: int) -> int:
    """Number of oriented levels: halvings (rounded down) while both sides have 17 pixels or more."""
    count = 0
    while min(height, width) >= MINIMUM:
        count, height, width = count + 1, height // 2, width // 2
    return count


def fast_length(length: int) -> int:
    """Smallest even length, not below the given one, without prime factors above 11."""
    return 2 * next_fast_len((length + 1) // 2)


def steerable_pyramid(images: torch.Tensor) -> list[torch.Tensor]:
    """Split images into bands of spatial frequency and orientation.

    Correlation with ``hi0`` gives the high-pass residual, with ``lo0`` the first low-pass image. At each
    level four filters give the oriented bands, and ``lo`` (of gain 2), sampled at even rows and columns,
    gives the next low-pass image. The last low-pass image is the base band.

    Args:
        images: (N, H, W), float64 or float32, any device, H and W of at least 17 pixels.

    Returns:
        Residual (1, N, H, W), oriented bands (4, N, h, w) from fine to coarse, base band (1, N, h, w).
        From level to level, h and w are halved and rounded up.
    """
    kernels, levels = _kernels(), []
    # mirroring commutes with lo0, which is symmetric, so one filter does the work of two
    filters = [kernels["hi0"], *kernels["lo0_b"], kernels["lo0_lo"]]
    for _ in range(level_count(*images.shape[1:])):
        bands = _correlate_each(images, filters)
        levels.append(bands[:-1])
        images, filters = bands[-1, :, ::2, ::2], [*kernels["b"], kernels["lo"]]
    return [levels[0][:1], levels[0][1:], *levels[1:], images[None]]


def rebuild(bands: Sequence[torch.Tensor]) -> torch.Tensor:
    """Add up the bands of one image, from the base band to the finest level.

    Each level spreads the image so far to even rows and columns, convolves it with ``lo`` and adds the
    bands, convolved with their filters. The last step does so with ``lo0``, and ``hi0`` for the residual.

    Args:
        bands: Residual (1, H, W), oriented bands (4, h, w), base band (1, h, w) of one image.

    Returns:
        (H, W). For the unchanged bands of an image it is nearly that image.
    """
    kernels = _kernels()
    image = bands[-1][0]
    for band in reversed(bands[1:-1]):
        spread = torch.zeros_like(band[0])
        spread[::2, ::2] = image
        # convolution is correlation with the kernel turned by 180 degrees
        image = _correlate_sum([spread, *band], [kernels["lo"], *kernels["b"][:, ::-1, ::-1]])
    return _correlate_sum([image, bands[0][0]], [kernels["lo0"], kernels["hi0"]])


@cache
def _kernels() -> dict[str, np.ndarray]:
    """The filters, and lo0 convolved with those that follow it."""
    with np.load(Path(__file__).with_name("sp3_filters.npz")) as file:
        kernels = dict(file)
    kernels["lo0_b"] = np.stack([convolve2d(kernels["lo0"], b) for b in kernels["b"]])
    kernels["lo0_lo"] = convolve2d(kernels["lo0"], kernels["lo"])
    return kernels


def _correlate_each(images: torch.Tensor, kernels: Sequence[np.ndarray]) -> torch.Tensor:
    """Every image (N, H, W) with every kernel: (K, N, H, W)."""
    (height, width), (margin, size, factors) = images.shape[1:], _factors(kernels, images)
    result = images.new_empty(len(kernels), *images.shape)
    for n, image in enumerate(images):
        spectrum = _spectrum(image, margin, size)
        for filtered, (left, right) in zip(result, factors, strict=True):
            filtered[n] = torch.fft.irfft2((left @ right).mul_(spectrum), s=size)[:height, :width]
    return result


def _correlate_sum(images: Sequence[torch.Tensor], kernels: Sequence[np.ndarray]) -> torch.Tensor:
    """Sum over images (H, W), each correlated with its kernel."""
    (height, width), total = images[0].shape, 0
    margin, size, factors = _factors(kernels, images[0])
    for image, (left, right) in zip(images, factors, strict=True):
        total += (left @ right).mul_(_spectrum(image, margin, size))
    return torch.fft.irfft2(total, s=size)[:height, :width].contiguous()


def _spectrum(image: torch.Tensor, margin: int, size: tuple[int, ...]) -> torch.Tensor:
    """Spectrum of an image (H, W) mirrored about its edge pixels by a margin, zero beyond."""
    return torch.fft.rfft2(pad(image[None], [margin] * 4, mode="reflect")[0], s=size)


def _factors(kernels: Sequence[np.ndarray], like: torch.Tensor) -> tuple[int, tuple[int, ...], list]:
    """Margin for kernels, size of the transform, and pairs whose product filters and crops a spectrum."""
    margin, factors = max(map(len, kernels)) // 2, []
    size = tall, wide = tuple(fast_length(n + 2 * margin) for n in like.shape[-2:])
    for kernel in kernels:
        taps = np.arange(len(kernel)) + margin - len(kernel) // 2
        rows = np.exp(2j * np.pi / tall * (np.outer(np.arange(tall), taps) % tall)) @ kernel
        columns = np.exp(2j * np.pi / wide * (np.outer(taps, np.arange(wide // 2 + 1)) % wide))
        pair = torch.from_numpy(rows), torch.from_numpy(columns)
        factors.append([matrix.to(like.device, like.dtype.to_complex()) for matrix in pair])
    return margin, size, factors


def resize_bicubic(image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Resize an image (H, W) with Keys' kernel, stretched where the image shrinks (antialiasing).

    Output pixel ``x`` (from 1) lies at ``x/s + (1 - 1/s)/2`` of an axis scaled by ``s``. The kernel is
    4 pixels wide, ``4/s`` when ``s < 1``. Its weights are normalised to the sum 1, and the image is
    mirrored with its edge pixels repeated. Values may overshoot beside edges.

    Args:
        image: (H, W), float64 or float32, any device.
        size: New height and width, positive.

    Returns:
        Shape `size`, contiguous, same dtype and device; not a copy when nothing changes.
    """
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
    taps = np.floor(centre - 2 / shrink)[:, None] + np.arange(int(np.ceil(4 / shrink)) + 2)
    x = np.abs(shrink * (centre[:, None] - taps))
    near, far = (1.5 * x - 2.5) * x**2 + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    weights = np.where(x <= 1, near, np.where(x <= 2, far, 0.0))
    weights /= weights.sum(axis=1, keepdims=True)
    place = (taps.astype(np.int64) - 1) % (2 * length)
    columns = np.minimum(place, 2 * length - 1 - place)
    rows, taps = weights.nonzero()
    matrix = sparse.csr_array((weights[rows, taps], (rows, columns[rows, taps])), shape=(target, length))
    parts = (torch.from_numpy(a) for a in (matrix.indptr, matrix.indices, matrix.data))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse")
        return torch.sparse_csr_tensor(*parts, size=matrix.shape, dtype=dtype, device=device)
