"""Figure 7: HDR-VDP-2 and DRIM show where an observer sees the difference."""

import numpy as np

from replication.data.camera import VirtualCamera
from replication.data.stacks import ExposureStack
from replication.evaluation.radiance import FIGURE7_METHODS, PIXELS_PER_DEGREE, figure7
from replication.metrics import drim, hdrvdp2
from replication.paper import PEAK_CONTRAST
from replication.report.figures import comparison_figure
from tests.paper.conftest import drawn

EYE = {"color_encoding": "luminance", "pixels_per_degree": PIXELS_PER_DEGREE, "surround": -1}
STRIPES = 50 + 15 * np.sin(np.arange(80.0)) * np.ones((64, 1))  # cd/m2
FLAT = np.full((64, 80), 50.0)


def test_maps_are_empty_for_equal_images_and_name_what_is_lost_added_or_reversed():
    assert hdrvdp2(STRIPES, STRIPES, **EYE).P_map.max() == 0
    assert 0.9 < hdrvdp2(FLAT, STRIPES, **EYE).P_map.mean() <= 1
    pairs = (STRIPES, STRIPES), (FLAT, STRIPES), (STRIPES, FLAT), (100 - STRIPES, STRIPES)
    for (test, truth), expected in zip(pairs, np.eye(4, 3, -1), strict=True):
        shares = [share.mean() for share in drim(test, truth, peak_contrast=PEAK_CONTRAST, **EYE)]
        assert np.abs(shares - expected).max() <= (0.05 if expected.any() else 0)
        assert shares == [share.mean() for share in drim(test, truth, **EYE)]


def test_drawing():
    photos = VirtualCamera().stack(np.repeat(STRIPES[..., None] / 100, 3, -1).astype(np.float32))
    ldr, truth, results = figure7(ExposureStack("synthetic", "stripes", "", photos))
    texts = drawn(comparison_figure(ldr, truth, results))
    assert {"HDR-VDP-2", "DRIM"} <= set(texts)
    assert sum(text.startswith("Q ") for text in texts) == len(results) == len(FIGURE7_METHODS)
