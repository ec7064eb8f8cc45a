"""Weights in and out, as safetensors, never as pickles; what is loaded is checked.

A weights folder holds ``ev+1.safetensors`` … ``ev-3.safetensors``; metadata say how each was trained.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor, nn

from replication.files import REFERENCE, SHIPPED, ReplicationError, atomic_path, sha256_file
from replication.model import DeepChain

WEIGHTS = SHIPPED / "weights"
FAITHFUL = REFERENCE / "weights_faithful"  # by the paper's own recipe (D7); in a clone only


def weights_path(ev: int, folder: str | Path = WEIGHTS) -> Path:
    """File of the subnetwork that infers EV `ev` in a weights folder."""
    return Path(folder) / f"ev{ev:+d}.safetensors"


def weights_folder(name: str, run: str | Path) -> Path:
    """Folder of a notebook's parameter `weights`: a name below (``"run"``: of the run `run`), or a path."""
    known = {"reference": WEIGHTS, "faithful": FAITHFUL, "run": Path(run) / "weights"}
    return known.get(name, Path(name))


def save_weights(network: nn.Module, path: str | Path, metadata: dict[str, object]) -> Path:
    """Save a network's state with metadata (JSON values), whole or not at all; return `path`."""
    text = {key: json.dumps(value, sort_keys=True) for key, value in metadata.items()}
    with atomic_path(path) as temporary:
        write_safetensors(temporary, network.state_dict(), text)
    return Path(path)


def load_weights(network: nn.Module, path: str | Path, ev: int | None = None) -> dict[str, object]:
    """Load a safetensors file into a network of the same shape; gives the metadata.

    `ev` is what the file must be for, if its metadata say so.

    Raises:
        ReplicationError: The file is missing, unreadable, of another network, EV or activation, or
            holds NaN or infinite values.
    """
    tensors, metadata = read_safetensors(path)
    for key, text in metadata.items():
        with suppress(ValueError):  # metadata of another program, such as format: pt
            metadata[key] = json.loads(text)
    for key, value in {"ev": ev, "activation": getattr(network, "activation", None)}.items():
        if value is not None and metadata.get(key, value) != value:
            raise ReplicationError(f"{path} is for the {key} {metadata[key]}, not {value}.")
    shapes, found = ({k: v.shape for k, v in one.items()} for one in (network.state_dict(), tensors))
    if wrong := sorted(key for key in shapes | found if shapes.get(key) != found.get(key)):
        raise ReplicationError(f"{path} does not fit the network: {wrong[0]!r} differs.")
    for key, value in tensors.items():
        if not value.isfinite().all():
            raise ReplicationError(f"{path} holds NaN or infinite values in {key!r}.")
    network.load_state_dict(tensors)
    return metadata


def read_safetensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file; ReplicationError if it is missing or damaged."""
    try:
        with safe_open(str(path), framework="pt") as stream:
            return {key: stream.get_tensor(key) for key in stream.keys()}, stream.metadata() or {}  # noqa: SIM118
    except FileNotFoundError as error:
        raise ReplicationError(f"No weights at {path}.") from error
    except (SafetensorError, OSError) as error:
        raise ReplicationError(f"{path} is no readable safetensors file: {error}.") from error


def write_safetensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write tensors and metadata; the same content gives the same bytes."""
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    written = serialize(plain, metadata=metadata)
    size = int.from_bytes(written[:8], "little")  # of the header, in an order that is left to chance
    header = json.loads(written[8 : 8 + size])
    header = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # the data start at a multiple of 8
    path.write_bytes(len(header).to_bytes(8, "little") + header + written[8 + size :])


def chain_hash(chain: DeepChain, folder: str | Path) -> str:
    """First 12 digits of a SHA-256 over the weight files of a chain."""
    files = "".join(sha256_file(weights_path(ev, folder)) for ev in chain.evs)
    return hashlib.sha256(files.encode()).hexdigest()[:12]
