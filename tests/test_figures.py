"""Figures are files of limited size, drawn from the objects that they show."""

import io

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from torch import nn

from replication import paper
from replication.evaluation.ablation import STUDIES
from replication.files import ReplicationError
from replication.images import to_uint8
from replication.model import DeepChain, MPReLU, SubNetwork
from replication.report import figures, tables

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
    path = figures.save_figure(
        noise_figure(), tmp_path / "noise.png", pictures="mini", maximum_bytes=200_000
    )
    assert path.stat().st_size <= 200_000
    assert Image.open(path).width > 200
    assert Image.open(path).text["Copyright"] == "Poly Haven, CC0"
    assert [p.name for p in tmp_path.iterdir()] == ["noise.png"]
    with pytest.raises(ReplicationError, match=r"noise2\.png cannot be kept below 1 KB"):
        figures.save_figure(
            noise_figure(), tmp_path / "noise2.png", pictures="mini", maximum_bytes=1000
        )


def test_saved_figures_say_whose_pictures_they_show(tmp_path):
    curve = figures.curves_figure(np.arange(3), {"a": np.arange(3)}, "x (s)", "y (m)")
    assert figures.pictures_of(figures.save_figure(curve, tmp_path / "curve.png")) == "none"
    for limit in (1_000_000, 200_000):  # all colours, 256 colours
        path = figures.save_figure(
            noise_figure(), tmp_path / "noise.png", pictures="hdrps", maximum_bytes=limit
        )
        assert figures.pictures_of(path) == "hdrps"
        assert Image.open(path).text["Copyright"] == "not to be published"
    with pytest.raises(ValueError, match=r"whose pictures noise\.png shows"):
        figures.save_figure(noise_figure(), tmp_path / "noise.png")


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
    # EV 0 is one colour whether unchanged or linearised; all that uses the truth is dark grey
    shared = {"linearised", *tables.USES_TRUTH}
    methods = [m for m in tables.METHOD_NAMES if m not in shared]
    assert len({figures.COLOURS[m] for m in methods}) == len(methods)
    assert {figures.COLOURS[m] for m in tables.USES_TRUTH}.isdisjoint(
        figures.COLOURS[m] for m in methods
    )
    for study in ("table2", "table3"):
        contenders = ["tone_curve", *STUDIES[study]]
        assert len({figures.COLOURS[m] for m in contenders}) == len(contenders)
    assert figures.COLOURS["chain"] == figures.COLOURS["deep_chain"]
    assert figures.COLOURS.keys() <= figures.LABELS.keys()


@pytest.mark.parametrize(("table", "ev"), [("table2", 3), ("table3", -1)])
def test_ablation_figure_shows_means_seeds_and_the_paper(table, ev):
    theirs = {m: scores for (one, m), scores in paper.TABLE3.items() if one == ev} or paper.TABLE2
    contenders = ["tone_curve", *theirs]
    generator = np.random.default_rng(0)
    rows = pd.DataFrame(
        {
            "table": table,
            "method": method,
            "ev": ev,
            "seed": seed,
            "scene": f"s{number}",
            "psnr": generator.uniform(20, 40),
        }
        for method in contenders
        for seed in range(1 if method == "tone_curve" else 3)
        for number in range(6)
    )
    figure = figures.ablation_figure(rows)
    (axes,) = figure.axes
    drawn = [set(np.round(np.ravel(line.get_xdata()), 6)) for line in axes.lines]
    for method in contenders:
        part = rows[rows["method"] == method]
        assert {round(part["psnr"].mean(), 6)} in drawn
        assert set(part.groupby("seed")["psnr"].mean().round(6)) in drawn
    for scores in theirs.values():
        assert {scores["psnr"][0]} in drawn
    assert [tick.get_text() for tick in axes.get_yticklabels()] == [
        tables.ABLATION_NAMES[m] for m in contenders
    ]
    plt.close(figure)


