"""Camera response and radiance map from a stack of exposures (Debevec & Malik, SIGGRAPH 1997).

The paper merges its stacks with this method (Sections 4.5 and 6.2, [9]) through the HDR Toolbox for
MATLAB [6]. The conventions here are those of the toolbox of January 2018 (DEVIATIONS D16 and D17):
samples of Grossberg & Nayar, smoothness 20, hat weights, logarithmic merge, and a rule for pixels
that no exposure shows. The order of the frames does not matter: they are sorted by exposure time.

Sources: Debevec & Malik, doi 10.1145/258734.258884; Grossberg & Nayar, 10.1109/TPAMI.2003.1240119.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from replication.files import ReplicationError
from replication.images import check_frames

Frames = Sequence[np.ndarray] | np.ndarray
Times = Sequence[float] | np.ndarray

WEIGHTS = np.minimum(np.arange(256), 255 - np.arange(256)) / 127.5  # hat, 0 at 0 and 255

SMOOTHNESS = 20.0  # weight of the second derivative of the response (lambda)
MID_LEVEL = 127  # "mid grey", where the responses of the three channels are made equal
_LOG_DELTA = np.log(1 / 65536)
_BLOCK_PIXELS = 1 << 15


def sample_grossberg(images: Frames) -> np.ndarray:
    """Find levels that belong together in all frames by matching their cumulative histograms.

    Row i holds, per frame and channel, the first level with a cumulative share of pixels nearest to
    ``i / 255``. Exposure keeps the order of the pixels, so no positions are needed.

    Args:
        images: N frames, uint8 (H, W, 3) RGB, of the same scene; others are a ReplicationError.

    Returns:
        int64 (256, N, 3), levels 0 to 255.
    """
    shares = np.linspace(0, 1, 256)[:, None]
    levels = np.empty((256, len(images), 3), dtype=np.int64)
    for index, image in enumerate(map(np.ascontiguousarray, check_frames(images))):
        for channel in range(3):
            histogram = cv2.calcHist([image], [channel], None, [256], [0, 256])
            cumulative = histogram.astype(np.float64).ravel().cumsum()
            levels[:, index, channel] = np.abs(cumulative / cumulative[-1] - shares).argmin(axis=1)
    return levels


def solve_response(samples: np.ndarray, log_times: Times, smoothness: float = SMOOTHNESS) -> np.ndarray:
    """Solve the log response g of one channel by weighted least squares (1997, eq. 3).

    Minimises, over g and the log radiance ``ln E_i`` of every row,
    ``sum w(z_ij)^2 [g(z_ij) - ln E_i - ln t_j]^2 + smoothness^2 sum w(z)^2 g''(z)^2 + g(128)^2``.
    The ``ln E_i`` are eliminated exactly: each row is projected on the complement of its weights.
    Where the data leave g open, the solution of smallest norm is taken.

    Args:
        samples: int (S, N), levels 0 to 255 of one channel: S radiances in N frames.
        log_times: float (N,), natural logarithm of the exposure times, in any unit.
        smoothness: Weight of the second derivative (lambda), positive.

    Returns:
        float64 (256,): ``g(z)``, the log exposure at level z, with ``g(128) = 0``.
    """
    rows, frames = samples.shape
    w = WEIGHTS[samples]
    norm = np.linalg.norm(w, axis=1, keepdims=True)
    unit = np.divide(w, norm, out=np.zeros_like(w), where=norm > 0)
    project = np.eye(frames) - unit[:, :, None] * unit[:, None, :]
    data = np.zeros((rows, frames, 256))
    for j in range(frames):
        data[np.arange(rows), :, samples[:, j]] += project[:, :, j] * w[:, j, None]
    target = np.einsum("rij,rj->ri", project, w * log_times)
    curve = smoothness * WEIGHTS[1:-1, None] * np.diff(np.eye(256), 2, axis=0)
    system = np.vstack([data.reshape(-1, 256), curve, np.arange(256) == 128])
    right = np.concatenate([target.ravel(), np.zeros(255)])
    return np.linalg.lstsq(system, right, rcond=None)[0]


def estimate_response(images: Frames, exposure_times: Times, smoothness=SMOOTHNESS) -> np.ndarray:
    """Estimate the response of a camera's three channels.

    Each channel is solved by itself. Then the channels are made equal at level 127, by factors of
    geometric mean 1, and divided by the largest exposure of the unscaled blue curve. The toolbox
    leaves the common factor to where a simplex search ends, within 1 % of 1.

    Args:
        images: N frames, uint8 (H, W, 3) RGB, of the same scene, N at least 2.
        exposure_times: N positive times in any unit; ``2**EV`` for a stack of known EVs.
        smoothness: As in `solve_response`.

    Returns:
        float64 (256, 3): natural logarithm of the relative exposure at each level, RGB.

    Raises:
        ReplicationError: Bad frames or times; fewer than two different times.
    """
    images, times = _sorted_stack(images, exposure_times)
    if times[0] == times[-1]:
        raise ReplicationError("The response needs at least two different exposure times.")
    levels = sample_grossberg(images)
    g = np.stack([solve_response(levels[..., c], np.log(times), smoothness) for c in range(3)], axis=1)
    return g - g[MID_LEVEL] + g[MID_LEVEL].mean() - g[:, 2].max()


def merge(images: Frames, exposure_times: Times, response: np.ndarray) -> np.ndarray:
    """Merge a stack of exposures into a radiance map (1997, eq. 6).

    Each channel is ``exp(sum w [ln(exp(g) + 1/65536) - ln t] / sum w)`` over the frames. Where a
    channel is 0 or 255 in every frame, the middle frame (number ``round(N/2)`` from 1) decides: if
    it is bright there, all three channels are ``exp(g)/t`` of the shortest exposure, else of the
    longest. The longest wins where both apply. A stack that is black throughout gives a black map,
    because the response estimated from it is arbitrary.

    Args:
        images: N frames, uint8 (H, W, 3) RGB, of the same scene.
        exposure_times: N positive times in any unit.
        response: float (256, 3), log exposure at each level, as from `estimate_response`.

    Returns:
        float32 (H, W, 3), linear RGB, relative radiance: finite and not negative for any frames.

    Raises:
        ReplicationError: Bad frames or times; a response that is not (256, 3) or not finite.
    """
    images, times = _sorted_stack(images, exposure_times)
    response = np.asarray(response, dtype=np.float64)
    if response.shape != (256, 3) or not np.isfinite(response).all():
        found = "NaN or infinite values" if response.shape == (256, 3) else response.shape
        raise ReplicationError(f"The response must be 256 x 3 finite log exposures, not {found}.")
    radiance = np.zeros(images[0].shape, dtype=np.float32)
    if not any(image.any() for image in images):
        return radiance
    weight = np.repeat(WEIGHTS[None, :, None], 3, axis=2)
    log_exposure = np.logaddexp(response, _LOG_DELTA)
    weighted = [weight * (log_exposure - log_time) for log_time in np.log(times)]
    shortest, longest = _exp(response - np.log(times[0])), _exp(response - np.log(times[-1]))
    middle = (len(images) + 1) // 2 - 1
    step = max(1, _BLOCK_PIXELS // radiance.shape[1])  # blocks of rows bound the memory
    for top in range(0, radiance.shape[0], step):
        rows = [np.ascontiguousarray(image[top : top + step]) for image in images]
        total = sum(cv2.LUT(frame, table) for frame, table in zip(rows, weighted, strict=True))
        weights = sum(cv2.LUT(frame, weight) for frame in rows)
        block = _exp(np.divide(total, weights, out=np.zeros_like(total), where=weights > 0))
        unusable, bright = weights == 0, rows[middle] > MID_LEVEL
        burnt, dark = (unusable & bright).any(axis=2), (unusable & ~bright).any(axis=2)
        block[burnt] = shortest[rows[0][burnt], np.arange(3)]
        block[dark] = longest[rows[-1][dark], np.arange(3)]
        radiance[top : top + step] = block
    return radiance


def _exp(x: np.ndarray) -> np.ndarray:
    return np.exp(np.clip(x, -87, 88))  # within the positive float32 numbers


def _sorted_stack(images: Frames, exposure_times: Times) -> tuple[list[np.ndarray], np.ndarray]:
    """Check frames and times; return both, ascending in exposure time."""
    images, times = check_frames(images), np.asarray(exposure_times, dtype=np.float64)
    if times.shape != (len(images),):
        raise ReplicationError(f"{len(images)} images need as many times, not shape {times.shape}.")
    if not (np.isfinite(times) & (times > 0)).all():
        raise ReplicationError(f"Exposure times must be positive and finite, not {times.tolist()}.")
    order = np.argsort(times, kind="stable")
    return [images[i] for i in order], times[order]
