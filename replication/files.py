"""Where things are, and how files are written: whole or not at all."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from replication.errors import ReplicationError

ROOT = Path(__file__).resolve().parents[1]
"""The repository root (the package is installed in editable mode from a clone)."""

RESULTS = ROOT / "results"
NOTEBOOKS = ROOT / "notebooks"


def data_root() -> Path:
    """Folder that holds the data sets: ``$REPLICATION_DATA`` or ``data/`` in the repository."""
    return Path(os.environ.get("REPLICATION_DATA") or ROOT / "data")


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; move it into place only when the block succeeds.

    The temporary name keeps the suffix of `path`, so that writers that look at it work. On any
    exception (also Ctrl-C) the temporary file is removed and `path` is left as it was.

    Raises
    ------
    ReplicationError
        If the file cannot be written (full disk, no permission); names the file and the reason.
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


def sha256_file(path: str | Path) -> str:
    """SHA-256 of a file's bytes, as 64 hex digits."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_array(array: np.ndarray) -> str:
    """SHA-256 of an array's bytes in C order (for images: RGB uint8), as 64 hex digits."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
