"""The baseline that a network must beat: one curve per channel and exposure, learnt from stacks.

For each EV 0 level 0..255 of a channel, the mean value that this channel has in the target
exposure, over all pixels of the training scenes. It knows nothing of the picture around a pixel.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from replication.files import SHIPPED, ReplicationError, atomic_path
from replication.images import check_photo
from replication.paper import EVS
from replication.reconstruct import merge_stack

REFERENCE = SHIPPED / "tone_curve.csv"
"""The shipped curves, learnt from the training scenes of `hdrps`."""


def fit(
    stacks: Iterable[dict[int, np.ndarray]], evs: Iterable[int] = EVS, *, source: int = 0
) -> dict[int, np.ndarray]:
    """Learn the curves; levels that no pixel has are interpolated linearly from their neighbours.

    Parameters
    ----------
    stacks
        One mapping per scene, EV -> uint8 ``(H, W, 3)``, each with EV 0 and all of `evs`.
    evs
        Exposures to learn.
    source
        Exposure that the curves start from; the baseline starts from EV 0.

    Returns
    -------
    dict of int to ndarray
        EV -> float64 ``(256, 3)``, mean target level in 0..255 for each EV 0 level.

    Raises
    ------
    ReplicationError
        If there is no stack or an exposure is missing.
    """
    evs = tuple(evs)
    counts = np.zeros((256, 3))
    sums = {ev: np.zeros((256, 3)) for ev in evs}
    for number, images in enumerate(stacks):
        missing = [ev for ev in (source, *evs) if ev not in images]
        if missing:
            raise ReplicationError(f"Stack {number} lacks EV {missing[0]:+d}.")
        for channel in range(3):
            level = images[source][..., channel].ravel()
            counts[:, channel] += np.bincount(level, minlength=256)
            for ev in evs:
                target = images[ev][..., channel].ravel()
                sums[ev][:, channel] += np.bincount(level, target, minlength=256)
    if not counts.any():
        raise ReplicationError("The tone curve needs at least one stack to learn from.")
    levels = np.arange(256)
    curves = {ev: np.empty((256, 3)) for ev in evs}
    for channel in range(3):
        seen = counts[:, channel] > 0
        for ev in evs:
            mean = sums[ev][seen, channel] / counts[seen, channel]
            curves[ev][:, channel] = np.interp(levels, levels[seen], mean)
    return curves


def infer_stack(
    ldr: np.ndarray, curves: dict[int, np.ndarray] | None = None, *, rounded: bool = True
) -> dict[int, np.ndarray]:
    """Apply the curves to a photo.

    Parameters
    ----------
    ldr
        uint8 ``(H, W, 3)`` RGB, EV 0.
    curves
        From :func:`fit` or :func:`read`; by default the shipped ones.
    rounded
        Round to uint8, as every picture is; otherwise keep the mean levels as float32 in 0..255,
        which scores 0.02 to 0.05 dB more.

    Returns
    -------
    dict of int to ndarray
        EV -> uint8 (or float32) ``(H, W, 3)``, ascending; EV 0 is `ldr` itself.

    Raises
    ------
    ReplicationError
        If `ldr` is not uint8 RGB or the shipped curves are missing.
    """
    ldr = check_photo(ldr)
    images = {0: ldr}
    for ev, curve in (read() if curves is None else curves).items():
        table = np.rint(curve).astype(np.uint8) if rounded else curve.astype(np.float32)
        images[ev] = np.stack([table[ldr[..., c], c] for c in range(3)], axis=-1)
    return dict(sorted(images.items()))


def expand(ldr: np.ndarray, curves: dict[int, np.ndarray] | None = None) -> np.ndarray:
    """HDR image of a photo by the curves and Debevec's merge.

    Parameters
    ----------
    ldr, curves
        As in :func:`infer_stack`.

    Returns
    -------
    ndarray
        float32 ``(H, W, 3)`` linear RGB, relative radiance.

    Raises
    ------
    ReplicationError
        As in :func:`infer_stack`.
    """
    return merge_stack(infer_stack(ldr, curves))


def write(path: str | Path, curves: dict[int, np.ndarray]) -> None:
    """Write curves as CSV: one row per EV 0 level, columns ``ev+1_r`` …, levels in 0..255."""
    table = pd.DataFrame(index=pd.RangeIndex(256, name="level"))
    for ev in sorted(curves):
        for channel, name in enumerate("rgb"):
            table[f"ev{ev:+d}_{name}"] = curves[ev][:, channel]
    with atomic_path(path) as temporary:
        table.to_csv(temporary, float_format="%.4f", lineterminator="\n")


def read(path: str | Path = REFERENCE) -> dict[int, np.ndarray]:
    """Read what :func:`write` wrote.

    Raises
    ------
    ReplicationError
        If the file is missing or holds no curves of 256 levels.
    """
    try:
        table = pd.read_csv(path, index_col="level")
        evs = dict.fromkeys(int(column[2:-2]) for column in table.columns)
        curves = {ev: table[[f"ev{ev:+d}_{c}" for c in "rgb"]].to_numpy() for ev in evs}
    except FileNotFoundError as error:
        raise ReplicationError(f"No tone curves at {path}.") from error
    except (ValueError, KeyError) as error:
        raise ReplicationError(f"{path} holds no tone curves.") from error
    if any(curve.shape != (256, 3) or not np.isfinite(curve).all() for curve in curves.values()):
        raise ReplicationError(f"{path} holds no tone curves of 256 levels.")
    return curves
