"""Ablations: the same scenes, patches and recipe, one thing changed (Tables 2 and 3, sensitivity).

A *study* trains its contenders with several seeds on the training scenes of a data set and scores them
on the test scenes, each from the EV 0 image alone (DEVIATIONS D38).
"""

from __future__ import annotations

import copy
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from hashlib import sha256
from operator import itemgetter
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from replication.data.patches import PatchSet
from replication.data.stacks import ExposureStack, dataset_hash, load_stacks
from replication.evaluation import exposures, rows
from replication.fast import choose_device, full_precision
from replication.files import ReplicationError, atomic_path, locked, sha256_file
from replication.images import to_uint8
from replication.model import PerChannel, ShallowNetwork, SubNetwork
from replication.provenance import code_version
from replication.reconstruct import infer_exposure
from replication.train import Recipe, check_same, evs_needed, read_log, seeded, train
from replication.weights import load_weights, save_weights, weights_path

BASE = {"batch_size": 8, "schedule": "cosine", "frozen_norm": 0.9, "flips": True}
RECIPES = {"reference": BASE, "paper": {}}  # of the shipped weights (D7); the paper's, `Recipe`'s defaults


@dataclass(frozen=True)
class Contender:
    """One way to infer exposures.

    `make` gives a fresh network for each of `evs`, the exposures in the order of inference: the first from
    EV 0, each further one from the one before it; ``(3,)`` goes to EV +3 in one step. Each network sees
    `share` times the patches of the study. `recipe` is what differs from the study's recipe.
    """

    make: Callable[[], nn.Module]
    evs: tuple[int, ...]
    share: int = 1
    recipe: Mapping[str, Any] = field(default_factory=dict)


_MPRELU = partial(SubNetwork, "mprelu")
_CHANGES = {"reference": {}, "tv_0": {"tv_weight": 0.0}, "tv_0.01": {"tv_weight": 0.01}}
_CHANGES |= {"chained": {"mode": "chained"}, "batch_1": {"batch_size": 1}, "batch_32": {"batch_size": 32}}
_CHANGES["batch_statistics"] = {"frozen_norm": 0.0}
STUDIES: dict[str, dict[str, Contender]] = {
    "table2": {
        "chain": Contender(SubNetwork, (1, 2, 3)),
        "shallow": Contender(ShallowNetwork, (3,), share=3),
        "single_deep": Contender(partial(SubNetwork, kernels=56), (3,), share=3),
        "single": Contender(SubNetwork, (3,), share=3),
        "chain_joint": Contender(SubNetwork, (1, 2, 3), recipe={"mode": "chained"}),
        "shallow_no_skip": Contender(partial(ShallowNetwork, skip=False), (3,), share=3),
    },
    "table3": {
        name: Contender(partial(SubNetwork, name), (-1, -2, -3))
        for name in ("mprelu", "prelu", "relu", "leaky_relu")
    },
    "sensitivity": {
        **{name: Contender(_MPRELU, (-1, -2), recipe=one) for name, one in _CHANGES.items()},
        "per_channel": Contender(lambda: PerChannel(SubNetwork("mprelu", channels=1)), (-1, -2)),
    },
}
"""Study -> contender -> how it is made.

``table2``: EV 0 to +3 by the chain, trained one by one or jointly, with the losses at EV +1 and +2; by the
network of [22] with or without the skip from input to output; by one subnetwork with the parameters of
the chain or of the paper. ``table3``: EV -1 to -3. ``sensitivity``: EV -1 and -2, one setting changed.
"""


