"""What the three inverse tone mapping baselines share: linear light before, colour after.

Which program and settings they follow: DEVIATIONS D23; pictures without contrast: D24.
"""

from __future__ import annotations

import math

import numpy as np

from replication.files import ReplicationError
from replication.images import check_picture, luminance

GAMMA = 2.2
"""Display gamma that the baselines undo; the camera's own curve is unknown to them."""

_LARGEST = float(np.finfo(np.float32).max)


def check_positive(**options: float) -> None:
    """ReplicationError that names the first option that is not positive and finite."""
    for name, value in options.items():
        if not 0 < value < math.inf:
            raise ReplicationError(f"{name} must be positive and finite, not {value}.")


def linearise(ldr: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Undo the display gamma: ``I = x^2.2`` and its luminance.

    Parameters
    ----------
    ldr : uint8 array, or float array in [0, 1], shape (H, W, 3)
        RGB, display-encoded.

    Returns
    -------
    linear : np.ndarray
        float64, shape (H, W, 3), linear RGB in [0, 1].
    luminance : np.ndarray
        float64, shape (H, W), ``0.2126 R + 0.7152 G + 0.0722 B`` in [0, 1].

    Raises
    ------
    ReplicationError
        As :func:`check_picture`.
    """
    ldr = check_picture(ldr)
    if ldr.dtype == np.uint8:
        linear = np.take((np.arange(256) / 255) ** GAMMA, ldr)
    else:
        linear = ldr.astype(np.float64) ** GAMMA
    return linear, np.minimum(luminance(linear), 1.0)


def recolour(linear: np.ndarray, luminance: np.ndarray, expanded: np.ndarray) -> np.ndarray:
    """Give an expanded luminance the colours of the picture: ``I * expanded / luminance``.

    Parameters
    ----------
    linear, luminance : float64 arrays (H, W, 3) and (H, W)
        From :func:`linearise`.
    expanded : float64 array (H, W)
        Expanded luminance, cd/m2.

    Returns
    -------
    np.ndarray
        float32, shape (H, W, 3), linear RGB in cd/m2, finite; 0 where the quotient is not defined
        (black pixels).
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratio = expanded / luminance
    ratio[~np.isfinite(ratio)] = 0
    return np.minimum(linear * ratio[..., None], _LARGEST).astype(np.float32)
