"""What the verbs of the command line do beyond calling one function."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from skimage.data import coffee
from tqdm import tqdm

from replication import paper, parallel, runs
from replication.data.patches import PatchSet
from replication.data.stacks import ExposureStack, dataset_hash, has_split, load_stacks
from replication.evaluation import ablation
from replication.evaluation import exposures as evaluate
from replication.evaluation import radiance as comparison
from replication.evaluation import rows as report
from replication.fast import InferenceNetwork
from replication.files import RESULTS, ReplicationError, sha256_file
from replication.hdr import io, reinhard
from replication.images import to_uint8
from replication.metrics import scaling
from replication.metrics.drim import overlay
from replication.model import SubNetwork, activation_for, chain_evs, previous_ev
from replication.provenance import code_version, usable_cores, write_provenance
from replication.reconstruct import infer_exposure, infer_stack, load_chain, merge_stack
from replication.report import documents, figures, tables, verify
from replication.train import Recipe, evs_needed, seeded, train
from replication.weights import FAITHFUL, load_weights, read_safetensors, save_weights, weights_path

FIGURE7_SCENE = "horseshoelake"
"""Scene of `empa` in the committed figures (CC BY 4.0, attributed in the report)."""

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
    _check_folder(output)
    chain = load_chain(weights)
    failures = []
    sources = list(photos) or [None]
    with tqdm(total=len(sources) * len(chain.evs), unit="image", disable=None) as bar:
        for number, (name, photo) in enumerate(zip(names, sources, strict=True), 1):
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
                failures.append(str(error).rstrip("."))
                bar.write(f"{name}: not converted")
            else:
                bar.write(f"{name}: {output / name}.hdr, .exr, _tonemapped.png, _stack/")
            bar.update(number * len(chain.evs) - bar.n)
    if failures:
        count = f"{len(failures)} of {len(sources)} photos could not be converted: "
        raise ReplicationError(f"{count if len(sources) > 1 else ''}{'; '.join(failures)}.")


def _check_folder(path: Path) -> None:
    """Raise unless `path` is a folder that can be written to, or can be made."""
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    if not there.is_dir():
        raise ReplicationError(f"Cannot write to {path}: {there} is not a folder.")
    if not os.access(there, os.W_OK):
        raise ReplicationError(f"Cannot write to {path}: no permission to write in {there}.")


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
    compile: bool = False,
    **recipe,
) -> dict[int, Path]:
    """Train subnetworks on a data set's training scenes and save them; resumes what `output` holds.

    Under torchrun the processes train together (:mod:`replication.parallel`); process 0 writes.

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
    compile
        As in :func:`replication.train.train`.
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
    _check_folder(output)
    written = {one: weights_path(one, output) for one in evs}
    facts = {
        one: {
            "ev": one,
            "activation": activation or activation_for(one),
            "recipe": asdict(plan),
            "dataset": dataset,
            "init": None if init is None else _weights_hash(weights_path(one, init)),
            "inputs": "true" if inferred_from is None else "inferred",
        }
        for one in evs
    }
    if threads is not None and threads < 1:
        raise ReplicationError(f"The number of threads must be positive, not {threads}.")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    _check_device(device)
    with parallel.group(device) as device:
        if parallel.from_first(_trained_already, written, facts):
            return written
        if threads is not None:
            torch.set_num_threads(threads)
        stacks = load_stacks(dataset, split="train")
        images = [dict(stack.images) for stack in stacks]
        if inferred_from is not None:
            _replace_inputs(images, evs, inferred_from, device)
        patches = PatchSet(images, evs_needed(evs), device=device)
        networks = {
            one: seeded(lambda one=one: SubNetwork(facts[one]["activation"]), plan.seed + one)
            for one in evs
        }
        if init is not None:
            for one, network in networks.items():
                load_weights(network, weights_path(one, init))
        name = label or " ".join(f"EV {one:+d}" for one in evs)
        often = max(1, min(50, plan.steps // 25))  # a short run's log has a curve, too
        final = train(networks, patches, plan, output, log_every=often, label=name, compile=compile)
        if parallel.rank() == 0:
            for one, network in networks.items():
                metadata = facts[one] | {
                    "validation": _validation(network.cpu(), one, dataset, stacks),
                    "data_hash": dataset_hash(stacks),
                    "patches_in_data": len(patches),
                    "device": device,
                    "processes": parallel.size(),
                    "code_version": code_version(),
                }
                save_weights(network, written[one], metadata)
            final.unlink()
    return written


def ablate_command(study: str, output: Path, **options) -> Path:
    """Run a study and print its table; `options` as in :func:`replication.evaluation.ablation.run_study`.

    Returns
    -------
    Path
        The per-image rows.
    """
    _check_folder(output)
    path = ablation.run_study(study, output, **options)
    print(report.markdown_table(tables.ablation_frame(report.read_rows(path))))
    print(f"One row per scene, contender and seed: {path}")
    return path


def _trained_already(written: dict[int, Path], facts: dict[int, dict]) -> bool:
    """Whether all weights are there; raises if they were trained in another way."""
    if not all(path.exists() for path in written.values()):
        return False
    for one, path in written.items():
        _check_same(path, facts[one])
    return True


def _validation(
    network: SubNetwork, ev: int, dataset: str, training: Sequence[ExposureStack]
) -> dict[str, object] | None:
    """Figures for the metadata: the link on the validation scenes, baselines beside it."""
    if not has_split(dataset, "val"):
        return None
    stacks = load_stacks(dataset, split="val")
    methods = evaluate.link_methods(network, ev, training)
    psnr = evaluate.link_psnr(stacks, ev, methods)
    return {"input": "true image before", "scenes": len(stacks), "psnr_db": psnr}


def _replace_inputs(
    images: list[dict[int, np.ndarray]], evs: Sequence[int], folder: Path, device: str
) -> None:
    """Put the inferred image in the place of the true one that the subnetwork of `evs` reads."""
    if len(evs) > 1:
        raise ReplicationError("Training on inferred images takes one EV at a time.")
    (ev,) = evs
    for one in range(1, ev) if ev > 0 else range(-1, ev, -1):
        network = SubNetwork(activation_for(one))
        load_weights(network, weights_path(one, folder))
        network = InferenceNetwork(network).to(device)
        for scene in tqdm(images, desc=f"inferring EV {one:+d}", disable=None):
            scene[one] = to_uint8(infer_exposure(scene[previous_ev(one)], network, device=device))


def _weights_hash(path: Path) -> str:
    if not path.is_file():
        raise ReplicationError(f"No weights at {path}.")
    return sha256_file(path)


def _check_device(device: str) -> None:
    """Raise unless torch can compute on `device`."""
    try:
        kind = torch.device(device).type
    except RuntimeError:
        kind = None
    if kind not in ("cpu", "cuda"):
        raise ReplicationError(f"Unknown device {device!r}; known are cpu and cuda.")
    if kind == "cuda" and not torch.cuda.is_available():
        raise ReplicationError(f"Device {device} is not available here; --device cpu is.")


def _check_same(path: Path, facts: dict) -> None:
    """Raise if finished weights were trained in another way than is asked for now."""
    metadata = read_safetensors(path)[1]
    for key, value in facts.items():
        if json.loads(metadata.get(key, "null")) != value:
            raise ReplicationError(
                f"{path} was trained with another {key}, {metadata.get(key, 'unknown')}; "
                "choose another folder."
            )


def evaluate_command(
    dataset: str,
    output: str | Path,
    *,
    split: str = "test",
    weights: str | Path | None = None,
    jobs: int | None = None,
) -> Path:
    """Compare the HDR images of all methods with the true ones (Table 5); resumes after a stop.

    Parameters
    ----------
    dataset
        As in :func:`replication.data.stacks.load_stacks`.
    output
        Folder: ``table5.csv``, and ``rows/`` with a file per finished scene.
    split
        train, val or test.
    weights
        Folder of the chain's weights; by default the shipped ones.
    jobs
        Processes; by default one per core.

    Returns
    -------
    Path
        ``table5.csv``.

    Raises
    ------
    ReplicationError
        If data, weights or the clone cannot be read, or a scene cannot be scored.
    """
    output = Path(output)
    _check_folder(output)
    methods = comparison.photo_methods(weights)
    methods += comparison.truth_methods()
    stacks = load_stacks(dataset, split=split)
    if not stacks:
        raise ReplicationError(f"{dataset} has no scenes in its split {split}.")
    rows = comparison.comparison_rows(
        stacks, methods, folder=output / "rows", jobs=usable_cores() if jobs is None else jobs
    )
    path = report.write_rows(output / "table5.csv", rows)
    print(tables.table5_text(report.read_rows(path)))
    print(f"Protocol: {comparison.PROTOCOL}.")
    return path


def compare_command(
    test: str | Path,
    reference: str | Path,
    *,
    photo: str | Path | None = None,
    absolute: bool = False,
    maps: str | Path | None = None,
) -> dict[str, float]:
    """Score one HDR image against another and print every score with its protocol.

    Parameters
    ----------
    test, reference
        ``.hdr`` or ``.exr`` files of one size.
    photo
        The LDR picture that `test` was made from: its clipped pixels are left out where test and
        reference are brought to the same mean luminance, and the log errors are split by them.
    absolute
        Both files are in cd/m2 already; nothing is scaled.
    maps
        Folder for ``NAME_hdrvdp2.png`` (grey level 255 = surely seen) and ``NAME_drim.png``.

    Returns
    -------
    dict of str to float
        The metrics.

    Raises
    ------
    ReplicationError
        If a file cannot be read, sizes differ, or `photo` and `absolute` are both given.
    """
    if photo is not None and absolute:
        raise ReplicationError("Give a photo to scale by, or say that the files are absolute.")
    hdr, truth = io.read_hdr(test), io.read_hdr(reference)
    if hdr.shape != truth.shape:
        raise ReplicationError(
            f"{test} has {hdr.shape[1]}x{hdr.shape[0]} pixels, "
            f"but {reference} has {truth.shape[1]}x{truth.shape[0]}."
        )
    ldr = np.zeros(hdr.shape, np.uint8) if photo is None else io.read_image(photo)
    if ldr.shape != hdr.shape:
        raise ReplicationError(
            f"{photo} has {ldr.shape[1]}x{ldr.shape[0]} pixels, "
            f"but {test} has {hdr.shape[1]}x{hdr.shape[0]}."
        )
    pair = (hdr, truth) if absolute else comparison.scale_pair(hdr, truth, ldr)
    found, seen, changes = comparison.scores(hdr, truth, ldr, pair=pair)
    if photo is None:
        found["clipped_share"] = float("nan")  # not known
    found = {name: value for name, value in found.items() if not np.isnan(value)}
    for name, value in found.items():
        print(f"{name:24s} {value:10.4f}  {report.METRICS[name]}")
    print(f"Protocol: {comparison.protocol(_scale_text(photo, absolute))}.")
    if maps is not None:
        folder, name = Path(maps), Path(test).stem
        _check_folder(folder)
        grey = to_uint8(np.repeat(seen.P_map[..., None], 3, axis=2))
        io.write_png(folder / f"{name}_hdrvdp2.png", grey)
        io.write_png(folder / f"{name}_drim.png", overlay(changes, pair[0]))
        print(f"Maps in {folder}.")
    return found


def _scale_text(photo: str | Path | None, absolute: bool) -> str:
    if absolute:
        return "both in cd/m2 as they are"
    if photo is None:
        return scaling.PROTOCOL.split("; test:")[0] + "; test: same mean luminance"
    return scaling.PROTOCOL


def verify_command(
    run: Path | None = None, *, against: Path | None = None, jobs: int = 1
) -> verify.Findings:
    """Compare the shipped results with a run; makes one, of a few minutes, unless given.

    Parameters
    ----------
    run
        Folder of ``python -m replication run``; by default the notebooks that score the shipped weights
        on `mini` are executed into ``results/runs/verify``.
    against
        Another run's folder, in the place of the shipped results.
    jobs
        Notebooks at a time.

    Raises
    ------
    ReplicationError
        If anything differs (what is said), or the run fails or has nothing to compare.
    """
    if run is None:
        run = RESULTS / "runs" / "verify"
        runs.run("quick", list(verify.NOTEBOOKS), output=run, jobs=jobs)
    found = verify.verify(run, against or report.REFERENCE)
    if found.differ:
        print(found)
        count = len(found.differ)
        raise ReplicationError(f"{count} {'table differs' if count == 1 else 'tables differ'}.")
    return found


def report_command(*, check: bool = False, score: bool = False) -> None:
    """Regenerate the tables in README.md and results/REPORT.md, and the figures, from the committed rows.

    Parameters
    ----------
    check
        Only compare; raise where a table is not what the rows say. Figures are not compared.
    score
        First score the shipped weights and the baselines on `hdrps`, `empa` and `mini` anew (a few
        minutes) and replace the rows; for whoever has changed the weights.

    Raises
    ------
    ReplicationError
        If a data set is absent, rows are missing, or (with `check`) a table is out of date.
    """
    if score:
        _score_reference()
    documents.update_tables(check=check)
    if not check:
        _reference_plots()


def _reference_plots() -> None:
    """The figures of README.md and REPORT.md that are drawn from rows."""
    folder, rows = report.REFERENCE / "figures", report.REFERENCE / "tables"
    summary = report.summarise(
        report.read_rows(rows / "table4.csv"), by=["dataset", "method", "ev"]
    )
    table5 = report.read_rows(rows / "table5.csv")
    for name, title in tables.DATASET_NAMES.items():
        part = summary[summary["dataset"] == name]
        figure = figures.psnr_figure(part, paper.TABLE4, title)
        figures.save_figure(figure, folder / f"table4_{name}.png")
        figure = figures.table5_figure(table5[table5["dataset"] == name], title)
        figures.save_figure(figure, folder / f"table5_{name}.png")


def _reference_pictures(stack: ExposureStack, second: ExposureStack) -> None:
    """Their figures that show pictures; those of both stacks may be shown."""
    folder = report.REFERENCE / "figures"
    images = infer_stack(stack.images[0])
    picture = reinhard.tone_map(merge_stack(images))
    figure = figures.overview_figure(images, picture)
    figures.save_figure(figure, folder / "overview.png", pictures=stack.dataset, dpi=200)
    for one in (stack, second):
        figure = figures.comparison_figure(*comparison.figure7(one))
        path = folder / f"figure7_{one.dataset}.png"
        figures.save_figure(figure, path, pictures=one.dataset, dpi=200)


def _score_reference() -> None:
    everything = [*load_stacks("openstacks"), *load_stacks("mini")]
    test = [stack for stack in everything if stack.split == "test"]
    methods = [
        evaluate.identity(),
        evaluate.tone_curves(),
        evaluate.tone_curves(rounded=False),
        evaluate.deep_chain(FAITHFUL, name="deep_chain_faithful"),
        evaluate.deep_chain(),
    ]
    folder, jobs = report.REFERENCE / "tables", usable_cores()
    rows = evaluate.exposure_rows(everything, methods[:1], table="table1")
    report.write_rows(folder / "table1.csv", rows)
    report.write_rows(folder / "table4.csv", evaluate.exposure_rows(test, methods))
    expansions = comparison.photo_methods()
    rows = comparison.comparison_rows(
        test,
        [
            *expansions,
            comparison.chain_method(FAITHFUL, "deep_chain_faithful"),
            *comparison.truth_methods(),
        ],
        folder=RESULTS / "runs" / "reference" / "table5",
        jobs=jobs,
    )
    report.write_rows(folder / "table5.csv", rows)
    rows = comparison.scaling_rows(test, expansions[1:], jobs=jobs)
    report.write_rows(folder / "scaling.csv", rows)
    mini = [stack for stack in test if stack.dataset == "mini"]
    _reference_pictures(mini[8], next(stack for stack in test if stack.scene == FIGURE7_SCENE))
    hashes = {
        name: dataset_hash([stack for stack in everything if stack.dataset == name])
        for name in ("hdrps", "empa", "mini")
    }
    write_provenance(
        report.REFERENCE / "provenance.json",
        data_hashes=hashes,
        weights_hash=methods[-1].weights_hash,
    )
