"""DRIM: where contrast was lost, amplified or reversed, whatever the dynamic ranges (Section 6.2).

The dynamic range independent metric of Aydin et al. (2008) asks of each band of spatial frequency
and orientation, at each pixel and of each image on its own, whether an observer sees contrast there.
Contrast seen in the reference only is *lost*, contrast seen in the test only is *amplified*, and
contrast seen in both with opposite signs is *reversed*; contrast that changes but stays visible, or
stays invisible, is nothing. So images of very different dynamic range can be compared.

No program of the authors is available. This is their method behind **another front end**: optics,
retina and contrast sensitivity are those of HDR-VDP-2 (:mod:`replication.metrics.vision`) instead of
HDR-VDP-1. The bands are those of the cortex transform, as in the publication, but complex: their
magnitude is the contrast and does not fall to zero twice in each wavelength, and their phase says
whether it is reversed. What else differs is said where it is done, and in DEVIATIONS D33 to D37.

References
----------
T. O. Aydin, R. Mantiuk, K. Myszkowski, H.-P. Seidel, "Dynamic range independent image quality
assessment", ACM TOG 27(3), 2008, doi 10.1145/1360612.1360668.
R. Mantiuk, K. J. Kim, A. G. Rempel, W. Heidrich, "HDR-VDP-2: a calibrated visual metric for
visibility and quality predictions in all luminance conditions", ACM TOG 30(4), 2011,
doi 10.1145/2010324.1964935.
S. Daly, "The visible differences predictor: an algorithm for the assessment of image fidelity", in
A. B. Watson (ed.), "Digital Images and Human Vision", MIT Press, 1993 (cortex transform).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch.nn.functional import threshold_

from replication.files import ReplicationError
from replication.images import luminance as luminance_of
from replication.metrics.pyramid import fast_length, level_count, resize_bicubic
from replication.metrics.vision import (
    PEAK_SENSITIVITY,
    SURROUND,
    read_intensities,
    retinal_response,
    sensitivity_map,
)

LOSS, AMPLIFICATION, REVERSAL = "#009E73", "#0072B2", "#D55E00"
"""Colours: the publication's green, blue and red, as Okabe and Ito's palette for all eyes has them."""

PEAK_CONTRAST = 0.0025
"""Contrast of the faintest grating that is detected half of the time (the paper's Section 6.2)."""

PEAK_RESPONSE = 52.9
"""What the front end makes of contrast 1 where it is most sensitive: 2.5 cycles/degree, 26 cd/m2."""

# Detection probability 1 - 0.5^(c^slope) of c times the threshold; contrast counts as visible where
# it is detected with more than 95 %, as invisible where it is detected with less than 50 %
_SLOPE = 3.5
_VISIBLE = math.log2(1 / (1 - 0.95)) ** (1 / _SLOPE)

ORIENTATIONS = 6
"""Bands of each frequency, 30 degrees apart."""

# What may be left of contrast in the bands beside it (next orientations, half and twice the
# frequency), and how much of that is left one octave further up, by harmonics of the response
_CROSSTALK, _CROSSTALK_FALL = 0.45, 0.3

# Correlation of two responses below which they are in opposition: phases 120 degrees apart
_OPPOSITION = -0.5

_MARGIN = 32  # pixels in which an image is mirrored beyond its borders, at least


class DRIMResult(NamedTuple):
    """What DRIM says about a test image.

    Attributes
    ----------
    P_loss : array (H, W)
        float32, probability within 0 and 1 that contrast visible in the reference is not in the
        test.
    P_amplification : array (H, W)
        The same of contrast visible in the test that is not in the reference.
    P_reversal : array (H, W)
        The same of contrast visible in both with opposite signs.
    """

    P_loss: np.ndarray | torch.Tensor
    P_amplification: np.ndarray | torch.Tensor
    P_reversal: np.ndarray | torch.Tensor


@torch.no_grad()
def drim(
    test: np.ndarray | torch.Tensor,
    reference: np.ndarray | torch.Tensor,
    color_encoding: str,
    pixels_per_degree: float,
    *,
    surround: float = SURROUND,
    rgb_display: str = "ccfl-lcd",
    peak_contrast: float = PEAK_CONTRAST,
    device: torch.device | str | None = None,
) -> DRIMResult:
    """Find lost, amplified and reversed visible contrast, independently of the dynamic ranges.

    In each band of frequency and orientation, contrast is the magnitude of the response to one image
    times the contrast sensitivity at that image's own luminance, in units of the threshold, ``c``.
    It is detected with the probability ``P(c) = 1 - 0.5^(c^3.5)``, HDR-VDP-2's psychometric
    function. The probability that it is visible is ``P(c / 1.52)``, one half where it is detected
    with 95 %; that it is invisible, ``1 - P(c)``, one half where it is detected with 50 %; both are 0
    below one half. With ``r`` and ``t`` for reference and test::

        loss          = visible_r * invisible_t
        amplification = invisible_r * visible_t
        reversal      = visible_r * visible_t * [the responses are in opposition]

    and over all bands ``1 - prod(1 - P)``. The base band is left out: it holds luminance, not
    contrast.

    Three things keep images with the same visible contrast from differing. A contrast is invisible
    only if it is so in all 3 x 3 pixels of the band, which lets details move a little. Responses are
    in opposition if they correlate below -0.5 over 3 x 3 pixels, that is, if their phases differ by
    more than 120 degrees. And from a contrast that is to be visible, up to 0.45 times that of the
    bands beside it is taken off (in squares): it may be what these leave there, as bands overlap.

    Parameters
    ----------
    test, reference : array or tensor (H, W, 3) or (H, W)
        Of one shape, both sides of at least 17 pixels; (H, W) for the encodings ``luminance`` and
        ``luma-display``. NaN becomes 1e-5; black is allowed.
    color_encoding : str
        ``luminance`` (cd/m2); ``rgb-bt.709`` (linear; R = G = B = Y means Y cd/m2); ``XYZ`` (CIE
        1931, Y in cd/m2); ``luma-display`` (display-encoded V within 0 and 1, or uint8; 99 V^2.2 + 1
        cd/m2); ``sRGB-display`` (sRGB within 0 and 1, or uint8; 99 times the linear value + 1 cd/m2).
    pixels_per_degree : float
        Resolution of the image for the observer; see
        :func:`replication.metrics.pixels_per_degree`. The paper's display has 33.5102139115.
    surround : float
        Luminance around the image in cd/m2, or -1 for the geometric mean of each channel of the
        reference.
    rgb_display : str
        Whose primaries emit the light of colour images: ``ccfl-lcd``, ``crt`` or ``led-lcd``.
    peak_contrast : float
        Contrast (amplitude over mean) of a grating that is detected half of the time where the eye
        is most sensitive, within 0 and 1; the default is what the paper states. HDR-VDP-2's own
        bands have 0.019, and 0.007 where a patch of 1 degree (sigma) is pooled, which DRIM does not.
    device : torch.device or str, optional
        Where to compute; by default where `reference` is.

    Returns
    -------
    DRIMResult
        Maps are tensors on `device` if `reference` is a tensor, else arrays.

    Raises
    ------
    ReplicationError
        If shapes differ or do not fit the encoding, the images are smaller than 17 pixels, hold
        infinite or negative values or display values above 1, or an option is unknown or out of
        range.

    Warns
    -----
    UserWarning
        If an image in absolute units nowhere exceeds 1 cd/m2: it may be relative.
    """
    if not 0 < peak_contrast <= 1:
        raise ReplicationError(f"peak_contrast must be within 0 and 1, not {peak_contrast}.")
    images = read_intensities(reference, test, color_encoding, device)
    response, adaptation = retinal_response(
        images,
        pixels_per_degree,
        surround=surround,
        rgb_display=rgb_display,
        peak_sensitivity=PEAK_SENSITIVITY - math.log10(PEAK_RESPONSE * peak_contrast),
    )
    del images
    bands = cortex_bands(response.float())
    del response
    level = adaptation.clamp_(1e-5, 1e5).log10_().float()

    unchanged = torch.ones(3, *bands[-1].shape[2:], device=level.device)
    lower = torch.zeros(bands[-1].shape, device=level.device)
    contrasts = [_magnitude(band) for band in bands]
    for k in reversed(range(len(bands))):
        contrast, shape = contrasts[k], tuple(contrasts[k].shape[2:])
        if tuple(unchanged.shape[1:]) != shape:
            unchanged, lower = _doubled(unchanged, shape), _doubled(lower, shape)
        beside = contrast.roll(1, 0).maximum(contrast.roll(-1, 0)).maximum(lower)
        if k:
            beside = beside.maximum(contrasts[k - 1][..., ::2, ::2])
        lower = contrast.maximum(_CROSSTALK_FALL * lower)
        sensitivity = _sensitivity(level, shape, pixels_per_degree / (3 * 2**k))
        changes = _changes(bands[k], contrast, beside, sensitivity)
        for miss, change in zip(unchanged, changes, strict=True):
            for probability in change:
                miss.addcmul_(miss, probability, value=-1)
        bands[k] = None
    maps = (1 - unchanged).clamp_(0, 1)
    if not isinstance(reference, torch.Tensor):
        maps = maps.numpy(force=True)
    return DRIMResult(*maps)


def cortex_bands(images: torch.Tensor) -> list[torch.Tensor]:
    """Split images into complex bands of spatial frequency and orientation.

    The filters pass the bands of Daly (1993). They preserve energy (squares add up to a constant),
    have no kinks, so that waves beside an edge soon die out, and let only one of two opposite
    directions pass. A grating of amplitude 1 and the frequency and orientation of a band has the
    magnitude 1 everywhere in that band, and 0 in all others. Band ``k`` has the frequency
    ``2^-k / 3`` cycles/pixel and passes from half of it to its double; the first passes all above, but
    fades out from 0.4 to 0.5 cycles/pixel in a row or column. Images are mirrored about their edge
    pixels.

    Parameters
    ----------
    images : torch.Tensor (N, H, W)
        float32 or float64, any device; H and W of at least 17 pixels.

    Returns
    -------
    list of torch.Tensor
        Complex (6, N, h, w) from fine to coarse, normal of the waves at 0, 30, ... 150 degrees from
        the x to the y axis (down); each second pixel of each second row of the band before.
    """
    bands = []
    for level in range(level_count(*images.shape[1:])):
        height, width = images.shape[1:]
        spectra = torch.fft.fft2(_closed(_closed(images, 1), 2))
        tall, wide = spectra.shape[1:]
        options = {"dtype": images.dtype, "device": images.device}
        down = torch.fft.fftfreq(tall, **options)[:, None]
        across = torch.fft.fftfreq(wide, **options)
        radius, angle = torch.hypot(down, across), torch.atan2(down, across)
        if level == 0:
            quarter = _fade(6 * radius - 1)
            high = torch.sin(quarter) * _taper(down) * _taper(across)
            bands.append(_oriented(spectra, high, angle)[..., :height, :width])
            spectra *= torch.cos(quarter)
        eighth = _fade(12 * radius - 1)
        height, width = (height + 1) // 2, (width + 1) // 2
        band = _oriented(spectra, torch.sin(eighth), angle, halve=True)
        bands.append(band[..., :height, :width])
        images = torch.fft.ifft2(_folded(spectra * torch.cos(eighth))).real[..., :height, :width]
    return bands


def _oriented(
    spectra: torch.Tensor, radial: torch.Tensor, angle: torch.Tensor, *, halve: bool = False
) -> torch.Tensor:
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


def _closed(images: torch.Tensor, axis: int) -> torch.Tensor:
    """Images with a margin in which the mirror images of both ends fade into each other."""
    count = images.shape[axis]
    length = fast_length(count + _MARGIN)
    place = np.arange(length)
    ends = []
    for position in (place, length - place):
        position = position % (2 * count - 2)
        ends.append(torch.from_numpy(np.minimum(position, 2 * count - 2 - position)))
    fade = np.clip((place - count + 1) / (length - count + 1), 0, 1)
    shape = [-1 if n == axis else 1 for n in range(images.ndim)]
    fade = torch.from_numpy((1 - np.cos(np.pi * fade)) / 2).to(images).view(shape)
    left, right = (images.index_select(axis, end.to(images.device)) for end in ends)
    return torch.lerp(left, right, fade)


def _fade(place: torch.Tensor) -> torch.Tensor:
    """From 0 before place 0 to a right angle after place 1, without a kink; in place."""
    place.clamp_(0, 1)
    return (3 - 2 * place).mul_(place.square_()).mul_(math.pi / 2)


def _taper(frequency: torch.Tensor) -> torch.Tensor:
    """1 up to 0.4 cycles/pixel, 0 at 0.5."""
    return torch.cos(_fade(10 * frequency.abs() - 4))


def _sensitivity(level: torch.Tensor, shape: tuple[int, int], frequency: float) -> torch.Tensor:
    """Neural sensitivity (2, h, w) of each image to a frequency, at its own log-luminance."""
    local = torch.stack([resize_bicubic(image, shape) for image in level])
    return sensitivity_map(local.clamp_(-5, 5), frequency)


def _changes(
    responses: torch.Tensor, contrast: torch.Tensor, beside: torch.Tensor, sensitivity: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Loss, amplification and reversal, each (o, h, w), of a band's responses (o, 2, h, w)."""
    energy = contrast.square()
    own = energy.sub((_CROSSTALK * beside).square_()).clamp_(min=0).sqrt_()
    visible = 1 - _undetected(own.mul_(sensitivity / _VISIBLE))
    invisible = _undetected(_nearby(contrast, torch.maximum).mul_(sensitivity))
    for probability in (visible, invisible):
        threshold_(probability, 0.5, 0)
    (reference, test), (reference_90, test_90) = responses.real.unbind(1), responses.imag.unbind(1)
    together = _nearby((reference * test).addcmul_(reference_90, test_90), torch.add)
    energy = _nearby(energy, torch.add)
    opposite = together < _OPPOSITION * (energy[:, 0] * energy[:, 1]).sqrt_()
    return (
        visible[:, 0] * invisible[:, 1],
        invisible[:, 0] * visible[:, 1],
        visible[:, 0] * visible[:, 1] * opposite,
    )


def _magnitude(responses: torch.Tensor) -> torch.Tensor:
    return responses.real.square().addcmul_(responses.imag, responses.imag).sqrt_()


def _undetected(contrast: torch.Tensor) -> torch.Tensor:
    """Probability of missing a contrast in units of the threshold, in place."""
    return contrast.pow_(_SLOPE).mul_(-math.log(2)).exp_()


def _nearby(
    maps: torch.Tensor, join: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """Maximum or sum over 3 x 3 pixels, cut at the border."""
    for axis in (-1, -2):
        result, count = maps.clone(), maps.shape[axis] - 1
        for here, there in ((0, 1), (1, 0)):
            part = result.narrow(axis, here, count)
            join(part, maps.narrow(axis, there, count), out=part)
        maps = result
    return maps


def _doubled(maps: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """Maps on the even rows and columns of a finer grid, linear between them."""
    for axis, length in zip((-2, -1), shape, strict=True):
        size = list(maps.shape)
        size[axis] = length
        finer, count = maps.new_empty(size), maps.shape[axis]
        even, odd = ([slice(None)] * maps.ndim for _ in range(2))
        even[axis], odd[axis] = slice(0, None, 2), slice(1, None, 2)
        finer[tuple(even)] = maps
        following = maps.narrow(axis, 1, count - 1)
        if length % 2 == 0:  # beyond the last sample it goes on as it is
            following = torch.cat([following, maps.narrow(axis, count - 1, 1)], axis)
        finer[tuple(odd)] = (maps.narrow(axis, 0, length // 2) + following) / 2
        maps = finer
    return maps


def overlay(
    result: DRIMResult, image: np.ndarray | torch.Tensor, *, opacity: float = 0.9
) -> np.ndarray:
    """Paint what changed over a grey picture: green loss, blue amplification, red reversal.

    Each pixel shows only its most probable change, as opaque as this is probable.

    Parameters
    ----------
    result : DRIMResult
        From :func:`drim`.
    image : array or tensor (H, W) or (H, W, 3)
        The test: luminance or linear RGB in any unit, finite and not negative, whose luminances
        between the 1st and the 99th percentile are shown on a logarithmic scale from dark to light
        grey; or a display-encoded uint8 picture, shown as it is.
    opacity : float
        Opacity of a certain change, 0 to 1.

    Returns
    -------
    np.ndarray
        uint8 (H, W, 3), display-encoded RGB.

    Raises
    ------
    ReplicationError
        If the image has another size than the maps, is no such image, or `opacity` is out of range.
    """
    if not 0 <= opacity <= 1:
        raise ReplicationError(f"opacity must be within 0 and 1, not {opacity}.")
    maps = np.stack([_array(image) for image in result])
    image = _array(image)
    if image.shape not in (maps.shape[1:], (*maps.shape[1:], 3)):
        raise ReplicationError(
            f"An overlay on maps of shape {maps.shape[1:]} needs an image of their size, "
            f"not of shape {image.shape}."
        )
    strongest = maps.argmax(0)
    alpha = opacity * np.take_along_axis(maps, strongest[None], 0)[0, ..., None]
    palette = np.array([_rgb(colour) for colour in (LOSS, AMPLIFICATION, REVERSAL)], np.float32)
    picture = (1 - alpha) * _grey(image)[..., None] + alpha * palette[strongest]
    return np.rint(picture).astype(np.uint8)


def _array(image: np.ndarray | torch.Tensor) -> np.ndarray:
    return image.numpy(force=True) if isinstance(image, torch.Tensor) else np.asarray(image)


def _rgb(colour: str) -> list[int]:
    return list(bytes.fromhex(colour.removeprefix("#")))


def _grey(image: np.ndarray) -> np.ndarray:
    """Grey levels (H, W), 0 to 255, in float32."""
    light = luminance_of(image) if image.ndim == 3 else image
    if image.dtype == np.uint8:
        return light.astype(np.float32)
    if (
        not np.issubdtype(image.dtype, np.floating)
        or not np.isfinite(light).all()
        or (light < 0).any()
    ):
        raise ReplicationError(
            "An overlay needs an image of finite, not negative floating-point values or of uint8."
        )
    log = np.log10(np.maximum(light, 1e-12))
    low, high = np.percentile(log[light > 0], (1, 99)) if (light > 0).any() else (0.0, 0.0)
    if high - low < 1e-3:  # a plain picture
        return np.full(light.shape, 128, np.float32)
    return np.clip(40 + 190 * (log - low) / (high - low), 20, 250).astype(np.float32)
