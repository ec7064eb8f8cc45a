"""The paper's tables from per-image rows: its numbers, ours, intervals, and the one rule for verdicts.

`rows` are per-image rows of :func:`replication.evaluation.rows.read_rows`. Tables hold texts. A table
that ranks methods shows the paired difference to the tone curve first, with its 95 % interval.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from tabulate import tabulate

from replication import paper
from replication.evaluation.rows import MAY_BE_EMPTY
from replication.evaluation.uncertainty import mean_interval, paired_differences


class Entry(NamedTuple):
    """How tables and figures show a method: its label, its colour, and whether it uses the truth."""

    label: str
    colour: str = "#555555"
    uses_truth: bool = False


# fmt: off
METHODS = {  # of Tables 4 and 5, in the order of the tables (Okabe and Ito's colours)
    "identity": Entry("EV 0 unchanged", "#56B4E9"), "linearised": Entry("EV 0, linearised", "#56B4E9"),
    "tone_curve_unrounded": Entry("tone curve, unrounded", "#F0E442"),
    "tone_curve": Entry("tone curve", "#E69F00"), "huo": Entry("Huo [14]", "#009E73"),
    "kovaleski_oliveira": Entry("Kovaleski-Oliveira [19]", "#CC79A7"),
    "masia": Entry("Masia [24]", "#D55E00"),
    "deep_chain_faithful": Entry("paper's recipe, 0.04 % of its patches", "#332288"),
    "deep_chain": Entry("deep chain, our recipe", "#0072B2"),
    "true_response": Entry("EV 0, true response curve", "#444444", True),
    "true_response_kovaleski_oliveira": Entry("[19] on true response curve", "#444444", True),
    "oracle_curve": Entry("tone curve of the scene itself", "#444444", True),
    "three_frames": Entry("three real frames, EV -1 … +1", "#444444", True),
    "truth_where_clipped": Entry("tone curve, truth where clipped", "#444444", True),
}

CONTENDERS = {  # of the ablations, in the order of the tables
    "tone_curve": METHODS["tone_curve"], "chain": Entry("deep chain", "#0072B2"),
    "chain_joint": Entry("deep chain, trained jointly", "#56B4E9"),
    "shallow": Entry("shallow network [22]", "#D55E00"),
    "shallow_no_skip": Entry("shallow network [22], no skip to the output", "#882255"),
    "single_deep": Entry("one network, the chain's parameters", "#009E73"),
    "single": Entry("one subnetwork", "#CC79A7"),
    "mprelu": Entry("MPReLU", "#0072B2"), "prelu": Entry("PReLU", "#D55E00"),
    "relu": Entry("ReLU", "#009E73"), "leaky_relu": Entry("leaky ReLU", "#CC79A7"),
    "reference": Entry("reference"), "per_channel": Entry("one channel at a time"),
    "tv_0": Entry("λ = 0"), "tv_0.01": Entry("λ = 0.01"), "chained": Entry("trained chained"),
    "batch_1": Entry("batch 1"), "batch_32": Entry("batch 32"),
    "batch_statistics": Entry("batch statistics throughout"),
}

METHOD_NAMES = {name: entry.label for name, entry in METHODS.items()}
ABLATION_NAMES = {name: entry.label for name, entry in CONTENDERS.items()}
USES_TRUTH = [name for name, entry in METHODS.items() if entry.uses_truth]
COMPETITORS = ("huo", "kovaleski_oliveira", "masia")
FAMILY = ("tone_curve", *COMPETITORS)  # what the chain is tested against: the family of Holm's correction

DATASET_NAMES = {"hdrps": "hdrps, 10 test scenes", "empa": "empa, 15 scenes of other cameras",
                 "mini": "mini, 12 test views"}
REAL = ("hdrps", "empa")  # they decide the claims of Tables 4 and 5; `mini` is of a synthetic camera

_METRICS = {
    "psnr": ("PSNR (dB)", 2), "ssim": ("SSIM", 3), "ms_ssim": ("MS-SSIM", 3),
    "hdrvdp2_q": ("VDP-Quality", 2), "hdrvdp2_q_mos": ("VDP Q_MOS", 1),
    "pu21_psnr": ("PU21-PSNR (dB)", 2), "pu21_ssim": ("PU21-SSIM", 3),
    "log_rmse_unclipped": ("log error, unclipped", 3), "log_rmse_clipped": ("log error, clipped", 3),
    "log_rmse_clipped_partly": ("1-2 channels clipped", 3),
    "log_rmse_clipped_fully": ("all 3 clipped", 3), "drim_loss": ("DRIM lost (%)", 2),
    "drim_amplification": ("amplified (%)", 2), "drim_reversal": ("reversed (%)", 2),
}
# fmt: on
METRIC_LABELS = {metric: label for metric, (label, _) in _METRICS.items()}
DECIMALS = {metric: digits for metric, (_, digits) in _METRICS.items()}
PAPER_ABLATIONS = {("table2", 3, name): one for name, one in paper.TABLE2.items()}
PAPER_ABLATIONS |= {("table3", *key): one for key, one in paper.TABLE3.items()}
"""(table, EV, contender) -> metric -> the paper's (mean, σ)."""
SMALLEST_BELIEVABLE = {"pu21_psnr": 3.5}  # SI-HDR, Hanji et al. 2022

