"""Numbers in the sentences of README and notebooks, held against the rows that they come from."""

import json
import re

from replication import paper
from replication.evaluation.rows import read_rows
from replication.files import NOTEBOOKS, REFERENCE, ROOT
from replication.report.claims import patches_seen
from replication.report.tables import COMPETITORS


def says(name: str, *sentences: str) -> None:
    """Fail unless a notebook or document holds the sentences."""
    path = NOTEBOOKS / f"{name}.ipynb"
    if path.is_file():
        cells = json.loads(path.read_text())["cells"]
        text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    else:
        text = (ROOT / name).read_text()
    text = re.sub(r"\s+", " ", text)
    assert not [sentence for sentence in sentences if sentence not in text], name


def test_the_papers_numbers():
    psnr3 = {key: scores["psnr"][0] for key, scores in paper.TABLE3.items()}
    gains = [psnr3[ev, "mprelu"] - psnr3[ev, "prelu"] for ev in (-1, -2, -3)]
    says("02_model", f"{min(gains):+.1f} to {max(gains):+.1f} dB (Table 3)")
    says("05_mprelu_vs_prelu", f"by {min(gains):.1f} to {max(gains):.1f} dB")
    gain = paper.TABLE2["chain"]["psnr"][0] - paper.TABLE2["shallow"]["psnr"][0]
    says("04_chain_vs_shallow", f"by {gain:.1f} dB")
    psnr4 = {ev: scores["psnr"][0] for ev, scores in paper.TABLE4.items()}
    harder = sum(psnr4[ev] - psnr4[-ev] for ev in (1, 2, 3)) / 3
    span = f"{min(psnr4.values()):.0f} to {max(psnr4.values()):.0f} dB"
    says("06_ldr_stacks", span, f"by {harder:.1f} dB on average")
    for metric, form, unit in (("psnr", ".1f", " dB"), ("hdrvdp2_q", ".0f", "")):
        mean = {name: scores[metric][0] for name, scores in paper.TABLE5.items()}
        gaps = [mean["deep_chain"] - mean[name] for name in COMPETITORS]
        says("07_hdr_comparison", f"by {min(gaps):{form}} to {max(gaps):{form}}{unit}")


def test_leads_in_table_5():
    rows = read_rows(REFERENCE / "tables" / "table5.csv").query("dataset != 'mini'")
    ours, off, lead = rows.groupby(["dataset", "method"])[["psnr", "hdrvdp2_q"]].mean(), [], []
    for metric in ours:
        means = ours[metric].unstack()
        theirs = {name: paper.TABLE5[name][metric][0] for name in COMPETITORS}
        off.append(abs(means[[*theirs]] - theirs).max(axis=None))
        gaps = -means[[*theirs]].sub(means["deep_chain"], axis=0)
        lead.append(f"by {gaps.min(axis=None):.0f} to {gaps.max(axis=None):.0f}")
    true = ours["psnr"].xs("true_response", level="method")
    itself = f"the photo itself scores {true.min():.0f} to {true.max():.0f} dB."
    near = f"within {off[0]:.1f} dB and {off[1]:.1f} Q"
    says("07_hdr_comparison", near, itself, f"{lead[0]} dB. But", lead[1])


def test_readme_says_how_much_the_weights_saw():
    seen = [patches_seen(ev) for ev in paper.EVS]
    share = f"{100 * min(seen) / paper.PATCHES:.1f} to {100 * max(seen) / paper.PATCHES:.1f} %"
    says("README.md", f"saw {min(seen):,} to {max(seen):,} patches each, {share} of the paper's")
