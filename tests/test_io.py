"""Photographs and radiance maps from and to files, good and bad."""

import os
import re
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import OpenEXR
import pytest
import tifffile
from PIL import Image

from replication.files import ReplicationError
from replication.hdr import io
from tests.test_stacks import fails

NOT_UTF_8 = os.fsdecode(b"caf\xe9")
ONES = np.ones((4, 5, 3), np.float32)


def picture(dtype=np.uint8):
    top = np.iinfo(dtype).max
    return np.random.default_rng(0).integers(0, top, (31, 46, 3), dtype=dtype, endpoint=True)


def radiance(shape=(31, 46, 3)):
    return np.exp(np.random.default_rng(1).normal(0, 3, shape)).astype(np.float32)


def to_8_bit(deep):
    return np.floor(deep / 257 + 0.5).astype(np.uint8)


def orientation_tag(orientation):
    exif = Image.Exif()
    exif[274] = orientation
    return exif


def upright(stored, orientation):
    """By the definition of EXIF: where row 0 and column 0 of the stored pixels are shown."""
    image = stored.transpose(1, 0, 2) if orientation > 4 else stored
    image = image[::-1] if orientation in (3, 4, 7, 8) else image
    return image[:, ::-1] if orientation in (2, 3, 6, 7) else image


def test_exr_is_exact_and_rgbe_off_by_less_than_a_step(tmp_path):
    hdr = radiance()
    hdr[0, 0] = [0, 1.7e38, np.finfo(np.float32).smallest_subnormal]
    hdr[0, 1], hdr[0, 2] = 0, 1e-30
    for name, error in (("a.exr", 0), ("a.HDR", hdr.max(axis=2, keepdims=True) / 128)):
        io.write_hdr(tmp_path / name, hdr)
        back = io.read_hdr(tmp_path / name)
        assert back.flags.c_contiguous
        assert (np.abs(back - hdr) <= error).all()


def test_rgbe_reads_a_hand_made_file(tmp_path):
    """Two pixels by the format's definition: (mantissa / 256) 2^(exponent - 128), R first."""
    header = b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\nEXPOSURE=2.0\n\n-Y 1 +X 2\n"
    (tmp_path / "a.hdr").write_bytes(header + bytes([128, 64, 32, 129, 255, 0, 1, 120]))
    truth = [[[1.0, 0.5, 0.25], [255 / 65536, 0, 1 / 65536]]]
    np.testing.assert_allclose(io.read_hdr(tmp_path / "a.hdr"), truth, rtol=1e-6)


@pytest.mark.parametrize("suffix", [".hdr", ".exr"])
def test_sizes_types_and_names(tmp_path, suffix):
    path = tmp_path / NOT_UTF_8 / f"{NOT_UTF_8}{suffix}"
    for dtype, shape in ((np.float16, (1, 1, 3)), (np.float64, (2, 300, 3))):
        image = np.minimum(radiance(shape), 6e4).astype(dtype)[:, ::-1]
        io.write_hdr(path, image)
        error = np.abs(io.read_hdr(path) - image)
        assert (error <= image.max(axis=2, keepdims=True) / 128).all()


def test_exr_with_half_floats_alpha_and_grey(tmp_path):
    half = np.minimum(radiance(), 6e4).astype(np.float16)
    planes = [np.ascontiguousarray(half[..., c]) for c in range(3)]
    channels = dict(zip("RGBA", [*planes, np.ones_like(planes[0])], strict=True))
    OpenEXR.File({}, channels).write(str(tmp_path / "half.exr"))
    assert np.array_equal(io.read_hdr(tmp_path / "half.exr"), half.astype(np.float32))
    OpenEXR.File({}, {"Y": planes[1]}).write(str(tmp_path / "grey.exr"))
    assert np.array_equal(io.read_hdr(tmp_path / "grey.exr"), half[..., [1, 1, 1]])
    OpenEXR.File({}, {"Z": planes[1]}).write(str(tmp_path / "depth.exr"))
    fails("channels Z", io.read_hdr, tmp_path / "depth.exr")


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.bmp", "a.webp", "a.ppm", f"{NOT_UTF_8}.png"])
def test_lossless_rgb(tmp_path, name):
    rgb = picture()
    Image.fromarray(rgb).save(tmp_path / name, lossless=True)
    back = io.read_image(tmp_path / name)
    assert back.flags.c_contiguous
    assert np.array_equal(back, rgb)


