"""The paper's claims: its number, ours, and a verdict, from committed rows by `tables.verdict`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd

from replication import paper
from replication.evaluation.rows import read_rows
from replication.evaluation.uncertainty import mean_interval, seed_interval
from replication.files import REFERENCE
from replication.model import DeepChain
from replication.report import tables
from replication.report.tables import paired, verdict
from replication.weights import WEIGHTS, chain_hash

STILL_FALLING = 0.05  # share by which the loss falls from the third to the last quarter of a run
Judged = tuple[str, str]  # what `verdict` returns
_BEATS = "The HDR image beats [14], [19], [24] in "
_TABLE5 = {"psnr": _BEATS + "tone-mapped PSNR (Table 5)"}
_TABLE5 |= {"hdrvdp2_q": _BEATS + "HDR-VDP-2 quality (Table 5)", "pu21_psnr": _BEATS + "PU21-PSNR"}
_TABLE5["drim_loss"] = "DRIM: less contrast lost than in [14], [19], [24] (Figure 7)"
_TABLE5 |= {f"drim_{kind}": f"– less {kind} of contrast" for kind in ("amplification", "reversal")}


def claims_frame() -> pd.DataFrame:
    """Every claim: `claim`, `paper`, `here`, `in brief`, `verdict`, `notebook`, by notebook."""
    lines = []
    for claim, theirs, found, notebook, *note in (*_stacks(), *_ablations(), *_hdr_images()):
        here = "; ".join([f"{label}: {evidence}" for label, (_, evidence) in found] + note)
        count = sum(one.startswith("supported") for _, (one, _) in found)
        more = f" ({count} of {len(found)} supported)" if 0 < count < len(found) else ""
        word = f"**{combined(one for _, one in found)}**{more}"
        link = f"[{notebook[:2]}](../notebooks/{notebook}.ipynb)"
        lines.append((claim, theirs, here, _brief(found), word, link))
    names = ["claim", "paper", "here", "in brief", "verdict", "notebook"]
    return pd.DataFrame(lines, columns=names).sort_values("notebook", kind="stable", ignore_index=True)


def _brief(found: list[tuple[str, Judged]]) -> str:
    """The differences with their intervals, or the range of differences where these take much room."""
    gaps = [(label, evidence.partition(" over ")[0]) for label, (_, evidence) in found]
    if len(every := "; ".join(map(": ".join, gaps))) <= 120:
        return every
    ends = sorted((gap.partition(" [")[0] for _, gap in gaps), key=lambda gap: float(gap.split()[0]))
    return f"{len(gaps)} differences from {ends[0]} to {ends[-1]}"


def ablation_verdict(rows: pd.DataFrame, method: str, other: str, logs=None) -> str:
    """Verdict on "`method` is better than `other`", a line per EV; `logs` are ``STUDY_logs.csv``."""
    names = f"{tables.ABLATION_NAMES[method]} minus {tables.ABLATION_NAMES[other]}"
    return "\n".join(
        f"EV {ev:+d}: {names}: {evidence}{theirs and f'; paper {theirs}'}: **{word}**."
        for ev, (word, evidence), theirs in _ablation_verdicts(rows, method, other, logs)
    )


def _ablation_verdicts(rows, method, other, logs) -> Iterator[tuple[int, Judged, str]]:
    """EV, verdict, and the paper's difference in words ("" where it has none), paired by image."""
    trained = [name for name in (method, other) if logs is not None and name in set(logs["method"])]
    moves = learning_curve_moves(logs, trained) if trained else None
    budget = rows.loc[rows["method"] == method, "recipe"].str.extract(r"^(\d+) patches")[0].iloc[0]
    budget = "" if pd.isna(budget) else f"{int(budget):,} patches per network"
    for ev in sorted(rows["ev"].unique(), key=abs):
        part = rows[rows["ev"] == ev]
        images = tables.per_image(part, "psnr").unstack()
        seeds = part.pivot_table(index="seed", columns="method", values="psnr")
        rival = seeds[other] if seeds[other].count() > 1 else seeds[other].max()
        gaps = (seeds[method] - rival).dropna()  # the tone curve has one seed only
        scores = [tables.PAPER_ABLATIONS.get((*part["table"][:1], ev, n)) for n in (method, other)]
        theirs = f"{scores[0]['psnr'][0] - scores[1]['psnr'][0]:+.2f} dB" if all(scores) else ""
        facts = {"seeds": len(gaps), "over_seeds": seed_interval(gaps)}
        facts |= {"moves": moves, "training": budget}
        yield ev, _of_mean((images[method] - images[other]).dropna(), **facts), theirs


