"""Figures: each function draws one and returns it; the same method has the same colour everywhere."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle
from matplotlib.ticker import LogLocator
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import nn

from replication.data.stacks import SHOWABLE
from replication.evaluation.uncertainty import mean_interval
from replication.files import ReplicationError, atomic_path
from replication.metrics.drim import AMPLIFICATION, LOSS, REVERSAL
from replication.model import DeepChain, SubNetwork, previous_ev
from replication.paper import TABLE2, TABLE3, TABLE5
from replication.report.tables import ABLATION_NAMES, METHOD_NAMES

COLOURS = {
    "ground_truth": "#000000",
    "paper": "#999999",
    "identity": "#56B4E9",
    "linearised": "#56B4E9",
    "tone_curve": "#E69F00",
    "tone_curve_unrounded": "#F0E442",
    "huo": "#009E73",
    "kovaleski_oliveira": "#CC79A7",
    "masia": "#D55E00",
    "expandnet": "#882255",
    "deep_chain_faithful": "#332288",
    "deep_chain": "#0072B2",
    "true_response": "#444444",
    "true_response_kovaleski_oliveira": "#444444",
    "oracle_curve": "#444444",
    "three_frames": "#444444",
    "truth_where_clipped": "#444444",
    "chain": "#0072B2",
    "shallow": "#D55E00",
    "single_deep": "#009E73",
    "single": "#CC79A7",
    "mprelu": "#0072B2",
    "prelu": "#D55E00",
    "relu": "#009E73",
    "leaky_relu": "#CC79A7",
}
"""Okabe and Ito's colour-blind safe palette, one colour per method; dark grey where the truth helps."""

LABELS = METHOD_NAMES | ABLATION_NAMES | {"ground_truth": "ground truth", "paper": "paper"}
"""What a method is called in figures: as in the tables."""

_LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_STYLES = ("-", "--", ":", "-.", (0, (5, 1)), (0, (3, 1, 1, 1)), "-")

