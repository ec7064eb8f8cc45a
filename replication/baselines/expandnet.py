"""An adapter for ExpandNet, a later CNN for the same task, run from a clone of its authors' program.

Nothing of it is part of this kit: clone https://github.com/dmarnerides/hdr-expandnet (its licence
says what you may do with it) and name the folder. A picture goes the way that the clone's
``expand.py`` sends it by default: its values are stretched to 0 … 1, inferred in patches of 256
pixels, and the result is stretched to 0 … 1 again.

References
----------
D. Marnerides, T. Bashford-Rogers, J. Hatchett, K. Debattista, "ExpandNet: a deep convolutional
neural network for high dynamic range expansion from low dynamic range content", Computer Graphics
Forum 37(2), 2018, doi 10.1111/cgf.13340.
"""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import nn

from replication.files import ReplicationError
from replication.images import check_picture

MODEL, WEIGHTS = "model.py", "weights.pth"
"""Files of the clone that are used."""

PATCH_SIZE = 256


@lru_cache(maxsize=1)
def load(clone: str | Path) -> nn.Module:
    """Load the network of a clone. Its ``model.py`` is executed, so use a clone that you trust.

    Parameters
    ----------
    clone
        Folder with ``model.py`` and ``weights.pth``.

    Returns
    -------
    nn.Module
        In evaluation mode.

    Raises
    ------
    ReplicationError
        If a file is missing, the module has no ``ExpandNet``, or the weights do not fit it.
    """
    clone = Path(clone)
    for name in (MODEL, WEIGHTS):
        if not (clone / name).is_file():
            raise ReplicationError(f"{clone} is no clone of ExpandNet: it has no {name}.")
    spec = importlib.util.spec_from_file_location("_expandnet_clone", clone / MODEL)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        network = module.ExpandNet()
        network.load_state_dict(torch.load(clone / WEIGHTS, map_location="cpu", weights_only=True))
    except Exception as error:  # whatever a stranger's module may raise
        reason = " ".join(str(error).split())[:200]
        raise ReplicationError(f"Cannot load ExpandNet from {clone}: {reason}") from error
    return network.eval()


def expand(ldr: np.ndarray, *, clone: str | Path) -> np.ndarray:
    """Expand a photo.

    Parameters
    ----------
    ldr : uint8 array, or float array in [0, 1], shape (H, W, 3)
        RGB, display-encoded.
    clone
        As in :func:`load`.

    Returns
    -------
    np.ndarray
        float32, shape (H, W, 3), linear RGB in [0, 1], relative.

    Raises
    ------
    ReplicationError
        If the photo has another shape, dtype or range, or the clone cannot be used.
    """
    photo = torch.from_numpy(_stretched(check_picture(ldr)).transpose(2, 0, 1).copy())
    network = load(clone)
    with torch.inference_mode():
        inferred = network.predict(photo, PATCH_SIZE)
    return _stretched(inferred.numpy().transpose(1, 2, 0))


def _stretched(image: np.ndarray) -> np.ndarray:
    image = image.astype(np.float32)
    low, high = float(image.min()), float(image.max())
    return np.ascontiguousarray((image - low) / (high - low) if high > low else image * 0)
