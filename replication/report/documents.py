"""README, report and model card: what stands between their markers is made from committed rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from itertools import product
from pathlib import Path

import pandas as pd

from replication import paper
from replication.evaluation.rows import read_rows
from replication.files import REFERENCE, RESULTS, ROOT, ReplicationError, atomic_path
from replication.model import DeepChain
from replication.reconstruct import load_chain
from replication.report import claims, tables
from replication.report.claims import reference_rows
from replication.report.tables import METRIC_LABELS, REAL, markdown_table
from replication.weights import WEIGHTS, chain_hash


def update_block(path: str | Path, name: str, text: str, *, check: bool = False) -> bool:
    """Replace what stands between ``<!-- NAME:start -->`` and ``<!-- NAME:end -->``, and no byte beside it.

    Returns whether the file was changed. ReplicationError: it has not exactly one such block, or (with
    `check`) that is out of date.
    """
    path, start, end = Path(path), f"<!-- {name}:start -->", f"<!-- {name}:end -->"
    try:
        old = path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ReplicationError(f"Cannot read {path}: {error}.") from error
    head, _, rest = old.partition(start)
    _, closed, tail = rest.partition(end)
    if not closed or old.count(start) + old.count(end) != 2 or start in text or end in text:
        raise ReplicationError(f"{path} needs exactly one block from {start} to {end}.")
    newline = "\r\n" if "\r\n" in old else "\n"
    new = head + newline.join([start, *text.strip("\n").splitlines(), end]) + tail
    if check and new != old:
        raise ReplicationError(f"{path}: the block {name} is out of date; generate it again.")
    if new != old:
        with atomic_path(path) as temporary:
            temporary.write_bytes(new.encode("utf-8"))
    return new != old


def update_tables(*, check: bool = False) -> None:
    """Regenerate the blocks of README.md, REPORT.md and MODEL_CARD.md from the rows.

    With `check` write nothing, but compare the blocks with the rows and the rows with the shipped weights;
    ReplicationError says what is out of date.
    """
    if check and (sentence := stale_weights()):
        raise ReplicationError(sentence)
    for (path, name), text in _blocks().items():
        update_block(path, name, text, check=check)


def stale_weights() -> str:
    """A sentence if the shipped weights are not those of the reference rows, else ""."""
    shipped = chain_hash(DeepChain(), WEIGHTS)
    for name in ("table4", "table5"):
        rows = reference_rows(name).query("method == 'deep_chain'")
        if (scored := ", ".join(rows["weights_hash"].unique())) != shipped:
            hashes = f"hash {shipped}, but {name}.csv was made with {scored}"
            return f"The shipped weights have the {hashes}; run results/score.py."
    return ""


def _blocks() -> dict[tuple[Path, str], str]:
    readme, report, card = ROOT / "README.md", RESULTS / "REPORT.md", REFERENCE / "MODEL_CARD.md"
    table4, table5, every = (reference_rows("table4"), reference_rows("table5"), claims.claims_frame())
    basic = table4[table4["method"].isin(("identity", "tone_curve", "deep_chain"))]
    brief = every.drop(columns="here").rename(columns={"in brief": "here"})
    brief["notebook"] = brief["notebook"].str.replace("(../", "(", regex=False)
    hdrps = table5.query("dataset == 'hdrps'")
    photo_only = hdrps[~hdrps["method"].isin([*tables.USES_TRUTH, "deep_chain_faithful"])]
    residuals = tables.residual_frame(pd.read_csv(REFERENCE / "ablations/table3_activations.csv"))
    sensitivity = tables.ablation_frame(reference_rows("sensitivity"), minus="reference")
    blocks = {(report, name): _section(name, reference_rows(name), logs=True) for name in _SECTIONS}
    blocks |= {
        (readme, "claims"): markdown_table(brief),
        (readme, "table4"): markdown_table(_by_ev(basic[basic["dataset"] == "hdrps"])),
        (readme, "table5"): markdown_table(tables.table5_frame(photo_only)),
        (report, "claims"): markdown_table(every.drop(columns="in brief")),
        (report, "table3_residuals"): markdown_table(residuals, decimals=1),
        (report, "sensitivity"): markdown_table(sensitivity),
        (report, "table5_detail"): _parts(table5, tables.table5_detail),
        (report, "table5_scaling"): _parts(reference_rows("scaling"), tables.scaling_frame),
        (card, "table4"): _parts(basic[basic["dataset"].isin(REAL)], tables.table4_frame),
        (card, "training"): markdown_table(_training_frame()),
    }
    both = {"verdict": _bullets([claims.chain_verdict(table4)])}
    both["table5_verdict"] = markdown_table(tables.paired_frame(hdrps))
    return blocks | {(path, name): text for path in (readme, card) for name, text in both.items()}


def _by_ev(rows: pd.DataFrame) -> pd.DataFrame:
    """Table 4 of one data set with a line per EV: the paper, the tone curve, the chain."""
    table = tables.table4_frame(rows[rows["method"] != "identity"]).set_index("method").T[1:]
    return table.rename(lambda name: name.removeprefix("EV ")).rename_axis("EV").reset_index()


_SECTIONS = {
    "table1": "PSNR between EV 0 and the other exposures",
    "table2": "EV 0 to EV +3 by a chain or by one network",
    "table3": "the activation",
    "table4": "inferred against true exposures",
    "table5": "HDR images against the true ones",
}
_CONTENDERS = {"table2": ("chain", "shallow", "single_deep", "single", "tone_curve")}
_CONTENDERS["table3"] = ("mprelu", "prelu", "leaky_relu", "relu")


def _section(name: str, rows: pd.DataFrame, logs: bool = False) -> str:
    """Verdicts and tables of one of the paper's tables; `logs` says to read the reference's loss curves."""
    if name == "table1":
        scenes = rows.groupby("dataset")["scene"].nunique()
        means = rows.pivot_table(index="dataset", columns="ev", values="psnr")
        means = means.rename(lambda data: f"{data}, all {scenes[data]} scenes")
        frame = pd.concat([pd.DataFrame({"paper, 96 scenes": paper.TABLE1}).T, means])
        frame = frame[sorted(paper.TABLE1)].rename(columns="EV {:+d}".format)
        return markdown_table(frame.rename_axis("data set").reset_index())
    if name == "table5":
        return f"{_parts(rows, tables.paired_frame)}\n\n{_parts(rows, tables.table5_frame)}"
    if name == "table4":
        found, frame, parts = [claims.chain_verdict(rows)], tables.table4_frame, [rows]
    else:
        losses = pd.read_csv(REFERENCE / f"ablations/{name}_logs.csv") if logs else None
        method, *others = (one for one in _CONTENDERS[name] if one in set(rows["method"]))
        found = [claims.ablation_verdict(rows, method, other, losses) for other in others]
        frame, parts = tables.ablation_frame, [part for _, part in rows.groupby(rows["ev"].abs())]
    texts = [_bullets(found)]
    for metric, part in product(("psnr", "ssim", "ms_ssim"), parts):
        texts.append(_parts(part, partial(frame, metric=metric), f", {METRIC_LABELS[metric]}"))
    return "\n\n".join(texts)


def _parts(rows: pd.DataFrame, frame: Callable[..., pd.DataFrame], more: str = "") -> str:
    """A table for each data set, with its name."""
    parts = tables.by_dataset(rows, frame)
    return "\n\n".join(f"**{name}**{more}\n\n{markdown_table(part)}" for name, part in parts)


def _bullets(texts: Iterable[str]) -> str:
    return "\n".join(f"* {line}" for text in texts for line in text.splitlines())


def _training_frame() -> pd.DataFrame:
    """How each shipped network was trained, from the metadata of its file and its logs."""
    lines = []
    for ev, facts in sorted(load_chain().metadata.items(), reverse=True):
        recipe, scores = facts["recipe"], facts["validation"]["psnr_db"]
        inputs = "the chain's own" if recipe["mode"] == "chained" else facts["inputs"]
        line = {"EV": f"{ev:+d}", "activation": tables.ABLATION_NAMES[facts["activation"]]}
        line |= {"inputs": inputs, "norm": f"L{recipe.get('norm', 1)}", "seed": recipe["seed"]}
        line |= {"patches": f"{recipe['patches']:,}", "batch": recipe["batch_size"]}
        line |= {"from": (facts["init"] or "new")[:8], "device": facts["device"]}
        line["patches, all parts"] = f"{claims.patches_seen(ev):,}"
        gain = f"{scores['tone_curve']:.2f} → {scores['deep_chain']:.2f}"
        lines.append(line | {"validation: curve → network (dB)": gain})
    return pd.DataFrame(lines)


def write_run_report(run: str | Path) -> Path | None:
    """``REPORT.md`` of a run's folder: the paper's tables beside the run's; None if it has no table."""
    paths = {name: Path(run) / "tables" / f"{name}.csv" for name in _SECTIONS}
    rows = {name: read_rows(path) for name, path in paths.items() if path.is_file()}
    if not rows:
        return None
    data = ", ".join(dict.fromkeys(name for frame in rows.values() for name in frame["dataset"]))
    text = f"# Report of a run on {data}\n\nThe paper's tables beside those of this run."
    for name, frame in rows.items():
        text += f"\n\n## Table {name[5:]}: {_SECTIONS[name]}\n\n{_section(name, frame)}"
    with atomic_path(Path(run) / "REPORT.md") as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    return Path(run) / "REPORT.md"
