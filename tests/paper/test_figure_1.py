"""Figure 1: a wide range is not known (a), nor is the scale of the light without metadata (b)."""

import numpy as np
import pytest

from replication.report.drawings import problem_figure
from tests.paper.conftest import drawn


def test_clipped_light_and_one_pixel_value_for_three_luminances():
    figure = problem_figure()
    texts = " ".join(drawn(figure))
    assert all(text in texts for text in ("(a)", "(b)", "clipped"))
    left, right = ([n for n in axes.lines if "EV" in n.get_label()] for axes in figure.axes)
    assert (left[0].get_ydata()[left[0].get_xdata() > 0] == 255).all()  # (a)
    meets = [np.interp(128, line.get_ydata(), line.get_xdata()) for line in right]
    assert np.diff(meets) == pytest.approx([-3, -3], abs=0.1)  # (b), EV -3, 0, +3
