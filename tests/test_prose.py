"""Numbers in the sentences of README and notebooks, held against the rows that they come from."""

import json
import re

from replication import paper
from replication.evaluation.rows import read_rows
from replication.files import NOTEBOOKS, REFERENCE, ROOT
from replication.report.claims import patches_seen
from replication.report.tables import COMPETITORS

TABLE4 = {ev: scores["psnr"][0] for ev, scores in paper.TABLE4.items()}
PSNR3 = {key: scores["psnr"][0] for key, scores in paper.TABLE3.items()}
TABLE3 = [PSNR3[ev, "mprelu"] - PSNR3[ev, "prelu"] for ev in (-1, -2, -3)]


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


def test_leads_in_table_5():
    psnr, q = means("table5", "psnr"), means("table5", "hdrvdp2_q")
    off = [
        max(abs(frame[m] - paper.TABLE5[m][metric][0]).max() for m in COMPETITORS)
        for frame, metric in ((psnr, "psnr"), (q, "hdrvdp2_q"))
    ]
    true, name = psnr["true_response"], "07_hdr_comparison"
    says(name, f"within {off[0]:.1f} dB and {off[1]:.1f} Q")
    says(name, f"the photo itself scores {true.min():.0f} to {true.max():.0f} dB.")
    lead, better = (-f[list(COMPETITORS)].sub(f["deep_chain"], axis=0).stack() for f in (psnr, q))
    says(name, f"by {lead.min():.0f} to {lead.max():.0f} dB. But")
    says(name, f"by {better.min():.0f} to {better.max():.0f}")


def test_readme_says_how_much_the_weights_saw():
    seen = [patches_seen(ev) for ev in paper.EVS]
    share = f"{100 * min(seen) / paper.PATCHES:.1f} to {100 * max(seen) / paper.PATCHES:.1f} %"
    says("README.md", f"saw {min(seen):,} to {max(seen):,} patches each, {share} of the paper's")
