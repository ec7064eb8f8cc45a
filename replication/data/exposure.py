"""How much light a photo has seen: Eq. 1, EXIF, and the middle exposure of Section 4.4.

What the paper leaves open here: which way EV counts (DEVIATIONS D1), what an even histogram is (D9),
and how EXIF becomes whole EVs (D15).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from replication.files import ReplicationError

GREY_WEIGHTS = np.array([299, 587, 114], np.uint32)
"""BT.601 luma in thousandths (as in common image tools); whole numbers give the same everywhere."""

_IMAGE_ERRORS = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""What Pillow raises for a missing, foreign or broken file."""

# EXIF tags; each quantity has a plain tag and, for the first two, an APEX twin.
_EXIF_IFD = 0x8769
_EXPOSURE_TIME, _SHUTTER_APEX = 0x829A, 0x9201
_F_NUMBER, _APERTURE_APEX = 0x829D, 0x9202
_ISO_TAGS = (0x8827, 0x8833, 0x8832)  # PhotographicSensitivity, ISOSpeed, RecommendedExposureIndex


def _positive(f_number, exposure_time, iso) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the settings as float64; raise if one is not a positive finite number."""
    settings = []
    for name, value in (("F-number", f_number), ("exposure time", exposure_time), ("ISO", iso)):
        array = np.asarray(value, np.float64)
        if not (np.isfinite(array) & (array > 0)).all():
            raise ReplicationError(f"The {name} must be a positive number, not {value}.")
        settings.append(array)
    return tuple(settings)


def exposure_value(
    f_number: float | np.ndarray, exposure_time: float | np.ndarray, iso: float | np.ndarray = 100.0
) -> float | np.ndarray:
    """Exposure value as the paper prints it: EV = 2 log2 F - log2 S + log2(ISO / 100).

    As printed, EV *falls* by one when the exposure time doubles and *rises* by one when the ISO
    doubles, although both make the picture brighter (elsewhere the ISO term has the other sign:
    EV100 = log2(F^2 / S) - log2(ISO / 100), ISO 2720). So the EV labels of a stack are not taken
    from here but from the light recorded, `relative_ev`.

    Parameters
    ----------
    f_number : float or array
        Relative aperture F (dimensionless, > 0).
    exposure_time : float or array
        Exposure time S in seconds (> 0).
    iso : float or array
        Sensor sensitivity (ISO speed, > 0).

    Returns
    -------
    float or array of float64
        EV in stops.

    Raises
    ------
    ReplicationError
        If a setting is not a positive finite number.

    Source: Section 2.1, Eq. 1.
    """
    f_number, exposure_time, iso = _positive(f_number, exposure_time, iso)
    return (2 * np.log2(f_number) - np.log2(exposure_time) + np.log2(iso / 100))[()]


def relative_ev(
    f_number: float | np.ndarray, exposure_time: float | np.ndarray, iso: float | np.ndarray = 100.0
) -> float | np.ndarray:
    """Light that a photo has recorded, in stops: log2(S * ISO / (100 F^2)).

    One more is twice the light, thus a brighter picture. Differences of it between the frames of
    a stack are the paper's EV -3 ... +3 (brighter is higher, Section 4.1, Fig. 5).

    Parameters and errors as in `exposure_value`.

    Returns
    -------
    float or array of float64
        Stops relative to F/1, 1 s, ISO 100.
    """
    f_number, exposure_time, iso = _positive(f_number, exposure_time, iso)
    return (np.log2(exposure_time) + np.log2(iso / 100) - 2 * np.log2(f_number))[()]


def exif_exposure(path: str | Path) -> tuple[float, float, float]:
    """F-number, exposure time and ISO of a photo, from its EXIF data.

    Reads FNumber, ExposureTime and PhotographicSensitivity; where one is missing, its twin
    (ApertureValue, ShutterSpeedValue: APEX units; ISOSpeed or RecommendedExposureIndex).

    Parameters
    ----------
    path : path
        A photo in any format with EXIF that Pillow reads.

    Returns
    -------
    tuple of float
        F-number (dimensionless), exposure time in seconds, ISO speed.

    Raises
    ------
    ReplicationError
        If the file cannot be read or a setting is missing or not positive; names file and setting.

    Source: Exif 2.32 (CIPA DC-008), Section 4.6.5; used for Eq. 1.
    """
    path = Path(path)
    try:
        with Image.open(path) as image:
            exif = image.getexif()
            tags = {**exif, **exif.get_ifd(_EXIF_IFD)}
    except _IMAGE_ERRORS as error:
        raise ReplicationError(f"Cannot read the photo {path}: {_read_failure(error)}.") from error

    def number(tag: int) -> float:
        value = tags.get(tag)
        value = value[0] if isinstance(value, tuple | list) and value else value
        try:
            value = float(value)
        except (TypeError, ValueError, ZeroDivisionError):
            return np.nan
        return value

    def first_positive(*candidates: float) -> float:
        return next((value for value in candidates if np.isfinite(value) and value > 0), np.nan)

    settings = {
        "F-number": first_positive(number(_F_NUMBER), 2 ** (number(_APERTURE_APEX) / 2)),
        "exposure time": first_positive(number(_EXPOSURE_TIME), 2 ** -number(_SHUTTER_APEX)),
        "ISO speed": first_positive(*map(number, _ISO_TAGS)),
    }
    missing = [name for name, value in settings.items() if np.isnan(value)]
    if missing:
        raise ReplicationError(f"The EXIF data of {path} have no {' and no '.join(missing)}.")
    return tuple(settings.values())


def _read_failure(error: Exception) -> str:
    """Give a short reason for an image library's exception, without its path and trailing dot."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image of a known format"
    return str(getattr(error, "strerror", None) or error).rstrip(".")


