"""Are the shipped results what a fresh run gives? Row by row, and in words."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from replication.evaluation import rows as report
from replication.files import ReplicationError

TOLERANCE = dict.fromkeys(report.METRICS, 1e-3) | {
    "psnr": 0.01,
    "pu21_psnr": 0.01,
    "hdrvdp2_q": 0.01,
    "hdrvdp2_q_mos": 0.05,
    "drim_loss": 0.05,
    "drim_amplification": 0.05,
    "drim_reversal": 0.05,
}
"""Metric -> largest difference that another machine may make: 0.01 dB, and as little elsewhere."""

NOTEBOOKS = ("01_data", "06_ldr_stacks", "07_hdr_comparison")
"""Notebooks of the quick profile that score the shipped weights, for a fresh run."""

SHARED = ("table1.csv", "table4.csv", "table5.csv", "scaling.csv")
"""Tables that depend on the shipped weights only; the others are of networks trained in the run."""


@dataclass
class Findings:
    """What a comparison found.

    Attributes
    ----------
    agree : list of str
        A line per table whose rows agree.
    differ : list of str
        A line per table whose rows do not: how many, and the worst.
    notes : list of str
        Differences that explain others, such as package versions; no failure.
    """

    agree: list[str] = field(default_factory=list)
    differ: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"agree   {line}" for line in self.agree]
        lines += [f"differ  {line}" for line in self.differ]
        return "\n".join(lines + [f"note    {line}" for line in self.notes])


def compare_tables(path: str | Path, reference: str | Path) -> tuple[bool, str]:
    """Compare the rows of a run with those of the reference that have the same keys.

    Parameters
    ----------
    path, reference
        CSV files of :func:`replication.report.write_rows`. The reference may have more data sets,
        scenes and methods; every row of `path` must be in it.

    Returns
    -------
    agree : bool
        Whether all metrics are within :data:`TOLERANCE` and true images and weights are the same.
    sentence : str
        What was found.

    Raises
    ------
    ReplicationError
        If a file cannot be read, or the two have no row in common.
    """
    name = Path(path).name
    ours, theirs = report.read_rows(path), report.read_rows(reference)
    keys = [key for key in report.KEYS if key in ours.columns and key in theirs.columns]
    both = ours.merge(
        theirs, on=keys, suffixes=("", " of the reference"), how="left", indicator=True
    )
    lost = int((both["_merge"] == "left_only").sum())
    both = both[both["_merge"] == "both"]
    if both.empty:
        raise ReplicationError(f"{path} and {reference} have no row in common.")
    wrong, worst, largest = np.zeros(len(both), bool), "", 0.0
    for metric in (m for m in report.METRICS if f"{m} of the reference" in both):
        one, other = both[metric], both[f"{metric} of the reference"]
        gap = (one - other).abs().where(~(one.isna() & other.isna()) & (one != other), 0.0)
        gap = gap.fillna(np.inf) / TOLERANCE[metric]
        wrong |= (gap > 1).to_numpy()
        if gap.max() > largest:
            largest = gap.max()
            row = both.loc[gap.idxmax()]
            where = " ".join(str(row[key]) for key in keys if key not in ("table", "split"))
            worst = f"{metric} {row[metric]:.6g}, reference {row[metric + ' of the reference']:.6g}"
            worst += f" ({where})"
    for fact, what in (("data_hash", "true image"), ("weights_hash", "weights")):
        other = both[fact] != both[f"{fact} of the reference"]
        if other.any():
            row = both[other].iloc[0]
            worst = f"another {what} ({' '.join(str(row[key]) for key in keys)})"
            wrong |= other.to_numpy()
    worst = f"; largest difference: {worst}" if worst else "; all equal"
    if lost:
        return False, f"{name}: {lost} rows are not in the reference{worst}"
    if wrong.any():
        return False, f"{name}: {int(wrong.sum())} of {len(both)} rows differ{worst}"
    return True, f"{name}: {len(both)} rows{worst}"


def verify(run: str | Path, reference: str | Path = report.REFERENCE) -> Findings:
    """Compare a run with the shipped results, or with another run.

    Parameters
    ----------
    run
        Folder of ``python -m replication run``.
    reference
        The shipped results by default; another run's folder to see whether two runs agree, then with
        the tables of the networks that both have trained.

    Returns
    -------
    Findings

    Raises
    ------
    ReplicationError
        If the run has no table that could be compared, or a file cannot be read.
    """
    run, reference = Path(run), Path(reference)
    shipped = reference.resolve() == report.REFERENCE.resolve()
    found = Findings()
    for path in sorted((run / "tables").glob("*.csv")):
        other = reference / "tables" / path.name
        if (shipped and path.name not in SHARED) or not other.is_file():
            continue
        agree, sentence = compare_tables(path, other)
        (found.agree if agree else found.differ).append(sentence)
    if not found.agree and not found.differ:
        raise ReplicationError(f"{run} has no tables to compare with {reference}.")
    ours, theirs = (_provenance(folder) for folder in (run, reference))
    for fact in ("code_version", "python", "cpu"):
        if ours.get(fact) != theirs.get(fact):
            found.notes.append(f"{fact}: {ours.get(fact)}, reference {theirs.get(fact)}")
    packages = [folder.get("packages", {}) for folder in (ours, theirs)]
    for name in sorted(packages[0].keys() | packages[1].keys()):
        one, other = (versions.get(name) for versions in packages)
        if one != other:
            found.notes.append(f"{name}: {one}, reference {other}")
    return found


def _provenance(folder: Path) -> dict:
    try:
        facts = json.loads((folder / "provenance.json").read_text())
        return facts.get("environment", facts)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ReplicationError(f"Cannot read {folder / 'provenance.json'}: {error}.") from error
