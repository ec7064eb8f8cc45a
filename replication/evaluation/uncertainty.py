"""How sure a mean over images is, and whether two methods differ; the paper's σ says neither."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests

from replication.files import ReplicationError


def mean_interval(
    values: np.ndarray, groups: Sequence | None = None, *, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Bootstrap interval of a mean (BCa, 9999 draws; Efron 1987, 10.1080/01621459.1987.10478410).

    Args:
        values: Float (N,), one per image; NaN (an image does not have this measure) is left out.
        groups: N labels of images that depend on each other, such as views of one panorama. Whole
            groups are drawn then, and group means are averaged with the group sizes as weights.
        confidence, seed: Between 0 and 1; the same seed gives the same interval.

    Returns:
        Its two ends; NaN for infinite values and for fewer than two images (groups).
    """
    if not 0 < confidence < 1:
        raise ReplicationError(f"The confidence must be between 0 and 1, not {confidence}.")
    groups = range(len(values)) if groups is None else list(groups)
    if len(groups) != len(values):
        raise ReplicationError(f"{len(values)} values have {len(groups)} group labels.")
    values = pd.Series(np.asarray(values, dtype=float), groups)
    parts = values.dropna().groupby(level=0).agg(["sum", "count"])
    means = parts["sum"] / parts["count"]
    if len(means) < 2 or not np.isfinite(means).all():
        return float("nan"), float("nan")
    if means.nunique() == 1:
        return float(means.iloc[0]), float(means.iloc[0])
    mean = lambda total, size, axis: total.sum(axis) / size.sum(axis)  # noqa: E731
    samples, rng = (parts["sum"].to_numpy(), parts["count"].to_numpy()), np.random.default_rng(seed)
    found = stats.bootstrap(samples, mean, paired=True, confidence_level=confidence, rng=rng)
    return tuple(map(float, found.confidence_interval))


def seed_interval(values: np.ndarray, *, confidence: float = 0.95) -> tuple[float, float]:
    """Student's interval of a mean over training runs (N,) that differ in their seed; NaN for one run."""
    if len(values) < 2:
        return float("nan"), float("nan")
    half = stats.t.ppf((1 + confidence) / 2, len(values) - 1) * stats.sem(values)
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
    adjusted = np.array(p, dtype=float)
    known = ~np.isnan(adjusted)
    if known.any():
        adjusted[known] = multipletests(adjusted[known], method="holm")[1]
    return adjusted
