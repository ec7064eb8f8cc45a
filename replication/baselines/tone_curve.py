"""The baseline that a network must beat: one curve per channel and exposure, learnt from stacks.

For each EV 0 level 0 to 255 of a channel, the curve holds the mean value of this channel in the target
exposure, over all pixels of the training scenes. It knows nothing of the pixels around.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from replication import files
from replication.data.stacks import load_stacks
from replication.files import ReplicationError
from replication.images import check_photo
from replication.paper import EVS
from replication.reconstruct import merge_stack

REFERENCE = files.SHIPPED / "tone_curve.csv"  # learnt from the training scenes of `hdrps`

Stack = dict[int, np.ndarray]  # EV -> uint8 (H, W, 3)
Curves = dict[int, np.ndarray]  # EV -> float64 (256, 3), mean target level for each EV 0 level


def fit(stacks: Iterable[Stack], evs: Iterable[int] = EVS, *, source: int = 0) -> Curves:
    """Learn the curves; levels that no pixel has are interpolated linearly from their neighbours.

    The curves lead from the exposure `source` to `evs`. ReplicationError if there is no stack, or one
    lacks an exposure.
    """
    counts, sums = np.zeros((256, 3)), {ev: np.zeros((256, 3)) for ev in evs}
    for number, images in enumerate(stacks):
        if missing := [ev for ev in (source, *sums) if ev not in images]:
            raise ReplicationError(f"Stack {number} lacks EV {missing[0]:+d}.")
        for channel in range(3):
            level = images[source][..., channel].ravel()
            counts[:, channel] += np.bincount(level, minlength=256)
            for ev, total in sums.items():
                total[:, channel] += np.bincount(level, images[ev][..., channel].ravel(), 256)
    if not counts.any():
        raise ReplicationError("The tone curve needs at least one stack to learn from.")
    for channel in range(3):
        seen = np.flatnonzero(counts[:, channel])
        for total in sums.values():
            mean = total[seen, channel] / counts[seen, channel]
            total[:, channel] = np.interp(np.arange(256), seen, mean)
    return sums


def for_dataset(dataset: str) -> tuple[Curves, str]:
    """Curves learnt on the training scenes of a data set, and 12 hex digits that identify them.

    `hdrps`, `openstacks` and `empa` have the shipped curves; the digits are the start of a SHA-256.
    """
    if dataset in ("hdrps", "openstacks", "empa"):
        return read(), files.sha256_file(REFERENCE)[:12]
    return _fitted(dataset, files.data_root())


@cache
def _fitted(dataset: str, root: Path) -> tuple[Curves, str]:
    curves = fit(stack.images for stack in load_stacks(dataset, "train", root=root))
    return curves, files.sha256_array(np.stack([curves[ev] for ev in sorted(curves)]))[:12]


def infer_stack(ldr: np.ndarray, curves: Curves | None = None, *, rounded: bool = True) -> Stack:
    """Apply curves (by default the shipped ones) to a photo, uint8 (H, W, 3), EV 0.

    Returns EV -> uint8 (H, W, 3), ascending, with the photo at EV 0. Not `rounded`, the inferred images
    keep the mean levels as float32 in 0 to 255, which scores 0.02 to 0.05 dB more.
    """
    images = {0: check_photo(ldr)}
    for ev, curve in (read() if curves is None else curves).items():
        table = np.rint(curve).astype(np.uint8) if rounded else curve.astype(np.float32)
        images[ev] = np.stack([table[ldr[..., c], c] for c in range(3)], axis=-1)
    return dict(sorted(images.items()))


def expand(ldr: np.ndarray, curves: Curves | None = None) -> np.ndarray:
    """HDR image of a photo by `infer_stack` and Debevec's merge: float32 (H, W, 3), relative."""
    return merge_stack(infer_stack(ldr, curves))


def write(path: str | Path, curves: Curves) -> None:
    """Write curves as CSV: a row per EV 0 level, columns ``ev+1_r`` …, levels in 0 to 255."""
    frame = pd.DataFrame(index=pd.RangeIndex(256, name="level"))
    for ev in sorted(curves):
        frame[[f"ev{ev:+d}_{c}" for c in "rgb"]] = curves[ev]
    with files.atomic_path(path) as temporary:
        frame.to_csv(temporary, float_format="%.4f", lineterminator="\n")


def read(path: str | Path = REFERENCE) -> Curves:
    """Read what `write` wrote; ReplicationError if the file is missing or holds no such curves."""
    try:
        table = pd.read_csv(path, index_col="level")
        evs = dict.fromkeys(int(column[2:-2]) for column in table.columns)
        curves = {ev: table[[f"ev{ev:+d}_{c}" for c in "rgb"]].to_numpy(np.float64) for ev in evs}
    except OSError as error:
        raise ReplicationError(f"No tone curves at {path}: {error.strerror}.") from error
    except (ValueError, KeyError) as error:
        raise ReplicationError(f"{path} holds no tone curves.") from error
    if len(table) != 256 or not curves or not np.isfinite(table.to_numpy()).all():
        raise ReplicationError(f"{path} holds no tone curves of 256 levels.")
    return curves
