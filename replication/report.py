"""From one row per image to tables: CSV in, mean and σ, Markdown beside the paper's numbers out.

The CSV files are the truth. A table in a README or a report is generated from them
(:func:`update_block`) and never edited by hand.
"""

from __future__ import annotations

import re
import textwrap
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from replication import paper
from replication.errors import ReplicationError
from replication.files import RESULTS, atomic_path
from replication.statistics import mean_interval, paired_differences, seed_interval

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
_DECIMALS = {
    "psnr": 2,
    "hdrvdp2_q": 2,
    "hdrvdp2_q_mos": 1,
    "pu21_psnr": 2,
    "drim_loss": 2,
    "drim_amplification": 2,
    "drim_reversal": 2,
}
_DECIMALS = dict.fromkeys(METRIC_LABELS, 3) | _DECIMALS
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
                name, digits = METRIC_LABELS[metric], _DECIMALS[metric]
                own = (ours[f"{metric}_mean"].iloc[0], ours[f"{metric}_sigma"].iloc[0])
                line[f"{name} paper"] = _score(theirs.get(metric), digits)
                line[f"{name} ours"] = _score(own, digits)
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


def _score(value: float | tuple[float, float] | None, decimals: int) -> str:
    mean, sigma = value if isinstance(value, tuple) else (value, None)
    text = _number(mean, decimals)
    return text if sigma is None or pd.isna(sigma) else f"{text} ± {sigma:.{decimals}f}"


def _number(value: Any, decimals: int) -> str:
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
            _number(cell, digits[name]) if isinstance(cell, float | None) else str(cell)
            for cell in frame[name].tolist()
        ]
        for name in frame.columns
    }
    for name, rule in (bold or {}).items():
        if rule not in ("max", "min") or not pd.api.types.is_float_dtype(frame.get(name)):
            raise ReplicationError(f"Cannot set the {rule} of column {name!r} in bold.")
        best = _number(getattr(frame[name], rule)(), digits[name])
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


# ---------------------------------------------------------------------------- the kit's tables

REFERENCE = RESULTS / "reference"
"""Committed results: ``tables/*.csv`` (per-image rows), ``weights``, ``logs``, provenance."""

METHOD_NAMES = {
    "identity": "EV 0 unchanged",
    "linearised": "EV 0, linearised",
    "tone_curve_unrounded": "tone curve, unrounded",
    "tone_curve": "tone curve",
    "huo": "Huo [14]",
    "kovaleski_oliveira": "Kovaleski-Oliveira [19]",
    "masia": "Masia [24]",
    "expandnet": "ExpandNet",
    "deep_chain_faithful": "deep chain, paper's recipe",
    "deep_chain": "deep chain",
    "true_response": "EV 0, true response curve",
    "true_response_kovaleski_oliveira": "[19] on true response curve",
    "oracle_curve": "tone curve of the scene itself",
    "three_frames": "three real frames, EV -1 … +1",
    "truth_where_clipped": "tone curve, truth where clipped",
}
"""What a method is called in tables, baselines first, behind the chain what uses the truth."""

ABLATION_NAMES = {
    "tone_curve": "tone curve",
    "chain": "deep chain",
    "shallow": "shallow network [22]",
    "single_deep": "one network, the chain's parameters",
    "single": "one subnetwork",
    "mprelu": "MPReLU",
    "prelu": "PReLU",
    "relu": "ReLU",
    "leaky_relu": "leaky ReLU",
    "reference": "reference",
    "per_channel": "a channel at a time",
    "tv_0": "λ = 0",
    "tv_0.01": "λ = 0.01",
    "chained": "trained chained",
    "batch_1": "batch 1",
    "batch_32": "batch 32",
    "batch_statistics": "batch statistics throughout",
}
"""What a contender of :data:`replication.ablation.STUDIES` is called in tables, in their order."""

USES_TRUTH = (
    "true_response",
    "true_response_kovaleski_oliveira",
    "oracle_curve",
    "three_frames",
    "truth_where_clipped",
)
"""Methods that no one has who has only a photo: where the room is."""

