"""What a photo, a picture, a stack of frames and a radiance map are: the only checks of shape and type.

A *photo* is uint8 ``(H, W, 3)`` RGB. A *picture* is a photo or the same as floats in [0, 1]. *Frames*
are photos of one size. A *radiance map* is float ``(H, W, 3)`` linear RGB, finite and not negative.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from replication.files import ReplicationError

LUMINANCE_WEIGHTS = (0.2126, 0.7152, 0.0722)  # of linear R, G, B (ITU-R BT.709)


def luminance(hdr: np.ndarray) -> np.ndarray:
    """Luminance ``0.2126 R + 0.7152 G + 0.0722 B`` of linear RGB ``(..., 3)``: float64 ``(...)``."""
    return sum(w * hdr[..., c].astype(np.float64) for c, w in enumerate(LUMINANCE_WEIGHTS))


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Floats in [0, 1] (others are clipped) as uint8, rounded to the nearest level of 255."""
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def _is_rgb(image: np.ndarray) -> bool:
    return image.ndim == 3 and image.shape[2] == 3 and image.size > 0


def check_photo(ldr: np.ndarray, name: str = "The LDR image") -> np.ndarray:
    """Return a photo as contiguous uint8 ``(H, W, 3)``; ReplicationError for anything else."""
    if not isinstance(ldr, np.ndarray) or not _is_rgb(ldr):
        shape = getattr(ldr, "shape", type(ldr).__name__)
        raise ReplicationError(f"{name} must be an RGB array (H, W, 3), not {shape}.")
    if ldr.dtype != np.uint8:
        raise ReplicationError(f"{name} must be uint8 in 0..255, not {ldr.dtype}.")
    return np.ascontiguousarray(ldr)


def check_picture(ldr: np.ndarray, name: str = "The LDR image") -> np.ndarray:
    """Return a picture, uint8 or float in [0, 1], ``(H, W, 3)``; ReplicationError for anything else."""
    ldr = np.asarray(ldr)
    if not _is_rgb(ldr):
        raise ReplicationError(f"{name} must have shape (H, W, 3), not {ldr.shape}.")
    if ldr.dtype == np.uint8:
        return ldr
    if not np.issubdtype(ldr.dtype, np.floating):
        raise ReplicationError(f"{name} must be uint8 or floating point, not {ldr.dtype}.")
    if not (ldr.min() >= 0 and ldr.max() <= 1):
        raise ReplicationError(f"{name} must be within 0 and 1, without NaN or infinite values.")
    return ldr


def check_frames(images: Sequence[np.ndarray] | np.ndarray) -> list[np.ndarray]:
    """Return frames as a list of uint8 ``(H, W, 3)`` of one size, else ReplicationError."""
    images = [np.asarray(image) for image in images]
    if not images:
        raise ReplicationError("The exposure stack holds no image.")
    for index, image in enumerate(images):
        name = f"Image {index} of the exposure stack"
        if image.dtype != np.uint8 or not _is_rgb(image):
            found = f"{image.dtype} of shape {image.shape}"
            raise ReplicationError(f"{name} must be uint8 of shape (H, W, 3), not {found}.")
        if image.shape != images[0].shape:
            raise ReplicationError(f"{name} has shape {image.shape}, but image 0 has {images[0].shape}.")
    return images


def check_radiance(hdr: np.ndarray) -> np.ndarray:
    """Return a radiance map as float32 ``(H, W, 3)``.

    Raises:
        ReplicationError: Another shape, not floating point, NaN, infinite or negative values, or
            values beyond float32.
    """
    hdr = np.asarray(hdr)
    if not _is_rgb(hdr):
        raise ReplicationError(f"A radiance map must have shape (H, W, 3), not {hdr.shape}.")
    if not np.issubdtype(hdr.dtype, np.floating):
        raise ReplicationError(f"A radiance map must be floating point, not {hdr.dtype}.")
    with np.errstate(over="ignore"):
        hdr = hdr.astype(np.float32, copy=False)
    if not np.isfinite(hdr).all():
        raise ReplicationError("The radiance map holds NaN or infinite values.")
    if hdr.min() < 0:
        raise ReplicationError(f"The radiance map holds negative values, down to {hdr.min():.3g}.")
    return hdr
