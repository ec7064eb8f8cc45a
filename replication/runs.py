"""Run the notebooks headless, profile by profile, and record where every number came from.

A *profile* (``notebooks/profiles/NAME.yaml``) lists notebooks in order, with their parameters::

    description: One line on what this profile does.
    dataset: mini                  # given to every notebook that has a parameter `dataset`
    minutes: 10                    # on the machine that `description` names
    notebooks:
      01_data:
        produces: [tables/table1.csv]
      03_train_ev:
        parameters: {epochs: 2}
        matrix: {ev: [1, 2, 3, -1, -2, -3]}       # run once per value, --jobs at a time
        produces: ["weights/ev{ev:+d}.safetensors"]

`produces` are globs below the run's folder; a notebook that did not write them anew has failed,
whatever its cells say. Every notebook has the parameter ``output_dir``, which the driver sets to
the run's folder. The folder also gets the executed notebooks and ``provenance.json``.
"""

from __future__ import annotations

import ast
import itertools
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from replication.data.stacks import DATASETS, dataset_hash, load_stacks
from replication.files import (
    NOTEBOOKS,
    RESULTS,
    ROOT,
    ReplicationError,
    atomic_path,
    sha256_file,
    write_json,
)
from replication.notebooks import (
    INJECTED,
    KERNEL,
    commit_notebooks,
    notebook_parameters,
    read_notebook,
    scrub,
    source_hash,
    tags_of,
)
from replication.provenance import code_version, provenance, usable_cores, utc_now, write_provenance
from replication.reconstruct import load_chain
from replication.weights import WEIGHTS, chain_hash

__all__ = [
    "Task",
    "code_version",
    "commit_notebooks",
    "load_profile",
    "notebook_parameters",
    "parse_parameters",
    "plan",
    "provenance",
    "run",
    "scrub",
    "write_provenance",
]

_PROFILE_KEYS = {"description": str, "dataset": str, "minutes": (int, float), "notebooks": dict}
_NOTEBOOK_KEYS = {"parameters": dict, "matrix": dict, "produces": list}
_PAPERMILL_NOTE = "papermill-error-cell-tag"


# ----------------------------------------------------------------------------------- profiles