DATASET_NAMES = {
    "hdrps": "hdrps, 10 test scenes",
    "empa": "empa, 15 scenes of other cameras",
    "mini": "mini, 12 test views",
}
_EVS = (-3, -2, -1, 1, 2, 3)


def table4_frame(summary: pd.DataFrame, metric: str = "psnr") -> pd.DataFrame:
    """Table 4 with the exposures as columns: the paper first, then the methods, baselines first.

    Parameters
    ----------
    summary : DataFrame
        From :func:`summarise` by data set, method and EV; one data set.
    metric : {"psnr", "ssim", "ms_ssim"}

    Returns
    -------
    DataFrame
        Texts ``mean ± σ``; columns ``method`` and the EVs from -3 to +3.
    """
    digits = _DECIMALS[metric]
    lines = [{"method": "paper, on its own data"}]
    lines[0] |= {f"EV {ev:+d}": _score(paper.TABLE4[ev][metric], digits) for ev in _EVS}
    present = set(summary["method"])
    for method, name in METHOD_NAMES.items():
        if method in present:
            part = summary[summary["method"] == method].set_index("ev")
            scores = {
                ev: (part.at[ev, f"{metric}_mean"], part.at[ev, f"{metric}_sigma"]) for ev in _EVS
            }
            lines.append(
                {"method": name} | {f"EV {ev:+d}": _score(scores[ev], digits) for ev in _EVS}
            )
    return pd.DataFrame(lines)


TEXT_WIDTH = 106
"""Characters of a line of text in a notebook: no screen has to be scrolled sideways."""


def as_text(shown: pd.DataFrame | str, width: int = TEXT_WIDTH) -> str:
    """A table or sentences as plain text for a notebook or a terminal, no wider than a screen.

    Parameters
    ----------
    shown
        A table, whose first column names its lines; where it is too wide, the other columns continue
        in further blocks below. Or lines of text, which are wrapped and lose their Markdown stars.
    width
        Characters of a line.

    Returns
    -------
    str
    """
    if isinstance(shown, str):
        lines = shown.replace("**", "").splitlines()
        return "\n".join(textwrap.fill(line, width, subsequent_indent="  ") for line in lines)
    named = shown.set_index(shown.columns[0]).rename_axis(index=None, columns=shown.columns[0])
    blocks = named.to_string(line_width=width).split("\n\n")
    return "\n\n".join(re.sub(r"[ \\]+$", "", block, flags=re.MULTILINE) for block in blocks)


def table4_text(summary: pd.DataFrame, metric: str = "psnr") -> str:
    """Table 4 as plain text for a notebook, one table for each data set in `summary`."""
    return "\n\n".join(
        f"{METRIC_LABELS[metric]}, mean ± σ over {DATASET_NAMES.get(name, name)}\n"
        + as_text(table4_frame(part, metric))
        for name, part in by_dataset(summary)
    )


def table5_frame(rows: pd.DataFrame) -> pd.DataFrame:
    """Table 5: tone-mapped PSNR and HDR-VDP-2's Q, the paper's and ours, with 95 % intervals.

    Parameters
    ----------
    rows : DataFrame
        Per-image rows of one data set, from :func:`read_rows`.

    Returns
    -------
    DataFrame
        Texts; a line per method, baselines first, and per metric the paper's ``mean ± σ``, ours,
        and the bootstrap interval of our mean.
    """
    lines = []
    for method, part in _by_method(rows):
        line = {"method": METHOD_NAMES[method]}
        theirs = paper.TABLE5.get(method, {})
        for metric in ("psnr", "hdrvdp2_q"):
            name, values = METRIC_LABELS[metric], part[metric]
            line[f"{name}, paper"] = _score(theirs.get(metric), _DECIMALS[metric])
            own = (float(values.mean()), float(values.std(ddof=1)))
            line[f"{name}, ours"] = _score(own, _DECIMALS[metric])
            line["95 % interval" if metric == "psnr" else "95 % interval "] = _interval(
                *mean_interval(values), _DECIMALS[metric]
            )
        lines.append(line)
    return pd.DataFrame(lines)


