"""Inferred exposures against true ones: the per-image rows behind Tables 1 and 4 (Section 6.1)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from replication.baselines import tone_curve
from replication.data.stacks import ExposureStack
from replication.files import sha256_array, sha256_file
from replication.images import to_uint8
from replication.metrics import fidelity
from replication.model import SubNetwork, previous_ev
from replication.paper import EVS
from replication.provenance import code_version
from replication.reconstruct import infer_exposure, infer_stack, load_chain
from replication.weights import WEIGHTS, chain_hash


@dataclass(frozen=True)
class Method:
    """A way from the EV 0 image to the other exposures, and the hash of what it has learnt.

    Attributes
    ----------
    name : str
        As in the tables.
    infer : callable
        uint8 ``(H, W, 3)`` -> EV -> image ``(H, W, 3)`` in 0..255.
    weights_hash : str
        First 12 digits of a SHA-256; ``none`` where nothing is learnt.
    """

    name: str
    infer: Callable[[np.ndarray], dict[int, np.ndarray]]
    weights_hash: str = "none"


def identity() -> Method:
    """EV 0 unchanged for every exposure: what Table 1 measures, and the least that must be beaten."""
    return Method("identity", lambda ldr: dict.fromkeys(EVS, ldr))


def tone_curves(path: str | Path = tone_curve.REFERENCE, *, rounded: bool = True) -> Method:
    """The tone-curve baseline; unrounded it scores the mean levels themselves, a hair better."""
    curves = tone_curve.read(path)
    name = "tone_curve" if rounded else "tone_curve_unrounded"
    return Method(
        name,
        lambda ldr: tone_curve.infer_stack(ldr, curves, rounded=rounded),
        sha256_file(path)[:12],
    )


def deep_chain(weights: str | Path | None = None, *, name: str = "deep_chain", **options) -> Method:
    """The chain of six subnetworks; `options` go to :func:`replication.reconstruct.infer_stack`."""
    chain = load_chain(weights)
    return Method(
        name, lambda ldr: infer_stack(ldr, chain, **options), chain_hash(chain, weights or WEIGHTS)
    )


def exposure_rows(
    stacks: Iterable[ExposureStack], methods: Iterable[Method], *, table: str = "table4", evs=EVS
) -> list[dict]:
    """Score every method on every scene and exposure.

    Parameters
    ----------
    stacks
        Test scenes with EV 0 and all of `evs`.
    methods
        Baselines first: the order of the tables.
    table
        The paper's table that the rows belong to, e.g. ``"table4"``.

    Returns
    -------
    list of dict
        One row per scene, method and EV, with metric and protocol columns
        (:data:`replication.report.ROW_COLUMNS`).

    Raises
    ------
    ReplicationError
        If a scene is smaller than MS-SSIM allows (161 pixels).
    """
    rows = []
    methods, version = list(methods), code_version()
    for stack in tqdm(list(stacks), desc="scenes", disable=None):
        for method in methods:
            inferred = method.infer(stack.images[0])
            for ev in evs:
                rows.append(_row(stack, method, ev, inferred[ev], table, version))
    return rows


def gain_map(
    truth: Mapping[int, np.ndarray],
    images: Mapping[int, np.ndarray],
    baseline: Mapping[int, np.ndarray],
) -> np.ndarray:
    """Where images are nearer to the truth than the baseline's.

    Parameters
    ----------
    truth, images, baseline
        EV -> uint8 ``(H, W, 3)``; the EVs of `images` but 0 count.

    Returns
    -------
    ndarray
        float32 ``(H, W)``: absolute error of the baseline minus that of the images, in levels of 255,
        mean over RGB and EVs; positive where the images are nearer.
    """
    evs = [ev for ev in images if ev]
    total = np.zeros(truth[0].shape, np.float32)
    for ev in evs:
        target = truth[ev].astype(np.float32)
        total += np.abs(baseline[ev] - target) - np.abs(images[ev] - target)
    return total.mean(-1) / len(evs)


def link_rows(
    stacks: Iterable[ExposureStack], ev: int, methods: Iterable[Method], *, table: str = "table4"
) -> list[dict]:
    """Score one link of the chain on its own: the true image before it in, EV `ev` out.

    Parameters
    ----------
    stacks
        Scenes with EV `ev` and the exposure before it.
    ev
        Exposure to infer.
    methods
        Their ``infer`` takes the true image before `ev` and gives EV `ev` under its key.

    Returns
    -------
    list of dict
        As :func:`exposure_rows`.
    """
    version = code_version()
    return [
        _row(stack, method, ev, method.infer(stack.images[previous_ev(ev)])[ev], table, version)
        for stack in stacks
        for method in methods
    ]


def link_psnr(
    stacks: Iterable[ExposureStack], ev: int, methods: Iterable[Method]
) -> dict[str, float]:
    """Mean PSNR in dB of each method on one link, as in :func:`link_rows`, images of any size."""
    stacks, before = list(stacks), previous_ev(ev)
    scores = {
        method.name: [
            fidelity.psnr(method.infer(s.images[before])[ev], s.images[ev], data_range=255)
            for s in stacks
        ]
        for method in methods
    }
    return {name: round(float(np.mean(values)), 3) for name, values in scores.items()}


def link_methods(
    network: SubNetwork, ev: int, training: Iterable[ExposureStack], weights_hash: str = "none"
) -> list[Method]:
    """The methods that a subnetwork is compared with on its own link, baselines first.

    Parameters
    ----------
    network
        Trained subnetwork for EV `ev`.
    training
        Its training scenes: the tone curve from the exposure before to `ev` is learnt on them.
    weights_hash
        Of the network's file.
    """
    before = previous_ev(ev)
    curves = tone_curve.fit((stack.images for stack in training), (ev,), source=before)
    return [
        Method("identity", lambda image: {ev: image}),
        Method("tone_curve", lambda image: tone_curve.infer_stack(image, curves)),
        Method(
            "deep_chain", lambda image: {ev: to_uint8(infer_exposure(image, network))}, weights_hash
        ),
    ]


def _row(
    stack: ExposureStack, method: Method, ev: int, image: np.ndarray, table: str, version: str
) -> dict:
    height, width = stack.shape[:2]
    target = stack.images[ev]
    return {
        "table": table,
        "dataset": stack.dataset,
        "split": stack.split or "none",
        "scene": stack.scene,
        "method": method.name,
        "ev": ev,
        "psnr": fidelity.psnr(image, target, data_range=255),
        "ssim": fidelity.ssim(image, target, data_range=255),
        "ms_ssim": fidelity.ms_ssim(image, target, data_range=255),
        "width": width,
        "height": height,
        "data_range": 255,
        "border": 0,
        "weights_hash": method.weights_hash,
        "data_hash": sha256_array(target)[:12],
        "code_version": version,
        "protocol": fidelity.PROTOCOL,
    }
