"""What a photo, a picture, frames and a radiance map are."""

import numpy as np
import pytest

from replication import images
from tests.test_stacks import fails

RGB = np.zeros((4, 5, 3), np.uint8)
HDR = np.ones((4, 5, 3))


def test_luminance_and_8_bits():
    rgb = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]], np.float32)
    assert images.luminance(rgb) == pytest.approx([0.2126, 0.7152, 0.0722, 1])
    levels = images.to_uint8(np.array([-1, 0.4 / 255, 0.6 / 255, 9]))
    assert levels.tolist() == [0, 0, 1, 255]


def test_good_images_pass_unchanged():
    assert images.check_photo(RGB[:, ::-1]).flags.c_contiguous
    assert images.check_picture(RGB) is RGB
    assert images.check_picture(HDR) is HDR
    assert [frame.shape for frame in images.check_frames(np.stack([RGB, RGB]))] == [(4, 5, 3)] * 2
    assert images.check_radiance(HDR).dtype == np.float32


def test_others_get_one_sentence():
    fails(r"must be an RGB array \(H, W, 3\), not \(4, 5\)", images.check_photo, RGB[..., 0])
    fails("uint8 in 0..255, not float64", images.check_photo, HDR)
    fails("uint8 or floating point, not int64", images.check_picture, RGB.astype(int))
    fails("within 0 and 1", images.check_picture, HDR * 200)
    fails("without NaN", images.check_picture, HDR * np.nan)
    fails("no image", images.check_frames, [])
    fails("Image 1 .* must be uint8 .* not float64", images.check_frames, [RGB, HDR])
    fails(r"Image 1 .* but image 0 has \(4, 5, 3\)", images.check_frames, [RGB, RGB[:2]])
    fails(r"\(H, W, 3\)", images.check_radiance, HDR[..., 0])
    fails("floating point, not uint8", images.check_radiance, RGB)
    fails("NaN or infinite", images.check_radiance, HDR * np.nan)
    fails("NaN or infinite", images.check_radiance, HDR * 1e39)
    fails("negative values, down to -1", images.check_radiance, -HDR)