_ON_PICTURE = {"bbox": {"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 1}}
_ROW_LABEL = {"fontsize": 6.5, "rotation": 0, "ha": "right", "va": "center"}

MAXIMUM_BYTES = 300_000
WIDTH = 7.2  # inches: a printed text width with margins


PICTURES = "Pictures"
"""Keyword of a PNG file's text that says where the pictures in a figure come from."""


def save_figure(
    figure: Figure,
    path: str | Path,
    *,
    pictures: str = "",
    dpi: int = 150,
    maximum_bytes: int = MAXIMUM_BYTES,
) -> Path:
    """Save as PNG of limited size, reducing colours, then resolution, only if it must.

    The file says whose pictures it shows (text chunks ``Pictures`` and ``Copyright``), so that what
    may not be published can be told from what may.

    Parameters
    ----------
    figure
        Any figure.
    path
        ``*.png``; written whole or not at all.
    pictures
        Data set or other source of the pictures in the figure, a key of
        :data:`replication.data.stacks.SHOWABLE` where they may be published; "" if it has none.
    dpi
        Resolution to start from.
    maximum_bytes
        Limit of the file, 300 KB unless told.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    ReplicationError
        If the file cannot be written.
    ValueError
        If there are pictures in the figure and `pictures` does not say whose.
    """
    path = Path(path)
    if not pictures and any(i.get_array().ndim == 3 for a in figure.axes for i in a.images):
        raise ValueError(f"Say whose pictures {path.name} shows.")
    text = {PICTURES: pictures or "none"}
    if pictures:
        text["Copyright"] = SHOWABLE.get(pictures, "not to be published")
    for resolution in (dpi, 0.8 * dpi, 0.65 * dpi, 0.5 * dpi, 0.4 * dpi):
        drawn = io.BytesIO()
        figure.savefig(
            drawn, dpi=resolution, bbox_inches="tight", metadata={"Software": None} | text
        )
        for buffer in (drawn, _fewer_colours(drawn, text)):
            if buffer.tell() <= maximum_bytes:
                with atomic_path(path) as temporary:
                    temporary.write_bytes(buffer.getvalue())
                return path
    raise ReplicationError(f"Figure {path} cannot be kept below {maximum_bytes // 1000} KB.")


def pictures_of(png: str | Path | io.BytesIO) -> str:
    """Whose pictures a figure shows, as :func:`save_figure` noted it; "" if the file does not say."""
    with Image.open(png) as image:
        return image.text.get(PICTURES, "")


def _fewer_colours(png: io.BytesIO, text: Mapping[str, str]) -> io.BytesIO:
    """The same picture with 256 colours, dithered: a third of the size."""
    buffer, noted = io.BytesIO(), PngInfo()
    for key, value in text.items():
        noted.add_text(key, value)
    picture = Image.open(png).convert("RGB")
    palette = picture.quantize(256)
    picture.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG).save(
        buffer, "png", optimize=True, pnginfo=noted
    )
    return buffer


def show(figure: Figure, path: str | Path, *, pictures: str = "", kilobytes: int = 110):
    """Save a figure and return the file for a notebook to display: what is shown is what is kept.

    Parameters
    ----------
    figure, path, pictures
        As in :func:`save_figure`; the figure is closed.
    kilobytes
        Limit of the file, so that notebooks stay small.

    Returns
    -------
    IPython.display.Image
    """
    from IPython.display import Image as Displayed

    save_figure(figure, path, pictures=pictures, maximum_bytes=1000 * kilobytes)
    plt.close(figure)
    return Displayed(filename=str(path), alt=Path(path).stem.replace("_", " "))


def ev_label(ev: int) -> str:
    """``EV 0``, ``EV +1``, ``EV -1`` … with a true minus sign."""
    return "EV 0" if ev == 0 else f"EV {ev:+d}".replace("-", "\N{MINUS SIGN}")


def _picture(axes: Axes, image: np.ndarray, **options) -> None:
    axes.imshow(image, interpolation="antialiased", **options)
    axes.set_xticks([])
    axes.set_yticks([])


def stacks_figure(rows: Mapping[str, Mapping[int, np.ndarray]]) -> Figure:
    """Exposure stacks, one per row, EVs from left to right (Figures 5 and 6).

    Parameters
    ----------
    rows
        Row label -> EV -> uint8 ``(H, W, 3)``; the rows share their EVs.
    """
    evs = sorted(next(iter(rows.values())))
    height, width = next(iter(next(iter(rows.values())).values())).shape[:2]
    size = (WIDTH, WIDTH / len(evs) * height / width * len(rows) + 0.25)
    figure, grid = plt.subplots(
        len(rows),
        len(evs),
        figsize=size,
        squeeze=False,
        gridspec_kw={"wspace": 0.03, "hspace": 0.05},
    )
    for line, (label, images) in zip(grid, rows.items(), strict=True):
        for axes, ev in zip(line, evs, strict=True):
            _picture(axes, images[ev])
        line[0].set_ylabel(label, **_ROW_LABEL)
    for axes, ev in zip(grid[0], evs, strict=True):
        axes.set_title(ev_label(ev), fontsize=8, pad=3)
    return figure


def pictures_figure(pictures: Mapping[str, np.ndarray], columns: int = 4) -> Figure:
    """Titled pictures in a grid.

    Parameters
    ----------
    pictures
        Title -> uint8 or float in [0, 1], ``(H, W, 3)``, all of one size.
    columns
        Pictures per line.
    """
    columns = min(columns, len(pictures))
    lines = -(-len(pictures) // columns)
    height, width = next(iter(pictures.values())).shape[:2]
    size = (WIDTH, (WIDTH / columns * height / width + 0.25) * lines)
    figure, grid = plt.subplots(
        lines, columns, figsize=size, squeeze=False, gridspec_kw={"wspace": 0.03, "hspace": 0.18}
    )
    for axes in grid.flat:
        axes.axis("off")
    for axes, (title, image) in zip(grid.flat, pictures.items(), strict=False):
        axes.axis("on")
        _picture(axes, image)
        axes.set_title(title, fontsize=8, pad=3)
    return figure


def overview_figure(stack: Mapping[int, np.ndarray], tone_mapped: np.ndarray) -> Figure:
    """The whole way in one picture: photo, inferred exposures, tone-mapped HDR image (Figure 2).

    Parameters
    ----------
    stack
        EV -> uint8 ``(H, W, 3)``: EV 0 and the inferred ±1, ±2, ±3.
    tone_mapped
        ``(H, W, 3)``, float in [0, 1].
    """
    height, width = stack[0].shape[:2]
    figure = plt.figure(figsize=(WIDTH, 0.39 * WIDTH * height / width + 0.3))
    outer = figure.add_gridspec(1, 3, wspace=0.03, width_ratios=[3, 2, 3])
    left, right = figure.add_subplot(outer[0]), figure.add_subplot(outer[2])
    _picture(left, stack[0])
    left.set_title("one photo (EV 0)", fontsize=8, pad=3)
    inner = outer[1].subgridspec(3, 2, wspace=0.03, hspace=0.03)
    for ev in (-1, -2, -3, 1, 2, 3):
        axes = figure.add_subplot(inner[abs(ev) - 1, int(ev > 0)])
        _picture(axes, stack[ev])
        axes.text(0.03, 0.05, ev_label(ev), fontsize=6, transform=axes.transAxes, **_ON_PICTURE)
    _picture(right, tone_mapped)
    right.set_title("HDR image, tone-mapped", fontsize=8, pad=3)
    return figure


def difference_figure(
    truth: Mapping[int, np.ndarray],
    inferred: Mapping[str, Mapping[int, np.ndarray]],
    limit: int = 64,
) -> Figure:
    """Figure 6 with its errors: true stack, then each method's stack and its absolute difference.

    Parameters
    ----------
    truth
        EV -> uint8 ``(H, W, 3)``.
    inferred
        Method -> EV -> uint8 ``(H, W, 3)``.
    limit
        Largest difference on the colour scale, in levels of 255.
    """
    evs = [ev for ev in sorted(truth) if ev != 0]
    height, width = truth[0].shape[:2]
    lines = 1 + 2 * len(inferred)
    size = (WIDTH, WIDTH / len(evs) * height / width * lines + 0.6)
    figure, grid = plt.subplots(
        lines, len(evs), figsize=size, squeeze=False, gridspec_kw={"wspace": 0.03, "hspace": 0.05}
    )
    shown = None
    for column, ev in enumerate(evs):
        _picture(grid[0, column], truth[ev])
        grid[0, column].set_title(ev_label(ev), fontsize=8, pad=3)
        for number, images in enumerate(inferred.values()):
            _picture(grid[1 + 2 * number, column], images[ev])
            error = np.abs(images[ev].astype(np.int16) - truth[ev]).mean(-1)
            axes = grid[2 + 2 * number, column]
            shown = axes.imshow(
                error, cmap="viridis", vmin=0, vmax=limit, interpolation="antialiased"
            )
            axes.set_xticks([])
            axes.set_yticks([])
    grid[0, 0].set_ylabel("ground\ntruth", **_ROW_LABEL)
    for number, method in enumerate(inferred):
        grid[1 + 2 * number, 0].set_ylabel(
            LABELS.get(method, method).replace(" ", "\n"), **_ROW_LABEL
        )
        grid[2 + 2 * number, 0].set_ylabel("absolute\ndifference", **_ROW_LABEL)
    bar = figure.colorbar(
        shown, ax=grid, orientation="horizontal", fraction=0.03, pad=0.02, aspect=60
    )
    bar.set_label("absolute difference to the ground truth, mean of RGB, levels of 255", fontsize=7)
    bar.ax.tick_params(labelsize=7)
    return figure


def gain_figure(scenes: Mapping[str, tuple[np.ndarray, np.ndarray]], limit: float = 12) -> Figure:
    """Where one method beats another: photos, and below them the gain of every pixel.

    Parameters
    ----------
    scenes
        Title -> EV 0, uint8 ``(H, W, 3)``, and :func:`replication.evaluation.exposures.gain_map`, ``(H, W)``.
    limit
        Largest gain on the colour scale, in levels of 255.
    """
    heights = [photo.shape[0] / photo.shape[1] for photo, _ in scenes.values()]
    size = (WIDTH, 2 * WIDTH / len(scenes) * max(heights) + 0.8)
    figure, grid = plt.subplots(
        2, len(scenes), figsize=size, squeeze=False, gridspec_kw={"wspace": 0.04, "hspace": 0.05}
    )
    for (title, (photo, gain)), (top, bottom) in zip(scenes.items(), grid.T, strict=True):
        _picture(top, photo)
        top.set_title(title, fontsize=7, pad=3)
        shown = bottom.imshow(
            gain, cmap="PuOr_r", vmin=-limit, vmax=limit, interpolation="antialiased"
        )
        bottom.set_xticks([])
        bottom.set_yticks([])
    bar = figure.colorbar(
        shown, ax=grid, orientation="horizontal", fraction=0.04, pad=0.03, aspect=50
    )
    text = "purple: the tone curve is nearer; orange: the chain is (levels of 255, mean of RGB and EVs)"
    bar.set_label(text, fontsize=7)
    bar.ax.tick_params(labelsize=7)
    return figure


def psnr_figure(
    summary: pd.DataFrame, paper: Mapping[int, Mapping[str, tuple[float, float]]], title: str = ""
) -> Figure:
    """PSNR over EV, a line per method, σ over the scenes as a bar, the paper's values beside them.

    Parameters
    ----------
    summary
        Columns ``method``, ``ev``, ``psnr_mean``, ``psnr_sigma`` (dB).
    paper
        As :data:`replication.paper.TABLE4`.
    title
        Data set and split.
    """
    figure, axes = plt.subplots(figsize=(WIDTH, 3.2))
    markers = iter("os^Dv<>P")
    methods = [m for m in LABELS if m in set(summary["method"]) - {"tone_curve_unrounded"}]
    series = {m: summary[summary["method"] == m].set_index("ev") for m in methods}
    lines = {m: (t["psnr_mean"], t["psnr_sigma"]) for m, t in series.items()}
    lines["paper"] = tuple(
        pd.Series({ev: scores["psnr"][part] for ev, scores in paper.items()}) for part in (0, 1)
    )
    offsets = np.linspace(-0.18, 0.18, len(lines))
    for offset, (method, (mean, sigma)) in zip(offsets, lines.items(), strict=True):
        evs = sorted(mean.index)
        axes.errorbar(
            np.array(evs) + offset,
            mean[evs],
            sigma[evs],
            fmt=next(markers) + ("--" if method == "paper" else "-"),
            color=COLOURS[method],
            label=LABELS[method],
            capsize=2,
            linewidth=1.2,
            markersize=4,
        )
    axes.set_xticks(sorted(paper), [ev_label(ev) for ev in sorted(paper)])
    axes.set_xlabel("exposure of the inferred image")
    axes.set_ylabel("PSNR in dB (mean ± σ over scenes)")
    axes.set_title(title, fontsize=9)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, ncols=5, loc="upper center", bbox_to_anchor=(0.5, -0.2), frameon=False)
    return figure


def comparison_figure(
    ldr: np.ndarray,
    truth: np.ndarray,
    results: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray, float]],
) -> Figure:
    """Figure 7: HDR images of one scene, and where an observer sees that they are not the true one.

    Parameters
    ----------
    ldr
        EV 0, uint8 ``(H, W, 3)``.
    truth
        The true HDR image, tone-mapped, float in [0, 1], ``(H, W, 3)``.
    results
        Method -> tone-mapped HDR image, HDR-VDP-2's ``P_map`` ``(H, W)`` in [0, 1], DRIM's overlay
        uint8 ``(H, W, 3)``, and Q.
    """
    height, width = ldr.shape[:2]
    line = 0.279 * WIDTH * height / width  # of pictures, in inches
    title, gap = 0.22, 0.03 * line
    tall = title + line + 1.3 * title + len(results) * (line + gap)
    figure = plt.figure(figsize=(WIDTH, tall))
    columns = {"left": 0.14, "right": 0.995, "wspace": 0.03}
    rows = {"top": 1 - title / tall, "bottom": 1 - (title + line) / tall}
    top = figure.add_gridspec(1, 3, **columns, **rows).subplots()
    rows = {"top": rows["bottom"] - 1.3 * title / tall, "bottom": gap / tall, "hspace": 0.03}
    grid = figure.add_gridspec(len(results), 3, **columns, **rows).subplots(squeeze=False)
    titles = ("photo (EV 0)", "true HDR image, tone-mapped")
    for axes, image, title in zip(top, (ldr, truth), titles, strict=False):
        _picture(axes, image)
        axes.set_title(title, fontsize=8, pad=3)
    for line, (method, (picture, seen, changes, q)) in zip(grid, results.items(), strict=True):
        _picture(line[0], picture)
        _picture(line[1], seen, cmap="viridis", vmin=0, vmax=1)
        _picture(line[2], changes)
        line[0].set_ylabel(LABELS[method].replace(" ", "\n"), **_ROW_LABEL)
        line[1].text(
            0.02, 0.04, f"Q {q:.1f}", fontsize=7, transform=line[1].transAxes, **_ON_PICTURE
        )
    for axes, title in zip(grid[0], ("tone-mapped", "HDR-VDP-2", "DRIM"), strict=True):
        axes.set_title(title, fontsize=8, pad=3)
    _comparison_key(top[2])
    return figure


