"""One photo in, seven exposures out, one HDR image (Section 4.5)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from skimage.data import coffee
from torch import Tensor, nn
from tqdm import tqdm

from replication.fast import choose_device, for_inference, full_precision
from replication.files import ReplicationError, check_folder
from replication.hdr import debevec, io, reinhard
from replication.images import check_photo, to_uint8
from replication.model import DeepChain
from replication.paper import EVS, PATCH_SIZE, PATCH_STRIDE
from replication.weights import WEIGHTS, load_weights, weights_path

OVERLAP = 34  # pixels that a tile needs around it: 33 of the features (field 67) and 1 of r3
BUILT_IN_PHOTO = "coffee"  # a cup of coffee by Rachel Michetti (CC0), part of scikit-image


def load_chain(weights: str | Path | None = None) -> DeepChain:
    """Load a trained chain on the CPU, in evaluation mode; its `metadata` are EV -> those of the file.

    `weights` is a folder with ``ev+1.safetensors`` …, at least ±1, ±2, ±3; by default the shipped one.
    """
    folder = WEIGHTS if weights is None else Path(weights)
    if not folder.is_dir():
        raise ReplicationError(f"No weights folder at {folder}.")
    further = [ev for n in range(4, 10) for ev in (n, -n) if weights_path(ev, folder).exists()]
    chain = DeepChain((*EVS, *further))
    chain.metadata = {ev: load_weights(chain[ev], weights_path(ev, folder), ev) for ev in chain.evs}
    return chain.eval()


class _Tiled(nn.Module):
    """A network on a whole image on the CPU, one clamped part at a time on `device`."""

    def __init__(self, network, method="tiled", tile=512, stride=PATCH_STRIDE, device=None) -> None:
        super().__init__()
        if method not in ("tiled", "whole", "patches"):
            raise ReplicationError(f"Unknown method {method!r}; known are tiled, whole, patches.")
        if tile < 1 or stride < 1:
            raise ReplicationError(f"tile and stride must be positive, not {tile} and {stride}.")
        self.method, self.tile, self.stride = method, tile, stride
        self.device = choose_device(device)
        self.network = for_inference(network).to(self.device)

    def forward(self, x: Tensor) -> Tensor:
        if self.method == "patches":
            return self._patches(x)
        image, tile = torch.empty_like(x), max(x.shape) if self.method == "whole" else self.tile
        for top, left in product(*(range(0, length, tile) for length in x.shape[2:])):
            above, before = min(top, OVERLAP), min(left, OVERLAP)
            rows = slice(top - above, top + tile + OVERLAP)
            part = self._part(x[..., rows, left - before : left + tile + OVERLAP])
            core = part[..., above : above + tile, before : before + tile]
            image[..., top : top + tile, left : left + tile] = core
        return image

    def _part(self, x: Tensor) -> Tensor:
        return self.network(x.to(self.device)).clamp_(0, 1).cpu()

    def _patches(self, x: Tensor) -> Tensor:
        total, count = torch.zeros_like(x, dtype=torch.float64), torch.zeros(x.shape[2:])
        last = [max(length - PATCH_SIZE, 0) for length in x.shape[2:]]  # flush with the border
        for top, left in product(*(sorted({*range(0, n, self.stride), n}) for n in last)):
            here = (..., slice(top, top + PATCH_SIZE), slice(left, left + PATCH_SIZE))
            total[here] += self._part(x[here])
            count[here] += 1
        return (total / count).float()


def _batch(image: np.ndarray) -> Tensor:
    return torch.from_numpy(check_photo(image)).permute(2, 0, 1)[None].float().div_(255)


def infer_exposure(image: np.ndarray, network: nn.Module, **options) -> np.ndarray:
    """Infer the neighbouring exposure of one image: float32 ``(H, W, 3)`` in [0, 1].

    Args:
        image: uint8 ``(H, W, 3)`` RGB, any size.
        network: A subnetwork, or another module for ``(1, 3, H, W)``; it stays as it is.
        **options: `method`: ``"whole"``; ``"tiled"`` (default), parts of `tile` (512) pixels with 34 of
            overlap, equal to it within 1e-5; or ``"patches"`` of 64×64 at `stride` (10; the paper's is
            1), averaged (D11). `device`: cpu, cuda or cuda:N, by default a GPU where there is one.
    """
    with torch.inference_mode(), full_precision():
        return _Tiled(network, **options)(_batch(image))[0].permute(1, 2, 0).numpy()


def infer_stack(
    ldr: np.ndarray, chain: DeepChain | None = None, *, progress: Callable | None = None, **options
) -> dict[int, np.ndarray]:
    """Infer the exposure stack of one photo: EV -> uint8 ``(H, W, 3)``, ascending.

    `ldr`, uint8 ``(H, W, 3)`` RGB, is EV 0; `chain` are by default the shipped weights; `progress` is
    called with each EV when it is done; `options` are those of :func:`infer_exposure`.
    """
    images, chain = {0: check_photo(ldr)}, chain or load_chain()
    with torch.device("meta"):
        quick = DeepChain(chain.evs).eval()  # only its shape: quick subnetworks replace its own
    for ev in chain.evs:
        quick.subnetworks[f"{ev:+d}"] = _Tiled(chain[ev], **options)
    with torch.inference_mode(), full_precision():
        for ev, image in quick.exposures(_batch(ldr)):
            images[ev] = to_uint8(image[0].permute(1, 2, 0).numpy())
            if progress:
                progress(ev)
    return dict(sorted(images.items()))


def merge_stack(images: dict[int, np.ndarray]) -> np.ndarray:
    """Merge a stack, EV -> uint8, by Debevec's method, to float32 linear RGB (Sections 4.5, 6.2)."""
    if 0 in images and not images[0].any():  # no light: the other exposures say nothing
        return np.zeros(images[0].shape, np.float32)
    evs = sorted(images)
    frames, times = [images[ev] for ev in evs], [2.0**ev for ev in evs]
    return debevec.merge(frames, times, debevec.estimate_response(frames, times))


