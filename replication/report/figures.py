"""Figures from pictures and rows; a method has the same colour in every figure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator
from PIL import Image

from replication import paper
from replication.data.stacks import SHOWABLE
from replication.evaluation.uncertainty import mean_interval
from replication.files import atomic_path
from replication.metrics.drim import AMPLIFICATION, LOSS, REVERSAL
from replication.report.tables import CONTENDERS, METHODS, PAPER_ABLATIONS

COLOURS = {name: one.colour for name, one in (METHODS | CONTENDERS).items()}
LABELS = {name: one.label for name, one in (METHODS | CONTENDERS).items()}
WIDTH = 7.2  # inches: a printed text width with margins

PLOT = plt.rc_context({
    "axes.grid": True, "axes.grid.which": "both", "grid.alpha": 0.3, "axes.titlesize": 8,
    "axes.labelsize": 8, "xtick.labelsize": 7, "ytick.labelsize": 7, "legend.fontsize": 7,
    "legend.frameon": False, "figure.titlesize": 9,
})  # fmt: skip
"""Decorator: how every plot looks that shows no pictures."""

_LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_STYLES = ("-", "--", ":", "-.", (0, (5, 1)), (0, (3, 1, 1, 1)), "-")
_ON_PICTURE = {"bbox": {"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 1}}
_DIAMOND = {"ls": "", "marker": "D", "ms": 4, "mfc": "white", "mec": "black"}
_DESCRIPTION, _COPYRIGHT = 0x010E, 0x8298  # EXIF tags


def save_figure(figure: Figure, path: str | Path, *, pictures: str = "", dpi: int = 150) -> Path:
    """Save a figure with a note that says whose pictures it shows, whole or not at all.

    Args:
        figure, path: Any figure; ``*.png`` or ``*.jpg`` (quality 90), at a resolution of `dpi`.
        pictures: Source of its pictures, a key of SHOWABLE where they may be published; "" for none.

    Raises:
        ValueError: The figure shows pictures and `pictures` does not say whose.
    """
    path = Path(path)
    if not pictures and any(i.get_array().ndim == 3 for a in figure.axes for i in a.images):
        raise ValueError(f"Say whose pictures {path.name} shows.")
    note = {"Pictures": pictures or "none"}
    note |= {"Copyright": SHOWABLE.get(pictures, "not to be published")} if pictures else {}
    options: dict[str, Any] = {"metadata": {"Software": None} | note}
    if path.suffix != ".png":
        exif = Image.Exif()
        exif[_DESCRIPTION], exif[_COPYRIGHT] = note["Pictures"], note.get("Copyright", "")
        options = {"pil_kwargs": {"quality": 90, "exif": exif}}
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=dpi, bbox_inches="tight", **options)
    return path


def pictures_of(file: str | Path | BinaryIO) -> str:
    """Whose pictures a figure shows, as :func:`save_figure` noted it; "" if the file does not say."""
    with Image.open(file) as image:
        return getattr(image, "text", {}).get("Pictures") or image.getexif().get(_DESCRIPTION, "")


def show(figure: Figure, path: str | Path, *, pictures: str = ""):
    """Save a figure, close it, and return the file as an IPython Image for a notebook to display."""
    from IPython.display import Image as Displayed

    save_figure(figure, path, pictures=pictures)
    plt.close(figure)
    return Displayed(filename=str(path), alt=Path(path).stem.replace("_", " "))


def ev_label(ev: int) -> str:
    """``EV 0``, ``EV +1``, ``EV -1`` … with a true minus sign."""
    return "EV 0" if ev == 0 else f"EV {ev:+d}".replace("-", "\N{MINUS SIGN}")


def stacks_figure(rows: Mapping[str, Mapping[int, np.ndarray]]) -> Figure:
    """Exposure stacks (Figures 5 and 6): label -> EV -> uint8 ``(H, W, 3)``, a line per label."""
    evs = sorted(next(iter(rows.values())))
    lines = [(label, [images[ev] for ev in evs]) for label, images in rows.items()]
    return _grid(lines, [ev_label(ev) for ev in evs])[0]


def pictures_figure(pictures: Mapping[str, np.ndarray], columns: int = 4) -> Figure:
    """Titled pictures of one size, uint8 or float in [0, 1] ``(H, W, 3)``, in lines of `columns`."""
    shown, columns = list(pictures.values()), min(columns, len(pictures))
    lines = [("", shown[at : at + columns]) for at in range(0, len(shown), columns)]
    figure, grid = _grid(lines, pictures, hspace=0.2)
    for axes in grid.flat[len(shown) :]:
        axes.axis("off")
    return figure


def difference_figure(
    truth: Mapping[int, np.ndarray], inferred: Mapping[str, Mapping[int, np.ndarray]], limit=64
) -> Figure:
    """Figure 6: the true stack, each method's, and its absolute difference up to `limit` levels of 255."""
    evs = [ev for ev in sorted(truth) if ev != 0]
    lines: list[tuple[str, list]] = [("ground\ntruth", [truth[ev] for ev in evs])]
    style = {"cmap": "viridis", "vmin": 0, "vmax": limit}
    for method, images in inferred.items():
        errors = [np.abs(images[ev].astype(float) - truth[ev]).mean(-1) for ev in evs]
        lines.append((LABELS.get(method, method).replace(" ", "\n"), [images[ev] for ev in evs]))
        lines.append(("absolute\ndifference", [(error, style) for error in errors]))
    text = "absolute difference to the ground truth (levels of 255, mean of RGB)"
    return _grid(lines, [ev_label(ev) for ev in evs], scale=text)[0]


