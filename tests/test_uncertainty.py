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
    generator, inside = np.random.default_rng(0), 0
    for seed in range(80):
        low, high = mean_interval(generator.normal(5, 2, 25), seed=seed)
        inside += low <= 5 <= high
    assert 0.85 < inside / 80 <= 1


def test_interval_is_near_the_normal_one_for_many_values_and_repeatable():
    values = np.random.default_rng(1).normal(10, 3, 400)
    half = stats.norm.ppf(0.975) * values.std(ddof=1) / 20
    expected = [values.mean() - half, values.mean() + half]
    np.testing.assert_allclose(mean_interval(values), expected, atol=0.03)
    assert mean_interval(values) == mean_interval(values)
    low, high = mean_interval(values, confidence=0.5)
    assert expected[0] < low < values.mean() < high < expected[1]


@pytest.mark.parametrize(
    ("values", "groups", "expected"),
    [
        ([3.0, 3.0, 3.0], None, (3, 3)),
        ([3.0], None, (np.nan, np.nan)),
        ([], None, (np.nan, np.nan)),
        ([1.0, np.inf], None, (np.nan, np.nan)),
        ([4.0, np.nan, 4.0], None, (4, 4)),
        ([1.0, 5.0, 9.0], ["hall"] * 3, (np.nan, np.nan)),
        ([1.0, 5.0, 3.0, np.nan], ["hall", "hall", "park", "lake"], (3, 3)),
    ],
)
def test_degenerate_intervals(values, groups, expected):
    np.testing.assert_equal(mean_interval(np.array(values), groups), expected)


def test_views_of_one_panorama_count_as_one():
    generator = np.random.default_rng(2)
    panoramas = generator.normal(30, 4, 12)
    groups = np.repeat(np.arange(12), 5)
    views = panoramas[groups] + generator.normal(0, 0.01, 60)
    naive, grouped = (np.ptp(mean_interval(views, given)) for given in (None, groups))
    # five equal views add nothing: the interval is that of the twelve means, sqrt(5) times the naive
    assert grouped == pytest.approx(np.ptp(mean_interval(panoramas)), rel=0.01)
    assert grouped / naive == pytest.approx(5**0.5, rel=0.1)
    assert mean_interval(views, range(60)) == mean_interval(views)


def test_large_groups_weigh_more():
    # one panorama with ten views of 40 dB, ten with one view of 20 dB: the mean is 30 dB
    values, groups = [40.0] * 10 + [20.0] * 9 + [20.5], [0] * 10 + list(range(1, 11))
    low, high = mean_interval(values, groups)
    assert low < np.mean(values) < high


def test_interval_faults():
    with pytest.raises(ReplicationError, match="confidence"):
        mean_interval(np.arange(3.0), confidence=95)
    with pytest.raises(ReplicationError, match="3 values have 2 group labels"):
        mean_interval(np.arange(3.0), ["hall", "park"])


def test_seed_interval_is_students():
    half = 4.302653 / 3**0.5  # mean 2, s 1, t(0.975, 2) = 4.3027
    assert seed_interval([1.0, 2.0, 3.0]) == pytest.approx((2 - half, 2 + half), rel=1e-6)
    own = stats.ttest_1samp([1.0, 2.5, 3.0, 7.0], 0).confidence_interval(0.9)
    assert seed_interval([1.0, 2.5, 3.0, 7.0], confidence=0.9) == pytest.approx(tuple(own))
    assert np.isnan(seed_interval([1.0])).all()


def test_holm_by_hand():
    # 0.01 * 4, 0.02 * 3, 0.03 * 2 and 0.04: never below one before
    np.testing.assert_allclose(holm([0.03, 0.01, 0.04, 0.02]), [0.06, 0.04, 0.06, 0.06], rtol=1e-12)
    np.testing.assert_equal(holm([np.nan, 0.5, 0.9]), [np.nan, 1.0, 1.0])


def rows(**values):
    return pd.DataFrame(
        {"scene": f"s{number}", "method": method, "psnr": value}
        for method, column in values.items()
        for number, value in enumerate(column)
    )


def test_pairs_cancel_what_images_have_in_common():
    images = np.linspace(10, 40, 8)
    frame = rows(curve=images, chain=images + 1, a_third=images + 3)
    table = paired_differences(frame, "psnr", "chain").set_index("against")
    assert list(table.index) == ["curve", "a_third"]  # in order of appearance
    expected = {"n": 8, "difference": 1, "low": 1, "high": 1, "wins": 8}
    assert table.loc["curve", list(expected)].to_dict() == pytest.approx(expected)
    assert table.loc["a_third", "wins"] == 0
    # eight differences of one sign: two of the 2^8 assignments of signs are as extreme
    assert table["p"].tolist() == pytest.approx([2 / 2**8] * 2, rel=0.5)


def test_holms_family_is_the_one_that_is_named():
    images = np.linspace(10, 40, 8)
    frame = rows(curve=images, chain=images + 1, late=images + 3, later=images - 2)
    for against in (["curve"], ["later", "curve"], None):
        table = paired_differences(frame, "psnr", "chain", against)
        assert list(table["against"]) == (against or ["curve", "late", "later"])
        assert table["p_holm"].tolist() == pytest.approx([p * len(table) for p in table["p"]])
    assert paired_differences(frame, "psnr", "chain", []).empty


@pytest.mark.parametrize(
    ("curve", "chain", "expected"),
    [
        # rank sum 1: {}, {1} and their mirror images
        ([0.0] * 6, [0.3, -0.1, 0.7, 0.5, 1.1, 0.9], {"n": 6, "p": 4 / 2**6}),
        ([1.0, np.nan, 2.0, 5.0], [2.0, 9.0, 4.0, 8.0], {"n": 3, "difference": 2}),
        ([1.0, 2.0], [1.0, 2.0], {"difference": 0, "p": np.nan}),
    ],
    ids=["exact", "a missing value leaves its pair out", "equal methods have no p"],
)
def test_one_pair(curve, chain, expected):
    table = paired_differences(rows(curve=curve, chain=chain), "psnr", "chain")
    assert table.iloc[0][list(expected)].to_dict() == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("ssim", "a"), "no column ssim"),
        (("psnr", "c"), "no method c"),
        (("psnr", "a", ["b", "d"]), "no method d"),
    ],
)
def test_bad_pairs(arguments, sentence):
    frame = rows(a=[1.0, 2.0], b=[1.0, 2.0])
    with pytest.raises(ReplicationError, match=sentence):
        paired_differences(frame, *arguments)
    with pytest.raises(ReplicationError, match="one row per scene"):
        paired_differences(pd.concat([frame, frame]), "psnr", "a")
