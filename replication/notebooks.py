"""Notebooks as files: their default parameters, and how executed ones are made fit to commit."""

from __future__ import annotations

import ast
import base64
import hashlib
import io
import json
import re
import sysconfig
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat

from replication.data.stacks import SHOWABLE
from replication.files import NOTEBOOKS, ROOT, ReplicationError, atomic_path, sha256_file

KERNEL = "python3"
INJECTED = "injected-parameters"
MAX_COMMITTED_BYTES = 500_000


def read_notebook(path: str | Path) -> nbformat.NotebookNode:
    """Read a notebook (format 4); raise ReplicationError if it is missing or damaged."""
    try:
        return nbformat.read(path, as_version=4)
    except OSError as error:
        raise ReplicationError(f"Cannot read {path}: {error.strerror}.") from error
    except Exception as error:  # nbformat lets whatever it meets escape
        raise ReplicationError(f"{path} is not a valid notebook.") from error


def tags_of(cell: nbformat.NotebookNode) -> list[str]:
    """Return the tags of a cell."""
    return cell.metadata.get("tags", [])


def sources_of(notebook: nbformat.NotebookNode) -> list[list[str]]:
    """Return type and source of every cell, but for parameters injected by papermill."""
    return [
        [cell.cell_type, cell.source] for cell in notebook.cells if INJECTED not in tags_of(cell)
    ]


def source_hash(path: str | Path) -> str:
    """SHA-256 of a notebook's cells without outputs and metadata, as 64 hex digits."""
    return hashlib.sha256(json.dumps(sources_of(read_notebook(path))).encode()).hexdigest()


def notebook_parameters(path: str | Path) -> dict[str, Any]:
    """Default parameters of a notebook: the assignments of its cell tagged ``parameters``.

    Returns
    -------
    dict
        Name -> value.

    Raises
    ------
    ReplicationError
        If the notebook is missing or damaged, was saved from a run (holds injected parameters),
        has not exactly one such cell, or has one with anything but plain literals in it (a value
        computed there would go stale when a parameter is set from outside).
    """
    path = Path(path)
    cells = read_notebook(path).cells
    if any(INJECTED in tags_of(cell) for cell in cells):
        raise ReplicationError(f"{path} holds injected parameters; it was saved from a run.")
    tagged = [cell for cell in cells if "parameters" in tags_of(cell) and cell.cell_type == "code"]
    if len(tagged) != 1:
        raise ReplicationError(f"{path} has {len(tagged)} cells tagged 'parameters', not one.")
    parameters = {}
    try:
        for node in ast.parse(tagged[0].source).body:
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                continue  # a docstring
            if isinstance(node, ast.Assign):
                (target,) = node.targets
            elif isinstance(node, ast.AnnAssign):
                target = node.target
            else:
                raise ValueError("not an assignment")
            parameters[target.id] = ast.literal_eval(node.value)
    except (SyntaxError, ValueError, TypeError, AttributeError) as error:
        raise ReplicationError(
            f"{path}: the cell tagged 'parameters' may hold only NAME = plain literal, "
            f"one parameter each."
        ) from error
    return parameters


def scrub(path: str | Path, *, places: Mapping[str, str] | None = None) -> Path:
    """Rewrite an executed notebook so that it holds nothing of the machine and moment of its run.

    Timings, papermill's and editors' metadata and absolute paths go; outputs stay, with execution
    counts 1, 2, 3, …; the JSON is written in one fixed form. Doing it twice changes nothing.

    Parameters
    ----------
    path : path
        Executed notebook, changed in place (whole or not at all).
    places : mapping, optional
        Further folders (absolute paths) and what to write instead, beside the repository (paths
        become relative to it), the home folder and Python's packages.
    """
    path = Path(path)
    return _write_notebook(path, _scrubbed(read_notebook(path), places or {}))


def pictures_in(notebook: nbformat.NotebookNode) -> set[str]:
    """Return whose pictures a notebook's outputs show.

    Returns
    -------
    set of str
        What :func:`replication.report.figures.save_figure` noted: a source of pictures, or "none" for
        a figure without pictures; "unknown sources" for an image of any format that does not say.
    """
    from replication.report.figures import pictures_of

    images = [
        (kind, data)
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        for kind, data in output.get("data", {}).items()
        if kind.startswith("image/")
    ]
    noted = {
        pictures_of(io.BytesIO(base64.b64decode(data))) if kind == "image/png" else ""
        for kind, data in images
    }
    return {source or "unknown sources" for source in noted}


