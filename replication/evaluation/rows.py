"""From one row per image to tables: CSV in, mean and σ, Markdown beside the paper's numbers out.

The CSV files are the truth. A table in a README or a report is generated from them
(:func:`update_block`) and never edited by hand.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from replication.files import REFERENCE, ReplicationError, atomic_path  # noqa: F401 (adapter: REFERENCE is read from here)

KEYS = {
    "table": "table of the paper that the row belongs to: table1 … table5, or sensitivity",
    "dataset": "data set: mini, hdrps, empa, vds, or a folder's name",
    "split": "train, val or test",
    "scene": "name of the scene",
    "method": "what made the image: identity, tone_curve, deep_chain, …",
    "ev": "EV of the image compared, a whole number; no such column where HDR images are compared",
    "scaling": "how test and truth were scaled, in the study of it only",
    "seed": "of the training, a whole number, in ablations only; 0 for what is not trained",
}
METRICS = {
    "psnr": "PSNR in dB over all pixels and channels (inf when identical); Table 5: tone-mapped",
    "ssim": "SSIM in [-1, 1]",
    "ms_ssim": "MS-SSIM in [-1, 1]",
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
    "weights_hash": "SHA-256 of the weights (any prefix), or none",
    "data_hash": "SHA-256 of the true image (any prefix)",
    "code_version": "what replication.provenance.code_version() says",
}
OPTIONAL = {
    "recipe": "how the weights were trained, in a few words, or none",
    "protocol": "anything else that a metric depends on",
}
ROW_COLUMNS = KEYS | METRICS | PROTOCOL | OPTIONAL
"""Column -> meaning, in the order of the CSV. All of KEYS (but ``ev``, ``scaling``, ``seed``), all of
PROTOCOL and at least one of METRICS must be there; a cell is empty only in a column that says so."""

MAY_BE_EMPTY = ("log_rmse_clipped", "log_rmse_clipped_partly", "log_rmse_clipped_fully")
"""Errors over pixels of which an image may have none; means are over the images that have some."""

_WHOLE = ("ev", "seed", "width", "height", "border")
_NUMBERS = (*_WHOLE, *METRICS, "data_range")
METRIC_LABELS = {
    "psnr": "PSNR (dB)",
    "ssim": "SSIM",
    "ms_ssim": "MS-SSIM",
    "hdrvdp2_q": "VDP-Quality",
    "hdrvdp2_q_mos": "VDP Q_MOS",
    "pu21_psnr": "PU21-PSNR (dB)",
    "pu21_ssim": "PU21-SSIM",
    "log_rmse_unclipped": "log error, unclipped",
    "log_rmse_clipped": "log error, clipped",
    "log_rmse_clipped_partly": "1-2 channels clipped",
    "log_rmse_clipped_fully": "all 3 clipped",
    "drim_loss": "DRIM lost (%)",
    "drim_amplification": "amplified (%)",
    "drim_reversal": "reversed (%)",
}
_SPECIAL = {
    "psnr": 2,
    "hdrvdp2_q": 2,
    "hdrvdp2_q_mos": 1,
    "pu21_psnr": 2,
    "drim_loss": 2,
    "drim_amplification": 2,
    "drim_reversal": 2,
}
DECIMALS = dict.fromkeys(METRIC_LABELS, 3) | _SPECIAL
"""Metric -> digits behind the point in tables."""
_METRIC_DIGITS = 6


# --------------------------------------------------------------------------------------- rows


def write_rows(path: str | Path, rows: pd.DataFrame | Iterable[Mapping[str, Any]]) -> Path:
    """Write per-image rows as CSV, so that the same rows give the same bytes.

    Rows are sorted by their keys and columns put in the order of :data:`ROW_COLUMNS`; metrics are
    written with six decimals.

    Parameters
    ----------
    path : path
        File to write (whole or not at all).
    rows : DataFrame or iterable of mappings
        One per image, columns as in :data:`ROW_COLUMNS`.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    ReplicationError
        If there are no rows, a column is missing or unknown, a cell is empty, NaN or of the wrong
        type, or two rows have the same keys.
    """
    path = Path(path)
    frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
    frame = _checked(frame, f"Rows for {path}")
    for name in METRICS.keys() & set(frame.columns):
        frame[name] = [
            "" if pd.isna(value) else f"{value + 0.0:.{_METRIC_DIGITS}f}"
            for value in frame[name].round(_METRIC_DIGITS)
        ]
    frame["data_range"] = [f"{value:g}" for value in frame["data_range"]]
    with atomic_path(path) as temporary:
        frame.to_csv(temporary, index=False, lineterminator="\n", encoding="utf-8")
    return path


def read_rows(path: str | Path) -> pd.DataFrame:
    """Read and check per-image rows that :func:`write_rows` wrote.

    Returns
    -------
    DataFrame
        Columns as in :data:`ROW_COLUMNS`: texts, whole numbers, or float64; sorted by the keys.
        Texts stay texts (a scene ``001``, a method ``none``, a hash ``12e5``).

    Raises
    ------
    ReplicationError
        If the file is missing or not such a table; says which column and row.
    """
    path = Path(path)
    try:
        with warnings.catch_warnings(action="error", category=pd.errors.ParserWarning):
            frame = pd.read_csv(path, dtype=str, index_col=False, keep_default_na=False)
    except OSError as error:
        raise ReplicationError(f"Cannot read {path}: {error.strerror}.") from error
    except (ValueError, pd.errors.ParserWarning) as error:
        reason = " ".join(str(error).split())
        raise ReplicationError(f"{path} is not a CSV table: {reason}") from error
    return _checked(frame, str(path))


def _checked(frame: pd.DataFrame, where: str) -> pd.DataFrame:
    """Check rows; return them typed, their columns in order, sorted by the keys."""
    if frame.empty:
        raise ReplicationError(f"{where}: there are no rows.")
    if unknown := [str(name) for name in frame.columns if name not in ROW_COLUMNS]:
        raise ReplicationError(
            f"{where}: unknown column {', '.join(unknown)}; known are: {', '.join(ROW_COLUMNS)}."
        )
    needed = [name for name in (*KEYS, *PROTOCOL) if name not in ("ev", "scaling", "seed")]
    if missing := [name for name in needed if name not in frame.columns]:
        raise ReplicationError(f"{where}: missing column {', '.join(missing)}.")
    if not METRICS.keys() & set(frame.columns):
        raise ReplicationError(f"{where}: no metric column; known are: {', '.join(METRICS)}.")
    columns = [name for name in ROW_COLUMNS if name in frame.columns]
    typed = pd.DataFrame({name: _typed(frame[name], where) for name in columns})
    keys = [name for name in KEYS if name in columns]
    twice = typed.duplicated(keys)
    if twice.any():
        row = typed.loc[twice, keys].iloc[0]
        raise ReplicationError(f"{where}: two rows for {', '.join(map(str, row))}.")
    order = [
        name
        for name in ("table", "dataset", "split", "method", "ev", "scaling", "seed", "scene")
        if name in keys
    ]
    return typed.sort_values(order, kind="stable", ignore_index=True)


def _typed(column: pd.Series, where: str) -> pd.Series:
    """Return the column as texts, float64 or, where whole, int64; no empty cell, no NaN."""
    if column.name not in _NUMBERS:
        kind = "a text"
        bad = np.array([not isinstance(value, str) or not value.strip() for value in column])
        values = column.astype(str)
    else:
        kind = "a whole number" if column.name in _WHOLE else "a number"
        values = pd.to_numeric(column, errors="coerce").astype(float)
        bad = values.isna().to_numpy()
        if column.name in MAY_BE_EMPTY:
            bad = bad & [str(value).strip().lower() not in ("", "nan") for value in column]
        if column.name in _WHOLE:
            bad = bad | values.mod(1).ne(0).to_numpy()  # also true of inf
    if bad.any():
        row = int(bad.argmax())
        raise ReplicationError(
            f"{where}: row {row + 1}, column {column.name}: {column.tolist()[row]!r} is not {kind}."
        )
    return values.astype("int64") if column.name in _WHOLE else values


# ------------------------------------------------------------------------------------- tables


def summarise(
    rows: pd.DataFrame,
    by: Sequence[str] = ("table", "dataset", "split", "method", "ev"),
    metrics: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Mean, σ and number of the per-image values of each group.

    σ is the sample standard deviation (divisor n - 1, as Matlab's ``std``; the paper does not say
    which it gives); for a single image it is NaN. The mean is that of per-image values, so a PSNR
    is a mean of decibels, not the PSNR of a pooled error.

    Parameters
    ----------
    rows : DataFrame
        From :func:`read_rows`.
    by : sequence of str
        Columns that make the groups.
    metrics : sequence of str, optional
        Columns to summarise; every metric that the rows have unless given.

    Returns
    -------
    DataFrame
        One row per group in order of first appearance: the columns `by`, ``n``, and for each
        metric ``METRIC_mean`` and ``METRIC_sigma`` (float64).

    Raises
    ------
    ReplicationError
        If a column is not there or holds NaN without being one of :data:`MAY_BE_EMPTY`.
    """
    metrics = list(metrics or [name for name in METRICS if name in rows.columns])
    if missing := [name for name in (*by, *metrics) if name not in rows.columns]:
        raise ReplicationError(f"The rows have no column {', '.join(missing)}.")
    filled = [name for name in (*by, *metrics) if name not in MAY_BE_EMPTY]
    if empty := [name for name in filled if rows[name].isna().any()]:
        raise ReplicationError(f"The rows have empty cells in column {', '.join(empty)}.")
    groups = rows.groupby(list(by), sort=False)
    columns = {"n": groups.size()}
    with np.errstate(invalid="ignore"):  # an infinite PSNR has no σ
        for name in metrics:
            columns[f"{name}_mean"] = groups[name].mean()
            columns[f"{name}_sigma"] = groups[name].std(ddof=1)
    return pd.DataFrame(columns).reset_index()


