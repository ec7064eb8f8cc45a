"""One row per image: its columns; how rows are computed, written, read, used again and summarised."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from replication.data.stacks import ExposureStack
from replication.files import ReplicationError, atomic_path
from replication.provenance import THREADS, usable_cores

KEYS = {
    "table": "table of the paper that the row belongs to: table1 … table5, or sensitivity",
    "dataset": "data set: mini, hdrps, empa or vds",
    "split": "train, val, test, or none",
    "scene": "name of the scene",
    "method": "what made the image: identity, tone_curve, deep_chain, …",
    "ev": "EV of the image compared, a whole number; no such column where HDR images are compared",
    "scaling": "how test and truth were scaled, in the study of it only",
    "seed": "seed of the training, a whole number, in ablations only; 0 for what is not trained",
}
METRICS = {
    "psnr": "PSNR in dB over all pixels and channels (inf when identical); Table 5: tone-mapped",
    "ssim": "SSIM in [-1, 1]",
    "ms_ssim": "MS-SSIM in [0, 1]",
    "hdrvdp2_q": "HDR-VDP-2.2.1 quality score, at most 100",
    "hdrvdp2_q_mos": "HDR-VDP-2.2.0 prediction of a mean opinion score, 0 to 100",
    "pu21_psnr": "PSNR of PU21 values in dB",
    "pu21_ssim": "SSIM of PU21 values",
    "log_rmse_unclipped": "RMSE of log10 luminance over the pixels that EV 0 holds unclipped",
    "log_rmse_clipped": "the same where EV 0 clips a channel or more; empty where nothing clips",
    "log_rmse_clipped_partly": "the same where EV 0 clips one or two channels; may be empty",
    "log_rmse_clipped_fully": "the same where EV 0 clips all three channels; may be empty",
    "clipped_share": "share of the pixels of EV 0 that have a clipped channel, 0 to 1",
    "drim_loss": "DRIM: probability of lost visible contrast, mean over the pixels, in %",
    "drim_amplification": "the same of amplified contrast",
    "drim_reversal": "the same of reversed contrast",
}
PROTOCOL = {
    "width": "pixels compared, across",
    "height": "pixels compared, down",
    "data_range": "the metric's data range: 255 for 8-bit images, 1 for floats",
    "border": "pixels left out at each edge",
    "weights_hash": "SHA-256 of what was learnt: weights or tone curve (any prefix), or none",
    "data_hash": "SHA-256 of the true image, of all exposures where HDR images are compared (prefix)",
    "code_version": "what replication.provenance.code_version() says",
}
ROW_COLUMNS = KEYS | METRICS | PROTOCOL | {"recipe": "how the weights were trained, or none"}
ROW_COLUMNS |= {"protocol": "anything else that a metric depends on"}
"""Column -> meaning, in the order of the CSV; recipe, protocol and all metrics but one may be absent."""

MAY_BE_EMPTY = ("log_rmse_clipped", "log_rmse_clipped_partly", "log_rmse_clipped_fully")
"""Metrics that some images do not have; their means are over the images that have them."""

_WHOLE = ("ev", "seed", "width", "height", "border")
_ORDER = ("table", "dataset", "split", "method", "ev", "scaling", "seed", "scene")


@dataclass(frozen=True)
class Method:
    """What infers images: `run` gives {ev: (H, W, 3) in 0..255} or, for Table 5, a float32 HDR image."""

    name: str
    run: Callable[[ExposureStack], Any]
    weights_hash: str = "none"


def base_row(stack: ExposureStack, method: Method, **own: Any) -> dict[str, Any]:
    """All columns of a row but its metrics; `own` are those that only the caller knows."""
    row = {"dataset": stack.dataset, "split": stack.split or "none", "scene": stack.scene}
    row |= {"method": method.name, "weights_hash": method.weights_hash}
    row |= {"width": stack.shape[1], "height": stack.shape[0], "data_range": 255, "border": 0}
    return row | own


def kept_rows(path: str | Path, expected: Iterable[Mapping[str, Any]]) -> pd.DataFrame | None:
    """Rows in `path`, if all but their metrics is as `expected` and the code is not edited; else None."""
    with suppress(ReplicationError):
        rows = read_rows(path)
        facts = rows.drop(columns=METRICS, errors="ignore").to_dict("records")
        same = {frozenset(row.items()) for row in facts} == {frozenset(r.items()) for r in expected}
        if same and not rows["code_version"].str.endswith("dirty").any():
            return rows
    return None


def write_rows(path: str | Path, rows: pd.DataFrame | Iterable[Mapping[str, Any]]) -> Path:
    """Write rows as sorted CSV, metrics with six decimals: the same rows give the same bytes."""
    frame = _checked(pd.DataFrame(rows), path)
    for name in METRICS.keys() & set(frame.columns):
        frame[name] = ["" if pd.isna(v) else f"{v + 0.0:.6f}" for v in frame[name].round(6)]
    frame["data_range"] = [f"{value:g}" for value in frame["data_range"]]
    with atomic_path(path) as temporary:
        frame.to_csv(temporary, index=False, lineterminator="\n", encoding="utf-8")
    return Path(path)


def read_rows(path: str | Path) -> pd.DataFrame:
    """Read what :func:`write_rows` wrote: texts (also a scene ``001``), int64 and float64 columns.

    ReplicationError says which table is missing, or which column and row are wrong.
    """
    try:
        with warnings.catch_warnings(action="error", category=pd.errors.ParserWarning):
            return _checked(pd.read_csv(path, dtype=str, index_col=False, na_filter=False), path)
    except (OSError, ValueError, pd.errors.ParserWarning) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise ReplicationError(f"Cannot read {path} as a CSV table: {reason}.") from error


def _checked(frame: pd.DataFrame, where: str | Path) -> pd.DataFrame:
    """Check rows; return them typed, their columns in order, sorted by the keys."""
    unknown = ", ".join(str(name) for name in frame.columns if name not in ROW_COLUMNS)
    missing = ", ".join(n for n in KEYS | PROTOCOL if n not in {*frame, "ev", "scaling", "seed"})
    for problem, found in {
        "there are no rows.": frame.empty,
        f"unknown column {unknown}; known are: {', '.join(ROW_COLUMNS)}.": unknown,
        f"missing column {missing}.": missing,
        f"no metric column; known are: {', '.join(METRICS)}.": METRICS.keys().isdisjoint(frame),
    }.items():
        if found:
            raise ReplicationError(f"{where}: {problem}")
    typed = pd.DataFrame({n: _typed(frame[n], where) for n in ROW_COLUMNS if n in frame.columns})
    if (twice := typed.duplicated(keys := [name for name in KEYS if name in typed])).any():
        found = ", ".join(map(str, typed.loc[twice, keys].iloc[0]))
        raise ReplicationError(f"{where}: two rows for {found}.")
    return typed.sort_values([n for n in _ORDER if n in keys], kind="stable", ignore_index=True)


def _typed(cells: pd.Series, where: str | Path) -> pd.Series:
    """Return a column as texts, float64 or int64; refuse empty cells and NaN."""
    name, whole, kind = cells.name, cells.name in _WHOLE, "a text"
    typed, bad = cells, cells.map(lambda value: not isinstance(value, str) or not value.strip())
    if whole or name in METRICS or name == "data_range":
        kind, typed = "a number", pd.to_numeric(cells, errors="coerce").astype(float)
        bad = typed.isna()
        if name in MAY_BE_EMPTY:
            bad &= cells.notna() & ~cells.isin(["", "nan"])
    if whole:
        kind, bad = "a whole number", typed.mod(1).ne(0)  # the remainder of inf and NaN is NaN
    if bad.any():
        row, value = bad.argmax() + 1, cells[bad].tolist()[0]
        raise ReplicationError(f"{where}: row {row}, column {name}: {value!r} is not {kind}.")
    return typed.astype("int64") if whole else typed


def summarise(rows: pd.DataFrame, by: Sequence[str] = _ORDER[:5]) -> pd.DataFrame:
    """Mean, σ (divisor n - 1) and number of the per-image values of each metric.

    Returns a row per group in order of appearance: the columns `by`; ``n``; ``METRIC_mean``, of decibels
    for a PSNR; ``METRIC_sigma``; ``n_METRIC`` for :data:`MAY_BE_EMPTY`. Other cells must be filled.
    """
    metrics = [name for name in METRICS if name in rows.columns]
    for name in (*by, *metrics):
        if name not in rows.columns or (name not in MAY_BE_EMPTY and rows[name].isna().any()):
            raise ReplicationError(f"The rows have no column {name}, or empty cells in it.")
    groups, columns = rows.groupby(list(by), sort=False), {}
    with np.errstate(invalid="ignore"):  # an infinite PSNR has no σ
        for name in metrics:
            columns |= {f"{name}_mean": groups[name].mean(), f"{name}_sigma": groups[name].std()}
            columns |= {f"n_{name}": groups[name].count()} if name in MAY_BE_EMPTY else {}
    return pd.DataFrame({"n": groups.size()} | columns).reset_index()


def at_least_one(number: int, what: str) -> int:
    """Return the number; ReplicationError if it is not positive."""
    if number < 1:
        raise ReplicationError(f"The number of {what} must be at least 1, not {number}.")
    return number


def in_processes(work, items: Sequence, jobs: int, label: str, unit: str, device=None) -> Iterator:
    """Yield ``(number, work(items[number]))`` as they are done, in any order; show the progress.

    More than one process needs picklable things; they share the cores, and the GPUs unless `device` names
    one. After an error or Ctrl-C nothing new begins.
    """
    jobs, results = min(at_least_one(jobs, "processes"), len(items)), enumerate(map(work, items))
    if jobs > 1:
        results = _shared(work, items, jobs, torch.device(device or "cuda").index is None)
    wait = 0 if sys.stderr.isatty() else 300  # seconds between two lines of progress
    times = {"delay": wait, "mininterval": wait or 0.1, "maxinterval": wait or 10}
    worker = multiprocessing.parent_process() is not None  # the parent shows the progress
    return iter(tqdm(results, label, len(items), unit=unit, disable=worker, **times))


def _shared(work: Callable, items: Sequence, jobs: int, one_gpu_each: bool) -> Iterator:
    context, count = multiprocessing.get_context("spawn"), torch.cuda.device_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(count)))
    gpus = context.SimpleQueue()
    for number in range(jobs):
        gpus.put(visible.split(",")[number % max(count, 1)])
    first = max(1, usable_cores() // jobs), gpus if one_gpu_each else None
    for name in THREADS:  # read when a worker loads numpy
        os.environ.setdefault(name, str(first[0]))
    with ProcessPoolExecutor(jobs, context, _start, first) as pool:
        try:
            futures = {pool.submit(work, item): number for number, item in enumerate(items)}
            yield from ((futures[done], done.result()) for done in as_completed(futures))
        except BrokenExecutor as error:
            raise ReplicationError("A process was killed; is the memory full?") from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _start(threads: int, gpus) -> None:
    """Begin a worker with its share of the cores and a GPU; the parent reports Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    if gpus is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus.get()  # before CUDA begins