def gain_figure(scenes: Mapping[str, tuple[np.ndarray, np.ndarray]], limit: float = 12) -> Figure:
    """Where the chain beats the tone curve: photos, and below them the gain of every pixel up to ±`limit`.

    `scenes` is title -> EV 0, uint8 ``(H, W, 3)``, and what `exposures.gain_map` gives for it, ``(H, W)``.
    """
    style = {"cmap": "PuOr_r", "vmin": -limit, "vmax": limit}
    photos, gains = zip(*scenes.values(), strict=True)
    text = "purple: the tone curve is nearer; orange: the chain is (levels of 255, mean of RGB and EVs)"
    return _grid([("", photos), ("", [(gain, style) for gain in gains])], scenes, scale=text)[0]


def overview_figure(stack: Mapping[int, np.ndarray], tone_mapped: np.ndarray) -> Figure:
    """The whole method in one picture: photo, inferred exposures, tone-mapped HDR image.

    `stack` is EV -> uint8 ``(H, W, 3)``, EV 0 and six others; `tone_mapped` is float in [0, 1].
    """
    height, width = stack[0].shape[:2]
    figure = plt.figure(figsize=(WIDTH, 0.39 * WIDTH * height / width + 0.3))
    outer = figure.add_gridspec(1, 3, wspace=0.03, width_ratios=[3, 2, 3])
    _picture(figure.add_subplot(outer[0]), stack[0], "one photo (EV 0)")
    inner = outer[1].subgridspec(3, 2, wspace=0.03, hspace=0.03)
    for ev in (-1, -2, -3, 1, 2, 3):
        axes = figure.add_subplot(inner[abs(ev) - 1, int(ev > 0)])
        _picture(axes, stack[ev])
        axes.text(0.03, 0.05, ev_label(ev), fontsize=6, transform=axes.transAxes, **_ON_PICTURE)
    _picture(figure.add_subplot(outer[2]), tone_mapped, "HDR image, tone-mapped")
    return figure


def comparison_figure(ldr: np.ndarray, truth: np.ndarray, results: Mapping[str, tuple]) -> Figure:
    """Figure 7: HDR images of one scene, and where an observer sees that they are not the true one.

    The arguments are what :func:`replication.evaluation.radiance.figure7` returns.
    """
    style = {"cmap": "viridis", "vmin": 0, "vmax": 1}
    lines: list[tuple[str, list]] = [("", [ldr, truth, np.ones_like(truth)])]
    for method, (picture, seen, changes, _) in results.items():
        lines.append((LABELS[method].replace(" ", "\n"), [picture, (seen, style), changes]))
    titles = ["photo (EV 0)", "true HDR image, tone-mapped", "", "tone-mapped", "HDR-VDP-2", "DRIM"]
    figure, grid = _grid(lines, titles, hspace=0.14)
    for axes, (*_, q) in zip(grid[1:, 1], results.values(), strict=True):
        axes.text(0.02, 0.04, f"Q {q:.1f}", fontsize=7, transform=axes.transAxes, **_ON_PICTURE)
    key = grid[0, 2]
    key.clear()
    key.axis("off")
    names = {"only in the true image: lost": LOSS, "only in this image: amplified": AMPLIFICATION}
    names |= {"in both, with opposite signs": REVERSAL}
    patches = [Rectangle((0, 0), 1, 1, color=colour, label=text) for text, colour in names.items()]
    style = {"loc": "upper left", "fontsize": 7, "frameon": False, "title_fontsize": 7}
    key.legend(handles=patches, title="DRIM: contrast that an observer sees", **style)
    bar = key.inset_axes((0.06, 0.3, 0.86, 0.08))
    _scale(grid[1, 1].images[0], "HDR-VDP-2: probability that it is seen", cax=bar)
    return figure


