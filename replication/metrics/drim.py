"""DRIM: where visible contrast was lost, amplified or reversed, at any dynamic range (Section 6.2).

The metric of Aydin et al. (2008, doi 10.1145/1360612.1360668) asks, for each band of spatial frequency and
orientation, each pixel and each image on its own, whether an observer sees contrast. Other changes do not
count, so images of different dynamic range can be compared. No program of the authors is available: this is
their method behind HDR-VDP-2's optics, retina and contrast sensitivity (DEVIATIONS D33 to D37).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch.nn.functional import interpolate, pad, threshold_

from replication.files import ReplicationError
from replication.images import luminance as luminance_of
from replication.metrics import vision
from replication.metrics.pyramid import fast_length, level_count
from replication.metrics.vision import Image
from replication.paper import PEAK_CONTRAST

# The publication's green, blue and red, in Okabe and Ito's palette for all eyes
LOSS, AMPLIFICATION, REVERSAL = "#009E73", "#0072B2", "#D55E00"
# Response of the front end to contrast 1 where it is most sensitive: 2.5 cycles/degree, 26 cd/m2
PEAK_RESPONSE = 52.9
# Detection probability 1 - 0.5^(c^slope) of c times the threshold; it is 95 % at c = 1.52
_SLOPE = 3.5
_VISIBLE = math.log2(1 / (1 - 0.95)) ** (1 / _SLOPE)
ORIENTATIONS = 6  # bands of each frequency, 30 degrees apart
# Part of a contrast that may show in the bands beside it (next orientations, half and twice the
# frequency), and how much of that is left one octave further up, by harmonics of the response
_CROSSTALK, _CROSSTALK_FALL = 0.45, 0.3
_OPPOSITION = -0.5  # responses that correlate less than this are in opposition: 120 degrees apart
_MARGIN = 32  # least number of pixels that mirror an image beyond its borders


class DRIMResult(NamedTuple):
    """Probabilities (H, W), float32, 0 to 1, that visible contrast of each pixel changed."""

    P_loss: Image
    P_amplification: Image
    P_reversal: Image


@torch.no_grad()
def drim(
    test: Image,
    reference: Image,
    color_encoding: str,
    pixels_per_degree: float,
    *,
    surround: float = vision.SURROUND,
    rgb_display: str = "ccfl-lcd",
    peak_contrast: float = PEAK_CONTRAST,
    device: torch.device | str | None = None,
) -> DRIMResult:
    """Find lost, amplified and reversed visible contrast, independently of the dynamic ranges.

    The contrast ``c`` of a band is the magnitude of its response times the contrast sensitivity at the
    image's own luminance, in units of the threshold. It is detected with HDR-VDP-2's probability
    ``P(c) = 1 - 0.5^(c^3.5)``, visible with ``P(c / 1.52)`` (0.5 where it is detected with 95 %), invisible
    with ``1 - P(c)``; the last two count as 0 below 0.5. With ``r`` reference and ``t`` test::

        loss          = visible_r * invisible_t
        amplification = invisible_r * visible_t
        reversal      = visible_r * visible_t * [the responses are in opposition]

    and over all bands but the base ``1 - prod(1 - P)``. Contrast is invisible only if it is so in all 3 x 3
    pixels of the band, and responses are in opposition if they correlate below -0.5 over these. Bands
    overlap, so visible contrast counts without 0.45 times that of the bands beside it (in squares).

    Args:
        test: As in :func:`replication.metrics.hdrvdp2`, like `reference`, `color_encoding`,
            `pixels_per_degree`, `surround`, `rgb_display` and `device`.
        peak_contrast: Contrast (amplitude over mean), within 0 and 1, of a grating that is detected half
            of the time where the eye is most sensitive. HDR-VDP-2's own bands have 0.019.

    Returns:
        DRIMResult; its maps are tensors on `device` if `reference` is a tensor, else arrays.
    """
    if not 0 < peak_contrast <= 1:
        raise ReplicationError(f"peak_contrast must be within 0 and 1, not {peak_contrast}.")
    images = vision.read_intensities(reference, test, color_encoding, device)
    peak = vision.PEAK_SENSITIVITY - math.log10(PEAK_RESPONSE * peak_contrast)
    response, adaptation = vision.retinal_response(
        images, pixels_per_degree, surround, rgb_display, peak_sensitivity=peak
    )
    del images
    bands = cortex_bands(response.float())
    del response
    level = adaptation.clamp_(1e-5, 1e5).log10_().float()
    contrasts = [b.real.square().addcmul_(b.imag, b.imag).sqrt_() for b in bands]
    lower = torch.zeros_like(contrasts[-1][..., ::2, ::2])
    unchanged = torch.ones_like(lower[:1, :1]).repeat(1, 3, 1, 1)
    for k in reversed(range(len(bands))):
        contrast, shape = contrasts[k], contrasts[k].shape[2:]
        unchanged, lower = _doubled(unchanged, shape), _doubled(lower, shape)
        beside = contrast.roll(1, 0).maximum(contrast.roll(-1, 0)).maximum(lower)
        if k:
            beside = beside.maximum(contrasts[k - 1][..., ::2, ::2])
        lower = contrast.maximum(_CROSSTALK_FALL * lower)
        frequency = pixels_per_degree / (3 * 2**k)
        sensitivity = [vision.sensitivity_map(image, shape, frequency) for image in level]
        changes = _changes(bands.pop(), contrast, beside, torch.stack(sensitivity))
        for miss, change in zip(unchanged[0], changes, strict=True):
            for probability in change:
                miss.addcmul_(miss, probability, value=-1)
    maps = (1 - unchanged[0]).clamp_(0, 1)
    return DRIMResult(*(maps if isinstance(reference, torch.Tensor) else maps.numpy(force=True)))


def cortex_bands(images: torch.Tensor) -> list[torch.Tensor]:
    """Split images into complex bands of spatial frequency and orientation.

    The magnitude is the contrast, and the phase says whether it is reversed. The filters pass the bands of
    the cortex transform (Daly 1993), preserve energy, have no kinks (so waves beside an edge soon die out)
    and pass one of two opposite directions. Band ``k`` has the frequency ``2^-k / 3`` cycles/pixel and
    passes from half of it to its double; the first fades out from 0.4 to 0.5 cycles/pixel. A grating of a
    band's frequency and orientation has its amplitude as magnitude there, and 0 in all other bands.

    Args:
        images: (N, H, W), float32 or float64, any device, H and W of at least 17 pixels.

    Returns:
        Complex (6, N, h, w) from fine to coarse, normal of the waves at 0, 30, ... 150 degrees from the x
        to the y axis (down); each second pixel of each second row of the band before.
    """
    bands = []
    for level in range(level_count(*images.shape[1:])):
        height, width = images.shape[1:]
        spectra = torch.fft.fft2(_closed(_closed(images.mT).mT.contiguous()))
        options = {"dtype": images.dtype, "device": images.device}
        down, across = (torch.fft.fftfreq(n, **options) for n in spectra.shape[1:])
        down = down[:, None]
        radius, angle = torch.hypot(down, across), torch.atan2(down, across)
        if level == 0:
            quarter = _fade(6 * radius - 1)
            edge = [torch.cos(_fade(10 * axis.abs() - 4)) for axis in (down, across)]
            high = torch.sin(quarter) * edge[0] * edge[1]  # fades out from 0.4 cycles/pixel
            bands.append(_oriented(spectra, high, angle)[..., :height, :width])
            spectra *= torch.cos(quarter)
        eighth = _fade(12 * radius - 1)
        height, width = (height + 1) // 2, (width + 1) // 2
        bands.append(_oriented(spectra, torch.sin(eighth), angle, halve=True)[..., :height, :width])
        images = torch.fft.ifft2(_folded(spectra * torch.cos(eighth))).real[..., :height, :width]
    return bands


def _oriented(spectra: torch.Tensor, radial, angle, *, halve: bool = False) -> torch.Tensor:
    """Complex bands (6, N, h, w) of spectra, from the first pixel of the image on."""
    (count, tall, wide), step, sector = spectra.shape, 1 + halve, math.pi / ORIENTATIONS
    bands = spectra.new_empty(ORIENTATIONS, count, tall // step, wide // step)
    for o in range(ORIENTATIONS):
        distance = torch.remainder(angle - o * sector + math.pi, 2 * math.pi) - math.pi
        filtered = spectra * torch.cos(_fade(distance.abs_() / sector)).mul_(radial).mul_(2)
        torch.fft.ifft2(_folded(filtered) if halve else filtered, out=bands[o])
    return bands


def _folded(spectra: torch.Tensor) -> torch.Tensor:
    """Spectra of images at their even rows and columns."""
    count, tall, wide = spectra.shape
    parts = spectra.view(count, 2, tall // 2, 2, wide // 2)
    return (parts[:, 0, :, 0] + parts[:, 0, :, 1] + parts[:, 1, :, 0] + parts[:, 1, :, 1]).div_(4)


def _closed(images: torch.Tensor) -> torch.Tensor:
    """Images with a margin on the right in which the mirror images of both sides fade into each other."""
    count = images.shape[-1]
    length = fast_length(count + _MARGIN)
    place, period = np.arange(length), 2 * count - 2
    fade = (1 - np.cos(np.pi * np.clip((place - count + 1) / (length - count + 1), 0, 1))) / 2
    mirrored = [np.minimum(p % period, -p % period) for p in (place, length - place)]
    left, right = (images[..., torch.from_numpy(end).to(images.device)] for end in mirrored)
    return torch.lerp(left, right, torch.from_numpy(fade).to(images))


def _fade(place: torch.Tensor) -> torch.Tensor:
    """From 0 before place 0 to a right angle after place 1, without a kink; in place."""
    place.clamp_(0, 1)
    return (3 - 2 * place).mul_(place.square_()).mul_(math.pi / 2)


def _changes(responses: torch.Tensor, contrast, beside, sensitivity) -> tuple[torch.Tensor, ...]:
    """Loss, amplification and reversal, each (o, h, w), of a band's responses (o, 2, h, w)."""
    energy = contrast.square()
    own = energy.sub((_CROSSTALK * beside).square_()).clamp_(min=0).sqrt_()
    visible = threshold_(1 - _undetected(own.mul_(sensitivity / _VISIBLE)), 0.5, 0)
    invisible = threshold_(_undetected(_nearby(contrast, torch.maximum).mul_(sensitivity)), 0.5, 0)
    (reference, test), (reference_90, test_90) = responses.real.unbind(1), responses.imag.unbind(1)
    together = _nearby((reference * test).addcmul_(reference_90, test_90), torch.add)
    energy = _nearby(energy, torch.add)
    opposite = together < _OPPOSITION * (energy[:, 0] * energy[:, 1]).sqrt_()
    both = visible[:, 0] * visible[:, 1]
    return visible[:, 0] * invisible[:, 1], invisible[:, 0] * visible[:, 1], both * opposite


