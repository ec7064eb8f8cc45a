"""The virtual camera of Eq. 2 against analytic truths."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from replication.data.camera import RESPONSES, VirtualCamera, perspective_view
from replication.data.exposure import histogram_entropy, middle_exposure
from replication.files import ReplicationError

CURVES = [
    ("srgb", ()),
    ("gamma", (2.2,)),
    ("gamma", (1.0,)),
    ("sigmoid", ()),
    ("sigmoid", (1.1, 0.4)),
]
LINEAR = VirtualCamera("gamma", (1.0,), full_well=1000, dark_current=0, reset_noise=0, read_noise=0)


def flat(value, size=400):
    return np.full((size, size, 3), value, np.float32)


@pytest.fixture(scope="module")
def scene():
    """Radiance over nine stops with colour, fixed."""
    rng = np.random.default_rng(1)
    return (2.0 ** rng.uniform(-8, 1, (48, 64, 3))).astype(np.float32)


@pytest.fixture(scope="module")
def panorama():
    """Random coarse panorama, so that wrapping and both axes matter."""
    return np.random.default_rng(2).random((64, 128, 3), dtype=np.float32)


class TestResponses:
    @pytest.mark.parametrize(("name", "parameters"), CURVES)
    def test_normalised_rising_and_invertible(self, name, parameters):
        camera = VirtualCamera(name, parameters)
        x = np.linspace(0, 1, 1001)
        z = camera.respond(x)
        assert z[0] == 0
        assert z[-1] == pytest.approx(1, abs=1e-12)
        assert (np.diff(z) > 0).all()
        np.testing.assert_allclose(camera.invert(z), x, atol=1e-7)

    def test_known_values(self):
        assert RESPONSES["srgb"][0](np.array(0.5)) == pytest.approx(0.7353569830524495)
        assert RESPONSES["gamma"][0](np.array(0.25), 2.0) == pytest.approx(0.5)
        # (1 + 0.6) 0.5 / (0.5 + 0.6) at n = 1
        assert RESPONSES["sigmoid"][0](np.array(0.5), 1.0, 0.6) == pytest.approx(0.8 / 1.1)


class TestWithoutNoise:
    @pytest.mark.parametrize(("name", "parameters"), CURVES)
    def test_picture_is_the_rounded_response(self, scene, name, parameters):
        camera = VirtualCamera(name, parameters, noise=False, dark_current=0)
        picture = camera.photograph(scene, 0.5)
        assert picture.dtype == np.uint8
        expected = 255 * camera.respond(np.minimum(scene.astype(float) * 0.5, 1))
        assert np.abs(picture - expected).max() <= 0.5 + 1e-3

    def test_radiance_comes_back(self, scene):
        camera = VirtualCamera(noise=False, dark_current=0)
        picture = camera.photograph(scene, 0.5)
        known = (picture > 30) & (picture < 255)
        back = camera.invert(picture / 255) / 0.5
        np.testing.assert_allclose(back[known], scene[known], rtol=0.03)

    def test_time_and_radiance_are_reciprocal(self, scene):
        camera = VirtualCamera(noise=False, dark_current=0)
        np.testing.assert_array_equal(camera.photograph(scene, 2), camera.photograph(2 * scene))

    def test_saturation_at_full_well(self):
        camera = replace(LINEAR, noise=False)
        assert (camera.photograph(flat(1.0, 2)) == 255).all()
        assert (camera.photograph(flat(1e30, 2)) == 255).all()
        # Half the conversion gain: a full well is half of full scale, whatever the light.
        half = replace(camera, g_cv=0.5 / camera.full_well)
        assert (half.photograph(flat(50.0, 2)) == round(255 * 0.5)).all()
        # Twice the output gain: the converter clips at half a well.
        assert (replace(camera, g_out=2.0).photograph(flat(0.5, 2)) == 255).all()


class TestNoise:
    @pytest.mark.parametrize("light", [0.02, 0.5])
    def test_photon_noise_is_poisson(self, light):
        electrons = LINEAR.voltage(flat(light), seed=3).astype(float) * LINEAR.full_well
        mean = light * LINEAR.full_well
        assert electrons.mean() == pytest.approx(mean, rel=2e-3)
        assert electrons.var() == pytest.approx(mean, rel=1e-2)
        third = ((electrons - electrons.mean()) ** 3).mean()
        assert third == pytest.approx(mean, rel=0.25)  # Poisson: all cumulants equal the mean

    def test_every_term_of_eq_2_adds_its_variance(self):
        camera = VirtualCamera(
            "gamma", (1.0,), 5000.0, dark_current=40, reset_noise=8, read_noise=12, g_out=1.5
        )
        light, time, gain = 0.1, 2.0, 1 / 5000
        voltage = camera.voltage(flat(light), time, seed=5).astype(float)
        charge = light * time * 5000 + 40 * time
        assert voltage.mean() == pytest.approx(charge * gain * 1.5, rel=1e-3)
        variance = ((charge + 8**2) * 1.5**2 + 12**2) * gain**2
        assert voltage.var() == pytest.approx(variance, rel=1e-2)

    def test_quantisation_error_is_uniform(self):
        camera = replace(LINEAR, full_well=1e6)
        picture = camera.photograph(flat(0.4), seed=1).astype(float)
        # photon noise of 0.16 levels about 102.0: nearly all pixels round to the same level
        assert set(np.unique(picture)) <= {101.0, 102.0, 103.0}
        wide = replace(LINEAR, full_well=1000)
        picture = wide.photograph(flat(0.4), seed=1).astype(float)
        assert picture.var() == pytest.approx(400 * (255 / 1000) ** 2 + 1 / 12, rel=1e-2)

    def test_a_saturated_pixel_has_no_photon_noise(self):
        assert np.ptp(LINEAR.voltage(flat(3.0, 50))) == 0

    def test_black_shows_only_noise(self):
        # 1 dark electron and noise of 7 electrons rms: 5 sigma are 36 of 30000 electrons.
        dark = VirtualCamera().photograph(flat(0, 50))
        assert dark.max() <= np.ceil(255 * 12.92 * 36 / 30000)


class TestStack:
    def test_reproducible_and_independent_of_the_other_frames(self, scene):
        camera = VirtualCamera()
        seven = camera.stack(scene, seed=7)
        assert list(seven) == [-3, -2, -1, 0, 1, 2, 3]
        two = camera.stack(scene, (2, -1), seed=7)
        for ev, image in two.items():
            np.testing.assert_array_equal(image, seven[ev])
        other = camera.stack(scene, (0,), seed=8)
        assert (other[0] != seven[0]).any()

    def test_brighter_with_ev(self, scene):
        stack = VirtualCamera(noise=False).stack(scene, exposure_time=0.5)
        for ev in range(-3, 3):
            assert (stack[ev + 1] >= stack[ev]).all()

    def test_jpeg_is_lossy_but_close(self):
        ramp = np.broadcast_to(np.linspace(0, 1, 64, dtype=np.float32)[:, None, None], (64, 64, 3))
        camera = VirtualCamera(noise=False)
        lossy = replace(camera, jpeg_quality=90).photograph(ramp)
        difference = lossy.astype(int) - camera.photograph(ramp)
        assert 0 < np.abs(difference).max() < 12


class TestMeter:
    @pytest.mark.parametrize("name", list(RESPONSES))
    def test_finds_the_most_even_histogram(self, scene, name):
        camera = VirtualCamera(name)
        time = camera.meter(scene)
        silent = replace(camera, noise=False)

        def evenness(stops):
            return histogram_entropy(silent.photograph(scene[::2, ::2], time * 2.0**stops))

        assert evenness(0) == max(evenness(stops) for stops in np.arange(-3, 3.01, 0.25))
        frames = list(camera.stack(scene, exposure_time=time).values())
        assert middle_exposure(frames) == 3

    def test_follows_the_light(self, scene):
        camera = VirtualCamera(dark_current=0)
        assert camera.meter(scene * 64) == camera.meter(scene) / 64

    def test_black_scene(self):
        with pytest.raises(ReplicationError, match="black scene"):
            VirtualCamera().meter(flat(0, 4))


class TestBadInput:
    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ({"response": "log"}, "Unknown camera response 'log'"),
            ({"full_well": 0}, "full_well must be positive"),
            ({"g_out": np.nan}, "g_out must be positive"),
            ({"read_noise": -1}, "read_noise must not be negative"),
            ({"response": "gamma", "parameters": (0.0,)}, "parameter of gamma must be positive"),
            ({"parameters": (1.0, 2.0)}, "srgb does not take 2 parameters"),
            ({"jpeg_quality": 0}, "JPEG quality is 1 to 100"),
        ],
    )
    def test_settings(self, settings, words):
        with pytest.raises(ReplicationError, match=words):
            VirtualCamera(**settings)

    @pytest.mark.parametrize(
        ("radiance", "time", "words"),
        [
            (np.zeros((4, 4), np.float32), 1, r"must be \(H, W, 3\)"),
            (flat(np.nan, 2), 1, "finite and not negative"),
            (flat(-1, 2), 1, "finite and not negative"),
            (flat(1, 2), 0, "exposure time must be positive"),
        ],
    )
    def test_scene(self, radiance, time, words):
        with pytest.raises(ReplicationError, match=words):
            VirtualCamera().photograph(radiance, time)


class TestPerspectiveView:
    @pytest.mark.parametrize("azimuth", [0, 90, 180, 270, 33.3])
    def test_against_scipy(self, panorama, azimuth):
        # Rays through pixel centres, turned by the azimuth, looked up in the panorama.
        width, height, field = 48, 32, 90
        focal = width / 2 / np.tan(np.radians(field / 2))
        x, y = np.meshgrid(np.arange(width) - 23.5, np.arange(height) - 15.5)
        ray = np.stack([x, -y, np.full_like(x, focal)], -1)
        ray /= np.linalg.norm(ray, axis=-1, keepdims=True)
        a = np.radians(azimuth)
        turned_x = ray[..., 0] * np.cos(a) + ray[..., 2] * np.sin(a)
        turned_z = -ray[..., 0] * np.sin(a) + ray[..., 2] * np.cos(a)
        longitude, latitude = np.arctan2(turned_x, turned_z), np.arcsin(ray[..., 1])
        column = (longitude / (2 * np.pi) + 0.5) * 128 - 0.5
        row = (0.5 - latitude / np.pi) * 64 - 0.5
        expected = np.stack(
            [
                map_coordinates(panorama[..., c], [row, column], order=1, mode="grid-wrap")
                for c in range(3)
            ],
            -1,
        )
        view = perspective_view(panorama, azimuth, width, height, field)
        assert view.shape == (32, 48, 3)
        assert view.dtype == np.float32
        np.testing.assert_allclose(view, expected, atol=2 / 256)  # places are rounded to 1/256

    def test_full_turn_and_constant(self, panorama):
        np.testing.assert_array_equal(
            perspective_view(panorama, 0, 24, 16), perspective_view(panorama, 360, 24, 16)
        )
        constant = perspective_view(np.full((8, 16, 3), 0.7, np.float32), 45)
        np.testing.assert_allclose(constant, 0.7, rtol=1e-6)

    def test_never_rings(self, panorama):
        lamp = np.zeros_like(panorama)
        lamp[30, 64] = 1e5
        view = perspective_view(lamp, 0)
        assert view.min() == 0
        assert 0 < view.max() <= 1e5

    def test_bad_panorama(self):
        with pytest.raises(ReplicationError, match="twice as wide as high"):
            perspective_view(np.zeros((4, 4, 3), np.float32), 0)
        with pytest.raises(ReplicationError, match="field of view"):
            perspective_view(np.zeros((4, 8, 3), np.float32), 0, field_of_view=180)
