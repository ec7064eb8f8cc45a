"""Run the notebooks headless, profile by profile, and record where every number comes from.

A profile (`notebooks/profiles/NAME.yaml`, checked by `schema.json` there) lists notebooks in order:

    description: One line on what this profile does.
    dataset: mini                  # given to every notebook that has a parameter `dataset`
    minutes: 10                    # on the machine that `description` names; null where not measured
    recipe: shipped                # optional: train OUTPUT/weights by this recipe before the notebooks
    notebooks:
      01_data:
        produces: [tables/table1.csv]
      03_train_ev:
        parameters: {patches: 1000}
        matrix: {ev: [1, 2, 3, -1, -2, -3]}       # one execution per value, --jobs at a time
        produces: ["weights/ev{ev:+d}.safetensors"]

`produces` are globs below the run's folder; a notebook that did not write them anew has failed. The driver
sets the parameter `output_dir` of every notebook to the run's folder.
"""

from __future__ import annotations

import ast
import hashlib
import itertools
import json
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from replication import files
from replication.data.stacks import DATASETS, dataset_hash, load_stacks
from replication.execute import INJECTED, Task, execute, own_cells, read_notebook
from replication.fast import choose_device
from replication.files import NOTEBOOKS, RESULTS, ReplicationError, sha256_file, write_json
from replication.provenance import provenance
from replication.recipes import run_recipe
from replication.reconstruct import load_chain
from replication.weights import WEIGHTS, chain_hash


def notebook_parameters(path: str | Path) -> dict[str, Any]:
    """Default parameters of a notebook, name -> value: the assignments of its cell tagged `parameters`.

    Raises:
        ReplicationError: The notebook cannot be read, was saved from a run, has not exactly one such cell,
            or the cell holds more than plain literals (a computed value would go stale).
    """
    cells = [(cell.metadata.get("tags", []), cell.source) for cell in read_notebook(path).cells]
    if any(INJECTED in tags for tags, _ in cells):
        raise ReplicationError(f"{path} holds injected parameters; it was saved from a run.")
    tagged = [source for tags, source in cells if "parameters" in tags]
    if len(tagged) != 1:
        raise ReplicationError(f"{path} has {len(tagged)} cells tagged 'parameters', not one.")
    parameters = {}
    try:
        for node in ast.parse(tagged[0]).body:
            (target,) = node.targets
            parameters[target.id] = ast.literal_eval(node.value)
    except (SyntaxError, ValueError, TypeError, AttributeError) as error:
        what = "may hold only NAME = plain literal, one parameter each"
        raise ReplicationError(f"{path}: the cell tagged 'parameters' {what}.") from error
    return parameters


def source_hash(path: str | Path) -> str:
    """SHA-256 of a notebook's cells without outputs, 64 hex digits."""
    cells = [[cell.cell_type, cell.source] for cell in own_cells(read_notebook(path))]
    return hashlib.sha256(json.dumps(cells).encode()).hexdigest()


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