def _undetected(contrast: torch.Tensor) -> torch.Tensor:
    """Probability of missing a contrast in units of the threshold, in place."""
    return contrast.pow_(_SLOPE).mul_(-math.log(2)).exp_()


def _nearby(maps: torch.Tensor, join: Callable) -> torch.Tensor:
    """Maximum or sum over 3 x 3 pixels, cut at the border."""
    for axis in (-1, -2):
        result, count = maps.clone(), maps.shape[axis] - 1
        for here, there in ((0, 1), (1, 0)):
            part = result.narrow(axis, here, count)
            join(part, maps.narrow(axis, there, count), out=part)
        maps = result
    return maps


def _doubled(maps: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Maps (n, m, h, w) on the even rows and columns of a finer grid, linear between them."""
    height, width = (2 * n - 1 for n in maps.shape[2:])
    maps = interpolate(maps, size=(height, width), mode="bilinear", align_corners=True)
    return pad(maps, (0, shape[1] - width, 0, shape[0] - height), mode="replicate")


def overlay(result: DRIMResult, image: Image, *, opacity: float = 0.9) -> np.ndarray:
    """Paint the most probable change of each pixel over a grey picture, as opaque as it is probable.

    Args:
        result: From :func:`drim`. Loss is green, amplification blue, reversal red.
        image: The test, (H, W) or (H, W, 3): floats in any unit, shown on a logarithmic scale from the 1st
            to the 99th percentile of luminance; or a uint8 photo, shown as it is.
        opacity: Opacity of a certain change, 0 to 1.

    Returns:
        uint8 (H, W, 3), display-encoded RGB.
    """
    if not 0 <= opacity <= 1:
        raise ReplicationError(f"opacity must be within 0 and 1, not {opacity}.")
    *maps, image = (x.numpy(force=True) if torch.is_tensor(x) else np.asarray(x) for x in (*result, image))
    maps = np.stack(maps)
    if image.shape not in (maps.shape[1:], (*maps.shape[1:], 3)):
        sizes = f"{maps.shape[1:]}, not {image.shape}"
        raise ReplicationError(f"An overlay needs an image of the maps' size: {sizes}.")
    grey = light = luminance_of(image) if image.ndim == 3 else image
    if image.dtype != np.uint8:
        if image.dtype.kind != "f" or not (np.isfinite(light) & (light >= 0)).all():
            raise ReplicationError("An overlay needs finite, not negative floats, or uint8.")
        log = np.log10(np.maximum(light, 1e-12))
        low, high = np.percentile(log[light > 0], (1, 99)) if (light > 0).any() else (0.0, 0.0)
        plain = high - low < 1e-3
        grey = 128 if plain else np.clip(40 + 190 * (log - low) / (high - low), 20, 250)
    strongest, alpha = maps.argmax(0), opacity * maps.max(0)[..., None]
    palette = np.float32([list(bytes.fromhex(c[1:])) for c in (LOSS, AMPLIFICATION, REVERSAL)])
    picture = (1 - alpha) * np.float32(grey)[..., None] + alpha * palette[strongest]
    return np.rint(picture).astype(np.uint8)
