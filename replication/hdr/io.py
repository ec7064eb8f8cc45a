"""Photographs in, radiance maps in and out, pictures out.

Radiance maps are Radiance ``.hdr`` (shared exponent, 8 bits a channel: up to 0.8 % off) and OpenEXR
``.exr`` (float32, exact). Figures are always computed from float arrays, never from ``.hdr`` files.
What becomes of alpha, 16 bits, EXIF and colour profiles: DEVIATIONS D21.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import cv2
import numpy as np
import OpenEXR
import tifffile
from PIL import Image, ImageOps

from replication.files import ReplicationError, atomic_path
from replication.images import check_radiance

_RGBE_LIMIT = 2.0**127
_EIGHT_BIT_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"}
_SIXTEEN_BIT_MODES = {"I;16", "I;16B", "L", "LA", "RGB", "RGBA", "RGBX"}
_ORIENTATION_TAG = 274


def read_hdr(path: str | Path) -> np.ndarray:
    """Read a radiance map from a ``.hdr`` or ``.exr`` file.

    An EXR file needs channels R, G and B, or only Y (grey), of half or single precision, at full
    resolution; other channels are ignored, of several parts the first is read. EXR values are
    returned as they are stored, also NaN, infinite or negative ones. The ``EXPOSURE`` line of a
    Radiance header is ignored: radiance is relative.

    Parameters
    ----------
    path : path
        File with the suffix .hdr or .exr.

    Returns
    -------
    np.ndarray
        float32, shape (H, W, 3), linear RGB.

    Raises
    ------
    ReplicationError
        If the file is missing, a directory, empty, of another suffix, damaged, incomplete, or
        without RGB.
    """
    path = Path(path)
    _radiance_suffix(path)
    _check_file(path)
    return _read_exr(path) if path.suffix.lower() == ".exr" else _read_rgbe(path)


def _read_rgbe(path: Path) -> np.ndarray:
    with _quiet_opencv():
        image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None or image.dtype != np.float32 or image.ndim != 3:
        raise ReplicationError(f"{path} is not a Radiance .hdr file, or is incomplete.")
    return np.ascontiguousarray(image[..., ::-1])


def _read_exr(path: Path) -> np.ndarray:
    try:
        with (
            redirect_stdout(io.StringIO()),
            OpenEXR.File(str(path), separate_channels=True) as file,
        ):
            planes = {name: channel.pixels for name, channel in file.channels().items()}
    except (RuntimeError, ValueError) as error:
        raise ReplicationError(f"{path} is not an OpenEXR file, or is incomplete.") from error
    names = next((names for names in ("RGB", "YYY") if set(names) <= planes.keys()), None)
    if names is None or (names == "YYY" and {"RY", "BY"} & planes.keys()):
        raise ReplicationError(f"{path} has the channels {', '.join(planes)}, not R, G and B.")
    chosen = [planes[name] for name in names]
    if any(plane.dtype.kind != "f" or plane.shape != chosen[0].shape for plane in chosen):
        raise ReplicationError(f"{path} has channels that are not floating point of one size.")
    return np.stack([plane.astype(np.float32, copy=False) for plane in chosen], axis=2)


def write_hdr(path: str | Path, image: np.ndarray) -> None:
    """Write a radiance map as Radiance ``.hdr`` or OpenEXR ``.exr``, chosen by the suffix.

    EXR holds the float32 values exactly (ZIP compression). In a Radiance file a channel is off by
    up to 1/128 of the largest channel of its pixel, and pixels darker than 1e-32 become 0.

    Parameters
    ----------
    path : path
        Target; its directory is made if it is missing; an existing file is replaced.
    image : float array (H, W, 3)
        Linear RGB, finite, not negative; below 2^127 for .hdr.

    Raises
    ------
    ReplicationError
        If the suffix is unknown, the image is no radiance map, or the file cannot be written;
        nothing is left half-written.
    """
    path = Path(path)
    suffix = _radiance_suffix(path)
    image = check_radiance(image)
    if suffix == ".hdr":
        if image.max() >= _RGBE_LIMIT:
            raise ReplicationError(f"The radiance map is too bright for {path}: use .exr instead.")
        _write_encoded(path, suffix, image)
        return
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    with atomic_path(path) as temporary:
        temporary.touch()
        try:
            OpenEXR.File(header, {"RGB": np.ascontiguousarray(image)}).write(str(temporary))
        except RuntimeError as error:
            raise ReplicationError(f"Cannot write {path}: {error}") from error


def read_image(path: str | Path) -> np.ndarray:
    """Read a photograph as 8-bit RGB.

    Reads what Pillow reads (JPEG, PNG, TIFF, WebP, BMP, ...) in 8 or 16 bits, grey, palette, CMYK
    or RGB. The EXIF orientation is applied, alpha is dropped (the colours are kept as stored, not
    blended), 16 bits become ``round(v / 257)``, CMYK is converted without a profile, an ICC profile
    is not applied, and of several frames the first is read.

    Parameters
    ----------
    path : path
        An image file.

    Returns
    -------
    np.ndarray
        uint8, shape (H, W, 3), RGB as displayed (upright).

    Raises
    ------
    ReplicationError
        If the file is missing, a directory, empty, not an image, damaged or incomplete, its pixels
        are neither 8 nor 16 bits, or they are more than Pillow's limit (about 179 million).
    """
    path = Path(path)
    _check_file(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _decode(path.read_bytes())
    except ReplicationError as error:
        raise ReplicationError(f"Cannot read {path}: {error}") from error
    except Image.DecompressionBombError as error:
        raise ReplicationError(f"{path} has more pixels than Pillow's limit allows.") from error
    except Exception as error:  # decoders raise many kinds on damaged files
        raise ReplicationError(
            f"{path} is not an image that can be read, or is damaged or incomplete."
        ) from error


def _decode(data: bytes) -> np.ndarray:
    """Decode an image file; Pillow vouches that it is whole, others read more than 8 bits."""
    with Image.open(io.BytesIO(data)) as image:
        kind, mode = image.format, image.mode
        deep = (kind == "PNG" and data[24] == 16) or (
            kind == "TIFF" and max(image.tag_v2.get(258, (1,))) == 16
        )
        image.load()
        if not (deep and mode in _SIXTEEN_BIT_MODES):
            if mode not in _EIGHT_BIT_MODES:
                raise ReplicationError(f"its pixels are of the kind {mode}, not 8 or 16 bits.")
            return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    if kind == "PNG":
        deep_image = cv2.imdecode(
            np.frombuffer(data, np.uint8), cv2.IMREAD_ANYDEPTH | cv2.IMREAD_COLOR
        )[..., ::-1]
    else:
        deep_image = _decode_deep_tiff(data)
    return np.ascontiguousarray(((deep_image.astype(np.uint32) + 128) // 257).astype(np.uint8))


def _decode_deep_tiff(data: bytes) -> np.ndarray:
    """16-bit TIFF to uint16 RGB (H, W, 3), upright, without alpha.

    OpenCV misreads planar, rotated and white-is-zero files, so it serves only for the plain ones
    whose compression tifffile leaves to another package.
    """
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        page = tiff.pages[0]
        tag = page.tags.get(_ORIENTATION_TAG)
        orientation = int(tag.value) if tag else 1
        planar = page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and page.samplesperpixel > 1
        inverted = page.photometric == tifffile.PHOTOMETRIC.MINISWHITE
        try:
            image = page.asarray()
        except ValueError:
            if planar or inverted or orientation != 1:
                raise ReplicationError(
                    f"its compression {page.compression.name} is not supported for such a TIFF "
                    "of 16 bits; save it uncompressed."
                ) from None
            with _quiet_opencv():
                return cv2.imdecode(
                    np.frombuffer(data, np.uint8), cv2.IMREAD_ANYDEPTH | cv2.IMREAD_COLOR
                )[..., ::-1]
    if image.dtype != np.uint16:
        raise ReplicationError(f"its pixels are {image.dtype}, not 8 or 16 bits.")
    if planar:
        image = np.moveaxis(image, 0, -1)
    if image.ndim == 2:
        image = image[..., None]
    image = image[..., :3] if image.shape[2] >= 3 else np.repeat(image[..., :1], 3, axis=2)
    if inverted:
        image = 65535 - image
    if orientation in (5, 6, 7, 8):
        image = image.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return image


def write_png(path: str | Path, image: np.ndarray) -> None:
    """Write a picture as an 8-bit RGB PNG.

    Parameters
    ----------
    path : path
        Target with the suffix .png; its directory is made if it is missing; an existing file is
        replaced.
    image : uint8 array, or float array in [0, 1], shape (H, W, 3)
        RGB, display-encoded; floats are stored as ``round(255 x)``.

    Raises
    ------
    ReplicationError
        If the suffix, shape, dtype or range is wrong, or the file cannot be written; nothing is
        left half-written.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ReplicationError(f"A picture is written as .png, not as {path}.")
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ReplicationError(f"A picture must have shape (H, W, 3), not {image.shape}.")
    if np.issubdtype(image.dtype, np.floating):
        if not (image.min() >= 0 and image.max() <= 1):
            raise ReplicationError("A floating-point picture must be within 0 and 1.")
        image = np.rint(255 * image).astype(np.uint8)
    if image.dtype != np.uint8:
        raise ReplicationError(f"A picture must be uint8 or floating point, not {image.dtype}.")
    _write_encoded(path, ".png", image)