class _StrictLoader(yaml.SafeLoader):
    """YAML's safe loader, but a key given twice is an error (YAML keeps the last silently)."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", node.start_mark
                )
        return super().construct_mapping(node, deep)


def load_profile(name: str, *, folder: str | Path | None = None) -> dict[str, Any]:
    """Read and check the profile `name`.

    Parameters
    ----------
    name : str
        File name without ``.yaml``.
    folder : path, optional
        Where the profiles are; ``notebooks/profiles`` unless given.

    Returns
    -------
    dict
        ``name``, ``description``, ``dataset``, ``minutes``, ``sha256`` (of the file) and
        ``notebooks``: notebook -> ``{"parameters": dict, "matrix": dict, "produces": list}``, in
        the order in which they run, with whatever was left out filled in empty.

    Raises
    ------
    ReplicationError
        Unknown profile (lists those that exist), bad YAML, or a key that is unknown, missing,
        given twice or of the wrong type.
    """
    folder = Path(folder or NOTEBOOKS / "profiles")
    path = folder / f"{name}.yaml"
    if not path.is_file():
        raise ReplicationError(
            f"There is no profile {name!r} in {folder}; there are: {_listed(folder, '*.yaml')}."
        )
    try:
        profile = yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ReplicationError(f"{path} is not valid YAML: {_one_line(error)}.") from error
    _check_keys(profile, _PROFILE_KEYS, set(_PROFILE_KEYS), f"{path}")
    if not profile["notebooks"]:
        raise ReplicationError(f"{path} lists no notebooks.")
    for notebook, entry in profile["notebooks"].items():
        where = f"{path}, notebook {notebook}"
        if not isinstance(notebook, str):  # YAML reads 010 as the number 8
            raise ReplicationError(f"{where}: the name must be text; put it in quotes.")
        entry = {} if entry is None else entry
        _check_keys(entry, _NOTEBOOK_KEYS, set(), where)
        entry = {key: entry.get(key, kind()) for key, kind in _NOTEBOOK_KEYS.items()}
        _check_entry(entry, where)
        profile["notebooks"][notebook] = entry
    return {"name": name, "sha256": sha256_file(path)} | profile


def _check_keys(mapping: Any, kinds: Mapping[str, Any], required: set[str], where: str) -> None:
    if not isinstance(mapping, dict):
        raise ReplicationError(f"{where}: expected the keys {', '.join(kinds)}.")
    if unknown := [str(key) for key in mapping if key not in kinds]:
        raise ReplicationError(
            f"{where}: unknown key {', '.join(unknown)}; known are: {', '.join(kinds)}."
        )
    if missing := sorted(required - mapping.keys()):
        raise ReplicationError(f"{where}: missing key {', '.join(missing)}.")
    for key, value in mapping.items():
        if not isinstance(value, kinds[key]) or isinstance(value, bool):
            raise ReplicationError(f"{where}: {key} cannot be {value!r}.")


def _check_entry(entry: dict[str, Any], where: str) -> None:
    for key, values in entry["matrix"].items():
        _check_matrix(key, values, where)
    if twice := sorted(entry["matrix"].keys() & entry["parameters"].keys()):
        raise ReplicationError(f"{where}: {', '.join(twice)} is both a parameter and a matrix.")
    if "output_dir" in entry["matrix"].keys() | entry["parameters"].keys():
        raise ReplicationError(f"{where}: output_dir is set by the driver, not by a profile.")
    for pattern in entry["produces"]:
        below = isinstance(pattern, str) and pattern and not Path(pattern).is_absolute()
        if not below or ".." in Path(pattern).parts:
            raise ReplicationError(
                f"{where}: produces must list paths below the run's folder, not {pattern!r}."
            )


def _check_matrix(key: str, values: Any, where: str) -> None:
    plain = isinstance(values, list) and all(  # as they become part of file names
        isinstance(value, int | str) and re.fullmatch(r"[\w+-]+", str(value)) for value in values
    )
    if not plain or not values or len(set(values)) < len(values):
        raise ReplicationError(
            f"{where}: matrix {key} must list different whole numbers or words, not {values!r}."
        )


def _listed(folder: Path, pattern: str) -> str:
    return ", ".join(sorted(path.stem for path in folder.glob(pattern))) or "none"


def _one_line(error: BaseException | str) -> str:
    return " ".join(str(error).split()).rstrip(".")


# ----------------------------------------------------------------------------------- planning


@dataclass(frozen=True)
class Task:
    """One execution of one notebook.

    Attributes
    ----------
    name : str
        Name of the result: the notebook's, with the matrix values (``03_train_ev_ev+1``).
    notebook : str
        The notebook's file name without ``.ipynb``.
    parameters : dict
        What the driver passes, ``output_dir`` apart.
    defaults : dict
        The notebook's other parameters, such as its seed.
    produces : tuple of str
        Globs below the run's folder; each must match a file that the execution wrote.
    source_sha256 : str
        Hash of the notebook's cells, their outputs apart.
    """

    name: str
    notebook: str
    parameters: dict[str, Any]
    defaults: dict[str, Any]
    produces: tuple[str, ...]
    source_sha256: str


def plan(
    profile: Mapping[str, Any],
    notebooks: Iterable[str] | None = None,
    *,
    parameters: Mapping[str, Any] | None = None,
    notebook_folder: str | Path = NOTEBOOKS,
) -> list[Task]:
    """Work out the executions that a profile asks for, and check them all before any is run.

    Parameters
    ----------
    profile : mapping
        From :func:`load_profile`.
    notebooks : iterable of str, optional
        Only these notebooks of the profile (its order counts, not theirs).
    parameters : mapping, optional
        Values that replace those of the profile in every notebook that has such a parameter; a
        value for a matrix parameter replaces the whole list.
    notebook_folder : path
        Where the notebooks are.

    Returns
    -------
    list of Task
        In order of execution; the tasks of one notebook are independent of one another.

    Raises
    ------
    ReplicationError
        Unknown notebook (lists those that exist), a parameter that a notebook does not have, a
        value of another type than the notebook's own, or a bad pattern in `produces`.
    """
    if "output_dir" in (parameters or {}):
        raise ReplicationError("The parameter output_dir is the run's folder: give that instead.")
    folder = Path(notebook_folder)
    listed = profile["notebooks"]
    wanted = list(listed if notebooks is None else notebooks)
    for notebook in wanted:
        if notebook not in listed:
            raise ReplicationError(
                f"Profile {profile['name']!r} has no notebook {notebook!r}; it runs: "
                f"{', '.join(listed)}."
            )
        if not (folder / f"{notebook}.ipynb").is_file():
            raise ReplicationError(
                f"There is no notebook {notebook!r} in {folder}; there are: "
                f"{_listed(folder, '*.ipynb')}."
            )
    tasks, used = [], set()
    for notebook in (name for name in listed if name in wanted):
        path = folder / f"{notebook}.ipynb"
        defaults = notebook_parameters(path)
        entry = listed[notebook]
        override = {key: value for key, value in (parameters or {}).items() if key in defaults}
        used |= override.keys()
        shared = {"dataset": profile["dataset"]} if "dataset" in defaults else {}
        matrix = {
            key: [override[key]] if key in override else values
            for key, values in entry["matrix"].items()
        }
        for key, values in matrix.items():
            _check_matrix(key, values, str(path))
        for values in itertools.product(*matrix.values()):
            point = dict(zip(matrix, values, strict=True))
            given = shared | entry["parameters"] | override | point
            _check_parameters(given | {"output_dir": ""}, defaults, path)
            suffix = "".join(
                f"_{key}{value:+d}" if isinstance(value, int) else f"_{key}-{value}"
                for key, value in point.items()
            )
            try:
                produces = tuple(
                    pattern.format(**defaults | given) for pattern in entry["produces"]
                )
            except (KeyError, IndexError, ValueError) as error:
                raise ReplicationError(
                    f"Profile {profile['name']!r}, notebook {notebook}: cannot fill in produces "
                    f"({type(error).__name__}: {_one_line(error)})."
                ) from error
            kept = {
                name: value
                for name, value in defaults.items()
                if name not in given and name != "output_dir"
            }
            tasks.append(
                Task(notebook + suffix, notebook, given, kept, produces, source_hash(path))
            )
    if unused := sorted((parameters or {}).keys() - used):
        raise ReplicationError(
            f"No notebook of this run has a parameter {', '.join(unused)} ({', '.join(wanted)})."
        )
    return tasks


def parse_parameters(assignments: Iterable[str]) -> dict[str, Any]:
    """Turn ``["ev=1", "photo=my.jpg"]`` into ``{"ev": 1, "photo": "my.jpg"}``.

    A value that reads as a Python literal (``1e-3``, ``True``, ``[1, 2]``) is one, anything else
    is text. Raises ReplicationError for anything but NAME=VALUE.
    """
    parameters = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals or not name.isidentifier():
            raise ReplicationError(f"A parameter is given as NAME=VALUE, not {assignment!r}.")
        try:
            parameters[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            parameters[name] = value
    return parameters


def _check_parameters(given: Mapping[str, Any], defaults: Mapping[str, Any], path: Path) -> None:
    if unknown := [name for name in given if name not in defaults]:
        raise ReplicationError(
            f"{path} has no parameter {', '.join(unknown)}; it has: {', '.join(defaults)}."
        )
    for name, value in given.items():
        default = defaults[name]
        same = type(value) is type(default) or (type(value), type(default)) == (int, float)
        if default is None and isinstance(value, bool | int | float | str | list | dict | None):
            same = True
        if not same:
            raise ReplicationError(
                f"{path}: parameter {name} cannot be {value!r}, its default {default!r} is of "
                f"another type (YAML reads 1e-3 as text: write 1.0e-3)."
            )


# ------------------------------------------------------------------------------------ running


def run(
    profile: str = "quick",
    notebooks: Iterable[str] | None = None,
    *,
    from_notebook: str | None = None,
    jobs: int = 1,
    output: str | Path | None = None,
    parameters: Mapping[str, Any] | None = None,
    notebook_folder: str | Path = NOTEBOOKS,
    profile_folder: str | Path | None = None,
) -> Path:
    """Execute a profile's notebooks headless, in order, and record the provenance.

    Each notebook is executed by papermill in a process of its own, in the notebooks' folder, with
    the running Python. Results of an earlier run that are about to be replaced are removed first,
    so that what is there afterwards is from this run. One line is printed per notebook.

    Parameters
    ----------
    profile : str
        Name of the profile.
    notebooks : iterable of str, optional
        Only these notebooks; the results of others that are in the run's folder stay.
    from_notebook : str, optional
        Resume: keep the results of the notebooks before this one, which must be there.
    jobs : int
        How many entries of one notebook's matrix run at once; each gets its share of the cores.
    output : path, optional
        The run's folder, ``results/runs/PROFILE`` unless given.
    parameters : mapping, optional
        Replace parameters of the profile; see :func:`plan`.
    notebook_folder, profile_folder : path
        Where the notebooks are, and the profiles (its ``profiles`` unless given).

    Returns
    -------
    Path
        The run's folder: ``NAME.ipynb`` per execution, ``provenance.json``, and what they wrote.

    Raises
    ------
    ReplicationError
        Bad profile, notebook or parameter (before anything is run), a kernel that is not the
        running Python, a failing cell, or a promised file that was not written. The notebook that
        failed is kept as ``NAME.failed.ipynb`` with its error, never as ``NAME.ipynb``.
    """
    started = time.perf_counter()
    notebook_folder = Path(notebook_folder).resolve()
    settings = load_profile(profile, folder=profile_folder or notebook_folder / "profiles")
    notebooks = list(notebooks or []) or None
    if notebooks and from_notebook:
        raise ReplicationError("Give either notebooks or one to resume from, not both.")
    if isinstance(jobs, bool) or not isinstance(jobs, int) or jobs < 1:
        raise ReplicationError(f"The number of jobs must be a whole number from 1, not {jobs!r}.")
    tasks = plan(settings, notebooks, parameters=parameters, notebook_folder=notebook_folder)
    _check_kernel()

    output = Path(output or RESULTS / "runs" / profile).resolve()
    record = _read_record(output, profile)
    done = record.get("notebooks", {})
    if from_notebook:
        order = list(settings["notebooks"])
        if from_notebook not in order:
            raise ReplicationError(
                f"Profile {profile!r} has no notebook {from_notebook!r}; it runs: "
                f"{', '.join(order)}."
            )
        kept = order[: order.index(from_notebook)]
        for task in (task for task in tasks if task.notebook in kept):
            _check_kept(task, done, output, from_notebook)
        tasks = [task for task in tasks if task.notebook not in kept]
        done = {name: entry for name, entry in done.items() if entry["notebook"] in kept}
    elif notebooks:
        done = {name: entry for name, entry in done.items() if entry["notebook"] not in notebooks}
    else:
        done = {}
    stale = {*record.get("notebooks", {}), *(task.name for task in tasks)} - done.keys()
    record = {
        "profile": profile,
        "description": settings["description"],
        "dataset": settings["dataset"],
        "profile_sha256": settings["sha256"],
        "environment": provenance(),
        "seconds": 0.0,
        "notebooks": done,
    }
    write_json(output / "provenance.json", record)
    for name, suffix in itertools.product(stale, (".ipynb", ".failed.ipynb")):
        (output / f"{name}{suffix}").unlink(missing_ok=True)

    def finished(name: str, entry: dict[str, Any]) -> None:
        done[name] = entry | {"code_version": record["environment"]["code_version"]}
        record["seconds"] = round(time.perf_counter() - started, 1)
        write_json(output / "provenance.json", record)

    for _, group in itertools.groupby(tasks, key=lambda task: task.notebook):
        _run_group(list(group), notebook_folder, output, jobs, finished)
    write_json(output / "provenance.json", record | _inputs(settings["dataset"]))
    return output


def _inputs(dataset: str) -> dict[str, Any]:
    """Hashes of what a run has read: its pictures and the shipped weights."""
    hashes = {}
    if dataset in DATASETS:
        with suppress(ReplicationError):  # absent, and no notebook needed it
            stacks = load_stacks(dataset)
            for name in sorted({stack.dataset for stack in stacks}):
                hashes[name] = dataset_hash(one for one in stacks if one.dataset == name)
    return {"data_hashes": hashes, "weights_hash": chain_hash(load_chain(), WEIGHTS)}


def _read_record(output: Path, profile: str) -> dict[str, Any]:
    path = output / "provenance.json"
    if not path.exists():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        found = record["profile"]
        _ = [entry["notebook"] for entry in record["notebooks"].values()]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReplicationError(f"{path} is damaged; delete it and run anew.") from error
    if found != profile:
        raise ReplicationError(
            f"{output} holds a run of the profile {found!r}; give {profile!r} another folder."
        )
    return record


def _check_kept(task: Task, done: Mapping[str, Any], output: Path, from_notebook: str) -> None:
    where = f"Cannot resume from {from_notebook} in {output}: {task.name}"
    entry = done.get(task.name)
    if entry is None or not (output / f"{task.name}.ipynb").is_file():
        raise ReplicationError(f"{where} has not been run there yet.")
    if entry["parameters"] != task.parameters:
        raise ReplicationError(
            f"{where} was run with {entry['parameters']}, not with {task.parameters}."
        )
    if lost := [name for name in entry["produced"] if not (output / name).is_file()]:
        raise ReplicationError(f"{where} has lost its file {lost[0]}.")


def _check_kernel() -> None:
    """Raise unless the kernel ``python3`` starts the Python that is running now."""
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    try:
        spec = KernelSpecManager().get_kernel_spec(KERNEL)
    except NoSuchKernel as error:
        raise ReplicationError(
            f"Jupyter has no kernel {KERNEL!r}; install ipykernel into this environment."
        ) from error
    command = spec.argv[0]
    own_names = {f"python{part}" for part in ("", "3", f"3.{sys.version_info.minor}")}
    if command in own_names:  # jupyter_client then starts sys.executable
        return
    kernel, running = Path(command), Path(sys.executable)
    # An environment's python is a link to the base one, so the folder decides, not the target.
    if kernel.parent != running.parent or os.path.realpath(kernel) != os.path.realpath(running):
        raise ReplicationError(
            f"Jupyter's kernel {KERNEL!r} ({spec.resource_dir}) starts {command}, not the running "
            f"{running}; remove it, or run 'python -m ipykernel install --sys-prefix'."
        )


class _Children:
    """The processes that execute notebooks now; closed, it starts no more."""

    def __init__(self) -> None:
        self.live: set[subprocess.Popen] = set()
        self.closed = False
        self.lock = threading.Lock()

    def call(self, order: Mapping[str, Any], environment: Mapping[str, str]) -> str:
        """Let a child carry out `order`; return what went wrong, or an empty text."""
        # A process of its own, because papermill changes the working directory.
        command = [sys.executable, "-P", "-c", "from replication.runs import _child; _child()"]
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        with self.lock:
            if self.closed:
                raise CancelledError
            process = subprocess.Popen(command, env=environment, text=True, **pipes)
            self.live.add(process)
        with process:
            answer, noise = process.communicate(json.dumps(order))
        self.live.discard(process)
        if process.returncode != 0 and not answer:
            last = (noise.strip().splitlines() or ["no message"])[-1]
            answer = f"was stopped (exit code {process.returncode}: {last})"
        self.closed |= bool(answer)
        return answer

    def stop(self) -> None:
        """End all of them; their kernels notice and end by themselves."""
        with self.lock:
            self.closed = True
            running = list(self.live)
        for process in running:
            process.terminate()
        deadline = time.monotonic() + 5
        for process in running:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()


def _run_group(
    tasks: list[Task],
    folder: Path,
    output: Path,
    jobs: int,
    finished: Callable[[str, dict[str, Any]], None],
) -> None:
    """Execute the tasks, `jobs` at a time, and tell `finished` of each that succeeds.

    After a failure no further one starts, those under way are finished, then the error is raised.
    """
    workers = min(jobs, len(tasks))
    environment = _kernel_environment(workers)
    children = _Children()
    errors = []
    with ThreadPoolExecutor(workers) as pool:
        try:
            futures = {
                pool.submit(_run_task, task, folder, output, environment, children): task.name
                for task in tasks
            }
            for future in as_completed(futures):
                try:
                    finished(futures[future], future.result())
                except CancelledError:
                    continue
                except ReplicationError as error:
                    errors.append(error)
        except BaseException:  # Ctrl-C above all: stop what runs, then let it through
            children.stop()
            raise
    if errors:
        raise errors[0]


def _kernel_environment(workers: int) -> dict[str, str]:
    environment = dict(os.environ)
    environment.pop("MPLBACKEND", None)  # otherwise figures are missing from the notebook
    environment["TQDM_DISABLE"] = "1"
    path = [str(ROOT), *filter(None, [environment.get("PYTHONPATH")])]
    environment["PYTHONPATH"] = os.pathsep.join(path)
    if workers > 1:
        share = max(1, usable_cores() // workers)
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            asked = environment.get(name, "")
            environment[name] = str(min(share, int(asked)) if asked.isdigit() else share)
    return environment


def _run_task(
    task: Task, folder: Path, output: Path, environment: Mapping[str, str], children: _Children
) -> dict[str, Any]:
    """Execute one notebook and check what it wrote; return its record."""
    result, failed = output / f"{task.name}.ipynb", output / f"{task.name}.failed.ipynb"
    before = {pattern: _files(output, pattern) for pattern in task.produces}
    started = time.perf_counter()
    with atomic_path(result) as part:
        order = {
            "source": str(folder / f"{task.notebook}.ipynb"),
            "part": str(part),
            "parameters": task.parameters | {"output_dir": str(output)},
            "cwd": str(folder),
        }
        problem = children.call(order, environment)
        produced = {}
        for pattern in task.produces:
            new = dict(_files(output, pattern).items() - before[pattern].items())
            produced |= new
            if not problem and not new:
                problem = f"ran to its end but did not write {pattern}"
                children.closed = True
        seconds = round(time.perf_counter() - started, 1)
        if problem:
            kept = f"see {failed}"
            try:
                os.replace(part, failed)
            except FileNotFoundError:
                kept = "nothing of it was executed"
            print(f"{task.name:<40s} failed after {seconds:.1f} s", flush=True)
            raise ReplicationError(f"Notebook {task.name} {_one_line(problem)}; {kept}.")
    print(f"{task.name:<40s} {seconds:8.1f} s", flush=True)
    return {
        "notebook": task.notebook,
        "parameters": task.parameters,
        "defaults": task.defaults,
        "seconds": seconds,
        "finished": utc_now(),
        "source_sha256": task.source_sha256,
        "executed_sha256": sha256_file(result),
        "produced": {name: sha256_file(output / name) for name in sorted(produced)},
    }


def _files(output: Path, pattern: str) -> dict[str, tuple[int, int]]:
    """Files that match and are not empty, with what changes when one is written anew."""
    found = {}
    for path in output.glob(pattern):
        if path.name.startswith("."):
            continue  # another notebook's file in the making
        with suppress(FileNotFoundError):
            state = path.stat()
            if path.is_file() and state.st_size:
                found[path.relative_to(output).as_posix()] = state.st_mtime_ns, state.st_ino
    return found


def _child() -> None:
    """Execute the notebook that standard input orders; say on standard output what went wrong."""
    import logging
    import signal
    import warnings

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets Ctrl-C, too, and ends us
    report = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever the kernel prints past Jupyter must not look like a report
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    problem = _execute(**json.loads(sys.stdin.read()))
    if problem:
        report.write(problem)
        report.close()
        sys.exit(2)


def _execute(source: str, part: str, parameters: dict[str, Any], cwd: str) -> str | None:
    """Execute a notebook by papermill into `part`; return what went wrong, if anything."""
    import papermill
    from papermill.exceptions import PapermillExecutionError

    try:
        papermill.execute_notebook(
            *(path.replace("{", "{{").replace("}", "}}") for path in (source, part)),
            parameters=parameters,
            kernel_name=KERNEL,
            language="python",
            progress_bar=False,
            cwd=cwd,
        )
        problem = None
    except PapermillExecutionError as error:
        problem = f"{error.ename}: {error.evalue}"
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
    if not Path(part).exists():
        return f"could not be started ({problem})"
    cells = [  # numbered as in the notebook itself, from 1
        cell
        for cell in read_notebook(part).cells
        if not {INJECTED, _PAPERMILL_NOTE} & set(tags_of(cell))
    ]
    if problem is None:
        for number, cell in enumerate(cells, 1):
            if cell.cell_type == "code" and cell.source.strip() and not cell.execution_count:
                return f"ended early, before cell {number}"
        return None
    begun = [bool(cell.metadata.get("papermill", {}).get("start_time")) for cell in cells]
    first_line = (problem.strip(": \n").splitlines() or [""])[0]
    return f"failed in cell {max(1, sum(begun))} ({first_line})"