def _comparison_key(axes: Axes) -> None:
    axes.axis("off")
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.text(0.06, 0.95, "DRIM: contrast that an observer sees", fontsize=7, va="center")
    for height, colour, text in (
        (0.80, LOSS, "only in the true image: lost"),
        (0.66, AMPLIFICATION, "only in this image: amplified"),
        (0.52, REVERSAL, "in both, with opposite signs"),
    ):
        axes.add_patch(Rectangle((0.06, height - 0.045), 0.07, 0.09, color=colour))
        axes.text(0.17, height, text, fontsize=7, va="center")
    axes.text(0.06, 0.34, "HDR-VDP-2: probability that it is seen", fontsize=7, va="center")
    scale = axes.inset_axes((0.06, 0.18, 0.86, 0.08))
    scale.imshow(np.linspace(0, 1, 256)[None], cmap="viridis", aspect="auto", extent=(0, 1, 0, 1))
    scale.set_yticks([])
    scale.tick_params(labelsize=6.5, pad=2)


def table5_figure(rows: pd.DataFrame, title: str = "") -> Figure:
    """Table 5 as dots: every image, each method's mean with its 95 % interval, the paper's mean.

    Parameters
    ----------
    rows
        Per-image rows of one data set (:func:`replication.report.read_rows`).
    title
        Data set and split.
    """
    metrics = {
        "psnr": "tone-mapped PSNR in dB",
        "hdrvdp2_q": "HDR-VDP-2 quality Q",
        "log_rmse_clipped": "RMSE of log10 luminance\nwhere EV 0 clips",
    }
    present = set(rows["method"])
    methods = [m for m in METHOD_NAMES if m in present]
    figure, panels = plt.subplots(
        1, len(metrics), figsize=(WIDTH, 0.27 * len(methods) + 0.9), sharey=True
    )
    for axes, (metric, label) in zip(panels, metrics.items(), strict=True):
        for y, method in enumerate(methods):
            values = rows.loc[rows["method"] == method, metric].to_numpy()
            low, high = mean_interval(values)
            axes.plot(values, np.full(len(values), y), ".", color=COLOURS[method], ms=3, alpha=0.35)
            axes.plot([low, high], [y, y], "-", color=COLOURS[method], lw=2.5)
            axes.plot(np.nanmean(values), y, "o", color=COLOURS[method], ms=5)
            if theirs := TABLE5.get(method, {}).get(metric):
                axes.plot(theirs[0], y, "D", mfc="white", mec="black", ms=4)
        axes.set_xlabel(label, fontsize=8)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
    panels[0].set_yticks(range(len(methods)), [LABELS[m] for m in methods], fontsize=7)
    panels[0].invert_yaxis()
    handles = [
        Line2D([], [], ls="", marker=".", ms=4, color="#777777", label="one image"),
        Line2D([], [], lw=2.5, marker="o", ms=5, color="#777777", label="mean, 95 % interval"),
        Line2D([], [], ls="", marker="D", ms=4, mfc="white", mec="black", label="paper's mean"),
    ]
    figure.legend(handles=handles, loc="upper right", ncols=3, fontsize=7, frameon=False)
    figure.suptitle(title, fontsize=9, x=0.02, ha="left")
    figure.tight_layout(w_pad=0.6)
    return figure