def reconstruct(ldr: np.ndarray, chain: DeepChain | None = None, **options) -> np.ndarray:
    """:func:`infer_stack`, then :func:`merge_stack`: float32 ``(H, W, 3)`` linear RGB."""
    return merge_stack(infer_stack(ldr, chain, **options))


def convert(photos: Sequence[str | Path], output: str | Path, *, weights=None, **options) -> None:
    """Convert photos to HDR images; one that fails does not stop the others, but raises at the end.

    Args:
        photos: Picture files; none means a photograph that scikit-image carries.
        output: Folder that receives, for each photo, ``NAME.hdr`` and ``NAME.exr`` (relative radiance),
            ``NAME_tonemapped.png`` (Reinhard 2002) and ``NAME_stack/ev-3.png`` … ``ev+3.png``.
        weights: As in :func:`load_chain`, `options` as in :func:`infer_exposure`.
    """
    output, photos = check_folder(output), [Path(photo) for photo in photos] or [None]
    names = [photo.stem if photo else BUILT_IN_PHOTO for photo in photos]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ReplicationError(f"Two photos are named {twice[0]!r}: they would write the same files.")
    chain, failures = load_chain(weights), []
    with tqdm(total=len(photos) * len(chain.evs), unit="image", disable=None) as bar:
        for number, (name, photo) in enumerate(zip(names, photos, strict=True), 1):
            said = "not converted"
            try:
                ldr = io.read_image(photo) if photo else coffee()
                _write(output, name, infer_stack(ldr, chain, progress=lambda _: bar.update(), **options))
                said = f"{output / name}.hdr, .exr, _tonemapped.png, _stack/"
            except (ReplicationError, OSError, UnicodeError) as error:
                failures.append(f"{error}".rstrip("."))
            except (MemoryError, RuntimeError) as error:
                if isinstance(error, RuntimeError) and "memory" not in str(error):
                    raise
                failures.append(f"{photo or name} needs more memory than there is")
            encoding = sys.stdout.encoding or "utf-8"
            bar.write(f"{name}: {said}".encode(encoding, "backslashreplace").decode(encoding))
            bar.update(number * len(chain.evs) - bar.n)
    if failures:
        count = f"{len(failures)} of {len(photos)} photos could not be converted: "
        raise ReplicationError(f"{count if len(photos) > 1 else ''}{'; '.join(failures)}.")


def _write(output: Path, name: str, images: dict[int, np.ndarray]) -> None:
    """Write everything about one photo into a temporary folder, then move it to its place."""
    hdr = merge_stack(images)
    output.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(".part", ".convert.", output) as part:
        part = Path(part)  # libraries see no name of the user's, which may not be UTF-8
        for suffix in ("hdr", "exr"):
            io.write_hdr(part / f"photo.{suffix}", hdr)
        io.write_png(part / "photo_tonemapped.png", reinhard.tone_map(hdr))
        for ev, image in images.items():
            io.write_png(part / "photo_stack" / f"ev{ev:+d}.png", image)
        (output / f"{name}_stack").mkdir(exist_ok=True)
        for path in sorted(part.rglob("*.*")):
            path.replace(output / str(path.relative_to(part)).replace("photo", name, 1))
