"""Figures are files of limited size, drawn from the objects that they show."""

import io

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from torch import nn

from replication import figures, paper
from replication.errors import ReplicationError
from replication.model import DeepChain, MPReLU, SubNetwork

mpl.use("Agg")


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def noise_figure():
    picture = np.random.default_rng(0).integers(0, 256, (400, 600, 3), np.uint8)
    return figures.pictures_figure({"noise": picture}, columns=1)


def test_saved_figures_keep_to_the_limit(tmp_path):
    path = figures.save_figure(noise_figure(), tmp_path / "noise.png", maximum_bytes=200_000)
    assert path.stat().st_size <= 200_000
    assert Image.open(path).width > 200
    assert [p.name for p in tmp_path.iterdir()] == ["noise.png"]
    with pytest.raises(ReplicationError, match=r"noise2\.png cannot be kept below 1 KB"):
        figures.save_figure(noise_figure(), tmp_path / "noise2.png", maximum_bytes=1000)


def test_small_figures_keep_their_colours(tmp_path):
    figure = figures.curves_figure(np.arange(3), {"a": np.arange(3)}, "x (s)", "y (m)")
    path = figures.save_figure(figure, tmp_path / "curve.png")
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=150, bbox_inches="tight")
    assert np.array_equal(np.array(Image.open(path)), np.array(Image.open(drawn)))


def test_architecture_figures_are_read_off_the_model():
    chain = texts(figures.chain_figure(DeepChain((1, 2, 3, 4, -1))))
    assert sum("subnetwork" in text for text in chain) == 5
    assert sum("MPReLU" in text for text in chain) == 1
    assert any("EV +4" in text for text in chain)
    network = texts(figures.subnetwork_figure(SubNetwork("mprelu", kernels=16)))
    dilations = [text.split("dil. ")[1].split("\n")[0] for text in network if "dil." in text]
    assert [int(d) for d in dilations] == list(paper.DILATIONS)
    assert any("concat\n112 ch" in text for text in network)
    assert any("32 ch\nr4 1×1" in text for text in network)


def test_activation_figure_plots_equation_5():
    figure = figures.activation_figure({"mprelu": MPReLU(init=0.5), "prelu": nn.PReLU(init=0.5)})
    mprelu, prelu = figure.axes[0].get_lines()
    assert mprelu.get_ydata()[0] == pytest.approx(-2)
    assert mprelu.get_ydata()[-1] == pytest.approx(1)
    assert prelu.get_ydata()[0] == pytest.approx(-1)


def test_psnr_figure_shows_every_method_and_the_paper():
    summary = pd.DataFrame(
        [
            {"method": m, "ev": ev, "psnr_mean": 30.0, "psnr_sigma": 1.0}
            for m in ("identity", "deep_chain")
            for ev in paper.TABLE4
        ]
    )
    figure = figures.psnr_figure(summary, paper.TABLE4)
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == ["EV 0 unchanged", "deep chain", "paper"]
    assert "dB" in figure.axes[0].get_ylabel()


def test_picture_figures_have_one_axes_a_picture():
    images = {ev: np.full((20, 30, 3), 100 + ev, np.uint8) for ev in range(-3, 4)}
    assert len(figures.stacks_figure({"a": images, "b": images}).axes) == 14
    assert len(figures.overview_figure(images, images[0] / 255).axes) == 8
    difference = figures.difference_figure(images, {"tone_curve": images, "deep_chain": images})
    assert len(difference.axes) == 6 * 5 + 1  # and the colour scale


def test_one_colour_per_method_everywhere():
    methods = [m for m in figures.LABELS if m not in ("mprelu", "prelu")]
    assert len({figures.COLOURS[m] for m in methods}) == len(methods)
    assert figures.COLOURS.keys() == figures.LABELS.keys()
