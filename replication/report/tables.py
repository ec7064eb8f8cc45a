"""The paper's tables from committed rows: the paper's numbers, ours, intervals, and a verdict in words.

Every function takes rows of :func:`replication.report.read_rows` or their summary.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import pandas as pd

from replication import paper
from replication.evaluation.rows import DECIMALS, METRIC_LABELS, number_text, score_text
from replication.evaluation.uncertainty import mean_interval, paired_differences, seed_interval

METHOD_NAMES = {
    "identity": "EV 0 unchanged",
    "linearised": "EV 0, linearised",
    "tone_curve_unrounded": "tone curve, unrounded",
    "tone_curve": "tone curve",
    "huo": "Huo [14]",
    "kovaleski_oliveira": "Kovaleski-Oliveira [19]",
    "masia": "Masia [24]",
    "expandnet": "ExpandNet",
    "deep_chain_faithful": "deep chain, paper's recipe",
    "deep_chain": "deep chain",
    "true_response": "EV 0, true response curve",
    "true_response_kovaleski_oliveira": "[19] on true response curve",
    "oracle_curve": "tone curve of the scene itself",
    "three_frames": "three real frames, EV -1 … +1",
    "truth_where_clipped": "tone curve, truth where clipped",
}
"""What a method is called in tables, baselines first, behind the chain what uses the truth."""

ABLATION_NAMES = {
    "tone_curve": "tone curve",
    "chain": "deep chain",
    "shallow": "shallow network [22]",
    "single_deep": "one network, the chain's parameters",
    "single": "one subnetwork",
    "mprelu": "MPReLU",
    "prelu": "PReLU",
    "relu": "ReLU",
    "leaky_relu": "leaky ReLU",
    "reference": "reference",
    "per_channel": "a channel at a time",
    "tv_0": "λ = 0",
    "tv_0.01": "λ = 0.01",
    "chained": "trained chained",
    "batch_1": "batch 1",
    "batch_32": "batch 32",
    "batch_statistics": "batch statistics throughout",
}
"""What a contender of :data:`replication.evaluation.ablation.STUDIES` is called in tables, in their order."""

USES_TRUTH = (
    "true_response",
    "true_response_kovaleski_oliveira",
    "oracle_curve",
    "three_frames",
    "truth_where_clipped",
)
"""Methods that no one has who has only a photo: where the room is."""

DATASET_NAMES = {
    "hdrps": "hdrps, 10 test scenes",
    "empa": "empa, 15 scenes of other cameras",
    "mini": "mini, 12 test views",
}
_EVS = (-3, -2, -1, 1, 2, 3)


def table4_frame(summary: pd.DataFrame, metric: str = "psnr") -> pd.DataFrame:
    """Table 4 with the exposures as columns: the paper first, then the methods, baselines first.

    Parameters
    ----------
    summary : DataFrame
        From :func:`summarise` by data set, method and EV; one data set.
    metric : {"psnr", "ssim", "ms_ssim"}

    Returns
    -------
    DataFrame
        Texts ``mean ± σ``; columns ``method`` and the EVs from -3 to +3.
    """
    digits = DECIMALS[metric]
    lines = [{"method": "paper, on its own data"}]
    lines[0] |= {f"EV {ev:+d}": score_text(paper.TABLE4[ev][metric], digits) for ev in _EVS}
    present = set(summary["method"])
    for method, name in METHOD_NAMES.items():
        if method in present:
            part = summary[summary["method"] == method].set_index("ev")
            scores = {
                ev: (part.at[ev, f"{metric}_mean"], part.at[ev, f"{metric}_sigma"]) for ev in _EVS
            }
            lines.append(
                {"method": name} | {f"EV {ev:+d}": score_text(scores[ev], digits) for ev in _EVS}
            )
    return pd.DataFrame(lines)


TEXT_WIDTH = 109
"""Characters of a line of text in a notebook: no screen has to be scrolled sideways."""


def as_text(shown: pd.DataFrame | str, width: int = TEXT_WIDTH, *, together: int = 1) -> str:
    """A table or sentences as plain text for a notebook or a terminal, no wider than a screen.

    Parameters
    ----------
    shown
        A table, whose first column names its lines; where it is too wide, the other columns continue
        in further blocks below. Or lines of text, which are wrapped and lose their Markdown stars.
    width
        Characters of a line.
    together
        Columns that belong together, counted from the second, are not separated.

    Returns
    -------
    str
    """
    if isinstance(shown, str):
        lines = shown.replace("**", "").splitlines()
        return "\n".join(textwrap.fill(line, width, subsequent_indent="  ") for line in lines)
    columns = [[str(text).strip() for text in (name, *shown[name])] for name in shown]
    widths = [max(map(len, column)) for column in columns]
    names = [text.ljust(widths[0]) for text in columns[0]]
    blocks, free = [], 0
    for start in range(1, len(columns), together):
        group = range(start, min(start + together, len(columns)))
        need = sum(widths[number] + 1 for number in group)
        if need > free:
            blocks.append(list(names))
            free = width - widths[0]
        free -= need
        for number in group:
            for line, text in enumerate(columns[number]):
                blocks[-1][line] += " " + text.rjust(widths[number])
    return "\n\n".join("\n".join(block) for block in blocks)


def table4_text(summary: pd.DataFrame, metric: str = "psnr") -> str:
    """Table 4 as plain text for a notebook, one table for each data set in `summary`."""
    return "\n\n".join(
        f"{METRIC_LABELS[metric]}, mean ± σ over {DATASET_NAMES.get(name, name)}\n"
        + as_text(table4_frame(part, metric))
        for name, part in by_dataset(summary)
    )


def table5_frame(rows: pd.DataFrame) -> pd.DataFrame:
    """Table 5: tone-mapped PSNR and HDR-VDP-2's Q, the paper's and ours, with 95 % intervals.

    Parameters
    ----------
    rows : DataFrame
        Per-image rows of one data set, from :func:`read_rows`.

    Returns
    -------
    DataFrame
        Texts; a line per method, baselines first, and per metric the paper's ``mean ± σ``, ours,
        and the bootstrap interval of our mean.
    """
    lines = []
    for method, part in _by_method(rows):
        line = {"method": METHOD_NAMES[method]}
        theirs = paper.TABLE5.get(method, {})
        for metric in ("psnr", "hdrvdp2_q"):
            name, values = METRIC_LABELS[metric], part[metric]
            line[f"{name}, paper"] = score_text(theirs.get(metric), DECIMALS[metric])
            own = (float(values.mean()), float(values.std(ddof=1)))
            line[f"{name}, ours"] = score_text(own, DECIMALS[metric])
            line["95 % interval" if metric == "psnr" else "95 % interval "] = _interval(
                *mean_interval(values), DECIMALS[metric]
            )
        lines.append(line)
    return pd.DataFrame(lines)


def table5_text(rows: pd.DataFrame) -> str:
    """Table 5 as plain text for a notebook or a terminal, one table for each data set."""
    return "\n\n".join(
        f"{DATASET_NAMES.get(name, name)}, mean ± σ\n" + as_text(table5_frame(part), together=3)
        for name, part in by_dataset(rows)
    )


def table5_detail(rows: pd.DataFrame) -> pd.DataFrame:
    """What Table 5 does not have: PU21, Q_MOS, and the log luminance error by what EV 0 clips.

    Parameters
    ----------
    rows : DataFrame
        As in :func:`table5_frame`.

    Returns
    -------
    DataFrame
        Texts; means over the images, an error over those that have such pixels.
    """
    metrics = [m for m in METRIC_LABELS if m in rows.columns and m not in ("psnr", "hdrvdp2_q")]
    return pd.DataFrame(
        {"method": METHOD_NAMES[method]}
        | {METRIC_LABELS[m]: number_text(part[m].mean(), DECIMALS[m]) for m in metrics}
        for method, part in _by_method(rows)
    )


def paired_frame(rows: pd.DataFrame, method: str = "deep_chain") -> pd.DataFrame:
    """The chain against each method, image by image, in the measures that belong together.

    Parameters
    ----------
    rows : DataFrame
        As in :func:`table5_frame`.
    method : str
        Whose values the differences are of.

    Returns
    -------
    DataFrame
        Texts: mean difference, its 95 % interval, and Holm's p of Wilcoxon's test, per metric.
    """
    names = {
        "psnr": "PSNR (dB)",
        "hdrvdp2_q": "VDP-Quality",
        "log_rmse_clipped": "log error, clipped",
    }
    lines: dict[str, dict[str, str]] = {}
    for metric, name in names.items():
        table = paired_differences(rows, metric, method).set_index("against")
        for other in (key for key, _ in _by_method(rows) if key != method):
            one, digits = table.loc[other], DECIMALS[metric]
            text = f"{one['difference']:+.{digits}f} {_interval(one['low'], one['high'], digits)}"
            line = lines.setdefault(other, {f"{METHOD_NAMES[method]} minus": METHOD_NAMES[other]})
            line[name] = text
            line[f"p{' ' * (len(line) // 2 - 1)}"] = _p_value(one["p_holm"])
    return pd.DataFrame(lines.values())


def _by_method(rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    parts = dict(list(rows.groupby("method")))
    return [(name, parts[name]) for name in METHOD_NAMES if name in parts]


def _interval(low: float, high: float, digits: int) -> str:
    return f"[{number_text(low, digits)}, {number_text(high, digits)}]"


def _p_value(p: float) -> str:
    return "–" if pd.isna(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def scaling_frame(rows: pd.DataFrame, metric: str = "hdrvdp2_q") -> pd.DataFrame:
    """How much the scaling moves a score: mean over images, a line per scaling.

    Parameters
    ----------
    rows : DataFrame
        From :func:`replication.evaluation.radiance.scaling_rows`, one data set.
    metric : {"hdrvdp2_q", "pu21_psnr"}

    Returns
    -------
    DataFrame
        Texts; the protocol's scaling first, a column per method.
    """
    means = rows.pivot_table(index="scaling", columns="method", values=metric, sort=False)
    own = [name for name in means.index if name == PROTOCOL_SCALING]
    order = [*own, *(name for name in means.index if name not in own)]
    digits = DECIMALS[metric]
    return pd.DataFrame(
        {"scaling of test and truth": name + (" (ours)" if name in own else "")}
        | {
            METHOD_NAMES[method]: number_text(means.at[name, method], digits)
            for method in METHOD_NAMES
            if method in means.columns
        }
        for name in order
    )


def ablation_frame(rows: pd.DataFrame, metric: str = "psnr") -> pd.DataFrame:
    """Scores of an ablation: a line per contender, baseline first, columns per EV.

    Parameters
    ----------
    rows : DataFrame
        From :func:`replication.evaluation.ablation.run_study`, one study and data set.
    metric : {"psnr", "ssim", "ms_ssim"}

    Returns
    -------
    DataFrame
        Texts: per EV the paper's mean ± σ where it has one; ours over the images (of each image's mean
        over the seeds, as the paper's σ is over images); the means of the seeds, lowest to highest.
    """
    digits, lines = DECIMALS[metric], []
    evs = sorted(rows["ev"].unique(), key=abs)
    theirs = {ev: _paper_ablation(rows["table"].iloc[0], ev) for ev in evs}
    for method in (name for name in ABLATION_NAMES if name in set(rows["method"])):
        line = {"contender": ABLATION_NAMES[method]}
        for ev in evs:
            part = rows[(rows["method"] == method) & (rows["ev"] == ev)]
            image = part.groupby("scene")[metric].mean()
            seeds = part.groupby("seed")[metric].mean()
            if theirs[ev]:
                line[f"EV {ev:+d}, paper"] = score_text(
                    theirs[ev].get(method, {}).get(metric), digits
                )
            line[f"EV {ev:+d}"] = score_text((image.mean(), image.std(ddof=1)), digits)
            span = f"{number_text(seeds.min(), digits)} … {number_text(seeds.max(), digits)}"
            line[f"EV {ev:+d}, seeds"] = "–" if len(seeds) == 1 else span
        lines.append(line)
    return pd.DataFrame(lines)


def _paper_ablation(table: str, ev: int) -> dict[str, Mapping[str, tuple[float, float]]]:
    """The paper's Table 2 or 3 at one EV, by contender."""
    if table == "table2" and ev == 3:
        return dict(paper.TABLE2)
    if table == "table3":
        return {name: scores for (one, name), scores in paper.TABLE3.items() if one == ev}
    return {}