def test_jpeg_is_rgb_and_upright(tmp_path):
    rgb = np.full((32, 64, 3), [200, 100, 20], np.uint8)
    rgb[:, 32:] = 255
    path = tmp_path / f"{NOT_UTF_8}.jpg"
    Image.fromarray(rgb).save(path, exif=orientation_tag(6), quality=95)
    error = np.abs(io.read_image(path).astype(int) - upright(rgb, 6))
    assert max(error[:30].max(), error[34:].max()) <= 3


def test_grey_alpha_palette_and_cmyk(tmp_path):
    rgb = picture()
    grey, path = rgb[..., 0], tmp_path / "a.png"
    alpha, palette = np.dstack([rgb, grey // 2]), Image.fromarray(rgb).quantize(16)
    for image, truth in (
        (grey, rgb[..., [0, 0, 0]]),
        (grey > 99, np.where(grey > 99, 255, 0)[..., None].repeat(3, axis=2)),
        (alpha, rgb),  # dropped, not blended
        (alpha[..., 2:], rgb[..., [2, 2, 2]]),
    ):
        Image.fromarray(image).save(path)
        assert np.array_equal(io.read_image(path), truth)
    palette.save(path, transparency=3)
    assert np.array_equal(io.read_image(path), palette.convert("RGB"))
    Image.new("CMYK", (8, 8), (255, 0, 0, 0)).save(tmp_path / "cmyk.tif")
    assert np.array_equal(io.read_image(tmp_path / "cmyk.tif")[0, 0], [0, 255, 255])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(tmp_path, orientation):
    rgb, deep = picture(), picture(np.uint16)
    exif = orientation_tag(orientation)
    for suffix in ("png", "webp", "tif"):
        Image.fromarray(rgb).save(tmp_path / f"a.{suffix}", exif=exif, lossless=True)
        assert np.array_equal(io.read_image(tmp_path / f"a.{suffix}"), upright(rgb, orientation))

    truth = upright(to_8_bit(deep), orientation)
    for planar, stored in (("contig", deep), ("separate", np.moveaxis(deep, 2, 0).copy())):
        compression = "zlib" if orientation % 2 else None
        tags = [(274, "H", 1, orientation, True)]
        options = {"planarconfig": planar, "compression": compression, "extratags": tags}
        tifffile.imwrite(tmp_path / "deep.tif", stored, photometric="rgb", **options)
        assert np.array_equal(io.read_image(tmp_path / "deep.tif"), truth)
    data = cv2.imencode(".png", deep[..., ::-1])[1].tobytes()
    chunk = b"eXIfII*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0%c\0\0\0\0\0\0\0" % orientation
    chunk = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "deep.png").write_bytes(data[:33] + chunk + data[33:])
    assert np.array_equal(io.read_image(tmp_path / "deep.png"), truth)


def test_16_bit_grey_alpha_inverted_and_lzw(tmp_path):
    deep = picture(np.uint16)
    deep[0, :8] = np.array([0, 128, 129, 385, 386, 65406, 65407, 65535])[:, None]
    bgr, grey = deep[..., ::-1], np.ascontiguousarray(deep[..., 0])
    for name, image in (("rgb", bgr), ("grey", grey), ("alpha", np.dstack([bgr, grey]))):
        cv2.imwrite(str(tmp_path / f"{name}.png"), image)
    tifffile.imwrite(tmp_path / "grey.tif", grey, photometric="minisblack")
    tifffile.imwrite(tmp_path / "inverted.tif", grey, photometric="miniswhite")
    alpha = {"photometric": "rgb", "extrasamples": ["unassalpha"]}
    tifffile.imwrite(tmp_path / "alpha.tif", np.dstack([deep, grey]), **alpha)
    cv2.imwrite(str(tmp_path / "lzw.tif"), bgr, [cv2.IMWRITE_TIFF_COMPRESSION, 5])
    for path in sorted(tmp_path.iterdir()):
        kept = deep[..., [0, 0, 0]] if path.stem in ("grey", "inverted") else deep
        truth = to_8_bit(65535 - kept if path.stem == "inverted" else kept)
        assert np.array_equal(io.read_image(path), truth), path.name


@pytest.mark.parametrize("words", ["signed 16-bit integers (int16)", "32-bit floats (float32)"])
def test_tiff_of_other_numbers_is_refused(tmp_path, words):
    for kind, shape in (("minisblack", (9, 8)), ("rgb", (9, 8, 3))):
        image = np.zeros(shape, words.split("(")[1][:-1])
        tifffile.imwrite(tmp_path / "a.tif", image, photometric=kind)
        sentence = f"its pixels are {re.escape(words)}, not unsigned 8 or 16"
        fails(sentence, io.read_image, tmp_path / "a.tif")


def test_png_of_levels_and_of_floats(tmp_path, monkeypatch):
    rgb, path = picture(), tmp_path / NOT_UTF_8 / f"{NOT_UTF_8}.png"
    io.write_png(path, rgb)
    assert np.array_equal(Image.open(path), rgb)
    with monkeypatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
        fails("more pixels", io.read_image, path)
    io.write_png(path, np.float32(rgb / 255))
    assert np.array_equal(io.read_image(path), rgb)
    io.write_png(path, np.full((1, 1, 3), 0.3))
    assert io.read_image(path)[0, 0, 0] == 76  # 76.5 rounds to even


@pytest.mark.parametrize("suffix", ["hdr", "exr", "jpg", "png", "webp", "bmp", "16.png", "16.tif"])
@pytest.mark.parametrize("share", [0.001, 0.3, 0.99])
def test_incomplete_files_are_refused_without_a_word(tmp_path, capfd, suffix, share):
    path, read = tmp_path / f"a.{suffix}", io.read_image
    if suffix in ("hdr", "exr"):
        read = io.read_hdr
        io.write_hdr(path, radiance((60, 80, 3)))
    elif suffix.startswith("16"):
        cv2.imwrite(str(path), picture(np.uint16))
    else:
        Image.fromarray(picture()).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: max(1, int(len(data) * share))])
    fails("incomplete", read, path)
    assert capfd.readouterr() == ("", "")