def paper_vs_ours(
    summary: pd.DataFrame,
    paper: Mapping[Any, Any],
    methods: Mapping[str, str],
    *,
    metrics: Sequence[str] = ("psnr", "ssim", "ms_ssim"),
    evs: Sequence[int] | None = None,
    paper_method: str | None = None,
) -> pd.DataFrame:
    """Set the paper's numbers beside ours.

    Parameters
    ----------
    summary : DataFrame
        From :func:`summarise`, of one data set and split: one row per method (and EV).
    paper : mapping
        A table of :mod:`replication.paper`, by EV, by method, or by (EV, method). Its values are a
        PSNR, or a mapping from metric to mean or to (mean, σ).
    methods : mapping
        Method -> what the table calls it, in the order of the table's lines; baselines first.
    metrics : sequence of str
        Metrics to show.
    evs : sequence of int, optional
        EVs, in order; each gets a line per method. Without it the table has no EVs.
    paper_method : str, optional
        The method that a table by EV is about.

    Returns
    -------
    DataFrame
        Texts, ready for :func:`markdown_table`: EV, method, n, then paper and ours per metric as
        ``mean ± σ``; ``–`` where the paper gives none.

    Raises
    ------
    ReplicationError
        If `summary` has no row, or more than one, for a line, or the paper's table has a number
        for none of the lines.
    """
    lines, matched = [], False
    for ev in [None] if evs is None else evs:
        for method, label in methods.items():
            ours = summary[summary["method"] == method]
            line = {"method": label}
            if ev is not None:
                ours = ours[ours["ev"] == ev]
                line = {"EV": f"{ev:+d}" if ev else "0", **line}
            if len(ours) != 1:
                at = method if ev is None else f"{method} at EV {ev:+d}"
                raise ReplicationError(f"The summary has {len(ours)} rows for {at}, not one.")
            theirs = _paper_scores(paper, ev, method, paper_method)
            matched = matched or bool(theirs)
            line["n"] = str(ours["n"].iloc[0])
            for metric in metrics:
                name, digits = METRIC_LABELS[metric], DECIMALS[metric]
                own = (ours[f"{metric}_mean"].iloc[0], ours[f"{metric}_sigma"].iloc[0])
                line[f"{name} paper"] = score_text(theirs.get(metric), digits)
                line[f"{name} ours"] = score_text(own, digits)
            lines.append(line)
    if not matched:
        raise ReplicationError(f"The paper's table has no number for {', '.join(methods)}.")
    return pd.DataFrame(lines)


