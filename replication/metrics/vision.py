"""Optical and retinal pathway of HDR-VDP-2, and the contrast sensitivity behind it.

Light scatters in the eye, excites cones and rods, and becomes a response in units of the threshold
(Mantiuk et al. 2011, doi 10.1145/2010324.1964935, "Optical and retinal pathway" and "Neural noise").
Everything is in float64, since pixels beside a lamp can be millions of times darker.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import torch

from replication.fast import choose_device
from replication.files import ReplicationError
from replication.metrics.pyramid import MINIMUM, fast_length, resize_bicubic
from replication.metrics.scaling import BRIGHTEST

Image = np.ndarray | torch.Tensor
ENCODINGS = ("luminance", "rgb-bt.709", "luma-display", "sRGB-display", "XYZ")
PEAK_SENSITIVITY = 2.4  # decimal logarithm of the eye's peak contrast sensitivity
SURROUND = 1e-5  # luminance around the image in cd/m2: a dark room

# Optical transfer: weights and decays per cycle/degree in a sum of exponentials
_MTF_WEIGHTS = (0.42483859630129034, 0.5724351039364803, 0.00016757623916493702, 0.0025587235230643303)
_MTF_DECAYS = (0.028, 0.37, 37.0, 360.0)

# Excitation of L cones, M cones and rods by unit intensity of each primary
_EMISSION = {
    "ccfl-lcd": (
        (0.1989961203379287, 0.04100586040758893, 0.01437736862111919),
        (0.40476260703812544, 0.25492330644134564, 0.4809208410841319),
        (0.05439061925532116, 0.050012248959300676, 0.45427589566935994),
    ),
    "crt": (
        (0.19352143856780377, 0.045053209085706196, 0.04707366617554174),
        (0.4142240107638399, 0.25627519596218484, 0.5384547675333984),
        (0.05071663626628743, 0.04523801971999734, 0.40041394231638844),
    ),
    "led-lcd": (
        (0.1787174708325443, 0.04729528934232731, 0.0688682732168711),
        (0.44171841764736336, 0.2649529315030187, 0.584439209301964),
        (0.037298983813337794, 0.03406751621076706, 0.33097358677530136),
    ),
}
_DAYLIGHT = ((0.601847152244699, 0.31670829557916946, 0.9046706545995032),)

# Red, green and blue of unit X, Y and Z
_XYZ_TO_RGB = np.array(
    [[3.240708, -0.969257, 0.055636], [-1.537259, 1.875995, -0.203996], [-0.498570, 0.041555, 1.057069]]
)

# Neural contrast sensitivity: four parameters at each luminance in cd/m2
_CSF_LUMINANCE = (0.002, 0.02, 0.2, 2.0, 20.0, 150.0)
_CSF_PARAMETERS = (
    (0.991265, 0.800889, 0.476505, 0.405782, 0.334278, 0.394533),
    (3.74038, 3.54104, 4.37453, 4.40602, 3.79542, 2.7755),
    (0.50722, 0.682505, 0.750315, 0.935314, 1.07327, 1.16577),
    (4.46044, 4.94958, 5.28678, 5.61425, 6.4635, 7.45665),
)

_DARKEST, _BRIGHTEST = 1e-5, 1e5  # luminances of the tables below, cd/m2


def read_intensities(
    reference: Image, test: Image, color_encoding: str, device: torch.device | str | None = None
) -> torch.Tensor:
    """Check two images and decode them to intensities in absolute units.

    Takes what :func:`replication.metrics.hdrvdp2` takes. Returns float64 (2, C, H, W), reference first,
    C = 3 or 1, cd/m2 (R = G = B = Y means Y).
    """
    if color_encoding not in ENCODINGS:
        known = ", ".join(ENCODINGS)
        raise ReplicationError(f"Unknown colour encoding {color_encoding!r}; known: {known}.")
    pair = [x if isinstance(x, torch.Tensor) else np.asarray(x) for x in (reference, test)]
    shape, other = (tuple(x.shape) for x in pair)
    channels = () if color_encoding.startswith("lum") else (3,)
    if other != shape:
        raise ReplicationError(f"Images to compare must be of one size, not {shape} and {other}.")
    if len(shape) != 2 + len(channels) or shape[2:] != channels or min(shape[:2]) < MINIMUM:
        wanted = f"{'(H, W, 3)' if channels else '(H, W)'} of at least {MINIMUM} x {MINIMUM} pixels"
        raise ReplicationError(f"{color_encoding} needs images {wanted}, not {shape}.")
    device = choose_device(device) if device is not None else getattr(pair[0], "device", None)
    images = torch.empty(2, *(channels or (1,)), *shape[:2], dtype=torch.float64, device=device)
    for image, name, out in zip(pair, ("reference", "test"), images, strict=True):
        _copy_planes(image, name, color_encoding, out)
    return _decoded(images, color_encoding)


def _copy_planes(image, name: str, encoding: str, out: torch.Tensor) -> None:
    """Copy an image to planes (C, H, W) and check its values."""
    display = encoding.endswith("display")
    kind = getattr(image.dtype, "name", str(image.dtype).removeprefix("torch."))
    if not kind.startswith(("float", "bfloat", "int", "uint")) or (kind == "uint8" and not display):
        wanted = "uint8 or floating-point" if display else "floating-point"
        raise ReplicationError(f"{encoding} needs {wanted} values; the {name} image is {kind}.")
    if not isinstance(image, torch.Tensor):
        image = torch.from_numpy(np.array(image, dtype=np.float64))
    out.copy_(image.movedim(-1, 0) if image.ndim == 3 else image)
    if kind == "uint8":
        out /= 255
    torch.nan_to_num_(out, nan=_DARKEST, posinf=math.inf, neginf=-math.inf)  # DEVIATIONS D30
    lowest, highest = (float(value) for value in torch.aminmax(out))
    limit = 1 if display else BRIGHTEST
    if not 0 <= lowest <= highest <= limit:
        found = f"the {name} image holds {lowest:g} to {highest:g}"
        raise ReplicationError(f"{encoding} needs values within 0 and {limit:g}; {found}.")


def _decoded(images: torch.Tensor, encoding: str) -> torch.Tensor:
    """Intensities of coded planes (2, C, H, W)."""
    if encoding == "luma-display":
        return images.pow_(2.2).mul_(99).add_(1)
    if encoding == "sRGB-display":
        linear = torch.where(images <= 0.04045, images / 12.92, ((images + 0.055) / 1.055) ** 2.4)
        return linear.mul_(99).add_(1)
    if images[:, images.shape[1] // 2].max() <= 1:  # luminance, green or Y
        warnings.warn("No pixel exceeds 1 cd/m2, but absolute luminance is needed.", stacklevel=5)
    return _mixed(images, _XYZ_TO_RGB) if encoding == "XYZ" else images


def _mixed(images: torch.Tensor, weights: Sequence[Sequence[float]]) -> torch.Tensor:
    """Sums over the channels of (..., C, H, W), weighted by a matrix (C, new C)."""
    matrix = torch.as_tensor(np.array(weights).T, dtype=images.dtype, device=images.device)
    return (matrix @ images.flatten(-2)).unflatten(-1, images.shape[-2:])


def retinal_response(
    images: torch.Tensor,
    pixels_per_degree: float,
    surround: float = SURROUND,
    rgb_display: str = "ccfl-lcd",
    do_mtf: bool = True,
    peak_sensitivity: float = PEAK_SENSITIVITY,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Response of the retina to two images, and the luminance that it adapts to.

    Args:
        images: float64 (2, C, H, W) from :func:`read_intensities`; overwritten.
        pixels_per_degree: As in :func:`replication.metrics.hdrvdp2`, like the other options.

    Returns:
        Response (2, H, W), float64, in units of the threshold, mean 0 in each image; and the adapting
        luminance (2, H, W), float64, cd/m2, of each pixel on its own.
    """
    if rgb_display not in _EMISSION:
        raise ReplicationError(f"Unknown display {rgb_display!r}; known: {', '.join(_EMISSION)}.")
    if not 0 < pixels_per_degree < math.inf:
        raise ReplicationError(f"pixels_per_degree must be positive, not {pixels_per_degree}.")
    if not (surround == -1 or 0 <= surround < math.inf):
        raise ReplicationError(f"surround must be a luminance in cd/m2 or -1, not {surround}.")
    if not math.isfinite(peak_sensitivity):
        raise ReplicationError(f"peak_sensitivity must be finite, not {peak_sensitivity}.")
    if do_mtf:
        if surround == -1:
            surround = images[0].clamp(min=0).log().mean((1, 2), keepdim=True).exp()
        images -= surround
        _scatter(images.flatten(0, 1), pixels_per_degree)
        images += surround
    images.clamp_(_DARKEST, 1e10)

    emission = _DAYLIGHT if images.shape[1] == 1 else _EMISSION[rgb_display]
    cone, rod = torch.from_numpy(photoreceptor_response(peak_sensitivity)).to(images.device)
    response, adaptation = torch.empty_like(images[:, 0]), torch.empty_like(images[:, 0])
    for rows in strips(images.shape[2], images.device):
        excitation = _mixed(images[:, :, rows], emission)
        adaptation[:, rows] = excitation[:, 0] + excitation[:, 1]
        excitation.clamp_(_DARKEST, _BRIGHTEST).log10_()
        cones = _interpolate(cone, excitation[:, :2]).sum(1)
        response[:, rows] = cones.add_(_interpolate(rod, excitation[:, 2]))
    response -= response.mean((1, 2), keepdim=True)
    return response, adaptation


