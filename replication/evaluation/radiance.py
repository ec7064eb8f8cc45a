"""HDR images against the true one: the per-image rows of Table 5, and Figure 7 (Section 6.2, D32)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from functools import partial
from itertools import product
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from replication import metrics, paper
from replication.baselines import huo, kovaleski_oliveira, masia, tone_curve
from replication.baselines.expansion import GAMMA, linearise
from replication.data.stacks import ExposureStack, dataset_hash, load_stacks
from replication.evaluation import rows
from replication.evaluation.rows import Method
from replication.fast import choose_device
from replication.files import ReplicationError, check_folder
from replication.hdr import debevec, io, reinhard
from replication.images import check_radiance, luminance, to_uint8
from replication.metrics import fidelity, scaling
from replication.provenance import code_version, usable_cores
from replication.reconstruct import load_chain, merge_stack, reconstruct
from replication.weights import WEIGHTS, chain_hash

_DISPLAY = paper.DISPLAY_DIAGONAL_INCHES, paper.DISPLAY_RESOLUTION, paper.VIEWING_DISTANCE_M
PIXELS_PER_DEGREE = metrics.pixels_per_degree(*_DISPLAY)  # 33.5102139115
DARKEST = 1e-5  # floor of the luminance in the log error, cd/m2: HDR-VDP-2's eye sees nothing below
FIGURE7_METHODS = ("masia", "kovaleski_oliveira", "huo", "tone_curve", "deep_chain")
_VISION = "rgb-bt.709", PIXELS_PER_DEGREE
Pair = tuple[np.ndarray, np.ndarray]


def compare_protocol(photo: str | Path | None = None, absolute: bool = False) -> str:
    """What the scores of :func:`compare` depend on; with a photo, also those of Table 5."""
    scale = "ground truth: 99.9th luminance percentile = 1000 cd/m2; test: same mean luminance"
    scale = "both in cd/m2 as they are" if absolute else scaling.PROTOCOL if photo else scale
    return (
        "PSNR: Reinhard 2002 global, automatic key and white per image, gamma 2.2, 8 bit, of the "
        f"HDR images as they come; else {scale}; HDR-VDP-2.2.1 rgb-bt.709 ccfl-lcd "
        f"{PIXELS_PER_DEGREE:.4f} pixels/degree; {fidelity.PU21_PROTOCOL}; "
        f"log10 luminance from {DARKEST:g} cd/m2"
    )


PROTOCOL = compare_protocol("EV 0")


def trained_on(weights: str | Path | None = None) -> str:
    """The data set that a chain was trained on: the tone curve beside it is learnt on the same."""
    return load_chain(weights).metadata[1].get("dataset", "hdrps")


def photo_methods(weights: str | Path | None = None, *, device=None) -> list[Method]:
    """The methods that know EV 0 only, baselines first; `weights` is the chain's folder (shipped)."""
    curves, learnt = tone_curve.for_dataset(trained_on(weights))
    baselines = {"huo": huo, "kovaleski_oliveira": kovaleski_oliveira, "masia": masia}
    return [
        Method("linearised", _linearised),
        Method("tone_curve", partial(_from_photo, tone_curve.expand, curves=curves), learnt),
        *(Method(name, partial(_from_photo, one.expand)) for name, one in baselines.items()),
        chain_method(weights, device=device),
    ]


def chain_method(weights: str | Path | None = None, name="deep_chain", *, device=None) -> Method:
    """The deep chain with the weights of a folder, by default the shipped ones."""
    chain = load_chain(weights)
    run = partial(_from_photo, reconstruct, chain=chain, device=device)
    return Method(name, run, chain_hash(chain, weights or WEIGHTS))


def truth_methods(trained_on: str = "hdrps") -> list[Method]:
    """Rows that use the true exposures: what would be possible, and with what.

    ``true_response`` linearises EV 0 with the response of the true stack, also before [19];
    ``oracle_curve`` is the scene's own tone curve, the upper bound of every pointwise method;
    ``three_frames`` merges the true EV -1, 0, +1; ``truth_where_clipped`` is the tone curve of the data set
    `trained_on`, with the truth where EV 0 clips.
    """
    curves, learnt = tone_curve.for_dataset(trained_on)
    return [
        Method("true_response", _true_response),
        Method("true_response_kovaleski_oliveira", partial(_true_response, expanded=True)),
        Method("oracle_curve", _oracle_curve),
        Method("three_frames", _three_frames),
        Method("truth_where_clipped", partial(_truth_where_clipped, curves=curves), learnt),
    ]


