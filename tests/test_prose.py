"""Numbers in the sentences of README and notebooks, held against the rows that they come from."""

import json
import re

import pandas as pd
import pytest

from replication import paper
from replication.evaluation.ablation import STUDIES
from replication.evaluation.rows import read_rows
from replication.files import NOTEBOOKS, REFERENCE, ROOT
from replication.model import DeepChain, SubNetwork, parameter_count
from replication.report.claims import patches_seen
from replication.report.tables import COMPETITORS

TABLE4 = {ev: scores["psnr"][0] for ev, scores in paper.TABLE4.items()}
TABLE3 = [
    paper.TABLE3[ev, "mprelu"]["psnr"][0] - paper.TABLE3[ev, "prelu"]["psnr"][0]
    for ev in (-1, -2, -3)
]


def says(name: str, *sentences: str) -> str:
    """The text of a notebook or document on one line; fails unless it holds the sentences."""
    path = NOTEBOOKS / f"{name}.ipynb"
    if path.is_file():
        cells = json.loads(path.read_text())["cells"]
        text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    else:
        text = (ROOT / name).read_text()
    text = re.sub(r"\s+", " ", text)
    for sentence in sentences:
        assert sentence in text, f"{name} does not say: {sentence}"
    return text


def means(table, metric):
    rows = read_rows(REFERENCE / "tables" / f"{table}.csv")
    return rows.pivot_table(index="dataset", columns="method", values=metric).loc[["hdrps", "empa"]]


def test_patches_and_receptive_field():
    per_image = ((912 - 64) // 10 + 1) * ((608 - 64) // 10 + 1)
    images = round(paper.PATCH_PAIRS / per_image)
    says("01_data", f"a 912×608 image gives {per_image:,}, so that is {images} images' worth")
    reach = 1 + 2 * sum(block[0].dilation[0] for block in SubNetwork("prelu").features)
    says(
        "02_model",
        f"= {reach}$",
        f"sees {reach + 2} pixels; tiles therefore overlap by {(reach + 1) // 2}.",
    )


def test_the_papers_numbers():
    says("02_model", f"{min(TABLE3):+.1f} to {max(TABLE3):+.1f} dB (Table 3)")
    says("05_mprelu_vs_prelu", f"by {min(TABLE3):.1f} to {max(TABLE3):.1f} dB")
    gain = paper.TABLE2["chain"]["psnr"][0] - paper.TABLE2["shallow"]["psnr"][0]
    says("04_chain_vs_shallow", f"by {gain:.1f} dB")
    harder = sum(TABLE4[ev] - TABLE4[-ev] for ev in (1, 2, 3)) / 3
    span = f"{min(TABLE4.values()):.0f} to {max(TABLE4.values()):.0f} dB"
    says("06_ldr_stacks", span, f"by {harder:.1f} dB on average")
    for metric, unit in (("psnr", " dB"), ("hdrvdp2_q", "")):
        mean = {name: scores[metric][0] for name, scores in paper.TABLE5.items()}
        gaps = [mean["deep_chain"] - mean[name] for name in COMPETITORS]
        digits = 1 if unit else 0
        says("07_hdr_comparison", f"by {min(gaps):.{digits}f} to {max(gaps):.{digits}f}{unit}")


@pytest.mark.parametrize(
    ("name", "study"), [("04_chain_vs_shallow", "table2"), ("05_mprelu_vs_prelu", "table3")]
)
def test_minutes_and_patches_of_the_studies(name, study):
    logs = pd.read_csv(REFERENCE / "ablations" / f"{study}_logs.csv")
    steps = logs.groupby(["method", "seed", "ev"])["patches"].diff().fillna(logs["patches"])
    training = (steps / logs["patches_per_s"]).sum() / 60 / 2  # two processes
    minutes = int(re.search(r"the reference study took (\d+) minutes on two", says(name)).group(1))
    assert training < minutes < 1.5 * training  # the rest is for scoring
    patches = logs.groupby("method")["patches"].max().min()
    says(name, f"ablate {study} --dataset hdrps --patches {patches} --jobs 2")
    says("results/REPORT.md", f"--patches {patches} --jobs 2 -o DIR` ({minutes} minutes")


def test_direct_networks_have_the_parameters_of_the_chain():
    kernels = STUDIES["table2"]["single_deep"].make().kernels
    one, three = (
        parameter_count(n) for n in (SubNetwork("prelu", kernels=kernels), DeepChain((1, 2, 3)))
    )
    assert abs(one / three - 1) < 0.05
    says("04_chain_vs_shallow", f"with {kernels} instead of 32 kernels per layer")


def test_leads_in_table_5():
    psnr, q = means("table5", "psnr"), means("table5", "hdrvdp2_q")
    off = [
        abs(f[m] - paper.TABLE5[m][k][0]).max()
        for f, k in ((psnr, "psnr"), (q, "hdrvdp2_q"))
        for m in COMPETITORS
    ]
    near = f"within {max(off[:3]):.1f} dB and {max(off[3:]):.1f} Q"
    true = psnr["true_response"]
    says(
        "07_hdr_comparison",
        near,
        f"the photo itself scores {true.min():.0f} to {true.max():.0f} dB.",
    )
    lead, better = (-f[list(COMPETITORS)].sub(f["deep_chain"], axis=0).stack() for f in (psnr, q))
    says(
        "07_hdr_comparison",
        f"by {lead.min():.0f} to {lead.max():.0f} dB. But",
        f"by {better.min():.0f} to {better.max():.0f}",
    )


def test_readme_says_how_much_the_weights_saw():
    seen = [patches_seen(ev) for ev in paper.EVS]
    share = f"{100 * min(seen) / paper.PATCHES:.1f} to {100 * max(seen) / paper.PATCHES:.1f} %"
    says(
        "README.md",
        f"saw {min(seen):,} to {max(seen):,} patches each, {share} of the paper's schedule",
    )