def strips(count: int, device: torch.device, size: int = 32) -> Iterator[slice]:
    """Slices of `count` rows: `size` at a time on a CPU, to stay in its cache, else all at once."""
    size = max(size, 1) if device.type == "cpu" else count
    return (slice(first, first + size) for first in range(0, count, size))


def _scatter(images: torch.Tensor, resolution: float) -> None:
    """Blur images (N, H, W) in place by the optics of the eye, on a grid of twice their size."""
    height, width = images.shape[1:]
    tall, wide = fast_length(2 * height - 1), fast_length(2 * width - 1)
    transfer = _transfer(height, width, float(resolution), images.device)
    for image in images:
        spectrum = torch.fft.rfft(image, n=wide)
        for columns in strips(spectrum.shape[1], images.device):
            factor = transfer[:, columns]
            whole = torch.fft.fft(spectrum[:, columns], n=tall, dim=0)
            whole *= torch.cat([factor, factor[1:-1].flip(0)])
            spectrum[:, columns] = torch.fft.ifft(whole, dim=0)[:height]
        image.copy_(torch.fft.irfft(spectrum, n=wide)[:, :width])


@lru_cache(maxsize=4)
def _transfer(height: int, width: int, resolution: float, device: torch.device) -> torch.Tensor:
    """Spectrum of the optics for a fast transform, half its rows and columns (it is even).

    The kernel of an MTF on a grid of twice the image's size moves to a grid with a fast transform.
    """
    options = {"dtype": torch.float64, "device": device}
    across = torch.fft.rfftfreq(2 * width, 1 / resolution, **options)
    down = torch.fft.fftfreq(2 * height, 1 / resolution, **options)[:, None]
    kernel = torch.fft.irfft2(optical_mtf(torch.hypot(down, across)), s=(2 * height, 2 * width))
    spread = torch.zeros(fast_length(2 * height - 1), fast_length(2 * width - 1), **options)
    rows, columns = (torch.arange(1 - n, n, device=device) for n in (height, width))
    spread[rows[:, None], columns] = kernel[rows[:, None], columns]
    return torch.fft.rfft2(spread)[: len(spread) // 2 + 1].real.contiguous()


def optical_mtf(frequency: torch.Tensor) -> torch.Tensor:
    """Part (0 to 1) of the contrast that passes the optics of the eye, at cycles/degree."""
    parts = zip(_MTF_WEIGHTS, _MTF_DECAYS, strict=True)
    return sum(weight * torch.exp(-decay * frequency) for weight, decay in parts)


def neural_csf(frequency: np.ndarray | float, luminance: np.ndarray | float) -> np.ndarray:
    """Contrast sensitivity behind optics and photoreceptors, at cycles/degree and positive cd/m2.

    float64, of the shape that the arguments broadcast to; constant below 0.002 and above 150 cd/m2.
    """
    rho = np.asarray(frequency, dtype=np.float64)
    place = np.log10(luminance)
    p1, p2, p3, p4 = (np.interp(place, np.log10(_CSF_LUMINANCE), p) for p in _CSF_PARAMETERS)
    fall = np.sqrt(1 + (p1 * rho) ** p2)
    return p4 / fall * (1 - np.exp(-((rho / 7) ** 2))) ** (p3 / 2)


def photoreceptor_response(peak_sensitivity: float = PEAK_SENSITIVITY) -> np.ndarray:
    """Responses of a cone and of the rods: sensitivity integrated over log-luminance.

    float64 (2, 2048), in units of the threshold, at equidistant log10 of 1e-5 to 1e5 cd/m2.
    """
    log_luminance = np.linspace(-5, 5, 2048)
    luminance = 10**log_luminance
    both = 30.162 * ((4.0627 / luminance) ** 1.6596 + 1) ** -0.2712
    above = luminance > 1.1732  # where the rods are the most sensitive
    exponent, width = np.where(above, 2.9899, 1.2167), np.where(above, 0.5547, 1.1478)
    rod = 10**1.1414 * np.exp(-(np.abs(np.log10(luminance / 1.1732)) ** exponent) / width)
    cones = np.maximum(both - rod, 1e-3)
    cone = 0.5 * np.interp(np.minimum(2 * luminance, luminance[-1]), luminance, cones)
    sensitivity = np.stack([cone, rod])
    steps = np.diff(log_luminance) * (sensitivity[:, 1:] + sensitivity[:, :-1]) / 2
    scale = 0.006894596 / 10**-peak_sensitivity * np.log(10)
    return scale * np.pad(np.cumsum(steps, axis=1), ((0, 0), (1, 0)))


def sensitivity_map(level: torch.Tensor, size: tuple[int, int], frequency: float) -> torch.Tensor:
    """Neural contrast sensitivity of a size at cycles/degree and log10 of cd/m2 (H, W), from a table."""
    table = torch.from_numpy(neural_csf(frequency, 10 ** np.linspace(-5, 5, 256))).to(level)
    return _interpolate(table, resize_bicubic(level, size).clamp(-5, 5))


def _interpolate(table: torch.Tensor, log_luminance: torch.Tensor) -> torch.Tensor:
    """Values of a table over log-luminance between -5 and 5."""
    place = (log_luminance + 5).mul_((len(table) - 1) / 10)
    cell = place.to(torch.int32).clamp_(max=len(table) - 2)
    place -= cell
    slope = table.diff().index_select(0, cell.flatten()).view_as(place)
    return torch.addcmul(table.index_select(0, cell.flatten()).view_as(place), slope, place)
