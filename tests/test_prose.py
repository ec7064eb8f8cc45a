"""Numbers in the sentences of README and notebooks, held against the rows that they come from."""

import json
import re

import pandas as pd
import pytest
from torch import nn

from replication import paper
from replication.evaluation import rows as report
from replication.evaluation.ablation import STUDIES
from replication.files import NOTEBOOKS, ROOT
from replication.model import DeepChain, SubNetwork, parameter_count
from replication.reconstruct import load_chain
from replication.report import tables

TABLES = report.REFERENCE / "tables"
COMPETITORS = ["huo", "kovaleski_oliveira", "masia"]


def prose(name: str) -> str:
    """The text of a notebook or document on one line."""
    path = NOTEBOOKS / f"{name}.ipynb"
    if path.is_file():
        cells = json.loads(path.read_text())["cells"]
        text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    else:
        text = (ROOT / name).read_text()
    return re.sub(r"\s+", " ", text)


def means(table: str, *metrics: str) -> pd.DataFrame:
    rows = report.read_rows(TABLES / f"{table}.csv")
    keys = [key for key in ("dataset", "method", "ev") if key in rows]
    return rows.groupby(keys)[list(metrics)].mean()


def says(name: str, *sentences: str) -> None:
    text = prose(name)
    for sentence in sentences:
        assert sentence in text, f"{name} does not say: {sentence}"


