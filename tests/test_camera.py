"""The virtual camera of Eq. 2 against analytic truths."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from replication.data.camera import RESPONSES, VirtualCamera, perspective_view
from replication.data.exposure import middle_exposure
from tests.test_stacks import fails

CURVES = [("srgb", ()), ("gamma", (2.2,)), ("gamma", (1,)), ("sigmoid", ()), ("sigmoid", (1.1, 0.4))]
LINEAR = VirtualCamera("gamma", (1.0,), full_well=1000, dark_current=0, reset_noise=0, read_noise=0)


def flat(value, size=400):
    return np.full((size, size, 3), value, np.float32)


@pytest.fixture(scope="module")
def scene():
    """Radiance over nine stops with colour, fixed."""
    return (2.0 ** np.random.default_rng(1).uniform(-8, 1, (48, 64, 3))).astype(np.float32)


@pytest.fixture(scope="module")
def panorama():
    """Random coarse panorama, so that wrapping and both axes matter."""
    return np.random.default_rng(2).random((64, 128, 3), dtype=np.float32)


@pytest.mark.parametrize(("name", "parameters"), CURVES)
def test_responses_are_normalised_rising_and_invertible(name, parameters):
    camera = VirtualCamera(name, parameters)
    x = np.linspace(0, 1, 1001)
    z = camera.respond(x)
    assert z[0] == 0
    assert z[-1] == pytest.approx(1, abs=1e-12)
    assert (np.diff(z) > 0).all()
    np.testing.assert_allclose(camera.invert(z), x, atol=1e-7)


@pytest.mark.parametrize("light", [0.02, 0.5])
def test_photon_noise_is_poisson(light):
    electrons = LINEAR.voltage(flat(light), seed=3).astype(float) * LINEAR.full_well
    for power, rel in ((2, 1e-2), (3, 0.25)):  # all cumulants equal the mean
        moment = ((electrons - electrons.mean()) ** power).mean()
        assert moment == pytest.approx(light * LINEAR.full_well, rel=rel)


def test_saturated_and_black_pixels():
    assert (LINEAR.photograph(flat(1e30, 2)) == 255).all()
    assert np.ptp(LINEAR.voltage(flat(3.0, 50))) == 0  # no photon noise beyond the full well
    # 1 dark electron and noise of 7 electrons rms: 5 sigma are 36 of 30000 electrons.
    assert VirtualCamera().photograph(flat(0, 50)).max() <= np.ceil(255 * 12.92 * 36 / 30000)


def test_a_stack_is_reproducible_and_its_frames_are_independent(scene):
    camera = VirtualCamera()
    seven = camera.stack(scene, seed=7)
    assert list(seven) == [-3, -2, -1, 0, 1, 2, 3]
    for ev, image in camera.stack(scene, (2, -1), seed=7).items():
        np.testing.assert_array_equal(image, seven[ev])
    assert (camera.stack(scene, (0,), seed=8)[0] != seven[0]).any()
    silent = replace(camera, noise=False).stack(scene)
    assert all((silent[ev + 1] >= silent[ev]).all() for ev in range(-3, 3))


@pytest.mark.parametrize("name", list(RESPONSES))
def test_the_meter_finds_the_most_even_histogram(scene, name):
    camera = VirtualCamera(name)
    time, silent = camera.meter(scene), replace(camera, noise=False)
    times = time * 2.0 ** np.arange(-3, 3.01, 0.25)
    assert middle_exposure([silent.photograph(scene[::2, ::2], t) for t in times]) == 12
    assert middle_exposure(list(camera.stack(scene * np.float32(time)).values())) == 3
    camera = replace(camera, dark_current=0)
    assert camera.meter(scene * 64) == camera.meter(scene) / 64


def test_bad_settings_and_scenes():
    for settings, words in (
        ({"response": "log"}, "Camera response 'log' is not in .*'srgb'"),
        ({"full_well": 0}, "full_well must be finite, >= 0.01: 0"),
        ({"read_noise": -1}, "read_noise must be finite, >= 0: -1"),
        ({"dark_current": np.nan}, "dark_current must be finite"),
        ({"response": "gamma", "parameters": (0.0,)}, "parameters must be finite"),
        ({"parameters": (1.0, 2.0)}, r"srgb does not take \(1.0, 2.0\)"),
    ):
        fails(words, VirtualCamera, **settings)
    photograph = VirtualCamera().photograph
    fails(r"must have shape \(H, W, 3\)", photograph, np.zeros((4, 4), np.float32))
    fails("NaN or infinite", photograph, flat(np.nan, 2))
    fails("negative values", photograph, flat(-1, 2))
    fails("exposure time must be positive", photograph, flat(1, 2), 0)
    fails("black scene", VirtualCamera(dark_current=0).meter, flat(0, 4))


@pytest.mark.parametrize("azimuth", [0, 90, 180, 270, 33.3])
def test_a_perspective_view_equals_scipy(panorama, azimuth):
    # Rays through pixel centres, turned by the azimuth, looked up in the panorama.
    x, y = np.meshgrid(np.arange(48) - 23.5, np.arange(32) - 15.5)
    ray = np.stack([x, -y, np.full_like(x, 24)], -1)
    ray /= np.linalg.norm(ray, axis=-1, keepdims=True)
    a = np.radians(azimuth)
    turned_x = ray[..., 0] * np.cos(a) + ray[..., 2] * np.sin(a)
    turned_z = -ray[..., 0] * np.sin(a) + ray[..., 2] * np.cos(a)
    column = (np.arctan2(turned_x, turned_z) / (2 * np.pi) + 0.5) * 128 - 0.5
    row = (0.5 - np.arcsin(ray[..., 1]) / np.pi) * 64 - 0.5
    options = {"order": 1, "mode": "grid-wrap"}
    expected = [map_coordinates(panorama[..., c], [row, column], **options) for c in range(3)]
    view = perspective_view(panorama, azimuth, (48, 32))
    assert view.dtype == np.float32
    # positions are rounded to 1/256 pixel
    np.testing.assert_allclose(view, np.stack(expected, -1), atol=2 / 256)


def test_perspective_views_turn_fully_and_never_ring(panorama):
    views = [perspective_view(panorama, azimuth, (24, 16)) for azimuth in (0, 360)]
    np.testing.assert_array_equal(*views)
    lamp = np.zeros_like(panorama)
    lamp[30, 64] = 1e5
    view = perspective_view(lamp, 0, (384, 256))
    assert view.min() == 0
    assert 0 < view.max() <= 1e5
    fails(r"must be \(H, 2H, 3\)", perspective_view, panorama[:, :64], 0, (24, 16))
