"""Camera response and radiance map from a stack of exposures (Debevec & Malik, SIGGRAPH 1997).

The paper merges its stacks with this method (Sec. 4.5 and 6.2, reference [9]) through the HDR
Toolbox for MATLAB (reference [6]), whose conventions of January 2018 are followed here: histogram
samples of Grossberg & Nayar (PAMI 2003, doi 10.1109/TPAMI.2003.1240119), smoothness 20, hat weights
of height 1, logarithmic merge, and a rule that fills in pixels without any usable exposure
(DEVIATIONS D16 and D17). Two
things are made deterministic: the common factor of the three response curves (see
:func:`estimate_response`), and the order of the stack, which is sorted by exposure time, so that
results do not depend on the arguments' order.

References
----------
P. E. Debevec, J. Malik, "Recovering high dynamic range radiance maps from photographs", SIGGRAPH
1997, doi 10.1145/258734.258884.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from replication.files import ReplicationError
from replication.images import check_frames

MID_LEVEL = 127
"""Level at which the three channels of a response are made equal ("mid grey")."""

_LEVELS = np.arange(256)
_LOG_DELTA = float(np.log(1 / 65536))
_NO_WEIGHT = 1e-4
_LARGEST = float(np.finfo(np.float32).max)
_BLOCK_PIXELS = 1 << 15
_EXACT_COUNT = 1 << 24


def _sorted_stack(
    images: Sequence[np.ndarray] | np.ndarray, exposure_times: Sequence[float] | np.ndarray
) -> tuple[list[np.ndarray], np.ndarray]:
    """Check images and times; return both, ascending in exposure time."""
    images = check_frames(images)
    times = np.asarray(exposure_times, dtype=np.float64)
    if times.shape != (len(images),):
        raise ReplicationError(
            f"The exposure stack has {len(images)} images, but its exposure times have "
            f"shape {times.shape}."
        )
    if not (np.isfinite(times) & (times > 0)).all():
        raise ReplicationError(f"Exposure times must be positive and finite, not {times.tolist()}.")
    order = np.argsort(times, kind="stable")
    return [images[i] for i in order], times[order]


def _histogram(image: np.ndarray, channel: int) -> np.ndarray:
    """Pixels per level, in blocks whose counts OpenCV's float32 histogram holds exactly."""
    step = max(1, _EXACT_COUNT // image.shape[1])
    count = np.zeros(256)
    for top in range(0, image.shape[0], step):
        block = np.ascontiguousarray(image[top : top + step])
        count += cv2.calcHist([block], [channel], None, [256], [0, 256]).ravel()
    return count


def sample_grossberg(images: Sequence[np.ndarray] | np.ndarray, samples: int = 256) -> np.ndarray:
    """Corresponding levels of all images, found by matching their cumulative histograms.

    Row `i` holds, for each image and channel, the first level whose cumulative share of the pixels
    is nearest to ``i / (samples - 1)``. Levels of one row belong to the same radiance whatever the
    image content, as long as the pixels' order is kept by the exposure, so no pixel positions are
    needed (Grossberg & Nayar 2003).

    Parameters
    ----------
    images : sequence of N uint8 arrays (H, W, 3), or one array (N, H, W, 3)
        RGB exposures of the same scene, in any order.
    samples : int
        Number of rows, at least 2.

    Returns
    -------
    np.ndarray
        int64, shape (samples, N, 3), levels 0 to 255.

    Raises
    ------
    ReplicationError
        If the stack is empty, the images are not uint8 RGB of one size, or `samples` is below 2.
    """
    images = check_frames(images)
    if samples < 2:
        raise ReplicationError(f"The response needs at least 2 samples, not {samples}.")
    shares = np.linspace(0.0, 1.0, samples)
    levels = np.empty((samples, len(images), 3), dtype=np.int64)
    for index, image in enumerate(images):
        for channel in range(3):
            cumulative = np.cumsum(_histogram(image, channel)) / image[..., 0].size
            levels[:, index, channel] = np.abs(cumulative - shares[:, None]).argmin(axis=1)
    return levels


def solve_response(
    samples: np.ndarray, log_times: Sequence[float] | np.ndarray, smoothness: float
) -> np.ndarray:
    """Log response of one channel by weighted linear least squares (Debevec & Malik, eq. 3).

    Minimises, over `g` and the log radiance ``ln E_i`` of every row,
    ``sum w(z_ij)^2 [g(z_ij) - ln E_i - ln t_j]^2 + smoothness^2 sum w(z)^2 g''(z)^2 + g(128)^2``
    with ``w(z) = min(z, 255 - z) / 127.5``. The ``ln E_i`` are eliminated exactly (each row is
    projected on the complement of its weights), which leaves 256 unknowns; where the data leave `g`
    undetermined the solution of smallest norm is taken.

    Parameters
    ----------
    samples : int array (S, N)
        Levels 0 to 255 of one channel: S radiances seen in N images.
    log_times : float array (N,)
        Natural logarithm of the exposure times, any unit.
    smoothness : float
        Weight of the second derivative (lambda), positive; the paper's toolbox used 20.

    Returns
    -------
    np.ndarray
        float64, shape (256,): ``g(z) = ln(exposure at level z)``, with ``g(128) = 0``.

    Raises
    ------
    ReplicationError
        If shapes do not fit, a level is outside 0 to 255, or `smoothness` is not positive.
    """
    samples = np.asarray(samples)
    log_times = np.asarray(log_times, dtype=np.float64)
    if samples.ndim != 2 or log_times.shape != samples.shape[1:]:
        raise ReplicationError(
            f"The response needs samples (S, N) and N log times, not shapes {samples.shape} "
            f"and {log_times.shape}."
        )
    if not np.issubdtype(samples.dtype, np.integer) or samples.min() < 0 or samples.max() > 255:
        raise ReplicationError("The samples of a response must be integer levels from 0 to 255.")
    if not (np.isfinite(smoothness) and smoothness > 0):
        raise ReplicationError(f"The smoothness must be positive, not {smoothness}.")

    rows, frames = samples.shape
    weight = np.minimum(_LEVELS, 255 - _LEVELS) / 127.5
    row_weight = weight[samples]
    norm = np.linalg.norm(row_weight, axis=1, keepdims=True)
    unit = np.divide(row_weight, norm, out=np.zeros_like(row_weight), where=norm > 0)
    project = np.eye(frames) - unit[:, :, None] * unit[:, None, :]

    data = np.zeros((rows, frames, 256))
    for frame in range(frames):
        data[np.arange(rows), :, samples[:, frame]] += (
            project[:, :, frame] * row_weight[:, frame, None]
        )
    target = np.einsum("rij,rj->ri", project, row_weight * log_times)

    curve = np.zeros((255, 256))
    inner = np.arange(1, 255)
    for offset, tap in ((-1, 1.0), (0, -2.0), (1, 1.0)):
        curve[inner - 1, inner + offset] = smoothness * weight[inner] * tap
    curve[254, 128] = 1.0

    system = np.vstack([data.reshape(rows * frames, 256), curve])
    right = np.concatenate([target.ravel(), np.zeros(255)])
    return np.linalg.lstsq(system, right, rcond=None)[0]


def estimate_response(
    images: Sequence[np.ndarray] | np.ndarray,
    exposure_times: Sequence[float] | np.ndarray,
    *,
    smoothness: float = 20.0,
    samples: int = 256,
) -> np.ndarray:
    """Response of the three channels of a camera, as log exposure per level.

    Each channel is solved by :func:`solve_response` on :func:`sample_grossberg`. As in the toolbox,
    the channels are then made equal at level 127 (mid grey stays neutral) and divided by the
    largest exposure of the unscaled blue curve. The toolbox finds the three channel
    factors by a simplex search that determines only their ratios and leaves the common factor to
    wherever the search ends (within 1 % of 1); here their geometric mean is exactly 1.

    Parameters
    ----------
    images : sequence of N uint8 arrays (H, W, 3), or one array (N, H, W, 3)
        RGB exposures of the same scene, in any order, N at least 2.
    exposure_times : float array (N,)
        Exposure of each image, positive, in any unit; ``2**EV`` for a stack of known EVs.
    smoothness : float
        See :func:`solve_response`.
    samples : int
        See :func:`sample_grossberg`.

    Returns
    -------
    np.ndarray
        float64, shape (256, 3), RGB: natural logarithm of the relative exposure at each level.

    Raises
    ------
    ReplicationError
        On images that are not uint8 RGB of one size, times that are not positive or do not fit the
        images, fewer than two different exposure times, or bad options.
    """
    images, times = _sorted_stack(images, exposure_times)
    if times[0] == times[-1]:
        raise ReplicationError(
            "The response needs images of at least two different exposure times."
        )
    levels = sample_grossberg(images, samples)
    log_times = np.log(times)
    curves = np.stack(
        [solve_response(levels[:, :, c], log_times, smoothness) for c in range(3)], axis=1
    )
    at_mid = curves[MID_LEVEL]
    return curves - at_mid + at_mid.mean() - curves[:, 2].max()


def level_weights(weight: str = "Deb97") -> np.ndarray:
    """Weight of each 8-bit level in the merge.

    With ``x = level / 255``: ``Deb97`` is ``2 min(x, 1 - x)``; ``hat`` is ``1 - (2x - 1)^12``;
    ``Robertson`` is ``(exp(-16 (x - 1/2)^2) - e^-4) / (1 - e^-4)``; ``all`` and ``box`` are 1 (the
    toolbox's box keeps the closed interval from 0 to 1).

    Parameters
    ----------
    weight : str
        One of the names above.

    Returns
    -------
    np.ndarray
        float64, shape (256,), in [0, 1].

    Raises
    ------
    ReplicationError
        If the name is unknown.
    """
    x = _LEVELS / 255.0
    match weight:
        case "Deb97":
            return 2 * np.minimum(x, 1 - x)
        case "hat":
            return 1 - (2 * x - 1) ** 12
        case "Robertson":
            floor = np.exp(-4.0)
            return (np.exp(-16 * (x - 0.5) ** 2) - floor) / (1 - floor)
        case "all" | "box":
            return np.ones(256)
    raise ReplicationError(
        f"Unknown merge weight {weight!r}: use Deb97, all, hat, Robertson or box."
    )


def _merge_tables(
    response: np.ndarray, times: np.ndarray, weight: str, merge: str
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Per image, what a level adds to the numerator and to the denominator, each (256, 3)."""
    weights = np.repeat(level_weights(weight)[:, None], 3, axis=1)
    if merge == "log":
        log_exposure = np.logaddexp(response, _LOG_DELTA)
        return [weights * (log_exposure - t) for t in np.log(times)], [weights] * len(times)
    exposure = _exp(response)
    if merge == "linear":
        return [weights * exposure / t for t in times], [weights] * len(times)
    if merge == "w_time_sq":
        return [weights * exposure * t for t in times], [weights * t**2 for t in times]
    raise ReplicationError(f"Unknown merge {merge!r}: use log, linear or w_time_sq.")


def _exp(log_radiance: np.ndarray) -> np.ndarray:
    """Exponential that stays inside the positive float32 numbers."""
    return np.exp(np.clip(log_radiance, -87.0, 88.0))


def merge(
    images: Sequence[np.ndarray] | np.ndarray,
    exposure_times: Sequence[float] | np.ndarray,
    response: np.ndarray,
    *,
    weight: str = "Deb97",
    merge: str = "log",
    fill_in: bool = True,
) -> np.ndarray:
    """Radiance map from a stack of exposures (Debevec & Malik, eq. 6).

    With the exposure ``lin = exp(response[level])``, time `t` and weight `w` of every image:

    * ``log``: ``exp(sum w [ln(lin + 1/65536) - ln t] / sum w)``;
    * ``linear``: ``sum w lin/t / sum w``;
    * ``w_time_sq``: ``sum w lin t / sum w t^2``.

    Where the weights of a channel add up to at most 1e-4, no image is usable. Then, if the middle
    image of the stack (number ``round(N/2)`` counted from 1, ascending in exposure time) is bright
    (level above 127.5), all three channels are taken from the shortest exposure as ``lin/t``; if
    it is dark, from the longest, which prevails where both happen.

    Parameters
    ----------
    images : sequence of N uint8 arrays (H, W, 3), or one array (N, H, W, 3)
        RGB exposures of the same scene, in any order.
    exposure_times : float array (N,)
        Exposure of each image, positive, in any unit.
    response : float array (256, 3)
        Natural log of the exposure at each level, such as :func:`estimate_response` returns.
    weight : str
        Deb97, all, hat, Robertson or box, see :func:`level_weights`.
    merge : str
        log, linear or w_time_sq.
    fill_in : bool
        Apply the rule for pixels without a usable exposure. If False, such channels are 0.

    Returns
    -------
    np.ndarray
        float32, shape (H, W, 3), linear RGB radiance in the unit of `response`'s exposure per unit
        of time; finite and not negative for any input.

    Raises
    ------
    ReplicationError
        On images that are not uint8 RGB of one size, times that are not positive or do not fit the
        images, a response that is not finite (256, 3), or an unknown option.

    Notes
    -----
    Works in blocks of rows through look-up tables: memory beyond the images is the result (12 bytes
    per pixel) plus some 10 MB.
    """
    images, times = _sorted_stack(images, exposure_times)
    response = np.asarray(response, dtype=np.float64)
    if response.shape != (256, 3) or not np.isfinite(response).all():
        raise ReplicationError(
            f"The response must be 256 x 3 finite log exposures, not shape {response.shape}"
            f"{'' if response.shape != (256, 3) else ' with NaN or infinite values'}."
        )
    numerators, denominators = (
        [np.ascontiguousarray(table[None]) for table in tables]
        for tables in _merge_tables(response, times, weight, merge)
    )
    shortest = _exp(response - np.log(times[0]))
    longest = _exp(response - np.log(times[-1]))
    middle = images[(len(images) + 1) // 2 - 1]

    height, width = middle.shape[:2]
    radiance = np.empty((height, width, 3), dtype=np.float32)
    step = max(1, _BLOCK_PIXELS // width)
    channels = np.arange(3)
    for top in range(0, height, step):
        rows = slice(top, top + step)
        blocks = [np.ascontiguousarray(image[rows]) for image in images]
        total = np.zeros(blocks[0].shape)
        weights = np.zeros(blocks[0].shape)
        for block, numerator, denominator in zip(blocks, numerators, denominators, strict=True):
            total += cv2.LUT(block, numerator)
            weights += cv2.LUT(block, denominator)
        mean = np.divide(total, weights, out=np.zeros_like(total), where=weights > 0)
        mean = _exp(mean) if merge == "log" else np.minimum(mean, _LARGEST)
        mean *= weights > 0
        unusable = weights <= _NO_WEIGHT
        if fill_in and unusable.any():
            bright = middle[rows] > MID_LEVEL
            for where, source, table in (
                (unusable & bright, blocks[0], shortest),
                (unusable & ~bright, blocks[-1], longest),
            ):
                pixels = where.any(axis=2)
                mean[pixels] = table[source[pixels], channels]
        radiance[rows] = mean
    return radiance
