"""Photographs and radiance maps from and to files, good and bad."""

import os
import struct
import sys
import zlib

import cv2
import numpy as np
import OpenEXR
import pytest
import tifffile
from PIL import Image

from replication.files import ReplicationError
from replication.hdr import io

ORIENTED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a),
}
"""EXIF orientation -> what has to be done to the stored pixels so that they are upright."""


def picture(dtype=np.uint8, shape=(31, 46, 3)):
    top = np.iinfo(dtype).max
    return np.random.default_rng(0).integers(0, top, shape, dtype=dtype, endpoint=True)


def radiance(shape=(31, 46, 3)):
    return np.exp(np.random.default_rng(1).normal(0, 3, shape)).astype(np.float32)


def to_8_bit(deep):
    return np.floor(deep / 257 + 0.5).astype(np.uint8)


# --- radiance maps ---------------------------------------------------------------------------


def test_exr_is_exact(tmp_path):
    hdr = radiance()
    hdr[0, 0] = [0, np.finfo(np.float32).max, np.finfo(np.float32).smallest_subnormal]
    io.write_hdr(tmp_path / "a.exr", hdr)
    back = io.read_hdr(tmp_path / "a.exr")
    assert back.dtype == np.float32
    assert back.tobytes() == hdr.tobytes()
    with OpenEXR.File(str(tmp_path / "a.exr")) as file:
        assert np.array_equal(file.channels()["RGB"].pixels, hdr)


def test_rgbe_is_off_by_less_than_a_step(tmp_path):
    hdr = radiance()
    hdr[0, 0], hdr[0, 1], hdr[0, 2] = 0, 1.7e38, 1e-30
    io.write_hdr(tmp_path / "a.HDR", hdr)
    back = io.read_hdr(tmp_path / "a.HDR")
    assert back.dtype == np.float32
    assert back.flags.c_contiguous
    assert (np.abs(back - hdr) <= hdr.max(axis=2, keepdims=True) / 128).all()
    assert (back[0, 0] == 0).all()


def test_rgbe_reads_a_hand_made_file(tmp_path):
    """Two pixels by the format's definition: (mantissa / 256) 2^(exponent - 128), R first."""
    header = b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\nEXPOSURE=2.0\n\n-Y 1 +X 2\n"
    (tmp_path / "a.hdr").write_bytes(header + bytes([128, 64, 32, 129, 255, 0, 1, 120]))
    truth = [[[1.0, 0.5, 0.25], [255 / 65536, 0, 1 / 65536]]]
    np.testing.assert_allclose(io.read_hdr(tmp_path / "a.hdr"), truth, rtol=1e-6)


@pytest.mark.parametrize("suffix", [".hdr", ".exr"])
@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 7, 3), (2, 300, 3)])
def test_small_and_long_maps_and_other_dtypes(tmp_path, suffix, shape):
    hdr = radiance(shape)
    for dtype in (np.float16, np.float32, np.float64):
        image = np.minimum(hdr, 6e4).astype(dtype)[:, ::-1]
        io.write_hdr(tmp_path / f"new/folder/a{suffix}", image)
        back = io.read_hdr(tmp_path / f"new/folder/a{suffix}")
        assert back.shape == shape
        assert (np.abs(back - image) <= image.max(axis=2, keepdims=True) / 128).all()


def test_exr_with_half_floats_alpha_and_grey(tmp_path):
    half = np.minimum(radiance(), 6e4).astype(np.float16)
    alpha = np.ones(half.shape[:2], np.float16)
    planes = {"R": half[..., 0], "G": half[..., 1], "B": half[..., 2], "A": alpha}
    planes = {name: np.ascontiguousarray(plane) for name, plane in planes.items()}
    OpenEXR.File({}, planes).write(str(tmp_path / "half.exr"))
    assert np.array_equal(io.read_hdr(tmp_path / "half.exr"), half.astype(np.float32))
    OpenEXR.File({}, {"Y": planes["G"]}).write(str(tmp_path / "grey.exr"))
    grey = io.read_hdr(tmp_path / "grey.exr")
    assert np.array_equal(grey, half[..., [1, 1, 1]].astype(np.float32))
    OpenEXR.File({}, {"Z": planes["G"]}).write(str(tmp_path / "depth.exr"))
    with pytest.raises(ReplicationError, match="channels Z"):
        io.read_hdr(tmp_path / "depth.exr")


