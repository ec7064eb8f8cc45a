"""HDR images against the true one: the per-image rows behind Table 5 and Figure 7 (Section 6.2).

Every method gives an HDR image of a scene; every image is judged by the same protocol
(:data:`PROTOCOL`, DEVIATIONS D32). Methods that know only the photo come first, the rows that use
the truth to show where the room is come behind them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from replication.baselines import expandnet, huo, kovaleski_oliveira, masia, tone_curve
from replication.baselines.expansion import GAMMA, linearise
from replication.data.stacks import ExposureStack, dataset_hash
from replication.evaluation import rows as report
from replication.evaluation.processes import in_processes
from replication.files import ReplicationError, sha256_file
from replication.hdr import debevec, reinhard
from replication.images import luminance as luminance_of
from replication.images import to_uint8
from replication.metrics import fidelity, pu21, scaling
from replication.metrics.drim import DRIMResult, drim, overlay
from replication.metrics.hdrvdp2 import HDRVDP2Result, hdrvdp2, pixels_per_degree
from replication.paper import DISPLAY_DIAGONAL_INCHES, DISPLAY_RESOLUTION, VIEWING_DISTANCE_M
from replication.provenance import code_version
from replication.reconstruct import load_chain, merge_stack, reconstruct
from replication.weights import WEIGHTS, chain_hash

PIXELS_PER_DEGREE = pixels_per_degree(
    DISPLAY_DIAGONAL_INCHES, DISPLAY_RESOLUTION, VIEWING_DISTANCE_M
)
"""Of the paper's display: 33.5102139115."""

DARKEST = 1e-5
"""Floor of the luminance in the log error, cd/m2: where HDR-VDP-2's observer stops to respond."""


def protocol(scale: str = scaling.PROTOCOL) -> str:
    """Say in one line what the scores depend on; `scale` says how the images got their cd/m2."""
    return (
        "PSNR: Reinhard 2002 global, automatic key and white per image, gamma 2.2, 8 bit, of the "
        f"HDR images as they come; else {scale}; HDR-VDP-2.2.1 rgb-bt.709 ccfl-lcd "
        f"{PIXELS_PER_DEGREE:.4f} pixels/degree; {pu21.PROTOCOL}; "
        f"log10 luminance from {DARKEST:g} cd/m2"
    )


PROTOCOL = protocol()
"""What the numbers of Table 5 depend on; in every row."""


@dataclass(frozen=True)
class Expansion:
    """A way from a scene to an HDR image.

    Attributes
    ----------
    name : str
        As in the tables.
    expand : callable
        :class:`ExposureStack` -> float32 ``(H, W, 3)``, linear RGB in any unit. Picklable, so that
        other processes can call it.
    weights_hash : str
        First 12 digits of a SHA-256; ``none`` where nothing is learnt.
    """

    name: str
    expand: Callable[[ExposureStack], np.ndarray]
    weights_hash: str = "none"


# ------------------------------------------------------------------------------------ methods


def photo_methods(
    weights: str | Path | None = None, *, expandnet_clone: str | Path | None = None
) -> list[Expansion]:
    """The methods that know EV 0 only, baselines first, the chain last.

    Parameters
    ----------
    weights
        Folder of the chain's weights; by default the shipped ones.
    expandnet_clone
        Folder of a clone of ExpandNet; adds it to the methods.

    Returns
    -------
    list of Expansion
        ``linearised``, ``tone_curve``, ``huo``, ``kovaleski_oliveira``, ``masia``, (``expandnet``,)
        ``deep_chain``.

    Raises
    ------
    ReplicationError
        If weights or curves cannot be loaded.
    """
    curves = tone_curve.read()
    chain = chain_method(weights)
    methods = [
        Expansion("linearised", partial(_from_photo, _linearised)),
        Expansion(
            "tone_curve",
            partial(_from_photo, partial(tone_curve.expand, curves=curves)),
            sha256_file(tone_curve.REFERENCE)[:12],
        ),
        Expansion("huo", partial(_from_photo, huo.expand)),
        Expansion("kovaleski_oliveira", partial(_from_photo, kovaleski_oliveira.expand)),
        Expansion("masia", partial(_from_photo, masia.expand)),
    ]
    if expandnet_clone is not None:
        expandnet.load(expandnet_clone)  # fail now; each process loads its own
        methods.append(
            Expansion(
                "expandnet",
                partial(_from_photo, partial(expandnet.expand, clone=str(expandnet_clone))),
                sha256_file(Path(expandnet_clone) / expandnet.WEIGHTS)[:12],
            )
        )
    return [*methods, chain]