def test_threads_leave_the_streams_alone(tmp_path, capfd):
    io.write_hdr(tmp_path / "a.exr", ONES)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(io.read_hdr, [tmp_path / "a.exr"] * 40))
    print("out")
    assert capfd.readouterr() == ("out\n", "")


@pytest.mark.parametrize("suffix", [".jpg", ".hdr", ".exr"])
def test_files_that_are_no_images(tmp_path, suffix):
    read = io.read_image if suffix == ".jpg" else io.read_hdr
    paths = [tmp_path / f"{name}{suffix}" for name in "mfet"]
    paths[1].mkdir()
    paths[2].touch()
    paths[3].write_text("not an image\n" * 20)
    for path, words in zip(paths, ("no file", "directory", "empty", "is not an? "), strict=True):
        with pytest.raises(ReplicationError, match=words) as error:
            read(path)
        assert str(path) in str(error.value)


def test_bad_images_and_unwritable_targets_leave_no_file(tmp_path):
    fails("tif", io.write_hdr, tmp_path / "a.tif", ONES)
    fails("too bright", io.write_hdr, tmp_path / "a.hdr", ONES * 2e38)
    fails("jpg", io.write_png, tmp_path / "a.jpg", picture())
    fails("0 and 1", io.write_png, tmp_path / "a.png", ONES * 1.01)
    assert not list(tmp_path.iterdir())
    (tmp_path / "a.png" / "file").mkdir(parents=True)
    (tmp_path / "file").write_text("x")
    fails("Cannot write", io.write_png, tmp_path / "a.png", ONES)
    fails("Cannot write", io.write_hdr, tmp_path / "file" / "a.exr", ONES)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_failing_encoder_keeps_the_old_file(tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("no\n memory")

    for name, module, attribute in (("a.exr", OpenEXR, "File"), ("a.hdr", cv2, "imencode")):
        io.write_hdr(tmp_path / name, ONES)
        old = (tmp_path / name).read_bytes()
        monkeypatch.setattr(module, attribute, fail)
        fails(f"Cannot write .*{name}: no memory", io.write_hdr, tmp_path / name, 2 * ONES)
        assert (tmp_path / name).read_bytes() == old
    assert len(list(tmp_path.iterdir())) == 2