@pytest.mark.parametrize("suffix", [".hdr", ".exr"])
@pytest.mark.parametrize("share", [0.001, 0.02, 0.5, 0.99])
def test_incomplete_radiance_maps_are_refused(tmp_path, capsys, suffix, share):
    path = tmp_path / f"a{suffix}"
    io.write_hdr(path, radiance((60, 80, 3)))
    data = path.read_bytes()
    path.write_bytes(data[: max(1, int(len(data) * share))])
    with pytest.raises(ReplicationError, match="incomplete"):
        io.read_hdr(path)
    assert capsys.readouterr().out == ""


# --- photographs -----------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp", "webp", "ppm"])
def test_lossless_rgb(tmp_path, suffix):
    rgb = picture()
    Image.fromarray(rgb).save(tmp_path / f"a.{suffix}", lossless=True)
    back = io.read_image(tmp_path / f"a.{suffix}")
    assert back.dtype == np.uint8
    assert back.flags.c_contiguous
    assert np.array_equal(back, rgb)


def test_jpeg_is_rgb(tmp_path):
    rgb = np.zeros((32, 32, 3), np.uint8)
    rgb[:] = [200, 100, 20]
    Image.fromarray(rgb).save(tmp_path / "a.jpg", quality=95)
    assert np.abs(io.read_image(tmp_path / "a.jpg").astype(int) - rgb).max() <= 3