def chain_method(weights: str | Path | None = None, name: str = "deep_chain") -> Expansion:
    """The deep chain with the weights of a folder, by default the shipped ones; may raise as above."""
    chain = load_chain(weights)
    expand = partial(_from_photo, partial(reconstruct, chain=chain))
    return Expansion(name, expand, chain_hash(chain, weights or WEIGHTS))


def truth_methods() -> list[Expansion]:
    """Reference rows that use the true exposures: what would be possible, and with what.

    Returns
    -------
    list of Expansion
        ``true_response``: EV 0 linearised with the response estimated from the true stack;
        ``true_response_kovaleski_oliveira``: [19] on that instead of on ``x^2.2``;
        ``oracle_curve``: the tone curve learnt on the scene itself, the upper bound of every
        pointwise method; ``three_frames``: the true EV -1, 0, +1 merged;
        ``truth_where_clipped``: the tone curve's image with the true values where EV 0 clips.
    """
    curve_hash = sha256_file(tone_curve.REFERENCE)[:12]
    return [
        Expansion("true_response", _true_response),
        Expansion("true_response_kovaleski_oliveira", _true_response_kovaleski_oliveira),
        Expansion("oracle_curve", _oracle_curve),
        Expansion("three_frames", _three_frames),
        Expansion("truth_where_clipped", _truth_where_clipped, curve_hash),
    ]


def _from_photo(expand: Callable[[np.ndarray], np.ndarray], stack: ExposureStack) -> np.ndarray:
    return expand(stack.images[0])


def _linearised(ldr: np.ndarray) -> np.ndarray:
    return linearise(ldr)[0].astype(np.float32)


def _true_response(stack: ExposureStack) -> np.ndarray:
    frames = [stack.images[ev] for ev in stack.evs]
    curve = np.exp(debevec.estimate_response(frames, stack.exposure_times)).astype(np.float32)
    return np.stack([curve[stack.images[0][..., c], c] for c in range(3)], axis=-1)


def _true_response_kovaleski_oliveira(stack: ExposureStack) -> np.ndarray:
    linear = _true_response(stack)
    return kovaleski_oliveira.expand(np.minimum(linear / linear.max(), 1) ** (1 / GAMMA))


def _oracle_curve(stack: ExposureStack) -> np.ndarray:
    curves = tone_curve.fit([stack.images], [ev for ev in stack.evs if ev])
    return tone_curve.expand(stack.images[0], curves)


def _three_frames(stack: ExposureStack) -> np.ndarray:
    return merge_stack({ev: stack.images[ev] for ev in (-1, 0, 1)})


def _truth_where_clipped(stack: ExposureStack) -> np.ndarray:
    clipped = scaling.clipped_channels(stack.images[0]) > 0
    hdr, truth = tone_curve.expand(stack.images[0]), merge_stack(stack.images)
    known, true = (float(luminance_of(image[~clipped]).mean()) for image in (hdr, truth))
    hdr[clipped] = truth[clipped] * (known / true)
    return hdr


# ------------------------------------------------------------------------------------- scores