def ablation_figure(rows: pd.DataFrame, metric: str = "psnr", label: str = "PSNR in dB") -> Figure:
    """An ablation as dots: each contender's mean with its interval, its seeds, and the paper's mean.

    Parameters
    ----------
    rows
        Per-image rows of one study and data set, from :func:`replication.evaluation.ablation.run_study`.
    metric, label
        Column and what the axis says.
    """
    theirs = {("table2", 3, name): one for name, one in TABLE2.items()}
    theirs |= {("table3", ev, name): one for (ev, name), one in TABLE3.items()}
    study, present = rows["table"].iloc[0], set(rows["method"])
    methods = [name for name in ABLATION_NAMES if name in present]
    evs = sorted(rows["ev"].unique(), key=abs)
    size = (WIDTH if len(evs) > 1 else 0.75 * WIDTH, 0.3 * len(methods) + 1.0)
    figure, panels = plt.subplots(1, len(evs), figsize=size, sharey=True, squeeze=False)
    for axes, ev in zip(panels[0], evs, strict=True):
        for y, method in enumerate(methods):
            part = rows[(rows["method"] == method) & (rows["ev"] == ev)]
            colour = COLOURS.get(method, "#555555")
            values = part.groupby("scene")[metric].mean().to_numpy()
            seeds = part.groupby("seed")[metric].mean().to_numpy()
            axes.plot(mean_interval(values), [y, y], "-", color=colour, lw=2.5, alpha=0.45)
            axes.plot(values.mean(), y, "o", color=colour, ms=5)
            axes.plot(seeds, np.full(len(seeds), y), "|", color="black", ms=7, mew=0.8)
            if one := theirs.get((study, ev, method)):
                axes.plot(one[metric][0], y, "D", mfc="white", mec="black", ms=4)
        axes.set_xlabel(f"{ev_label(ev)}: {label}", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
    names = [ABLATION_NAMES[name] for name in methods]
    panels[0, 0].set_yticks(range(len(methods)), names, fontsize=7)
    panels[0, 0].set_ylim(len(methods) - 0.5, -0.5)
    handles = [
        Line2D([], [], lw=2.5, marker="o", ms=5, color="#777777", label="mean, 95 % over images"),
        Line2D([], [], ls="", marker="|", ms=7, color="black", label="one seed"),
    ]
    if study in ("table2", "table3"):
        diamond = {"ls": "", "marker": "D", "ms": 4, "mfc": "white", "mec": "black"}
        handles.append(Line2D([], [], label="paper's mean", **diamond))
    figure.tight_layout(w_pad=0.6, rect=(0, 0, 1, 0.93))
    figure.legend(handles=handles, loc="upper right", ncols=3, fontsize=7, frameon=False)
    return figure


def study_training_figure(logs: pd.DataFrame) -> Figure:
    """Loss curves of an ablation: a panel per EV, a line per contender, a band over its seeds.

    Parameters
    ----------
    logs
        ``STUDY_logs.csv`` of :func:`replication.evaluation.ablation.run_study`.
    """
    evs = sorted(logs["ev"].unique(), key=abs)
    figure, panels = plt.subplots(1, len(evs), figsize=(WIDTH, 2.6), sharey=True, squeeze=False)
    methods = [name for name in ABLATION_NAMES if name in set(logs["method"])]
    for axes, ev in zip(panels[0], evs, strict=True):
        for number, method in enumerate(methods):
            part = logs[(logs["method"] == method) & (logs["ev"] == ev)]
            if part.empty:
                continue
            by = part.groupby("patches")["loss"]
            colour = COLOURS.get(method, _LINES[number % 7])
            style = {"color": colour, "ls": _STYLES[number % 7], "lw": 1.2}
            axes.plot(by.mean(), label=ABLATION_NAMES[method], **style)
            if part["seed"].nunique() > 1:
                axes.fill_between(
                    by.min().index, by.min(), by.max(), color=colour, alpha=0.15, lw=0
                )
        axes.set(xscale="log", yscale="log", xlabel="patches seen")
        for axis, steps in ((axes.xaxis, (1, 3)), (axes.yaxis, (1, 2, 5))):
            axis.set_major_locator(LogLocator(subs=steps))
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter("")
        axes.set_title(ev_label(ev), fontsize=8)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3, which="both")
    panels[0, 0].set_ylabel("training loss, Eq. 3 (sum over RGB)", fontsize=8)
    handles = {}
    for axes in panels[0]:
        lines, labels = axes.get_legend_handles_labels()
        handles |= dict(zip(labels, lines, strict=True))
    figure.tight_layout(w_pad=0.6, rect=(0, 0.07, 1, 1))
    figure.legend(
        handles.values(), handles.keys(), loc="lower center", ncols=4, fontsize=7, frameon=False
    )
    return figure


