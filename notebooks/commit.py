"""Bring the executed notebooks of a run back into this folder, fit to be committed (for maintainers).

    python notebooks/commit.py results/runs/quick

Outputs and execution counts stay; timings, paths of the machine and papermill's traces go. A notebook is
refused if it was edited since the run, has no run with its defaults, is larger than 1 MB, or shows
pictures that may not be published.
"""

from __future__ import annotations

import base64
import json
import re
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import nbformat
from nbconvert import preprocessors

from replication.data.stacks import SHOWABLE
from replication.execute import INJECTED, KERNEL, read_notebook, source_hash
from replication.files import NOTEBOOKS, ROOT, ReplicationError, atomic_path, sha256_file
from replication.report.figures import pictures_of
from replication.runs import notebook_parameters

LIMIT = 1_000_000
"""Bytes of a committed notebook."""


def pictures_in(notebook: nbformat.NotebookNode) -> set[str]:
    """Sources of a notebook's pictures by `report.figures.save_figure`, "none" or "unknown sources"."""
    found = set()
    for output in (one for cell in notebook.cells for one in cell.get("outputs", [])):
        for kind, data in output.get("data", {}).items():
            if kind.startswith("image/"):
                source = ""
                with suppress(ValueError, OSError, AttributeError):  # this kind has no such text
                    source = pictures_of(BytesIO(base64.b64decode(data)))
                found.add(source or "unknown sources")
    return found


def scrub(notebook: nbformat.NotebookNode, folders: Mapping[str, str]) -> nbformat.NotebookNode:
    """Remove what belongs to the machine and moment of a run, in place; doing it twice changes nothing.

    `folders`: absolute path -> what to write instead, beside the repository, home and Python's packages.
    """
    steps = [preprocessors.TagRemovePreprocessor(remove_cell_tags={INJECTED}, enabled=True)]
    steps += [preprocessors.ClearMetadataPreprocessor(preserve_cell_metadata_mask={"tags", "jupyter"})]
    for step in (*steps, preprocessors.CoalesceStreamsPreprocessor()):
        notebook, _ = step.preprocess(notebook, {})
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": KERNEL}
    notebook.metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    code, rules = [cell for cell in notebook.cells if cell.cell_type == "code"], _rules(folders)
    for count, cell in enumerate((cell for cell in code if cell.execution_count), 1):
        cell.execution_count = count
        cell.outputs = _without_paths(cell.outputs, rules)
        for output in (one for one in cell.outputs if "execution_count" in one):
            output.execution_count = count
    return notebook


def _rules(folders: Mapping[str, str]) -> list[tuple[re.Pattern, str]]:
    """What to replace in texts, longest path first."""
    named = {str(ROOT): ".", str(Path.home()): "~", sysconfig.get_path("purelib"): "site-packages"}
    named |= folders
    rules = [(re.escape(tempfile.gettempdir()) + r"/ipykernel_\d+/\d+\.py", "cell")]
    for folder in sorted((folder for folder in named if len(folder) > 1), key=len, reverse=True):
        if named[folder] == ".":
            rules.append((re.escape(folder) + "/", ""))
        rules.append((re.escape(folder) + r"(?![\w.-])", named[folder]))
    return [(re.compile(r"(?<![\w.-])" + pattern), new) for pattern, new in rules]


def _without_paths(value: Any, rules: list[tuple[re.Pattern, str]]) -> Any:
    if isinstance(value, str):
        for pattern, new in rules:
            value = pattern.sub(new, value)
    elif isinstance(value, list):
        value = [_without_paths(item, rules) for item in value]
    elif isinstance(value, dict):
        for key in (key for key in value if not re.match("image/(?!svg)", key)):
            value[key] = _without_paths(value[key], rules)
    return value


def commit(run: str | Path, folder: str | Path = NOTEBOOKS) -> list[Path]:
    """Write the notebooks of a run into `folder`; all are checked before the first is written.

    Raises:
        ReplicationError: `run` is no run, or a notebook is refused (see above).
    """
    run, folder = Path(run).resolve(), Path(folder)
    try:
        record = json.loads((run / "provenance.json").read_text(encoding="utf-8"))
        folders = {str(run): f"results/runs/{record['profile']}"}
        executed: dict[str, list] = {}
        for name, entry in record["notebooks"].items():
            facts = run / f"{name}.ipynb", entry["parameters"], entry["executed_sha256"]
            executed.setdefault(entry["notebook"], []).append(facts)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ReplicationError(f"{run / 'provenance.json'} is not the record of a run.") from error
    ready = {}
    for notebook, entries in executed.items():
        target = folder / f"{notebook}.ipynb"
        defaults = notebook_parameters(target)
        fitting = [one for one in entries if one[1].items() <= defaults.items()]
        if not fitting:
            raise ReplicationError(f"{notebook} was not run with its default parameters in {run}.")
        path, _, digest = fitting[0]
        if sha256_file(path) != digest:
            raise ReplicationError(f"{path} is not what the run wrote.")
        if source_hash(path) != source_hash(target):
            raise ReplicationError(f"{target} has been edited since it was run; run it again.")
        fresh = scrub(read_notebook(path), folders)
        if hidden := ", ".join(sorted(pictures_in(fresh) - {"none", *SHOWABLE})):
            raise ReplicationError(f"{path} shows pictures of {hidden}; they may not be published.")
        nbformat.validate(fresh)
        if (size := len(nbformat.writes(fresh).encode())) > LIMIT:
            raise ReplicationError(f"{path} has {size:,} bytes, more than {LIMIT:,}.")
        ready[target] = fresh
    for target, fresh in ready.items():
        with atomic_path(target) as temporary:
            nbformat.write(fresh, temporary)
    return list(ready)


if __name__ == "__main__":
    try:
        print(*commit(*sys.argv[1:]), sep="\n")
    except (ReplicationError, TypeError) as problem:
        sys.exit(f"error: {problem}")
