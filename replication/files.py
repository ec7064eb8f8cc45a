"""Where things are, how files are written (whole or not at all), and the one exception."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import filelock
import numpy as np

PACKAGE = Path(__file__).resolve().parent
ROOT = PACKAGE.parent  # the repository, where the package runs from a clone
SHIPPED = PACKAGE / "shipped"  # package data: the trained weights and the tone curve
RESULTS, NOTEBOOKS = ROOT / "results", ROOT / "notebooks"
REFERENCE = RESULTS / "reference"  # committed results of a clone: per-image rows, figures, logs


class ReplicationError(Exception):
    """Bad input or a broken precondition, in one sentence that names what and where.

    The command line prints the sentence on one line and exits with status 2.
    """


def in_clone() -> bool:
    """Whether the package runs from a clone, which has notebooks and results, or is installed."""
    return (ROOT / "pyproject.toml").is_file() and NOTEBOOKS.is_dir()


def data_root() -> Path:
    """Folder of the data sets: ``$REPLICATION_DATA``, else ``data/`` of the clone, else a user cache."""
    if folder := os.environ.get("REPLICATION_DATA"):
        return Path(folder)
    return ROOT / "data" if in_clone() else Path.home() / ".cache" / "deep-chain-hdri"


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, with its suffix; move it into place on success.

    On any exception, Ctrl-C too, the temporary file is removed and `path` is left as it was.

    Raises:
        ReplicationError: The file cannot be written (full disk, no permission); names file and reason.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}.part{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise ReplicationError(f"Cannot write {path}: {error.strerror or error}.") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def check_folder(path: str | Path) -> Path:
    """Return `path` if it is a folder that can be written to or made, else ReplicationError."""
    path = Path(path)
    there = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
    if not there.is_dir():
        raise ReplicationError(f"Cannot write to {path}: {there} is not a folder.")
    if not os.access(there, os.W_OK):
        raise ReplicationError(f"Cannot write to {path}: no permission to write in {there}.")
    return path


@contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Hold a folder for this process; ReplicationError if another process is writing there."""
    folder = check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(folder / ".lock", timeout=0):
            yield
    except filelock.Timeout as error:
        advice = "wait for it or choose another folder"
        raise ReplicationError(f"{folder} is in use by another process; {advice}.") from error


def write_json(path: str | Path, content: Any) -> Path:
    """Write `content` as JSON to `path`, whole or not at all; return the path."""
    try:
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    except TypeError as error:
        raise ReplicationError(f"Cannot write {path}: {error}.") from error
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


def sha256_file(path: str | Path) -> str:
    """SHA-256 of a file's bytes, 64 hex digits."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_array(array: np.ndarray) -> str:
    """SHA-256 of an array's bytes in C order (for images: RGB uint8), 64 hex digits."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