def _grid(
    lines: Sequence[tuple[str, Sequence]], titles: Iterable[str], hspace=0.03, scale: str = ""
) -> tuple[Figure, np.ndarray]:
    """Lines of a label and pictures, or (map, options of imshow); `scale` names the colours of the last."""
    columns, shapes = len(lines[0][1]), [np.shape(cell) for cell in lines[0][1]]
    ratio = max(shape[0] / shape[1] for shape in shapes)
    size = (WIDTH, WIDTH / columns * ratio * (len(lines) + hspace * (len(lines) - 1)))
    figure, grid = plt.subplots(len(lines), columns, squeeze=False, figsize=size)
    figure.subplots_adjust(0, 0, 1, 1, 0.03, hspace)
    for row, (label, cells) in zip(grid, lines, strict=True):
        for axes, cell in zip(row, cells, strict=False):
            image, style = cell if isinstance(cell, tuple) else (cell, {})
            _picture(axes, image, **style)
        row[0].set_ylabel(label, fontsize=6.5, rotation=0, ha="right", va="center")
    for axes, title in zip(grid.flat, titles, strict=False):
        axes.set_title(title, fontsize=8, pad=3)
    if scale:
        _scale(grid[-1, 0].images[0], scale, ax=grid, fraction=0.035, pad=0.025, aspect=55)
    return figure, grid


def _picture(axes: Axes, image: np.ndarray, title: str = "", **style) -> None:
    axes.imshow(image, interpolation="antialiased", **style)
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=8, pad=3)


def _scale(shown: Any, label: str, **place) -> None:
    bar = shown.figure.colorbar(shown, orientation="horizontal", **place)
    bar.set_label(label, fontsize=7)
    bar.ax.tick_params(labelsize=7)


@PLOT
def psnr_figure(summary: pd.DataFrame, theirs: Mapping[int, Mapping], title: str = "") -> Figure:
    """PSNR over EV, mean ± σ over the scenes, with the paper's (`theirs`, as `paper.TABLE4`).

    `summary` has the columns `method`, `ev`, `psnr_mean`, `psnr_sigma` (dB) of one data set.
    """
    figure, axes = plt.subplots(figsize=(WIDTH, 3.2))
    groups = dict(list(summary.set_index("ev").sort_index().groupby("method")))
    parts = {name: groups[name] for name in METHODS if name in groups.keys() - {"tone_curve_unrounded"}}
    scores = {ev: one["psnr"] for ev, one in sorted(theirs.items())}
    parts["paper"] = pd.DataFrame(scores, ["psnr_mean", "psnr_sigma"]).T
    shifts = np.linspace(-0.18, 0.18, len(parts))
    for shift, marker, (name, part) in zip(shifts, "os^Dv<>P", parts.items(), strict=False):
        style = {"color": COLOURS.get(name, "#999999"), "label": LABELS.get(name, name), "ms": 4}
        style |= {"fmt": marker + ("--" if name == "paper" else "-"), "capsize": 2, "lw": 1.2}
        axes.errorbar(part.index + shift, part["psnr_mean"], part["psnr_sigma"], **style)
    axes.set_xticks(list(scores), [ev_label(ev) for ev in scores])
    axes.set(xlabel="exposure of the inferred image", ylabel="PSNR in dB (mean ± σ over scenes)")
    axes.set_title(title)
    axes.legend(ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.2))
    return figure


def table5_figure(rows: pd.DataFrame, title: str = "") -> Figure:
    """Table 5 as dots, from rows of one data set: every image, means, intervals, the paper's means."""
    metrics = {"psnr": "tone-mapped PSNR in dB", "hdrvdp2_q": "HDR-VDP-2 quality Q"}
    metrics |= {"log_rmse_clipped": "RMSE of log10 luminance\nwhere EV 0 clips"}
    groups, panels = dict(list(rows.groupby("method"))), {}
    for metric, label in metrics.items():
        values = {name: groups[name][metric].to_numpy() for name in METHODS if name in groups}
        panels[label] = {m: (x, x, paper.TABLE5.get(m, {}).get(metric)) for m, x in values.items()}
    return _dots_figure(panels, {"marker": ".", "ms": 3, "alpha": 0.4}, "one image", title)


def ablation_figure(rows: pd.DataFrame, metric: str = "psnr", label: str = "PSNR in dB") -> Figure:
    """An ablation as dots, from rows of one data set: seeds, means, intervals, the paper's means."""
    methods, panels = [name for name in CONTENDERS if name in set(rows["method"])], {}
    for ev in sorted(rows["ev"].unique(), key=abs):
        panel = panels[f"{ev_label(ev)}: {label}"] = {}
        for name in methods:
            part = rows[(rows["method"] == name) & (rows["ev"] == ev)]
            images, seeds = (part.groupby(by)[metric].mean().to_numpy() for by in ("scene", "seed"))
            theirs = PAPER_ABLATIONS.get((part["table"].iloc[0], ev, name), {}).get(metric)
            panel[name] = images, seeds, theirs
    return _dots_figure(panels, {"marker": "|", "ms": 7, "mew": 1}, "one seed")


