"""Intervals that hold the mean as often as they say, and tests that agree with arithmetic."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from replication.evaluation.uncertainty import (
    holm,
    mean_interval,
    paired_differences,
    seed_interval,
)
from replication.files import ReplicationError


def test_interval_covers_the_true_mean_as_often_as_it_says():
    generator = np.random.default_rng(0)
    inside = 0
    for seed in range(120):
        low, high = mean_interval(generator.normal(5, 2, 25), seed=seed)
        inside += low <= 5 <= high
    assert 0.85 < inside / 120 <= 1


def test_interval_is_near_the_normal_one_for_many_values():
    values = np.random.default_rng(1).normal(10, 3, 400)
    half = stats.norm.ppf(0.975) * values.std(ddof=1) / 20
    np.testing.assert_allclose(
        mean_interval(values), [values.mean() - half, values.mean() + half], atol=0.03
    )


def test_interval_is_repeatable_and_narrower_for_less_confidence():
    values = np.arange(10.0) ** 2
    assert mean_interval(values) == mean_interval(values)
    low, high = mean_interval(values)
    inner = mean_interval(values, confidence=0.5)
    assert low < inner[0] < values.mean() < inner[1] < high


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([3.0, 3.0, 3.0], (3, 3)),
        ([3.0], (np.nan, np.nan)),
        ([], (np.nan, np.nan)),
        ([1.0, np.inf], (np.nan, np.nan)),
        ([4.0, np.nan, 4.0], (4, 4)),
    ],
)
def test_degenerate_intervals(values, expected):
    np.testing.assert_equal(mean_interval(np.array(values)), expected)


def test_confidence_is_checked():
    with pytest.raises(ReplicationError, match="confidence"):
        mean_interval(np.arange(3.0), confidence=95)


def test_holm_by_hand():
    # 0.01 * 4, 0.02 * 3, 0.03 * 2 and 0.04: never below one before
    np.testing.assert_allclose(
        holm(np.array([0.03, 0.01, 0.04, 0.02])), [0.06, 0.04, 0.06, 0.06], rtol=1e-12
    )
    np.testing.assert_equal(holm(np.array([np.nan, 0.5, 0.9])), [np.nan, 1.0, 1.0])


def rows(values):
    return pd.DataFrame(
        [
            {"scene": f"s{number}", "method": method, "psnr": value}
            for method, column in values.items()
            for number, value in enumerate(column)
        ]
    )


def test_pairs_cancel_what_images_have_in_common():
    images = np.linspace(10, 40, 8)
    table = paired_differences(
        rows({"curve": images, "other": images + 3, "chain": images + 1}), "psnr", "chain"
    ).set_index("against")
    assert list(table.index) == ["curve", "other"]
    assert table.loc["curve", ["difference", "low", "high", "wins", "n"]].tolist() == [
        pytest.approx(1),
        pytest.approx(1),
        pytest.approx(1),
        8,
        8,
    ]
    assert table.loc["other", "wins"] == 0
    # eight differences of one sign: two of the 2^8 assignments of signs are as extreme
    assert table["p"].tolist() == pytest.approx([2 / 2**8] * 2, rel=0.5)
    assert (table["p_holm"] >= table["p"]).all()


def test_wilcoxon_is_the_exact_one_without_ties():
    difference = np.array([0.3, -0.1, 0.7, 0.5, 1.1, 0.9])
    table = paired_differences(
        rows({"curve": np.zeros(6), "chain": difference}), "psnr", "chain"
    ).iloc[0]
    assert table["p"] == pytest.approx(4 / 2**6)  # rank sum 1: {}, {1} and their mirror images


def test_a_missing_value_leaves_its_pair_out():
    table = paired_differences(
        rows({"curve": [1.0, np.nan, 2.0, 5.0], "chain": [2.0, 9.0, 4.0, 8.0]}), "psnr", "chain"
    ).iloc[0]
    assert table["n"] == 3
    assert table["difference"] == pytest.approx(2)


def test_equal_methods_have_no_p():
    table = paired_differences(rows({"a": [1.0, 2.0], "b": [1.0, 2.0]}), "psnr", "a").iloc[0]
    assert table["difference"] == 0
    assert np.isnan(table["p"])


def test_bad_pairs():
    frame = rows({"a": [1.0, 2.0], "b": [1.0, 2.0]})
    with pytest.raises(ReplicationError, match="no column ssim"):
        paired_differences(frame, "ssim", "a")
    with pytest.raises(ReplicationError, match="no method c"):
        paired_differences(frame, "psnr", "c")
    with pytest.raises(ReplicationError, match="one row per scene"):
        paired_differences(pd.concat([frame, frame]), "psnr", "a")


def test_seed_interval_is_students():
    # scipy's own, and by hand: mean 2, s 1, t(0.975, 2) = 4.3027
    low, high = seed_interval([1.0, 2.0, 3.0])
    assert (low, high) == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5), rel=1e-6)
    own = stats.ttest_1samp([1.0, 2.5, 3.0, 7.0], 0).confidence_interval(0.9)
    assert seed_interval([1.0, 2.5, 3.0, 7.0], confidence=0.9) == pytest.approx(tuple(own))
    assert np.isnan(seed_interval([1.0])).all()
