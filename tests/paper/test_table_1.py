"""Table 1: average PSNR between the middle exposure and the other exposures."""

import pytest

from replication import paper
from replication.evaluation.exposures import exposure_rows, identity
from replication.files import RESULTS
from tests.paper.conftest import assert_as_committed, committed

PRINTED = {-3: 8.7, -2: 10.87, -1: 15.74, 1: 15.88, 2: 10.40, 3: 7.62}


@pytest.mark.parametrize("dataset", ["hdrps", "empa", "mini"])
def test_means_fall_with_the_distance_and_lie_near_the_printed_ones(dataset):
    means = committed("tables/table1").query("dataset == @dataset").groupby("ev")["psnr"].mean()
    assert means[1] > means[2] > means[3]
    assert means[-1] > means[-2] > means[-3]
    assert dataset == "mini" or means.to_dict() == pytest.approx(PRINTED, abs=2.5)
    assert paper.TABLE1.items() == PRINTED.items()
    report = (RESULTS / "REPORT.md").read_text("utf-8")
    assert " | ".join(f"{value:.2f}" for value in PRINTED.values()) in report


def test_one_scene_recomputed(mini):
    rows = exposure_rows(mini[:1], [identity()], table="table1")
    assert_as_committed(rows, "tables/table1", psnr=1e-6, ssim=1e-6, ms_ssim=1e-6)
