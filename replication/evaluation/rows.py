"""One row per image: what it says, how rows are computed, written, read, reused and summarised."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed
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
from replication.provenance import usable_cores

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
    """A way to infer images: a name in the tables, a function, the hash of what it learnt.

    `run` gives {ev: image (H, W, 3) in 0..255} in the tables of exposures; in Table 5 it is picklable and
    gives an HDR image, float32 (H, W, 3) in any unit.
    """

    name: str
    run: Callable[[ExposureStack], Any]
    weights_hash: str = "none"


def base_row(stack: ExposureStack, method: Method, **own: Any) -> dict[str, Any]:
    """All columns of a row but its metrics; `own` are those that only the caller knows."""
    height, width = stack.shape[:2]
    row = {"dataset": stack.dataset, "split": stack.split or "none", "scene": stack.scene}
    row |= {"method": method.name, "weights_hash": method.weights_hash}
    return row | {"width": width, "height": height, "data_range": 255, "border": 0} | own


def kept_rows(path: str | Path, expected: Iterable[Mapping[str, Any]]) -> pd.DataFrame | None:
    """Rows of an earlier run in `path`, if they are what would be computed now; else None.

    All but the metrics must equal `expected` (:func:`base_row`), and the code be no edited working tree.
    """
    try:
        rows = read_rows(path)
    except ReplicationError:
        return None
    facts = rows.drop(columns=METRICS, errors="ignore").to_dict("records")
    same = {frozenset(row.items()) for row in facts} == {frozenset(r.items()) for r in expected}
    return rows if same and not rows["code_version"].str.endswith("dirty").any() else None


def write_rows(path: str | Path, rows: pd.DataFrame | Iterable[Mapping[str, Any]]) -> Path:
    """Write rows as sorted CSV, metrics with six decimals: the same rows give the same bytes."""
    frame = _checked(pd.DataFrame(rows if isinstance(rows, pd.DataFrame) else list(rows)), path)
    for name in METRICS.keys() & set(frame.columns):
        frame[name] = ["" if pd.isna(v) else f"{v + 0.0:.6f}" for v in frame[name].round(6)]
    frame["data_range"] = [f"{value:g}" for value in frame["data_range"]]
    with atomic_path(path) as temporary:
        frame.to_csv(temporary, index=False, lineterminator="\n", encoding="utf-8")
    return Path(path)


def read_rows(path: str | Path) -> pd.DataFrame:
    """Read what :func:`write_rows` wrote: texts (also a scene ``001``), int64 and float64 columns.

    Raises:
        ReplicationError: No such table; a wrong column, type, cell or key: says which column and row.
    """
    try:
        with warnings.catch_warnings(action="error", category=pd.errors.ParserWarning):
            frame = pd.read_csv(path, dtype=str, index_col=False, keep_default_na=False)
    except OSError as error:
        raise ReplicationError(f"Cannot read {path}: {error.strerror}.") from error
    except (ValueError, pd.errors.ParserWarning) as error:
        raise ReplicationError(
            f"{path} is not a CSV table: {f'{error}'.splitlines()[0]}"
        ) from error
    return _checked(frame, path)


def _checked(frame: pd.DataFrame, where: str | Path) -> pd.DataFrame:
    """Check rows; return them typed, their columns in order, sorted by the keys."""
    needed = [name for name in (*KEYS, *PROTOCOL) if name not in ("ev", "scaling", "seed")]
    if frame.empty:
        raise ReplicationError(f"{where}: there are no rows.")
    if unknown := [str(name) for name in frame.columns if name not in ROW_COLUMNS]:
        known = ", ".join(ROW_COLUMNS)
        raise ReplicationError(f"{where}: unknown column {', '.join(unknown)}; known are: {known}.")
    if missing := [name for name in needed if name not in frame.columns]:
        raise ReplicationError(f"{where}: missing column {', '.join(missing)}.")
    if not METRICS.keys() & set(frame.columns):
        raise ReplicationError(f"{where}: no metric column; known are: {', '.join(METRICS)}.")
    typed = pd.DataFrame({n: _typed(frame[n], where) for n in ROW_COLUMNS if n in frame.columns})
    if (twice := typed.duplicated(keys := [name for name in KEYS if name in typed])).any():
        found = ", ".join(map(str, typed.loc[twice, keys].iloc[0]))
        raise ReplicationError(f"{where}: two rows for {found}.")
    return typed.sort_values([n for n in _ORDER if n in keys], kind="stable", ignore_index=True)


def _typed(column: pd.Series, where: str | Path) -> pd.Series:
    """Return the column as texts, float64 or int64; refuse empty cells and NaN."""
    name, whole, kind = column.name, column.name in _WHOLE, "a text"
    bad = np.array([not isinstance(value, str) or not value.strip() for value in column])
    values = column.astype(str)
    if whole or name in METRICS or name == "data_range":
        kind = "a whole number" if whole else "a number"
        values = pd.to_numeric(column, errors="coerce").astype(float)
        bad = values.isna().to_numpy() | (whole and values.mod(1).ne(0).to_numpy())  # inf, too
        if name in MAY_BE_EMPTY:
            bad &= [str(value).strip().lower() not in ("", "nan") for value in column]
    if bad.any():
        row, value = bad.argmax() + 1, column.tolist()[bad.argmax()]
        raise ReplicationError(f"{where}: row {row}, column {name}: {value!r} is not {kind}.")
    return values.astype("int64") if whole else values


def summarise(
    rows: pd.DataFrame, by: Sequence[str] = _ORDER[:5], metrics: Sequence[str] | None = None
) -> pd.DataFrame:
    """Mean, σ (divisor n - 1) and number of the per-image values of `metrics` (all of the rows).

    Returns:
        A row per group in order of appearance: the columns `by`; ``n``; ``METRIC_mean``, of decibels for a
        PSNR; ``METRIC_sigma``; ``n_METRIC`` for each of :data:`MAY_BE_EMPTY`, other cells must be filled.
    """
    metrics = list(metrics or [name for name in METRICS if name in rows.columns])
    if missing := [name for name in (*by, *metrics) if name not in rows.columns]:
        raise ReplicationError(f"The rows have no column {', '.join(missing)}.")
    filled = rows[[name for name in (*by, *metrics) if name not in MAY_BE_EMPTY]]
    if empty := filled.columns[filled.isna().any()].tolist():
        raise ReplicationError(f"The rows have empty cells in column {', '.join(empty)}.")
    groups = rows.groupby(list(by), sort=False)
    columns = {"n": groups.size()}
    with np.errstate(invalid="ignore"):  # an infinite PSNR has no σ
        for name in metrics:
            columns |= {f"{name}_mean": groups[name].mean(), f"{name}_sigma": groups[name].std()}
            columns |= {f"n_{name}": groups[name].count()} if name in MAY_BE_EMPTY else {}
    return pd.DataFrame(columns).reset_index()


def check_jobs(jobs: int) -> int:
    """Return the number of processes; ReplicationError if it is not positive."""
    if jobs < 1:
        raise ReplicationError(f"The number of processes must be at least 1, not {jobs}.")
    return jobs


def in_processes(work, items: Sequence, jobs: int, label: str, unit: str, device=None) -> Iterator:
    """Yield ``(number, work(items[number]))`` as they are done, in any order.

    Everything must be picklable, but for one job or item, which runs in this process. Processes share the
    cores, and the GPUs unless `device` names one of them. After an error or Ctrl-C nothing new begins.
    """
    jobs, results = min(check_jobs(jobs), len(items)), enumerate(map(work, items))
    if jobs > 1:
        results = _shared(work, items, jobs, torch.device(device or "cuda").index is None)
    return iter(progress(results, len(items), label, unit))


def progress(items: Iterable, total: int, label: str, unit: str) -> Iterable:
    """Show a bar in a terminal, a line every five minutes elsewhere, nothing in a worker."""
    quiet, worker = 0 if sys.stderr.isatty() else 300, multiprocessing.parent_process() is not None
    times = {"delay": quiet, "mininterval": quiet or 0.1, "maxinterval": quiet or 10}
    return tqdm(items, label, total, unit=unit, disable=worker, **times)


def _shared(work: Callable, items: Sequence, jobs: int, one_gpu_each: bool) -> Iterator:
    context = multiprocessing.get_context("spawn")
    first = (max(1, usable_cores() // jobs), context.Value("i", 0) if one_gpu_each else None)
    with ProcessPoolExecutor(jobs, context, _start, first) as pool:
        try:
            futures = {pool.submit(work, item): number for number, item in enumerate(items)}
            yield from ((futures[done], done.result()) for done in as_completed(futures))
        except BrokenExecutor as error:
            raise ReplicationError("A process was killed; is the memory full?") from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _start(threads: int, started) -> None:
    """Begin a worker with its share of the cores; the parent reports Ctrl-C and progress."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.environ["TQDM_DISABLE"] = "1"
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    if started is not None:
        _one_gpu(started)


def _one_gpu(started) -> None:
    """Show the GPUs to the workers in turn, one to each, before CUDA begins."""
    if (count := torch.cuda.device_count()) > 1:
        with started.get_lock():
            number, started.value = started.value % count, started.value + 1
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(count)))
        os.environ["CUDA_VISIBLE_DEVICES"] = visible.split(",")[number]
