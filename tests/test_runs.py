"""The notebook driver on tiny notebooks: what it runs, records, refuses, and leaves when it is stopped."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
import torch

import replication
from replication import execute, files, provenance, runs
from replication.files import ReplicationError, sha256_file
from replication.reconstruct import load_chain
from replication.weights import WEIGHTS, chain_hash

PROFILE = "description: for tests\ndataset: none\nminutes: 1\nnotebooks:\n"
WRITE = "from pathlib import Path\nPath(output_dir, 'out.txt').write_text('done')"


def write_notebook(folder, name, *cells, parameters="", metadata=None):
    cells = (f"output_dir = 'nowhere'\n{parameters}".strip(), *cells)
    cells = [nbformat.v4.new_markdown_cell("# A question"), *map(nbformat.v4.new_code_cell, cells)]
    cells[1].metadata.tags = ["parameters"]
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=metadata or {})
    nbformat.write(notebook, folder / f"{name}.ipynb")


def write_profile(folder, text, name="tiny"):
    (folder / "profiles").mkdir(exist_ok=True)
    (folder / "profiles" / f"{name}.yaml").write_text(PROFILE + text)


def run_tiny(folder, *args, profile="tiny", **options) -> Path:
    return runs.run(
        profile, *args, **{"output": folder.parent / "run", "notebook_folder": folder} | options
    )


def record_of(output):
    return json.loads((output / "provenance.json").read_text())


def names_in(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


@pytest.fixture
def folder(tmp_path):
    """Notebooks 01_first and 02_second, a profile of the first, and a folder `run` beside."""
    folder = tmp_path / "note {books}"
    folder.mkdir()
    write_notebook(folder, "01_first", WRITE, parameters="steps = 5\nrate = 1.0\nphoto = None")
    write_notebook(folder, "02_second", "1", parameters="ev = 1\nsteps = 5\ndevice = ''")
    write_profile(folder, "  01_first:\n")
    return folder


ENVIRONMENT = """
import json, matplotlib, os, sys, tqdm
from pathlib import Path
list(tqdm.tqdm(range(3)))
found = {"cwd": os.getcwd(), "python": sys.executable, "values": [dataset, colour, rate, device]}
found |= {name: os.environ.get(name) for name in ("MPLBACKEND", "OMP_NUM_THREADS")}
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
deadline = time.monotonic() + 100
while not (folder / f"ev{-ev:+d}.txt").exists():
    assert time.monotonic() < deadline, "the other entry has not started"
    time.sleep(0.05)
