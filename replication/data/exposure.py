"""Light that a photo has recorded: Eq. 1, EXIF, the middle exposure (DEVIATIONS D1, D9, D15)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from replication.files import ReplicationError

GREY_WEIGHTS = np.array([299, 587, 114], np.uint32)  # BT.601 luma; the same grey on every machine

# EXIF tags, best first, and what turns their value into F, seconds, ISO; APEX values are logarithms.
_TAGS = {
    "F-number": {0x829D: float, 0x9202: lambda apex: 2 ** (float(apex) / 2)},
    "exposure time": {0x829A: float, 0x9201: lambda apex: 2 ** -float(apex)},
    "ISO speed": dict.fromkeys((0x8827, 0x8833, 0x8832), float),
}
Value = float | np.ndarray


def _settings(*values: Value) -> list[np.ndarray]:
    arrays = [np.asarray(value, np.float64) for value in values]
    for name, array in zip(_TAGS, arrays, strict=True):
        if not (np.isfinite(array) & (array > 0)).all():
            raise ReplicationError(f"The {name} must be a positive number, not {array}.")
    return arrays


def exposure_value(f_number: Value, exposure_time: Value, iso: Value = 100.0) -> Value:
    """Exposure value in stops as the paper prints it (Eq. 1): EV = 2 log2 F - log2 S + log2(ISO / 100).

    As printed, EV *falls* by one when the exposure time doubles and *rises* by one when the ISO
    doubles, although both make the picture brighter. So a stack is labelled by `relative_ev`.

    Args:
        f_number: Relative aperture F, > 0.
        exposure_time: Exposure time S, > 0, seconds.
        iso: Sensitivity of the sensor (ISO speed), > 0.

    Raises:
        ReplicationError: A setting is not a positive finite number.
    """
    f_number, exposure_time, iso = _settings(f_number, exposure_time, iso)
    return (2 * np.log2(f_number) - np.log2(exposure_time) + np.log2(iso / 100))[()]


def relative_ev(f_number: Value, exposure_time: Value, iso: Value = 100.0) -> Value:
    """Light recorded in stops, log2(S ISO / (100 F^2)); arguments and errors as `exposure_value`.

    One more is twice the light. Differences within a stack are the EVs of Section 4.1 and Figure 5.
    """
    f_number, exposure_time, iso = _settings(f_number, exposure_time, iso)
    return (np.log2(exposure_time) + np.log2(iso / 100) - 2 * np.log2(f_number))[()]


def exif_exposure(path: str | Path) -> tuple[float, float, float]:
    """F-number, exposure time in seconds and ISO speed of a photo, from its EXIF data (Exif 2.32).

    Raises:
        ReplicationError: The file cannot be read, or a setting is missing or not positive.
    """
    try:
        with Image.open(path) as image:
            exif = image.getexif()
            tags = {**exif, **exif.get_ifd(0x8769)}
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = str(getattr(error, "strerror", None) or error).rstrip(".")
        raise ReplicationError(f"Cannot read the photo {path}: {reason}.") from error

    def positive(tag: int, convert) -> float:
        value = tags.get(tag)
        try:
            value = convert(value[0] if isinstance(value, tuple | list) else value)
            return value if 0 < value < np.inf else 0.0
        except (TypeError, ValueError, IndexError, ArithmeticError):
            return 0.0

    found = {name: [positive(*tag) for tag in tags_.items()] for name, tags_ in _TAGS.items()}
    if missing := [name for name, values in found.items() if not any(values)]:
        raise ReplicationError(f"The EXIF data of {path} have no {' and no '.join(missing)}.")
    return tuple(next(filter(None, values)) for values in found.values())


def histogram_entropy(image: np.ndarray) -> float:
    """Entropy in bits, [0, 8], of the 256-level grey histogram of a uint8 (H, W, 3) or (H, W) image."""
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.shape[2:] not in ((), (3,)) or not image.size:
        kind = f"{image.dtype} {image.shape}"
        raise ReplicationError(f"A histogram needs an 8-bit grey or RGB image, not {kind}.")
    grey = (image @ GREY_WEIGHTS + 500) // 1000 if image.ndim == 3 else image
    share = np.bincount(grey.ravel(), minlength=256) / grey.size
    share = share[share > 0]
    return float(max(0.0, -(share * np.log2(share)).sum()))


def middle_exposure(images: Sequence[np.ndarray], *, neighbours: int = 0) -> int:
    """Index of the middle exposure: the frame with the "most evenly distributed histogram" (Section 4.4).

    The paper gives no formula; here the highest `histogram_entropy` wins, at a tie the first frame.

    Args:
        images: Frames of one stack, uint8 (H, W, 3) or (H, W), dark to bright if `neighbours` > 0.
        neighbours: Frames that must lie on each side; 3 leaves room for EV -3 ... +3.

    Raises:
        ReplicationError: No frame has so many neighbours, or a frame is not an 8-bit image.
    """
    count, around = len(images), max(neighbours, 0)
    if count <= 2 * around:
        raise ReplicationError(f"{count} frames have no middle one with {around} on each side.")
    return max(range(around, count - around), key=lambda i: histogram_entropy(images[i]))
