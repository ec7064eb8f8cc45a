"""Figure 5: stacks of seven exposures, EV 0 in the middle."""

import numpy as np

from replication.data.exposure import middle_exposure
from replication.report.figures import stacks_figure
from tests.paper.conftest import drawn


def test_seven_exposures_rise_in_brightness_around_the_most_even_one(mini):
    for stack in mini:
        assert stack.evs == list(range(-3, 4))
        frames = [stack.images[ev] for ev in stack.evs]
        steps = np.diff(np.array(frames, float), axis=0)
        assert (steps.mean((1, 2, 3)) > 2).all(), stack.scene
        assert (steps < -8).mean() < 0.01, stack.scene  # noise darkens a pixel at times, a little
        assert middle_exposure(frames) == 3, stack.scene  # Section 4.4
    texts = drawn(stacks_figure({stack.scene: stack.images for stack in mini[:2]}))
    assert [t for t in texts if t] == [f"EV {ev:+d}" if ev else "EV 0" for ev in range(-3, 4)]
