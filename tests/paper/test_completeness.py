"""Nothing of the paper is missing: equations, tables, figures, constants of replication.paper."""

import re
from pathlib import Path

import numpy as np
import pytest

from replication import paper
from replication.data.patches import PatchSet
from replication.files import NOTEBOOKS, PACKAGE
from replication.train import Recipe

ELEMENTS = {(k, n) for k in ("eq", "table", "figure") for n in range(1, 8 if k == "figure" else 6)}


def texts(folder: Path, pattern: str) -> str:
    return "\n".join(path.read_text("utf-8") for path in folder.rglob(pattern))


def named(text: str) -> set[tuple[str, int]]:
    """Elements that a text names, such as "Eq. 3-4", "Figs. 3-4", "Figures 1 and 2", "Table 5"."""
    pattern = r"\b(Eq|Table|Fig)(?:ure)?s?\.? (\d)(?:(?:[-–]| and )(\d))?"
    spans = [(k.lower(), int(a), int(b or a)) for k, a, b in re.findall(pattern, text)]
    return {("figure" if k == "fig" else k, n) for k, a, b in spans for n in range(a, b + 1)}


def test_every_element_has_a_test_a_notebook_and_a_line_in_the_list_of_notebooks():
    tests = {path.stem for path in Path(__file__).parent.glob("test_*_?.py")}
    assert tests == {f"test_{kind}_{number}" for kind, number in ELEMENTS}
    assert named(texts(NOTEBOOKS, "0*.ipynb")) >= ELEMENTS
    assert named(texts(NOTEBOOKS, "README.md")) == ELEMENTS


def test_every_constant_of_the_paper_is_used():
    places = (PACKAGE, "*.py"), (Path(__file__).parents[1], "*.py"), (NOTEBOOKS, "0*.ipynb")
    text = "\n".join(texts(*place) for place in places)
    pattern = r"from replication\.paper import (\([^)]*\)|.*)|(?<![.\w])paper\.(\w+)"
    used = set(re.findall(r"\w+", " ".join(map(" ".join, re.findall(pattern, text)))))
    assert {name for name in vars(paper) if name.isupper()} <= used


def test_the_papers_own_numbers_fit_together():
    training, _, test = (paper.SCENES * part / sum(paper.SPLIT) for part in paper.SPLIT)
    assert test == paper.TEST_SCENES == 48
    pairs = training * len(PatchSet([{0: np.zeros((*reversed(paper.IMAGE_SIZE), 3), np.uint8)}], [0]))
    assert pairs == pytest.approx(paper.PATCH_PAIRS, rel=0.15)  # "about 180,000"
    assert paper.EPOCHS * paper.PATCH_PAIRS == paper.PATCHES == Recipe().patches
    assert f"{6 * paper.HOURS_PER_SUBNETWORK} GPU hours" in texts(NOTEBOOKS, "DEVIATIONS.md")