def learning_curve_moves(logs: pd.DataFrame, methods: Iterable[str]) -> bool:
    """Whether the training loss of one of `methods` still falls; `logs` are ``STUDY_logs.csv``."""
    share = logs["patches"] / logs.groupby(["method", "ev"])["patches"].transform("max")
    quarters = logs.groupby(["method", "ev", np.ceil(4 * share).rename("quarter")])["loss"].mean()
    falls = 1 - quarters.xs(4, level="quarter") / quarters.xs(3, level="quarter")
    return bool((falls[falls.index.isin(methods, "method")] > STILL_FALLING).any())


def chain_verdict(rows: pd.DataFrame) -> str:
    """Table 4 in words, a line per data set: the chain minus the tone curve, mean over the EVs."""
    lines = []
    for name, part in rows.groupby("dataset"):
        images = [tables.per_image(part, metric).unstack() for metric in ("psnr", "ssim")]
        psnr, ssim = (one["deep_chain"] - one["tone_curve"] for one in images)
        word, evidence = judged(part, "psnr", training_text(part))["tone_curve"]
        won = f"better on {(psnr > 0).sum()} of {len(psnr)} scenes, in SSIM on {(ssim > 0).sum()}"
        gap = f"{evidence}; median {psnr.median():+.2f} dB; {won}: **{word}**."
        lines.append(f"{name}: deep chain minus tone curve, mean over the EVs: {gap}")
    return "\n".join(lines)


def judged(rows: pd.DataFrame, metric: str, training: str = "") -> dict[str, Judged]:
    """Verdicts on "the chain is better" than each of FAMILY, from rows of Table 4 or 5."""
    facts = {"metric": metric, "training": training}
    found = paired(rows, metric).itertuples()
    return {
        other: verdict(d, (low, high), scenes=n, p=p, **facts) for other, n, d, low, high, *_, p in found
    }


def combined(verdicts: Iterable[Judged]) -> str:
    """One word for a claim about several differences: theirs where all agree, else inconclusive."""
    words = {word for word, _ in verdicts}
    plain = {word.partition(",")[0] for word in words}
    return "inconclusive" if len(plain) > 1 else min(words if len(words) == 1 else plain)


def patches_seen(ev: int) -> int:
    """Patches that a shipped subnetwork saw in all parts of its training, from the committed logs."""
    logs = (REFERENCE / "logs").glob(f"ev{ev:+d}*.csv")
    return sum(int(pd.read_csv(path)["patches"].iloc[-1]) for path in logs)