def test_grey_alpha_palette_and_cmyk(tmp_path):
    rgb = picture()
    grey = rgb[..., 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    assert np.array_equal(io.read_image(tmp_path / "grey.png"), rgb[..., [0, 0, 0]])
    Image.fromarray(grey > 99).save(tmp_path / "bits.png")
    bits = np.where(grey > 99, 255, 0)[..., None].repeat(3, axis=2)
    assert np.array_equal(io.read_image(tmp_path / "bits.png"), bits)

    alpha = np.dstack([rgb, grey // 2])
    Image.fromarray(alpha).save(tmp_path / "alpha.png")
    assert np.array_equal(io.read_image(tmp_path / "alpha.png"), rgb), "dropped, not blended"
    Image.fromarray(alpha[..., 2:]).save(tmp_path / "grey_alpha.png")
    assert np.array_equal(io.read_image(tmp_path / "grey_alpha.png"), rgb[..., [2, 2, 2]])

    palette = Image.fromarray(rgb).quantize(16)
    palette.save(tmp_path / "palette.png", transparency=3)
    assert np.array_equal(io.read_image(tmp_path / "palette.png"), palette.convert("RGB"))

    cmyk = np.zeros((8, 8, 4), np.uint8)
    cmyk[..., 0] = 255
    Image.fromarray(cmyk, "CMYK").save(tmp_path / "cmyk.tif")
    assert np.array_equal(io.read_image(tmp_path / "cmyk.tif")[0, 0], [0, 255, 255])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
def test_orientation_of_8_bits(tmp_path, suffix, orientation):
    rgb = picture()
    image = Image.fromarray(rgb)
    exif = image.getexif()
    exif[274] = orientation
    image.save(tmp_path / f"a.{suffix}", exif=exif, lossless=True)
    assert np.array_equal(io.read_image(tmp_path / f"a.{suffix}"), ORIENTED[orientation](rgb))


def test_orientation_of_jpeg(tmp_path):
    rgb = np.zeros((32, 64, 3), np.uint8)
    rgb[:, 32:] = 255
    image = Image.fromarray(rgb)
    exif = image.getexif()
    exif[274] = 6
    image.save(tmp_path / "a.jpg", exif=exif)
    back = io.read_image(tmp_path / "a.jpg")
    assert back.shape == (64, 32, 3)
    assert back[:30].max() < 10
    assert back[34:].min() > 245


def test_16_bit_png(tmp_path):
    deep = picture(np.uint16)
    deep[0, :8] = np.array([0, 128, 129, 385, 386, 65406, 65407, 65535])[:, None]
    cv2.imwrite(str(tmp_path / "rgb.png"), deep[..., ::-1])
    assert np.array_equal(io.read_image(tmp_path / "rgb.png"), to_8_bit(deep))
    cv2.imwrite(str(tmp_path / "grey.png"), deep[..., 0])
    assert np.array_equal(io.read_image(tmp_path / "grey.png"), to_8_bit(deep[..., [0, 0, 0]]))
    cv2.imwrite(str(tmp_path / "alpha.png"), np.dstack([deep[..., ::-1], deep[..., 0]]))
    assert np.array_equal(io.read_image(tmp_path / "alpha.png"), to_8_bit(deep))


def test_16_bit_png_with_orientation(tmp_path):
    deep = picture(np.uint16)
    data = cv2.imencode(".png", deep[..., ::-1])[1].tobytes()
    exif = b"eXIfII*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    chunk = struct.pack(">I", len(exif) - 4) + exif + struct.pack(">I", zlib.crc32(exif))
    (tmp_path / "a.png").write_bytes(data[:33] + chunk + data[33:])
    assert np.array_equal(io.read_image(tmp_path / "a.png"), ORIENTED[6](to_8_bit(deep)))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_16_bit_tiff(tmp_path, planar, orientation):
    deep = picture(np.uint16)
    stored = deep if planar == "contig" else np.ascontiguousarray(deep.transpose(2, 0, 1))
    tifffile.imwrite(
        tmp_path / "a.tif",
        stored,
        photometric="rgb",
        planarconfig=planar,
        compression="zlib" if orientation % 2 else None,
        extratags=[(274, "H", 1, orientation, True)],
    )
    truth = ORIENTED[orientation](to_8_bit(deep))
    assert np.array_equal(io.read_image(tmp_path / "a.tif"), truth)


def test_16_bit_tiff_grey_alpha_inverted_and_lzw(tmp_path):
    deep = picture(np.uint16)
    grey = np.ascontiguousarray(deep[..., 0])
    tifffile.imwrite(tmp_path / "grey.tif", grey, photometric="minisblack")
    assert np.array_equal(io.read_image(tmp_path / "grey.tif"), to_8_bit(deep[..., [0, 0, 0]]))
    tifffile.imwrite(tmp_path / "inverted.tif", grey, photometric="miniswhite")
    inverted = to_8_bit(65535 - deep[..., [0, 0, 0]])
    assert np.array_equal(io.read_image(tmp_path / "inverted.tif"), inverted)
    alpha = np.dstack([deep, grey])
    tifffile.imwrite(tmp_path / "alpha.tif", alpha, photometric="rgb", extrasamples=["unassalpha"])
    assert np.array_equal(io.read_image(tmp_path / "alpha.tif"), to_8_bit(deep))
    cv2.imwrite(str(tmp_path / "lzw.tif"), deep[..., ::-1], [cv2.IMWRITE_TIFF_COMPRESSION, 5])
    assert np.array_equal(io.read_image(tmp_path / "lzw.tif"), to_8_bit(deep))


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.bmp", "deep.png", "deep.tif"])
@pytest.mark.parametrize("share", [0.001, 0.3, 0.9])
def test_incomplete_photographs_are_refused(tmp_path, capfd, name, share):
    path = tmp_path / name
    if name.startswith("deep"):
        cv2.imwrite(str(path), picture(np.uint16))
    else:
        Image.fromarray(picture()).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: max(1, int(len(data) * share))])
    with pytest.raises(ReplicationError, match="incomplete"):
        io.read_image(path)
    assert capfd.readouterr() == ("", "")


def test_float_tiff_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "grey.tif", radiance()[..., 0])
    with pytest.raises(ReplicationError, match="8 or 16 bits"):
        io.read_image(tmp_path / "grey.tif")


# --- pictures --------------------------------------------------------------------------------


def test_png_of_levels_and_of_floats(tmp_path):
    rgb = picture()
    io.write_png(tmp_path / "new/a.png", rgb)
    assert np.array_equal(Image.open(tmp_path / "new/a.png"), rgb)
    io.write_png(tmp_path / "new/a.png", np.float32(rgb / 255))
    assert np.array_equal(io.read_image(tmp_path / "new/a.png"), rgb)
    io.write_png(tmp_path / "half.png", np.full((1, 1, 3), 0.3))
    assert io.read_image(tmp_path / "half.png")[0, 0, 0] == 76  # 76.5 rounds to even


