"""64×64 patch pairs at stride 10 (Section 4.3), cut from images that stay on the device as uint8."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from replication.files import ReplicationError
from replication.paper import PATCH_SIZE, PATCH_STRIDE


def patch_count(height: int, width: int, size: int = PATCH_SIZE, stride: int = PATCH_STRIDE) -> int:
    """Number of size×size patches at the given stride that fit into a height×width image."""
    if height < size or width < size:
        return 0
    return ((height - size) // stride + 1) * ((width - size) // stride + 1)


class PatchSet:
    """Aligned patches of several exposures of several scenes, gathered without copies per patch.

    Parameters
    ----------
    images
        One mapping per scene, EV -> uint8 ``(H, W, 3)``; scenes may differ in size.
    evs
        Exposures to keep; every scene must have them.
    size, stride
        Patch side and step in pixels; the paper's are 64 and 10.
    device
        Where the images live and the patches come out.

    Raises
    ------
    ReplicationError
        If a scene misses an exposure, its exposures differ in size, or no image holds a patch.
    """

    def __init__(
        self,
        images: Sequence[dict[int, np.ndarray]],
        evs: Iterable[int],
        *,
        size: int = PATCH_SIZE,
        stride: int = PATCH_STRIDE,
        device: str | torch.device = "cpu",
    ) -> None:
        self.evs = tuple(evs)
        self.size, self.stride, self.device = size, stride, torch.device(device)
        pixels: dict[int, list[np.ndarray]] = {ev: [] for ev in self.evs}
        starts, widths, base = [], [], 0
        for number, scene in enumerate(images):
            missing = [ev for ev in self.evs if ev not in scene]
            if missing:
                raise ReplicationError(f"Training scene {number} lacks EV {missing[0]:+d}.")
            height, width = scene[self.evs[0]].shape[:2]
            for ev in self.evs:
                if scene[ev].shape != (height, width, 3):
                    raise ReplicationError(
                        f"Training scene {number}: EV {ev:+d} has shape {scene[ev].shape}, "
                        f"not {(height, width, 3)}."
                    )
                pixels[ev].append(scene[ev].reshape(-1, 3))
            rows = np.arange(0, height - size + 1, stride)
            columns = np.arange(0, width - size + 1, stride)
            first = (base + rows[:, None] * width + columns[None, :]).ravel()
            starts.append(first)
            widths.append(np.full(first.size, width))
            base += height * width
        if not sum(s.size for s in starts):
            raise ReplicationError(f"No training image holds a {size}x{size} patch.")
        self._starts = torch.from_numpy(np.concatenate(starts)).to(self.device)
        self._widths = torch.from_numpy(np.concatenate(widths)).to(self.device)
        self._offsets = torch.arange(size, device=self.device)
        self._pixels = {
            ev: torch.from_numpy(np.concatenate(pixels[ev])).to(self.device) for ev in self.evs
        }

    def __len__(self) -> int:
        return len(self._starts)

    def gather(self, indices: Tensor, flips: Tensor | None = None) -> dict[int, Tensor]:
        """Patches of the given indices, the same places in every exposure.

        Parameters
        ----------
        indices
            ``(B,)`` int64, each in ``[0, len(self))``.
        flips
            ``(B, 2)`` bool, mirror vertically and horizontally; by default none.

        Returns
        -------
        dict[int, Tensor]
            EV -> float32 ``(B, 3, size, size)`` in [0, 1], ``channels_last`` in memory.
        """
        indices = indices.to(self.device)
        down = self._offsets.expand(len(indices), -1)
        across = down
        if flips is not None:
            flips = flips.to(self.device)
            last = self.size - 1
            down = torch.where(flips[:, :1], last - down, down)
            across = torch.where(flips[:, 1:], last - across, across)
        rows = self._starts[indices, None] + down * self._widths[indices, None]
        places = rows[:, :, None] + across[:, None, :]
        return {
            ev: flat[places].permute(0, 3, 1, 2).float().div_(255)
            for ev, flat in self._pixels.items()
        }