def run_study(
    study: str, folder: str | Path, *, dataset: str = "mini", patches: int = 6000, seeds: int = 3,
    jobs: int = 1, contenders: Sequence[str] | None = None, recipe: str = "reference",
    precision: str = "auto", device: str | None = None,
) -> Path:  # fmt: skip
    """Train and score the contenders of a study; called again, it goes on where it was stopped.

    Args:
        study, recipe, contenders: Keys of :data:`STUDIES`, of :data:`RECIPES` and of the study (all).
        folder: Receives ``STUDY.csv`` (per-image rows with the key ``seed``, the tone curve among them),
            ``STUDY_logs.csv`` (loss curves), ``STUDY_activations.csv`` (:func:`activation_rows`), and
            ``STUDY/CONTENDER_seedN`` with weights and checkpoints.
        dataset: Its split "train" is trained on, its split "test" is scored.
        patches: Patches that each network of a chain sees; others see three times as many.
        seeds, jobs: Runs per contender, with seeds 0, 1, …, on the same patches; processes.
        precision: As in :class:`replication.train.Recipe`.
        device: Where networks are trained and run; by default a GPU where there is one.

    Returns:
        The path of ``STUDY.csv``.

    Raises:
        ReplicationError: An unknown name, a number below 1, a folder in use or with weights that were
            trained in another way, and as in :func:`replication.train.train`.
    """
    known, tasks = STUDIES.get(study, {}), []
    asked = [("study", study, STUDIES), ("recipe", recipe, RECIPES)]
    asked += [(f"contender of {study}", name, known) for name in contenders or ()]
    for what, name, names in asked:
        if name not in names:
            raise ReplicationError(f"Unknown {what} {name!r}; known are {', '.join(names)}.")
    rows.at_least_one(jobs, "processes")
    device, folder = choose_device(device), Path(folder)
    common = RECIPES[recipe] | {"precision": Recipe.of({"precision": precision}).on(device).precision}
    names = list(dict.fromkeys(contenders or known))
    for seed, name in itertools.product(range(rows.at_least_one(seeds, "seeds")), names):
        changes, into = dict(known[name].recipe), folder / study / f"{name}_seed{seed}"
        plan = Recipe.of(common | {"patches": patches * known[name].share, "seed": seed} | changes)
        note = f"{plan.patches} patches per network, {recipe} recipe, changes {json.dumps(changes)}"
        tasks.append(_Task(study, name, seed, dataset, into, plan, note, str(device)))
    with locked(folder / study):
        done = rows.in_processes(_do, tasks, jobs, study, "run", device)
        curve = exposures.tone_curves(dataset)
        evs = sorted({ev for name in names for ev in _scored(study, name)}, key=abs)
        scored = exposures.exposure_rows(load_stacks(dataset, split="test"), [curve], study, evs)
        found = [pd.DataFrame(scored).assign(seed=0, recipe="none")]
        found += [part for _, part in sorted(done, key=itemgetter(0))]
        for what in ("logs", "activations"):
            parts = [pd.read_csv(task.folder / f"{what}.csv") for task in tasks]
            _write(folder / f"{study}_{what}.csv", pd.concat(parts))
        return rows.write_rows(folder / f"{study}.csv", pd.concat(found, ignore_index=True))


@dataclass(frozen=True)
class _Task:
    """One contender with one seed: everything that a process needs to know."""

    study: str
    name: str
    seed: int
    dataset: str
    folder: Path
    recipe: Recipe
    note: str
    device: str

    @property
    def evs(self) -> tuple[int, ...]:
        return STUDIES[self.study][self.name].evs


def _do(task: _Task) -> pd.DataFrame:
    """Train, look into, and score one contender, unless that has been done; give its rows."""
    training, test = (load_stacks(task.dataset, split=split) for split in ("train", "test"))
    networks, version = _trained(task, training), code_version()
    hashes = "".join(sha256_file(weights_path(ev, task.folder)) for ev in networks)
    infer = partial(_infer, networks=networks, device=task.device)
    method = rows.Method(task.name, infer, sha256(hashes.encode()).hexdigest()[:12])
    own, path = {"seed": task.seed, "recipe": task.note}, task.folder / "rows.csv"
    evs = _scored(task.study, task.name)
    fact = partial(exposures.exposure_row, method=method, table=task.study, version=version)
    expected = (fact(stack, ev=ev) | own for stack, ev in itertools.product(test, evs))
    if (kept := rows.kept_rows(path, expected)) is not None:
        return kept
    looks = [row for ev in networks for row in _look(task, ev, networks[ev], training[:3])]
    _write(task.folder / "activations.csv", pd.DataFrame(looks).round(6))
    _write(task.folder / "logs.csv", pd.concat(_log(task, ev) for ev in networks).round(6))
    scored = exposures.exposure_rows(test, [method], task.study, evs)
    return rows.read_rows(rows.write_rows(path, [row | own for row in scored]))


def _write(path: Path, frame: pd.DataFrame) -> None:
    with atomic_path(path) as temporary:
        frame.to_csv(temporary, index=False, lineterminator="\n")


def _scored(study: str, name: str) -> tuple[int, ...]:
    return (3,) if study == "table2" else STUDIES[study][name].evs