def curves_figure(
    x: np.ndarray, curves: Mapping[str, np.ndarray], xlabel: str, ylabel: str, **options
) -> Figure:
    """Lines over a common abscissa.

    Parameters
    ----------
    x
        ``(n,)``.
    curves
        Label -> ``(n,)``.
    xlabel, ylabel
        Axis labels with units.
    **options
        Properties of the axes, e.g. ``xscale="log"``.
    """
    figure, axes = plt.subplots(figsize=(WIDTH, 2.8))
    for number, (label, y) in enumerate(curves.items()):
        style = {"color": _LINES[number % 7], "linestyle": _STYLES[number % 7], "linewidth": 1.3}
        axes.plot(x, y, label=label, **style)
    axes.set(xlabel=xlabel, ylabel=ylabel, **options)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, frameon=False)
    return figure


def training_figure(logs: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """Loss (Eq. 3) over patches seen, a line per run, on logarithmic axes.

    Parameters
    ----------
    logs
        Label -> rows of :func:`replication.train.read_log`.
    """
    figure, axes = plt.subplots(figsize=(WIDTH, 2.8))
    for number, (label, rows) in enumerate(logs.items()):
        axes.plot(
            [row["patches"] for row in rows],
            [row["loss"] for row in rows],
            color=_LINES[number % 7],
            linestyle=_STYLES[number % 7],
            linewidth=1.2,
            label=label,
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("patches seen")
    axes.set_ylabel("training loss, Eq. 3\n(images in [0, 1], sum over RGB)")
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8, frameon=False)
    return figure


def activation_figure(functions: Mapping[str, nn.Module]) -> Figure:
    """Activations and their slopes, side by side.

    Parameters
    ----------
    functions
        ``"mprelu"``, ``"prelu"`` … -> module.
    """
    import torch

    x = torch.linspace(-2, 2, 401, requires_grad=True)
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 2.6))
    for style, (name, function) in zip(("-", "--", ":", "-."), functions.items(), strict=False):
        y = function(x.view(1, 1, -1)).view(-1)
        (slope,) = torch.autograd.grad(y.sum(), x)
        options = {"color": COLOURS.get(name), "linestyle": style, "label": LABELS.get(name, name)}
        left.plot(x.detach(), y.detach(), **options)
        right.plot(x.detach(), slope, **options)
    left.set_ylabel("output")
    right.set_ylabel("slope")
    for axes in (left, right):
        axes.set_xlabel("input of the activation")
        axes.grid(alpha=0.3)
    left.legend(fontsize=8, frameon=False)
    figure.tight_layout()
    return figure


