"""Eq. 1, EXIF and the middle exposure."""

import numpy as np
import pytest
from PIL import Image
from skimage.measure import shannon_entropy

from replication.data.exposure import (
    exif_exposure,
    exposure_value,
    histogram_entropy,
    middle_exposure,
    relative_ev,
)
from replication.files import ReplicationError


def save_photo(path, settings, image=None):
    """A JPEG with EXIF; `settings` maps tags of the Exif IFD to values."""
    exif = Image.Exif()
    exif.get_ifd(0x8769).update(settings)
    image = np.zeros((4, 6, 3), np.uint8) if image is None else image
    Image.fromarray(image).save(path, exif=exif)
    return path


class TestExposureValue:
    def test_eq_1_by_hand(self):
        # F/4, 1/64 s, ISO 400: 2*2 - (-6) + 2
        assert exposure_value(4, 1 / 64, 400) == 12
        assert exposure_value(1, 1, 100) == 0

    def test_signs_as_printed(self):
        base = exposure_value(4, 1 / 60, 200)
        assert exposure_value(4, 1 / 30, 200) == pytest.approx(base - 1)
        assert exposure_value(8, 1 / 60, 200) == pytest.approx(base + 2)
        assert exposure_value(4, 1 / 60, 400) == pytest.approx(base + 1)

    def test_arrays(self):
        values = exposure_value(4, np.array([1.0, 0.5, 0.25]), 100)
        np.testing.assert_array_equal(values, [4, 5, 6])

    def test_relative_ev_rises_with_light(self):
        base = relative_ev(4, 1 / 60, 200)
        assert relative_ev(4, 1 / 30, 200) == pytest.approx(base + 1)
        assert relative_ev(4, 1 / 60, 400) == pytest.approx(base + 1)
        assert relative_ev(8, 1 / 60, 200) == pytest.approx(base - 2)
        assert relative_ev(1, 1, 100) == 0

    @pytest.mark.parametrize(
        ("settings", "name"),
        [
            ((0, 1, 100), "F-number"),
            ((4, -1, 100), "exposure time"),
            ((4, 1, np.nan), "ISO"),
            ((4, np.inf, 100), "exposure time"),
        ],
    )
    @pytest.mark.parametrize("function", [exposure_value, relative_ev])
    def test_bad_settings(self, function, settings, name):
        with pytest.raises(ReplicationError, match=f"The {name} must be a positive number"):
            function(*settings)


class TestExif:
    def test_plain_tags(self, tmp_path):
        photo = save_photo(tmp_path / "a.jpg", {0x829A: 1 / 125, 0x829D: 5.6, 0x8827: 200})
        f_number, exposure_time, iso = exif_exposure(photo)
        assert f_number == pytest.approx(5.6)
        assert exposure_time == pytest.approx(1 / 125)
        assert iso == 200

    def test_apex_twins_and_other_iso(self, tmp_path):
        # APEX: F = 2^(4/2) = 4, S = 2^-6 s
        photo = save_photo(tmp_path / "a.jpg", {0x9201: 6.0, 0x9202: 4.0, 0x8833: 800})
        assert exif_exposure(photo) == pytest.approx((4, 1 / 64, 800))

    def test_missing_setting_is_named(self, tmp_path):
        photo = save_photo(tmp_path / "a.jpg", {0x829A: 1 / 125, 0x829D: 0})
        with pytest.raises(ReplicationError, match=r"a\.jpg have no F-number and no ISO speed\."):
            exif_exposure(photo)

    def test_unreadable(self, tmp_path):
        (tmp_path / "a.jpg").write_text("no picture")
        with pytest.raises(ReplicationError, match="not an image of a known format"):
            exif_exposure(tmp_path / "a.jpg")
        with pytest.raises(ReplicationError, match="No such file"):
            exif_exposure(tmp_path / "b.jpg")


class TestMiddleExposure:
    def test_entropy_limits(self):
        assert histogram_entropy(np.full((5, 7), 9, np.uint8)) == 0
        even = np.arange(256, dtype=np.uint8).reshape(16, 16)
        assert histogram_entropy(even) == pytest.approx(8)
        assert histogram_entropy(np.stack([even] * 3, axis=-1)) == pytest.approx(8)

    def test_entropy_equals_scikit_image(self):
        image = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
        grey = np.floor(image @ np.array([0.299, 0.587, 0.114]) + 0.5 + 1e-9).astype(np.uint8)
        assert histogram_entropy(image) == pytest.approx(shannon_entropy(grey, base=2))

    def test_the_even_frame_of_a_bracket(self):
        # A scene with evenly distributed grey levels at EV 0, too dark and too bright elsewhere.
        ramp = np.tile(np.linspace(0, 1, 256), (8, 1))
        frames = [
            np.rint(255 * np.clip(ramp * 2.0**ev, 0, 1)).astype(np.uint8) for ev in range(-3, 4)
        ]
        assert middle_exposure(frames) == 3
        assert middle_exposure(frames[2:]) == 1
        assert middle_exposure(frames[2:], neighbours=2) == 2
        assert middle_exposure(frames, neighbours=3) == 3

    def test_too_few_frames(self):
        frames = [np.zeros((2, 2), np.uint8)] * 6
        with pytest.raises(ReplicationError, match="6 frames have no middle exposure with 3"):
            middle_exposure(frames, neighbours=3)
        with pytest.raises(ReplicationError, match="0 frames"):
            middle_exposure([])

    def test_float_pictures_are_refused(self):
        with pytest.raises(ReplicationError, match="8-bit grey or RGB image, not float64"):
            middle_exposure([np.zeros((2, 2))])