PROTOCOL_SCALING = "mean where unclipped, truth 1000 cd/m2"
_NUMERIC = re.compile(r"(?:[-+<*\d.,±∞–…\s\[\]()=]|of|n|dB|%)+")


def verdict(
    difference: float | None, interval: tuple[float, float] = (np.nan, np.nan), *, scenes: int = 0,
    metric: str = "psnr", p: float | None = None, seeds: int | None = None,
    over_seeds: tuple[float, float] | None = None, moves: bool | None = None, training: str = "",
) -> tuple[str, str]:  # fmt: skip
    """Judge "the first is better than the second": the verdict, and its numbers in words.

    Inconclusive: one seed, an interval that holds zero, p ≥ 0.05, or a learning curve that moves.

    Args:
        difference: First minus second, mean over `scenes` images; None where there is no number.
        interval, p: Over images: 95 % interval, and the paired test's p, adjusted by Holm, if any.
        metric: Column of the rows; smaller is better for log errors and DRIM.
        seeds, over_seeds: Trainings and the 95 % interval over them; None for one set of weights.
        moves, training: Whether the learning curve still moves, if known; training budget in words.
    """
    if pd.isna(difference):
        return "untested", "no number computed"
    unit = " dB" if "psnr" in metric else " %" if "drim" in metric else ""
    spans = [interval] + ([over_seeds] if over_seeds and seeds != 1 else [])
    sure = all(low * high > 0 and low * difference > 0 for low, high in spans)
    sure = sure and not moves and seeds != 1 and (p is None or p < 0.05)
    better = (difference < 0) == metric.startswith(("log_rmse", "drim"))
    word = ("supported" if better else "contradicted") if sure else "inconclusive"
    if sure and abs(difference) < SMALLEST_BELIEVABLE.get(metric, 0):
        word += ", too small to be seen"
    facts = [f"{_signed(difference, interval, metric, unit)} over {scenes} scenes"]
    facts += [f"[{_span(span, metric, ', ')}] over {seeds} seeds" for span in spans[1:]]
    facts += ["1 seed" if seeds == 1 else "", "" if p is None else f"p {_p_value(p)}", training]
    return word, ", ".join(filter(None, [*facts, moves and "training loss still falling"]))


def per_image(rows: pd.DataFrame, metric: str) -> pd.Series:
    """Mean of a metric over EVs and seeds, by scene (of a data set) and method."""
    scene = (rows["dataset"] + "/" + rows["scene"]).rename("scene")
    return rows.groupby([scene, "method"])[metric].mean()


