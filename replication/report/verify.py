"""Are the shipped results what a fresh run gives? Row by row, and in words."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from replication.evaluation.rows import KEYS, METRICS, read_rows
from replication.files import REFERENCE, ReplicationError
from replication.report.documents import stale_weights

TOLERANCE = pd.Series(1e-3, METRICS)
TOLERANCE[["psnr", "pu21_psnr", "hdrvdp2_q"]] = 0.01
TOLERANCE[["hdrvdp2_q_mos", "drim_loss", "drim_amplification", "drim_reversal"]] = 0.05
"""Metric -> largest difference that another machine may make."""
NOTEBOOKS = ("01_data", "06_ldr_stacks", "07_hdr_comparison")
"""Notebooks of the quick profile that score the shipped weights, for a fresh run."""
SHARED = ("table1.csv", "table4.csv", "table5.csv", "scaling.csv")
"""Tables that depend on the shipped weights only; a run scores a sample of scenes in the last."""


@dataclass
class Findings:
    """What a comparison found: tables that `agree`, what does `differ`, and `notes` that explain."""

    agree: list[str] = field(default_factory=list)
    differ: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        names = {"agree": self.agree, "differ": self.differ, "note": self.notes}
        return "\n".join(f"{name:7s} {line}" for name, lines in names.items() for line in lines)


def compare_tables(path: str | Path, reference: str | Path) -> tuple[bool, str]:
    """Whether a run's rows agree with the reference's within TOLERANCE, and a sentence about it.

    A run must have every row of the reference for the data sets and methods that it has.
    """
    ours, theirs, name = read_rows(path), read_rows(reference), Path(path).name
    keys = [key for key in KEYS if key in ours and key in theirs]
    claimed = ours[["table", "dataset", "split", "method"]].drop_duplicates()
    theirs = theirs.merge(claimed)
    both = ours.merge(theirs, "outer", keys, suffixes=("", " of the reference"), indicator="side")
    count = both.pop("side").value_counts()
    both = both[both["data_hash"].notna() & both["data_hash of the reference"].notna()]
    if both.empty:
        raise ReplicationError(f"{path} and {reference} have no row in common.")
    metrics = [metric for metric in METRICS if metric in ours and metric in theirs]
    columns = [*metrics, "data_hash", "weights_hash"]
    one, other = both[columns], both[[f"{name} of the reference" for name in columns]]
    other = other.set_axis(columns, axis=1)
    gaps = ((one[metrics] - other[metrics]).abs() / TOLERANCE[metrics]).fillna(float("inf"))
    gaps = gaps.assign(data_hash=float("inf"), weights_hash=float("inf"))
    gaps = gaps.mask((one == other) | (one.isna() & other.isna()), 0.0)
    wrong, (row, column) = int((gaps > 1).any(axis=1).sum()), gaps.stack().idxmax()
    place = " ".join(str(both.at[row, key]) for key in keys if key not in ("table", "split"))
    pair = [f"{frame.at[row, column]:.9}" for frame in (one.astype(str), other.astype(str))]
    worst = f"largest difference: {column} {pair[0]}, reference {pair[1]} ({place})"
    worst = worst if gaps.at[row, column] else "all equal"
    if count["left_only"]:
        return False, f"{name}: {count['left_only']} rows are not in the reference; {worst}"
    if count["right_only"] and name != SHARED[-1]:
        return False, f"{name}: {count['right_only']} rows of the reference are missing; {worst}"
    return (
        not wrong,
        f"{name}: {f'{wrong} of ' if wrong else ''}{len(both)} rows{' differ' * bool(wrong)}; {worst}",
    )


def verify(run: str | Path, reference: str | Path = REFERENCE) -> Findings:
    """Compare a run's folder with the shipped results, or with another run in all their tables.

    Raises:
        ReplicationError: The run has no table that could be compared, or a file cannot be read.
    """
    run, reference, found = Path(run), Path(reference), Findings()
    shipped = reference.resolve() == REFERENCE.resolve()
    for path in sorted((run / "tables").glob("*.csv")):
        other = reference / "tables" / path.name
        if other.is_file() and (path.name in SHARED or not shipped):
            agree, sentence = compare_tables(path, other)
            (found.agree if agree else found.differ).append(sentence)
    if not found.agree and not found.differ:
        raise ReplicationError(f"{run} has no tables to compare with {reference}.")
    found.differ += [sentence for sentence in [stale_weights()] if shipped and sentence]
    ours, theirs = (_environment(folder) for folder in (run, reference))
    for fact in sorted(ours.keys() | theirs.keys()):
        if ours.get(fact) != theirs.get(fact):
            found.notes.append(f"{fact}: {ours.get(fact)}, reference {theirs.get(fact)}")
    return found


def _environment(folder: Path) -> dict[str, str]:
    path = folder / "provenance.json"
    try:
        facts = json.loads(path.read_text()) if path.exists() else {}
        facts = facts.get("environment", facts)
        known = {fact: facts.get(fact) for fact in ("code_version", "python", "cpu")}
        return known | facts.get("packages", {})
    except (OSError, ValueError, AttributeError) as error:
        raise ReplicationError(f"Cannot read {path}: {error}.") from error