class _StrictLoader(yaml.SafeLoader):
    """YAML's safe loader, but keys must be text and different."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if not isinstance(key, str) or keys.count(key) > 1:  # YAML reads 010 as the number 8
                raise yaml.YAMLError(f"the key {key!r} is given twice or is no text (use quotes)")
        return super().construct_mapping(node, deep)


def load_profile(name: str, *, folder: str | Path = NOTEBOOKS / "profiles") -> dict[str, Any]:
    """Read and check the profile `name` (no path), a file `name.yaml` of `folder`.

    Returns:
        Its keys, and `name`, `sha256` of the file, `recipe` (path or None); `notebooks` maps
        name -> {"parameters", "matrix", "produces"}, in order, with what was left out filled in.

    Raises:
        ReplicationError: Unknown profile, bad YAML, or a wrong key or value.
    """
    path = Path(folder) / f"{name}.yaml"
    if Path(name).name != name or not path.is_file():
        raise ReplicationError(f"There is no profile {name!r}; {_there_are(folder, '*.yaml')}.")
    try:
        profile = yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ReplicationError(f"{path} is not valid YAML: {_one_line(error)}.") from error
    _check(profile, "", path)
    for notebook, entry in profile["notebooks"].items():
        entry = {"parameters": {}, "matrix": {}, "produces": []} | (entry or {})
        if twice := entry["matrix"].keys() & entry["parameters"].keys():
            raise ReplicationError(
                f"{path}, {notebook}: {sorted(twice)} is both parameter and matrix."
            )
        profile["notebooks"][notebook] = entry
    if recipe := profile.get("recipe"):
        recipe = files.SHIPPED / "recipe.yaml" if recipe == "shipped" else path.parent / recipe
    return profile | {"name": name, "sha256": sha256_file(path), "recipe": recipe}


def _check(value: Any, part: str, where: str | Path) -> None:
    """Raise unless a value fits the schema of profiles, or one of its named parts."""
    schema = json.loads((NOTEBOOKS / "profiles" / "schema.json").read_text())
    schema = schema["$defs"][part] if part else schema
    errors = jsonschema.Draft202012Validator(schema).iter_errors(value)
    if error := jsonschema.exceptions.best_match(errors):
        place = ", ".join([str(where), *map(str, error.absolute_path)])
        raise ReplicationError(f"{place}: {_one_line(error.message)}.")


def _there_are(folder: str | Path, pattern: str) -> str:
    names = ", ".join(sorted(path.stem for path in Path(folder).glob(pattern))) or "none"
    return f"in {folder} there are: {names}"


def _one_line(error: BaseException | str) -> str:
    return " ".join(str(error).split()).rstrip(".")


def plan(
    profile: Mapping[str, Any],
    notebooks: Iterable[str] | None = None,
    *,
    parameters: Mapping[str, Any] | None = None,
    device: str | None = None,
    notebook_folder: str | Path = NOTEBOOKS,
) -> list[Task]:
    """Work out the executions of a profile, and check them all before any runs.

    Args:
        profile: From `load_profile`.
        notebooks: Only these notebooks, in the profile's order; all by default.
        parameters: Replace those of the profile in every notebook that has such a parameter; a value for
            a matrix parameter replaces the whole list.
        device: For every notebook that has a parameter `device`.
        notebook_folder: Where the notebooks are.

    Raises:
        ReplicationError: Unknown notebook or parameter, or a value of another type than the default.
    """
    given, listed, folder = dict(parameters or {}), profile["notebooks"], Path(notebook_folder)
    if "output_dir" in given:
        raise ReplicationError("The parameter output_dir is the run's folder: give that instead.")
    wanted = list(listed if notebooks is None else notebooks)
    for notebook in wanted:
        _check_listed(notebook, profile)
    general = {"dataset": profile["dataset"]} | ({"device": device} if device else {})
    tasks, used = [], set()
    for notebook in (name for name in listed if name in wanted):
        path, entry = folder / f"{notebook}.ipynb", listed[notebook]
        if not path.is_file():
            there = _there_are(folder, "*.ipynb")
            raise ReplicationError(f"There is no notebook {notebook!r}; {there}.")
        defaults = notebook_parameters(path)
        override = {key: value for key, value in given.items() if key in defaults}
        used |= override.keys()
        shared = {key: value for key, value in general.items() if key in defaults}
        shared |= entry["parameters"] | override
        matrix = entry["matrix"] | {k: [v] for k, v in override.items() if k in entry["matrix"]}
        for key, values in matrix.items():
            _check(values, "matrix", f"{path}, {key}")
        for values in itertools.product(*matrix.values()):
            point, name = dict(zip(matrix, values, strict=True)), notebook
            mine = shared | point
            _check_parameters(mine | {"output_dir": ""}, defaults, path)
            for key, value in point.items():
                name += f"_{key}{value:+d}" if isinstance(value, int) else f"_{key}-{value}"
            try:
                produces = tuple(one.format(**defaults | mine) for one in entry["produces"])
            except (KeyError, IndexError, ValueError) as error:
                raise ReplicationError(f"{path}: cannot fill in produces ({error!r}).") from error
            rest = {k: v for k, v in defaults.items() if k not in mine and k != "output_dir"}
            tasks.append(Task(name, notebook, mine, rest, produces, source_hash(path)))
    if unused := ", ".join(sorted(given.keys() - used)):
        raise ReplicationError(f"No notebook of this run has a parameter {unused}: {wanted}.")
    return tasks


def _check_listed(notebook: str, profile: Mapping[str, Any]) -> None:
    if notebook not in profile["notebooks"]:
        known = ", ".join(profile["notebooks"])
        raise ReplicationError(f"{profile['name']} has no notebook {notebook!r}; it runs: {known}.")


def _check_parameters(given: Mapping[str, Any], defaults: Mapping[str, Any], path: Path) -> None:
    if unknown := ", ".join(name for name in given if name not in defaults):
        raise ReplicationError(f"{path} has no parameter {unknown}; it has: {', '.join(defaults)}.")
    plain = (bool, int, float, str, list, dict, type(None))
    for name, value in given.items():
        kind = type(defaults[name])
        known = {float: (float, int), type(None): plain}.get(kind, (kind,))
        if type(value) not in known:
            what = f"cannot be {value!r}, its default {defaults[name]!r} is of another type"
            raise ReplicationError(f"{path}: parameter {name} {what} (YAML reads 1e-3 as text).")


def run(
    profile: str = "quick",
    notebooks: Iterable[str] | None = None,
    *,
    from_notebook: str | None = None,
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
        from_notebook: Resume: keep the results of the notebooks before this one, which must be there.
        jobs: Executions of one notebook's matrix at once; they share the cores and get a GPU each.
        output: The run's folder, `results/runs/PROFILE` by default.
        progress: Called with one line per execution.

    Returns:
        The run's folder: `NAME.ipynb` per execution, `provenance.json`, and what the notebooks wrote.

    Raises:
        ReplicationError: Bad input (before anything runs), a failing cell, or a promised file that was
            not written; the notebook with its error is then `NAME.failed.ipynb`.
    """
    started, folder = time.perf_counter(), Path(notebook_folder).resolve()
    settings = load_profile(profile, folder=folder / "profiles")
    if notebooks and from_notebook:
        raise ReplicationError("Give either notebooks or one to resume from, not both.")
    if jobs < 1:
        raise ReplicationError(f"The number of jobs must be at least 1, not {jobs}.")
    if device:
        choose_device(device)
    again = wanted = list(notebooks or settings["notebooks"])
    if from_notebook:
        _check_listed(from_notebook, settings)
        again = wanted[wanted.index(from_notebook) :]
    tasks = plan(settings, wanted, parameters=parameters, device=device, notebook_folder=folder)
    output = Path(output or RESULTS / "runs" / profile).resolve()
    done = _kept(output, settings, tasks, again, bool(from_notebook))
    tasks = [task for task in tasks if task.notebook in again]
    record = {"profile": profile, "description": settings["description"]}
    record |= {"dataset": settings["dataset"], "profile_sha256": settings["sha256"]}
    record |= {"environment": provenance(), "notebooks": done}

    def note(line: str = "", **more: Any) -> None:
        record.update(more, seconds=round(time.perf_counter() - started, 1))
        write_json(output / "provenance.json", record)
        if line:
            progress(line)

    with files.locked(output):
        note()
        for task, suffix in itertools.product(tasks, (".ipynb", ".failed.ipynb")):
            (output / f"{task.name}{suffix}").unlink(missing_ok=True)
        recipe, weights = settings["recipe"], output / "weights"
        if recipe and any(task.parameters.get("weights") == "run" for task in tasks):
            options = {"dataset": (parameters or {}).get("dataset"), "jobs": jobs, "device": device}
            made = run_recipe(recipe, weights, **options)
            hashes = {f"{ev:+d}": sha256_file(path) for ev, path in made.items()}
            note(f"{weights}", recipe={"sha256": sha256_file(recipe), "weights": hashes})
        for _, group in itertools.groupby(tasks, key=lambda task: task.notebook):
            for name, entry in execute(list(group), folder, output, jobs, device):
                done[name] = entry | {"code_version": record["environment"]["code_version"]}
                note(f"{name:<40s} {entry['seconds']:8.1f} s")
        note(**_inputs(settings["dataset"]))
    return output


