"""How sure a mean over images is, and whether two methods differ; the paper's σ says neither."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from replication.files import ReplicationError


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Bootstrap interval of a mean (95 %, BCa, 9999 draws; Efron 1987, 10.1080/01621459.1987.10478410).

    `values` (N,) are one per image, NaN where it does not have the measure. The same values give the same
    interval: its two ends, NaN for infinite values and for fewer than two images.
    """
    values = np.asarray(values, dtype=float)
    values = values[~np.isnan(values)]
    if len(values) < 2 or not np.isfinite(values).all():
        return float("nan"), float("nan")
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    found = stats.bootstrap((values,), np.mean, rng=np.random.default_rng(0))
    return tuple(map(float, found.confidence_interval))


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
        rows: One row per scene and method, of one data set and EV.
        metric, method: A difference is the value of `method` in this column minus that of another.
        against: The others, which are the family of Holm's correction; None means all in `rows`.

    Returns:
        One row per other method: ``against``; ``n``, images that both have; ``difference``, mean;
        ``low``, ``high``, its 95 % interval; ``wins``, images where `method` has the larger value;
        ``p``, Wilcoxon's signed-rank test, two-sided, NaN if all are equal; ``p_holm``.
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
        with warnings.catch_warnings(action="ignore"):  # ties and zeros: the normal approximation
            p = stats.wilcoxon(difference).pvalue if difference.any() else np.nan
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