def ablation_differences(
    rows: pd.DataFrame, method: str, metric: str = "psnr", others: Sequence[str] | None = None
) -> pd.DataFrame:
    """A contender of an ablation against the others, paired by image and by seed.

    Parameters
    ----------
    rows : DataFrame
        As in :func:`ablation_frame`.
    method : str
        Whose values the differences are of.
    metric : {"psnr", "ssim", "ms_ssim"}
    others : sequence of str, optional
        All by default.

    Returns
    -------
    DataFrame
        Per EV and other contender: ``ev``, ``against``; ``difference``, mean over images and seeds;
        ``low``, ``high``, its 95 % interval over images (:func:`replication.evaluation.uncertainty.mean_interval`);
        ``seed_low``, ``seed_high``, the lowest and highest difference of one seed (against the
        baseline: of its one value), and ``t_low``, ``t_high``, Student's 95 % interval of their mean
        (NaN for one seed); ``wins`` of ``n`` images; ``p_holm`` of Wilcoxon's test over images,
        adjusted over the others.
    """
    found = []
    for ev in sorted(rows["ev"].unique(), key=abs):
        part = rows[rows["ev"] == ev]
        if others is not None:
            part = part[part["method"].isin([method, *others])]
        images = part.groupby(["scene", "method"], as_index=False)[metric].mean()
        table = paired_differences(images, metric, method)
        seeds = part.groupby(["method", "seed"])[metric].mean()
        own = seeds[method]
        for line in table.to_dict("records"):
            other = seeds[line["against"]]
            spread = own - (other.iloc[0] if len(other) == 1 else other)
            t_low, t_high = seed_interval(spread.to_numpy())
            span = {"seed_low": spread.min(), "seed_high": spread.max()}
            found.append({"ev": ev} | line | span | {"t_low": t_low, "t_high": t_high})
    return pd.DataFrame(found)