def _trained(task: _Task, training: Sequence[ExposureStack]) -> dict[int, nn.Module]:
    """The contender's networks by EV, in evaluation mode; trained, or loaded if they have been."""
    # For training, exposures are numbered 0, 1, 2, … in the order of inference, whichever EVs they are.
    evs, make = dict(enumerate((0, *task.evs))), STUDIES[task.study][task.name].make
    networks = {n: seeded(make, 1000 * task.seed + abs(ev)) for n, ev in evs.items() if n}
    paths = {n: weights_path(evs[n], task.folder) for n in networks}
    facts = {"contender": task.name, "dataset": task.dataset, "recipe": asdict(task.recipe)}
    facts["training_hash"] = dataset_hash(training)
    groups = [list(networks)] if task.recipe.mode == "chained" else [[n] for n in networks]
    for group in groups:
        if all(paths[n].exists() for n in group):
            for n in group:
                check_same(paths[n], load_weights(networks[n], paths[n]), facts)
            continue
        images = [{n: stack.images[ev] for n, ev in evs.items()} for stack in training]
        patches = PatchSet(images, evs_needed(group), device=task.device)
        name, chosen = f"ev{evs[group[-1]]:+d}", {n: networks[n] for n in group}
        label, into = f"{task.name} seed {task.seed} {name}", task.folder / name
        final = train(chosen, patches, task.recipe, into, facts=facts, label=label)
        for n in group:
            save_weights(networks[n], paths[n], facts | {"code_version": code_version()})
        final.unlink()
    for network in networks.values():  # the same memory format whether just trained or loaded
        network.eval().to(task.device, memory_format=torch.channels_last)
    return {evs[n]: network for n, network in networks.items()}


def _infer(stack: ExposureStack, networks: Mapping[int, nn.Module], device: str) -> dict:
    """Every exposure of a contender from the EV 0 image; 8 bits between two networks (D8)."""
    images, image = {}, stack.images[0]
    for ev, network in networks.items():
        image = images[ev] = to_uint8(infer_exposure(image, network, device=device))
    return images


def _log(task: _Task, ev: int) -> pd.DataFrame:
    """The loss curve of one network; of the whole chain where that was trained together."""
    last = ev if task.recipe.mode == "teacher" else task.evs[-1]
    log = pd.DataFrame(read_log(task.folder / f"ev{last:+d}" / "log.csv")).astype({"patches": int})
    front = pd.DataFrame({"method": task.name, "seed": task.seed, "ev": ev}, index=log.index)
    return front.join(log[["patches", "loss", "pixel", "tv", "patches_per_s"]])


def _look(task: _Task, ev: int, network: nn.Module, stacks: Sequence[ExposureStack]) -> list[dict]:
    """Activation rows of one network on true inputs; one row without numbers for another network."""
    found, before = [{"block": "none"}], (0, *task.evs)[task.evs.index(ev)]
    if isinstance(network, SubNetwork):
        images = (torch.from_numpy(s.images[before]).permute(2, 0, 1)[None] / 255 for s in stacks)
        found = activation_rows(network, (image.to(task.device) for image in images))
    return [{"method": task.name, "seed": task.seed, "ev": ev} | row for row in found]


def activation_rows(network: SubNetwork, images: Iterable[Tensor]) -> list[dict]:
    """What the activations of a trained subnetwork do, and where its negative residuals come from.

    Section 5.2 says that PReLU damps negative residuals. But a residual is a sum of features with weights
    of either sign, so it can be negative where no feature is. `images` are batches (N, C, H, W), float32 in
    [0, 1], on the network's device; a copy of it is run in evaluation mode.

    Returns:
        A row per block (``features.0`` … ``r3``): ``alpha``, the slope (0 for ReLU); ``negative``, share of
        the activation's inputs below zero. A row ``r4``: ``negative``, share of the residual below zero;
        ``negative_features``, the part of its negative sums that comes from negative features through
        positive weights, not from positive features through negative weights.
    """
    network = copy.deepcopy(network).eval()  # it gets hooks
    blocks = dict(network.named_modules())
    blocks = {n: p for n, p in blocks.items() if isinstance(p, nn.Sequential) and len(p) == 3}
    below, total, sums = Counter(), Counter(), Counter()

    def count(name: str, values: Tensor) -> None:
        below[name] += int((values < 0).sum())
        total[name] += values.numel()

    def last(_, inputs: tuple[Tensor], residual: Tensor) -> None:
        count("r4", residual)  # before tanh, which keeps the sign
        weights = network.r4.weight.flatten(1).double()
        for sign in (-1, 1):
            features = (sign * inputs[0]).clamp(min=0).sum((0, 2, 3), dtype=torch.float64)
            sums[sign] += float(((-sign * weights).clamp(min=0) @ features).sum())

    network.r4.register_forward_hook(last)
    for name, part in blocks.items():
        hook = partial(lambda name, _, inputs: count(name, inputs[0]), name)
        part[2].register_forward_pre_hook(hook)
    with torch.no_grad(), full_precision():
        for image in images:
            network(image)
    found = []
    for name, part in blocks.items():
        slope = getattr(part[2], "weight", torch.tensor(getattr(part[2], "negative_slope", 0.0)))
        found.append({"block": name, "alpha": float(slope.detach().mean())})
    found.append({"block": "r4", "negative_features": sums[-1] / max(sums.total(), 1e-12)})
    return [row | {"negative": below[row["block"]] / total[row["block"]]} for row in found]
