"""A virtual camera after Eq. 2: radiance in, 8-bit pictures with known noise and response out.

The paper gives Eq. 2 without values; those used here, and how EV 0 is metered, are DEVIATIONS D12, D13.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from io import BytesIO

import numpy as np
from PIL import Image

from replication.data.exposure import histogram_entropy
from replication.files import ReplicationError


def gamma_response(x: np.ndarray, gamma: float = 2.2) -> np.ndarray:
    """Power law f(x) = x^(1/gamma) on [0, 1]; gamma 1 is a linear camera."""
    return x ** (1 / gamma)


def gamma_inverse(z: np.ndarray, gamma: float = 2.2) -> np.ndarray:
    """Exposure x in [0, 1] at which `gamma_response` gives z."""
    return z**gamma


def sigmoid_response(x: np.ndarray, n: float = 0.9, sigma: float = 0.6) -> np.ndarray:
    """f(x) = (1 + sigma) x^n / (x^n + sigma) on [0, 1].

    The parametric camera curve of Eilertsen et al. 2017 (doi 10.1145/3130800.3130816), with its
    mean parameters as defaults, fitted there to the measured responses of Grossberg & Nayar.
    """
    power = x**n
    return (1 + sigma) * power / (power + sigma)


def sigmoid_inverse(z: np.ndarray, n: float = 0.9, sigma: float = 0.6) -> np.ndarray:
    """Exposure x in [0, 1] at which `sigmoid_response` gives z."""
    return (sigma * z / (1 + sigma - z)) ** (1 / n)


def srgb_response(x: np.ndarray) -> np.ndarray:
    """Encode by the sRGB transfer function (IEC 61966-2-1) on [0, 1]."""
    power = 1.055 * np.maximum(x, 0.0031308) ** (1 / 2.4) - 0.055
    return np.where(x <= 0.0031308, 12.92 * x, power)


def srgb_inverse(z: np.ndarray) -> np.ndarray:
    """Exposure x in [0, 1] at which `srgb_response` gives z."""
    return np.where(z <= 12.92 * 0.0031308, z / 12.92, ((z + 0.055) / 1.055) ** 2.4)


RESPONSES = {
    "gamma": (gamma_response, gamma_inverse),
    "sigmoid": (sigmoid_response, sigmoid_inverse),
    "srgb": (srgb_response, srgb_inverse),
}
"""Camera responses f with f(0) = 0, f(1) = 1, strictly rising, and their inverses, by name."""


@dataclass(frozen=True)
class VirtualCamera:
    """Camera of Eq. 2: Z = f([g_cv (C + D) + N_reset] g_out + N_out) + Q.

    A pixel collects C photo-electrons (Poisson: photon shot noise) and D dark electrons (Poisson:
    dark shot noise), at most `full_well`. Its charge becomes a voltage (g_cv), gets reset noise,
    is amplified (g_out) and gets read-out noise (both Gaussian). Voltage 1 is the converter's
    full scale; beyond [0, 1] it clips. The response f and rounding to 8 bits (the error Q) follow.

    Attributes
    ----------
    response : {"srgb", "gamma", "sigmoid"}
        Camera response f, see `RESPONSES`.
    parameters : tuple of float
        Parameters of f, such as (2.2,) for "gamma" or (0.9, 0.6) for "sigmoid"; () for defaults.
    full_well : float
        Electrons at which a pixel saturates. Radiance 1 at exposure time 1 gives this many.
    dark_current : float
        Mean of D in electrons at exposure time 1; it grows with the time.
    reset_noise, read_noise : float
        Standard deviations of N_reset / g_cv and N_out / g_cv in electrons.
    g_cv : float, optional
        Conversion gain in full scales per electron (default 1 / full_well).
    g_out : float
        Output gain (an ISO setting relative to the base ISO).
    noise : bool
        False gives the expected charge and no Gaussian noise; clipping and rounding stay.
    jpeg_quality : int, optional
        Compress and decode the picture as JPEG of this quality (1 ... 100, 4:2:0 chroma).

    Raises
    ------
    ReplicationError
        If the response is unknown or a parameter is out of range.

    Source: Section 2.1, Eq. 2 (noise model of its reference [3]). The paper gives no values; the
    defaults are of the order of a DSLR of its time.
    """

    response: str = "srgb"
    parameters: tuple[float, ...] = ()
    full_well: float = 30000.0
    dark_current: float = 1.0
    reset_noise: float = 3.0
    read_noise: float = 6.0
    g_cv: float | None = None
    g_out: float = 1.0
    noise: bool = True
    jpeg_quality: int | None = None

    def __post_init__(self):
        if self.response not in RESPONSES:
            raise ReplicationError(
                f"Unknown camera response {self.response!r}; there are {', '.join(RESPONSES)}."
            )
        positive = {"full_well": self.full_well, "g_out": self.g_out}
        if self.g_cv is not None:
            positive["g_cv"] = self.g_cv
        positive |= {f"parameter of {self.response}": value for value in self.parameters}
        for name, value in positive.items():
            if not (np.isfinite(value) and value > 0):
                raise ReplicationError(f"The camera's {name} must be positive, not {value}.")
        for name in ("dark_current", "reset_noise", "read_noise"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value >= 0):
                raise ReplicationError(f"The camera's {name} must not be negative: {value}.")
        if self.jpeg_quality is not None and not 1 <= self.jpeg_quality <= 100:
            raise ReplicationError(f"JPEG quality is 1 to 100, not {self.jpeg_quality}.")
        try:
            self.respond(np.array([0.5]))
        except TypeError as error:
            raise ReplicationError(
                f"The camera response {self.response} does not take {len(self.parameters)} "
                "parameters."
            ) from error

    @property
    def gain(self) -> float:
        """g_cv in full scales per electron."""
        return 1 / self.full_well if self.g_cv is None else self.g_cv

    def respond(self, x: np.ndarray) -> np.ndarray:
        """Apply the camera response f to exposures in [0, 1] (1 saturates); values in [0, 1]."""
        return RESPONSES[self.response][0](x, *self.parameters)

    def invert(self, z: np.ndarray) -> np.ndarray:
        """Exposure in [0, 1] that the response turns into z, for z in [0, 1]."""
        return RESPONSES[self.response][1](z, *self.parameters)

    def photograph(
        self,
        radiance: np.ndarray,
        exposure_time: float = 1.0,
        seed: int | np.random.Generator = 0,
    ) -> np.ndarray:
        """Photograph a scene.

        Parameters
        ----------
        radiance : float32 (H, W, 3)
            Linear RGB, not negative; 1 just fills the well at exposure time 1.
        exposure_time : float
            Relative exposure time, > 0.
        seed : int or numpy Generator
            Source of the noise; the same seed gives the same picture.

        Returns
        -------
        uint8 (H, W, 3)
            RGB.

        Raises
        ------
        ReplicationError
            If the radiance has another shape, NaN, infinite or negative values, or the exposure
            time is not positive.
        """
        voltage = self.voltage(radiance, exposure_time, seed)
        # float64, so that another machine's pow() practically never turns a rounding to 8 bits.
        exposure = np.clip(voltage, 0, 1).astype(np.float64)
        levels = np.rint(255 * self.respond(exposure)).astype(np.uint8)
        if self.jpeg_quality is None:
            return levels
        with BytesIO() as file:
            Image.fromarray(levels).save(file, "JPEG", quality=self.jpeg_quality, subsampling=2)
            return np.array(Image.open(file))

    def voltage(
        self,
        radiance: np.ndarray,
        exposure_time: float = 1.0,
        seed: int | np.random.Generator = 0,
    ) -> np.ndarray:
        """Voltage [g_cv (C + D) + N_reset] g_out + N_out before the converter clips it at [0, 1].

        Parameters and errors as in `photograph`.

        Returns
        -------
        float32 (H, W, 3)
            In full scales.
        """
        radiance = np.asarray(radiance, np.float32)
        if radiance.ndim != 3 or radiance.shape[2] != 3:
            raise ReplicationError(f"Radiance must be (H, W, 3), not {radiance.shape}.")
        if not (np.isfinite(radiance) & (radiance >= 0)).all():
            raise ReplicationError("Radiance must be finite and not negative.")
        if not (np.isfinite(exposure_time) and exposure_time > 0):
            raise ReplicationError(f"The exposure time must be positive, not {exposure_time}.")
        # A mean of twice the full well overflows it for certain; more would only cost precision.
        scale = np.float32(self.full_well * exposure_time)
        electrons = np.minimum(radiance, np.float32(2 / exposure_time)) * scale
        electrons += np.float32(self.dark_current * exposure_time)
        if self.noise:
            rng = np.random.default_rng(seed)
            # C + D: the sum of two independent Poisson numbers is Poisson with the summed mean.
            electrons = rng.poisson(electrons).astype(np.float32)
        signal = np.minimum(electrons, np.float32(self.full_well)) * np.float32(self.gain)
        if not self.noise:
            return signal * np.float32(self.g_out)
        reset, read = (
            rng.standard_normal(signal.shape, dtype=np.float32) * np.float32(sigma * self.gain)
            for sigma in (self.reset_noise, self.read_noise)
        )
        return (signal + reset) * np.float32(self.g_out) + read

    def stack(
        self,
        radiance: np.ndarray,
        evs: Iterable[int] = (-3, -2, -1, 0, 1, 2, 3),
        seed: int = 0,
        exposure_time: float = 1.0,
    ) -> dict[int, np.ndarray]:
        """Photograph a scene at several exposures, 2^EV times `exposure_time` each.

        Each EV has its own noise stream (of `seed` and the EV), so that a frame does not depend
        on which others are taken.

        Parameters
        ----------
        radiance : float32 (H, W, 3)
        evs : iterable of int
        seed : int
        exposure_time : float
            Relative exposure time of EV 0, such as from `meter`.

        Returns
        -------
        dict of int to uint8 (H, W, 3)
            RGB pictures by EV.

        Raises
        ------
        ReplicationError
            As `photograph`.
        """
        return {
            ev: self.photograph(
                radiance,
                exposure_time * 2.0**ev,
                np.random.Generator(np.random.PCG64([seed, ev & 0xFFFFFFFF])),
            )
            for ev in evs
        }

    def meter(self, radiance: np.ndarray) -> float:
        """Exposure time of the middle exposure: the picture with the most even histogram.

        Searched on the grid 2^(k/4), k whole: first in whole stops within 8 of the exposure that
        puts the median at half the full well, then in quarter stops around the best. The trial
        pictures have no noise and every second row and column.

        Parameters
        ----------
        radiance : float32 (H, W, 3)
            Linear RGB, finite and not negative.

        Returns
        -------
        float
            Relative exposure time.

        Raises
        ------
        ReplicationError
            As `photograph`, or if the scene is black.

        Source: Section 4.4, "Middle exposure", for a continuous choice of exposures.
        """
        camera = replace(self, noise=False, jpeg_quality=None)
        radiance = np.asarray(radiance, np.float32)
        sample = radiance[::2, ::2] if radiance.ndim == 3 else radiance
        lit = sample[sample > 0]
        if not lit.size:
            raise ReplicationError("A black scene has no middle exposure.")

        def evenness(quarter: int) -> float:
            return histogram_entropy(camera.photograph(sample, 2.0 ** (quarter / 4)))

        centre = 4 * round(float(np.log2(0.5 / np.median(lit))))
        best = max(range(centre - 32, centre + 33, 4), key=evenness)
        return 2.0 ** (max(range(best - 3, best + 4), key=evenness) / 4)


def perspective_view(
    panorama: np.ndarray,
    azimuth: float,
    width: int = 384,
    height: int = 256,
    field_of_view: float = 90.0,
) -> np.ndarray:
    """Cut a level perspective view from an equirectangular panorama, with linear interpolation.

    Linear, since cubic interpolation rings (to negative radiance) around lamps and the sun.
    Places are rounded to 1/256 pixel, so that the result is the same on every machine.

    Parameters
    ----------
    panorama : float32 (H, 2 H, 3)
        Covers 360 x 180 degrees; row 0 is the zenith, the middle column azimuth 0.
    azimuth : float
        Direction of the view's centre in degrees, to the right of the panorama's middle.
    width, height : int
        Size of the view in pixels.
    field_of_view : float
        Horizontal, in degrees, in (0, 180).

    Returns
    -------
    float32 (height, width, 3)

    Raises
    ------
    ReplicationError
        If the panorama is not twice as wide as high, or the field of view is out of range.
    """
    rows, columns = panorama.shape[:2]
    if panorama.ndim != 3 or panorama.shape[2] != 3 or columns != 2 * rows:
        raise ReplicationError(
            f"A panorama must be (H, 2H, 3), twice as wide as high, not {panorama.shape}."
        )
    if not 0 < field_of_view < 180:
        raise ReplicationError(f"The field of view must be in (0, 180) degrees: {field_of_view}.")
    focal = width / 2 / np.tan(np.radians(field_of_view / 2))
    right = (np.arange(width) + 0.5 - width / 2) / focal
    down = ((np.arange(height) + 0.5 - height / 2) / focal)[:, None]
    longitude = np.arctan2(right, 1.0)[None, :] + np.radians(azimuth)
    latitude = -np.arctan2(down, np.hypot(right, 1.0))
    x = np.rint(256 * ((longitude / (2 * np.pi) + 0.5) * columns - 0.5)).astype(int)
    y = np.rint(256 * ((0.5 - latitude / np.pi) * rows - 0.5)).astype(int)
    x, y = np.broadcast_arrays(x, np.clip(y, 0, 256 * (rows - 1)))
    left, above = (x >> 8) % columns, y >> 8
    right_, below = (left + 1) % columns, np.minimum(above + 1, rows - 1)
    wx, wy = (((v & 255) / np.float32(256)).astype(np.float32)[..., None] for v in (x, y))
    upper = panorama[above, left] * (1 - wx) + panorama[above, right_] * wx
    lower = panorama[below, left] * (1 - wx) + panorama[below, right_] * wx
    return upper * (1 - wy) + lower * wy
