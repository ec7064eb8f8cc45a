"""Figures 1 to 4 drawn by code, the last two read off the model, and what activations do."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from torch import nn

from replication.model import DeepChain, SubNetwork, previous_ev
from replication.report.figures import COLOURS, LABELS, PLOT, WIDTH, ev_label

_GREY, _BLUE, _ORANGE, _GREEN = "#DDDDDD", "#CFE3F2", "#F6DCC8", "#CDEBDD"
_SCALE = ("#332288", "#0072B2", "#56B4E9", "#000000", "#E69F00", "#D55E00", "#882255")
_EV_COLOURS = dict(zip(range(-3, 4), _SCALE, strict=True))
_X_LABEL = "scene luminance, stops above what saturates EV 0"


@PLOT
def problem_figure() -> Figure:
    """Figure 1, drawn: why one LDR image does not determine an HDR image (a camera of gamma 2.2).

    (a) Outside a few stops EV 0 is clipped, or its levels are more than a quarter of a stop apart.
    (b) Without the settings of the exposure one pixel value means another luminance for every EV.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 2.7), sharey=True)
    light = np.linspace(-13, 5, 721)  # log2 of the luminance that saturates EV 0
    left.plot(light, _levels(light, 0), color=COLOURS["deep_chain"], label="EV 0")
    known = light[_known(_levels(light, 0))]
    left.axvspan(known[0], known[-1], color=COLOURS["deep_chain"], alpha=0.12, lw=0)
    left.text(-12.8, 150, "levels too\nfar apart", fontsize=7)
    left.text(0.4, 150, "clipped: nothing\nto map from", fontsize=7)
    left.set(title="(a) the wider the range, the less is known", ylabel="pixel value")
    for ev, style in ((-3, "--"), (0, "-"), (3, ":")):
        right.plot(light, _levels(light, ev), style, color=_EV_COLOURS[ev], label=ev_label(ev))
        meets = 2.2 * np.log2(128 / 255) - ev
        right.plot([meets, meets], [0, 128], style, color=_EV_COLOURS[ev], lw=0.8)
    right.axhline(128, color="#777777", lw=0.8)
    for y, text in ((134, "one pixel value …"), (60, "… several\nluminances")):
        right.text(-12.8, y, text, fontsize=7)
    right.set_title("(b) without the settings the scale is unknown")
    for axes in (left, right):
        axes.set(xlabel=_X_LABEL, xticks=range(-12, 6, 3))
        axes.legend(loc="upper left")
    figure.tight_layout(w_pad=0.8)
    return figure


@PLOT
def stack_range_figure() -> Figure:
    """Figure 2, drawn: which luminances each exposure of a camera of gamma 2.2 holds, by :func:`_known`.

    Arrows are the subnetworks; each crosses one stop.
    """
    figure, axes = plt.subplots(figsize=(WIDTH, 2.5))
    light = np.linspace(-14, 5, 1901)
    for ev in range(-3, 4):
        known = light[_known(_levels(light, ev))]
        axes.barh(ev, np.ptp(known), left=known[0], height=0.55, color=_EV_COLOURS[ev])
        axes.text(known[0] - 0.15, ev, ev_label(ev), fontsize=7, ha="right", va="center")
        if ev:
            before = previous_ev(ev)
            end = light[_known(_levels(light, before))][-1]
            _arrow(axes, (end + 0.15, before), (known[-1] + 0.15, ev), bend=0.4 if ev > 0 else -0.4)
    axes.set(xticks=range(-15, 6, 3), yticks=[], xlabel=_X_LABEL, xlim=(-15, 5), ylim=(-3.6, 3.6))
    figure.tight_layout()
    return figure


def _levels(light: np.ndarray, ev: int) -> np.ndarray:
    """Pixel values of log2 luminance at an exposure; gamma 2.2, 1 saturates EV 0."""
    return np.rint(255 * np.clip(2.0 ** (light + ev), 0, 1) ** (1 / 2.2))


def _known(levels: np.ndarray) -> np.ndarray:
    """Where a pixel value determines the luminance: not clipped, and the next level within ¼ stop."""
    return (2.2 * np.log2((levels + 1) / np.maximum(levels, 1e-9)) < 0.25) & (levels < 255)


def chain_figure(chain: DeepChain) -> Figure:
    """Figure 3, drawn from the model: which subnetwork takes which image."""
    figure, axes = plt.subplots(figsize=(WIDTH, 2.6))
    at = {0: (0.0, 0.0)} | {ev: (2.6 * abs(ev), 0.75 if ev > 0 else -0.75) for ev in chain.evs}
    _box(axes, 0, 0, "LDR image\nEV 0", _GREY)
    for ev in chain.evs:
        (x, y), source = at[ev], at[previous_ev(ev)]
        activation = LABELS.get(chain[ev].activation, chain[ev].activation)
        _box(axes, x - 1.3, y, f"subnetwork\n{activation}", _BLUE if ev > 0 else _ORANGE)
        _box(axes, x, y, f"inferred\n{ev_label(ev)}", _GREY)
        _arrow(axes, (source[0] + 0.52, source[1]), (x - 1.84, y))
        _arrow(axes, (x - 0.78, y), (x - 0.52, y))
    last = 2.6 * max(abs(ev) for ev in chain.evs)
    _box(axes, last + 1.7, 0, "Debevec\nHDR image", _GREEN)
    for side in (1, -1):
        _arrow(axes, (last + 0.3, 0.42 * side), (last + 1.16, 0.1 * side))
    axes.text(last + 1.7, -0.62, f"all {len(chain.evs) + 1} exposures", fontsize=6, ha="center")
    axes.set(xlim=(-0.7, last + 2.4), ylim=(-1.2, 1.2), aspect="equal")
    axes.axis("off")
    return figure


