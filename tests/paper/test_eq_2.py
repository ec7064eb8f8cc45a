"""Eq. 2: Z = f([g_cv (C + D) + N_reset] g_out + N_out) + Q."""

import numpy as np
import pytest

from replication.data.camera import VirtualCamera

RESPONSES = {
    "gamma": lambda x: x ** (1 / 2.2),
    "srgb": lambda x: np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055),
    "sigmoid": lambda x: 1.6 * x**0.9 / (x**0.9 + 0.6),
}


@pytest.mark.parametrize("name", RESPONSES)
def test_a_pixel_without_noise_is_the_level_nearest_to_f_of_the_clipped_charge(name):
    camera = VirtualCamera(name, full_well=20_000, dark_current=50, noise=False)
    radiance = np.linspace(0, 1.5, 4800, dtype=np.float32).reshape(40, 40, 3)
    charge = (20_000 * radiance.astype(float) + 50) * 2  # exposure time 2
    exact = 255 * RESPONSES[name](np.clip(charge / 20_000, 0, 1))
    assert np.abs(camera.photograph(radiance, 2) - exact).max() < 0.5 + 1e-4


@pytest.mark.parametrize("noises", [(0, 0, 0), (300, 0, 0), (0, 25, 0), (0, 0, 25), (50, 10, 15)])
def test_variances_of_the_noises_add_up(noises):
    dark, reset, read = noises
    camera = VirtualCamera("gamma", (1.0,), 1000, *noises)  # a linear f, full well 1000 electrons
    picture = camera.photograph(np.full((400, 400, 3), 0.4, np.float32), seed=1)
    variance = 400 + dark + reset**2 + read**2  # Poisson: that of C and of D is their mean
    assert picture.mean() == pytest.approx(0.255 * (400 + dark), abs=0.05)
    assert picture.var() == pytest.approx(0.255**2 * variance + 1 / 12, rel=0.01)  # 1/12: Q