def _from_photo(expand: Callable, stack: ExposureStack, **options) -> np.ndarray:
    return np.asarray(expand(stack.images[0], **options), np.float32)


def _linearised(stack: ExposureStack) -> np.ndarray:
    return linearise(stack.images[0])[0].astype(np.float32)


def _three_frames(stack: ExposureStack) -> np.ndarray:
    return merge_stack({ev: stack.images[ev] for ev in (-1, 0, 1)})


def _true_response(stack: ExposureStack, expanded: bool = False) -> np.ndarray:
    frames = [stack.images[ev] for ev in stack.evs]
    curve = np.exp(debevec.estimate_response(frames, stack.exposure_times)).astype(np.float32)
    linear = np.stack([curve[stack.images[0][..., c], c] for c in range(3)], axis=-1)
    if not expanded:
        return linear
    return kovaleski_oliveira.expand(np.minimum(linear / linear.max(), 1) ** (1 / GAMMA))


def _oracle_curve(stack: ExposureStack) -> np.ndarray:
    curves = tone_curve.fit([stack.images], [ev for ev in stack.evs if ev])
    return tone_curve.expand(stack.images[0], curves)


def _truth_where_clipped(stack: ExposureStack, curves: dict[int, np.ndarray]) -> np.ndarray:
    clipped = scaling.clipped_channels(stack.images[0]) > 0
    hdr, truth = tone_curve.expand(stack.images[0], curves), merge_stack(stack.images)
    known, true = (float(luminance(image[~clipped]).mean()) for image in (hdr, truth))
    hdr[clipped] = truth[clipped] * (known / true)
    return hdr


def scores(
    test: np.ndarray, truth: np.ndarray, ldr: np.ndarray, *, pair: Pair | None = None, device=None
) -> tuple[dict[str, float], metrics.HDRVDP2Result, metrics.DRIMResult]:
    """Judge one HDR image by the protocol of Table 5.

    Args:
        test, truth: (H, W, 3), linear RGB in any unit, sides of 17 pixels or more. Their scale matters
            for the tone-mapped PSNR alone (Reinhard's delta is absolute, D18).
        ldr: uint8 (H, W, 3), EV 0, which says where the photo is clipped.
        pair: Test and truth in cd/m2; by default from :func:`scale_pair`.
        device: Where HDR-VDP-2 and DRIM run; by default a GPU where there is one.

    Returns:
        {metric: value}, NaN for an error over no pixel; the maps of HDR-VDP-2; the maps of DRIM.
    """
    clipped, pair = scaling.clipped_channels(ldr), pair or scale_pair(test, truth, ldr)
    device, shown = choose_device(device), [to_uint8(reinhard.tone_map(x)) for x in (test, truth)]
    seen = metrics.hdrvdp2(*pair, *_VISION, device=device)
    changes = metrics.drim(*pair, *_VISION, device=device)
    found = {"psnr": metrics.psnr(*shown, data_range=255), "hdrvdp2_q": seen.Q}
    found |= {"hdrvdp2_q_mos": seen.Q_MOS, "pu21_psnr": metrics.pu21_psnr(*pair)}
    found |= {"pu21_ssim": metrics.pu21_ssim(*pair), "clipped_share": (clipped > 0).mean()}
    error = np.subtract(*(np.log10(np.maximum(luminance(image), DARKEST)) for image in pair))
    parts = {"unclipped": clipped == 0, "clipped": clipped > 0}
    parts |= {"clipped_partly": (clipped == 1) | (clipped == 2), "clipped_fully": clipped == 3}
    for name, part in parts.items():
        found[f"log_rmse_{name}"] = np.sqrt(np.mean(error[part] ** 2)) if part.any() else np.nan
    for name in ("loss", "amplification", "reversal"):
        found[f"drim_{name}"] = 100 * float(getattr(changes, f"P_{name}").mean())
    return {name: float(value) for name, value in found.items()}, seen, changes


