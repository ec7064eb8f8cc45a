"""The profile for the paper's own data, from training to report, on a small tree made for the test."""

import pytest

from replication import runs
from replication.__main__ import main
from replication.data.stacks import load_stacks
from replication.evaluation import rows as report
from tests.test_ablation import camera
from tests.test_cli import save

LAYOUTS = {"flat": "vds/{split}_set/{name}", "nested": "vds/{split}/set/{name}"}


UNTABLED = {"00_start_here", "02_model", "08_your_photo"}  # write no table; executed elsewhere


def tree(root, layout, train=4, test=2, side=176):
    """The authors' folders: scenes of a camera with gamma 2.2."""
    for number in range(1, train + test + 1):
        split = "train" if number <= train else "test"
        stack = camera(f"t{number:02d}", split, number, side)
        folder = root / LAYOUTS[layout].format(split=split, name=stack.scene)
        for ev, image in stack.images.items():
            save(folder / f"{stack.scene}_{ev}EV_true.jpg.png", image)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_both_layouts_have_the_same_scenes(tmp_path, monkeypatch, layout):
    monkeypatch.setenv("REPLICATION_DATA", str(tmp_path))
    tree(tmp_path, layout)
    assert [stack.scene for stack in load_stacks("vds", split="test")] == ["test-t05", "test-t06"]
    learnt = load_stacks("vds", split="train") + load_stacks("vds", split="val")
    assert sorted(stack.scene for stack in learnt) == [f"train-t0{n}" for n in (1, 2, 3, 4)]


def test_the_paper_profile_ends_in_a_report_with_the_papers_columns(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("REPLICATION_DATA", str(tmp_path))
    tree(tmp_path, "nested")
    out = tmp_path / "out"
    brief = ["patches=4", "scaling_scenes=1"]
    asked = [word for one in brief for word in ("-p", one)]
    tables = sorted({task.notebook for task in runs.plan(runs.load_profile("paper"))} - UNTABLED)
    arguments = ["run", *tables, "--profile", "paper", "--jobs", "2", "--output", str(out), *asked]
    assert main(arguments) == 0
    assert f"Tables beside the paper's: {out / 'REPORT.md'}" in capsys.readouterr().out
    text = (out / "REPORT.md").read_text()
    for table in "12345":
        assert f"## Table {table}" in text
    assert "| Deep Chain HDRI, this run |" in text
    rows = report.read_rows(out / "tables" / "table4.csv")
    assert set(rows["dataset"]) == {"vds"}
    assert set(rows["scene"]) == {"test-t05", "test-t06"}
    trained = rows[rows["method"] == "deep_chain"]["weights_hash"].unique()
    shipped = report.read_rows(report.REFERENCE / "tables" / "table4.csv")
    assert not set(trained) & set(shipped["weights_hash"])