def table5_text(rows: pd.DataFrame) -> str:
    """Table 5 as plain text for a notebook or a terminal, one table for each data set."""
    return "\n\n".join(
        f"{DATASET_NAMES.get(name, name)}, mean ± σ\n" + as_text(table5_frame(part))
        for name, part in by_dataset(rows)
    )


def table5_detail(rows: pd.DataFrame) -> pd.DataFrame:
    """What Table 5 does not have: PU21, Q_MOS, and the log luminance error by what EV 0 clips.

    Parameters
    ----------
    rows : DataFrame
        As in :func:`table5_frame`.

    Returns
    -------
    DataFrame
        Texts; means over the images, an error over those that have such pixels.
    """
    metrics = [m for m in METRIC_LABELS if m in rows.columns and m not in ("psnr", "hdrvdp2_q")]
    return pd.DataFrame(
        {"method": METHOD_NAMES[method]}
        | {METRIC_LABELS[m]: _number(part[m].mean(), _DECIMALS[m]) for m in metrics}
        for method, part in _by_method(rows)
    )


def paired_frame(rows: pd.DataFrame, method: str = "deep_chain") -> pd.DataFrame:
    """The chain against each method, image by image, in the measures that belong together.

    Parameters
    ----------
    rows : DataFrame
        As in :func:`table5_frame`.
    method : str
        Whose values the differences are of.

    Returns
    -------
    DataFrame
        Texts: mean difference, its 95 % interval, and Holm's p of Wilcoxon's test, per metric.
    """
    names = {
        "psnr": "PSNR (dB)",
        "hdrvdp2_q": "VDP-Quality",
        "log_rmse_clipped": "log error, clipped",
    }
    lines: dict[str, dict[str, str]] = {}
    for metric, name in names.items():
        table = paired_differences(rows, metric, method).set_index("against")
        for other in (key for key, _ in _by_method(rows) if key != method):
            one, digits = table.loc[other], _DECIMALS[metric]
            text = f"{one['difference']:+.{digits}f} {_interval(one['low'], one['high'], digits)}"
            line = lines.setdefault(other, {f"{METHOD_NAMES[method]} minus": METHOD_NAMES[other]})
            line[name] = text
            line[f"p{' ' * (len(line) // 2 - 1)}"] = _p_value(one["p_holm"])
    return pd.DataFrame(lines.values())


