"""The strict gate: every notebook is executed anew; what it wrote is compared with independent truth."""

import base64
import importlib.util
import io as memory
import json
import re
import tempfile
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from replication import runs
from replication.data.stacks import SHOWABLE, dataset_hash, load_stacks
from replication.evaluation import rows as report
from replication.execute import read_notebook
from replication.files import NOTEBOOKS, REFERENCE, ROOT, ReplicationError, sha256_file, write_json
from replication.hdr import io
from replication.reconstruct import merge_stack
from replication.weights import read_safetensors

spec = importlib.util.spec_from_file_location("commit", NOTEBOOKS / "commit.py")
commit = importlib.util.module_from_spec(spec)
spec.loader.exec_module(commit)
COMMITTED = sorted(NOTEBOOKS.glob("*.ipynb"))


def executed(tmp_path_factory, *names, **parameters) -> Path:
    return runs.run("quick", names, output=tmp_path_factory.mktemp("run"), parameters=parameters)


def plain_psnr(test, reference):
    return 10 * np.log10(255**2 / np.mean((test.astype(np.float64) - reference) ** 2))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of the notebooks that train nothing, without the slowest."""
    names = ("00_start_here", "01_data", "02_model", "06_ldr_stacks", "08_your_photo")
    return executed(tmp_path_factory, *names)


def test_00_makes_an_hdr_image_from_one_photo(finished):
    (exr,) = (finished / "00_start_here").glob("*.exr")
    hdr = io.read_hdr(exr)
    truth = next(s for s in load_stacks("mini", split="test") if s.scene == exr.stem)
    middle = (truth.images[0] > 30).all(-1) & (truth.images[0] < 225).all(-1)
    ratio = np.log2(hdr.mean(-1)[middle] / merge_stack(truth.images).mean(-1)[middle])
    assert np.percentile(np.abs(ratio - np.median(ratio)), 90) < 1  # stops, in the middle tones


def test_01_writes_table_1(finished):
    rows = report.read_rows(finished / "tables" / "table1.csv").set_index(["scene", "ev"])
    stacks = load_stacks("mini")
    assert len(rows) == 6 * len(stacks) == 240
    for stack, ev in ((stack, ev) for stack in stacks[::7] for ev in (-3, 1)):
        expected = plain_psnr(stack.images[0], stack.images[ev])
        assert rows.loc[(stack.scene, ev), "psnr"] == pytest.approx(expected, abs=1e-5)


def test_02_and_08_write_their_pictures(finished):
    names = {path.name for path in (finished / "02_model").glob("*.png")}
    assert names == {"figure3.png", "figure4.png", "mprelu.png"}
    names = {path.name for path in (finished / "08_your_photo").rglob("*") if path.is_file()}
    stack = {f"ev{ev:+d}.png" for ev in range(-3, 4)}
    assert stack | {"coffee.exr", "coffee.hdr", "coffee_tonemapped.png"} <= names


def test_03_trains_one_subnetwork(tmp_path_factory):
    out = executed(tmp_path_factory, "03_train_ev", ev=-1, patches=240)
    rows = report.read_rows(out / "tables" / "link_ev-1.csv")
    means = rows.groupby("method")["psnr"].mean()
    assert set(rows["method"]) == {"identity", "tone_curve", "deep_chain"}
    assert means["deep_chain"] > means["identity"]
    _, metadata = read_safetensors(out / "weights" / "ev-1.safetensors")
    validation = json.loads(metadata["validation"])
    val = load_stacks("mini", split="val")
    unchanged = np.mean([plain_psnr(stack.images[0], stack.images[-1]) for stack in val])
    assert validation["scenes"] == len(val) == 4
    assert validation["psnr_db"]["identity"] == pytest.approx(unchanged, abs=1e-3)
    record = json.loads((out / "provenance.json").read_text())
    assert record["data_hashes"] == {"mini": dataset_hash(load_stacks("mini"))}


STUDIES = [("04_chain_vs_shallow", "table2", {"chain": (3,), "shallow": (3,)})]
STUDIES += [("05_mprelu_vs_prelu", "table3", {"mprelu": (-1, -2, -3)})]


@pytest.mark.parametrize(("notebook", "table", "contenders"), STUDIES)
def test_04_and_05_train_their_contenders(tmp_path_factory, notebook, table, contenders):
    out = executed(tmp_path_factory, notebook, patches=8, contenders=list(contenders))
    rows = report.read_rows(out / "tables" / f"{table}.csv").set_index(["method", "ev", "scene"])
    assert set(rows.index.get_level_values("method")) == {"tone_curve", *contenders}
    test = load_stacks("mini", split="test")
    for name, evs in contenders.items():
        assert len(rows.loc[name]) == len(test) * len(evs)


def test_06_gives_the_committed_rows_of_the_shipped_weights(finished):
    keys = ["dataset", "scene", "method", "ev"]
    ours = report.read_rows(finished / "tables" / "table4.csv").set_index(keys)
    committed = report.read_rows(REFERENCE / "tables" / "table4.csv").set_index(keys)
    assert len(ours) == 12 * 4 * 6
    committed = committed.loc[ours.index]
    assert (ours["weights_hash"] == committed["weights_hash"]).all()
    for metric, tolerance in {"psnr": 0.01, "ssim": 1e-3, "ms_ssim": 1e-3}.items():
        np.testing.assert_allclose(ours[metric], committed[metric], atol=tolerance, rtol=0)


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_committed_notebooks_are_executed_short_and_clean(path):
    assert path.stat().st_size <= commit.LIMIT
    cells = json.loads(path.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert cells[0]["cell_type"] == "markdown"
    assert "**Question.**" in "".join(cells[0]["source"])
    assert cells[1]["metadata"]["tags"] == ["parameters"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert all(len("".join(cell["source"]).splitlines()) <= 25 for cell in code)
    assert not any(o["output_type"] == "error" for cell in code for o in cell["outputs"])
    assert any("## Verdict" in "".join(cell["source"]) for cell in cells[-3:])
    printed = [o.get("text", ()) for cell in code for o in cell["outputs"]]
    assert all(len(line) <= 109 for text in printed for line in "".join(text).splitlines())
    checked = [cell for cell in code if "nbval-check-output" in cell["metadata"].get("tags", [])]
    assert all(cell["outputs"] for cell in checked)
    assert commit.pictures_in(read_notebook(path)) <= {"none", *SHOWABLE}


def test_every_deviation_is_linked_from_a_notebook_and_from_the_code():
    text = (NOTEBOOKS / "DEVIATIONS.md").read_text()
    entries = re.findall(r'<a id="d(\d+)"></a>\n## D\1 ', text)
    assert entries == [str(number) for number in range(1, 39) if number != 19]  # D19 went with its code
    assert len(entries) == text.count("\n## D")
    links = [re.findall(r"DEVIATIONS\.md#d(\d+)\)", path.read_text()) for path in COMMITTED]
    assert set(entries) == {number for found in links for number in found}
    in_code = set()
    for path in (ROOT / "replication").rglob("*.py"):
        text = " ".join(path.read_text().split())
        for first, joint, last in re.findall(r"\bD(\d+)(?: (to|and) D(\d+))?", text):
            end = int(last) if joint == "to" else int(first)
            in_code |= {str(number) for number in range(int(first), end + 1)} | {last} - {""}
    assert set(entries) <= in_code


# ------------------------------------------------------------------------- notebooks/commit.py


def png(pictures):
    stream, text = memory.BytesIO(), PngInfo()
    if pictures:
        text.add_text("Pictures", pictures)
    Image.new("RGB", (2, 2)).save(stream, "png", pnginfo=text)
    return base64.b64encode(stream.getvalue()).decode()


def finished_run(tmp_path, outputs=(), ev=1, text="6 * 7"):
    """A finished run of one notebook, as papermill leaves it, and the folder of the notebook."""
    folder, output, new = tmp_path / "notebooks", tmp_path / "run", nbformat.v4
    head = [new.new_markdown_cell("# A"), new.new_code_cell("ev = 1")]
    head[1].metadata.tags = ["parameters"]
    source = new.new_notebook(cells=[*head, new.new_code_cell("6 * 7")])
    for one in (folder, output):
        one.mkdir()
    nbformat.write(source, folder / "a.ipynb")
    source.metadata = {"papermill": {"start_time": "2026-01-01T00:00"}}
    source.cells.insert(2, new.new_code_cell("ev = 1", execution_count=5))
    source.cells[2].metadata.tags = ["injected-parameters"]
    source.cells[-1] = new.new_code_cell(text, execution_count=7, outputs=list(outputs))
    source.cells[-1].metadata = {"papermill": {"start_time": "2026"}, "tags": ["keep"]}
    nbformat.write(source, output / "a.ipynb")
    entry = {"notebook": "a", "parameters": {"ev": ev}}
    entry["executed_sha256"] = sha256_file(output / "a.ipynb")
    write_json(output / "provenance.json", {"profile": "tiny", "notebooks": {"a": entry}})
    return output, folder


def test_a_committed_notebook_keeps_its_outputs_and_drops_the_machine(tmp_path):
    texts = {
        f"{tmp_path}/run/tables/a.csv": "results/runs/tiny/tables/a.csv",
        f"at '{ROOT}' {ROOT}/replication/x.py:3": "at '.' replication/x.py:3",
        f"{ROOT}2/x and /mnt{ROOT}/y": f"{ROOT}2/x and /mnt{ROOT}/y",
        f"{Path(nbformat.__file__).parent}/a.py": "site-packages/nbformat/a.py",
        f"{tempfile.gettempdir()}/ipykernel_123/4567.py:1: Warning": "cell:1: Warning",
    }
    outputs = [nbformat.v4.new_output("stream", text=f"{text}\n") for text in texts]
    data = {"image/png": png("mini"), "text/plain": f"{ROOT}/a"}
    outputs.append(nbformat.v4.new_output("execute_result", data=data, execution_count=7))
    output, folder = finished_run(tmp_path, outputs)
    assert commit.commit(output, folder) == [folder / "a.ipynb"]
    once = (folder / "a.ipynb").read_bytes()
    cells = nbformat.read(folder / "a.ipynb", as_version=4).cells
    assert [cell.metadata for cell in cells] == [{}, {"tags": ["parameters"]}, {"tags": ["keep"]}]
    assert cells[-1].execution_count == cells[-1].outputs[-1].execution_count == 1
    assert cells[-1].outputs[0].text.splitlines() == list(texts.values())
    assert cells[-1].outputs[-1].data == {"image/png": png("mini"), "text/plain": "a"}
    assert b"papermill" not in once
    assert commit.commit(output, folder) == [folder / "a.ipynb"]
    assert (folder / "a.ipynb").read_bytes() == once


REFUSED = [
    ([{"image/png": png("hdrps")}], {}, "shows pictures of hdrps; they may not be published"),
    ([{"image/jpeg": png(None)}], {}, "shows pictures of unknown sources"),
    ([{"text/plain": "x" * 1_000_001}], {}, "more than 1,000,000"),
    ([], {"ev": 2}, "was not run with its default parameters"),
    ([], {"text": "6 * 8"}, "has been edited since it was run"),
]


@pytest.mark.parametrize(("outputs", "options", "message"), REFUSED)
def test_notebooks_that_may_not_be_committed_are_refused(tmp_path, outputs, options, message):
    outputs = [nbformat.v4.new_output("display_data", data) for data in outputs]
    output, folder = finished_run(tmp_path, outputs, **options)
    before = (folder / "a.ipynb").read_bytes()
    with pytest.raises(ReplicationError, match=message):
        commit.commit(output, folder)
    (output / "a.ipynb").write_text((output / "a.ipynb").read_text() + "\n")
    with pytest.raises(ReplicationError, match=r"not what the run wrote|default parameters"):
        commit.commit(output, folder)
    with pytest.raises(ReplicationError, match="not the record of a run"):
        commit.commit(folder, folder)
    assert (folder / "a.ipynb").read_bytes() == before
