"""64×64 patches at stride 10 (Section 4.3), cut from images that stay on the device as uint8."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from replication.files import ReplicationError
from replication.paper import PATCH_SIZE, PATCH_STRIDE


class PatchSet:
    """Patches of several exposures of several scenes; ReplicationError where they do not fit together.

    Args:
        images: One mapping per scene, EV -> uint8 ``(H, W, 3)``, with all of `evs` in one size.
        size: Side of a patch and `stride`, the step to the next, in pixels.
        device: Where the images live and the patches come out.
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
        self.evs, self.size, self.device = tuple(evs), size, torch.device(device)
        starts, widths, base = [], [], 0
        for number, scene in enumerate(images):
            for ev in self.evs:
                name = f"Training scene {number}: EV {ev:+d}"
                if ev not in scene:
                    raise ReplicationError(f"{name} is missing.")
                if scene[ev].shape != (shape := scene[self.evs[0]].shape):
                    raise ReplicationError(f"{name} has shape {scene[ev].shape}, not {shape}.")
            height, width = shape[:2]
            rows = np.arange(0, height - size + 1, stride)[:, None] * width
            starts.append((base + rows + np.arange(0, width - size + 1, stride)).ravel())
            widths.append(np.full(starts[-1].size, width))
            base += height * width
        if not any(start.size for start in starts):
            raise ReplicationError(f"No training image holds a {size}x{size} patch.")
        pixels = {ev: [scene[ev].reshape(-1, 3) for scene in images] for ev in self.evs}
        self._pixels = {ev: self._join(parts) for ev, parts in pixels.items()}
        self._starts, self._widths = map(self._join, (starts, widths))

    def _join(self, parts: list[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.concatenate(parts)).to(self.device)

    def __len__(self) -> int:
        return len(self._starts)

    def gather(self, indices: Tensor, flips: Tensor | None = None) -> dict[int, Tensor]:
        """EV -> patches by number, float32 ``(B, 3, size, size)`` in [0, 1], ``channels_last``.

        Args:
            indices: int64 ``(B,)``, each in ``[0, len(self))``; the same part in every exposure.
            flips: bool ``(B, 2)``, mirror vertically and horizontally; by default none.
        """
        indices = indices.to(self.device)
        down = across = torch.arange(self.size, device=self.device).expand(len(indices), -1)
        if flips is not None:
            flips, last = flips.to(self.device), self.size - 1
            down = torch.where(flips[:, :1], last - down, down)
            across = torch.where(flips[:, 1:], last - across, across)
        rows = self._starts[indices, None] + down * self._widths[indices, None]
        pixels = rows[:, :, None] + across[:, None, :]
        cut = {ev: flat[pixels].permute(0, 3, 1, 2) for ev, flat in self._pixels.items()}
        return {ev: patch.float().div_(255) for ev, patch in cut.items()}