def _by_method(rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    parts = dict(list(rows.groupby("method")))
    return [(name, parts[name]) for name in METHOD_NAMES if name in parts]


def _interval(low: float, high: float, digits: int) -> str:
    return f"[{_number(low, digits)}, {_number(high, digits)}]"


def _p_value(p: float) -> str:
    return "–" if pd.isna(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def scaling_frame(rows: pd.DataFrame, metric: str = "hdrvdp2_q") -> pd.DataFrame:
    """How much the scaling moves a score: mean over images, a line per scaling.

    Parameters
    ----------
    rows : DataFrame
        From :func:`replication.comparison.scaling_rows`, one data set.
    metric : {"hdrvdp2_q", "pu21_psnr"}

    Returns
    -------
    DataFrame
        Texts; the protocol's scaling first, a column per method.
    """
    means = rows.pivot_table(index="scaling", columns="method", values=metric, sort=False)
    own = [name for name in means.index if name == PROTOCOL_SCALING]
    order = [*own, *(name for name in means.index if name not in own)]
    digits = _DECIMALS[metric]
    return pd.DataFrame(
        {"scaling of test and truth": name + (" (ours)" if name in own else "")}
        | {
            METHOD_NAMES[method]: _number(means.at[name, method], digits)
            for method in METHOD_NAMES
            if method in means.columns
        }
        for name in order
    )


def ablation_frame(rows: pd.DataFrame, metric: str = "psnr") -> pd.DataFrame:
    """Scores of an ablation: a line per contender, baseline first, columns per EV.

    Parameters
    ----------
    rows : DataFrame
        From :func:`replication.ablation.run_study`, one study and data set.
    metric : {"psnr", "ssim", "ms_ssim"}

    Returns
    -------
    DataFrame
        Texts: per EV the paper's mean ± σ where it has one; ours over the images (of each image's mean
        over the seeds, as the paper's σ is over images); the means of the seeds, lowest to highest.
    """
    digits, lines = _DECIMALS[metric], []
    evs = sorted(rows["ev"].unique(), key=abs)
    theirs = {ev: _paper_ablation(rows["table"].iloc[0], ev) for ev in evs}
    for method in (name for name in ABLATION_NAMES if name in set(rows["method"])):
        line = {"contender": ABLATION_NAMES[method]}
        for ev in evs:
            part = rows[(rows["method"] == method) & (rows["ev"] == ev)]
            image = part.groupby("scene")[metric].mean()
            seeds = part.groupby("seed")[metric].mean()
            if theirs[ev]:
                line[f"EV {ev:+d}, paper"] = _score(theirs[ev].get(method, {}).get(metric), digits)
            line[f"EV {ev:+d}"] = _score((image.mean(), image.std(ddof=1)), digits)
            span = f"{_number(seeds.min(), digits)} … {_number(seeds.max(), digits)}"
            line[f"EV {ev:+d}, seeds"] = "–" if len(seeds) == 1 else span
        lines.append(line)
    return pd.DataFrame(lines)


def _paper_ablation(table: str, ev: int) -> dict[str, Mapping[str, tuple[float, float]]]:
    """The paper's Table 2 or 3 at one EV, by contender."""
    if table == "table2" and ev == 3:
        return dict(paper.TABLE2)
    if table == "table3":
        return {name: scores for (one, name), scores in paper.TABLE3.items() if one == ev}
    return {}


def ablation_differences(
    rows: pd.DataFrame, method: str, metric: str = "psnr", others: Sequence[str] | None = None
) -> pd.DataFrame:
    """A contender of an ablation against the others, paired by image and by seed.

    Parameters
    ----------
    rows : DataFrame
        As in :func:`ablation_frame`.
    method : str
        Whose values the differences are of.
    metric : {"psnr", "ssim", "ms_ssim"}
    others : sequence of str, optional
        All by default.

    Returns
    -------
    DataFrame
        Per EV and other contender: ``ev``, ``against``; ``difference``, mean over images and seeds;
        ``low``, ``high``, its 95 % interval over images (:func:`replication.statistics.mean_interval`);
        ``seed_low``, ``seed_high``, the lowest and highest difference of one seed (against the
        baseline: of its one value), and ``t_low``, ``t_high``, Student's 95 % interval of their mean
        (NaN for one seed); ``wins`` of ``n`` images; ``p_holm`` of Wilcoxon's test over images,
        adjusted over the others.
    """
    found = []
    for ev in sorted(rows["ev"].unique(), key=abs):
        part = rows[rows["ev"] == ev]
        if others is not None:
            part = part[part["method"].isin([method, *others])]
        images = part.groupby(["scene", "method"], as_index=False)[metric].mean()
        table = paired_differences(images, metric, method)
        seeds = part.groupby(["method", "seed"])[metric].mean()
        own = seeds[method]
        for line in table.to_dict("records"):
            other = seeds[line["against"]]
            spread = own - (other.iloc[0] if len(other) == 1 else other)
            t_low, t_high = seed_interval(spread.to_numpy())
            span = {"seed_low": spread.min(), "seed_high": spread.max()}
            found.append({"ev": ev} | line | span | {"t_low": t_low, "t_high": t_high})
    return pd.DataFrame(found)


def difference_frame(differences: pd.DataFrame, metric: str = "psnr") -> pd.DataFrame:
    """Differences of an ablation as texts, a line per contender and three columns per EV.

    Parameters
    ----------
    differences : DataFrame
        From :func:`ablation_differences`.
    metric : str
        What they are differences of.
    """
    digits = _DECIMALS[metric]
    lines: dict[str, dict[str, str]] = {}
    for one in differences.to_dict("records"):
        line = lines.setdefault(one["against"], {"against": ABLATION_NAMES[one["against"]]})
        interval = _interval(one["low"], one["high"], digits)
        line[f"EV {one['ev']:+d}"] = f"{one['difference']:+.{digits}f} {interval}"
        span = f"{one['seed_low']:+.{digits}f} … {one['seed_high']:+.{digits}f}"
        line[f"EV {one['ev']:+d}, seeds"] = span
        line[f"EV {one['ev']:+d}, images won"] = f"{one['wins']} of {one['n']}"
    return pd.DataFrame([lines[name] for name in ABLATION_NAMES if name in lines])


def ablation_verdict(rows: pd.DataFrame, method: str, other: str) -> str:
    """What an ablation says of one claim, in words made from the numbers, a line per EV.

    A difference counts where neither its interval over images nor the one over seeds holds zero.

    Parameters
    ----------
    rows : DataFrame
        As in :func:`ablation_frame`.
    method, other : str
        The claim is that `method` is better than `other`.
    """
    lines = []
    for one in ablation_differences(rows, method, others=[other]).to_dict("records"):
        theirs = _paper_ablation(rows["table"].iloc[0], one["ev"])
        claimed = None
        if {method, other} <= theirs.keys():
            claimed = theirs[method]["psnr"][0] - theirs[other]["psnr"][0]
        if pd.isna(one["t_low"]):
            size = "one seed, no verdict"
        elif min(one["low"], one["t_low"]) > 0:
            size = (
                "holds" if not claimed or one["difference"] >= claimed / 2 else "holds in direction"
            )
        elif max(one["high"], one["t_high"]) < 0:
            size = "does not hold, the other is better"
        else:
            size = "does not hold, no difference beyond that of images and seeds"
        over = f"over images {_interval(one['low'], one['high'], 2)}"
        if not pd.isna(one["t_low"]):
            over += f", over seeds {_interval(one['t_low'], one['t_high'], 2)}"
        theirs_text = "" if claimed is None else f"; paper {claimed:+.2f} dB"
        lines.append(
            f"EV {one['ev']:+d}: {ABLATION_NAMES[method]} minus {ABLATION_NAMES[other]} "
            f"{one['difference']:+.2f} dB, {over}{theirs_text}: **{size}**."
        )
    return "\n".join(lines)


def alpha_frame(activations: pd.DataFrame) -> pd.DataFrame:
    """Learnt α of the activations (Eq. 5): a line per contender and EV, a column per block.

    Parameters
    ----------
    activations : DataFrame
        ``STUDY_activations.csv`` of :func:`replication.ablation.run_study`.

    Returns
    -------
    DataFrame
        Floats; means over the seeds.
    """
    named = activations[activations["alpha"].notna()]
    learnt = named[named["method"].isin(["mprelu", "prelu"])]
    table = learnt.pivot_table(index=["method", "ev"], columns="block", values="alpha", sort=False)
    table = table.rename(columns=lambda name: name.replace("features.", "f")).reset_index()
    return _named(table)


def residual_frame(activations: pd.DataFrame) -> pd.DataFrame:
    """How networks make negative residuals (Section 5.2): a line per contender and EV, in %.

    Parameters
    ----------
    activations : DataFrame
        As in :func:`alpha_frame`.

    Returns
    -------
    DataFrame
        Floats, means over the seeds: share of the activations' inputs below zero; share of the
        residual below zero; part of r4's negative contributions that comes from negative features.
    """
    by = ["method", "ev"]
    inner = activations[activations["alpha"].notna()].groupby(by, sort=False)["negative"].mean()
    last = activations[activations["block"] == "r4"].groupby(by, sort=False)
    means = 100 * last[["negative", "negative_features"]].mean()
    table = pd.DataFrame(
        {
            "inputs of activations < 0 (%)": 100 * inner,
            "residual < 0 (%)": means["negative"],
            "from negative features (%)": means["negative_features"],
        }
    )
    return _named(table.loc[means.index].reset_index())


def _named(table: pd.DataFrame) -> pd.DataFrame:
    """Contenders by the names that tables have, EVs as texts."""
    order = {name: number for number, name in enumerate(ABLATION_NAMES)}
    table = table.sort_values(
        ["method", "ev"], key=lambda c: c.map(order) if c.name == "method" else -c, kind="stable"
    )
    table["method"] = table["method"].map(ABLATION_NAMES)
    table["ev"] = [f"{ev:+d}" for ev in table["ev"]]
    return table.rename(columns={"method": "contender", "ev": "EV"}).reset_index(drop=True)


def comparison_verdict(rows: pd.DataFrame) -> str:
    """Table 5 in words made from the numbers, a line per data set.

    Parameters
    ----------
    rows : DataFrame
        Per-image rows of one or more data sets, without EVs.
    """
    lines = []
    for name, part in by_dataset(rows):
        means = part.groupby("method")[["psnr", "hdrvdp2_q", "log_rmse_clipped"]].mean()
        chain, curve = means.loc["deep_chain"], means.loc["tone_curve"]
        mappers = means.loc[list(paper.TABLE5.keys() & set(means.index) - {"deep_chain"})]
        beaten = [m for m in mappers.index if (chain > mappers.loc[m])[["psnr", "hdrvdp2_q"]].all()]
        test = paired_differences(part, "hdrvdp2_q", "deep_chain").set_index("against")
        sure = "" if test.at["tone_curve", "p_holm"] < 0.05 else " (not significant)"
        lines.append(
            f"{name}: the chain beats {len(beaten)} of the {len(mappers)} inverse tone mappers in "
            f"both measures, the best of them by {chain['psnr'] - mappers['psnr'].max():+.1f} dB and "
            f"{chain['hdrvdp2_q'] - mappers['hdrvdp2_q'].max():+.1f} Q; against the tone curve it has "
            f"{chain['psnr'] - curve['psnr']:+.1f} dB, {chain['hdrvdp2_q'] - curve['hdrvdp2_q']:+.1f} Q"
            f"{sure} and a log error where EV 0 clips of {chain['log_rmse_clipped']:.3f} instead of "
            f"{curve['log_rmse_clipped']:.3f}."
        )
    return "\n".join(lines)


PROTOCOL_SCALING = "mean where unclipped, truth 1000 cd/m2"
"""Key of the protocol's own scaling in :func:`scaling_frame`."""


def by_dataset(summary: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Parts of a summary by data set, in the order of ``DATASET_NAMES``, others behind."""
    parts = dict(list(summary.groupby("dataset")))
    order = [*DATASET_NAMES, *parts]
    return [(name, parts[name]) for name in dict.fromkeys(order) if name in parts]


def chain_verdict(summary: pd.DataFrame) -> str:
    """Where the chain beats the tone curve, by data set, in words made from the numbers.

    Parameters
    ----------
    summary : DataFrame
        From :func:`summarise` by data set, method and EV.
    """
    sentences = []
    for name, part in by_dataset(summary):
        means = part.pivot_table(index="ev", columns="method", values="psnr_mean")
        gain = means["deep_chain"] - means["tone_curve"]
        better = [f"{ev:+d}" for ev in _EVS if gain[ev] > 0]
        where = f"at EV {', '.join(better)}" if better else "at no exposure"
        sentences.append(
            f"{name}: the chain beats the tone curve {where}; "
            f"gain {gain.min():+.1f} to {gain.max():+.1f} dB, mean {gain.mean():+.1f} dB."
        )
    return "\n".join(sentences)