def difference_frame(differences: pd.DataFrame, metric: str = "psnr") -> pd.DataFrame:
    """Differences of an ablation as texts, a line per contender and three columns per EV.

    Parameters
    ----------
    differences : DataFrame
        From :func:`ablation_differences`.
    metric : str
        What they are differences of.
    """
    digits = DECIMALS[metric]
    lines: dict[str, dict[str, str]] = {}
    for one in differences.to_dict("records"):
        line = lines.setdefault(one["against"], {"against": ABLATION_NAMES[one["against"]]})
        interval = _interval(one["low"], one["high"], digits)
        line[f"EV {one['ev']:+d}"] = f"{one['difference']:+.{digits}f} {interval}"
        span = f"{one['seed_low']:+.{digits}f} … {one['seed_high']:+.{digits}f}"
        line[f"EV {one['ev']:+d}, seeds"] = span
        line[f"EV {one['ev']:+d}, images won"] = f"{one['wins']} of {one['n']}"
    return pd.DataFrame([lines[name] for name in ABLATION_NAMES if name in lines])


def ablation_verdict(rows: pd.DataFrame, method: str, other: str) -> str:
    """What an ablation says of one claim, in words made from the numbers, a line per EV.

    A difference counts where neither its interval over images nor the one over seeds holds zero.

    Parameters
    ----------
    rows : DataFrame
        As in :func:`ablation_frame`.
    method, other : str
        The claim is that `method` is better than `other`.
    """
    lines = []
    for one in ablation_differences(rows, method, others=[other]).to_dict("records"):
        theirs = _paper_ablation(rows["table"].iloc[0], one["ev"])
        claimed = None
        if {method, other} <= theirs.keys():
            claimed = theirs[method]["psnr"][0] - theirs[other]["psnr"][0]
        if pd.isna(one["t_low"]):
            size = "one seed, no verdict"
        elif min(one["low"], one["t_low"]) > 0:
            size = (
                "holds" if not claimed or one["difference"] >= claimed / 2 else "holds in direction"
            )
        elif max(one["high"], one["t_high"]) < 0:
            size = "does not hold, the other is better"
        else:
            size = "does not hold, no difference beyond that of images and seeds"
        over = f"over images {_interval(one['low'], one['high'], 2)}"
        if not pd.isna(one["t_low"]):
            over += f", over seeds {_interval(one['t_low'], one['t_high'], 2)}"
        theirs_text = "" if claimed is None else f"; paper {claimed:+.2f} dB"
        lines.append(
            f"EV {one['ev']:+d}: {ABLATION_NAMES[method]} minus {ABLATION_NAMES[other]} "
            f"{one['difference']:+.2f} dB, {over}{theirs_text}: **{size}**."
        )
    return "\n".join(lines)


