"""Score the shipped weights and the baselines again and replace the reference rows and pictures.

For maintainers who have changed the weights, a baseline or a metric: `.venv/bin/python results/score.py`
(a few minutes on two cores; needs `fetch mini` and `fetch openstacks`). It resumes after a stop.
"""

from __future__ import annotations

import sys

import matplotlib as mpl

from replication import paper
from replication.data.stacks import ExposureStack, dataset_hash, load_stacks
from replication.evaluation import exposures, radiance
from replication.evaluation.rows import read_rows, summarise, write_rows
from replication.files import REFERENCE, RESULTS, write_json
from replication.hdr import reinhard
from replication.provenance import provenance, usable_cores
from replication.reconstruct import infer_stack, merge_stack
from replication.report import documents, figures
from replication.report.tables import DATASET_NAMES
from replication.weights import FAITHFUL

TABLES = REFERENCE / "tables"
FIGURE7_SCENE = "horseshoelake"
"""Scene of `empa` in the committed figures (CC BY 4.0, attributed in the report)."""


def score(everything: list[ExposureStack], test: list[ExposureStack]) -> None:
    """Write table1.csv, table4.csv, table5.csv, scaling.csv and provenance.json of the reference."""
    chain = exposures.deep_chain()
    methods = [
        exposures.identity(),
        exposures.tone_curves(),
        exposures.tone_curves(rounded=False),
        exposures.deep_chain(FAITHFUL, name="deep_chain_faithful"),
        chain,
    ]
    identity = exposures.exposure_rows(everything, methods[:1], table="table1")
    write_rows(TABLES / "table1.csv", identity)
    write_rows(TABLES / "table4.csv", exposures.exposure_rows(test, methods))

    photo, jobs = radiance.photo_methods(), usable_cores()
    faithful = radiance.chain_method(FAITHFUL, "deep_chain_faithful")
    methods = [*photo, faithful, *radiance.truth_methods()]
    folder = RESULTS / "runs" / "reference" / f"table5_{chain.weights_hash}"
    rows = radiance.comparison_rows(test, methods, folder=folder, jobs=jobs)
    write_rows(TABLES / "table5.csv", rows)
    write_rows(TABLES / "scaling.csv", radiance.scaling_rows(test, photo[1:], jobs=jobs))
    names = dict.fromkeys(stack.dataset for stack in everything)
    hashes = {name: dataset_hash([s for s in everything if s.dataset == name]) for name in names}
    facts = provenance(data_hashes=hashes, weights_hash=chain.weights_hash)
    write_json(REFERENCE / "provenance.json", facts)


def draw(stack: ExposureStack, second: ExposureStack) -> None:
    """Draw the figures with pictures; the pictures of both stacks may be published."""
    folder, images = REFERENCE / "figures", infer_stack(stack.images[0])
    overview = figures.overview_figure(images, reinhard.tone_map(merge_stack(images)))
    figures.save_figure(overview, folder / "overview.jpg", pictures=stack.dataset, dpi=200)
    for one in (stack, second):
        figure = figures.comparison_figure(*radiance.figure7(one))
        path = folder / f"figure7_{one.dataset}.jpg"
        figures.save_figure(figure, path, pictures=one.dataset)


def plot() -> None:
    """Draw the figures of README.md and REPORT.md that come from rows."""
    table5 = read_rows(TABLES / "table5.csv")
    summary = summarise(read_rows(TABLES / "table4.csv"), by=["dataset", "method", "ev"])
    for name, title in DATASET_NAMES.items():
        part = summary[summary["dataset"] == name]
        psnr = figures.psnr_figure(part, paper.TABLE4, title)
        figures.save_figure(psnr, REFERENCE / "figures" / f"table4_{name}.png")
        dots = figures.table5_figure(table5[table5["dataset"] == name], title)
        figures.save_figure(dots, REFERENCE / "figures" / f"table5_{name}.png")


def main() -> None:
    """Score, draw, plot, and regenerate README.md, REPORT.md and MODEL_CARD.md.

    With `--plots` only plot.
    """
    mpl.use("agg")
    if "--plots" not in sys.argv:
        everything = [*load_stacks("openstacks"), *load_stacks("mini")]
        test = [stack for stack in everything if stack.split == "test"]
        score(everything, test)
        mini = [stack for stack in test if stack.dataset == "mini"]
        draw(mini[8], next(stack for stack in test if stack.scene == FIGURE7_SCENE))
        documents.update_tables()
    plot()


if __name__ == "__main__":
    main()
