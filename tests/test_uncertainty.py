"""Intervals that hold the mean as often as they say, and tests that agree with arithmetic."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from replication.evaluation.uncertainty import holm, mean_interval, seed_interval
from replication.evaluation.uncertainty import paired_differences as paired
from replication.files import ReplicationError

NONE = np.nan, np.nan


def test_interval_covers_the_true_mean_as_often_as_it_says():
    samples = np.random.default_rng(0).normal(5, 2, (60, 25))
    found = [mean_interval(sample) for sample in samples]
    assert 0.85 < np.mean([low <= 5 <= high for low, high in found]) <= 1
    assert mean_interval(samples[0]) == found[0]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([3.0, 3.0, 3.0], (3, 3)),
        ([3.0], NONE),
        ([], NONE),
        ([1.0, np.inf], NONE),
        ([4.0, np.nan, 4.0], (4, 4)),
    ],
)
def test_degenerate_intervals(values, expected):
    np.testing.assert_equal(mean_interval(np.array(values)), expected)


def test_seed_interval_is_students():
    own = stats.ttest_1samp([1.0, 2.5, 3.0, 7.0], 0).confidence_interval()
    assert seed_interval([1.0, 2.5, 3.0, 7.0]) == pytest.approx(tuple(own))
    np.testing.assert_equal(seed_interval([1.0]), NONE)


def test_holm_by_hand():
    # 0.01 * 4, 0.02 * 3, 0.03 * 2 and 0.04: never below one before
    np.testing.assert_allclose(holm([0.03, 0.01, 0.04, 0.02]), [0.06, 0.04, 0.06, 0.06], rtol=1e-12)
    np.testing.assert_equal(holm([np.nan, 0.5, 0.9]), [np.nan, 1.0, 1.0])


def rows(**values):
    parts = [pd.DataFrame({"psnr": column}).assign(method=name) for name, column in values.items()]
    return pd.concat(parts).rename("made/{}".format).rename_axis("scene").reset_index()


def test_holms_family_is_the_one_that_is_named():
    images = np.linspace(10, 40, 8)
    frame = rows(curve=images, chain=images + 1, third=images + 3, a_late_one=images - 2)
    for against in (["curve"], ["a_late_one", "curve"], None):
        table = paired(frame, "psnr", "chain", against)
        assert list(table["against"]) == (against or ["curve", "third", "a_late_one"])
        assert table["p_holm"].tolist() == pytest.approx([p * len(table) for p in table["p"]])
    for name in ("difference", "low", "high"):
        assert table[name].tolist() == pytest.approx([1, -2, 3])
    assert table["wins"].tolist() == [8, 0, 8]


@pytest.mark.parametrize(
    ("curve", "chain", "expected"),
    [
        # rank sum 1: {}, {1} and their mirror images
        ([0.0] * 6, [0.3, -0.1, 0.7, 0.5, 1.1, 0.9], {"n": 6, "p": 4 / 2**6}),
        ([1.0, np.nan, 2.0, 5.0], [2.0, 9.0, 4.0, 8.0], {"n": 3, "difference": 2}),
        ([1.0, 2.0], [1.0, 2.0], {"difference": 0, "p": np.nan}),
    ],
)
def test_one_pair(curve, chain, expected):
    table = paired(rows(curve=curve, chain=chain), "psnr", "chain")
    assert table.iloc[0][list(expected)].to_dict() == pytest.approx(expected, nan_ok=True)


FRAME = rows(a=[1.0, 2.0], b=[1.0, 2.0])


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: paired(FRAME, "ssim", "a"), "no column ssim"),
        (lambda: paired(FRAME, "psnr", "a", ["b", "d"]), "no method d"),
        (lambda: paired(pd.concat([FRAME, FRAME]), "psnr", "a"), "one row per scene"),
    ],
)
def test_bad_input(call, sentence):
    with pytest.raises(ReplicationError, match=sentence):
        call()