def alpha_frame(activations: pd.DataFrame) -> pd.DataFrame:
    """Learnt α of the activations (Eq. 5): a line per contender and EV, a column per block.

    Parameters
    ----------
    activations : DataFrame
        ``STUDY_activations.csv`` of :func:`replication.evaluation.ablation.run_study`.

    Returns
    -------
    DataFrame
        Floats; means over the seeds.
    """
    named = activations[activations["alpha"].notna()]
    learnt = named[named["method"].isin(["mprelu", "prelu"])]
    table = learnt.pivot_table(index=["method", "ev"], columns="block", values="alpha", sort=False)
    table = table.rename(columns=lambda name: name.replace("features.", "f")).reset_index()
    return _named(table)


def residual_frame(activations: pd.DataFrame) -> pd.DataFrame:
    """How networks make negative residuals (Section 5.2): a line per contender and EV, in %.

    Parameters
    ----------
    activations : DataFrame
        As in :func:`alpha_frame`.

    Returns
    -------
    DataFrame
        Floats, means over the seeds: share of the activations' inputs below zero; share of the
        residual below zero; part of r4's negative contributions that comes from negative features.
    """
    by = ["method", "ev"]
    inner = activations[activations["alpha"].notna()].groupby(by, sort=False)["negative"].mean()
    last = activations[activations["block"] == "r4"].groupby(by, sort=False)
    means = 100 * last[["negative", "negative_features"]].mean()
    table = pd.DataFrame(
        {
            "inputs of activations < 0 (%)": 100 * inner,
            "residual < 0 (%)": means["negative"],
            "from negative features (%)": means["negative_features"],
        }
    )
    return _named(table.loc[means.index].reset_index())