def paired(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """:func:`paired_differences` of the chain by image, a line for each of FAMILY that the rows hold."""
    images = per_image(rows, metric).reset_index()
    present = [name for name in FAMILY if name in set(images["method"])]
    return paired_differences(images, metric, "deep_chain", against=present).set_index("against")


def gains(rows: pd.DataFrame, metric: str, minus: str = "tone_curve") -> dict[str, str]:
    """Method -> its paired difference to `minus`, with the 95 % interval; – where there is none."""
    images = per_image(rows, metric).unstack()
    gaps = images.sub(images[minus], axis=0).drop(columns=minus) if minus in images else {}
    found = {name: _signed(gap.mean(), mean_interval(gap), metric) for name, gap in gaps.items()}
    return dict.fromkeys(images, "–") | found


def number_text(value: Any, decimals: int) -> str:
    """A number as a table shows it; – where there is none, ∞ for infinity."""
    return "–" if pd.isna(value) else f"{value:.{decimals}f}".replace("inf", "∞")


def score_text(value: tuple[float, float] | None, decimals: int) -> str:
    """``mean ± σ`` as a table shows it; – where there is none."""
    mean, sigma = value or (None, None)
    return number_text(mean, decimals) + ("" if pd.isna(sigma) else f" ± {sigma:.{decimals}f}")


def markdown_table(frame: pd.DataFrame, decimals: int = 2) -> str:
    """A table as Markdown, without its index; columns of numbers are aligned to the right."""

    def text(cell: Any) -> str:
        return number_text(cell, decimals) if isinstance(cell, float | None) else str(cell)

    texts = frame.astype(object).map(text).replace({r"\|": r"\\|", r"\n": " "}, regex=True)
    align = ["right" if all(map(_NUMERIC.fullmatch, texts[name])) else "left" for name in texts]
    table = texts.to_markdown(index=False, disable_numparse=True, colalign=align)
    return re.sub(r" {2,}", " ", re.sub(r"-{4,}", "---", table))  # no padding: small differences


def as_text(shown: pd.DataFrame | str, width: int = 109, *, together: int = 1) -> str:
    """A table, in blocks of at least `together` columns, or sentences as text `width` wide."""
    if isinstance(shown, str):
        lines = shown.replace("**", "").splitlines()
        return "\n".join(textwrap.fill(line, width, subsequent_indent="  ") for line in lines)

    def text(names: list[str]) -> str:
        options = {"colalign": ["left", *["right"] * (len(names) - 1)], "disable_numparse": True}
        heads = [textwrap.fill(name, 14, break_long_words=False) for name in names]
        return tabulate(shown[names].astype(str), heads, "plain", showindex=False, **options)

    first, *others = list(shown)
    blocks = [[first]]
    for start in range(0, len(others), together):
        more = others[start : start + together]
        if len(blocks[-1]) > 1 and max(map(len, text(blocks[-1] + more).splitlines())) > width:
            blocks.append([first])
        blocks[-1] += more
    return "\n\n".join(map(text, blocks))


def by_dataset(rows: pd.DataFrame, frame: Callable) -> list[tuple[str, pd.DataFrame]]:
    """The name in words and the table (by `frame`) of each data set in `rows`."""
    return [(DATASET_NAMES.get(name, name), frame(part)) for name, part in rows.groupby("dataset")]


def table4_frame(rows: pd.DataFrame, metric: str = "psnr") -> pd.DataFrame:
    """Table 4 of one data set: mean ± σ of a metric per method and EV, the paper's first."""
    columns: dict[str, Mapping] = {"minus tone curve, mean of EVs": gains(rows, metric)}
    for ev, part in rows.groupby("ev"):
        theirs = score_text(paper.TABLE4[ev][metric], DECIMALS[metric])
        columns[f"EV {ev:+d}"] = {"paper": theirs, **part.groupby("method")[metric].agg(_score)}
    return _table(columns, {"paper": "paper, on its own data", **METHOD_NAMES})


def table4_text(rows: pd.DataFrame, metric: str = "psnr") -> str:
    """Table 4 as plain text, one table for each data set."""
    parts = by_dataset(rows, partial(table4_frame, metric=metric))
    return "\n\n".join(f"{METRIC_LABELS[metric]}, {name}\n{as_text(one)}" for name, one in parts)


def table5_frame(rows: pd.DataFrame) -> pd.DataFrame:
    """Table 5 of one data set: tone-mapped PSNR and HDR-VDP-2's Q, mean ± σ, with 95 % intervals."""
    columns: dict[str, Mapping] = {}
    for metric in ("psnr", "hdrvdp2_q"):
        label, values = METRIC_LABELS[metric], rows.groupby("method")[metric]
        theirs = {m: one[metric] for m, one in paper.TABLE5.items() if metric in one}
        theirs = {m: score_text(one, DECIMALS[metric]) for m, one in theirs.items()}
        spans = {m: f"[{_span(mean_interval(one), metric, ', ')}]" for m, one in values}
        columns |= {f"{label}, minus tone curve": gains(rows, metric), f"{label}, paper": theirs}
        columns |= {f"{label}, ours": values.agg(_score), f"{label}, 95 % interval": spans}
    return _table(columns, METHOD_NAMES)


def table5_text(rows: pd.DataFrame) -> str:
    """Table 5 as plain text, one table for each data set."""
    parts = by_dataset(rows, table5_frame)
    return "\n\n".join(f"Table 5, {name}\n{as_text(one, together=4)}" for name, one in parts)


def table5_detail(rows: pd.DataFrame) -> pd.DataFrame:
    """Means of the measures that Table 5 lacks; n is the number of images that have such pixels."""
    columns: dict[str, Mapping[str, str]] = {"PU21-PSNR minus tone curve": gains(rows, "pu21_psnr")}
    for metric in [one for one in METRIC_LABELS if one in rows and one not in paper.TABLE5["huo"]]:
        values = rows.groupby("method")[metric]
        n = f" (n = {values.count().max()})" if metric in MAY_BE_EMPTY else ""
        means = values.mean().map(partial(number_text, decimals=DECIMALS[metric]))
        columns[METRIC_LABELS[metric] + n] = means
    return _table(columns, METHOD_NAMES)


def paired_frame(rows: pd.DataFrame) -> pd.DataFrame:
    """The chain minus each of FAMILY, image by image: difference, interval, Holm's p, verdict."""
    lines: dict[str, dict[str, str]] = {}
    for metric in ("psnr", "hdrvdp2_q", "pu21_psnr", "log_rmse_clipped"):
        for other, one in paired(rows, metric).iterrows():
            line = lines.setdefault(other, {f"{METHOD_NAMES['deep_chain']} minus": METHOD_NAMES[other]})
            label, span, p = METRIC_LABELS[metric], (one["low"], one["high"]), one["p_holm"]
            label += f" (n = {one['n']:.0f})" if metric in MAY_BE_EMPTY else ""
            word, _ = verdict(one["difference"], span, metric=metric, p=p)
            line[label] = _signed(one["difference"], span, metric)
            line |= {f"{label}: p": _p_value(p), f"{label}: better?": word}
    return pd.DataFrame(lines.values())


def scaling_frame(rows: pd.DataFrame, metric: str = "hdrvdp2_q") -> pd.DataFrame:
    """How much the scaling of test and truth moves a mean score; the protocol's scaling first."""
    means = rows.pivot_table(index="scaling", columns="method", values=metric, sort=False)
    means = means.sort_index(key=lambda name: name != PROTOCOL_SCALING, kind="stable")
    names = [name for name in METHOD_NAMES if name in means]
    table = means[names].map(number_text, decimals=DECIMALS[metric]).rename(columns=METHOD_NAMES)
    return table.rename_axis("scaling of test and truth").rename_axis(columns=None).reset_index()


def ablation_frame(rows: pd.DataFrame, metric="psnr", minus="tone_curve") -> pd.DataFrame:
    """An ablation on one data set: per EV the difference to `minus`, the paper's score, ours, seeds.

    σ is over images, of each image's mean over the seeds; "seeds" are their lowest and highest mean.
    """
    columns: dict[str, Mapping] = {}
    for ev in sorted(rows["ev"].unique(), key=abs):
        part, name = rows[rows["ev"] == ev], f"EV {ev:+d}"
        theirs = {m: PAPER_ABLATIONS.get((part["table"].iloc[0], ev, m)) for m in CONTENDERS}
        theirs = {m: score_text(one[metric], DECIMALS[metric]) for m, one in theirs.items() if one}
        seeds = part.groupby(["method", "seed"])[metric].mean().groupby("method")
        spans = {m: _span((x.min(), x.max()), metric) for m, x in seeds if len(x) > 1}
        columns[f"{name} minus {ABLATION_NAMES[minus]}"] = gains(part, metric, minus)
        columns |= {f"{name}, paper": theirs} if theirs else {}
        columns[name] = per_image(part, metric).groupby("method").agg(_score)
        columns[f"{name}, seeds"] = spans
    return _table(columns, ABLATION_NAMES, "contender")


def residual_frame(activations: pd.DataFrame) -> pd.DataFrame:
    """How networks make negative residuals (Section 5.2), in %, mean over the seeds."""
    by = {"by": ["method", "ev"], "sort": False}
    inner = activations.dropna(subset="alpha").groupby(**by)["negative"].mean()
    last = activations[activations["block"] == "r4"].groupby(**by).mean(numeric_only=True)
    columns = {"inputs of activations < 0 (%)": inner, "residual < 0 (%)": last["negative"]}
    columns["from negative features (%)"] = last["negative_features"]
    frame = (100 * pd.DataFrame(columns).loc[inner.index]).rename_axis(["contender", "EV"])
    return frame.rename(ABLATION_NAMES, level=0).rename("{:+d}".format, level=1).reset_index()


def _table(columns: Mapping[str, Mapping], names: Mapping, title: str = "method") -> pd.DataFrame:
    """Texts by column and method as a table: a line for each of `names` with a value that is ours."""
    ours = set().union(*(one.keys() for name, one in columns.items() if "paper" not in name))
    table = pd.DataFrame(columns).reindex([name for name in names if name in ours])
    return table.astype(object).fillna("–").rename(names).rename_axis(title).reset_index()


def _score(values: pd.Series) -> str:
    """``mean ± σ`` of a column of the rows."""
    return score_text((values.mean(), values.std()), DECIMALS[values.name])


def _span(pair: tuple[float, float], metric: str, between: str = " … ") -> str:
    return between.join(number_text(one, DECIMALS[metric]) for one in pair)


def _signed(value: float, interval: tuple[float, float], metric: str, unit: str = "") -> str:
    return f"{value:+.{DECIMALS[metric]}f}{unit} [{_span(interval, metric, ', ')}]"


def _p_value(p: float) -> str:
    return "–" if pd.isna(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"