def training_text(rows: pd.DataFrame) -> str:
    """The training budget of the chain in `rows`, in words."""
    hashes = set(rows.loc[rows["method"] == "deep_chain", "weights_hash"])
    if hashes != {chain_hash(DeepChain(), WEIGHTS)} or not (REFERENCE / "logs").is_dir():
        return "1 training"
    seen = [patches_seen(ev) // 1000 for ev in paper.EVS]
    return f"1 training of {min(seen)} to {max(seen)} thousand patches"


def reference_rows(name: str) -> pd.DataFrame:
    """The committed rows of a table or an ablation."""
    folder = "ablations" if name in ("table2", "table3", "sensitivity") else "tables"
    return read_rows(REFERENCE / folder / f"{name}.csv")


def _psnr(rows: pd.DataFrame) -> Iterable[tuple[str, pd.DataFrame]]:
    for name, part in rows.groupby("dataset"):
        yield name, part.pivot(index="scene", columns="ev", values="psnr")


def _stacks():
    falls, near, darker, rows = [], [], [], reference_rows("table4").query(_REAL)
    means = pd.Series({ev: scores["psnr"][0] for ev, scores in paper.TABLE4.items()})
    for name, psnr in _psnr(reference_rows("table1")):
        steps = (psnr[sign * n] - psnr[sign * (n + 1)] for sign in (1, -1) for n in (1, 2))
        falls.append((f"{name}, smallest step", _of_mean(min(steps, key=np.mean))))
    for name, psnr in _psnr(rows[rows["method"] == "deep_chain"]):
        lead = min((psnr[ev] - means[ev] for ev in means.index), key=np.mean)
        near.append((f"{name}, smallest lead over the paper's mean", _of_mean(lead)))
        darker.append((name, _of_mean(psnr[_SIDES.index] @ _SIDES)))
    network = [(m, judged(rows, m)["tone_curve"]) for m in ("psnr", "ssim", "ms_ssim")]
    network = [(tables.METRIC_LABELS[metric], one) for metric, one in network]
    first, last = _range(paper.TABLE1.values(), ".1f"), ("06_ldr_stacks", training_text(rows))
    yield "The PSNR to EV 0 falls with the distance (Table 1)", first, falls, "01_data"
    yield "The inferred stack is near the true one (Table 4)", _range(means, ".1f"), near, *last
    yield "– and needs a network: a tone curve is worse", "not tested", network, *last
    claim = "Darker exposures are harder than brighter ones (Section 6.1)"
    yield claim, f"by {means @ _SIDES:.1f} dB", darker, *last


_REAL = "dataset in @tables.REAL"
_SIDES = pd.Series({ev: (1 if ev > 0 else -1) / 3 for ev in paper.EVS})  # brighter minus darker


def _ablations():
    shallow = "The chain infers EV +3 better than the shallow network of [22] (Table 2)"
    deep = "– because it is a chain: one network with as many parameters is worse"
    prelu = "MPReLU infers EV -1, -2, -3 better than PReLU (Table 3)"
    for claim, study, method, other, notebook in (
        (shallow, "table2", "chain", "shallow", "04_chain_vs_shallow"),
        (deep, "table2", "chain", "single_deep", "04_chain_vs_shallow"),
        (prelu, "table3", "mprelu", "prelu", "05_mprelu_vs_prelu"),
    ):
        logs = pd.read_csv(REFERENCE / "ablations" / f"{study}_logs.csv")
        found = list(_ablation_verdicts(reference_rows(study), method, other, logs))
        theirs = ", ".join(text for *_, text in found if text) or "not tested"
        yield claim, theirs, [(f"EV {ev:+d}", one) for ev, one, _ in found], notebook


def _hdr_images():
    rows, notebook = reference_rows("table5").query(_REAL), "07_hdr_comparison"
    note, label, rivals = training_text(rows), tables.METHOD_NAMES, tables.COMPETITORS
    for metric, claim in _TABLE5.items():
        found = [(name, judged(part, metric)) for name, part in rows.groupby("dataset")]
        beaten = [(f"{name}, {label[m]}", one[m]) for name, one in found for m in rivals]
        scores = {name: one[metric][0] for name, one in paper.TABLE5.items() if metric in one}
        gaps = [scores["deep_chain"] - scores[other] for other in rivals if scores]
        theirs = _range(gaps, "+.1f") if gaps else "by eye" if "drim" in metric else "not tested"
        yield claim, theirs, beaten, notebook, note
        if "drim" not in metric:
            curve = [(name, one["tone_curve"]) for name, one in found]
            yield "– and a tone curve in the same measure", "not tested", curve, notebook, note
    claim = "HDR-VDP-2 shows more blue (unseen) pixels than for [14], [19], [24] (Figure 7)"
    yield claim, "by eye", [("share of blue pixels", verdict(None))], notebook


def _of_mean(values: pd.Series, **facts) -> Judged:
    return verdict(values.mean(), mean_interval(values), scenes=len(values), **facts)


def _range(values: Iterable[float], form: str) -> str:
    return f"{min(values):{form}} to {max(values):{form}}"