def test_study_training_figure_has_a_panel_per_ev_and_a_line_per_contender():
    logs = pd.DataFrame(
        {"method": m, "seed": seed, "ev": ev, "patches": n, "loss": 1 / n + seed}
        for m, evs in {"chain": (1, 2, 3), "shallow": (3,)}.items()
        for ev in evs
        for seed in (0, 1)
        for n in (100, 200, 400)
    )
    figure = figures.study_training_figure(logs)
    assert [axes.get_title() for axes in figure.axes] == ["EV +1", "EV +2", "EV +3"]
    assert [len(axes.lines) for axes in figure.axes] == [1, 1, 2]
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), [0.51, 0.505, 0.5025])
    plt.close(figure)


def test_table_5_figure_shows_every_image_the_mean_and_the_paper():
    generator = np.random.default_rng(0)
    rows = pd.DataFrame(
        {
            "method": method,
            "scene": f"s{number}",
            "psnr": generator.uniform(15, 35),
            "hdrvdp2_q": generator.uniform(40, 70),
            "log_rmse_clipped": np.nan if number == 0 else generator.uniform(0, 1),
        }
        for method in ("tone_curve", "huo", "deep_chain")
        for number in range(6)
    )
    figure = figures.table5_figure(rows, "six scenes")
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == [
        *("tone curve", "Huo [14]", "deep chain")
    ]
    dots = [line for line in figure.axes[0].lines if line.get_marker() == "D"]
    assert [dot.get_xdata()[0] for dot in dots] == [
        paper.TABLE5[m]["psnr"][0] for m in ("huo", "deep_chain")
    ]
    assert all(axes.get_xlabel() for axes in figure.axes)


def test_comparison_figure_has_three_pictures_a_method_and_its_key():
    image = np.full((20, 30, 3), 0.5)
    result = (image, image[..., 0], to_uint8(image), 56.36)
    figure = figures.comparison_figure(
        to_uint8(image), image, {"tone_curve": result, "deep_chain": result}
    )
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert texts.count("Q 56.4") == 2
    assert any("lost" in text for text in texts)
    assert len(figure.axes) == 3 + 2 * 3
    assert [axes.get_title() for axes in figure.axes[3:6]] == ["tone-mapped", "HDR-VDP-2", "DRIM"]


def test_figure_1_one_pixel_value_is_luminances_three_stops_apart():
    figure = figures.problem_figure()
    right = figure.axes[1]
    feet = [line.get_xdata()[0] for line in right.lines if len(line.get_xdata()) == 2]
    np.testing.assert_allclose(
        sorted(feet[:3]), [-5.19, -2.19, 0.81], atol=0.01
    )  # 2.2 log2(128/255)
    plt.close(figure)


def test_figure_2_bars_are_a_stop_apart_and_arrows_are_the_subnetworks():
    figure = figures.stack_range_figure()
    (axes,) = figure.axes
    ends = [bar.get_x() + bar.get_width() for bar in axes.patches if hasattr(bar, "get_width")]
    np.testing.assert_allclose(np.diff(ends), -1, atol=0.02)
    assert sum(not hasattr(patch, "get_width") for patch in axes.patches) == 6
    plt.close(figure)


def test_gain_figure_shows_the_gain_on_a_scale_that_is_even_on_both_sides():
    photo, gain = np.zeros((20, 30, 3), np.uint8), np.linspace(-5, 9, 600).reshape(20, 30)
    figure = figures.gain_figure({"best": (photo, gain), "worst": (photo, -gain)}, limit=7)
    maps = [
        axes.images[0]
        for axes in figure.axes
        if axes.images and axes.images[0].cmap.name != "viridis"
    ]
    shown = [image for image in maps if image.get_array().ndim == 2]
    assert [image.get_clim() for image in shown] == [(-7, 7), (-7, 7)]
    np.testing.assert_allclose(shown[0].get_array(), gain)
    plt.close(figure)
