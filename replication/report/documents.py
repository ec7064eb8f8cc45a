"""README, report and model card: what stands between their markers is made from committed rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

import pandas as pd

from replication import paper
from replication.evaluation.rows import (
    METRIC_LABELS,
    REFERENCE,
    markdown_table,
    read_rows,
    summarise,
    update_block,
)
from replication.files import RESULTS, ROOT, atomic_path
from replication.reconstruct import load_chain
from replication.report import claims
from replication.report.tables import (
    ABLATION_NAMES,
    DATASET_NAMES,
    METHOD_NAMES,
    USES_TRUTH,
    ablation_differences,
    ablation_frame,
    ablation_verdict,
    by_dataset,
    chain_verdict,
    comparison_verdict,
    difference_frame,
    paired_frame,
    residual_frame,
    scaling_frame,
    table4_frame,
    table5_detail,
    table5_frame,
)

_EVS = (-3, -2, -1, 1, 2, 3)


def update_tables(*, check: bool = False) -> None:
    """Regenerate the tables of README.md and results/REPORT.md from the committed rows.

    Parameters
    ----------
    check : bool
        Write nothing; raise ReplicationError if a table is not what the rows say.

    Raises
    ------
    ReplicationError
        If rows are missing or, with `check`, a table is out of date.
    """
    rows = read_rows(REFERENCE / "tables" / "table4.csv")
    summary = summarise(rows, by=["dataset", "method", "ev"])
    parts = {name: summary[summary["dataset"] == name] for name in DATASET_NAMES}
    first = read_rows(REFERENCE / "tables" / "table1.csv")
    bullets = "\n".join(f"* {line}" for line in chain_verdict(summary).splitlines())
    blocks = {
        (ROOT / "README.md", "table4"): _readme_table(parts),
        (RESULTS / "REPORT.md", "table1"): markdown_table(_table1_frame(first)),
        (ROOT / "README.md", "verdict"): bullets,
        (RESULTS / "REPORT.md", "verdict"): bullets,
    }
    for metric in ("psnr", "ssim", "ms_ssim"):
        blocks[RESULTS / "REPORT.md", f"table4_{metric}"] = "\n\n".join(
            f"**{DATASET_NAMES[name]}**, {METRIC_LABELS[metric]}, mean ± σ\n\n"
            + markdown_table(table4_frame(part, metric))
            for name, part in parts.items()
        )
    blocks |= _table5_blocks() | _ablation_blocks()
    every_claim = claims.claims_frame()
    blocks[RESULTS / "REPORT.md", "claims"] = markdown_table(every_claim)
    every_claim["notebook"] = every_claim["notebook"].str.replace("(../", "(", regex=False)
    blocks[ROOT / "README.md", "claims"] = markdown_table(every_claim)
    blocks[RESULTS / "REPORT.md", "literature"] = markdown_table(claims.literature_frame())
    card = REFERENCE / "MODEL_CARD.md"
    blocks[card, "training"] = markdown_table(_training_frame(), decimals=2)
    for name in ("table4", "verdict", "table5_verdict"):
        blocks[card, name] = blocks[ROOT / "README.md", name]
    for (path, name), text in blocks.items():
        update_block(path, name, text, check=check)


def write_run_report(run: str | Path) -> Path | None:
    """``REPORT.md`` of one run: the paper's tables beside those that the run has written.

    Parameters
    ----------
    run : path
        Folder of ``python -m replication run``.

    Returns
    -------
    Path or None
        The report; None where the run has none of the tables.

    Raises
    ------
    ReplicationError
        If a table cannot be read or the report not be written.
    """
    run, parts = Path(run), []
    tables = {
        name: read_rows(run / "tables" / f"{name}.csv")
        for name in ("table1", "table2", "table3", "table4", "table5")
        if (run / "tables" / f"{name}.csv").is_file()
    }
    for name, make in _RUN_PARTS.items():
        if name in tables:
            parts.append(make(tables[name]))
    if not parts:
        return None
    data = ", ".join(dict.fromkeys(d for rows in tables.values() for d in rows["dataset"].unique()))
    version = next(iter(tables.values()))["code_version"].iloc[0]
    head = (
        f"# Report of a run on {data}\n\nThe paper's tables beside what this run wrote into `tables/`; "
        f"code {version}. Generated."
    )
    path = run / "REPORT.md"
    with atomic_path(path) as temporary:
        temporary.write_text("\n\n".join([head, *parts]) + "\n", encoding="utf-8")
    return path


def _run_table1(rows: pd.DataFrame) -> str:
    return f"## Table 1: PSNR between EV 0 and the other exposures\n\n{markdown_table(_table1_frame(rows))}"


def _run_ablation(title: str, method: str, other: str, rows: pd.DataFrame) -> str:
    tables = [
        f"**{METRIC_LABELS[metric]}**\n\n{markdown_table(ablation_frame(rows, metric))}"
        for metric in ("psnr", "ssim", "ms_ssim")
    ]
    verdict = _bullets([ablation_verdict(rows, method, other)])
    return "\n\n".join([f"## {title}", *tables, verdict])


def _run_table4(rows: pd.DataFrame) -> str:
    summary = summarise(rows, by=["dataset", "method", "ev"])
    tables = [
        f"**{name}, {METRIC_LABELS[metric]}**\n\n{markdown_table(table4_frame(part, metric))}"
        for name, part in by_dataset(summary)
        for metric in ("psnr", "ssim", "ms_ssim")
    ]
    title = "## Table 4: inferred against true exposures"
    return "\n\n".join([title, *tables, _bullets([chain_verdict(summary)])])


def _run_table5(rows: pd.DataFrame) -> str:
    parts = ["## Table 5: HDR images against the true ones"]
    for name, part in by_dataset(rows):
        parts.append(f"**{name}**\n\n{markdown_table(table5_frame(part))}")
    parts.append(_bullets([comparison_verdict(rows)]))
    if "vds" in set(rows["dataset"]):
        own = rows[(rows["dataset"] == "vds") & (rows["method"] == "deep_chain")]
        mean = own["psnr"].mean(), own["hdrvdp2_q"].mean()
        table = markdown_table(claims.literature_frame({"Deep Chain HDRI, this run": mean}))
        parts.append(f"Beside published results on the same data:\n\n{table}")
    return "\n\n".join(parts)


_RUN_PARTS = {
    "table1": _run_table1,
    "table2": partial(_run_ablation, "Table 2: EV 0 to EV +3", "chain", "shallow"),
    "table3": partial(_run_ablation, "Table 3: the activation", "mprelu", "prelu"),
    "table4": _run_table4,
    "table5": _run_table5,
}


def _table5_blocks() -> dict[tuple[Path, str], str]:
    rows = read_rows(REFERENCE / "tables" / "table5.csv")
    study = read_rows(REFERENCE / "tables" / "scaling.csv")
    bullets = "\n".join(f"* {line}" for line in comparison_verdict(rows).splitlines())
    parts = {DATASET_NAMES[name]: part for name, part in by_dataset(rows)}
    studies = {DATASET_NAMES[name]: part for name, part in by_dataset(study)}

    def block(make, of) -> str:
        return "\n\n".join(
            f"**{name}**\n\n{markdown_table(make(part))}" for name, part in of.items()
        )

    own_test = parts[DATASET_NAMES["hdrps"]]
    readme = own_test[~own_test["method"].isin(USES_TRUTH)]
    return {
        (ROOT / "README.md", "table5"): markdown_table(table5_frame(readme)),
        (ROOT / "README.md", "table5_verdict"): bullets,
        (RESULTS / "REPORT.md", "table5_verdict"): bullets,
        (RESULTS / "REPORT.md", "table5"): block(table5_frame, parts),
        (RESULTS / "REPORT.md", "table5_paired"): block(paired_frame, parts),
        (RESULTS / "REPORT.md", "table5_detail"): block(table5_detail, parts),
        (RESULTS / "REPORT.md", "table5_scaling"): block(scaling_frame, studies),
    }


def _ablation_blocks() -> dict[tuple[Path, str], str]:
    folder = REFERENCE / "ablations"
    table2, table3, sensitivity = (
        read_rows(folder / f"{name}.csv") for name in ("table2", "table3", "sensitivity")
    )
    activations = pd.read_csv(folder / "table3_activations.csv")
    verdict2 = [
        ablation_verdict(table2, "chain", other)
        for other in ("shallow", "single_deep", "single", "tone_curve")
    ]
    verdict3 = [
        ablation_verdict(table3, "mprelu", other) for other in ("prelu", "leaky_relu", "relu")
    ]
    blocks = {}
    for name, rows in (("table2", table2), ("table3", table3)):
        blocks[name] = "\n\n".join(
            f"**{METRIC_LABELS[metric]}**\n\n{markdown_table(ablation_frame(part, metric))}"
            for metric in ("psnr", "ssim", "ms_ssim")
            for _, part in rows.groupby(rows["ev"].abs())
        )
    blocks["table2_paired"] = _difference_table(table2, "chain")
    blocks["table3_paired"] = _difference_table(table3, "mprelu")
    blocks["table2_verdict"] = _bullets(verdict2)
    blocks["table3_verdict"] = _bullets(verdict3)
    blocks["table3_residuals"] = markdown_table(residual_frame(activations), decimals=1)
    blocks["sensitivity"] = markdown_table(ablation_frame(sensitivity))
    blocks["sensitivity_paired"] = _difference_table(sensitivity, "reference")
    return {(RESULTS / "REPORT.md", name): text for name, text in blocks.items()}


def _difference_table(rows: pd.DataFrame, method: str) -> str:
    return markdown_table(difference_frame(ablation_differences(rows, method)))


def _bullets(verdicts: Iterable[str]) -> str:
    return "\n".join(f"* {line}" for text in verdicts for line in text.splitlines())


def _training_frame() -> pd.DataFrame:
    """How each shipped network was trained, from the metadata of its file."""
    lines = []
    for ev, facts in sorted(load_chain().metadata.items(), key=lambda item: -item[0]):
        recipe, scores = facts["recipe"], facts["validation"]["psnr_db"]
        seen, minutes = 0, 0.0
        for path in (REFERENCE / "logs").glob(f"ev{ev:+d}*.csv"):
            log = pd.read_csv(path)
            each = log["patches"].diff().fillna(log["patches"])
            shared = 3 if recipe["mode"] == "chained" and path.stem == f"ev{ev:+d}" else 1
            seen += log["patches"].iloc[-1]
            minutes += (each / log["patches_per_s"]).sum() / 60 / shared
        lines.append(
            {
                "EV": f"{ev:+d}",
                "activation": ABLATION_NAMES[facts["activation"]],
                "inputs": "the chain's own" if recipe["mode"] == "chained" else facts["inputs"],
                "norm": f"L{recipe.get('norm', 1)}",
                "patches": f"{recipe['patches']:,}",
                "batch": str(recipe["batch_size"]),
                "from": "new" if facts["init"] is None else f"{facts['init'][:8]}",
                "seed": str(recipe["seed"]),
                "device": facts["device"],
                "patches, all parts": f"{seen:,}",
                "minutes, all parts": f"{minutes:.0f}",
                "validation: curve → network (dB)": (
                    f"{scores['tone_curve']:.2f} → {scores['deep_chain']:.2f}"
                ),
            }
        )
    return pd.DataFrame(lines)


def _table1_frame(rows: pd.DataFrame) -> pd.DataFrame:
    lines = [{"data set": "paper, 96 scenes"} | {f"EV {ev:+d}": paper.TABLE1[ev] for ev in _EVS}]
    for name, part in rows.groupby("dataset", sort=False):
        means = part.groupby("ev")["psnr"].mean()
        label = f"{name}, all {part['scene'].nunique()} scenes"
        lines.append({"data set": label} | {f"EV {ev:+d}": means[ev] for ev in _EVS})
    return pd.DataFrame(lines)


def _readme_table(parts: Mapping[str, pd.DataFrame]) -> str:
    """PSNR by exposure: the paper, and each method on the two real data sets."""
    lines = []
    for ev in reversed(_EVS):
        line = {"EV": f"{ev:+d}", "paper": paper.TABLE4[ev]["psnr"][0]}
        for dataset in ("hdrps", "empa"):
            means = parts[dataset].set_index(["method", "ev"])["psnr_mean"]
            for method in ("identity", "tone_curve", "deep_chain"):
                line[f"{METHOD_NAMES[method]}, {dataset}"] = means[method, ev]
        lines.append(line)
    return markdown_table(pd.DataFrame(lines))
