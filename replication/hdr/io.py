"""Read photographs, read and write radiance maps, write pictures.

Radiance maps are Radiance ``.hdr`` (shared exponent, 8 bits a channel: up to 0.8 % off) and OpenEXR
``.exr`` (float32, exact). Metrics are always computed from float arrays, never from ``.hdr`` files.
What becomes of alpha, 16 bits, EXIF and colour profiles: DEVIATIONS D21. All libraries get bytes, not
names, so a file may have any name that the system allows.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import threading
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
from replication.images import check_picture, check_radiance, to_uint8

_EIGHT_BIT_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"}
_SIXTEEN_BIT_MODES = {"I;16", "I;16B", "L", "LA", "RGB", "RGBA", "RGBX"}
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_ORIENTATION_TAG = 274
_KINDS = {"i": "signed {}-bit integers", "u": "unsigned {}-bit integers", "f": "{}-bit floats"}
_SILENCE = threading.Lock()
logging.getLogger("tifffile").disabled = True  # what it reports, we raise


def read_hdr(path: str | Path) -> np.ndarray:
    """Read a radiance map from a ``.hdr`` or ``.exr`` file: float32 (H, W, 3), linear RGB.

    EXR needs channels R, G and B, or only Y (grey), of half or single precision at full resolution.
    Other channels are ignored; of several parts the first is read. NaN, infinite and negative values
    are returned as stored. The ``EXPOSURE`` line of a ``.hdr`` header is ignored. Any other or incomplete
    file is a ReplicationError.
    """
    path = Path(path)
    decode = _decode_exr if _radiance_suffix(path) == ".exr" else _decode_rgbe
    with _silent():
        return decode(path, _read_bytes(path))


def _decode_rgbe(path: Path, data: bytes) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None or image.dtype != np.float32 or image.ndim != 3:
        raise ReplicationError(f"{path} is not a Radiance .hdr file, or is incomplete.")
    return np.ascontiguousarray(image[..., ::-1])


def _decode_exr(path: Path, data: bytes) -> np.ndarray:
    try:
        with OpenEXR.File(io.BytesIO(data), separate_channels=True) as file:
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
    """Write a radiance map as ``.hdr`` or ``.exr`` (ZIP compression), chosen by the suffix.

    `image` is float (H, W, 3), linear RGB, finite, not negative; below 2^127 for ``.hdr``, where a
    channel is off by up to 1/128 of the largest channel of its pixel, and pixels darker than 1e-32
    become 0. The folder is made if it is missing; a file is replaced, or stays on a ReplicationError.
    """
    path = Path(path)
    suffix, image = _radiance_suffix(path), check_radiance(image)
    if suffix == ".hdr" and image.max() >= 2.0**127:
        raise ReplicationError(f"The radiance map is too bright for {path}: use .exr instead.")
    _write(path, image)


def write_png(path: str | Path, image: np.ndarray) -> None:
    """Write a picture, uint8 or float in [0, 1], (H, W, 3), display-encoded, as 8-bit RGB PNG.

    Floats are stored as ``round(255 x)``. Files, folders and errors as in `write_hdr`.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ReplicationError(f"A picture is written as .png, not as {path}.")
    image = check_picture(image, "The picture")
    _write(path, image if image.dtype == np.uint8 else to_uint8(image))


def _write(path: Path, image: np.ndarray) -> None:
    """Encode RGB in memory, then write the bytes, whole or not at all."""
    stream = io.BytesIO()
    try:
        with _silent():
            if path.suffix.lower() == ".exr":
                header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
                OpenEXR.File(header, {"RGB": np.ascontiguousarray(image)}).write(stream)
            else:
                stream.write(cv2.imencode(path.suffix.lower(), image[..., ::-1].copy())[1])
        if not stream.tell():
            raise RuntimeError("the image cannot be encoded")
    except (RuntimeError, cv2.error) as error:
        raise ReplicationError(f"Cannot write {path}: {' '.join(str(error).split())}.") from error
    with atomic_path(path) as temporary:
        temporary.write_bytes(stream.getbuffer())


