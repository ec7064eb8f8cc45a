"""The notebook driver on tiny notebooks, and the record it keeps."""

from __future__ import annotations

import base64
import io
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import papermill
import psutil
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import replication
from replication import runs
from replication.files import NOTEBOOKS, ROOT, ReplicationError, sha256_file
from replication.reconstruct import load_chain
from replication.weights import WEIGHTS, chain_hash

# One line of text cell and a parameters cell precede every notebook's own cells, which therefore
# are numbered from 3.
FIRST = 3
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
PROFILE = "description: for tests\ndataset: none\nminutes: 1\nnotebooks:\n"
WRITE = "from pathlib import Path\nPath(output_dir, 'out.txt').write_text('done')"


def write_notebook(folder: Path, name: str, *cells: str, parameters: str = "", metadata=None):
    head = nbformat.v4.new_markdown_cell("# A question")
    defaults = nbformat.v4.new_code_cell(f"output_dir = 'nowhere'\n{parameters}".strip())
    defaults.metadata.tags = ["parameters"]
    code = [nbformat.v4.new_code_cell(cell) for cell in cells]
    notebook = nbformat.v4.new_notebook(cells=[head, defaults, *code], metadata=metadata or {})
    nbformat.write(notebook, folder / f"{name}.ipynb")


def write_profile(folder: Path, text: str, name: str = "tiny") -> None:
    (folder / "profiles").mkdir(exist_ok=True)
    (folder / "profiles" / f"{name}.yaml").write_text(PROFILE + text)


def run_tiny(folder: Path, *args, **kwargs) -> Path:
    kwargs = {"output": folder.parent / "run"} | kwargs
    return runs.run("tiny", *args, notebook_folder=folder, **kwargs)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return an empty folder for notebooks, with braces and a space in its path."""
    folder = tmp_path / "note {books}"
    folder.mkdir()
    return folder


# ------------------------------------------------------------------------- one good run for many


ENVIRONMENT = """
import json, os, sys, tqdm
from pathlib import Path
import matplotlib
list(tqdm.tqdm(range(3)))
found = {
    "cwd": os.getcwd(), "python": sys.executable, "dataset": dataset, "colour": colour,
    "backend": os.environ.get("MPLBACKEND"), "threads": os.environ.get("OMP_NUM_THREADS"),
}
Path(output_dir, "tables").mkdir()
Path(output_dir, "tables", "found.json").write_text(json.dumps(found))
print("wrote", Path(output_dir) / "tables" / "found.json")
"""

# Each entry of the matrix waits for the other one, so it ends only if both run at once.
TRAIN = """
import os, time
from pathlib import Path
folder = Path(output_dir, "weights")
folder.mkdir(exist_ok=True)
(folder / f"ev{ev:+d}.txt").write_text(os.environ["OMP_NUM_THREADS"])
deadline = time.monotonic() + 60
while not (folder / f"ev{-ev:+d}.txt").exists():
    assert time.monotonic() < deadline, "the other entry has not started"
    time.sleep(0.05)