def scores(
    test: np.ndarray,
    truth: np.ndarray,
    ldr: np.ndarray,
    *,
    pair: tuple[np.ndarray, np.ndarray] | None = None,
) -> tuple[dict[str, float], HDRVDP2Result, DRIMResult]:
    """Judge one HDR image by the protocol of Table 5.

    Parameters
    ----------
    test, truth : float array (H, W, 3)
        Linear RGB, each in a unit of its own, finite, not negative; sides of at least 17 pixels.
        Their scale matters for the tone-mapped PSNR alone (Reinhard's delta is absolute, D18).
    ldr : uint8 array (H, W, 3)
        EV 0, which says where the photo is clipped.
    pair : two float arrays (H, W, 3), optional
        Test and truth in cd/m2; by default :func:`scale_pair`.

    Returns
    -------
    metrics : dict of str to float
        Those of :data:`replication.report.METRICS` that concern HDR images. An error over
        pixels of which the photo has none is NaN.
    seen : HDRVDP2Result
        HDR-VDP-2's maps.
    changes : DRIMResult
        DRIM's maps.

    Raises
    ------
    ReplicationError
        If an image is no radiance map or too small, shapes differ, or the images cannot be scaled
        (:mod:`replication.metrics.scaling`).
    """
    shown = [to_uint8(reinhard.tone_map(image)) for image in (test, truth)]
    clipped = scaling.clipped_channels(ldr)
    scaled, reference = pair or scale_pair(test, truth, ldr)
    seen = visible_difference(scaled, reference)
    changes = visible_changes(scaled, reference)
    error = np.log10(np.maximum(luminance_of(scaled), DARKEST))
    error -= np.log10(np.maximum(luminance_of(reference), DARKEST))
    metrics = {
        "psnr": fidelity.psnr(*shown, data_range=255),
        "hdrvdp2_q": seen.Q,
        "hdrvdp2_q_mos": seen.Q_MOS,
        "pu21_psnr": pu21.pu21_psnr(scaled, reference),
        "pu21_ssim": pu21.pu21_ssim(scaled, reference),
        "log_rmse_unclipped": _rms(error[clipped == 0]),
        "log_rmse_clipped": _rms(error[clipped > 0]),
        "log_rmse_clipped_partly": _rms(error[(clipped == 1) | (clipped == 2)]),
        "log_rmse_clipped_fully": _rms(error[clipped == 3]),
        "clipped_share": float((clipped > 0).mean()),
        "drim_loss": 100 * float(changes.P_loss.mean()),
        "drim_amplification": 100 * float(changes.P_amplification.mean()),
        "drim_reversal": 100 * float(changes.P_reversal.mean()),
    }
    return metrics, seen, changes


