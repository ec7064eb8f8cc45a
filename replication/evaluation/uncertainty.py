"""How sure a mean over images is, and whether two methods differ: intervals and paired tests.

The paper gives mean and σ over its 48 test images. σ says how images differ, not how sure the mean
is, and a difference of two means hides that both methods were run on the same images. Hence
bootstrap intervals over images, and everything that compares two methods paired by image.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from replication.files import ReplicationError

CONFIDENCE, RESAMPLES = 0.95, 9999


def mean_interval(
    values: np.ndarray, *, confidence: float = CONFIDENCE, seed: int = 0
) -> tuple[float, float]:
    """Bootstrap interval of a mean over images (BCa, 9999 resamples).

    Parameters
    ----------
    values : float array (N,)
        One value per image; NaN (a measure that the image does not have) is left out.
    confidence : float
        Between 0 and 1.
    seed : int
        Same seed, same interval.

    Returns
    -------
    low, high : float
        In the unit of the values; both NaN for fewer than two values or infinite ones, both the
        value itself if all are equal.

    Raises
    ------
    ReplicationError
        If the confidence is out of range.

    References
    ----------
    B. Efron, "Better bootstrap confidence intervals", JASA 82(397), 1987,
    doi 10.1080/01621459.1987.10478410.
    """
    if not 0 < confidence < 1:
        raise ReplicationError(f"The confidence must be between 0 and 1, not {confidence}.")
    values = np.asarray(values, dtype=float)
    values = values[~np.isnan(values)]
    if values.size < 2 or not np.isfinite(values).all():
        return float("nan"), float("nan")
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    found = stats.bootstrap(
        (values,),
        np.mean,
        confidence_level=confidence,
        n_resamples=RESAMPLES,
        method="BCa",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)


def seed_interval(values: np.ndarray, *, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Student's interval of a mean over training runs that differ in their seed only.

    With two or three runs a bootstrap has nothing to draw from; that they are normally distributed is
    an assumption.

    Parameters
    ----------
    values : float array (N,)
        One value per run.
    confidence : float
        Between 0 and 1.

    Returns
    -------
    low, high : float
        In the unit of the values; both NaN for fewer than two.

    References
    ----------
    Student, "The probable error of a mean", Biometrika 6(1), 1908, doi 10.2307/2331554.
    """
    values = np.asarray(values, dtype=float)
    if values.size < 2:
        return float("nan"), float("nan")
    half = stats.t.ppf((1 + confidence) / 2, values.size - 1) * stats.sem(values)
    return float(values.mean() - half), float(values.mean() + half)


def paired_differences(
    rows: pd.DataFrame, metric: str, method: str, against: Sequence[str] | None = None
) -> pd.DataFrame:
    """Compare a method with every other one, image by image.

    Parameters
    ----------
    rows : DataFrame
        Per-image rows of one data set, without EVs, from :func:`replication.report.read_rows`.
    metric : str
        Column to compare.
    method : str
        The method of interest; a difference is its value minus the other's.
    against : sequence of str, optional
        Methods to compare with, which are Holm's family; all others by default.

    Returns
    -------
    DataFrame
        One row per other method in order of appearance: ``against``; ``n``, images that both have;
        ``difference``, mean; ``low``, ``high``, its 95 % interval (:func:`mean_interval`); ``wins``,
        images on which the method's value is larger; ``p``, Wilcoxon's signed-rank test, two-sided;
        ``p_holm``, the same adjusted for the number of comparisons. p is NaN where all are equal.

    Raises
    ------
    ReplicationError
        If the column or the method is not there, or a scene is there twice.

    References
    ----------
    F. Wilcoxon, Biometrics Bulletin 1(6), 1945, doi 10.2307/3001968. S. Holm, Scandinavian Journal
    of Statistics 6(2), 1979.
    """
    if metric not in rows.columns:
        raise ReplicationError(f"The rows have no column {metric}.")
    if rows.duplicated(["scene", "method"]).any():
        raise ReplicationError("Pairs need one row per scene and method; choose one data set.")
    values = rows.pivot(index="scene", columns="method", values=metric)
    if method not in values.columns:
        raise ReplicationError(f"The rows have no method {method}.")
    lines = []
    for other in against or [name for name in rows["method"].unique() if name != method]:
        difference = (values[method] - values[other]).dropna().to_numpy()
        low, high = mean_interval(difference)
        lines.append(
            {
                "against": other,
                "n": len(difference),
                "difference": float(difference.mean()) if difference.size else float("nan"),
                "low": low,
                "high": high,
                "wins": int((difference > 0).sum()),
                "p": _wilcoxon(difference),
            }
        )
    table = pd.DataFrame(lines)
    table["p_holm"] = holm(table["p"].to_numpy())
    return table


def _wilcoxon(difference: np.ndarray) -> float:
    if not difference.size or not difference.any():
        return float("nan")
    with warnings.catch_warnings(action="ignore"):  # ties and zeros: the normal approximation
        return float(stats.wilcoxon(difference).pvalue)


def holm(p: np.ndarray) -> np.ndarray:
    """Adjust p values for how many they are (Holm 1979); NaN stays NaN and does not count.

    Parameters
    ----------
    p : float array (N,)
        In [0, 1].

    Returns
    -------
    np.ndarray
        float64, in [0, 1], never below `p` and in the same order.
    """
    p = np.asarray(p, dtype=float)
    adjusted = np.full(p.shape, np.nan)
    order = [index for index in np.argsort(p, kind="stable") if not np.isnan(p[index])]
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p[index]))
        adjusted[index] = largest
    return adjusted
