"""Figure 2: seven exposures cover a wide range; six subnetworks lead from one to the next."""

import pytest
from matplotlib.patches import FancyArrowPatch, Rectangle

from replication.report.drawings import stack_range_figure
from tests.paper.conftest import drawn


def test_each_exposure_reaches_one_stop_further():
    figure = stack_range_figure()
    assert {f"EV {ev:+d}" if ev else "EV 0" for ev in range(-3, 4)} <= set(drawn(figure))
    (axes,) = figure.axes
    assert sum(isinstance(patch, FancyArrowPatch) for patch in axes.patches) == 6
    bars = sorted((p for p in axes.patches if isinstance(p, Rectangle)), key=Rectangle.get_y)
    starts = [bar.get_x() - bars[0].get_x() for bar in bars]
    assert starts == pytest.approx([-n for n in range(7)], abs=0.05)  # from EV -3
    assert [bar.get_width() for bar in bars] == pytest.approx([bars[0].get_width()] * 7, abs=0.05)
