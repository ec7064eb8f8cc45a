"""Inferred exposures against true ones: the per-image rows of Tables 1 and 4 (Section 6.1)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
from torch import nn

from replication.baselines import tone_curve
from replication.data.stacks import ExposureStack
from replication.evaluation.rows import Method, base_row, in_processes
from replication.files import sha256_array
from replication.images import to_uint8
from replication.metrics import fidelity
from replication.model import previous_ev
from replication.paper import EVS
from replication.provenance import code_version
from replication.reconstruct import infer_exposure, infer_stack, load_chain
from replication.weights import WEIGHTS, chain_hash

Images = Mapping[int, np.ndarray]


def identity() -> Method:
    """EV 0 unchanged for every exposure: what Table 1 measures, and the least that must be beaten."""
    return Method("identity", lambda stack: dict.fromkeys(EVS, stack.images[0]))


def tone_curves(trained_on: str = "hdrps", rounded: bool = True) -> Method:
    """The tone curve of a data set's training scenes; unrounded levels score 0.02 to 0.05 dB more."""
    curves, learnt = tone_curve.for_dataset(trained_on)
    infer = partial(tone_curve.infer_stack, curves=curves, rounded=rounded)
    name = "tone_curve" if rounded else "tone_curve_unrounded"
    return Method(name, lambda stack: infer(stack.images[0]), learnt)


def deep_chain(weights: str | Path | None = None, name: str = "deep_chain", **options) -> Method:
    """The chain of six subnetworks; `options` go to :func:`replication.reconstruct.infer_stack`."""
    chain = load_chain(weights)
    learnt = chain_hash(chain, weights or WEIGHTS)
    return Method(name, lambda stack: infer_stack(stack.images[0], chain, **options), learnt)


def exposure_rows(
    stacks: Iterable[ExposureStack], methods: Iterable[Method], table: str = "table4", evs=EVS
) -> list[dict]:
    """Score every method on every scene and exposure: a row of :mod:`replication.evaluation.rows` for each.

    Args:
        stacks: Scenes with EV 0 and all of `evs`, at least 161 pixels wide and high (MS-SSIM).
        methods: They give {ev: image (H, W, 3) in 0..255}.
        table, evs: The table of the paper that the rows belong to; the exposures to compare.
    """
    rows, pairs, version = [], list(product(stacks, methods)), code_version()
    run = lambda pair: pair[1].run(pair[0])  # noqa: E731
    for number, images in in_processes(run, pairs, 1, "comparing", "stack"):
        for ev in evs:
            rows.append(exposure_row(*pairs[number], ev, table, version))
            for name in ("psnr", "ssim", "ms_ssim"):
                measure, truth = getattr(fidelity, name), pairs[number][0].images[ev]
                rows[-1][name] = measure(images[ev], truth, data_range=255)
    return rows


def exposure_row(stack: ExposureStack, method: Method, ev: int, table: str, version: str) -> dict:
    """All columns of a row but the metrics; `data_hash` is that of the true image."""
    facts = {"table": table, "ev": ev, "data_hash": sha256_array(stack.images[ev])[:12]}
    facts |= {"code_version": version, "protocol": fidelity.PROTOCOL}
    return base_row(stack, method, **facts)


def gain_map(truth: Images, images: Images, baseline: Images) -> np.ndarray:
    """Absolute error of a baseline minus that of `images`, mean over RGB and their EVs but 0: (H, W).

    In levels of 255, positive where the images are nearer. Arguments map EV -> uint8 (H, W, 3).
    """
    gains = []
    for ev in images.keys() - {0}:
        target = truth[ev].astype(np.float32)
        gains.append(np.abs(baseline[ev] - target) - np.abs(images[ev] - target))
    return np.mean(gains, axis=(0, -1))


def subnetwork_rows(
    stacks: Iterable[ExposureStack], ev: int, methods: Iterable[Method], table: str = "table4"
) -> list[dict]:
    """Rows of EV `ev` by methods that read the true exposure before it (:func:`subnetwork_methods`)."""
    return exposure_rows(stacks, methods, table, (ev,))


def subnetwork_psnr(
    stacks: Sequence[ExposureStack], ev: int, methods: Iterable[Method]
) -> dict[str, float]:
    """Mean PSNR in dB of each method at EV `ev`, as in :func:`subnetwork_rows`; images of any size."""
    psnr = partial(fidelity.psnr, data_range=255)
    found = {m.name: [psnr(m.run(s)[ev], s.images[ev]) for s in stacks] for m in methods}
    return {name: round(float(np.mean(values)), 3) for name, values in found.items()}


def subnetwork_methods(
    network: nn.Module, ev: int, training: Iterable[ExposureStack], weights_hash: str = "none"
) -> list[Method]:
    """The subnetwork for EV `ev` and its baselines, which come first; all read the true image before.

    The tone curve from that exposure to `ev` is learnt on the scenes `training`.
    """
    before = previous_ev(ev)
    curves = tone_curve.fit((stack.images for stack in training), (ev,), source=before)
    infer = lambda stack: {ev: to_uint8(infer_exposure(stack.images[before], network))}  # noqa: E731
    return [
        Method("identity", lambda stack: {ev: stack.images[before]}),
        Method("tone_curve", lambda stack: tone_curve.infer_stack(stack.images[before], curves)),
        Method("deep_chain", infer, weights_hash),
    ]
