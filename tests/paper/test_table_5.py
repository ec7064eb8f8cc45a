"""Table 5: HDR images against the true ones, tone-mapped PSNR and VDP quality score."""

import math

import numpy as np
import pytest

from replication import paper
from replication.evaluation.radiance import PIXELS_PER_DEGREE, comparison_rows, photo_methods
from replication.hdr import reinhard
from tests.paper.conftest import assert_as_committed, assert_printed, committed

PRINTED = {
    "deep_chain": "30.86 3.36 56.36 4.41",
    "huo": "18.43 3.04 50.00 5.86",
    "kovaleski_oliveira": "21.76 2.81 50.28 4.98",
    "masia": "20.13 2.21 51.24 5.67",
}


@pytest.mark.parametrize("dataset", ["hdrps", "empa"])
def test_competitors_lie_near_the_printed_numbers_and_behind_the_chain(dataset):
    rows = committed("tables/table5").query("dataset == @dataset")
    assert_printed(PRINTED, paper.TABLE5, ("psnr", "hdrvdp2_q"))
    means = rows.groupby("method")[["psnr", "hdrvdp2_q"]].mean()
    for name in list(PRINTED)[1:]:
        assert means["psnr"][name] == pytest.approx(paper.TABLE5[name]["psnr"][0], abs=3)
        assert means["hdrvdp2_q"][name] == pytest.approx(paper.TABLE5[name]["hdrvdp2_q"][0], abs=6)
        assert (means.loc[name] < means.loc["deep_chain"]).all()


def test_one_scene_recomputed(mini):
    methods = [method for method in photo_methods() if method.name in ("linearised", "masia")]
    tolerances = {"psnr": 1e-3, "hdrvdp2_q": 1e-3, "pu21_psnr": 1e-3, "drim_loss": 1e-3}
    assert_as_committed(comparison_rows(mini[:1], methods), "tables/table5", **tolerances)


def test_display_of_section_6_2():
    across, down = paper.DISPLAY_RESOLUTION
    half = paper.DISPLAY_DIAGONAL_INCHES * 0.0254 / 2 * down / math.hypot(across, down)
    degrees = 2 * math.degrees(math.atan(half / paper.VIEWING_DISTANCE_M))
    assert pytest.approx(down / degrees) == PIXELS_PER_DEGREE
    hdr = np.geomspace(0.01, 100, 768, dtype=np.float32).reshape(16, 16, 3)
    shown = np.clip(reinhard.tone_map_linear(hdr), 0, 1) ** (1 / paper.DISPLAY_GAMMA)
    assert np.abs(reinhard.tone_map(hdr) - shown).max() < 1e-5
