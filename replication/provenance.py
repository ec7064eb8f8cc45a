"""Which code, on which machine, produced a result."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from replication import __version__
from replication.files import ROOT, ReplicationError, write_json

PACKAGES = (
    *("torch", "numpy", "scipy", "pandas", "scikit-image", "opencv-python", "Pillow", "OpenEXR"),
    *("matplotlib", "pytorch-msssim", "safetensors", "nbformat", "papermill"),
)


CODE = ("replication", "pyproject.toml", "constraints.txt")
"""What makes a result what it is; a changed text or result does not make the code dirty."""


def code_version() -> str:
    """Package version with the commit it runs from: ``0.1.0+g1a2b3c4d5e6f`` (``.dirty``).

    Without git or outside a clone: ``0.1.0+unknown``. Only tracked files of :data:`CODE` make a tree dirty.
    """
    commit, dirty = _git_state()
    if commit == "unknown":
        return f"{__version__}+unknown"
    return f"{__version__}+g{commit[:12]}{'.dirty' if dirty else ''}"


def provenance(**extra: Any) -> dict[str, Any]:
    """Describe the code and the machine a result comes from.

    Parameters
    ----------
    **extra
        Whatever else determines the result (seeds, hashes of data and weights); values must be
        JSON-ready. Names that this function uses itself are refused.

    Returns
    -------
    dict
        ``version``, ``code_version``, ``git_commit``, ``git_dirty`` (``"unknown"`` without git),
        ``date`` (UTC, ISO 8601), ``python``, ``platform``, ``cpu``, ``cores`` (usable by this
        process), ``device`` (GPU's name or ``"cpu"``), ``packages`` (name -> version) and `extra`.
        Holds no paths and no names of machines or users.
    """
    import torch

    commit, dirty = _git_state()
    described = {
        "version": __version__,
        "code_version": code_version(),
        "git_commit": commit,
        "git_dirty": dirty,
        "date": utc_now(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu_model(),
        "cores": usable_cores(),
        "device": torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu",
        "packages": {name: _package_version(name) for name in PACKAGES},
    }
    if taken := sorted(described.keys() & extra):
        raise ReplicationError(f"Provenance already records {', '.join(taken)} itself.")
    return described | extra


def write_provenance(path: str | Path, **extra: Any) -> Path:
    """Write :func:`provenance` as JSON to `path`, whole or not at all, and return the path."""
    return write_json(path, provenance(**extra))


def _git_state() -> tuple[str, bool | str]:
    if not (ROOT / ".git").exists():
        return "unknown", "unknown"
    try:
        commit, status = (
            subprocess.run(
                ["git", "-C", ROOT, *command], capture_output=True, text=True, check=True
            ).stdout
            for command in (["rev-parse", "HEAD"], ["status", "--porcelain", "-uno", "--", *CODE])
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown", "unknown"
    return commit.strip(), bool(status.strip())


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1] if found else platform.processor() or platform.machine()


def usable_cores() -> int:
    """Count the processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _package_version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def utc_now() -> str:
    """Now, as ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
