"""HDR-VDP-2.2.1: visibility and quality of differences at all luminances (Section 6.2).

The visual model of Mantiuk et al. (2011, doi 10.1145/2010324.1964935) with the pooling into one number of
Narwaria et al. (2015, doi 10.1117/1.JEI.24.1.010501). DEVIATIONS D27 to D31 say which release, display and
size, and where the computation differs from the original.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch.nn.functional import pad

from replication.files import ReplicationError
from replication.metrics import vision
from replication.metrics.pyramid import rebuild, resize_bicubic, steerable_pyramid
from replication.metrics.vision import Image

# Masking: exponents of signal and mask, weights of self, cross-orientation and neighbouring bands
_MASK_P, _MASK_Q = 10**0.544068, 10**0.49576
_MASK_SELF, _MASK_ORIENTATION, _MASK_NEIGHBOUR = 10**0.189065, 10**0.449199, 10**1.52512
_PSYCHOMETRIC_SLOPE = 3.5

# Weight of a band in the quality of both releases, by its frequency in cycles/degree
_FREQUENCIES = (0.1172, 0.2344, 0.4688, 0.9375, 1.875, 3.75, 7.5, 15.0, 30.0, 60.0)
_WEIGHTS_221 = (0.0, 0.0, 0.0003, 0.0003, 0.0398, 0.2690, 0.2142, 0.2832, 0.2832, 0.0)
_WEIGHTS_220 = (0.0002, 0.0002, 0.0003, 0.0003, 0.0398, 0.2690, 0.2142, 0.2832, 0.2832, 0.2832)
_TINY = 1e-12
_CELLS = 1 << 15  # values of a band worked on at once
Bands = list[tuple[torch.Tensor, torch.Tensor]]


class HDRVDP2Result(NamedTuple):
    """Scores and maps (H, W) of a test image.

    Attributes:
        Q: Quality of release 2.2.1: 100 for identical images, lower is worse; depends on the image's size.
        Q_220: Quality of release 2.2.0, a mean log difference: higher is worse.
        Q_MOS: Release 2.2.0's prediction of a mean opinion score, 0 to 100, higher is better.
        P_map: Probability, 0 to 1, that an observer sees a difference at each pixel.
        P_det: The largest of `P_map`.
        C_max: The largest of `C_map`.
        C_map: Visible contrast of the difference at each pixel; 1 is seen half of the time.
    """

    Q: float
    Q_220: float
    Q_MOS: float
    P_map: Image
    P_det: float
    C_max: float
    C_map: Image


def pixels_per_degree(diagonal_in: float, resolution: tuple[int, int], distance_m: float) -> float:
    """Pixels per degree of visual angle at the centre of a display.

    Args:
        diagonal_in: Diagonal in inches.
        resolution: Width and height in (square) pixels.
        distance_m: Distance of the observer in metres.

    Returns:
        33.5102139115 for the paper's display: 24 inches, 1920 x 1200, 0.5 m (Section 6.2).

    Raises:
        ReplicationError: A value is not positive and finite.
    """
    width, height = resolution
    if not all(0 < value < math.inf for value in (diagonal_in, width, height, distance_m)):
        found = f"{diagonal_in} in, {width} x {height}, {distance_m} m"
        raise ReplicationError(
            f"A display needs a positive diagonal, resolution and distance, not {found}."
        )
    height_mm = 25.4 * diagonal_in / math.hypot(1, width / height)
    return height / (2 * math.degrees(math.atan(0.5 * height_mm / (1000 * distance_m))))


@torch.no_grad()
def hdrvdp2(
    test: Image,
    reference: Image,
    color_encoding: str,
    pixels_per_degree: float,
    *,
    surround: float = vision.SURROUND,
    rgb_display: str = "ccfl-lcd",
    do_masking: bool = True,
    do_mtf: bool = True,
    do_spatial_pooling: bool = True,
    peak_sensitivity: float = vision.PEAK_SENSITIVITY,
    dtype: torch.dtype | str = torch.float64,
    device: torch.device | str | None = None,
) -> HDRVDP2Result:
    """Compare a test image with a reference as a human observer would (HDR-VDP-2.2.1).

    Args:
        test: Array or tensor (H, W, 3), or (H, W) for the encodings ``luminance`` and ``luma-display``;
            sides of at least 17 pixels; 0 to 1e15 cd/m2; NaN becomes 1e-5 (DEVIATIONS D30).
        reference: The same.
        color_encoding: ``luminance`` (cd/m2); ``rgb-bt.709`` (linear; R = G = B = Y means Y cd/m2); ``XYZ``
            (CIE 1931, Y in cd/m2); or display codes within 0 and 1, or uint8: ``luma-display``
            (99 V^2.2 + 1 cd/m2) and ``sRGB-display`` (99 times the linear value + 1 cd/m2).
        pixels_per_degree: Resolution of the image for the observer (:func:`pixels_per_degree`).
        surround: Luminance around the image in cd/m2; -1: geometric mean of each reference channel.
        rgb_display: Display with the primaries of the image: ``ccfl-lcd``, ``crt`` or ``led-lcd``.
        do_masking: Whether contrast masks differences.
        do_mtf: Whether light scatters in the eye.
        do_spatial_pooling: Whether a pixel's visibility grows with that of all others.
        peak_sensitivity: Decimal logarithm of the peak contrast sensitivity.
        dtype: ``torch.float64``, or ``torch.float32``: faster, and moves Q by less than 1e-3 (optics,
            retina and the visibility map stay in float64).
        device: Where to compute; by default where `reference` is.

    Returns:
        HDRVDP2Result; its maps are tensors on `device` if `reference` is a tensor, else arrays.

    Raises:
        ReplicationError: Wrong shapes or values, or an option that is unknown or out of range.

    Warns:
        UserWarning: No pixel exceeds 1 cd/m2, so the images may be relative.
    """
    name = str(dtype).removeprefix("torch.")
    if name not in ("float64", "float32"):
        raise ReplicationError(f"HDR-VDP-2 computes in float64 or float32, not {dtype}.")
    dtype = getattr(torch, name)
    images = vision.read_intensities(reference, test, color_encoding, device)
    # where any channel differs by more than 0.1 %: 0/0 counts as equal, x/0 as different
    changed = ((images[1] - images[0]).abs_().div_(images[0]) > 1e-3).any(0)
    changed = None if bool(changed.all()) else changed  # None: everywhere
    response, adaptation = vision.retinal_response(
        images, pixels_per_degree, surround, rgb_display, do_mtf, peak_sensitivity
    )
    del images
    bands = _decompose(response, adaptation, pixels_per_degree, dtype)
    level = adaptation.mean(0).clamp_(1e-5, 1e5).log10_().to(dtype)
    steps = ((pair[0].shape[1:], pixels_per_degree / 2**k) for k, pair in enumerate(bands[:-1], 1))
    sensitivities = [vision.sensitivity_map(level, *step) for step in steps]
    sensitivities.append(torch.ones_like(bands[-1][0][0]))  # the base band has been filtered
    masks = [_mutual_mask(*pair) for pair in bands] if do_masking else None
    compared = (_compare(*each, bands, masks, changed) for each in enumerate(sensitivities))
    visible, errors = zip(*compared, strict=True)
    del bands, masks, sensitivities

    # float64 again: products of spectra spread the rounding of the largest value everywhere
    contrast = rebuild([seen.double() for seen in visible]).abs_()
    if do_spatial_pooling:
        contrast *= contrast.sum() / (contrast.max() + _TINY)
    probability = torch.expm1(-math.log(2) * contrast).neg_().to(dtype)
    contrast = contrast.to(dtype)
    if not isinstance(reference, torch.Tensor):
        contrast, probability = contrast.numpy(force=True), probability.numpy(force=True)
    peaks = float(probability.max()), float(contrast.max())
    return HDRVDP2Result(*_qualities(errors, pixels_per_degree), probability, *peaks, contrast)


def _decompose(response, adaptation, resolution: float, dtype: torch.dtype) -> Bands:
    """Contrast bands (o, h, w) of the reference and of the difference, from fine to coarse.

    In float32 the difference keeps its digits however small it is; the test would not.
    """
    reference, test = response
    bands = steerable_pyramid(torch.stack([reference, test - reference]).to(dtype))
    base = bands[-1][0].double()
    base[0] -= base[0].mean()
    base[1] += base[0]
    # the base band times the neural sensitivity at the mean luminance of each image, zero outside
    (height, width), step = base.shape[1:], 2 ** (len(bands) - 1.5) / resolution
    rho = np.hypot(np.fft.fftfreq(2 * height, step)[:, None], np.fft.rfftfreq(2 * width, step))
    luminance = adaptation.mean((1, 2)).numpy(force=True)[:, None, None]
    spectra = torch.fft.rfft2(base, s=(2 * height, 2 * width))
    spectra *= torch.from_numpy(vision.neural_csf(rho, luminance)).to(base)
    base = torch.fft.irfft2(spectra, s=(2 * height, 2 * width))[:, :height, :width]
    base[1] -= base[0]
    bands[-1] = base[None].to(dtype)
    # the pyramid doubles the amplitude from level to level
    return [images.mul_(2.0**-band).unbind(1) for band, images in enumerate(bands)]


def _mutual_mask(reference: torch.Tensor, difference: torch.Tensor) -> torch.Tensor:
    """Contrast (o, h, w) that both images have: the smaller of the two, in a 3 x 3 mean."""
    common = pad(torch.minimum((reference + difference).abs_(), reference.abs()), (1, 1, 1, 1))
    lines = (common[:, :-2] + common[:, 1:-1]).add_(common[:, 2:])
    return (lines[..., :-2] + lines[..., 1:-1]).add_(lines[..., 2:]).div_(9)


def _neighbours(masks: Sequence[torch.Tensor], band: int) -> torch.Tensor:
    """Mutual contrast (o, h, w) of the next finer and coarser bands; the base masks nothing."""
    near = torch.zeros_like(masks[band])
    for other in (band - 1, band + 1):
        if 0 <= other < len(masks) - 1:
            for o, total in enumerate(near):
                mask = masks[other][o if len(masks[other]) > 1 else 0]
                total += resize_bicubic(mask, total.shape).clamp_(min=0)
    return near


def _compare(band: int, sensitivity, bands: Bands, masks, changed) -> tuple[torch.Tensor, np.ndarray]:
    """Visible differences (o, h, w) of a band, and the pooled error of each orientation."""
    gain, difference = 2.0**band, bands[band][1]
    count, height, width = difference.shape
    mask = masks and (masks[band], _neighbours(masks, band))
    if changed is not None:
        changed = resize_bicubic(changed.to(difference.dtype), (height, width))
    visible = torch.empty_like(difference)
    squares = torch.zeros(count, dtype=torch.float64, device=difference.device)
    for rows in vision.strips(height, difference.device, _CELLS // (count * width)):
        part = mask and [contrast[:, rows] for contrast in mask]
        level = _log_difference(gain, difference[:, rows], part, sensitivity[rows])
        error = level.exp()
        if changed is not None:
            error *= changed[rows]
        squares += error.square_().sum((1, 2), dtype=torch.float64)
        level.mul_(_PSYCHOMETRIC_SLOPE / _MASK_P).exp_().mul_(gain)
        torch.copysign(level, difference[:, rows], out=visible[:, rows])
    return visible, gain * squares.sqrt().numpy(force=True) / (height * width)


def _log_difference(gain: float, difference, mask, sensitivity) -> torch.Tensor:
    """Logarithm of the contrast difference (o, h, w) after neural noise and masking."""
    log_sensitivity = sensitivity.log()
    noise = torch.exp(-2 * _MASK_P * log_sensitivity)
    if mask is not None:
        own, near = mask
        masking = _power(own.clone(), _MASK_SELF)
        if len(own) > 1:
            masking += _power((own.sum(0) - own).clamp_(min=0), _MASK_ORIENTATION)
        masking += _power(near.clone(), _MASK_NEIGHBOUR)
        masking.mul_(torch.exp(_MASK_Q * log_sensitivity).mul_(gain))
        noise = noise + masking.square_()
    return difference.abs().log_().mul_(_MASK_P).sub_(noise.log_(), alpha=0.5)


def _power(mask: torch.Tensor, weight: float) -> torch.Tensor:
    """``weight * mask**q`` in place."""
    return mask.log_().mul_(_MASK_Q).add_(math.log(weight)).exp_()


def _qualities(errors: Sequence[np.ndarray], resolution: float) -> tuple[float, float, float]:
    """Q of 2.2.1, and Q and Q_MOS of 2.2.0, from the mean error of each band and orientation."""
    q, q_220 = 100.0, 0.0
    for band, error in enumerate(errors):
        frequency, logs = resolution / 2 ** (band + 1), np.log(error + _TINY)
        q -= np.interp(frequency, _FREQUENCIES, _WEIGHTS_221) * np.sum(logs - math.log(_TINY))
        q_220 += np.interp(frequency, _FREQUENCIES, _WEIGHTS_220) * np.sum(logs)
    q_220 /= sum(map(len, errors))
    return float(q), float(q_220), float(100 / (1 + math.exp(3.455 * (q_220 + 0.8886))))
