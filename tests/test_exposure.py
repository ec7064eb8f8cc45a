"""Eq. 1, EXIF and the middle exposure."""

import numpy as np
import pytest
from PIL import Image
from skimage.measure import shannon_entropy

from replication.data.exposure import exif_exposure, histogram_entropy, middle_exposure, relative_ev
from tests.test_stacks import fails


def test_arrays_and_bad_settings():
    apertures, times = np.array([4, 4, 8]), np.array([1, 0.5, 1])
    np.testing.assert_array_equal(relative_ev(apertures, times, 100), [-4, -5, -6])
    fails("The F-number must be a positive number", relative_ev, 0, 1, 100)
    fails("The exposure time must be a positive number", relative_ev, 4, -1, 100)
    fails("The exposure time must be a positive number", relative_ev, 4, np.inf, 100)
    fails("The ISO speed must be a positive number", relative_ev, 4, 1, np.nan)


def save_photo(path, settings):
    """A JPEG with EXIF; `settings` maps tags of the Exif IFD to values."""
    exif = Image.Exif()
    exif.get_ifd(0x8769).update(settings)
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(path, exif=exif)
    return path


def test_exif(tmp_path):
    for tags, settings in (
        ({0x829A: 1 / 125, 0x829D: 5.6, 0x8827: 200}, (5.6, 1 / 125, 200)),
        # APEX: F = 2^(4/2) = 4, S = 2^-6 s
        ({0x9201: 6.0, 0x9202: 4.0, 0x8833: 800}, (4, 1 / 64, 800)),
        ({0x829D: 0, 0x9202: 4.0, 0x829A: 0.5, 0x8832: 50}, (4, 0.5, 50)),
    ):
        assert exif_exposure(save_photo(tmp_path / "a.jpg", tags)) == pytest.approx(settings)
    photo = save_photo(tmp_path / "a.jpg", {0x829A: 1 / 125, 0x829D: 0})
    fails(r"a\.jpg have no F-number and no ISO speed\.", exif_exposure, photo)
    photo.write_text("no picture")
    fails(r"Cannot read the photo .*a\.jpg: cannot identify", exif_exposure, photo)
    fails("No such file", exif_exposure, tmp_path / "b.jpg")


def test_entropy_equals_scikit_image():
    image = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
    grey = np.floor(image @ np.array([0.299, 0.587, 0.114]) + 0.5 + 1e-9).astype(np.uint8)
    even = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for picture, levels in ((image, grey), (even, even), (even[:1, :1], even[:1, :1])):
        assert histogram_entropy(picture) == pytest.approx(shannon_entropy(levels, base=2))


def test_the_even_frame_of_a_bracket():
    # A scene with evenly distributed grey levels at EV 0, too dark and too bright elsewhere.
    ramp = np.tile(np.linspace(0, 1, 256), (8, 1))
    frames = [np.rint(255 * np.clip(ramp * 2.0**ev, 0, 1)).astype(np.uint8) for ev in range(-3, 4)]
    assert middle_exposure(frames) == middle_exposure(frames, neighbours=3) == 3
    assert middle_exposure(frames[2:]) == 1
    assert middle_exposure(frames[2:], neighbours=2) == 2


def test_no_middle_exposure():
    frames = [np.zeros((2, 2), np.uint8)] * 6
    fails("6 frames have no middle one with 3 on each", middle_exposure, frames, neighbours=3)
    fails("0 frames", middle_exposure, [])
    fails("8-bit grey or RGB image, not float64", middle_exposure, [np.zeros((2, 2))])