def _box(axes: Axes, x: float, y: float, text: str, colour: str, width=1.0, height=0.62) -> None:
    axes.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - height / 2),
            width,
            height,
            boxstyle="round,pad=0.02,rounding_size=0.06",
            facecolor=colour,
            edgecolor="black",
            linewidth=0.7,
        )
    )
    axes.text(x, y, text, ha="center", va="center", fontsize=6.2)


def _arrow(axes: Axes, start, end, bend: float = 0.0, colour="black") -> None:
    axes.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle="-|>",
            mutation_scale=7,
            linewidth=0.7,
            color=colour,
            connectionstyle=f"arc3,rad={bend}",
        )
    )


def problem_figure() -> Figure:
    """Figure 1, drawn: why one LDR image does not determine an HDR image.

    By a camera of gamma 2.2. (a) Outside its own few stops EV 0 is clipped, or its levels are more than
    a quarter of a stop apart: the wider the range, the less there is to map from. (b) Without the
    exposure's settings one pixel value means another luminance for every EV.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 2.7), sharey=True)
    light = np.linspace(-13, 5, 721)  # log2 of the luminance that saturates EV 0
    middle = _levels(light, 0)
    left.plot(light, middle, color=COLOURS["deep_chain"], label="EV 0")
    known = light[_told(middle)]
    left.axvspan(known[0], known[-1], color=COLOURS["deep_chain"], alpha=0.12, lw=0)
    for x, text in ((-12.8, "levels too\nfar apart"), (0.4, "clipped: nothing\nto map from")):
        left.text(x, 150, text, fontsize=7)
    left.set_title("(a) the wider the range, the less is known", fontsize=8)
    left.set_ylabel("pixel value")
    for ev, style in ((-3, "--"), (0, "-"), (3, ":")):
        right.plot(light, _levels(light, ev), style, color=_EV_COLOURS[ev], label=ev_label(ev))
        meets = 2.2 * np.log2(128 / 255) - ev
        right.plot([meets, meets], [0, 128], style, color=_EV_COLOURS[ev], lw=0.8)
    right.axhline(128, color="#777777", lw=0.8)
    right.text(-12.8, 134, "one pixel value …", fontsize=7)
    right.text(-12.8, 60, "… several\nluminances", fontsize=7)
    right.set_title("(b) without the settings the scale is unknown", fontsize=8)
    for axes in (left, right):
        axes.set_xlabel("scene luminance, stops above what saturates EV 0", fontsize=8)
        axes.set_xticks(range(-12, 6, 3))
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7, frameon=False, loc="upper left")
    figure.tight_layout(w_pad=0.8)
    return figure


def stack_range_figure() -> Figure:
    """Figure 2, drawn: which luminances each exposure of the stack knows, and who infers it.

    A bar per exposure of a camera of gamma 2.2, from where its levels are a quarter of a stop apart to
    the last below 255; arrows are the subnetworks, each of which bridges a single stop.
    """
    figure, axes = plt.subplots(figsize=(WIDTH, 2.5))
    light = np.linspace(-14, 5, 1901)
    for ev in range(-3, 4):
        known = light[_told(_levels(light, ev))]
        axes.barh(ev, np.ptp(known), left=known[0], height=0.55, color=_EV_COLOURS[ev])
        axes.text(known[0] - 0.15, ev, ev_label(ev), fontsize=7, ha="right", va="center")
        if ev:
            before = previous_ev(ev)
            end = light[_told(_levels(light, before))][-1]
            _arrow(axes, (end + 0.15, before), (known[-1] + 0.15, ev), bend=0.4 if ev > 0 else -0.4)
    axes.set(xlim=(-15, 5), ylim=(-3.6, 3.6), yticks=[])
    axes.set_xlabel("scene luminance, stops above what saturates EV 0", fontsize=8)
    axes.set_xticks(range(-15, 6, 3))
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3, axis="x")
    figure.tight_layout()
    return figure


def _levels(light: np.ndarray, ev: int) -> np.ndarray:
    """Pixel values of log2 luminance at an exposure; gamma 2.2, 1 saturates EV 0."""
    return np.rint(255 * np.clip(2.0 ** (light + ev), 0, 1) ** (1 / 2.2))


def _told(levels: np.ndarray) -> np.ndarray:
    """Where a pixel value tells the luminance: not clipped, and the next level within ¼ stop."""
    return (2.2 * np.log2((levels + 1) / np.maximum(levels, 1e-9)) < 0.25) & (levels < 255)


_EV_COLOURS = dict(
    zip(
        range(-3, 4),
        ("#332288", "#0072B2", "#56B4E9", "#000000", "#E69F00", "#D55E00", "#882255"),
        strict=True,
    )
)


def chain_figure(chain: DeepChain) -> Figure:
    """Figure 3, drawn from the model: which subnetwork takes which image.

    Parameters
    ----------
    chain
        Its EVs and activations are read off the object.
    """
    reach = max(abs(ev) for ev in chain.evs)
    figure, axes = plt.subplots(figsize=(WIDTH, 2.6))
    place = {0: (0.0, 0.0)}
    for ev in chain.evs:
        place[ev] = (2.6 * abs(ev), 0.75 if ev > 0 else -0.75)
    _box(axes, 0, 0, "LDR image\nEV 0", "#DDDDDD")
    for ev in chain.evs:
        x, y = place[ev]
        activation = LABELS.get(chain[ev].activation, chain[ev].activation)
        _box(axes, x - 1.3, y, f"subnetwork\n{activation}", "#CFE3F2" if ev > 0 else "#F6DCC8")
        _box(axes, x, y, f"inferred\n{ev_label(ev)}", "#DDDDDD")
        source = place[previous_ev(ev)]
        _arrow(axes, (source[0] + 0.52, source[1]), (x - 1.84, y))
        _arrow(axes, (x - 0.78, y), (x - 0.52, y))
    end = 2.6 * reach + 1.7
    _box(axes, end, 0, "Debevec\nHDR image", "#CDEBDD")
    for side in (1, -1):
        _arrow(axes, (2.6 * reach + 0.3 * 1, 0.42 * side), (end - 0.54, 0.1 * side))
    axes.text(end, -0.62, "all seven exposures", fontsize=6, ha="center")
    axes.set_xlim(-0.7, end + 0.7)
    axes.set_ylim(-1.2, 1.2)
    axes.set_aspect("equal")
    axes.axis("off")
    return figure


def subnetwork_figure(network: SubNetwork) -> Figure:
    """Figure 4, drawn from the model: kernels, dilations and widths are read off the layers.

    Parameters
    ----------
    network
        The subnetwork to draw.
    """
    figure, axes = plt.subplots(figsize=(WIDTH, 2.7))
    activation = LABELS.get(network.activation, network.activation)
    step, blocks = 1.3, len(network.features)
    _box(axes, -step, 0, "image\nEV i", "#DDDDDD", 0.9)
    joined = blocks * step + 0.1
    for number, block in enumerate(network.features):
        x, layer = number * step, block[0]
        size = f"{layer.kernel_size[0]}×{layer.kernel_size[1]}"
        text = f"{size}\ndil. {layer.dilation[0]}\n{layer.out_channels} ch"
        _box(axes, x, 0, text, "#CFE3F2", 0.95, 1.0)
        _arrow(axes, (x - step + 0.46, 0), (x - 0.47, 0))
        if number < blocks - 1:
            _arrow(axes, (x, 0.52), (joined - 0.1, 0.62), -0.25, "#888888")
    _arrow(axes, (joined - step + 0.4, 0), (joined - 0.46, 0))
    _box(axes, joined, 0, f"concat\n{network.r1[0].in_channels} ch", "#EEEEEE", 0.95, 1.2)
    first, second = joined + 1.6, joined + 3.0
    places = {"r1": (0.5 * (first + second), 0.75), "r2": (first, -0.75), "r3": (second, -0.75)}
    for name, (x, y) in places.items():
        layer = getattr(network, name)[0]
        size = f"{layer.kernel_size[0]}×{layer.kernel_size[1]}"
        _box(axes, x, y, f"{name} {size}\n{layer.out_channels} ch", "#F6DCC8", 1.0, 0.8)
    _arrow(axes, (joined + 0.5, 0.25), (places["r1"][0] - 0.52, 0.75))
    _arrow(axes, (joined + 0.5, -0.25), (first - 0.52, -0.7))
    _arrow(axes, (first + 0.5, -0.75), (second - 0.5, -0.75))
    end = second + 1.45
    _box(axes, end, 0, f"concat\n{network.r4.in_channels} ch\nr4 1×1\ntanh", "#F6DCC8", 1.0, 1.4)
    _arrow(axes, (places["r1"][0] + 0.52, 0.75), (end - 0.52, 0.25))
    _arrow(axes, (second + 0.52, -0.7), (end - 0.52, -0.25))
    axes.text(end + 0.95, 0, "+", fontsize=12, ha="center", va="center")
    _arrow(axes, (end + 0.5, 0), (end + 0.8, 0))
    _arrow(axes, (end + 1.1, 0), (end + 1.42, 0))
    _box(axes, end + 1.9, 0, "image\nEV j", "#DDDDDD", 0.9)
    low = -1.75
    axes.plot([-step, -step, end + 0.95], [-0.34, low, low], color="black", linewidth=0.7)
    _arrow(axes, (end + 0.95, low), (end + 0.95, -0.2))
    middle = 0.5 * joined
    axes.text(
        middle, low + 0.12, "residual learning: the input is added", fontsize=6.5, ha="center"
    )
    note = f"every convolution but r4 is followed by batch normalisation and {activation}"
    axes.text(middle, 2.1, note, fontsize=6.5, ha="center")
    axes.set_xlim(-2, end + 2.6)
    axes.set_ylim(-2, 2.4)
    axes.axis("off")
    return figure