"""


GOOD = """
  01_data: {parameters: {colour: blue, rate: 1.0e-5}, produces: [tables/*.json]}
  03_train_ev: {matrix: {ev: [1, -1]}, produces: ["weights/ev{ev:+d}.txt"]}
  08_last: {produces: [out.txt]}
"""


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Folder of notebooks, finished run, lines of progress."""
    folder, lines = tmp_path_factory.mktemp("good") / "notebooks", []
    folder.mkdir()
    defaults = "dataset = 'mini'\ncolour = 'red'\nrate = 1e-3\ndevice = None"
    julia = {"kernelspec": {"name": "julia-1.9", "display_name": "J", "language": "julia"}}
    write_notebook(folder, "01_data", ENVIRONMENT, parameters=defaults, metadata=julia)
    write_notebook(folder, "03_train_ev", TRAIN, parameters="ev = 1")
    write_notebook(folder, "08_last", WRITE)
    write_profile(folder, GOOD)
    kernel = folder.parent / "jupyter" / "kernels" / "python3"  # another Python as kernel: not used
    kernel.mkdir(parents=True)
    (kernel / "kernel.json").write_text('{"argv": ["/none"], "display_name": "", "language": ""}')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPLBACKEND", "agg")
        patch.setenv("JUPYTER_PATH", str(folder.parent / "jupyter"))
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            patch.delenv(name, raising=False)
        output = run_tiny(folder, jobs=2, device="cpu", progress=lines.append)
    return folder, output, lines


def test_run_executes_in_order_and_leaves_only_results(good):
    folder, output, lines = good
    executed = ["01_data", "03_train_ev_ev+1", "03_train_ev_ev-1", "08_last"]
    notebooks = [f"{name}.ipynb" for name in executed]
    assert names_in(output) == [*notebooks, "out.txt", "provenance.json", "tables", "weights"]
    assert lines[0] == f"4 executions into {output}"
    told = [line.split()[0] for line in lines[1:]]
    assert (told[0], sorted(told)) == ("01_data", executed)
    found = json.loads((output / "tables" / "found.json").read_text())
    assert Path(found["cwd"]) == folder.resolve()
    assert found["python"] == sys.executable  # not Jupyter's kernel, nor the file's Julia
    assert found["values"] == ["none", "blue", 1e-5, "cpu"]
    assert "inline" in found["MPLBACKEND"]  # not the caller's agg, or figures would be missing
    assert found["OMP_NUM_THREADS"] is None  # one notebook at a time has all cores
    cells = nbformat.read(output / "01_data.ipynb", as_version=4).cells
    printed = "".join(out.get("text", "") for cell in cells for out in cell.get("outputs", []))
    assert "wrote" in printed
    assert "100%" not in printed  # no progress bars
    share = str(max(1, provenance.usable_cores() // 2))
    assert [(output / "weights" / f"ev{ev:+d}.txt").read_text() for ev in (1, -1)] == [share] * 2


def test_provenance_of_a_run(good):
    folder, output, _ = good
    record = record_of(output)
    assert (record["profile"], record["dataset"], record["data_hashes"]) == ("tiny", "none", {})
    assert record["environment"]["version"] == replication.__version__
    assert record["weights_hash"] == chain_hash(load_chain(), WEIGHTS)
    assert record["notebooks"]["01_data"]["parameters"]["device"] == "cpu"
    entry = record["notebooks"]["03_train_ev_ev-1"]
    assert (entry["notebook"], entry["parameters"]) == ("03_train_ev", {"ev": -1})
    assert 0 < entry["seconds"] <= record["seconds"] + 0.1
    assert entry["produced"] == {"weights/ev-1.txt": sha256_file(output / "weights" / "ev-1.txt")}
    assert entry["executed_sha256"] == sha256_file(output / "03_train_ev_ev-1.ipynb")
    assert entry["source_sha256"] == execute.source_hash(folder / "03_train_ev.ipynb")
    for private in (folder.parent, Path.home()):
        assert str(private) not in (output / "provenance.json").read_text()


def test_a_run_of_some_notebooks_keeps_the_results_of_the_others(good, tmp_path, monkeypatch):
    folder, finished, _ = good
    again, output = [], tmp_path / "run"
    monkeypatch.setattr(runs, "execute", lambda tasks, *_: iter(again.extend(tasks) or ()))
    shutil.copytree(finished, output)
    old = record_of(output)["notebooks"]
    run_tiny(folder, ["08_last"], output=output)
    assert [task.name for task in again] == ["08_last"]
    old.pop("08_last")
    assert record_of(output)["notebooks"] == old
    write_profile(folder, "  08_last: {}\n", name="other")
    with pytest.raises(ReplicationError, match="holds a run of the profile 'tiny'"):
        run_tiny(folder, profile="other", output=output)


RECORD = '{"profile": "tiny", "notebooks": %s}'
RECORDS = ["{", "[]", RECORD % '{"a": {}}', RECORD % '{"a": 1}']


@pytest.mark.parametrize("record", RECORDS)
def test_a_damaged_record_is_refused(folder, record):
    files.write_json(folder.parent / "run" / "provenance.json", {}).write_text(record)
    with pytest.raises(ReplicationError, match="damaged; delete it"):
        run_tiny(folder)


def test_only_results_of_planned_notebooks_are_removed_and_a_run_is_locked(folder, monkeypatch):
    """Whatever the record names, other notebooks of the user stay."""
    output = folder.parent / "run"
    mine, old, outside = output / "notes.ipynb", output / "01_first.ipynb", folder / "01_first.ipynb"
    names = ("notes", "01_first", f"../{folder.name}/01_first", str(outside.with_suffix("")))
    entries = {name: {"notebook": "01_first"} for name in names}
    record = {"profile": "tiny", "notebooks": entries}
    for path in (mine, old, output / "provenance.json"):
        files.write_json(path, record)
    monkeypatch.setattr(runs, "execute", lambda *_: iter(()))
    with files.locked(output), pytest.raises(ReplicationError, match="in use by another"):
        run_tiny(folder)
    assert old.exists()
    run_tiny(folder)
    assert mine.exists()
    assert outside.exists()
    assert not old.exists()


# -------------------------------------------------------------------------------- what goes wrong


def test_failing_cell(folder):
    fail = "if n == 2:\n    raise ValueError('no light\\nat all')"
    write_notebook(folder, "02_bad", "1 + 1", fail, "2 + 2", parameters="n = 1")
    write_profile(folder, "  02_bad: {matrix: {n: [1, 2, 3]}}\n  02_second:\n")
    output = folder.parent / "run"
    output.mkdir()
    for name in ("02_bad_n+2", "02_bad_n+3", "02_second"):
        (output / f"{name}.ipynb").write_text("the result of an earlier run")
    with pytest.raises(ReplicationError) as caught:
        run_tiny(folder)
    where = f"see {output}/02_bad_n+2.failed.ipynb."
    assert str(caught.value) == f"Notebook 02_bad_n+2 failed in cell 4 (ValueError: no light); {where}"
    assert names_in(output) == ["02_bad_n+1.ipynb", "02_bad_n+2.failed.ipynb", "provenance.json"]
    cells = nbformat.read(output / "02_bad_n+2.failed.ipynb", as_version=4).cells
    assert "error" in {out.output_type for cell in cells for out in cell.get("outputs", [])}
    assert set(record_of(output)["notebooks"]) == {"02_bad_n+1"}


SILENT = {
    "ran to its end but did not write out.txt": "try:\n    1 / 0\nexcept Exception:\n    pass",
    "failed in cell 3 .*SystemExit": f"import sys\nsys.exit()\n{WRITE}",
    "failed in cell 3 .*Dead": f"import os\nos.kill(os.getpid(), 9)\n{WRITE}",
}


@pytest.mark.parametrize("message", SILENT)
def test_silent_failures_are_found_though_an_old_artefact_is_there(folder, message):
    write_notebook(folder, "01_silent", SILENT[message])
    write_profile(folder, "  01_silent: {produces: [out.txt]}\n")
    (folder.parent / "run").mkdir()
    (folder.parent / "run" / "out.txt").write_text("of an earlier run")
    with pytest.raises(ReplicationError, match=f"01_silent {message}"):
        run_tiny(folder)
    assert names_in(folder.parent / "run")[0] == "01_silent.failed.ipynb"


BOTH = "  01_first: {parameters: {steps: 6, rate: 2, photo: a.jpg}}\n  02_second:\n"
BAD_PROFILES = """
02_second: {parameters: {stpes: 5}}     > no parameter stpes; it has: ev, steps
03_third:                               > 03_third.ipynb: No such file
01_first: {parameters: {rate: 1e-3}}    > rate cannot be '1e-3'.*another type
01_first: {parameters: {steps: true}}   > steps cannot be True
01_first: {produces: ['ev{ev}.txt']}    > cannot fill in produces
01_first: {paramters: {}}               > .notebooks.*01_first.*'paramters' was unexpected
02_second: {matrix: {ev: []}}           > matrix.ev: ..
02_second: {matrix: {ev: [a/b]}}        > 'a/b' is not of type 'integer'
01_first: {parameters: {output_dir: x}} > no parameter output_dir
01_first: {produces: [../x]}            > '../x' does not match
01_first: {                             > YAML
010: {}                                 > 8 is not of type 'string'
"""
BAD_OPTIONS = [
    ({"parameters": {"photo": Path("a.jpg")}}, "photo cannot be"),
    ({"notebooks": ["03"]}, "tiny has no notebook '03'; it runs: 01_first, 02_second"),
    ({"parameters": {"stpes": 1}}, "No notebook of this run has a parameter stpes"),
    ({"notebooks": ["01_first"], "parameters": {"ev": 1}}, "No notebook .* ev"),
    ({"parameters": {"output_dir": "x"}}, "No notebook .* output_dir"),
    ({"device": "abacus"}, "abacus"),
    ({"profile": "tinny"}, "has no profile 'tinny'; it has: tiny"),
    ({"profile": "../profiles/tiny"}, "no profile '../profiles/tiny'"),
]
LINES = [line.split(">") for line in BAD_PROFILES.strip().splitlines()]
BAD = [(f"  {profile.strip()}\n", {}, message.strip()) for profile, message in LINES]
BAD += [(BOTH, options, message) for options, message in BAD_OPTIONS]
BAD += [("", {}, "notebooks: None is not of type 'object'"), ("a: x\n", {}, "'a' was")]


@pytest.mark.parametrize(("profile", "options", "message"), BAD)
def test_nothing_runs_when_anything_is_unknown_or_wrong(folder, profile, options, message):
    write_profile(folder, profile)
    with pytest.raises(ReplicationError, match=message) as caught:
        run_tiny(folder, **options)
    assert "\n" not in str(caught.value)
    assert not (folder.parent / "run").exists()


def test_parameters_replace_those_of_the_profile(folder):
    training = "{matrix: {ev: [1, -1]}, produces: ['{ev:+d}-{steps}.txt']}"
    write_profile(folder, f"  01_first: {{parameters: {{rate: 2}}}}\n  02_second: {training}\n")
    profile = runs.load_profile("tiny", folder=folder / "profiles")
    given = {"parameters": {"steps": 7, "ev": -3}, "device": "cuda:1"}
    tasks = runs.plan(profile, **given, notebook_folder=folder)
    assert [(task.name, task.parameters, task.produces) for task in tasks] == [
        ("01_first", {"rate": 2, "steps": 7}, ()),
        ("02_second_ev-3", {"device": "cuda:1", "steps": 7, "ev": -3}, ("-3-7.txt",)),
    ]
    tasks = runs.plan(profile, ["02_second", "01_first"], notebook_folder=folder)
    assert [task.name for task in tasks] == ["01_first", "02_second_ev+1", "02_second_ev-1"]


def test_a_recipe_is_trained_before_the_notebooks_that_use_its_weights(folder, monkeypatch):
    calls = []

    def run_recipe(path, output, **options):
        calls.append((path.name, output, options))
        return {1: files.write_json(output / "ev+1.safetensors", "weights")}

    monkeypatch.setattr(runs, "run_recipe", run_recipe)
    monkeypatch.setattr(runs, "execute", lambda tasks, *_: iter(calls.append(tasks[0].name) or ()))
    (folder / "mine.yaml").write_text("stages: []")
    write_notebook(folder, "06_use", WRITE, parameters="weights = 'reference'")
    write_profile(folder, "  01_first:\n  06_use: {parameters: {weights: run}}\nrecipe: ../mine.yaml\n")
    output = run_tiny(folder, ["01_first"])
    assert calls == ["01_first"]
    run_tiny(folder, ["06_use"], jobs=2, device="cpu")
    options = {"dataset": None, "jobs": 2, "device": "cpu"}
    assert calls[1:] == [("mine.yaml", output / "weights", options), "06_use"]
    hashes = {"+1": sha256_file(output / "weights/ev+1.safetensors")}
    assert record_of(output)["recipe"]["weights"] == hashes


GPUS = [(None, 4, None, ["0", "1", "0", "1"]), ("cuda", 2, "3,5", ["3", "5"]), (None, 1, None, [None])]
GPUS += [("cuda:1", 2, None, [None, None]), ("cpu", 2, "0", ["", ""])]


@pytest.mark.parametrize(("device", "jobs", "visible", "expected"), GPUS)
def test_executions_at_once_get_a_gpu_each(monkeypatch, device, jobs, visible, expected):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = [execute._environment("k", jobs, slot, device) for slot in range(jobs)]
    assert [one.get("CUDA_VISIBLE_DEVICES") for one in found] == expected


SLEEP = """
import os, subprocess, time
from pathlib import Path
child = subprocess.Popen(["sleep", "300"])
Path(output_dir, "part").write_text(f"{os.getpid()} {child.pid}")
os.replace(Path(output_dir, "part"), Path(output_dir, "pid"))
time.sleep(300)
"""


def test_stopped_runs_leave_nothing_running_and_nothing_half_written(folder):
    write_notebook(folder, "01_first", SLEEP)
    drivers, deadline = {}, time.monotonic() + 120
    code = "import sys; from replication import runs; from replication.__main__ import main; "
    code += f"runs.run.__kwdefaults__['notebook_folder'] = {str(folder)!r}; sys.exit(main(sys.argv[1:]))"
    # a shell's background job ignores Ctrl-C and would hand that on
    options = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), "text": True}
    for sent in (signal.SIGINT, signal.SIGTERM):
        start = [sys.executable, "-c", code, "run", "--profile", "tiny", "-o", str(folder / sent.name)]
        drivers[sent] = subprocess.Popen(start, stderr=-1, start_new_session=True, **options)
    for sent, driver in drivers.items():
        output = folder / sent.name
        while not (output / "pid").exists():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        pids = [int(pid) for pid in (output / "pid").read_text().split()]
        left = [psutil.Process(pid) for pid in pids]
        left += psutil.Process(driver.pid).children(recursive=True)
        driver.send_signal(sent)
        _, errors = driver.communicate(timeout=60)
        assert driver.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}[sent]
        assert re.fullmatch("error: .*\n", errors)
        while any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in left):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert names_in(output) == ["pid", "provenance.json"]
        assert record_of(output)["notebooks"] == {}


# ------------------------------------------------------------------- parameters and provenance


PLAIN = ["x = 1 + y", "import os", "x += 1", "x, y = 1, 2", "x: int", "f(", "x.y = 1"]
REFUSED = [(source, ["parameters"]) for source in PLAIN] + [("", []), ("", ["parameters"] * 2)]


@pytest.mark.parametrize(("source", "tags"), REFUSED)
def test_notebooks_whose_parameters_cannot_be_read(folder, source, tags):
    write_notebook(folder, "n", "x = 1", parameters=source)
    notebook = nbformat.read(folder / "n.ipynb", as_version=4)
    notebook.cells[1].metadata.tags = tags[:1]
    notebook.cells[2].metadata.tags = ["injected-parameters"] * len(tags[1:])  # saved from a run
    nbformat.write(notebook, folder / "n.ipynb")
    with pytest.raises(ReplicationError, match="one cell must be tagged 'parameters' and hold"):
        runs.notebook_parameters(folder / "n.ipynb")


def test_parse_parameters():
    given = ["ev=-1", "rate=1e-3", "photo=a=b.jpg", "empty="]
    assert runs.parse_parameters(given) == {"ev": -1, "rate": 1e-3, "photo": "a=b.jpg", "empty": ""}


def test_provenance_describes_code_and_machine(tmp_path):
    record = provenance.provenance(seed=3)
    path = files.write_json(tmp_path / "sub" / "p.json", record)
    with pytest.raises(ReplicationError, match=r"Cannot write .*not JSON serializable"):
        files.write_json(path, {1, 2})
    assert json.loads(path.read_text()) == record
    assert record["seed"] == 3
    assert record["packages"]["torch"] == torch.__version__
    assert None not in record["packages"].values()
    assert record["code_version"].startswith(replication.__version__)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", record["date"])
    assert (record["device"] == "cpu") == (not torch.cuda.is_available())


def test_code_version_follows_git(tmp_path, monkeypatch):
    def git(*words):
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        return subprocess.check_output(["git", *who, *words], cwd=tmp_path, text=True).strip()

    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    version, known = replication.__version__, provenance.code_version
    assert known() == f"{version}+unknown"
    git("init", "-q")
    assert known() == f"{version}+unknown"  # no commit yet
    (tmp_path / "replication").mkdir()
    for file in ("results", "replication/a"):
        (tmp_path / file).write_text("1")
    git("add", ".")
    git("commit", "-qm", "a")
    commit = git("rev-parse", "HEAD")[:12]
    (tmp_path / "replication" / "untracked").write_text("1")
    (tmp_path / "results").write_text("2")
    assert known() == f"{version}+g{commit}"
    (tmp_path / "replication" / "a").write_text("2")
    assert known() == f"{version}+g{commit}.dirty"
