"""How sure a mean over images is, and whether two methods differ; the paper's σ says neither."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
from pandas.core.groupby import SeriesGroupBy
from scipy import stats

from replication.data.stacks import place_of
from replication.files import ReplicationError


def mean_interval(values: Sequence[float], groups: Sequence | None = None) -> tuple[float, float]:
    """Bootstrap interval of a mean (95 %, BCa, 9999 draws; Efron 1987, 10.1080/01621459.1987.10478410).

    Args:
        values: (N,), one per image, NaN where it does not have the measure.
        groups: N labels; images of one label depend on each other and are drawn together. By default
            every image is a group, or, if `values` is a Series by "dataset/scene", every place is.

    Returns:
        Its two ends, the same for the same values; NaN for infinite values and fewer than two groups.
    """
    parts = _by_group(values, groups).agg(["sum", "count"])
    means = parts["sum"] / parts["count"]
    if len(means) < 2 or not np.isfinite(means).all():
        return float("nan"), float("nan")
    if np.ptp(means) == 0:
        return float(means.iloc[0]), float(means.iloc[0])
    mean = lambda total, size, axis: total.sum(axis) / size.sum(axis)  # noqa: E731
    samples, rng = (parts["sum"].to_numpy(), parts["count"].to_numpy()), np.random.default_rng(0)
    found = stats.bootstrap(samples, mean, paired=True, rng=rng)
    return tuple(map(float, found.confidence_interval))


def _by_group(values: Sequence[float], groups: Sequence | None) -> SeriesGroupBy:
    """The values that are numbers, grouped: see `mean_interval`."""
    if groups is None:
        groups = range(len(values))
        if isinstance(values, pd.Series) and values.index.name == "scene":
            groups = [place_of(*scene.split("/", 1)) for scene in values.index]
    return pd.Series(np.asarray(values, dtype=float), list(groups)).dropna().groupby(level=0)


def seed_interval(values: Sequence[float]) -> tuple[float, float]:
    """Student's 95 % interval of a mean over trainings (N,) that differ in their seed; NaN for one."""
    if len(values) < 2:
        return float("nan"), float("nan")
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return float(np.mean(values) - half), float(np.mean(values) + half)


def paired_differences(
    rows: pd.DataFrame, metric: str, method: str, against: Sequence[str] | None = None
) -> pd.DataFrame:
    """Compare a method with others, image by image.

    Args:
        rows: One row per scene ("dataset/scene") and method.
        metric, method: A difference is the value of `method` in this column minus that of another.
        against: The others, which are the family of Holm's correction; None means all in `rows`.

    Returns:
        One row per other method: ``against``; ``n``, images that both have; ``difference``, mean;
        ``low``, ``high``, its 95 % interval; ``wins``, images where `method` has the larger value; ``p``,
        Wilcoxon's signed-rank test over places, two-sided, NaN if all are equal; ``p_holm``.
    """
    if metric not in rows.columns:
        raise ReplicationError(f"The rows have no column {metric}.")
    if rows.duplicated(["scene", "method"]).any():
        raise ReplicationError("Pairs need one row per scene and method; choose one data set.")
    values, lines = rows.pivot(index="scene", columns="method", values=metric), []
    others = [m for m in rows["method"].unique() if m != method] if against is None else against
    if absent := [name for name in (method, *others) if name not in values.columns]:
        raise ReplicationError(f"The rows have no method {', '.join(absent)}.")
    for other in others:
        difference = (values[method] - values[other]).dropna()
        means = _by_group(difference, None).mean()
        with warnings.catch_warnings(action="ignore"):  # ties and zeros: the normal approximation
            p = stats.wilcoxon(means).pvalue if means.any() else np.nan
        low, high = mean_interval(difference)
        line = {"against": other, "n": len(difference), "difference": difference.mean(), "low": low}
        lines.append(line | {"high": high, "wins": int((difference > 0).sum()), "p": p})
    return pd.DataFrame(lines).assign(p_holm=holm([line["p"] for line in lines]))


def holm(p: np.ndarray) -> np.ndarray:
    """P values (N,) adjusted for how many they are (Holm 1979); NaN stays and does not count."""
    p = np.array(p, dtype=float)
    order = np.argsort(p)[: np.sum(~np.isnan(p))]  # ascending; NaN come last
    factors = np.arange(len(order), 0, -1)
    p[order] = np.minimum(np.maximum.accumulate(factors * p[order]), 1)
    return p
