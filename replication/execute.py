"""Execute notebooks by papermill, each in a process of its own that can be ended with its kernel."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nbformat
import psutil
import torch
import yaml
from ipykernel.kernelspec import write_kernel_spec

from replication.files import ROOT, ReplicationError, sha256_file
from replication.provenance import THREADS, usable_cores, utc_now

KERNEL, INJECTED = "python3", "injected-parameters"  # the latter is the tag of papermill's own cell


def read_notebook(path: str | Path) -> nbformat.NotebookNode:
    """Read a notebook (format 4); ReplicationError if it is missing or damaged."""
    try:
        return nbformat.read(path, as_version=4)
    except Exception as error:  # nbformat lets every kind of error through
        what = getattr(error, "strerror", None) or "it is not a valid notebook"
        raise ReplicationError(f"Cannot read {path}: {what}.") from error


def own_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """The cells of a notebook without those that papermill adds (parameters, notes on errors)."""
    added = {INJECTED, "papermill-error-cell-tag"}
    return [one for one in notebook.cells if not added & set(one.metadata.get("tags", []))]


def source_hash(path: str | Path) -> str:
    """SHA-256 of a notebook's own cells without outputs, 64 hex digits."""
    cells = [[cell.cell_type, cell.source] for cell in own_cells(read_notebook(path))]
    return hashlib.sha256(json.dumps(cells).encode()).hexdigest()


@dataclass(frozen=True)
class Task:
    """One execution of one notebook: what the driver passes, the other defaults (seed), what it writes."""

    name: str
    notebook: str
    parameters: dict[str, Any]
    defaults: dict[str, Any]
    produces: tuple[str, ...]


def execute(
    tasks: list[Task], folder: Path, output: Path, jobs: int, device: str | None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Execute notebooks of `folder`, `jobs` at a time, and yield name and record of each that succeeds.

    They run in `folder`; `output` receives `NAME.ipynb` or `NAME.failed.ipynb` and what they write. When
    one fails, no other is started, those that run are finished, and a ReplicationError says why.
    """
    waiting, running, errors, jobs = list(tasks), {}, [], max(1, min(jobs, len(tasks)))
    with tempfile.TemporaryDirectory() as kernels:
        write_kernel_spec(Path(kernels) / "kernels" / KERNEL)  # the running Python, not Jupyter's
        try:
            while running or (waiting and not errors):
                for slot in range(jobs):
                    if slot not in running and waiting and not errors:
                        variables = _environment(kernels, jobs, slot, device)
                        running[slot] = _Execution(waiting.pop(0), folder, output, variables)
                    elif slot in running and running[slot].process.poll() is not None:
                        one = running.pop(slot)
                        try:
                            yield one.task.name, one.record()
                        except ReplicationError as error:
                            errors.append(error)
                time.sleep(0.05)
        finally:  # Ctrl-C above all
            for one in running.values():
                one.kill()
    if errors:
        raise errors[0]


class _Execution:
    """papermill at work on one notebook; it writes a hidden file, which gets its name at the end."""

    def __init__(self, task: Task, folder: Path, output: Path, variables: dict) -> None:
        self.task, self.output, self.started = task, output, time.time()
        self.part = output / f".{task.name}.part.ipynb"
        self.noise = tempfile.TemporaryFile()  # noqa: SIM115 (a pipe stays open as long as the kernel)
        given = yaml.safe_dump(task.parameters | {"output_dir": str(output)})
        command = [sys.executable, "-P", "-m", "papermill", "-y", given, "--cwd", str(folder)]
        command += ["--kernel", KERNEL, "--language", "python", "--no-progress-bar"]
        for path in (folder / f"{task.notebook}.ipynb", self.part):
            command.append(str(path).replace("{", "{{").replace("}", "}}"))
        # in a session of its own, Ctrl-C reaches the driver only, which then calls kill()
        options = {"stdin": subprocess.DEVNULL, "stdout": self.noise, "stderr": self.noise}
        self.process = subprocess.Popen(command, env=variables, start_new_session=True, **options)

    def kill(self) -> None:
        """End papermill, the kernel and whatever these have started; remove the half-written file."""
        with suppress(psutil.NoSuchProcess):
            papermill = psutil.Process(self.process.pid)
            papermill.suspend()  # so that it starts no kernel now
            for one in [*papermill.children(recursive=True), papermill]:
                with suppress(psutil.NoSuchProcess):
                    one.kill()
        self.process.wait()
        self.part.unlink(missing_ok=True)

    def record(self) -> dict[str, Any]:
        """Check the execution, give the notebook its name, and describe what was run and written."""
        task, problem, produced = self.task, self._problem(), {}
        for pattern in task.produces:
            paths = {name: self.output / name for name in glob.glob(pattern, root_dir=self.output)}
            new = [name for name, path in paths.items() if path.stat().st_mtime > self.started]
            produced |= {name: sha256_file(paths[name]) for name in new}
            if not new:
                problem = problem or f"ran to its end but did not write {pattern}"
        result = self.output / f"{task.name}{'.failed' if problem else ''}.ipynb"
        if self.part.exists():
            os.replace(self.part, result)
        if problem:
            kept = f"see {result}" if result.exists() else "nothing of it was executed"
            raise ReplicationError(f"Notebook {task.name} {problem}; {kept}.")
        facts = asdict(task) | {"seconds": round(time.time() - self.started, 1)}
        facts |= {"source_sha256": source_hash(result), "executed_sha256": sha256_file(result)}
        return facts | {"finished": utc_now(), "produced": produced}

    def _problem(self) -> str:
        """What went wrong, with the number of the cell in the notebook; "" if nothing did."""
        self.noise.seek(0)
        message = self.noise.read().decode(errors="replace").strip().rpartition("\n")[2]
        if not self.part.exists():
            return f"could not be started ({message})"
        cells = own_cells(read_notebook(self.part))
        states = [cell.metadata.get("papermill", {}) for cell in cells]
        if not self.process.returncode and all(one.get("status") == "completed" for one in states):
            return ""
        number = max((n for n, one in enumerate(states, 1) if one.get("start_time")), default=1)
        for output in cells[number - 1].get("outputs", []):
            if output.output_type == "error":
                message = f"{output.ename}: {output.evalue.partition(chr(10))[0]}"
        return f"failed in cell {number} ({message})"


def _environment(kernels: str | Path, jobs: int, slot: int, device: str | None) -> dict[str, str]:
    """Variables for execution number `slot` of `jobs`: its kernel, its share of cores and GPUs."""
    mine = os.environ | {"TQDM_DISABLE": "1"}
    mine.pop("MPLBACKEND", None)  # otherwise figures are missing from the notebook
    for name, first in {"PYTHONPATH": ROOT, "JUPYTER_PATH": kernels}.items():
        mine[name] = os.pathsep.join(filter(None, [str(first), mine.get(name)]))
    if jobs > 1:
        for name in THREADS:
            mine.setdefault(name, str(max(1, usable_cores() // jobs)))
    gpus = torch.cuda.device_count()
    if device == "cpu":
        mine["CUDA_VISIBLE_DEVICES"] = ""
    elif jobs > 1 and gpus > 1 and device in (None, "cuda"):
        visible = mine.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(gpus)))
        mine["CUDA_VISIBLE_DEVICES"] = visible.split(",")[slot % gpus]
    return mine
