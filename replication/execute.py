"""Execute notebooks by papermill, each in a process of its own that can be ended with its kernel."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import psutil
import torch
import yaml
from ipykernel.kernelspec import write_kernel_spec

from replication.files import ROOT, ReplicationError, sha256_file
from replication.provenance import usable_cores, utc_now

KERNEL, INJECTED = "python3", "injected-parameters"
"""The kernel that executes notebooks; the tag of the cell that papermill adds."""


def read_notebook(path: str | Path) -> nbformat.NotebookNode:
    """Read a notebook (format 4); ReplicationError if it is missing or damaged."""
    try:
        return nbformat.read(path, as_version=4)
    except OSError as error:
        raise ReplicationError(f"Cannot read {path}: {error.strerror}.") from error
    except Exception as error:  # nbformat lets every kind of error through
        raise ReplicationError(f"{path} is not a valid notebook.") from error


def own_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """The cells of a notebook without those that papermill adds (parameters, notes on errors)."""
    added = {INJECTED, "papermill-error-cell-tag"}
    return [one for one in notebook.cells if not added & set(one.metadata.get("tags", []))]


@dataclass(frozen=True)
class Task:
    """One execution of one notebook: what the driver passes, the other defaults (seed), what it writes."""

    name: str
    notebook: str
    parameters: dict[str, Any]
    defaults: dict[str, Any]
    produces: tuple[str, ...]
    source_sha256: str


def execute(
    tasks: list[Task], folder: Path, output: Path, jobs: int, device: str | None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Execute independent tasks, `jobs` at a time, and yield name and record of each that succeeds.

    Args:
        tasks: Executed in this order.
        folder: Of the notebooks, in which they run.
        output: Receives `NAME.ipynb` or `NAME.failed.ipynb`, and what the notebooks write.
        jobs: Processes; they share the cores and get a GPU each.
        device: What the user asked for, if anything.

    Raises:
        ReplicationError: A cell failed or a promised file was not written; no further task is started,
            those that run are finished.
    """
    jobs = min(jobs, len(tasks))
    waiting, slots, running, errors = tasks[::-1], list(range(jobs)), [], []
    with tempfile.TemporaryDirectory() as kernels:
        write_kernel_spec(Path(kernels) / "kernels" / KERNEL)  # the running Python, not Jupyter's
        try:
            while running or (waiting and not errors):
                while waiting and slots and not errors:
                    slot = slots.pop()
                    variables = _environment(kernels, jobs, slot, device)
                    running.append(_Execution(waiting.pop(), folder, output, variables, slot))
                time.sleep(0.05)
                for one in [one for one in running if one.process.poll() is not None]:
                    running.remove(one)
                    slots.append(one.slot)
                    try:
                        yield one.task.name, one.record()
                    except ReplicationError as error:
                        errors.append(error)
        finally:  # Ctrl-C above all
            for one in running:
                one.kill()
    if errors:
        raise errors[0]


class _Execution:
    """papermill at work on one notebook; it writes a hidden file, which gets its name at the end."""

    def __init__(self, task: Task, folder: Path, output: Path, variables: dict, slot: int) -> None:
        self.task, self.output, self.slot, self.started = task, output, slot, time.time()
        self.part = output / f".{task.name}.part.ipynb"
        self.noise = tempfile.TemporaryFile()  # noqa: SIM115 (a pipe stays open as long as the kernel)
        given = yaml.safe_dump(task.parameters | {"output_dir": str(output)})
        command = [sys.executable, "-P", "-m", "papermill", "-y", given, "--cwd", str(folder)]
        command += ["--kernel", KERNEL, "--language", "python", "--no-progress-bar"]
        for path in (folder / f"{task.notebook}.ipynb", self.part):
            command.append(str(path).replace("{", "{{").replace("}", "}}"))
        self.process = subprocess.Popen(
            command, env=variables, stdin=subprocess.DEVNULL, stdout=self.noise, stderr=self.noise,
            start_new_session=True,  # Ctrl-C reaches the driver only, which then calls kill()
        )  # fmt: skip

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
        result, failed = (self.output / f"{task.name}{end}" for end in (".ipynb", ".failed.ipynb"))
        for pattern in task.produces:
            new = [path for path in self.output.glob(pattern) if self._new(path)]
            produced |= {str(path.relative_to(self.output)): sha256_file(path) for path in new}
            if not problem and not new:
                problem = f"ran to its end but did not write {pattern}"
        if problem:
            there = self.part.exists()
            if there:
                os.replace(self.part, failed)
            kept = f"see {failed}" if there else "nothing of it was executed"
            raise ReplicationError(f"Notebook {task.name} {problem.rstrip('.')}; {kept}.")
        os.replace(self.part, result)
        facts = {
            "notebook": task.notebook,
            "parameters": task.parameters,
            "defaults": task.defaults,
        }
        facts |= {"seconds": round(time.time() - self.started, 1), "finished": utc_now()}
        facts |= {"source_sha256": task.source_sha256, "executed_sha256": sha256_file(result)}
        return facts | {"produced": produced}

    def _new(self, path: Path) -> bool:
        """Whether a file was written since the start (a kernel needs a second to start)."""
        with suppress(FileNotFoundError):
            state, hidden = path.stat(), path.name.startswith(".")
            return (
                path.is_file()
                and bool(state.st_size)
                and not hidden
                and state.st_mtime > self.started
            )
        return False

    def _problem(self) -> str:
        """What went wrong and where, with the number of the cell in the notebook; "" if nothing did."""
        self.noise.seek(0)
        lines = self.noise.read().decode(errors="replace").strip().splitlines()
        last, code = lines[-1] if lines else "no message", self.process.returncode
        try:
            cells = own_cells(read_notebook(self.part))
        except ReplicationError:
            return f"could not be started ({last})"
        timed = [bool(cell.metadata.get("papermill", {}).get("start_time")) for cell in cells]
        number = max((n for n, begun in enumerate(timed, 1) if begun), default=1)
        if code:
            for output in cells[number - 1].get("outputs", []):
                if output.output_type == "error":
                    last = f"{output.ename}: {(output.evalue.splitlines() or [''])[0]}"
            return f"failed in cell {number} ({last})"
        for number, cell in enumerate(cells, 1):
            if cell.cell_type == "code" and cell.source.strip() and not cell.execution_count:
                return f"ended early, before cell {number}"
        return ""


def _environment(kernels: str | Path, jobs: int, slot: int, device: str | None) -> dict[str, str]:
    """Variables for execution number `slot` of `jobs`: its kernel, its share of cores and GPUs."""
    mine = os.environ | {"TQDM_DISABLE": "1"}
    mine.pop("MPLBACKEND", None)  # otherwise figures are missing from the notebook
    for name, first in {"PYTHONPATH": ROOT, "JUPYTER_PATH": kernels}.items():
        mine[name] = os.pathsep.join(filter(None, [str(first), mine.get(name)]))
    if jobs > 1:
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            asked, share = mine.get(name, ""), max(1, usable_cores() // jobs)
            mine[name] = str(min(share, int(asked)) if asked.isdigit() else share)
    gpus = torch.cuda.device_count()
    if device == "cpu":
        mine["CUDA_VISIBLE_DEVICES"] = ""
    elif jobs > 1 and gpus > 1 and device in (None, "cuda"):
        visible = mine.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(gpus)))
        mine["CUDA_VISIBLE_DEVICES"] = visible.split(",")[slot % gpus]
    return mine