@PLOT
def _dots_figure(panels: Mapping, style: Mapping, mark: str, title: str = "") -> Figure:
    """Panels: label -> method -> (a value per image, the marks to draw, the paper's (mean, σ))."""
    methods = list(next(iter(panels.values())))
    size = (WIDTH if len(panels) > 1 else 0.75 * WIDTH, 0.28 * len(methods) + 1.0)
    figure, grid = plt.subplots(1, len(panels), figsize=size, sharey=True, squeeze=False)
    for axes, (label, panel) in zip(grid[0], panels.items(), strict=True):
        for y, (method, (values, marks, theirs)) in enumerate(panel.items()):
            colour = COLOURS[method]
            axes.plot(mean_interval(values), [y, y], "-", color=colour, lw=2.5, alpha=0.6)
            axes.plot(marks, np.full(len(marks), y), ls="", color=colour, **style)
            axes.plot(np.nanmean(values), y, "o", color=colour, ms=5)
            if theirs:
                axes.plot(theirs[0], y, **_DIAMOND)
        axes.set_xlabel(label)
    grid[0, 0].set_yticks(range(len(methods)), [LABELS[name] for name in methods])
    grid[0, 0].set_ylim(len(methods) - 0.5, -0.5)
    mean = {"lw": 2.5, "marker": "o", "ms": 5, "label": "mean, 95 % over images"}
    marks = [mean, {"ls": "", "label": mark, **style}, {"label": "paper's mean", **_DIAMOND}]
    handles = [Line2D([], [], **({"color": "#777777"} | options)) for options in marks]
    figure.suptitle(title, x=0.02, ha="left")
    figure.tight_layout(w_pad=0.6, rect=(0, 0, 1, 0.96))
    figure.legend(handles=handles, loc="upper right", ncols=3)
    return figure


@PLOT
def curves_figure(x: np.ndarray | None, curves: Mapping, xlabel: str, ylabel: str, **options) -> Figure:
    """Lines label -> ``(n,)`` over `x` ``(n,)`` or over a Series' index; `options` are the axes'."""
    figure, axes = plt.subplots(figsize=(WIDTH, 2.8))
    for number, (label, curve) in enumerate(curves.items()):
        axes.plot(pd.Series(curve, x), label=label, **_line(number))
    axes.set(xlabel=xlabel, ylabel=ylabel, **options)
    axes.legend()
    return figure


def training_figure(logs: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """Loss (Eq. 3) over patches seen on logarithmic axes: label -> rows of `train.read_log`."""
    losses = {name: pd.DataFrame(rows).set_index("patches")["loss"] for name, rows in logs.items()}
    label = "training loss, Eq. 3\n(images in [0, 1], sum over RGB)"
    return curves_figure(None, losses, "patches seen", label, xscale="log", yscale="log")


@PLOT
def study_training_figure(logs: pd.DataFrame) -> Figure:
    """Loss curves of an ablation (``STUDY_logs.csv``), a panel per EV; bands hold the seeds."""
    evs = sorted(logs["ev"].unique(), key=abs)
    figure, panels = plt.subplots(1, len(evs), figsize=(WIDTH, 2.6), sharey=True, squeeze=False)
    methods, handles = [name for name in CONTENDERS if name in set(logs["method"])], {}
    for axes, ev in zip(panels[0], evs, strict=True):
        axes.set(xscale="log", yscale="log", xlabel="patches seen", title=ev_label(ev))
        for number, method in enumerate(methods):
            by = logs[(logs["method"] == method) & (logs["ev"] == ev)].groupby("patches")["loss"]
            if len(by):
                style = _line(number) | {"color": COLOURS[method]}
                (handles[LABELS[method]],) = axes.plot(by.mean(), **style)
                low, high = by.min(), by.max()
                axes.fill_between(low.index, low, high, color=style["color"], alpha=0.15, lw=0)
        for axis, steps in ((axes.xaxis, (1, 3)), (axes.yaxis, (1, 2, 5))):
            axis.set(major_locator=LogLocator(subs=steps), major_formatter="{x:g}")
            axis.set_minor_formatter("")
    panels[0, 0].set_ylabel("training loss, Eq. 3 (sum over RGB)")
    figure.tight_layout(w_pad=0.6, rect=(0, 0.07, 1, 1))
    figure.legend(handles.values(), handles, loc="lower center", ncols=4)
    return figure


def _line(number: int) -> dict[str, Any]:
    return {"color": _LINES[number % 7], "linestyle": _STYLES[number % 7], "linewidth": 1.2}
