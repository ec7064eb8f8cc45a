"""Optical and retinal pathway of HDR-VDP-2, and the contrast sensitivity behind it.

What reaches the visual cortex: light scatters in the eye, excites cones and rods, and is turned into
a response in units of the threshold (Mantiuk et al. 2011, "Optical and retinal pathway" and "Neural
noise"). Everything here is in float64, since pixels beside a lamp can be millions of times darker.

References
----------
R. Mantiuk, K. J. Kim, A. G. Rempel, W. Heidrich, "HDR-VDP-2: a calibrated visual metric for
visibility and quality predictions in all luminance conditions", ACM TOG 30(4), 2011,
doi 10.1145/2010324.1964935.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import torch

from replication.files import ReplicationError
from replication.metrics.pyramid import MINIMUM, fast_length

ENCODINGS = ("luminance", "rgb-bt.709", "luma-display", "sRGB-display", "XYZ")
"""Colour encodings; the first, second and last in absolute units (cd/m2)."""

PEAK_SENSITIVITY = 2.4
"""Decimal logarithm of the eye's peak contrast sensitivity."""

SURROUND = 1e-5
"""Luminance around the image in cd/m2: a dark room."""

# Optical transfer: weights and decay per cycle/degree of a sum of exponentials
_MTF_WEIGHTS = (
    0.42483859630129034,
    0.5724351039364803,
    0.00016757623916493702,
    0.0025587235230643303,
)
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

_XYZ_TO_RGB = (
    (3.240708, -1.537259, -0.498570),
    (-0.969257, 1.875995, 0.041555),
    (0.055636, -0.203996, 1.057069),
)

# Neural contrast sensitivity: four parameters at each luminance in cd/m2
_CSF_LUMINANCE = (0.002, 0.02, 0.2, 2.0, 20.0, 150.0)
_CSF_PARAMETERS = (
    (0.991265, 0.800889, 0.476505, 0.405782, 0.334278, 0.394533),
    (3.74038, 3.54104, 4.37453, 4.40602, 3.79542, 2.7755),
    (0.50722, 0.682505, 0.750315, 0.935314, 1.07327, 1.16577),
    (4.46044, 4.94958, 5.28678, 5.61425, 6.4635, 7.45665),
)

_DARKEST, _BRIGHTEST = 1e-5, 1e5
_LOG_RANGE = (-5.0, 5.0)
_RESPONSE_POINTS, _CSF_POINTS = 2048, 256
_RESPONSE_SCALE = 0.006894596
_STRIP = 32  # rows or columns worked on at once


