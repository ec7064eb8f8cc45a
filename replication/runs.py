"""Run the notebooks headless, profile by profile, and record where every number comes from.

A profile (`notebooks/profiles/NAME.yaml`, checked by `schema.json` there) has these keys:

    description, minutes: one line, and the minutes on the machine that it names; null where not measured
    dataset: mini                  # given to every notebook that has a parameter `dataset`
    recipe: shipped                # optional: train OUTPUT/weights by this recipe before the notebooks
    notebooks:                     # executed in this order
      03_train_ev:
        parameters: {patches: 1000}
        matrix: {ev: [1, 2, 3, -1, -2, -3]}       # one execution per value, --jobs at a time
        produces: ["weights/ev{ev:+d}.safetensors"]    # globs; a notebook must write these anew
"""

from __future__ import annotations

import ast
import itertools
import json
import time
from collections.abc import Callable, Iterable, Mapping, Set
from contextlib import suppress
from operator import attrgetter
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from replication import files
from replication.data.stacks import dataset_hash, load_stacks
from replication.execute import INJECTED, Task, execute, read_notebook
from replication.fast import choose_device
from replication.files import NOTEBOOKS, RESULTS, ReplicationError, sha256_file, write_json
from replication.provenance import provenance
from replication.recipes import run_recipe
from replication.reconstruct import load_chain
from replication.weights import WEIGHTS, chain_hash


def notebook_parameters(path: str | Path) -> dict[str, Any]:
    """Default parameters of a notebook, name -> value: the assignments of its cell tagged `parameters`.

    ReplicationError if there is not one such cell (a notebook saved from a run has two), or it holds
    more than plain literals (a computed value would go stale).
    """
    cells, tags = read_notebook(path).cells, {"parameters", INJECTED}
    try:
        (cell,) = [cell for cell in cells if tags & set(cell.metadata.get("tags", []))]
        assigned = [(one.targets, one.value) for one in ast.parse(cell.source).body]
        return {name.id: ast.literal_eval(value) for names, value in assigned for name in names}
    except (SyntaxError, ValueError, AttributeError) as error:
        what = "one cell must be tagged 'parameters' and hold only NAME = plain literal"
        raise ReplicationError(f"{path}: {what}.") from error


def parse_parameters(assignments: Iterable[str]) -> dict[str, Any]:
    """Turn `["ev=1", "photo=my.jpg"]` into `{"ev": 1, "photo": "my.jpg"}`: literals, else text."""
    parameters = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals or not name.isidentifier():
            raise ReplicationError(f"A parameter is given as NAME=VALUE, not {assignment!r}.")
        parameters[name] = value
        with suppress(ValueError, SyntaxError):
            parameters[name] = ast.literal_eval(value)
    return parameters


def load_profile(name: str, *, folder: str | Path = NOTEBOOKS / "profiles") -> dict[str, Any]:
    """Read and check the profile `name`, a file `name.yaml` of `folder`; ReplicationError if it is wrong.

    Returns:
        Its keys with what was left out, and `name`, `sha256` of the file, `recipe` (path or None).
    """
    path = Path(folder) / f"{name}.yaml"
    if name not in (known := sorted(one.stem for one in Path(folder).glob("*.yaml"))):
        raise ReplicationError(f"{folder} has no profile {name!r}; it has: {', '.join(known)}.")
    try:
        profile = yaml.safe_load(path.read_text(encoding="utf-8"))
        jsonschema.validate(profile, json.loads((NOTEBOOKS / "profiles/schema.json").read_text()))
    except (yaml.YAMLError, UnicodeDecodeError, jsonschema.ValidationError) as error:
        where, what = getattr(error, "json_path", "YAML"), getattr(error, "message", error)
        raise ReplicationError(f"{path}, {where}: {' '.join(str(what).split())}.") from error
    empty = {"parameters": {}, "matrix": {}, "produces": []}
    profile["notebooks"] = {key: empty | (one or {}) for key, one in profile["notebooks"].items()}
    if recipe := profile.get("recipe"):
        recipe = files.SHIPPED / "recipe.yaml" if recipe == "shipped" else path.parent / recipe
    return profile | {"name": name, "sha256": sha256_file(path), "recipe": recipe}


def plan(
    profile: Mapping[str, Any],
    notebooks: Iterable[str] | None = None,
    *,
    parameters: Mapping[str, Any] | None = None,
    device: str | None = None,
    notebook_folder: str | Path = NOTEBOOKS,
) -> list[Task]:
    """Work out the executions of a profile; ReplicationError for unknown names and values of other types.

    Args:
        profile: From `load_profile`; `notebooks`, those to run, in its order (all by default).
        parameters: For every notebook that has such a parameter, instead of the profile's (a matrix too).
        device: The parameter `device` of those that have one; `notebook_folder`, where all are.
    """
    given, listed, tasks, used = dict(parameters or {}), profile["notebooks"], [], set()
    wanted, known = list(listed if notebooks is None else notebooks), ", ".join(listed)
    if unknown := [name for name in wanted if name not in listed]:
        raise ReplicationError(f"{profile['name']} has no notebook {unknown[0]!r}; it runs: {known}.")
    general = {"dataset": profile["dataset"]} | ({"device": device} if device else {})
    for notebook in (name for name in listed if name in wanted):
        path, entry = Path(notebook_folder) / f"{notebook}.ipynb", listed[notebook]
        defaults = notebook_parameters(path)
        defaults.pop("output_dir", None)  # the driver decides it
        used |= defaults.keys() & given.keys()
        shared = {key: value for key, value in general.items() if key in defaults}
        shared |= entry["parameters"] | {key: given[key] for key in defaults if key in given}
        matrix = {key: [given[key]] if key in used else v for key, v in entry["matrix"].items()}
        for values in itertools.product(*matrix.values()):
            point = dict(zip(matrix, values, strict=True))
            _check_parameters(mine := shared | point, defaults, path)
            try:
                name = "_".join([notebook, *(f"{key}{value:+d}" for key, value in point.items())])
                produces = tuple(one.format(**defaults | mine) for one in entry["produces"])
            except (LookupError, ValueError) as error:
                raise ReplicationError(f"{path}: cannot fill in produces ({error!r}).") from error
            rest = {key: value for key, value in defaults.items() if key not in mine}
            tasks.append(Task(name, notebook, mine, rest, produces))
    if unused := ", ".join(sorted(given.keys() - used)):
        raise ReplicationError(f"No notebook of this run has a parameter {unused}: {wanted}.")
    return tasks