def subnetwork_figure(network: SubNetwork) -> Figure:
    """Figure 4, drawn from the model: kernels, dilations and widths are read off the layers."""
    figure, axes = plt.subplots(figsize=(WIDTH, 2.7))
    activation = LABELS.get(network.activation, network.activation)
    step, blocks = 1.3, len(network.features)
    joined = blocks * step + 0.1
    first, second = joined + 1.6, joined + 3.0
    middle, end = 0.5 * (first + second), second + 1.45
    _box(axes, -step, 0, "image\nEV i", _GREY, 0.9)
    for number, block in enumerate(network.features):
        x, layer = number * step, block[0]
        text = f"{_size(layer)}\ndil. {layer.dilation[0]}\n{layer.out_channels} ch"
        _box(axes, x, 0, text, _BLUE, 0.95, 1.0)
        _arrow(axes, (x - step + 0.46, 0), (x - 0.47, 0))
        if number < blocks - 1:
            _arrow(axes, (x, 0.52), (joined - 0.1, 0.62), -0.25, "#888888")
    _arrow(axes, (joined - step + 0.4, 0), (joined - 0.46, 0))
    _box(axes, joined, 0, f"concat\n{network.r1[0].in_channels} ch", "#EEEEEE", 0.95, 1.2)
    for name, x, y in (("r1", middle, 0.75), ("r2", first, -0.75), ("r3", second, -0.75)):
        layer = getattr(network, name)[0]
        _box(axes, x, y, f"{name} {_size(layer)}\n{layer.out_channels} ch", _ORANGE, 1.0, 0.8)
    r4 = f"concat\n{network.r4.in_channels} ch\nr4 {_size(network.r4)}\ntanh"
    _box(axes, end, 0, r4, _ORANGE, 1.0, 1.4)
    axes.text(end + 0.95, 0, "+", fontsize=12, ha="center", va="center")
    _box(axes, end + 1.9, 0, "image\nEV j", _GREY, 0.9)
    axes.plot([-step, -step, end + 0.95], [-0.34, -1.75, -1.75], color="black", linewidth=0.7)
    for start, stop in (
        ((joined + 0.5, 0.25), (middle - 0.52, 0.75)),
        ((joined + 0.5, -0.25), (first - 0.52, -0.7)),
        ((first + 0.5, -0.75), (second - 0.5, -0.75)),
        ((middle + 0.52, 0.75), (end - 0.52, 0.25)),
        ((second + 0.52, -0.7), (end - 0.52, -0.25)),
        ((end + 0.5, 0), (end + 0.8, 0)),
        ((end + 1.1, 0), (end + 1.42, 0)),
        ((end + 0.95, -1.75), (end + 0.95, -0.2)),
    ):
        _arrow(axes, start, stop)
    text = f"every convolution but r4 is followed by batch normalisation and {activation}"
    axes.text(0.5 * joined, 2.1, text, fontsize=6.5, ha="center")
    text = "residual learning: the input is added"
    axes.text(0.5 * joined, -1.63, text, fontsize=6.5, ha="center")
    axes.set(xlim=(-2, end + 2.6), ylim=(-2, 2.4))
    axes.axis("off")
    return figure


@PLOT
def activation_figure(functions: Mapping[str, nn.Module]) -> Figure:
    """Activations (Eq. 5) and their slopes, side by side: ``"mprelu"``, ``"prelu"`` … -> module."""
    x = torch.linspace(-2, 2, 401, requires_grad=True)
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 2.6))
    for style, (name, function) in zip(("-", "--", ":", "-."), functions.items(), strict=False):
        y = function(x.view(1, 1, -1)).view(-1)
        (slope,) = torch.autograd.grad(y.sum(), x)
        options = {"color": COLOURS.get(name), "linestyle": style, "label": LABELS.get(name, name)}
        left.plot(x.detach(), y.detach(), **options)
        right.plot(x.detach(), slope, **options)
    for axes, label in ((left, "output"), (right, "slope")):
        axes.set(xlabel="input of the activation", ylabel=label)
    left.legend()
    figure.tight_layout()
    return figure


def _size(layer: nn.Conv2d) -> str:
    return "×".join(map(str, layer.kernel_size))


def _box(axes: Axes, x: float, y: float, text: str, colour: str, width=1.0, height=0.62) -> None:
    style = {"boxstyle": "round,pad=0.02,rounding_size=0.06", "facecolor": colour, "linewidth": 0.7}
    corner = (x - width / 2, y - height / 2)
    axes.add_patch(FancyBboxPatch(corner, width, height, edgecolor="black", **style))
    axes.text(x, y, text, ha="center", va="center", fontsize=6.2)


def _arrow(axes: Axes, start, end, bend: float = 0.0, colour: str = "black") -> None:
    style = {"arrowstyle": "-|>", "mutation_scale": 7, "linewidth": 0.7, "color": colour}
    axes.add_patch(FancyArrowPatch(start, end, connectionstyle=f"arc3,rad={bend}", **style))