def _paper_scores(
    paper: Mapping[Any, Any], ev: int | None, method: str, paper_method: str | None
) -> Mapping[str, Any]:
    scores = paper.get((ev, method), paper.get(method))
    if scores is None and method == paper_method:
        scores = paper.get(ev)
    if scores is None:
        return {}
    return scores if isinstance(scores, Mapping) else {"psnr": scores}


def score_text(value: float | tuple[float, float] | None, decimals: int) -> str:
    """``mean`` or ``mean ± σ`` as a table shows it; – where there is none."""
    mean, sigma = value if isinstance(value, tuple) else (value, None)
    text = number_text(mean, decimals)
    return text if sigma is None or pd.isna(sigma) else f"{text} ± {sigma:.{decimals}f}"


def number_text(value: Any, decimals: int) -> str:
    """A number as a table shows it, – where there is none."""
    if value is None or pd.isna(value):
        return "–"
    if np.isinf(value):
        return "∞" if value > 0 else "-∞"
    return f"{value:.{decimals}f}"


def markdown_table(
    frame: pd.DataFrame,
    *,
    decimals: int | Mapping[str, int] = 2,
    bold: Mapping[str, str] | None = None,
) -> str:
    """Write a table as GitHub Markdown.

    Parameters
    ----------
    frame : DataFrame
        The index is left out. NaN becomes ``–``, infinity ``∞``.
    decimals : int or mapping
        Digits of floats after the point, for all columns or by column (2 where not named).
    bold : mapping, optional
        Column -> ``"max"`` or ``"min"``: set that value in bold, all of them if equal as printed.

    Returns
    -------
    str
        Lines without a final newline; columns of numbers are aligned right.

    Raises
    ------
    ReplicationError
        If `bold` names a column that is not there or another rule.
    """
    same = isinstance(decimals, int)
    digits = {name: decimals if same else decimals.get(name, 2) for name in frame.columns}
    columns = {
        name: [
            number_text(cell, digits[name]) if isinstance(cell, float | None) else str(cell)
            for cell in frame[name].tolist()
        ]
        for name in frame.columns
    }
    for name, rule in (bold or {}).items():
        if rule not in ("max", "min") or not pd.api.types.is_float_dtype(frame.get(name)):
            raise ReplicationError(f"Cannot set the {rule} of column {name!r} in bold.")
        best = number_text(getattr(frame[name], rule)(), digits[name])
        columns[name] = [f"**{cell}**" if cell == best else cell for cell in columns[name]]
    numeric = re.compile(r"[*+-]*(\d[\d.,]*|∞|–)( ± [\d.]+)?\**")
    rule = [
        "---:" if cells and all(map(numeric.fullmatch, cells)) else "---"
        for cells in columns.values()
    ]
    lines = [list(map(str, columns)), rule, *zip(*columns.values(), strict=True)]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |"
        for line in lines
    )


