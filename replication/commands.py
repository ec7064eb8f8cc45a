"""What the verbs of the command line do beyond calling one function."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from skimage.data import coffee
from tqdm.auto import tqdm

from replication import __version__
from replication.data.patches import PatchSet
from replication.data.stacks import dataset_hash, load_stacks
from replication.errors import ReplicationError
from replication.files import sha256_file
from replication.hdr import io, reinhard
from replication.model import InferenceNetwork, SubNetwork, activation_for, chain_evs, previous_ev
from replication.reconstruct import (
    infer_exposure,
    infer_stack,
    load_chain,
    merge_stack,
    to_uint8,
    weights_path,
)
from replication.train import (
    Recipe,
    evs_needed,
    load_weights,
    read_safetensors,
    save_weights,
    seeded,
    train,
)

BUILT_IN_PHOTO = "coffee"
"""Name of the default photograph: a cup of coffee by Rachel Michetti (CC0), part of scikit-image."""


def convert_command(
    photos: Sequence[Path],
    output: Path,
    *,
    weights: Path | None = None,
    method: str = "tiled",
    tile: int = 512,
    stride: int = 10,
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
    names = [photo.stem for photo in photos] or [BUILT_IN_PHOTO]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ReplicationError(
            f"Two photos are named {twice[0]!r}: they would write the same files."
        )
    chain = load_chain(weights)
    failures = []
    sources = list(photos) or [None]
    bar = tqdm(total=len(sources) * len(chain.evs), unit="image", disable=None)
    with bar:
        for name, photo in zip(names, sources, strict=True):
            bar.set_description(name)
            try:
                ldr = coffee() if photo is None else io.read_image(photo)
                images = infer_stack(
                    ldr,
                    chain,
                    method=method,
                    tile=tile,
                    stride=stride,
                    progress=lambda _: bar.update(),
                )
                _write_results(output, name, images)
            except ReplicationError as error:
                failures.append(str(error))
                bar.write(f"error: {error}", file=sys.stderr)
            else:
                bar.write(f"{name}: {output / name}.hdr, .exr, _tonemapped.png, _stack/")
    if failures:
        raise ReplicationError(
            f"{len(failures)} of {len(sources)} photos could not be converted (said above)."
        )


def _write_results(output: Path, name: str, images: dict[int, np.ndarray]) -> None:
    """Write everything about one photo beside its place, then move it there: all or nothing."""
    hdr = merge_stack(images)
    part = output / f".{name}.part"
    try:
        io.write_hdr(part / f"{name}.hdr", hdr)
        io.write_hdr(part / f"{name}.exr", hdr)
        io.write_png(part / f"{name}_tonemapped.png", reinhard.tone_map(hdr))
        for ev, image in images.items():
            io.write_png(part / f"{name}_stack" / f"ev{ev:+d}.png", image)
        for path in sorted(p for p in part.rglob("*") if p.is_file()):
            target = output / path.relative_to(part)
            target.parent.mkdir(exist_ok=True)
            path.replace(target)
    except OSError as error:
        raise ReplicationError(f"Cannot write to {output}: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def train_command(
    ev: Sequence[int],
    output: Path,
    *,
    dataset: str = "mini",
    init: Path | None = None,
    inferred_from: Path | None = None,
    activation: str | None = None,
    device: str | None = None,
    threads: int | None = None,
    label: str | None = None,
    **recipe,
) -> dict[int, Path]:
    """Train subnetworks on a data set's training scenes and save them; resumes what `output` holds.

    Parameters
    ----------
    ev
        One EV, or the EVs of an arm for chained training.
    output
        Folder: log, checkpoint, and the finished ``ev+1.safetensors`` ….
    dataset
        Name for :func:`replication.data.stacks.load_stacks`; its split "train" is used.
    init
        Weights folder to start from (fine-tuning); by default fresh weights from the seed.
    inferred_from
        Weights folder of the subnetworks that come before in the chain: the input of training is then
        the image that they infer, not the true one (Section 4.3 allows both; DEVIATIONS D7).
    activation
        Overrides the paper's choice for the EVs.
    device, threads
        ``"cpu"`` or ``"cuda"``; CPU threads of torch.
    label
        For the progress bar.
    **recipe
        Fields of :class:`replication.train.Recipe`.

    Returns
    -------
    dict of int to Path
        EV -> weights file.

    Raises
    ------
    ReplicationError
        For unknown values, absent data or weights, and as in :func:`replication.train.train`.
    """
    plan = Recipe.of(recipe)
    evs = chain_evs(ev) if plan.mode == "chained" else tuple(dict.fromkeys(ev))
    if 0 in evs:
        raise ReplicationError("EV +0 is the photo itself; there is nothing to train.")
    written = {one: weights_path(one, output) for one in evs}
    if all(path.exists() for path in written.values()):
        for path in written.values():
            _same_recipe(path, plan)
        return written
    if threads:
        torch.set_num_threads(threads)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ReplicationError(f"Device {device} is not available here; --device cpu is.")
    stacks = load_stacks(dataset, split="train")
    images = [dict(stack.images) for stack in stacks]
    if inferred_from is not None:
        _replace_inputs(images, evs, inferred_from, device)
    patches = PatchSet(images, evs_needed(evs), device=device)
    networks = {
        one: seeded(lambda one=one: SubNetwork(activation or activation_for(one)), plan.seed + one)
        for one in evs
    }
    if init is not None:
        for one, network in networks.items():
            load_weights(network, weights_path(one, init))
    name = label or " ".join(f"EV {one:+d}" for one in evs)
    final = train(networks, patches, plan, output, label=name)
    for one, network in networks.items():
        metadata = {
            "ev": one,
            "activation": network.activation,
            "recipe": asdict(plan),
            "dataset": dataset,
            "data_hash": dataset_hash(stacks),
            "patches_in_data": len(patches),
            "init": sha256_file(weights_path(one, init)) if init else None,
            "inputs": "inferred" if inferred_from else "true",
            "device": device,
            "code_version": __version__,
        }
        save_weights(network, written[one], metadata)
    final.unlink()
    return written


def _replace_inputs(
    images: list[dict[int, np.ndarray]], evs: Sequence[int], folder: Path, device: str
) -> None:
    """Put the inferred image in the place of the true one that the subnetwork of `evs` reads."""
    if len(evs) > 1:
        raise ReplicationError("Training on inferred images takes one EV at a time.")
    (ev,) = evs
    path = [one for one in chain_evs(range(0, ev, 1 if ev > 0 else -1)[1:]) if one]
    for one in path:
        network = SubNetwork(activation_for(one))
        load_weights(network, weights_path(one, folder))
        network = InferenceNetwork(network).to(device)
        for scene in tqdm(images, desc=f"inferring EV {one:+d}", disable=None):
            scene[one] = to_uint8(infer_exposure(scene[previous_ev(one)], network, device=device))


def _same_recipe(path: Path, plan: Recipe) -> None:
    trained = json.loads(read_safetensors(path)[1].get("recipe", "null"))
    if trained != asdict(plan):
        raise ReplicationError(f"{path} was trained by another recipe; choose another folder.")


def report_command(*, check: bool = False) -> None:
    """Regenerate (or, with `check`, compare) the tables in README.md and results/ from the rows."""
    from replication.report import update_tables

    update_tables(check=check)