def histogram_entropy(image: np.ndarray) -> float:
    """Entropy of the 256-bin grey-level histogram: 8 bits if even, 0 if all pixels are equal.

    Parameters
    ----------
    image : uint8 (H, W, 3) or (H, W)
        RGB (turned into BT.601 luma, rounded) or grey.

    Returns
    -------
    float
        Shannon entropy in bits, in [0, 8].

    Raises
    ------
    ReplicationError
        If the image is not uint8 of that shape, or is empty.
    """
    image = np.asarray(image)
    shaped = image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)
    if image.dtype != np.uint8 or not shaped or not image.size:
        raise ReplicationError(
            f"A histogram needs an 8-bit grey or RGB image, not {image.dtype} {image.shape}."
        )
    grey = image if image.ndim == 2 else (image @ GREY_WEIGHTS + 500) // 1000
    share = np.bincount(grey.ravel(), minlength=256) / grey.size
    share = share[share > 0]
    return float(max(0.0, -(share * np.log2(share)).sum()))


def middle_exposure(images: Sequence[np.ndarray], *, neighbours: int = 0) -> int:
    """Index of the middle exposure: the frame with the most evenly distributed histogram.

    "Most even" is read as the highest entropy of the 256-bin grey-level histogram; the paper
    gives no formula. At equal entropy the first frame wins.

    Parameters
    ----------
    images : sequence of uint8 (H, W, 3) or (H, W)
        Frames of one stack; from dark to bright when `neighbours` is used.
    neighbours : int
        Only frames with at least this many frames on each side are candidates (3 leaves room for
        EV -3 ... +3); 0 makes every frame one.

    Returns
    -------
    int
        Index into `images`.

    Raises
    ------
    ReplicationError
        If no frame is a candidate, or a frame is not an 8-bit image.

    Source: Section 4.4, "Middle exposure".
    """
    candidates = range(max(neighbours, 0), len(images) - max(neighbours, 0))
    if not candidates:
        raise ReplicationError(
            f"{len(images)} frames have no middle exposure with {neighbours} frames on each side."
        )
    return max(candidates, key=lambda index: histogram_entropy(images[index]))