def commit_notebooks(
    run_folder: str | Path, *, notebook_folder: str | Path = NOTEBOOKS
) -> list[Path]:
    """Bring the executed notebooks of a run back into the notebooks' folder, scrubbed.

    The injected parameters are taken out again, so a notebook is brought back only from an
    execution with its own default parameters (of a matrix: that entry).

    Parameters
    ----------
    run_folder : path
        What :func:`run` returned.
    notebook_folder : path
        Where to write.

    Returns
    -------
    list of Path
        The notebooks written; all are checked before the first is.

    Raises
    ------
    ReplicationError
        If a notebook was run with other parameters only, has been edited since, differs from its
        recorded hash, is larger than 500 kB, or shows pictures that may not be published.
    """
    run_folder, folder = Path(run_folder).resolve(), Path(notebook_folder)
    path = run_folder / "provenance.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        places = {str(run_folder): f"results/runs/{record['profile']}"}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ReplicationError(f"Cannot read {path}: it is not the record of a run.") from error
    ready = {}
    for notebook in dict.fromkeys(entry["notebook"] for entry in record["notebooks"].values()):
        target = folder / f"{notebook}.ipynb"
        defaults = notebook_parameters(target)
        names = [
            name
            for name, entry in record["notebooks"].items()
            if entry["notebook"] == notebook and entry["parameters"].items() <= defaults.items()
        ]
        if not names:
            raise ReplicationError(
                f"{notebook} was not run with its default parameters in {run_folder}."
            )
        executed = run_folder / f"{names[0]}.ipynb"
        fresh = read_notebook(executed)
        if sha256_file(executed) != record["notebooks"][names[0]]["executed_sha256"]:
            raise ReplicationError(f"{executed} is not what the run wrote.")
        if sources_of(fresh) != sources_of(read_notebook(target)):
            raise ReplicationError(f"{target} has been edited since it was run; run it again.")
        fresh.cells = [cell for cell in fresh.cells if INJECTED not in tags_of(cell)]
        fresh = _scrubbed(fresh, places)
        if hidden := pictures_in(fresh) - {"none", *SHOWABLE}:
            raise ReplicationError(
                f"{executed} shows pictures of {', '.join(sorted(hidden))}, which the project may "
                f"not publish."
            )
        if (size := len(nbformat.writes(fresh).encode())) > MAX_COMMITTED_BYTES:
            raise ReplicationError(
                f"{executed} has {size:,} bytes, more than {MAX_COMMITTED_BYTES:,}; show fewer or "
                f"smaller pictures."
            )
        ready[target] = fresh
    return [_write_notebook(target, fresh) for target, fresh in ready.items()]


def _scrubbed(notebook: nbformat.NotebookNode, places: Mapping[str, str]) -> nbformat.NotebookNode:
    rules = _path_rules(places)
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {
                "display_name": "Python 3 (ipykernel)",
                "language": "python",
                "name": KERNEL,
            },
            "language_info": {"name": "python"},
        }
    )
    count = 0
    for cell in notebook.cells:
        kept = {key: cell.metadata[key] for key in ("tags", "jupyter") if key in cell.metadata}
        cell.metadata = nbformat.from_dict(kept)
        if cell.cell_type != "code":
            continue
        if cell.execution_count is not None:
            count += 1
            cell.execution_count = count
        if INJECTED in tags_of(cell):
            cell.source = _without_paths(cell.source, rules)
        cell.outputs = _merge_streams(_without_paths(cell.outputs, rules))
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = cell.execution_count
    return notebook


def _merge_streams(outputs: list) -> list:
    """Join what was printed in one go: where it is split depends on timing."""
    merged: list = []
    for output in outputs:
        last = merged[-1] if merged else {}
        if output.output_type == "stream" and last.get("name") == output.name:
            last.text += output.text
        else:
            merged.append(output)
    return merged


def _path_rules(places: Mapping[str, str]) -> list[tuple[re.Pattern, str]]:
    named = {str(ROOT): ".", str(Path.home()): "~", sysconfig.get_path("purelib"): "site-packages"}
    named |= places
    rules = [(re.escape(tempfile.gettempdir()) + r"/ipykernel_\d+/\d+\.py", "cell")]
    for folder in sorted(named, key=len, reverse=True):
        if len(folder) > 1:
            if named[folder] == ".":
                rules.append((re.escape(folder) + "/", ""))
            rules.append((re.escape(folder) + r"(?![\w.-])", named[folder]))
    return [(re.compile(r"(?<![\w.-])" + pattern), new) for pattern, new in rules]


def _without_paths(value: Any, rules: list[tuple[re.Pattern, str]]) -> Any:
    if isinstance(value, str):
        for pattern, new in rules:
            value = pattern.sub(new, value)
        return value
    if isinstance(value, list):
        return [_without_paths(item, rules) for item in value]
    if isinstance(value, dict):
        pictures = {key for key in value if key.startswith("image/") and key != "image/svg+xml"}
        return nbformat.from_dict(
            {
                key: item if key in pictures else _without_paths(item, rules)
                for key, item in value.items()
            }
        )
    return value


def _write_notebook(path: Path, notebook: nbformat.NotebookNode) -> Path:
    nbformat.validate(notebook)
    with atomic_path(path) as temporary:
        nbformat.write(notebook, temporary)
    return path
