"""Are the shipped results what a fresh run gives? Row by row, and in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from replication.evaluation.rows import KEYS, METRICS, read_rows
from replication.files import REFERENCE, ReplicationError
from replication.report.documents import stale_weights

TOLERANCE = pd.Series(1e-3, METRICS)  # metric -> largest difference that another machine may make
TOLERANCE[["psnr", "pu21_psnr", "hdrvdp2_q"]] = 0.01
TOLERANCE[["hdrvdp2_q_mos", "drim_loss", "drim_amplification", "drim_reversal"]] = 0.05
NOTEBOOKS = ("01_data", "06_ldr_stacks", "07_hdr_comparison")  # they score the shipped weights
SHARED = ("table1.csv", "table4.csv", "table5.csv", "scaling.csv")  # of the last a run has a sample


class Findings(NamedTuple):
    """What a comparison found: tables that `agree`, what does `differ`, and `notes` that explain."""

    agree: list[str]
    differ: list[str]
    notes: list[str]

    def __str__(self) -> str:
        kinds = zip(("agree", "differ", "note"), self, strict=True)
        return "\n".join(f"{kind:7s} {line}" for kind, lines in kinds for line in lines)


def compare_tables(path: str | Path, reference: str | Path) -> tuple[bool, str]:
    """Whether a run's rows agree with the reference's within TOLERANCE, and a sentence about it.

    A run must have every row of the reference for the data sets and methods that it has.
    """
    ours, theirs, name = read_rows(path), read_rows(reference), Path(path).name
    theirs = theirs.merge(ours[["table", "dataset", "split", "method"]].drop_duplicates())
    keys = [key for key in KEYS if key in ours and key in theirs]
    ours, theirs = ours.set_index(keys), theirs.set_index(keys)
    more, lost = len(ours.index.difference(theirs.index)), len(theirs.index.difference(ours.index))
    lost = 0 if name == SHARED[-1] else lost
    both, columns = ours.index.intersection(theirs.index), ours.columns.intersection(theirs.columns)
    if both.empty:
        raise ReplicationError(f"{path} and {reference} have no row in common.")
    columns = [one for one in (*METRICS, "data_hash", "weights_hash") if one in columns]
    one, other = ours.loc[both, columns], theirs.loc[both, columns]
    metrics = [column for column in columns if column in TOLERANCE]
    gaps = (one[metrics] - other[metrics]).abs() / TOLERANCE[metrics]
    gaps = gaps.reindex(columns=columns).fillna(float("inf"))  # NaN against a number; other hashes
    gaps = gaps.mask((one == other) | (one.isna() & other.isna()), 0.0)
    wrong, (*place, column) = int((gaps > 1).any(axis=1).sum()), gaps.stack().idxmax()
    pair = [frame.loc[tuple(place), column] for frame in (one.round(6), other.round(6))]
    worst = f"{column} {pair[0]}, reference {pair[1]} ({' '.join(map(str, place[1:]))})"
    worst = f"largest difference: {worst}" if gaps.max(axis=None) else "all equal"
    found = f"{wrong} of {len(both)} rows differ" if wrong else f"{len(both)} rows"
    if more or lost:
        found = f"{more} rows are not in the reference, {lost} rows of the reference are missing"
    return not (more or lost or wrong), f"{name}: {found}; {worst}"


def verify(run: str | Path, reference: str | Path = REFERENCE) -> Findings:
    """Compare a run's folder with the shipped results, or with another run in all their tables."""
    run, reference, found = Path(run), Path(reference), Findings([], [], [])
    shipped = reference.resolve() == REFERENCE.resolve()
    for path in sorted((run / "tables").glob("*.csv")):
        other = reference / "tables" / path.name
        if other.is_file() and (path.name in SHARED or not shipped):
            agree, sentence = compare_tables(path, other)
            (found.agree if agree else found.differ).append(sentence)
    if not found.agree and not found.differ:
        raise ReplicationError(f"{run} has no tables to compare with {reference}.")
    found.differ.extend([sentence] if shipped and (sentence := stale_weights()) else [])
    ours, theirs = (_environment(folder / "provenance.json") for folder in (run, reference))
    changed = [fact for fact in sorted(ours | theirs) if ours.get(fact) != theirs.get(fact)]
    found.notes.extend(f"{f}: {ours.get(f)}, reference {theirs.get(f)}" for f in changed)
    return found


def _environment(path: Path) -> dict[str, str]:
    try:
        facts = json.loads(path.read_text()) if path.exists() else {}
        facts = facts.get("environment", facts)
        own = {key: facts.get(key) for key in ("code_version", "python", "cpu")}
        return own | facts.get("packages", {})
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise ReplicationError(f"Cannot read {path}: {error!r}.") from error