def _kept(
    output: Path, settings: Mapping[str, Any], tasks: list[Task], again: list[str], resume: bool
) -> dict[str, dict[str, Any]]:
    """Entries of an earlier record that stay: of notebooks that do not run `again`."""
    path = output / "provenance.json"
    try:
        record = {"profile": settings["name"], "notebooks": {}}
        record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else record
        done, profile = record["notebooks"], record["profile"]
        _ = [(one["notebook"], one["parameters"], one["produced"].keys()) for one in done.values()]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReplicationError(f"{path} is damaged; delete it and run anew.") from error
    if profile != settings["name"]:
        raise ReplicationError(f"{output} holds a run of the profile {profile!r}; choose another.")
    for task in (task for task in tasks if resume and task.notebook not in again):
        entry, problem = done.get(task.name), ""
        if entry is None or not (output / f"{task.name}.ipynb").is_file():
            problem = "has not been run there yet"
        elif entry["parameters"] != task.parameters:
            problem = f"was run with {entry['parameters']}, not with {task.parameters}"
        elif lost := [name for name in entry["produced"] if not (output / name).is_file()]:
            problem = f"has lost its file {lost[0]}"
        if problem:
            raise ReplicationError(f"Cannot resume in {output}: {task.name} {problem}.")
    stay = settings["notebooks"].keys() - set(again)
    return {name: one for name, one in done.items() if one["notebook"] in stay}


def _inputs(dataset: str) -> dict[str, Any]:
    """Hashes of what a run has read: its pictures and the shipped weights."""
    hashes, stacks = {}, []
    if dataset in DATASETS:
        with suppress(ReplicationError):  # absent, and no notebook needed it
            stacks = load_stacks(dataset)
    for name in sorted({stack.dataset for stack in stacks}):
        hashes[name] = dataset_hash([stack for stack in stacks if stack.dataset == name])
    return {"data_hashes": hashes, "weights_hash": chain_hash(load_chain(), WEIGHTS)}