def scale_pair(test: np.ndarray, truth: np.ndarray, ldr: np.ndarray) -> Pair:
    """Test and truth in cd/m2, float32, by :data:`replication.metrics.scaling.PROTOCOL`."""
    reference = scaling.scale_reference(truth)
    return scaling.scale_test(test, reference, scaling.clipped_channels(ldr) == 0), reference


def figure7(stack: ExposureStack, methods: Iterable[Method] | None = None) -> tuple:
    """What :func:`replication.report.figures.comparison_figure` shows of a scene with seven exposures.

    Returns EV 0; the truth, tone-mapped; method -> (image, tone-mapped, (H, W, 3) in [0, 1]; HDR-VDP-2's
    probability that a difference is seen, (H, W); DRIM's overlay, uint8 (H, W, 3); Q).
    """
    ldr, truth, results = stack.images[0], merge_stack(stack.images), {}
    by_name = {method.name: method for method in (methods or photo_methods())}
    for name in FIGURE7_METHODS:
        test = by_name[name].run(stack)
        pair = scale_pair(test, truth, ldr)
        _, seen, changes = scores(test, truth, ldr, pair=pair)
        overlay = metrics.overlay(changes, pair[0])
        results[name] = reinhard.tone_map(test), seen.P_map, overlay, seen.Q
    return ldr, reinhard.tone_map(truth), results


def comparison_rows(
    stacks: Iterable[ExposureStack], methods: Iterable[Method], *, folder=None, jobs=1, device=None
) -> list[dict[str, Any]]:
    """Score every method on every scene with seven exposures; their merge is the truth (Table 5).

    `folder` keeps the rows of each finished scene, which are used again if nothing has changed.
    """
    return _each_scene(partial(_scene_rows, folder=folder), stacks, methods, jobs, device)


def _each_scene(work: Callable, stacks, methods, jobs: int, device) -> list[dict[str, Any]]:
    work = partial(work, methods=list(methods), version=code_version(), device=device)
    done = rows.in_processes(work, list(stacks), jobs, "comparing", "scene", device)
    return [row for _, scored in sorted(done, key=itemgetter(0)) for row in scored]


def _scene_rows(stack: ExposureStack, methods: list, version: str, device, folder) -> list[dict]:
    path = folder and Path(folder) / f"{stack.dataset}_{stack.scene}.csv"
    facts = [_row(stack, method, version) for method in methods]
    if path and (kept := rows.kept_rows(path, facts)) is not None:
        return kept.to_dict("records")
    try:
        judge = partial(scores, truth=merge_stack(stack.images), ldr=stack.images[0], device=device)
        scored = [row | judge(m.run(stack))[0] for row, m in zip(facts, methods, strict=True)]
    except ReplicationError as error:
        raise ReplicationError(f"{stack.dataset} scene {stack.scene}: {error}") from error
    if path:
        rows.write_rows(path, scored)
    return scored


def _row(stack: ExposureStack, method: Method, version: str) -> dict[str, Any]:
    facts = {"table": "table5", "data_hash": dataset_hash([stack])[:12]}
    return rows.base_row(stack, method, **facts, code_version=version, protocol=PROTOCOL)


def _by(statistic: Callable[[np.ndarray], float], test, reference, unclipped) -> np.ndarray:
    factor = statistic(luminance(reference)) / statistic(luminance(test))
    return (test * factor).astype(np.float32)


TEST_SCALES: dict[str, Callable] = {
    "mean where unclipped": scaling.scale_test,
    "mean": partial(_by, np.mean),
    "median": partial(_by, np.median),
    "99.9th percentile": partial(_by, partial(np.percentile, q=99.9)),
    "maximum": partial(_by, np.max),
}
REFERENCE_PEAKS = (scaling.LUMINANCE, 100.0, 4000.0, 1.0)
"""What test and truth get in common; 99.9th percentile of the truth, cd/m2. The protocol's come first."""


def scaling_rows(
    stacks: Iterable[ExposureStack], methods: Iterable[Method], *, jobs=1, device=None
) -> list[dict[str, Any]]:
    """Rows of HDR-VDP-2 and PU21-PSNR under each rule for the test, then each peak (key ``scaling``)."""
    return _each_scene(_scaled, stacks, methods, jobs, device)