def read_intensities(
    reference: np.ndarray | torch.Tensor,
    test: np.ndarray | torch.Tensor,
    color_encoding: str,
    device: torch.device | str | None = None,
) -> torch.Tensor:
    """Check two images and decode them to intensities in absolute units.

    Parameters
    ----------
    reference, test : array or tensor (H, W, 3) or (H, W)
        Of one shape, both sides of at least 17 pixels; (H, W) for the encodings ``luminance`` and
        ``luma-display``. NaN becomes 1e-5. For the two display encodings within 0 and 1, or uint8.
    color_encoding : str
        One of :data:`ENCODINGS`; see :func:`replication.metrics.hdrvdp2`.
    device : torch.device or str, optional
        By default where `reference` is.

    Returns
    -------
    torch.Tensor
        float64 (2, C, H, W), reference first, C = 3 or 1, cd/m2 (R = G = B = Y means Y).

    Raises
    ------
    ReplicationError
        If the encoding is unknown, shapes differ or do not fit it, images are too small, hold
        infinite or negative values or display values above 1, are not real numbers, or the device
        is not there.

    Warns
    -----
    UserWarning
        If no pixel of absolute units exceeds 1 cd/m2: they may be relative.
    """
    if color_encoding not in ENCODINGS:
        raise ReplicationError(
            f"Unknown colour encoding {color_encoding!r}; there are {', '.join(ENCODINGS)}."
        )
    pair = [
        image if isinstance(image, torch.Tensor) else np.asarray(image)
        for image in (reference, test)
    ]
    shape = tuple(pair[0].shape)
    if tuple(pair[1].shape) != shape:
        raise ReplicationError(
            f"Images to compare must be of one size, not a reference of shape {shape} "
            f"and a test of shape {tuple(pair[1].shape)}."
        )
    channels = () if color_encoding in ("luminance", "luma-display") else (3,)
    if len(shape) != 2 + len(channels) or shape[2:] != channels:
        wanted = "(H, W, 3)" if channels else "(H, W)"
        raise ReplicationError(
            f"Encoding {color_encoding} needs images of shape {wanted}, not {shape}."
        )
    if min(shape[:2]) < MINIMUM:
        raise ReplicationError(
            f"Images to compare must have at least {MINIMUM} x {MINIMUM} pixels, "
            f"not {shape[0]} x {shape[1]}."
        )
    if device is None:
        device = pair[0].device if isinstance(pair[0], torch.Tensor) else "cpu"
    try:
        images = torch.empty(2, *(channels or (1,)), *shape[:2], dtype=torch.float64, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ReplicationError(f"Cannot compute in float64 on {device}: {reason}") from error
    for image, name, out in zip(pair, ("reference", "test"), images, strict=True):
        _copy_planes(image, name, color_encoding, out)
    return _decoded(images, color_encoding)


def _copy_planes(image, name: str, encoding: str, out: torch.Tensor) -> None:
    """Copy an image to planes (C, H, W) and check its values."""
    display = encoding.endswith("display")
    kind = getattr(image.dtype, "name", str(image.dtype).removeprefix("torch."))
    if not kind.startswith(("float", "bfloat", "int", "uint")) or (kind == "uint8" and not display):
        raise ReplicationError(
            f"Encoding {encoding} needs {'uint8 or ' if display else ''}floating-point values; "
            f"the {name} image is {kind}."
        )
    if not isinstance(image, torch.Tensor):
        image = torch.from_numpy(np.array(image, dtype=np.float64))
    out.copy_(image.detach().movedim(-1, 0) if image.ndim == 3 else image.detach())
    if kind == "uint8":
        out /= 255
    lowest, highest = torch.aminmax(out)
    if lowest.isnan():
        torch.nan_to_num_(out, nan=_DARKEST, posinf=math.inf, neginf=-math.inf)
        lowest, highest = torch.aminmax(out)
    if not (lowest >= 0 and (highest <= 1 if display else highest < math.inf)):
        wanted = "within 0 and 1" if display else "finite and not negative"
        raise ReplicationError(
            f"Encoding {encoding} needs values that are {wanted}; the {name} image holds "
            f"{float(lowest):g} to {float(highest):g}."
        )


def _decoded(images: torch.Tensor, encoding: str) -> torch.Tensor:
    """Intensities of coded planes (2, C, H, W)."""
    if encoding == "luma-display":
        return images.pow_(2.2).mul_(99).add_(1)
    if encoding == "sRGB-display":
        linear = torch.where(images <= 0.04045, images / 12.92, ((images + 0.055) / 1.055) ** 2.4)
        return linear.mul_(99).add_(1)
    if images[:, images.shape[1] // 2].max() <= 1:  # luminance, green or Y
        warnings.warn(
            "No pixel is brighter than 1 cd/m2, but absolute luminance is needed.", stacklevel=5
        )
    return _mixed(images, np.transpose(_XYZ_TO_RGB)) if encoding == "XYZ" else images


def _mixed(images: torch.Tensor, weights: Sequence[Sequence[float]]) -> torch.Tensor:
    """Sums over the channels of (..., C, H, W), weighted by a matrix (C, new C)."""
    matrix = torch.as_tensor(np.array(weights).T, dtype=images.dtype, device=images.device)
    return (matrix @ images.flatten(-2)).unflatten(-1, images.shape[-2:])


def retinal_response(
    images: torch.Tensor,
    pixels_per_degree: float,
    *,
    surround: float = SURROUND,
    rgb_display: str = "ccfl-lcd",
    do_mtf: bool = True,
    peak_sensitivity: float = PEAK_SENSITIVITY,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Response of the retina to two images, and the luminance that it adapts to.

    Parameters
    ----------
    images : torch.Tensor (2, C, H, W)
        float64 intensities from :func:`read_intensities`, reference first. Overwritten.
    pixels_per_degree : float
        Resolution of the image for the observer.
    surround, rgb_display, do_mtf, peak_sensitivity
        See :func:`replication.metrics.hdrvdp2`.

    Returns
    -------
    response : torch.Tensor (2, H, W)
        float64, in units of the threshold; each image has the mean 0.
    adaptation : torch.Tensor (2, H, W)
        float64, cd/m2, at each pixel (no spatial pooling in version 2.2).

    Raises
    ------
    ReplicationError
        If an option is unknown or out of range.
    """
    if rgb_display not in _EMISSION:
        raise ReplicationError(
            f"Unknown display {rgb_display!r}; there are {', '.join(_EMISSION)}."
        )
    if not 0 < pixels_per_degree < math.inf:
        raise ReplicationError(
            f"pixels_per_degree must be positive and finite, not {pixels_per_degree}."
        )
    if not (surround == -1 or 0 <= surround < math.inf):
        raise ReplicationError(
            f"surround must be a luminance in cd/m2, or -1 for the mean, not {surround}."
        )
    if not math.isfinite(peak_sensitivity):
        raise ReplicationError(f"peak_sensitivity must be finite, not {peak_sensitivity}.")
    if do_mtf:
        level = surround
        if surround == -1:
            level = images[0].clamp(min=0).log().mean((1, 2), keepdim=True).exp()
        images -= level
        _scatter(images.flatten(0, 1), pixels_per_degree)
        images += level
    images.clamp_(_DARKEST, 1e10)

    emission = _DAYLIGHT if images.shape[1] == 1 else _EMISSION[rgb_display]
    cone, rod = torch.from_numpy(photoreceptor_response(peak_sensitivity).copy()).to(images.device)
    response, adaptation = torch.empty_like(images[:, 0]), torch.empty_like(images[:, 0])
    for rows in strips(images.shape[2], images.device):
        excitation = _mixed(images[:, :, rows], emission)
        adaptation[:, rows] = excitation[:, 0] + excitation[:, 1]
        excitation.clamp_(_DARKEST, _BRIGHTEST).log10_()
        cones = _interpolate(cone, excitation[:, :2]).sum(1)
        response[:, rows] = cones.add_(_interpolate(rod, excitation[:, 2]))
    response -= response.mean((1, 2), keepdim=True)
    return response, adaptation


def strips(count: int, device: torch.device, size: int = _STRIP) -> Iterator[slice]:
    """Slices of rows to work on at once: few at a time on a CPU, to stay in its cache, else all.

    Parameters
    ----------
    count : int
        Number of rows.
    device : torch.device
        Where they are.
    size : int
        Rows in a slice on a CPU; at least one is taken.

    Yields
    ------
    slice
        Consecutive; the last may reach beyond `count`.
    """
    size = max(size, 1) if device.type == "cpu" else count
    for first in range(0, count, size):
        yield slice(first, first + size)


def _scatter(images: torch.Tensor, resolution: float) -> None:
    """Blur images (N, H, W) in place by the optics of the eye, on a grid of twice their size."""
    height, width = images.shape[1:]
    tall, wide = fast_length(2 * height - 1), fast_length(2 * width - 1)
    transfer = _transfer(height, width, float(resolution), images.device)
    spectra = torch.empty(
        len(images), height, transfer.shape[1], dtype=torch.complex128, device=images.device
    )
    for image, spectrum in zip(images, spectra, strict=True):
        for rows in strips(height, images.device):
            spectrum[rows] = torch.fft.rfft(image[rows], n=wide)
    for columns in strips(transfer.shape[1], images.device):
        factor = transfer[:, columns].to(spectra.dtype)
        factor = torch.cat([factor, factor[1:-1].flip(0)])
        for spectrum in spectra:
            whole = torch.fft.fft(spectrum[:, columns], n=tall, dim=0).mul_(factor)
            spectrum[:, columns] = torch.fft.ifft(whole, dim=0)[:height]
    for image, spectrum in zip(images, spectra, strict=True):
        for rows in strips(height, images.device):
            image[rows] = torch.fft.irfft(spectrum[rows], n=wide)[:, :width]


@lru_cache(maxsize=4)
def _transfer(height: int, width: int, resolution: float, device: torch.device) -> torch.Tensor:
    """Spectrum of the optics for a fast transform, half its rows and columns (it is even).

    The MTF is sampled on the grid of twice the size of the image; the kernel that this makes is put
    on a grid whose transform is fast, which gives the same products.
    """
    options = {"dtype": torch.float64, "device": device}
    across = torch.arange(width + 1, **options) * (resolution / (2 * width))
    down = torch.arange(2 * height, **options)
    down = torch.minimum(down, 2 * height - down)[:, None] * (resolution / (2 * height))
    kernel = torch.fft.irfft2(optical_mtf(torch.hypot(down, across)), s=(2 * height, 2 * width))
    spread = torch.zeros(fast_length(2 * height - 1), fast_length(2 * width - 1), **options)
    quarter = kernel[:height, :width]
    spread[:height, :width] = quarter
    spread[:height, 1 - width :] = quarter[:, 1:].flip(1)
    spread[1 - height :] = spread[1:height].flip(0)
    return torch.fft.rfft2(spread)[: len(spread) // 2 + 1].real.contiguous()


def optical_mtf(frequency: torch.Tensor) -> torch.Tensor:
    """Part of the contrast that passes the optics of the eye.

    Parameters
    ----------
    frequency : torch.Tensor
        Spatial frequency in cycles/degree, not negative.

    Returns
    -------
    torch.Tensor
        Within 0 and 1; 1 at frequency 0.
    """
    total = torch.zeros_like(frequency)
    for weight, decay in zip(_MTF_WEIGHTS, _MTF_DECAYS, strict=True):
        total += weight * torch.exp(-decay * frequency)
    return total


def neural_csf(frequency: np.ndarray | float, luminance: np.ndarray | float) -> np.ndarray:
    """Contrast sensitivity of the visual system behind optics and photoreceptors.

    Parameters
    ----------
    frequency : array or float
        Spatial frequency in cycles/degree, not negative.
    luminance : array or float
        Adapting luminance in cd/m2, positive; sensitivity is constant below 0.002 and above 150.

    Returns
    -------
    np.ndarray
        float64, of the shape that frequency and luminance broadcast to; 0 at frequency 0.
    """
    rho = np.asarray(frequency, dtype=np.float64)
    place = np.log10(luminance)
    p1, p2, p3, p4 = (np.interp(place, np.log10(_CSF_LUMINANCE), p) for p in _CSF_PARAMETERS)
    fall = np.sqrt(1 + (p1 * rho) ** p2)
    return p4 / fall * (1 - np.exp(-((rho / 7) ** 2))) ** (p3 / 2)


def joint_sensitivity(luminance: np.ndarray | float) -> np.ndarray:
    """Peak sensitivity of cones and rods together, fitted to measurements of contrast.

    Parameters
    ----------
    luminance : array or float
        cd/m2, positive.

    Returns
    -------
    np.ndarray
        float64, at most 30.162.
    """
    luminance = np.asarray(luminance, dtype=np.float64)
    return 30.162 * ((4.0627 / luminance) ** 1.6596 + 1) ** -0.2712


def rod_sensitivity(luminance: np.ndarray | float) -> np.ndarray:
    """Peak sensitivity of the rods.

    Parameters
    ----------
    luminance : array or float
        cd/m2, positive.

    Returns
    -------
    np.ndarray
        float64, largest at 1.1732 cd/m2.
    """
    luminance = np.asarray(luminance, dtype=np.float64)
    above = luminance > 1.1732
    exponent, width = np.where(above, 2.9899, 1.2167), np.where(above, 0.5547, 1.1478)
    return 10**1.1414 * np.exp(-(np.abs(np.log10(luminance / 1.1732)) ** exponent) / width)


@lru_cache(maxsize=8)
def photoreceptor_response(peak_sensitivity: float = PEAK_SENSITIVITY) -> np.ndarray:
    """Response of one cone and of the rods in units of the threshold.

    The integral of sensitivity over log-luminance, from 1e-5 to 1e5 cd/m2.

    Parameters
    ----------
    peak_sensitivity : float
        Decimal logarithm of the peak contrast sensitivity.

    Returns
    -------
    np.ndarray
        float64 (2, 2048): cone and rod, at equidistant decimal logarithms of luminance; 0 at the
        lowest. Read-only.
    """
    log_luminance = np.linspace(*_LOG_RANGE, _RESPONSE_POINTS)
    luminance = 10**log_luminance
    rod = rod_sensitivity(luminance)
    cones = np.maximum(joint_sensitivity(luminance) - rod, 1e-3)
    cone = 0.5 * np.interp(np.minimum(2 * luminance, luminance[-1]), luminance, cones)
    sensitivity = np.stack([cone, rod])
    steps = np.diff(log_luminance) * (sensitivity[:, 1:] + sensitivity[:, :-1]) / 2
    scale = _RESPONSE_SCALE / 10**-peak_sensitivity * np.log(10)
    response = scale * np.pad(np.cumsum(steps, axis=1), ((0, 0), (1, 0)))
    response.flags.writeable = False
    return response


def sensitivity_map(log_luminance: torch.Tensor, frequency: float) -> torch.Tensor:
    """Neural contrast sensitivity at each pixel, from a table of 256 luminances.

    Parameters
    ----------
    log_luminance : torch.Tensor (H, W)
        Decimal logarithm of the adapting luminance in cd/m2, within -5 and 5.
    frequency : float
        Spatial frequency in cycles/degree.

    Returns
    -------
    torch.Tensor
        Shape, dtype and device of `log_luminance`.
    """
    luminance = 10 ** np.linspace(*_LOG_RANGE, _CSF_POINTS)
    table = torch.from_numpy(neural_csf(frequency, luminance)).to(log_luminance)
    return _interpolate(table, log_luminance)


def _interpolate(table: torch.Tensor, log_luminance: torch.Tensor) -> torch.Tensor:
    """Values of a table over log-luminance between -5 and 5."""
    low, high = _LOG_RANGE
    place = (log_luminance - low).mul_((len(table) - 1) / (high - low))
    cell = place.to(torch.int32).clamp_(max=len(table) - 2)
    place -= cell
    cell = cell.flatten()
    slope = table.diff().index_select(0, cell).view_as(place)
    return torch.addcmul(table.index_select(0, cell).view_as(place), slope, place)