def _check_parameters(given: Mapping[str, Any], defaults: Mapping[str, Any], path: Path) -> None:
    plain = (bool, int, float, str, list, dict, type(None))
    for name, value in given.items():
        if name not in defaults:
            raise ReplicationError(f"{path} has no parameter {name}; it has: {', '.join(defaults)}.")
        kind = type(defaults[name])
        if type(value) not in {float: (float, int), type(None): plain}.get(kind, (kind,)):
            what = f"cannot be {value!r}, its default {defaults[name]!r} is of another type"
            raise ReplicationError(f"{path}: parameter {name} {what} (YAML reads 1e-3 as text).")


def run(
    profile: str = "quick",
    notebooks: Iterable[str] | None = None,
    *,
    jobs: int = 1,
    output: str | Path | None = None,
    parameters: Mapping[str, Any] | None = None,
    device: str | None = None,
    notebook_folder: str | Path = NOTEBOOKS,
    progress: Callable[[str], object] = lambda line: None,
) -> Path:
    """Execute a profile's notebooks headless, in order, and record the provenance.

    Args:
        profile: Name of a profile; `parameters`, `device` and `notebook_folder` as in `plan`.
        notebooks: Only these notebooks; the results of the others in the run's folder stay.
        jobs: Executions of one notebook's matrix at once; they share the cores and get a GPU each.
        output: The run's folder, `results/runs/PROFILE` by default. It receives `NAME.ipynb` per
            execution, `provenance.json`, and what the notebooks write; it is returned.
        progress: Called with one line per execution.

    Raises:
        ReplicationError: Bad input (before anything runs), or a notebook failed (`NAME.failed.ipynb`).
    """
    started, folder = time.perf_counter(), Path(notebook_folder).resolve()
    settings, given = load_profile(profile, folder=folder / "profiles"), dict(parameters or {})
    choose_device(device)
    tasks = plan(settings, notebooks or None, parameters=given, device=device, notebook_folder=folder)
    output = Path(output or RESULTS / "runs" / profile).resolve()
    again = {task.notebook for task in tasks}
    done = _kept(output / "provenance.json", profile, settings["notebooks"].keys() - again)
    dataset, environment = given.get("dataset", settings["dataset"]), provenance()
    record = {"profile": profile, "description": settings["description"], "dataset": dataset}
    record |= {"profile_sha256": settings["sha256"], "environment": environment, "notebooks": done}
    record |= {"weights_hash": chain_hash(load_chain(), WEIGHTS), "data_hashes": {}}
    with suppress(ReplicationError):  # without the data set, a notebook that needs it will say so
        groups = itertools.groupby(load_stacks(dataset), attrgetter("dataset"))
        record["data_hashes"] = {name: dataset_hash(stacks) for name, stacks in groups}

    def note(line: str, **more: Any) -> None:
        record.update(more, seconds=round(time.perf_counter() - started, 1))
        write_json(output / "provenance.json", record)
        progress(line)

    with files.locked(output):
        note(f"{len(tasks)} executions into {output}")
        for task, suffix in itertools.product(tasks, (".ipynb", ".failed.ipynb")):
            (output / f"{task.name}{suffix}").unlink(missing_ok=True)
        recipe, weights = settings["recipe"], output / "weights"
        if recipe and any(task.parameters.get("weights") == "run" for task in tasks):
            made = run_recipe(recipe, weights, dataset=given.get("dataset"), jobs=jobs, device=device)
            hashes = {f"{ev:+d}": sha256_file(path) for ev, path in made.items()}
            note(f"{weights}", recipe={"sha256": sha256_file(recipe), "weights": hashes})
        for _, group in itertools.groupby(tasks, key=lambda task: task.notebook):
            for name, entry in execute(list(group), folder, output, jobs, device):
                done[name] = entry | {"code_version": environment["code_version"]}
                note(f"{name:<40s} {entry['seconds']:8.1f} s")
    return output


def _kept(path: Path, profile: str, stay: Set[str]) -> dict[str, dict]:
    """Entries of an earlier record of the profile, if there is one, of the notebooks that `stay`."""
    if not path.exists():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        known, done = record["profile"], record["notebooks"].items()
        kept = {name: entry for name, entry in done if entry["notebook"] in stay}
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ReplicationError(f"{path} is damaged; delete it and run anew.") from error
    if known != profile:
        raise ReplicationError(f"{path.parent} holds a run of the profile {known!r}; choose another.")
    return kept