def _named(table: pd.DataFrame) -> pd.DataFrame:
    """Contenders by the names that tables have, EVs as texts."""
    order = {name: number for number, name in enumerate(ABLATION_NAMES)}
    table = table.sort_values(
        ["method", "ev"], key=lambda c: c.map(order) if c.name == "method" else -c, kind="stable"
    )
    table["method"] = table["method"].map(ABLATION_NAMES)
    table["ev"] = [f"{ev:+d}" for ev in table["ev"]]
    return table.rename(columns={"method": "contender", "ev": "EV"}).reset_index(drop=True)


def comparison_verdict(rows: pd.DataFrame) -> str:
    """Table 5 in words made from the numbers, a line per data set.

    Parameters
    ----------
    rows : DataFrame
        Per-image rows of one or more data sets, without EVs.
    """
    lines = []
    for name, part in by_dataset(rows):
        means = part.groupby("method")[["psnr", "hdrvdp2_q", "log_rmse_clipped"]].mean()
        chain, curve = means.loc["deep_chain"], means.loc["tone_curve"]
        mappers = means.loc[list(paper.TABLE5.keys() & set(means.index) - {"deep_chain"})]
        beaten = [m for m in mappers.index if (chain > mappers.loc[m])[["psnr", "hdrvdp2_q"]].all()]
        test = paired_differences(part, "hdrvdp2_q", "deep_chain").set_index("against")
        sure = "" if test.at["tone_curve", "p_holm"] < 0.05 else " (not significant)"
        lines.append(
            f"{name}: the chain beats {len(beaten)} of the {len(mappers)} inverse tone mappers in "
            f"both measures, the best of them by {chain['psnr'] - mappers['psnr'].max():+.1f} dB and "
            f"{chain['hdrvdp2_q'] - mappers['hdrvdp2_q'].max():+.1f} Q; against the tone curve it has "
            f"{chain['psnr'] - curve['psnr']:+.1f} dB, {chain['hdrvdp2_q'] - curve['hdrvdp2_q']:+.1f} Q"
            f"{sure} and a log error where EV 0 clips of {chain['log_rmse_clipped']:.3f} instead of "
            f"{curve['log_rmse_clipped']:.3f}."
        )
    return "\n".join(lines)


PROTOCOL_SCALING = "mean where unclipped, truth 1000 cd/m2"
"""Key of the protocol's own scaling in :func:`scaling_frame`."""


def by_dataset(summary: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Parts of a summary by data set, in the order of ``DATASET_NAMES``, others behind."""
    parts = dict(list(summary.groupby("dataset")))
    order = [*DATASET_NAMES, *parts]
    return [(name, parts[name]) for name in dict.fromkeys(order) if name in parts]


def chain_verdict(summary: pd.DataFrame) -> str:
    """Where the chain beats the tone curve, by data set, in words made from the numbers.

    Parameters
    ----------
    summary : DataFrame
        From :func:`summarise` by data set, method and EV.
    """
    sentences = []
    for name, part in by_dataset(summary):
        means = part.pivot_table(index="ev", columns="method", values="psnr_mean")
        gain = means["deep_chain"] - means["tone_curve"]
        better = [f"{ev:+d}" for ev in _EVS if gain[ev] > 0]
        where = f"at EV {', '.join(better)}" if better else "at no exposure"
        sentences.append(
            f"{name}: the chain beats the tone curve {where}; "
            f"gain {gain.min():+.1f} to {gain.max():+.1f} dB, mean {gain.mean():+.1f} dB."
        )
    return "\n".join(sentences)