def _scaled(stack: ExposureStack, methods: list[Method], version: str, device) -> list[dict]:
    scored, truth, device = [], merge_stack(stack.images), choose_device(device)
    unclipped = scaling.clipped_channels(stack.images[0]) == 0
    rule, peak = next(iter(TEST_SCALES)), REFERENCE_PEAKS[0]
    variants = [*product(TEST_SCALES, [peak]), *product([rule], REFERENCE_PEAKS[1:])]
    for method in methods:
        hdr, row = method.run(stack), _row(stack, method, version)
        for rule, peak in variants:
            reference = scaling.scale_reference(truth, luminance=peak)
            pair = TEST_SCALES[rule](hdr, reference, unclipped), reference
            with warnings.catch_warnings(action="ignore"):  # a relative image is meant
                seen = metrics.hdrvdp2(*pair, *_VISION, device=device)
            found = {"hdrvdp2_q": seen.Q, "pu21_psnr": metrics.pu21_psnr(*pair)}
            scored.append(row | found | {"scaling": f"{rule}, truth {peak:g} cd/m2"})
    return scored


def evaluate(
    dataset: str, output: str | Path, *, split="test", weights=None, jobs=None, device=None
) -> Path:
    """Compare the HDR images of all methods with the true ones (Table 5); go on after a stop.

    Args:
        dataset, split: As in :func:`replication.data.stacks.load_stacks`.
        output: Folder that receives ``table5.csv``, whose path is returned, and ``rows/`` by scene.
        weights: Folder of the chain's weights; by default the shipped ones.
        jobs: Processes; by default one per core, at most four where they share a GPU.
        device: Where chain, HDR-VDP-2 and DRIM run; by default a GPU where there is one.
    """
    output, device = check_folder(output), choose_device(device)
    many = usable_cores() if device.type == "cpu" else min(4, usable_cores())
    jobs = rows.at_least_one(many if jobs is None else jobs, "processes")
    methods = [*photo_methods(weights, device=device), *truth_methods(trained_on(weights))]
    stacks, folder = load_stacks(dataset, split=split), output / "rows"
    scored = comparison_rows(stacks, methods, folder=folder, jobs=jobs, device=device)
    return rows.write_rows(output / "table5.csv", scored)


def compare(
    test: str | Path, reference: str | Path, *, photo=None, absolute=False, maps=None, device=None
) -> dict[str, float]:
    """Score one HDR image against another by each metric that applies.

    Args:
        test, reference: ``.hdr`` or ``.exr`` files of one size.
        photo: The photo that `test` was made from: where it is clipped, no mean luminance is taken, and
            the log errors are split.
        absolute: Both files are in cd/m2 already; nothing is scaled.
        maps: Folder for ``NAME_hdrvdp2.png`` (white is surely seen) and ``NAME_drim.png``.
        device: As in :func:`scores`.
    """
    if photo is not None and absolute:
        raise ReplicationError("Give a photo to scale by, or say that the files are absolute.")
    folder, device = maps and check_folder(maps), choose_device(device)
    hdr, truth = _radiance(test), _radiance(reference)
    ldr = np.zeros(hdr.shape, np.uint8) if photo is None else io.read_image(photo)
    for path, image in ((reference, truth), (photo, ldr)):
        if image.shape != hdr.shape:
            sizes = [f"{one.shape[1]}x{one.shape[0]} pixels" for one in (hdr, image)]
            raise ReplicationError(f"{test} has {sizes[0]}, but {path} has {sizes[1]}.")
    try:
        pair = (hdr, truth) if absolute else scale_pair(hdr, truth, ldr)
        found, seen, changes = scores(hdr, truth, ldr, pair=pair, device=device)
    except ReplicationError as error:
        raise ReplicationError(f"Cannot compare {test} with {reference}: {error}") from error
    if folder:
        grey = to_uint8(np.repeat(seen.P_map[..., None], 3, axis=2))
        io.write_png(folder / f"{Path(test).stem}_hdrvdp2.png", grey)
        io.write_png(folder / f"{Path(test).stem}_drim.png", metrics.overlay(changes, pair[0]))
    if photo is None:
        del found["clipped_share"]  # not known
    return {name: value for name, value in found.items() if not np.isnan(value)}


def _radiance(path: str | Path) -> np.ndarray:
    try:
        return check_radiance(io.read_hdr(path))
    except ReplicationError as error:
        named = str(error) if str(path) in str(error) else f"{path}: {error}"
        raise ReplicationError(named) from error
