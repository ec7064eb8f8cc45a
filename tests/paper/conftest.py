"""What the tests of the paper's elements share: printed numbers, committed rows, scenes, figures."""

import numpy as np
import pandas as pd
import pytest

from replication.data.stacks import load_stacks
from replication.evaluation.rows import read_rows
from replication.files import REFERENCE, RESULTS, data_root


@pytest.fixture(scope="session")
def mini():
    if not any((data_root() / "mini").glob("*/ev+0.png")):
        pytest.skip("data set mini is not here; `python -m replication fetch mini` brings it")
    return load_stacks("mini", "test")


def committed(name: str) -> pd.DataFrame:
    return read_rows(REFERENCE / f"{name}.csv")


def assert_as_committed(rows, name: str, **tolerances: float) -> None:
    """Rows made now equal the committed ones of the same picture; metric -> absolute tolerance."""
    keys = [key for key in ("dataset", "scene", "method", "ev", "data_hash") if key in rows[0]]
    both = pd.DataFrame(rows).merge(committed(name), on=keys, suffixes=("", "_then"))
    assert len(both) == len(rows)
    for metric, tolerance in tolerances.items():
        assert both[metric].tolist() == pytest.approx(both[f"{metric}_then"], abs=tolerance), metric


def assert_printed(lines, table, metrics=("psnr", "ssim", "ms_ssim")) -> None:
    """Printed lines, means and σ in turn, are those of replication.paper and stand in the report."""
    report = (RESULTS / "REPORT.md").read_text("utf-8")
    for key, scores in table.items():
        pairs = list(zip(lines[key].split()[::2], lines[key].split()[1::2], strict=True))
        assert [scores[metric] for metric in metrics] == [tuple(map(float, p)) for p in pairs]
        assert all(f"| {mean} ± {sigma} |" in report for mean, sigma in pairs), key


def drawn(figure) -> list[str]:
    """Draw a figure, which must not be blank; give its texts, with hyphens for minus signs."""
    figure.canvas.draw()
    assert np.ptp(np.asarray(figure.canvas.buffer_rgba())[..., :3]) > 100
    texts = [text.get_text() for axes in figure.axes for text in (*axes.texts, axes.title)]
    return [text.replace("\N{MINUS SIGN}", "-") for text in texts]