def _write_encoded(path: Path, suffix: str, image: np.ndarray) -> None:
    """Encode RGB with OpenCV in memory and write the bytes, whole or not at all."""
    with _quiet_opencv():
        done, encoded = cv2.imencode(suffix, np.ascontiguousarray(image[..., ::-1]))
    if not done:
        raise ReplicationError(f"Cannot write {path}: the image cannot be encoded.")
    with atomic_path(path) as temporary:
        temporary.write_bytes(encoded)


def _radiance_suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in (".hdr", ".exr"):
        raise ReplicationError(f"A radiance map is a .hdr or .exr file, not {path}.")
    return suffix


def _check_file(path: Path) -> None:
    try:
        if path.is_dir():
            raise ReplicationError(f"{path} is a directory, not an image file.")
        with path.open("rb") as stream:
            if not stream.read(1):
                raise ReplicationError(f"{path} is empty.")
    except FileNotFoundError:
        raise ReplicationError(f"There is no file {path}.") from None
    except OSError as error:
        raise ReplicationError(f"Cannot read {path}: {error.strerror or error}.") from error


@contextmanager
def _quiet_opencv() -> Iterator[None]:
    """Keep OpenCV from printing about damaged files; the caller raises instead."""
    log = cv2.utils.logging
    level = log.setLogLevel(log.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        log.setLogLevel(level)