def test_01_patches_and_table_1():
    per_image = ((912 - 64) // 10 + 1) * ((608 - 64) // 10 + 1)
    images = round(paper.PATCH_PAIRS / per_image)
    says("01_data", f"a 912×608 image gives {per_image:,}, so that is {images} images' worth")
    one = paper.TABLE1
    says("01_data", f"{one[1]:.1f} → {one[3]:.1f} dB brighter, {one[-1]:.1f} → {one[-3]:.1f} dB")
    ours = means("table1", "psnr")["psnr"].unstack("ev")[list(one)]
    assert 1 < (ours - pd.Series(one)).abs().max(axis=None) < 2
    says("01_data", "as large as the paper's to within two dB")


def test_02_is_told_by_the_model():
    modules = SubNetwork("prelu").features.modules()
    convolutions = [module for module in modules if isinstance(module, nn.Conv2d)]
    reach = 1 + 2 * sum(conv.dilation[0] for conv in convolutions)
    says("02_model", f"= {reach}$", f"**holds**: {reach}, measured")
    says("02_model", f"sees {reach + 2} pixels; tiles therefore overlap by {(reach + 1) // 2}.")
    gains = [
        paper.TABLE3[ev, "mprelu"]["psnr"][0] - paper.TABLE3[ev, "prelu"]["psnr"][0]
        for ev in (-1, -2, -3)
    ]
    says("02_model", f"{min(gains):+.1f} to {max(gains):+.1f} dB (Table 3)")
    says("05_mprelu_vs_prelu", f"by {min(gains):.1f} to {max(gains):.1f} dB")


def test_03_small_batches_win():
    rows = report.read_rows(report.REFERENCE / "ablations" / "sensitivity.csv")
    scores = rows.pivot_table(index="method", columns="ev", values="psnr")
    trained = scores.drop(index="tone_curve")
    assert (trained.idxmax() == "batch_1").all()
    assert (trained.loc["batch_32"] < trained.loc["reference"]).all()
    says("03_train_ev", "small batches win, the paper's batch of 1 above all.")
    pairs = tables.ablation_differences(rows, "reference").set_index("against")
    for variant in ("per_channel", "tv_0"):
        part = pairs.loc[[variant]]
        assert ((part["t_low"] < 0) & (part["t_high"] > 0)).all()
    says("03_train_ev", "RGB or a channel at a time, λ = 0 or the paper's: no difference beyond")


@pytest.mark.parametrize(
    ("name", "study"), [("04_chain_vs_shallow", "table2"), ("05_mprelu_vs_prelu", "table3")]
)
def test_04_and_05_tell_the_studies_minutes_and_patches(name, study):
    logs = pd.read_csv(report.REFERENCE / "ablations" / f"{study}_logs.csv")
    steps = logs.groupby(["method", "seed", "ev"])["patches"].diff().fillna(logs["patches"])
    training = (steps / logs["patches_per_s"]).sum() / 60 / 2  # two processes
    told = int(re.search(r"the reference study took (\d+) minutes on two", prose(name)).group(1))
    assert training < told < 1.5 * training  # the rest is for scoring
    per_link = logs.groupby("method")["patches"].max().min()  # a direct network sees a chain's sum
    says(name, f"ablate {study} --dataset hdrps --patches {per_link} --jobs 2")
    report_text = prose("results/REPORT.md")
    assert f"--patches {per_link} --jobs 2 -o DIR` ({told} minutes" in report_text


def test_04_shallow_and_single_networks():
    two = paper.TABLE2
    gain = two["chain"]["psnr"][0] - two["shallow"]["psnr"][0]
    says("04_chain_vs_shallow", f"by {gain:.1f} dB")
    kernels = STUDIES["table2"]["single_deep"].make().kernels
    arm = parameter_count(DeepChain((1, 2, 3)))
    assert abs(parameter_count(SubNetwork("prelu", kernels=kernels)) / arm - 1) < 0.05
    says("04_chain_vs_shallow", f"with {kernels} instead of 32 kernels per layer")


def test_06_stacks():
    four = {ev: paper.TABLE4[ev]["psnr"][0] for ev in paper.TABLE4}
    says("06_ldr_stacks", f"{min(four.values()):.0f} to {max(four.values()):.0f} dB")
    harder = sum(four[ev] - four[-ev] for ev in (1, 2, 3)) / 3
    says("06_ldr_stacks", f"by {harder:.1f} dB on average")
    ours = means("table4", "psnr")["psnr"].unstack("method")
    assert (ours["deep_chain"] - ours["tone_curve"]).max() < 2
    says("06_ldr_stacks", "a look-up table comes within a decibel or two everywhere")


def test_07_differences():
    both = means("table5", "psnr", "hdrvdp2_q").loc[["hdrps", "empa"]]
    psnr, q = (both[metric].unstack("dataset") for metric in ("psnr", "hdrvdp2_q"))
    off = [
        max((frame.loc[name] - paper.TABLE5[name][metric][0]).abs().max() for name in COMPETITORS)
        for frame, metric in ((psnr, "psnr"), (q, "hdrvdp2_q"))
    ]
    says(
        "07_hdr_comparison", f"where the paper has them, within {off[0]:.1f} dB and {off[1]:.1f} Q"
    )
    with_curve = psnr.loc["true_response"]
    says(
        "07_hdr_comparison",
        f"the photo itself scores {with_curve.min():.0f} to {with_curve.max():.0f} dB.",
    )
    ahead, better = (frame.loc["deep_chain"] - frame.loc[COMPETITORS] for frame in (psnr, q))
    says(
        "07_hdr_comparison",
        f"by {ahead.min(axis=None):.0f} to {ahead.max(axis=None):.0f} dB. But",
        f"**holds in direction**: by {better.min(axis=None):.0f} to {better.max(axis=None):.0f}.",
    )
    claimed = {
        metric: [
            paper.TABLE5["deep_chain"][metric][0] - paper.TABLE5[name][metric][0]
            for name in COMPETITORS
        ]
        for metric in ("psnr", "hdrvdp2_q")
    }
    says(
        "07_hdr_comparison",
        f"by {min(claimed['psnr']):.1f} to {max(claimed['psnr']):.1f} dB",
        f"by {min(claimed['hdrvdp2_q']):.0f} to {max(claimed['hdrvdp2_q']):.0f} |",
    )
    loss = means("table5", "drim_loss")["drim_loss"].unstack("method").loc[["hdrps", "empa"]]
    assert 0.05 < loss["huo"].mean() / 100 < 0.15
    says("07_hdr_comparison", "Huo, which loses visible contrast on a tenth of the picture")


def test_readme_tells_how_much_the_weights_saw():
    card = (report.REFERENCE / "MODEL_CARD.md").read_text()
    table = card.split("<!-- training:start -->")[1].split("<!-- training:end -->")[0]
    rows = re.findall(r"^\| [+-]\d \|.*$", table, re.MULTILINE)
    seen = [int(row.split("|")[10].replace(",", "")) for row in rows]
    assert len(seen) == len(load_chain().metadata) == 6
    schedule = 100 * paper.PATCH_PAIRS
    share = f"{100 * min(seen) / schedule:.1f} to {100 * max(seen) / schedule:.1f} %"
    says(
        "README.md",
        f"saw {min(seen):,} to {max(seen):,} patches each, {share} of the paper's schedule",
    )