# ------------------------------------------------------------------------------------- blocks


def update_block(path: str | Path, name: str, text: str, *, check: bool = False) -> bool:
    """Replace what stands between ``<!-- NAME:start -->`` and ``<!-- NAME:end -->`` in a file.

    Parameters
    ----------
    path : path
        Markdown file (UTF-8); everything outside the markers stays as it is, to the byte.
    name : str
        Name of the block.
    text : str
        New contents; stands on lines of its own.
    check : bool
        Write nothing; raise if the block is not up to date.

    Returns
    -------
    bool
        Whether the file was changed.

    Raises
    ------
    ReplicationError
        If the file cannot be read, has not exactly one such block, or (with `check`) is out of
        date.
    """
    path = Path(path)
    try:
        old = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise ReplicationError(f"Cannot read {path}: {error.strerror}.") from error
    start, end = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
    head, _, rest = old.partition(start)
    _, closed, tail = rest.partition(end)
    if not closed or old.count(start) + old.count(end) != 2 or start in text or end in text:
        raise ReplicationError(f"{path} needs exactly one block from {start} to {end}.")
    newline = "\r\n" if "\r\n" in old else "\n"
    lines = [start, *text.strip("\n").splitlines(), end]
    new = head + newline.join(lines) + tail
    if new == old:
        return False
    if check:
        raise ReplicationError(f"{path}: the block {name} is out of date; generate it again.")
    with atomic_path(path) as temporary:
        temporary.write_bytes(new.encode("utf-8"))
    return True
