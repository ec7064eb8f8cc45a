"""A virtual camera after Eq. 2, with our values (DEVIATIONS D12) and our metering of EV 0 (D13)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from replication.data.exposure import histogram_entropy
from replication.files import ReplicationError
from replication.images import check_radiance

RESPONSES = {
    "gamma": (lambda x, gamma=2.2: x ** (1 / gamma), lambda z, gamma=2.2: z**gamma),
    "sigmoid": (
        lambda x, n=0.9, sigma=0.6: (1 + sigma) * x**n / (x**n + sigma),
        lambda z, n=0.9, sigma=0.6: (sigma * z / (1 + sigma - z)) ** (1 / n),
    ),
    "srgb": (
        lambda x: np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055),
        lambda z: np.where(z <= 12.92 * 0.0031308, z / 12.92, ((z + 0.055) / 1.055) ** 2.4),
    ),
}
"""Name -> camera response f, rising from f(0) = 0 to f(1) = 1, and its inverse. "sigmoid" is the curve of
Eilertsen et al. 2017 (doi 10.1145/3130800.3130816) with their means as defaults; "srgb" IEC 61966-2-1."""
Seed = int | Sequence[int] | np.random.Generator


@dataclass(frozen=True)
class VirtualCamera:
    """Camera of Eq. 2 (Section 2.1): Z = f([g_cv (C + D) + N_reset] g_out + N_out) + Q.

    C photo-electrons and D dark electrons (Poisson) fill a pixel up to `full_well`. N_reset and N_out
    are Gaussian. The voltage clips to [0, 1], and Q is the error of rounding to 8 bits. The gains are
    constants, g_cv = 1 / full_well and g_out = 1 (DEVIATIONS D12). Bad values: ReplicationError.

    Args:
        response: Camera response f, a key of `RESPONSES`.
        parameters: Parameters of f, such as (2.2,) for "gamma"; () for its defaults.
        full_well: Electrons that saturate a pixel, as radiance 1 does at exposure time 1.
        dark_current: Mean of D in electrons at exposure time 1; it grows with the time.
        reset_noise: Standard deviation of N_reset / g_cv in electrons.
        read_noise: Standard deviation of N_out / g_cv in electrons.
        noise: False gives the expected charge and no Gaussian noise; clipping and rounding stay.
    """

    response: str = "srgb"
    parameters: tuple[float, ...] = ()
    full_well: float = 30000.0
    dark_current: float = 1.0
    reset_noise: float = 3.0
    read_noise: float = 6.0
    noise: bool = True

    def __post_init__(self):
        if self.response not in RESPONSES:
            raise ReplicationError(f"Camera response {self.response!r} is not in {[*RESPONSES]}.")
        for name in ("full_well", "parameters", "dark_current", "reset_noise", "read_noise"):
            values = np.array(getattr(self, name))
            least = 0.01 if name in ("full_well", "parameters") else 0
            if not (np.isfinite(values) & (values >= least)).all():
                raise ReplicationError(f"The camera's {name} must be finite, >= {least}: {values}.")
        if len(self.parameters) > len(RESPONSES[self.response][0].__defaults__ or ()):
            raise ReplicationError(f"{self.response} does not take {self.parameters}.")

    def respond(self, x: np.ndarray) -> np.ndarray:
        """Apply f to exposures in [0, 1], where 1 saturates; values in [0, 1]."""
        return RESPONSES[self.response][0](x, *self.parameters)

    def invert(self, z: np.ndarray) -> np.ndarray:
        """Exposure in [0, 1] that f turns into z in [0, 1]."""
        return RESPONSES[self.response][1](z, *self.parameters)

    def photograph(self, radiance: np.ndarray, time: float = 1.0, seed: Seed = 0) -> np.ndarray:
        """Photograph a scene: Z of Eq. 2, uint8 (H, W, 3).

        Args:
            radiance: Linear RGB (H, W, 3), not negative; 1 just fills the well at exposure time 1.
            time: Relative exposure time, > 0. Any other radiance or time is a ReplicationError.
            seed: Seed of the noise or a numpy Generator; the same seed gives the same picture.
        """
        # float64, so that another machine's pow() practically never turns a rounding to 8 bits.
        exposure = np.clip(self.voltage(radiance, time, seed), 0, 1).astype(np.float64)
        return np.rint(255 * self.respond(exposure)).astype(np.uint8)

    def voltage(self, radiance: np.ndarray, time: float = 1.0, seed: Seed = 0) -> np.ndarray:
        """Voltage of Eq. 2 before it is clipped, float32 (H, W, 3); arguments of `photograph`."""
        radiance, time = check_radiance(radiance), float(time)
        if not 0 < time < np.inf:
            raise ReplicationError(f"The exposure time must be positive, not {time}.")
        g_cv, g_out, well, n_reset, n_out = 1 / self.full_well, 1.0, self.full_well, 0.0, 0.0
        # A mean of twice the full well overflows it for certain; more would only cost precision.
        c_and_d = np.minimum(radiance, 2 / time) * (well * time) + self.dark_current * time
        if self.noise:
            rng, sigmas = np.random.default_rng(seed), (self.reset_noise, self.read_noise)
            c_and_d = rng.poisson(c_and_d).astype(np.float32)  # a sum of Poisson numbers is Poisson
            gaussians = [rng.standard_normal(radiance.shape, np.float32) for _ in sigmas]
            n_reset, n_out = (g * (s * g_cv) for g, s in zip(gaussians, sigmas, strict=True))
        return (g_cv * np.minimum(c_and_d, well) + n_reset) * g_out + n_out

    def stack(
        self, radiance: np.ndarray, evs: Iterable[int] = range(-3, 4), seed: int = 0
    ) -> dict[int, np.ndarray]:
        """Photographs by EV, at exposure time 2^EV, each with a noise stream of its own."""
        return {ev: self.photograph(radiance, 2.0**ev, [seed, ev & 0xFFFFFFFF]) for ev in evs}

    def meter(self, radiance: np.ndarray) -> float:
        """Exposure time that gives the most even histogram, the middle exposure of Section 4.4.

        Searched in whole stops around the time that puts the median at half the full well, then in
        quarter stops, without noise, on every second pixel. ReplicationError if the scene is black.
        """
        camera, sample = replace(self, noise=False), check_radiance(radiance)[::2, ::2]
        if not (lit := sample[sample > 0]).size:
            raise ReplicationError("A black scene has no middle exposure.")

        def evenness(quarter: int) -> float:
            return histogram_entropy(camera.photograph(sample, 2.0 ** (quarter / 4)))

        middle = 4 * round(float(np.log2(0.5 / np.median(lit))))
        middle = max(range(middle - 32, middle + 33, 4), key=evenness)
        return 2.0 ** (max(range(middle - 3, middle + 4), key=evenness) / 4)


def perspective_view(panorama: np.ndarray, azimuth: float, size: tuple[int, int]) -> np.ndarray:
    """Cut a level view, 90 degrees wide, from an equirectangular panorama: float32 (height, width, 3).

    Interpolation is linear, since cubic would ring around lamps, at positions rounded to 1/256 pixel.

    Args:
        panorama: float32 (H, 2H, 3), else ReplicationError; the middle column is azimuth 0.
        azimuth: Direction of the view's centre in degrees to the right.
        size: Width and height of the view in pixels.
    """
    rows, (width, height) = len(panorama), size
    if panorama.shape != (rows, 2 * rows, 3):
        raise ReplicationError(f"A panorama must be (H, 2H, 3), not {panorama.shape}.")
    right = (np.arange(width) + 0.5 - width / 2) / (width / 2)
    down = ((np.arange(height) + 0.5 - height / 2) / (width / 2))[:, None]
    longitude = np.arctan2(right, 1.0)[None, :] + np.radians(azimuth)
    latitude = -np.arctan2(down, np.hypot(right, 1.0))
    x = np.rint(256 * ((longitude / (2 * np.pi) + 0.5) * 2 * rows - 0.5)).astype(int)
    y = np.rint(256 * ((0.5 - latitude / np.pi) * rows - 0.5)).astype(int).clip(0, 256 * (rows - 1))
    left, above = (x >> 8) % (2 * rows), y >> 8
    beside, below = (left + 1) % (2 * rows), np.minimum(above + 1, rows - 1)
    wx, wy = (((v & 255) / np.float32(256)).astype(np.float32)[..., None] for v in (x, y))
    upper = panorama[above, left] * (1 - wx) + panorama[above, beside] * wx
    lower = panorama[below, left] * (1 - wx) + panorama[below, beside] * wx
    return upper * (1 - wy) + lower * wy
