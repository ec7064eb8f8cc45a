"""Which code, on which machine, made a result."""

from __future__ import annotations

import functools
import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from replication import __version__
from replication.files import ROOT

PACKAGES = (
    *("torch", "numpy", "scipy", "pandas", "scikit-image", "opencv-python", "Pillow", "OpenEXR"),
    *("matplotlib", "pytorch-msssim", "safetensors", "nbformat", "papermill"),
)
CODE = ("replication", "pyproject.toml", "constraints.txt")  # a changed text does not make it dirty


def code_version() -> str:
    """Version and commit, `0.1.0+g1a2b3c4d5e6f` or `….dirty`; `0.1.0+unknown` outside a clone."""
    commit, dirty = _git_state()
    known = commit if commit == "unknown" else f"g{commit[:12]}{'.dirty' if dirty else ''}"
    return f"{__version__}+{known}"


def provenance(**extra: Any) -> dict[str, Any]:
    """Describe code and machine, without paths and user names, and `extra` (seeds, hashes) beside them."""
    import torch

    commit, dirty = _git_state()
    described = {"version": __version__, "code_version": code_version(), "date": utc_now()}
    described |= {"git_commit": commit, "git_dirty": dirty, "python": platform.python_version()}
    info = Path("/proc/cpuinfo")
    model = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.M) if info.exists() else None
    cpu = model[1] if model else platform.processor() or platform.machine()
    described |= {"platform": platform.platform(), "cpu": cpu, "cores": usable_cores()}
    described["device"] = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu"
    known = {one.name.lower().replace("_", "-"): one.version for one in distributions()}
    described["packages"] = {name: known.get(name.lower()) for name in PACKAGES}
    return extra | described


THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")  # limits, by variable


def usable_cores() -> int:
    """Number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def utc_now() -> str:
    """Now, as ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _git_state() -> tuple[str, bool | str]:
    """Commit and whether tracked files of `CODE` are changed; "unknown" twice without git."""
    if not (ROOT / ".git").exists():
        return "unknown", "unknown"
    git = functools.partial(subprocess.check_output, text=True, cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        commit = git(["git", "rev-parse", "HEAD"])
        changed = git(["git", "status", "--porcelain", "-uno", "--", *CODE])
    except (OSError, subprocess.CalledProcessError):
        return "unknown", "unknown"
    return commit.strip(), bool(changed.strip())