# --- bad input -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("read", "suffix"), [(io.read_image, ".jpg"), (io.read_hdr, ".hdr"), (io.read_hdr, ".exr")]
)
def test_files_that_are_no_images(tmp_path, read, suffix):
    missing, folder, empty, text = (tmp_path / f"{name}{suffix}" for name in "mfet")
    folder.mkdir()
    empty.touch()
    text.write_text("not an image\n" * 20)
    for path, words in (
        (missing, "no file"),
        (folder, "directory"),
        (empty, "empty"),
        (text, "is not an? "),
    ):
        with pytest.raises(ReplicationError, match=words) as error:
            read(path)
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)


def test_huge_photograph_is_refused(tmp_path, monkeypatch):
    io.write_png(tmp_path / "a.png", picture())
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ReplicationError, match="more pixels"):
        io.read_image(tmp_path / "a.png")


def test_picture_named_hdr_is_refused(tmp_path):
    io.write_png(tmp_path / "a.png", picture())
    (tmp_path / "a.png").rename(tmp_path / "a.hdr")
    with pytest.raises(ReplicationError, match="not a Radiance"):
        io.read_hdr(tmp_path / "a.hdr")


ONES = np.ones((4, 5, 3), np.float32)


@pytest.mark.parametrize(
    ("name", "image", "words"),
    [
        ("a.tif", ONES, "tif"),
        ("a", ONES, "a .hdr or .exr"),
        ("a.exr", ONES[..., 0], "shape"),
        ("a.exr", ONES[:0], "shape"),
        ("a.exr", ONES[..., [0, 0, 0, 0]], "shape"),
        ("a.exr", picture(), "floating point"),
        ("a.exr", ONES * np.nan, "NaN"),
        ("a.hdr", ONES * np.inf, "infinite"),
        ("a.hdr", -ONES, "negative"),
        ("a.exr", ONES.astype(float) * 1e39, "infinite"),
        ("a.hdr", ONES * 2e38, "too bright"),
    ],
)
def test_bad_radiance_maps_leave_no_file(tmp_path, name, image, words):
    with pytest.raises(ReplicationError, match=words) as error:
        io.write_hdr(tmp_path / name, image)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "image", "words"),
    [
        ("a.jpg", picture(), "jpg"),
        ("a.png", picture()[..., 0], "shape"),
        ("a.png", picture(np.uint16), "uint16"),
        ("a.png", ONES * 1.01, "0 and 1"),
        ("a.png", ONES * np.nan, "0 and 1"),
    ],
)
def test_bad_pictures_leave_no_file(tmp_path, name, image, words):
    with pytest.raises(ReplicationError, match=words):
        io.write_png(tmp_path / name, image)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a.hdr", "a.exr", "a.png"])
def test_unwritable_targets(tmp_path, name):
    write = io.write_png if name == "a.png" else io.write_hdr
    (tmp_path / "file").write_text("x")
    with pytest.raises(ReplicationError, match="Cannot write"):
        write(tmp_path / "file" / name, ONES)
    (tmp_path / name).mkdir()
    with pytest.raises(ReplicationError, match="Cannot write"):
        write(tmp_path / name, ONES)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["file", name])


def test_unwritable_folder_and_failing_encoder_keep_the_old_file(tmp_path, monkeypatch):
    target = tmp_path / "a.exr"
    io.write_hdr(target, ONES)
    old = target.read_bytes()

    class Failing:
        def __init__(self, *_):
            pass

        def write(self, path):
            with open(path, "wb") as stream:
                stream.write(b"half")
            raise RuntimeError("disk full")

    monkeypatch.setattr(OpenEXR, "File", Failing)
    with pytest.raises(ReplicationError, match="disk full"):
        io.write_hdr(target, 2 * ONES)
    assert target.read_bytes() == old
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.skipif(
    sys.platform == "win32" or getattr(os, "geteuid", lambda: 0)() == 0,
    reason="permissions do not bind this user",
)
def test_unreadable_photograph(tmp_path):
    path = tmp_path / "a.png"
    io.write_png(path, picture())
    path.chmod(0)
    with pytest.raises(ReplicationError, match="Permission denied"):
        io.read_image(path)
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o555)
    with pytest.raises(ReplicationError, match="Permission denied"):
        io.write_hdr(folder / "a.exr", ONES)