def scale_pair(
    test: np.ndarray, truth: np.ndarray, ldr: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Bring test and truth to cd/m2 by :data:`replication.metrics.scaling.PROTOCOL`.

    Parameters
    ----------
    test, truth, ldr
        As in :func:`scores`.

    Returns
    -------
    scaled, reference : np.ndarray
        float32, shape (H, W, 3), cd/m2.

    Raises
    ------
    ReplicationError
        As in :func:`scores`.
    """
    reference = scaling.scale_reference(truth)
    return scaling.scale_test(test, reference, scaling.clipped_channels(ldr) == 0), reference


def visible_difference(scaled: np.ndarray, reference: np.ndarray) -> HDRVDP2Result:
    """HDR-VDP-2 of two images in cd/m2 on the paper's display (Section 6.2)."""
    return hdrvdp2(scaled, reference, "rgb-bt.709", PIXELS_PER_DEGREE)


def visible_changes(scaled: np.ndarray, reference: np.ndarray) -> DRIMResult:
    """DRIM of two images in cd/m2 on the paper's display (Section 6.2)."""
    return drim(scaled, reference, "rgb-bt.709", PIXELS_PER_DEGREE)


FIGURE7_METHODS = ("masia", "kovaleski_oliveira", "huo", "tone_curve", "deep_chain")
"""The paper's four and the baseline that it does not have."""


def figure7(
    stack: ExposureStack, methods: Iterable[Expansion] | None = None
) -> tuple[np.ndarray, np.ndarray, dict[str, tuple[np.ndarray, np.ndarray, np.ndarray, float]]]:
    """What :func:`replication.report.figures.comparison_figure` shows of a scene.

    Parameters
    ----------
    stack
        With all seven exposures.
    methods
        By default those of :data:`FIGURE7_METHODS`, with the shipped weights.

    Returns
    -------
    ldr : np.ndarray
        EV 0, uint8 (H, W, 3).
    truth : np.ndarray
        The true HDR image, tone-mapped, float32 (H, W, 3) in [0, 1].
    results : dict
        Method -> tone-mapped HDR image; HDR-VDP-2's probability that the difference is seen,
        (H, W); DRIM's overlay, uint8 (H, W, 3); Q.

    Raises
    ------
    ReplicationError
        As in :func:`scores`.
    """
    ldr, truth, results = stack.images[0], merge_stack(stack.images), {}
    methods = {method.name: method for method in (methods or photo_methods())}
    for name in FIGURE7_METHODS:
        test = methods[name].expand(stack)
        pair = scale_pair(test, truth, ldr)
        _, seen, changes = scores(test, truth, ldr, pair=pair)
        shown = reinhard.tone_map(test)
        results[name] = shown, seen.P_map, overlay(changes, pair[0]), seen.Q
    return ldr, reinhard.tone_map(truth), results


def _rms(error: np.ndarray) -> float:
    return float(np.sqrt(np.mean(error**2))) if error.size else float("nan")


def comparison_rows(
    stacks: Iterable[ExposureStack],
    methods: Iterable[Expansion],
    *,
    folder: str | Path | None = None,
    jobs: int = 1,
) -> list[dict[str, Any]]:
    """Score every method on every scene (Table 5).

    Parameters
    ----------
    stacks
        Test scenes with all seven exposures; the truth is their merge.
    methods
        Baselines first.
    folder
        Keeps the rows of each finished scene as a CSV file. Called again, it goes on after them;
        rows of other data, methods, weights or code are scored anew.
    jobs
        Processes to share the scenes; a script that asks for more than one needs Python's
        ``if __name__ == "__main__"``.

    Returns
    -------
    list of dict
        One row per scene and method, with metric and protocol columns
        (:data:`replication.report.ROW_COLUMNS`), in the order of `stacks`.

    Raises
    ------
    ReplicationError
        If a scene cannot be scored (which one is said), or no process can be started.
    """
    stacks, methods, version = list(stacks), list(methods), code_version()
    found: dict[int, list[dict]] = {}
    paths = [Path(folder) / f"{s.dataset}_{s.scene}.csv" if folder else None for s in stacks]
    for number, (stack, path) in enumerate(zip(stacks, paths, strict=True)):
        if path and path.exists() and (kept := _kept(path, stack, methods, version)):
            found[number] = kept
    left = [number for number in range(len(stacks)) if number not in found]
    work = partial(_scene_rows, methods=methods, version=version)
    done = in_processes(work, [stacks[number] for number in left], jobs, "comparing", "scene")
    for number, rows in done:
        found[left[number]] = rows
        if path := paths[left[number]]:
            report.write_rows(path, rows)
    return [row for number in range(len(stacks)) for row in found[number]]


def _kept(path: Path, stack: ExposureStack, methods: list[Expansion], version: str):
    """Rows of an earlier run, if they are what would be computed now; an edited tree never is."""
    try:
        rows = report.read_rows(path).to_dict("records")
    except ReplicationError:
        return None
    expected = {(method.name, method.weights_hash) for method in methods}
    facts = {(row["data_hash"], row["code_version"], row["protocol"]) for row in rows}
    same = {(row["method"], row["weights_hash"]) for row in rows} == expected
    current = facts == {(dataset_hash([stack])[:12], version, PROTOCOL)}
    return rows if same and current and "dirty" not in version else None


def _scene_rows(stack: ExposureStack, methods: list[Expansion], version: str) -> list[dict]:
    try:
        truth = merge_stack(stack.images)
        return [
            _row(stack, method, version, scores(method.expand(stack), truth, stack.images[0])[0])
            for method in methods
        ]
    except ReplicationError as error:
        raise ReplicationError(f"{stack.dataset} scene {stack.scene}: {error}") from error


def _row(
    stack: ExposureStack, method: Expansion, version: str, metrics: Mapping[str, float]
) -> dict[str, Any]:
    height, width = stack.shape[:2]
    return {
        "table": "table5",
        "dataset": stack.dataset,
        "split": stack.split or "none",
        "scene": stack.scene,
        "method": method.name,
        **metrics,
        "width": width,
        "height": height,
        "data_range": 255,
        "border": 0,
        "weights_hash": method.weights_hash,
        "data_hash": dataset_hash([stack])[:12],
        "code_version": version,
        "protocol": PROTOCOL,
    }


# -------------------------------------------------------------------------- how much scale matters


def _by(statistic: Callable[[np.ndarray], float], test, reference, unclipped):
    factor = statistic(luminance_of(reference)) / statistic(luminance_of(test))
    return (test * factor).astype(np.float32)


TEST_SCALES: dict[str, Callable] = {
    "mean where unclipped": scaling.scale_test,
    "mean": partial(_by, np.mean),
    "median": partial(_by, np.median),
    "99.9th percentile": partial(_by, partial(np.percentile, q=99.9)),
    "maximum": partial(_by, np.max),
}
"""What test and reference are given in common; the first is the protocol's."""

REFERENCE_PEAKS = (scaling.LUMINANCE, 100.0, 4000.0, 1.0)
"""What the 99.9th percentile of the truth becomes, cd/m2; the first is the protocol's, the last
means an image that is left relative."""


def scaling_rows(
    stacks: Iterable[ExposureStack], methods: Iterable[Expansion], *, jobs: int = 1
) -> list[dict[str, Any]]:
    """Score methods under other scalings: each rule for the test, then each peak of the truth.

    Parameters
    ----------
    stacks, methods, jobs
        As in :func:`comparison_rows`.

    Returns
    -------
    list of dict
        One row per scene, method and scaling, metrics ``hdrvdp2_q`` and ``pu21_psnr``; the key
        ``scaling`` names the rule and the peak.

    Raises
    ------
    ReplicationError
        As :func:`comparison_rows`.
    """
    work = partial(_scaling_scene, methods=list(methods), version=code_version())
    done = dict(in_processes(work, list(stacks), jobs, "scaling", "scene"))
    return [row for number in sorted(done) for row in done[number]]


def _scaling_scene(stack: ExposureStack, methods: list[Expansion], version: str) -> list[dict]:
    rows = []
    truth = merge_stack(stack.images)
    unclipped = scaling.clipped_channels(stack.images[0]) == 0
    first = next(iter(TEST_SCALES))
    variants = [(rule, REFERENCE_PEAKS[0]) for rule in TEST_SCALES]
    variants += [(first, peak) for peak in REFERENCE_PEAKS[1:]]
    for method in methods:
        hdr = method.expand(stack)
        for rule, peak in variants:
            reference = scaling.scale_reference(truth, luminance=peak)
            scaled = TEST_SCALES[rule](hdr, reference, unclipped)
            with warnings.catch_warnings(action="ignore"):  # a relative image is meant
                seen = visible_difference(scaled, reference)
            metrics = {
                "hdrvdp2_q": seen.Q,
                "pu21_psnr": pu21.pu21_psnr(scaled, reference),
            }
            row = _row(stack, method, version, metrics)
            rows.append(row | {"scaling": f"{rule}, truth {peak:g} cd/m2"})
    return rows


# ---------------------------------------------------------------------------------- processes


# ---- adapter: the old code under its new name, until this module is rewritten ----


from replication.data.stacks import load_stacks  # noqa: E402
from replication.evaluation.rows import write_rows  # noqa: E402
from replication.files import check_folder  # noqa: E402
from replication.hdr import io  # noqa: E402
from replication.provenance import usable_cores  # noqa: E402


def evaluate(
    dataset: str,
    output: str | Path,
    *,
    split: str = "test",
    weights: str | Path | None = None,
    jobs: int | None = None,
    device: str | None = None,
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
    check_folder(output)
    methods = photo_methods(weights)
    methods += truth_methods()
    stacks = load_stacks(dataset, split=split)
    if not stacks:
        raise ReplicationError(f"{dataset} has no scenes in its split {split}.")
    rows = comparison_rows(
        stacks, methods, folder=output / "rows", jobs=usable_cores() if jobs is None else jobs
    )
    return write_rows(output / "table5.csv", rows)


def compare(
    test: str | Path,
    reference: str | Path,
    *,
    photo: str | Path | None = None,
    absolute: bool = False,
    maps: str | Path | None = None,
    device: str | None = None,
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
    pair = (hdr, truth) if absolute else scale_pair(hdr, truth, ldr)
    found, seen, changes = scores(hdr, truth, ldr, pair=pair)
    if photo is None:
        found["clipped_share"] = float("nan")  # not known
    found = {name: value for name, value in found.items() if not np.isnan(value)}
    if maps is not None:
        folder, name = Path(maps), Path(test).stem
        check_folder(folder)
        grey = to_uint8(np.repeat(seen.P_map[..., None], 3, axis=2))
        io.write_png(folder / f"{name}_hdrvdp2.png", grey)
        io.write_png(folder / f"{name}_drim.png", overlay(changes, pair[0]))
    return found


def compare_protocol(photo=None, absolute=False):
    """Protocol of compare()."""
    if absolute:
        return protocol("both in cd/m2 as they are")
    if photo is None:
        return protocol(scaling.PROTOCOL.split("; test:")[0] + "; test: same mean luminance")
    return protocol(scaling.PROTOCOL)