"""


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> tuple[Path, Path, str]:
    folder = tmp_path_factory.mktemp("good") / "notebooks"
    folder.mkdir()
    write_notebook(
        folder,
        "01_data",
        ENVIRONMENT,
        "import sys\nprint('one')\nprint('warned', file=sys.stderr)\nprint('two')\n6 * 7",
        parameters="dataset = 'mini'\ncolour = 'red'",
        metadata={"kernelspec": {"name": "julia-1.9", "display_name": "J", "language": "julia"}},
    )
    write_notebook(folder, "03_train_ev", TRAIN, parameters="ev = 1")
    write_notebook(folder, "08_last", WRITE)
    write_profile(
        folder,
        "  01_data: {parameters: {colour: blue}, produces: [tables/*.json]}\n"
        "  03_train_ev:\n"
        "    matrix: {ev: [1, -1]}\n"
        '    produces: ["weights/ev{ev:+d}.txt"]\n'
        "  08_last: {produces: [out.txt]}\n",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPLBACKEND", "agg")
        patch.delenv("OMP_NUM_THREADS", raising=False)
        with pytest.MonkeyPatch.context() as quiet:
            lines: list[str] = []
            quiet.setattr("builtins.print", lambda *text, **_: lines.append(" ".join(text)))
            output = run_tiny(folder, jobs=2)
    return folder, output, "\n".join(lines)


def test_run_executes_in_order_and_leaves_only_results(good):
    folder, output, log = good
    assert output == folder.parent / "run"
    assert sorted(path.name for path in output.iterdir()) == [
        "01_data.ipynb",
        "03_train_ev_ev+1.ipynb",
        "03_train_ev_ev-1.ipynb",
        "08_last.ipynb",
        "out.txt",
        "provenance.json",
        "tables",
        "weights",
    ]
    lines = log.splitlines()
    assert [re.sub(r" +\d+\.\d s$", "", line) for line in (lines[0], lines[-1])] == [
        "01_data",
        "08_last",
    ]
    assert len(lines) == 4


def test_notebook_runs_in_its_folder_with_the_running_python(good):
    folder, output, _ = good
    found = json.loads((output / "tables" / "found.json").read_text())
    assert Path(found["cwd"]) == folder.resolve()
    assert found["python"] == sys.executable  # though the file asks for a Julia kernel
    assert found["dataset"] == "none"  # the profile's, not the notebook's own
    assert found["colour"] == "blue"
    assert "inline" in found["backend"]  # not the caller's agg, or figures would be missing
    assert found["threads"] is None  # one notebook at a time has all cores
    executed = nbformat.read(output / "01_data.ipynb", as_version=4)
    printed = "".join(
        out.get("text", "") for cell in executed.cells for out in cell.get("outputs", [])
    )
    assert "wrote" in printed
    assert "100%" not in printed  # no progress bars


def test_matrix_entries_run_side_by_side_with_their_share_of_the_cores(good):
    _, output, _ = good
    share = str(max(1, CORES // 2))
    assert [(output / "weights" / f"ev{ev:+d}.txt").read_text() for ev in (1, -1)] == [share] * 2


def test_provenance_of_a_run(good):
    folder, output, _ = good
    text = (output / "provenance.json").read_text()
    record = json.loads(text)
    assert record["profile"] == "tiny"
    assert record["environment"]["version"] == replication.__version__
    entries = record["notebooks"]
    assert set(entries) == {"01_data", "03_train_ev_ev+1", "03_train_ev_ev-1", "08_last"}
    entry = entries["03_train_ev_ev-1"]
    assert entry["notebook"] == "03_train_ev"
    assert entry["parameters"] == {"ev": -1}
    assert entries["01_data"]["defaults"] == {}
    assert record["data_hashes"] == {}  # of the data set "none"
    assert record["weights_hash"] == chain_hash(load_chain(), WEIGHTS)
    assert 0 < entry["seconds"] <= record["seconds"] + 0.1
    assert entry["produced"] == {"weights/ev-1.txt": sha256_file(output / "weights" / "ev-1.txt")}
    assert entry["executed_sha256"] == sha256_file(output / "03_train_ev_ev-1.ipynb")
    assert str(folder.parent) not in text
    assert str(Path.home()) not in text


def test_resume_keeps_what_is_there(good, tmp_path):
    folder, finished, _ = good
    output = tmp_path / "run"
    shutil.copytree(finished, output)
    kept = {path: path.stat() for path in output.glob("0[13]*.ipynb")}
    old = json.loads((output / "provenance.json").read_text())["notebooks"]
    (output / "out.txt").write_text("old")
    run_tiny(folder, from_notebook="08_last", output=output)
    assert (output / "out.txt").read_text() == "done"
    assert len(kept) == 3
    for path, state in kept.items():
        assert path.stat().st_mtime_ns == state.st_mtime_ns
    new = json.loads((output / "provenance.json").read_text())["notebooks"]
    assert list(new) == list(old)
    assert {name: new[name] == old[name] for name in new} == {
        name: name != "08_last" for name in old
    }


def test_resume_refuses_what_is_not_there(good, tmp_path):
    folder, finished, _ = good
    output = tmp_path / "run"
    with pytest.raises(ReplicationError, match="01_data has not been run there"):
        run_tiny(folder, from_notebook="08_last", output=output)
    assert not output.exists()
    with pytest.raises(ReplicationError, match="no notebook '09_no'; it runs: 01_data, 03_train"):
        run_tiny(folder, from_notebook="09_no", output=output)
    with pytest.raises(ReplicationError, match="either notebooks or one to resume from"):
        run_tiny(folder, ["01_data"], from_notebook="08_last", output=output)

    shutil.copytree(finished, output)
    with pytest.raises(ReplicationError, match=r"01_data was run with .*blue.*, not with .*green"):
        run_tiny(folder, from_notebook="08_last", output=output, parameters={"colour": "green"})
    (output / "weights" / "ev-1.txt").unlink()
    with pytest.raises(ReplicationError, match=r"03_train_ev_ev-1 has lost its file weights/ev-1"):
        run_tiny(folder, from_notebook="08_last", output=output)
    (output / "provenance.json").write_text("{")
    with pytest.raises(ReplicationError, match="damaged; delete it"):
        run_tiny(folder, from_notebook="08_last", output=output)


def test_folder_of_another_profile_is_refused(good, tmp_path):
    folder, finished, _ = good
    other = tmp_path / "notebooks"
    shutil.copytree(folder, other)
    write_profile(other, "  08_last: {}\n", name="other")
    before = sorted(finished.rglob("*"))
    with pytest.raises(ReplicationError, match="holds a run of the profile 'tiny'"):
        runs.run("other", output=finished, notebook_folder=other)
    assert sorted(finished.rglob("*")) == before


# -------------------------------------------------------------------------------- what goes wrong


def test_failing_cell(folder):
    fail = "if n == 2:\n    raise ValueError('no light\\nat all')"
    write_notebook(folder, "02_bad", "1 + 1", fail, "2 + 2", parameters="n = 1")
    write_notebook(folder, "03_never", WRITE)
    write_profile(folder, "  02_bad: {matrix: {n: [1, 2, 3]}}\n  03_never:\n")
    output = folder.parent / "run"
    output.mkdir()
    for name in ("02_bad_n+2", "02_bad_n+3", "03_never"):
        (output / f"{name}.ipynb").write_text("the result of an earlier run")
    with pytest.raises(ReplicationError) as caught:
        run_tiny(folder)
    message = str(caught.value)
    assert message.startswith(
        f"Notebook 02_bad_n+2 failed in cell {FIRST + 1} (ValueError: no light); see {output}"
    )
    assert "\n" not in message
    assert sorted(path.name for path in output.iterdir()) == [
        "02_bad_n+1.ipynb",
        "02_bad_n+2.failed.ipynb",
        "provenance.json",
    ]
    failed = nbformat.read(output / "02_bad_n+2.failed.ipynb", as_version=4)
    kinds = {out.output_type for cell in failed.cells for out in cell.get("outputs", [])}
    assert "error" in kinds
    record = json.loads((output / "provenance.json").read_text())
    assert set(record["notebooks"]) == {"02_bad_n+1"}


def test_swallowed_exception_is_a_failure_though_an_old_artefact_lies_there(folder):
    write_notebook(
        folder, "01_silent", f"try:\n    1 / 0\n    {WRITE!r}\nexcept Exception:\n    pass"
    )
    write_profile(folder, "  01_silent: {produces: [out.txt]}\n")
    output = folder.parent / "run"
    output.mkdir()
    (output / "out.txt").write_text("of an earlier run")
    with pytest.raises(ReplicationError, match=r"01_silent ran to its end but did not write out"):
        run_tiny(folder)
    assert not (output / "01_silent.ipynb").exists()
    assert (output / "01_silent.failed.ipynb").exists()


def test_early_exit_and_dead_kernel_are_failures(folder):
    write_notebook(folder, "01_exit", "import sys\nsys.exit()", WRITE)
    write_notebook(folder, "02_dead", "1 + 1", "import os\nos.kill(os.getpid(), 9)", WRITE)
    write_profile(folder, "  01_exit:\n  02_dead:\n")
    with pytest.raises(ReplicationError, match=f"01_exit ended early, before cell {FIRST + 1}"):
        run_tiny(folder, ["01_exit"])
    with pytest.raises(ReplicationError, match=rf"02_dead failed in cell {FIRST + 1} \(DeadKernel"):
        run_tiny(folder, ["02_dead"])
    assert not (folder.parent / "run" / "out.txt").exists()


def test_nothing_runs_when_anything_is_unknown(folder):
    write_notebook(folder, "01_first", WRITE, parameters="steps = 5\nrate = 1.0\nphoto = None")
    write_notebook(folder, "02_second", "1", parameters="ev = 1")

    def refused(profile: str, message: str, *args, **kwargs) -> None:
        write_profile(folder, profile)
        with pytest.raises(ReplicationError, match=message):
            run_tiny(folder, *args, **kwargs)
        assert not (folder.parent / "run").exists()

    both = "  01_first: {parameters: {steps: 6, rate: 2, photo: a.jpg}}\n  02_second:\n"
    refused(
        "  01_first:\n  02_second: {parameters: {stpes: 5}}\n", "no parameter stpes; it has:.*ev"
    )
    refused("  01_first:\n  03_third:\n", "no notebook '03_third' in .*: 01_first, 02_second")
    refused("  01_first: {parameters: {rate: 1e-3}}\n", "rate cannot be '1e-3'.*another type")
    refused("  01_first: {parameters: {steps: true}}\n", "steps cannot be True")
    refused(both, "photo cannot be", parameters={"photo": Path("a.jpg")})
    refused("  01_first: {produces: ['ev{ev}.txt']}\n", "cannot fill in produces")
    refused(both, "'tiny' has no notebook '03_third'; it runs: 01_first, 02_second", ["03_third"])
    refused(both, "No notebook of this run has a parameter stpes", parameters={"stpes": 1})
    refused(both, "No notebook .* ev", ["01_first"], parameters={"ev": 1})
    refused(both, "output_dir is the run's folder", parameters={"output_dir": "x"})
    refused(both, "number of jobs", jobs=0)


def test_parameters_replace_those_of_the_profile(folder):
    write_notebook(folder, "01_first", "1", parameters="steps = 5\nrate = 1.0")
    write_notebook(folder, "03_train_ev", "1", parameters="ev = 1\nsteps = 5")
    write_profile(
        folder,
        "  01_first: {parameters: {rate: 2}}\n"
        "  03_train_ev: {matrix: {ev: [1, -1]}, produces: ['{ev:+d}-{steps}.txt']}\n",
    )
    profile = runs.load_profile("tiny", folder=folder / "profiles")
    tasks = runs.plan(profile, parameters={"steps": 7, "ev": -3}, notebook_folder=folder)
    assert [(task.name, task.parameters, task.produces) for task in tasks] == [
        ("01_first", {"rate": 2, "steps": 7}, ()),
        ("03_train_ev_ev-3", {"steps": 7, "ev": -3}, ("-3-7.txt",)),
    ]
    with pytest.raises(ReplicationError, match="whole numbers or words, not"):
        runs.plan(profile, parameters={"ev": "../1"}, notebook_folder=folder)
    tasks = runs.plan(profile, ["03_train_ev", "01_first"], notebook_folder=folder)
    assert [task.name for task in tasks] == ["01_first", "03_train_ev_ev+1", "03_train_ev_ev-1"]


def test_wrong_kernel_is_refused(folder, tmp_path, monkeypatch):
    kernel = tmp_path / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    spec = {"argv": ["/usr/bin/python3", "-m", "ipykernel_launcher"], "display_name": "other"}
    (kernel / "kernel.json").write_text(json.dumps(spec | {"language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    write_notebook(folder, "01_first", WRITE)
    write_profile(folder, "  01_first:\n")
    with pytest.raises(
        ReplicationError, match=r"'python3' .* starts /usr/bin/python3, not the run"
    ):
        run_tiny(folder)
    assert not (folder.parent / "run").exists()
    spec["argv"][0] = sys.executable
    (kernel / "kernel.json").write_text(json.dumps(spec | {"language": "python"}))
    runs._check_kernel()


def test_ctrl_c_stops_notebook_and_kernel(folder):
    write_notebook(
        folder,
        "01_long",
        "import os, time\nfrom pathlib import Path\n"
        "Path(output_dir, 'part').write_text(str(os.getpid()))\n"
        "os.replace(Path(output_dir, 'part'), Path(output_dir, 'pid'))\ntime.sleep(300)",
    )
    write_profile(folder, "  01_long:\n")
    output = folder.parent / "run"
    call = f"runs.run('tiny', notebook_folder={str(folder)!r}, output={str(output)!r})"
    driver = subprocess.Popen(
        [sys.executable, "-c", f"from replication import runs; {call}"],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # a shell's background job ignores Ctrl-C and would hand that on
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )

    def wait_for(condition) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.05)

    wait_for((output / "pid").exists)
    kernel = int((output / "pid").read_text())
    os.killpg(driver.pid, signal.SIGINT)
    _, errors = driver.communicate(timeout=60)
    assert driver.returncode in (-signal.SIGINT, 130)
    assert errors.count("Traceback") == 1  # the driver's own, which the command line catches

    def ended() -> bool:
        try:
            return psutil.Process(kernel).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    wait_for(ended)
    left = sorted(path.name for path in output.iterdir())
    assert left == ["01_long.failed.ipynb", "pid", "provenance.json"]
    assert json.loads((output / "provenance.json").read_text())["notebooks"] == {}


# -------------------------------------------------------------------------- profiles and parameters


@pytest.mark.parametrize("name", ["quick", "open", "paper"])
def test_shipped_profiles(name):
    profile = runs.load_profile(name)
    assert profile["dataset"] == {"quick": "mini", "open": "openstacks", "paper": "vds"}[name]
    assert sorted(profile["notebooks"]) == list(profile["notebooks"])
    assert profile["notebooks"]["03_train_ev"]["matrix"] == {"ev": [1, 2, 3, -1, -2, -3]}
    if all((NOTEBOOKS / f"{notebook}.ipynb").exists() for notebook in profile["notebooks"]):
        assert runs.plan(profile)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("  a: {paramters: {}}\n", "notebook a: unknown key paramters; known are: parameters"),
        ("  a: {matrix: {ev: []}}\n", "matrix ev must list"),
        ("  a: {matrix: {ev: [1, 1]}}\n", "matrix ev must list different"),
        ("  a: {matrix: {ev: [a/b]}}\n", "matrix ev must list"),
        ("  a: {matrix: {ev: 1}}\n", "matrix ev must list"),
        ("  a: {matrix: {ev: [1]}, parameters: {ev: 1}}\n", "ev is both"),
        ("  a: {parameters: {output_dir: x}}\n", "output_dir is set by the driver"),
        ("  a: {produces: [../x]}\n", "below the run's folder"),
        ("  a: {produces: x}\n", "produces cannot be 'x'"),
        ("  a:\n  a:\n", "given twice"),
        ("  a: {\n", "not valid YAML"),
        ("  a:\nnotebook: x\n", "unknown key notebook; known are: description, dataset"),
        ("  010: {}\n", "notebook 8: the name must be text"),
        ("", "notebooks cannot be None"),
    ],
)
def test_bad_profiles(folder, text, message):
    write_profile(folder, text)
    with pytest.raises(ReplicationError, match=message) as caught:
        runs.load_profile("tiny", folder=folder / "profiles")
    assert "\n" not in str(caught.value)


def test_unknown_profile_and_missing_key(folder):
    write_profile(folder, "  01:\n")
    with pytest.raises(ReplicationError, match=r"no profile 'qick' in .*; there are: tiny"):
        runs.load_profile("qick", folder=folder / "profiles")
    (folder / "profiles" / "bad.yaml").write_text("description: x\nnotebooks: {a: }\n")
    with pytest.raises(ReplicationError, match="missing key dataset, minutes"):
        runs.load_profile("bad", folder=folder / "profiles")


def test_notebook_parameters_agree_with_papermill(folder):
    source = "ev = 1\nrate = 1e-3  # a comment\nname: str = 'a'\nnone = None\nevs = [1, -2]"
    kernel = {"kernelspec": {"name": "python3", "display_name": "P", "language": "python"}}
    write_notebook(folder, "n", parameters=source, metadata=kernel)
    found = runs.notebook_parameters(folder / "n.ipynb")
    assert found == {
        "output_dir": "nowhere", "ev": 1, "rate": 1e-3, "name": "a", "none": None, "evs": [1, -2]
    }  # fmt: skip
    inspected = papermill.inspect_notebook(
        str(folder / "n.ipynb").replace("{", "{{").replace("}", "}}")
    )
    assert list(inspected) == list(found)


@pytest.mark.parametrize(
    "source",
    ["x = 1 + y", "import os", "x = y = 1", "x += 1", "x, y = 1, 2", "x: int", "f(", "x.y = 1"],
)
def test_parameters_must_be_plain_literals(folder, source):
    write_notebook(folder, "n", parameters=source)
    with pytest.raises(ReplicationError, match="may hold only NAME = plain literal"):
        runs.notebook_parameters(folder / "n.ipynb")


def test_notebooks_that_cannot_be_parameterised(folder):
    path = folder / "n.ipynb"
    with pytest.raises(ReplicationError, match="Cannot read"):
        runs.notebook_parameters(path)
    path.write_text("{}")
    with pytest.raises(ReplicationError, match="not a valid notebook"):
        runs.notebook_parameters(path)
    write_notebook(folder, "n")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].metadata.tags = []
    nbformat.write(notebook, path)
    with pytest.raises(ReplicationError, match="0 cells tagged 'parameters'"):
        runs.notebook_parameters(path)
    notebook.cells[1].metadata.tags = ["injected-parameters"]
    nbformat.write(notebook, path)
    with pytest.raises(ReplicationError, match="saved from a run"):
        runs.notebook_parameters(path)


def test_parse_parameters():
    given = ["ev=-1", "rate=1e-3", "photo=a=b.jpg", "flag=True", "empty="]
    assert runs.parse_parameters(given) == {
        "ev": -1, "rate": 1e-3, "photo": "a=b.jpg", "flag": True, "empty": ""
    }  # fmt: skip
    with pytest.raises(ReplicationError, match="NAME=VALUE, not 'ev'"):
        runs.parse_parameters(["ev"])


# ------------------------------------------------------------------------- notebooks to be committed


def test_commit_brings_back_the_default_execution(good, tmp_path):
    folder, output, _ = good
    target = tmp_path / "notebooks"
    shutil.copytree(folder, target)
    with pytest.raises(ReplicationError, match="01_data was not run with its default parameters"):
        runs.commit_notebooks(output, notebook_folder=target)
    assert (target / "08_last.ipynb").read_bytes() == (folder / "08_last.ipynb").read_bytes()
    source = target / "01_data.ipynb"
    source.write_text(source.read_text().replace("'mini'", "'none'").replace("'red'", "'blue'"))
    with pytest.raises(ReplicationError, match=r"01_data.ipynb has been edited since it was run"):
        runs.commit_notebooks(output, notebook_folder=target)
    executed = tmp_path / "run"
    shutil.copytree(output, executed)
    record = json.loads((executed / "provenance.json").read_text())
    del record["notebooks"]["01_data"]
    (executed / "provenance.json").write_text(json.dumps(record))

    written = runs.commit_notebooks(executed, notebook_folder=target)
    assert [path.name for path in written] == ["03_train_ev.ipynb", "08_last.ipynb"]
    notebook = nbformat.read(written[0], as_version=4)
    assert "ev = 1" in notebook.cells[1].source
    assert not any(
        "injected-parameters" in cell.metadata.get("tags", []) for cell in notebook.cells
    )
    assert [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"] == [1, 2]
    assert runs.notebook_parameters(written[0]) == {"output_dir": "nowhere", "ev": 1}
    once = written[0].read_bytes()
    assert runs.commit_notebooks(executed, notebook_folder=target) == written
    assert written[0].read_bytes() == once

    (executed / "08_last.ipynb").write_text((executed / "08_last.ipynb").read_text() + "\n")
    with pytest.raises(ReplicationError, match="not what the run wrote"):
        runs.commit_notebooks(executed, notebook_folder=target)
    with pytest.raises(ReplicationError, match="not the record of a run"):
        runs.commit_notebooks(tmp_path, notebook_folder=target)


@pytest.mark.parametrize(
    ("kind", "pictures", "told"),
    [
        ("image/png", "hdrps", "hdrps"),
        ("image/png", None, "unknown sources"),
        ("image/jpeg", None, "unknown sources"),
    ],
)
def test_pictures_that_may_not_be_published_are_not_brought_back(
    good, tmp_path, kind, pictures, told
):
    folder, output, _ = good
    png = io.BytesIO()
    text = PngInfo()
    if pictures:
        text.add_text("Pictures", pictures)
    Image.new("RGB", (2, 2)).save(png, "png", pnginfo=text)
    executed = shutil.copytree(output, tmp_path / "run")
    notebook = nbformat.read(executed / "08_last.ipynb", as_version=4)
    encoded = base64.b64encode(png.getvalue()).decode()
    notebook.cells[-1].outputs = [nbformat.v4.new_output("display_data", {kind: encoded})]
    nbformat.write(notebook, executed / "08_last.ipynb")
    record = json.loads((executed / "provenance.json").read_text())
    record["notebooks"] = {"08_last": record["notebooks"]["08_last"]}
    record["notebooks"]["08_last"]["executed_sha256"] = sha256_file(executed / "08_last.ipynb")
    (executed / "provenance.json").write_text(json.dumps(record))
    target = shutil.copytree(folder, tmp_path / "notebooks")
    with pytest.raises(ReplicationError, match=f"shows pictures of {told}, which the project may"):
        runs.commit_notebooks(executed, notebook_folder=target)


def test_scrub_keeps_outputs_and_drops_the_machine(good, tmp_path):
    _, output, _ = good
    path = tmp_path / "01_data.ipynb"
    shutil.copy(output / "01_data.ipynb", path)
    raw = path.read_text()
    assert str(output) in raw
    assert '"papermill"' in raw
    runs.scrub(path, places={str(output): "results/runs/tiny"})
    text = path.read_text()
    assert str(output) not in text
    assert "papermill" not in text
    assert "julia" not in text
    assert not re.search(r"\d\dT\d\d:\d\d|start_time|iopub", text)
    assert re.search(r"\d\dT\d\d:\d\d", raw)
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [1, 2, 3, 4]
    assert "wrote results/runs/tiny/tables/found.json\n" in code[2].outputs[0].text
    assert code[3].outputs[-1].data["text/plain"] == "42"
    assert code[3].outputs[-1].execution_count == 4
    names = [out.get("name") for out in code[3].outputs]
    assert all(a != b for a, b in itertools.pairwise(names))  # streams are joined
    once = path.read_bytes()
    runs.scrub(path, places={str(output): "results/runs/tiny"})
    assert path.read_bytes() == once


def test_scrub_makes_paths_relative_and_closes_holes_in_the_counts(tmp_path):
    pixels = "iVBORw0KGgo="
    texts = {
        f"{ROOT}/replication/hdr/x.py:3: odd": "replication/hdr/x.py:3: odd",
        f"at '{ROOT}'": "at '.'",
        f"{ROOT}2/x and /mnt{ROOT}/y": f"{ROOT}2/x and /mnt{ROOT}/y",
        f"file://{ROOT}/a.png": "file://a.png",
        f"{Path.home()}/pictures": "~/pictures",
        f"{os.path.dirname(nbformat.__path__[0])}/nbformat/a.py": "site-packages/nbformat/a.py",
        f"{tempfile.gettempdir()}/ipykernel_123/4567.py:1: UserWarning": "cell:1: UserWarning",
    }
    cells = []
    for count, text in zip((2, 5, None, 9, 11, 12, 14), texts, strict=True):
        out = nbformat.v4.new_output("stream", text=text)
        cells.append(nbformat.v4.new_code_cell("1", execution_count=count, outputs=[out]))
    data = {"image/png": pixels, "text/plain": f"{ROOT}/a"}
    picture = nbformat.v4.new_output("execute_result", data=data, execution_count=20)
    cells.append(nbformat.v4.new_code_cell("2", execution_count=20, outputs=[picture]))
    cells[-1].metadata.update(ExecuteTime={"start_time": "x"}, tags=["keep"])
    path = tmp_path / "n.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    runs.scrub(path)
    notebook = nbformat.read(path, as_version=4)
    assert [cell.outputs[0].text for cell in notebook.cells[:-1]] == list(texts.values())
    last = notebook.cells[-1]
    assert [cell.execution_count for cell in notebook.cells] == [1, 2, None, 3, 4, 5, 6, 7]
    assert last.outputs[0].execution_count == 7
    assert last.outputs[0].data == {"image/png": pixels, "text/plain": "a"}
    assert last.metadata == {"tags": ["keep"]}


# ------------------------------------------------------------------------------------- provenance


def test_provenance_describes_code_and_machine(tmp_path):
    import torch

    path = runs.write_provenance(tmp_path / "sub" / "p.json", seed=3, data_hash="ab")
    record = json.loads(path.read_text())
    assert record["seed"] == 3
    assert record["data_hash"] == "ab"
    assert record["packages"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert record["python"] == ".".join(map(str, sys.version_info[:3]))
    assert record["cores"] == CORES
    assert record["code_version"].startswith(replication.__version__)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", record["date"])
    assert (record["device"] == "cpu") == (not torch.cuda.is_available())
    with pytest.raises(ReplicationError, match="already records python"):
        runs.provenance(python="2")
    with pytest.raises(ReplicationError, match=r"Cannot write .*not JSON serializable"):
        runs.write_provenance(tmp_path / "q.json", seed={1, 2})
    assert [item.name for item in tmp_path.iterdir()] == ["sub"]


def test_code_version_follows_git(tmp_path, monkeypatch):
    from replication import provenance

    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    assert runs.code_version() == f"{replication.__version__}+unknown"
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    assert runs.code_version() == f"{replication.__version__}+unknown"  # no commit yet
    (tmp_path / "replication").mkdir()
    for file in ("results", "replication/a"):
        (tmp_path / file).write_text("1")
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "a"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    assert runs.code_version() == f"{replication.__version__}+g{head.stdout[:12]}"
    (tmp_path / "replication" / "untracked").write_text("1")
    (tmp_path / "results").write_text("2")
    assert not runs.code_version().endswith("dirty")
    (tmp_path / "replication" / "a").write_text("2")
    assert runs.code_version() == f"{replication.__version__}+g{head.stdout[:12]}.dirty"