def read_image(path: str | Path) -> np.ndarray:
    """Read a photograph of 8 or 16 bits, of any kind that Pillow reads: uint8 (H, W, 3), RGB, upright.

    The EXIF orientation is applied. Alpha is dropped, not blended. 16 bits become ``round(v / 257)``.
    CMYK is converted without a profile, no ICC profile is applied, and only the first frame is read.
    Other pixels, more than Pillow's limit (about 179 million) and damage are a ReplicationError.
    """
    path = Path(path)
    data = _read_bytes(path)
    try:
        with warnings.catch_warnings(action="ignore"):
            return _decode(data)
    except ReplicationError as error:
        raise ReplicationError(f"Cannot read {path}: {error}") from error
    except Image.DecompressionBombError as error:
        raise ReplicationError(f"{path} has more pixels than Pillow's limit allows.") from error
    except MemoryError:
        raise
    except Exception as error:  # decoders raise many kinds on damaged files
        raise ReplicationError(f"{path} is not an image, or is damaged or incomplete.") from error


def _decode(data: bytes) -> np.ndarray:
    """Decode an image file; Pillow checks that it is whole, others read more than 8 bits."""
    deep = data.startswith(b"\x89PNG") and data[24:25] == b"\x10"
    if data.startswith(_TIFF_STARTS):
        with tifffile.TiffFile(io.BytesIO(data)) as tiff:
            dtype, deep = tiff.pages[0].dtype, tiff.pages[0].bitspersample == 16
        if dtype is not None and dtype not in (np.bool_, np.uint8, np.uint16):
            kind = _KINDS.get(dtype.kind, "of another kind").format(8 * dtype.itemsize)
            raise ReplicationError(f"its pixels are {kind} ({dtype}), not unsigned 8 or 16 bits.")
    with Image.open(io.BytesIO(data)) as image:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
        image.load()
        if deep and image.mode in _SIXTEEN_BIT_MODES:
            rgb = _decode_16_bit_tiff(data) if image.format == "TIFF" else _decode_16_bits(data)
            image = Image.fromarray(((rgb.astype(np.uint32) + 128) // 257).astype(np.uint8))
            image.getexif()[_ORIENTATION_TAG] = orientation
        elif image.mode not in _EIGHT_BIT_MODES:
            raise ReplicationError(f"its pixels are of the kind {image.mode}, not 8 or 16 bits.")
        return np.array(ImageOps.exif_transpose(image).convert("RGB"))


def _decode_16_bits(data: bytes) -> np.ndarray:
    flags = cv2.IMREAD_ANYDEPTH | cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    with _silent():
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)[..., ::-1]


def _decode_16_bit_tiff(data: bytes) -> np.ndarray:
    """16-bit TIFF to uint16 RGB (H, W, 3), without alpha, in the orientation that it is stored in."""
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        page = tiff.pages[0]
        planar = page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and page.samplesperpixel > 1
        inverted = page.photometric == tifffile.PHOTOMETRIC.MINISWHITE
        try:
            image = page.asarray()
        except ValueError as error:  # an unknown compression; OpenCV reads it from plain files only
            if not (planar or inverted or page.tags.valueof(_ORIENTATION_TAG, 1) != 1):
                return _decode_16_bits(data)
            name = page.compression.name
            raise ReplicationError(f"its layout is not known with {name} compression.") from error
    image = np.atleast_3d(np.moveaxis(image, 0, -1) if planar else image)
    image = image[..., [0, 1, 2] if image.shape[2] >= 3 else [0, 0, 0]]
    return 65535 - image if inverted else image


def _radiance_suffix(path: Path) -> str:
    if path.suffix.lower() not in (".hdr", ".exr"):
        raise ReplicationError(f"A radiance map is a .hdr or .exr file, not {path}.")
    return path.suffix.lower()


def _read_bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ReplicationError(f"There is no file {path}.") from None
    except OSError as error:
        raise ReplicationError(f"Cannot read {path}: {error.strerror or error}.") from error
    if not data:
        raise ReplicationError(f"{path} is empty.")
    return data


@contextmanager
def _silent() -> Iterator[None]:
    """Keep C libraries from printing about damaged files; the caller raises one sentence instead."""
    streams = ((1, sys.__stdout__), (2, sys.__stderr__))
    with _SILENCE, redirect_stdout(io.StringIO()), open(os.devnull, "w") as null:
        saved = {fd: os.dup(fd) for fd, stream in streams if stream}  # None: closed from the start
        try:
            for fd in saved:
                os.dup2(null.fileno(), fd)
            yield
        finally:
            for fd, copy in saved.items():
                os.dup2(copy, fd)
                os.close(copy)
