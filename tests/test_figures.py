"""Figures say whose pictures they hold, and are drawn from the objects and rows that they show."""

import io

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from replication import paper
from replication.evaluation.rows import read_rows
from replication.files import REFERENCE
from replication.model import DeepChain, SubNetwork
from replication.report import drawings, figures, tables

mpl.use("Agg")


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def noise():
    picture = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    return figures.pictures_figure({"noise": picture}, columns=1)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize(("source", "may"), [("mini", "CC0"), ("hdrps", "not to be published")])
def test_saved_figures_say_whose_pictures_they_show(tmp_path, suffix, source, may):
    path = figures.save_figure(noise(), tmp_path / f"noise.{suffix}", pictures=source)
    found = [figures.pictures_of(file) for file in (path, io.BytesIO(path.read_bytes()))]
    assert found == [source, source]
    with Image.open(path) as image:
        assert image.mode.startswith("RGB")
        assert may in (getattr(image, "text", {}).get("Copyright") or image.getexif().get(0x8298))
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    with pytest.raises(ValueError, match=rf"whose pictures other\.{suffix} shows"):
        figures.save_figure(noise(), tmp_path / f"other.{suffix}")


def test_plots_have_no_pictures_and_other_files_do_not_say(tmp_path):
    curve = figures.curves_figure(np.arange(3), {"a": np.arange(3)}, "x (s)", "y (m)")
    assert figures.pictures_of(figures.save_figure(curve, tmp_path / "curve.png")) == "none"
    for name in ("plain.png", "plain.jpg"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
        assert figures.pictures_of(tmp_path / name) == ""


def test_notebooks_show_the_saved_file(tmp_path):
    for name, kind in (("a.png", "png"), ("a.jpg", "jpeg")):
        shown = figures.show(noise(), tmp_path / name, pictures="mini")
        assert (shown.format, shown.data) == (kind, (tmp_path / name).read_bytes())
    assert not plt.get_fignums()


def test_one_colour_per_method_everywhere():
    # EV 0 has one colour, unchanged or linearised; everything that uses the truth is dark grey
    methods = [m for m in tables.METHODS if m not in {"linearised", *tables.USES_TRUTH}]
    colours = {figures.COLOURS[m] for m in methods}
    assert len(colours) == len(methods)
    assert colours.isdisjoint(figures.COLOURS[m] for m in tables.USES_TRUTH)
    assert figures.COLOURS["chain"] == figures.COLOURS["deep_chain"]


def test_picture_figures_have_one_axes_a_picture():
    images = {ev: np.full((20, 30, 3), 100 + ev, np.uint8) for ev in range(-3, 4)}
    assert len(figures.overview_figure(images, images[0] / 255).axes) == 8
    difference = figures.difference_figure(images, {"tone_curve": images, "deep_chain": images})
    assert len(difference.axes) == 6 * 5 + 1  # and the colour scale
    grid = figures.pictures_figure({str(n): images[0] for n in range(5)}, columns=3)
    assert [axes.get_title() for axes in grid.axes] == ["0", "1", "2", "3", "4", ""]


def drawn(axes):
    return {round(float(x), 6) for line in axes.lines for x in np.ravel(line.get_xdata())}


@pytest.mark.parametrize("study", ["table2", "table3"])
def test_ablation_figure_shows_means_seeds_and_the_paper(study):
    rows = read_rows(REFERENCE / "ablations" / f"{study}.csv")
    figure = figures.ablation_figure(rows)
    for axes, ev in zip(figure.axes, sorted(rows["ev"].unique(), key=abs), strict=True):
        part = rows[rows["ev"] == ev]
        theirs = {m: one for (e, m), one in paper.TABLE3.items() if e == ev} or paper.TABLE2
        expected = [one["psnr"][0] for one in theirs.values()]
        for by in (["method"], ["method", "seed"]):
            expected += list(part.groupby(by)["psnr"].mean())
        assert all(min(abs(x - value) for x in drawn(axes)) < 2e-6 for value in expected)
    names = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert names == [name for m, name in tables.ABLATION_NAMES.items() if m in set(rows["method"])]


def test_architecture_figures_are_read_off_the_model():
    chain = texts(drawings.chain_figure(DeepChain((1, 2, 3, 4, -1))))
    assert sum("subnetwork" in text for text in chain) == 5
    assert {"inferred\nEV +4", "all 6 exposures"} <= set(chain)
    network = texts(drawings.subnetwork_figure(SubNetwork("mprelu", kernels=16)))
    assert any("concat\n112 ch" in text for text in network)
    assert any("32 ch\nr4 1×1" in text for text in network)
