"""One photo in, seven exposures out, one HDR image (Section 4.5).

The chain runs on 8-bit images, as the paper's does: each inferred exposure is rounded to uint8 before
the next subnetwork reads it (DEVIATIONS D8).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from replication.fast import InferenceNetwork
from replication.files import ReplicationError
from replication.hdr import debevec
from replication.images import check_photo, to_uint8
from replication.model import DeepChain, SubNetwork, previous_ev
from replication.paper import EVS, PATCH_SIZE, PATCH_STRIDE
from replication.weights import WEIGHTS, load_weights, weights_path

OVERLAP = 34
"""Pixels that a tile needs around it: 33 of the feature extraction (field 67) and 1 of r3."""

METHODS = ("tiled", "whole", "patches")


def load_chain(weights: str | Path | None = None) -> DeepChain:
    """Load a trained chain.

    Parameters
    ----------
    weights
        Folder with ``ev+1.safetensors`` … ``ev-3.safetensors``; by default the shipped reference
        weights. ``evs`` beyond ±3 are loaded when their files are there.

    Returns
    -------
    DeepChain
        On the CPU, in evaluation mode; its ``metadata`` maps EV -> metadata of the file.

    Raises
    ------
    ReplicationError
        If the folder or a file is missing, unreadable, or of another network.
    """
    folder = Path(weights) if weights is not None else WEIGHTS
    if not folder.is_dir():
        raise ReplicationError(f"No weights folder at {folder}.")
    extra = [ev for n in range(4, 10) for ev in (n, -n) if weights_path(ev, folder).exists()]
    chain = DeepChain((*EVS, *extra))
    chain.metadata = {ev: load_weights(chain[ev], weights_path(ev, folder)) for ev in chain.evs}
    return chain.eval()


def _tiles(height: int, width: int, tile: int) -> Iterator[tuple[slice, slice, slice, slice]]:
    """Slices (rows, columns) of the enlarged tile in the image and of its core in the image."""
    for top in range(0, height, tile):
        for left in range(0, width, tile):
            bottom, right = min(top + tile, height), min(left + tile, width)
            yield (
                slice(max(top - OVERLAP, 0), min(bottom + OVERLAP, height)),
                slice(max(left - OVERLAP, 0), min(right + OVERLAP, width)),
                slice(top, bottom),
                slice(left, right),
            )


def _positions(length: int, size: int, stride: int) -> np.ndarray:
    """Patch starts at the stride, with a last one flush with the border so that all is covered."""
    last = max(length - size, 0)
    return np.unique(np.append(np.arange(0, last + 1, stride), last))


def infer_exposure(
    image: np.ndarray,
    network: InferenceNetwork | SubNetwork,
    *,
    method: str = "tiled",
    tile: int = 512,
    stride: int = PATCH_STRIDE,
    device: str | torch.device = "cpu",
) -> np.ndarray:
    """Infer the neighbouring exposure of one image with one subnetwork.

    Parameters
    ----------
    image
        uint8 ``(H, W, 3)`` RGB, any size.
    network
        The subnetwork, in evaluation mode.
    method
        ``"whole"``: the image at once. ``"tiled"``: tiles with 34 pixels of overlap, equal to it within
        1e-5 in bounded memory. ``"patches"``: the paper's 64×64 patches, zero-padded each, averaged
        where they overlap; stride 1 in the paper (DEVIATIONS D11).
    tile, stride
        Tile side and patch stride in pixels.
    device
        Where to compute.

    Returns
    -------
    ndarray
        float32 ``(H, W, 3)``, in [0, 1] after clamping.

    Raises
    ------
    ReplicationError
        If the image or the method is not one of these, or tile or stride is not positive.
    """
    image = check_photo(image)
    if method not in METHODS:
        raise ReplicationError(f"Unknown method {method!r}; known are {', '.join(METHODS)}.")
    if tile < 1 or stride < 1:
        raise ReplicationError(f"tile and stride must be positive, not {tile} and {stride}.")
    height, width = image.shape[:2]
    with torch.inference_mode():
        if method == "patches":
            return _by_patches(image, network, stride, device)
        side = max(height, width) if method == "whole" else tile
        inferred = np.empty((height, width, 3), np.float32)
        for rows, columns, core_rows, core_columns in _tiles(height, width, side):
            result = network(_to_batch(image[rows, columns], device))[0].clamp_(0, 1)
            top, left = core_rows.start - rows.start, core_columns.start - columns.start
            core = result[
                :,
                top : top + core_rows.stop - core_rows.start,
                left : left + core_columns.stop - core_columns.start,
            ]
            inferred[core_rows, core_columns] = core.permute(1, 2, 0).cpu().numpy()
    return inferred


def _to_batch(image: np.ndarray, device: str | torch.device) -> torch.Tensor:
    """uint8 ``(H, W, 3)`` -> float32 ``(1, 3, H, W)`` in [0, 1], ``channels_last``."""
    pixels = torch.from_numpy(np.ascontiguousarray(image)).to(device)
    return pixels.permute(2, 0, 1)[None].float().div_(255)


def _by_patches(image, network, stride, device) -> np.ndarray:
    height, width = image.shape[:2]
    size_y, size_x = min(PATCH_SIZE, height), min(PATCH_SIZE, width)
    total = np.zeros((height, width, 3), np.float64)
    count = np.zeros((height, width, 1), np.float64)
    for top in _positions(height, size_y, stride):
        for left in _positions(width, size_x, stride):
            here = slice(top, top + size_y), slice(left, left + size_x)
            patch = network(_to_batch(image[here], device))[0].clamp_(0, 1)
            total[here] += patch.permute(1, 2, 0).cpu().numpy()
            count[here] += 1
    return (total / count).astype(np.float32)


def infer_stack(
    ldr: np.ndarray,
    chain: DeepChain | None = None,
    *,
    method: str = "tiled",
    tile: int = 512,
    stride: int = PATCH_STRIDE,
    device: str | torch.device | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[int, np.ndarray]:
    """Infer the exposure stack of one photo.

    Parameters
    ----------
    ldr
        uint8 ``(H, W, 3)`` RGB, any size: the middle exposure, EV 0.
    chain
        From :func:`load_chain`; by default the shipped weights.
    method, tile, stride
        As in :func:`infer_exposure`.
    device
        By default a GPU where there is one.
    progress
        Called with each EV when it is done.

    Returns
    -------
    dict of int to ndarray
        EV -> uint8 ``(H, W, 3)``, ascending; EV 0 is `ldr` itself.

    Raises
    ------
    ReplicationError
        If the image is not uint8 RGB or the weights cannot be loaded.
    """
    images = {0: check_photo(ldr)}
    chain = chain if chain is not None else load_chain()
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    for ev in chain.evs:
        network = InferenceNetwork(chain[ev]).to(device)
        inferred = infer_exposure(
            images[previous_ev(ev)], network, method=method, tile=tile, stride=stride, device=device
        )
        images[ev] = to_uint8(inferred)
        if progress:
            progress(ev)
    return dict(sorted(images.items()))


def merge_stack(images: dict[int, np.ndarray]) -> np.ndarray:
    """Merge a stack by Debevec's method with the response estimated from its own images.

    Parameters
    ----------
    images
        EV -> uint8 ``(H, W, 3)``; exposure times are 2^EV.

    Returns
    -------
    ndarray
        float32 ``(H, W, 3)`` linear RGB, relative; source: Sections 4.5 and 6.2.
    """
    evs = sorted(images)
    frames, times = [images[ev] for ev in evs], [2.0**ev for ev in evs]
    return debevec.merge(frames, times, debevec.estimate_response(frames, times))


def reconstruct(ldr: np.ndarray, chain: DeepChain | None = None, **options) -> np.ndarray:
    """Infer the stack of one photo and merge it into an HDR image.

    Parameters
    ----------
    ldr, chain, **options
        As in :func:`infer_stack`.

    Returns
    -------
    ndarray
        float32 ``(H, W, 3)`` linear RGB, relative radiance.

    Raises
    ------
    ReplicationError
        As in :func:`infer_stack`.
    """
    return merge_stack(infer_stack(ldr, chain, **options))


# ---- adapter: the old code under its new name, until this module is rewritten ----


from tempfile import TemporaryDirectory  # noqa: E402

from skimage.data import coffee  # noqa: E402
from tqdm import tqdm  # noqa: E402

from replication.files import check_folder  # noqa: E402
from replication.hdr import io, reinhard  # noqa: E402

BUILT_IN_PHOTO = "coffee"


def convert(
    photos,
    output,
    *,
    weights=None,
    method: str = "tiled",
    tile: int = 512,
    stride: int = 10,
    device: str | None = None,
) -> None:
    """Convert photos to HDR images; a photo that fails does not stop the others.

    Parameters
    ----------
    photos
        8- or 16-bit pictures, colour or grey, alpha ignored, EXIF orientation applied. None: a
        photograph that scikit-image carries.
    output
        Folder that receives, for each photo, ``NAME.hdr`` and ``NAME.exr`` (relative radiance),
        ``NAME_tonemapped.png`` (Reinhard 2002) and ``NAME_stack/ev-3.png`` … ``ev+3.png``.
    weights, method, tile, stride
        As in :func:`replication.reconstruct.infer_stack`.

    Raises
    ------
    ReplicationError
        If two photos would write the same files, the weights cannot be loaded, or a photo failed.
    """
    import replication.reconstruct as here

    names = [Path(photo).stem for photo in photos] or [BUILT_IN_PHOTO]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ReplicationError(
            f"Two photos are named {twice[0]!r}: they would write the same files."
        )
    photos, output = [Path(photo) for photo in photos], check_folder(output)
    chain = load_chain(weights)
    failures = []
    sources = list(photos) or [None]
    with tqdm(total=len(sources) * len(chain.evs), unit="image", disable=None) as bar:
        for number, (name, photo) in enumerate(zip(names, sources, strict=True), 1):
            bar.set_description(name)
            try:
                ldr = coffee() if photo is None else io.read_image(photo)
                images = here.infer_stack(
                    ldr,
                    chain,
                    method=method,
                    tile=tile,
                    stride=stride,
                    device=device,
                    progress=lambda _: bar.update(),
                )
                _write_results(output, name, images)
            except ReplicationError as error:
                failures.append(str(error).rstrip("."))
                bar.write(f"{name}: not converted")
            else:
                bar.write(f"{name}: {output / name}.hdr, .exr, _tonemapped.png, _stack/")
            bar.update(number * len(chain.evs) - bar.n)
    if failures:
        count = f"{len(failures)} of {len(sources)} photos could not be converted: "
        raise ReplicationError(f"{count if len(sources) > 1 else ''}{'; '.join(failures)}.")


def _write_results(output: Path, name: str, images: dict[int, np.ndarray]) -> None:
    """Write everything about one photo into a temporary folder, then move it to its place."""
    hdr = merge_stack(images)
    try:
        output.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(".part", f".{name}.", output) as part:
            part = Path(part)
            io.write_hdr(part / f"{name}.hdr", hdr)
            io.write_hdr(part / f"{name}.exr", hdr)
            io.write_png(part / f"{name}_tonemapped.png", reinhard.tone_map(hdr))
            for ev, image in images.items():
                io.write_png(part / f"{name}_stack" / f"ev{ev:+d}.png", image)
            (output / f"{name}_stack").mkdir(exist_ok=True)
            for path in sorted(p for p in part.rglob("*") if p.is_file()):
                path.replace(output / path.relative_to(part))
    except OSError as error:
        raise ReplicationError(f"Cannot write to {output}: {error.strerror or error}.") from error
