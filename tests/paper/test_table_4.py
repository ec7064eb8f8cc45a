"""Table 4: inferred against true exposures."""

import pytest

from replication import paper
from replication.evaluation.exposures import deep_chain, exposure_rows
from tests.paper.conftest import assert_as_committed, assert_printed, committed

PRINTED = {
    3: "28.18 2.77 0.953 0.065 0.983 0.015",
    2: "29.65 3.06 0.959 0.065 0.986 0.016",
    1: "31.90 3.43 0.969 0.039 0.992 0.008",
    -1: "29.01 3.83 0.935 0.056 0.980 0.017",
    -2: "26.72 4.54 0.952 0.029 0.974 0.021",
    -3: "24.33 4.57 0.919 0.036 0.948 0.037",
}


@pytest.mark.parametrize("dataset", ["hdrps", "empa", "mini"])
def test_similarity_falls_with_the_distance_beside_the_printed_numbers(dataset):
    assert_printed(PRINTED, paper.TABLE4)
    assert paper.TABLE2["chain"] == paper.TABLE4[3]  # lines that the paper repeats
    assert all(paper.TABLE3[ev, "mprelu"] == paper.TABLE4[ev] for ev in (-1, -2, -3))
    rows = committed("tables/table4").query("dataset == @dataset")
    means = rows.pivot_table(index="ev", columns="method", values="psnr")
    assert means["deep_chain"].loc[:-1].is_monotonic_increasing
    assert means["deep_chain"].loc[1:].is_monotonic_decreasing
    assert (means["deep_chain"] > means["identity"] + 5).all()


def test_one_scene_recomputed(mini):
    rows = exposure_rows(mini[:1], [deep_chain()])
    assert_as_committed(rows, "tables/table4", psnr=0.01, ssim=1e-3, ms_ssim=1e-3)
