"""Ablations: the same scenes, patches and recipe, one thing changed (Tables 2 and 3, sensitivity).

A *study* trains its contenders with several seeds on the training scenes of a data set and scores them
on the test scenes, each from the EV 0 image alone (DEVIATIONS D38).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from replication.baselines import tone_curve
from replication.data.patches import PatchSet
from replication.data.stacks import ExposureStack, dataset_hash, load_stacks
from replication.evaluation import rows as report
from replication.evaluation.exposures import Method, exposure_rows
from replication.evaluation.processes import in_processes
from replication.fast import InferenceNetwork
from replication.files import ReplicationError, atomic_path, sha256_file
from replication.images import to_uint8
from replication.model import PerChannel, ShallowNetwork, SubNetwork
from replication.provenance import code_version
from replication.reconstruct import infer_exposure
from replication.train import Recipe, read_log, seeded, train
from replication.weights import load_weights, save_weights, weights_path

BASE = {
    "batch_size": 8,
    "schedule": "cosine",
    "frozen_norm": 0.9,
    "flips": True,
    "precision": "bfloat16",
}
"""Recipe of every contender that does not say otherwise: that of the shipped weights (D7)."""

RECIPES = {"reference": BASE, "paper": {}}
"""What contenders start from: :data:`BASE`, or the paper's settings, which are `Recipe`'s defaults."""


@dataclass(frozen=True)
class Contender:
    """One way to infer exposures.

    Attributes
    ----------
    make : callable
        Gives a fresh network; one is made for each of `evs`.
    evs : tuple of int
        Exposures in the order in which they are inferred: the first from EV 0, each further one from
        the one before it. ``(3,)`` goes to EV +3 in one step.
    visits : int
        Patches that each network sees, in units of the study's.
    recipe : mapping
        What differs from :data:`BASE`.
    """

    make: Callable[[], nn.Module]
    evs: tuple[int, ...]
    visits: int = 1
    recipe: Mapping[str, Any] = field(default_factory=dict)


def _activations(names: Iterable[str]) -> dict[str, Contender]:
    return {name: Contender(partial(SubNetwork, name), (-1, -2, -3)) for name in names}


def _variants() -> dict[str, Contender]:
    make, evs = partial(SubNetwork, "mprelu"), (-1, -2)
    recipes = {
        "reference": {},
        "tv_0": {"tv_weight": 0.0},
        "tv_0.01": {"tv_weight": 0.01},
        "chained": {"mode": "chained"},
        "batch_1": {"batch_size": 1},
        "batch_32": {"batch_size": 32},
        "batch_statistics": {"frozen_norm": 0.0},
    }
    found = {name: Contender(make, evs, recipe=recipe) for name, recipe in recipes.items()}
    return found | {"per_channel": Contender(_per_channel, evs)}


def _per_channel() -> PerChannel:
    return PerChannel(SubNetwork("mprelu", channels=1))


STUDIES: dict[str, dict[str, Contender]] = {
    "table2": {
        "chain": Contender(SubNetwork, (1, 2, 3)),
        "shallow": Contender(ShallowNetwork, (3,), visits=3),
        "single_deep": Contender(partial(SubNetwork, kernels=56), (3,), visits=3),
        "single": Contender(SubNetwork, (3,), visits=3),
    },
    "table3": _activations(("mprelu", "prelu", "relu", "leaky_relu")),
    "sensitivity": _variants(),
}
"""Study -> contender -> how it is made.

``table2``: EV 0 to +3 by the chain; the shallow network of [22]; one subnetwork as wide as it takes to
have the chain's number of parameters; one subnetwork of the paper's width. All see the same number of
patches. ``table3``: the darker arm with four activations. ``sensitivity``: EV -1 and -2, one setting
changed at a time.
"""


def run_study(
    study: str,
    folder: str | Path,
    *,
    dataset: str = "mini",
    patches: int = 6000,
    seeds: int = 3,
    jobs: int = 1,
    contenders: Sequence[str] | None = None,
    recipe: str = "reference",
    precision: str = BASE["precision"],
    device: str | None = None,  # adapter: not used yet
) -> Path:
    """Train and score the contenders of a study; called again, it goes on where it was stopped.

    Parameters
    ----------
    study
        A key of :data:`STUDIES`.
    folder
        Receives ``STUDY.csv`` (per-image rows with the key ``seed``, the tone-curve baseline first),
        ``STUDY_logs.csv`` (loss curves), ``STUDY_activations.csv`` (:func:`activation_rows`), and a
        folder per contender and seed with weights and checkpoints.
    dataset
        Trains on its split "train", scores on "test".
    patches
        Patch visits of each network of a chain; a network that goes to EV +3 in one step sees three
        times as many.
    seeds
        Runs per contender, with seeds 0, 1, …; all contenders see the same patches in the same order.
    jobs
        Processes, see :func:`replication.evaluation.processes.in_processes`.
    contenders
        Some of the study's; all by default.
    recipe
        A key of :data:`RECIPES`.
    precision
        As in :class:`replication.train.Recipe`; bfloat16 is slow on processors that have no such
        arithmetic.

    Returns
    -------
    Path
        ``STUDY.csv``.

    Raises
    ------
    ReplicationError
        For an unknown study or contender, absent data, a folder that holds weights trained in another
        way, and as in :func:`replication.train.train`.
    """
    folder = Path(folder)
    names = _known(study, contenders)
    if seeds < 1:
        raise ReplicationError(f"The number of seeds must be at least 1, not {seeds}.")
    if recipe not in RECIPES:
        raise ReplicationError(f"Unknown recipe {recipe!r}; known are {', '.join(RECIPES)}.")
    Recipe.of(RECIPES[recipe] | {"patches": patches, "precision": precision})
    tasks = [
        _Task(study, name, seed, patches, dataset, folder, recipe, precision)
        for seed in range(seeds)
        for name in names
    ]
    rows = [_baseline_rows(study, names, dataset)]
    rows += [part for _, part in sorted(in_processes(_do, tasks, jobs, study, "run"))]
    path = report.write_rows(folder / f"{study}.csv", pd.concat(rows, ignore_index=True))
    for what in ("logs", "activations"):
        parts = [pd.read_csv(task.folder / f"{what}.csv") for task in tasks]
        with atomic_path(folder / f"{study}_{what}.csv") as temporary:
            pd.concat(parts).to_csv(temporary, index=False, lineterminator="\n")
    return path


def _known(study: str, contenders: Sequence[str] | None) -> list[str]:
    if study not in STUDIES:
        raise ReplicationError(f"Unknown study {study!r}; known are {', '.join(STUDIES)}.")
    known = STUDIES[study]
    for name in contenders or ():
        if name not in known:
            raise ReplicationError(
                f"Unknown contender {name!r} of {study}; known are {', '.join(known)}."
            )
    return list(dict.fromkeys(contenders or known))


@dataclass(frozen=True)
class _Task:
    """One contender with one seed; everything that a process needs to know."""

    study: str
    name: str
    seed: int
    patches: int
    dataset: str
    into: Path
    base: str
    precision: str

    @property
    def contender(self) -> Contender:
        return STUDIES[self.study][self.name]

    @property
    def folder(self) -> Path:
        return self.into / self.study / f"{self.name}_seed{self.seed}"

    @property
    def recipe(self) -> Recipe:
        visits = self.patches * self.contender.visits
        own = {"patches": visits, "seed": self.seed, "precision": self.precision}
        return Recipe.of(RECIPES[self.base] | own | self.contender.recipe)


def _do(task: _Task) -> pd.DataFrame:
    """Train, look into, and score one contender, unless that has been done; give its rows."""
    training = load_stacks(task.dataset, split="train")
    networks = _trained(task, training)
    test = load_stacks(task.dataset, split="test")
    path = task.folder / "rows.csv"
    hashes = "".join(sha256_file(weights_path(ev, task.folder)) for ev in networks)
    if (kept := _kept(path, hashes)) is not None:
        return kept
    seen = [row for ev in networks for row in _look(task, ev, networks, training[:3])]
    _write(task.folder / "activations.csv", pd.DataFrame(seen))
    logs = [_log(task, ev) for ev in networks]
    _write(task.folder / "logs.csv", pd.concat(logs))
    method = Method(task.name, partial(_infer, networks=networks), hashes[:12])
    evs = STUDIES[task.study][task.name].evs
    rows = exposure_rows(test, [method], table=task.study, evs=_scored(task.study, evs))
    changes = json.dumps(dict(task.contender.recipe))
    recipe = f"{task.recipe.patches} patches per network, {task.base} recipe, changes {changes}"
    frame = pd.DataFrame(rows).assign(seed=task.seed, recipe=recipe)
    report.write_rows(path, frame)
    return report.read_rows(path)


def _scored(study: str, evs: Sequence[int]) -> tuple[int, ...]:
    return (3,) if study == "table2" else tuple(evs)


def _kept(path: Path, hashes: str) -> pd.DataFrame | None:
    """Rows of an earlier run, if they are what would be computed now; an edited tree never is."""
    if not path.exists():
        return None
    rows, version = report.read_rows(path), code_version()
    same = set(rows["weights_hash"]) == {hashes[:12]} and set(rows["code_version"]) == {version}
    return rows if same and "dirty" not in version else None


def _trained(task: _Task, training: Sequence[ExposureStack]) -> dict[int, nn.Module]:
    """The contender's networks by EV, in evaluation mode; trained, or loaded if they have been."""
    contender, recipe = task.contender, task.recipe
    # For training, the exposures count 0, 1, 2, … along the chain, whichever EVs they are.
    places = dict(enumerate((0, *contender.evs)))
    networks = {
        place: seeded(contender.make, 1000 * task.seed + abs(ev))
        for place, ev in places.items()
        if place
    }
    paths = {place: weights_path(places[place], task.folder) for place in networks}
    facts = {
        "contender": task.name,
        "dataset": task.dataset,
        "recipe": asdict(recipe),
        "data_hash": dataset_hash(training),
    }
    groups = [[place] for place in networks]
    if recipe.mode == "chained":
        groups = [list(networks)]
    for group in groups:
        if all(paths[place].exists() for place in group):
            for place in group:
                if _without_version(load_weights(networks[place], paths[place])) != facts:
                    raise ReplicationError(
                        f"{paths[place]} was trained in another way; choose another folder."
                    )
            continue
        images = [{p: stack.images[ev] for p, ev in places.items()} for stack in training]
        needed = sorted({p for place in group for p in (place - 1, place)})
        label = f"{task.name} seed {task.seed} EV {places[group[-1]]:+d}"
        final = train(
            {place: networks[place] for place in group},
            PatchSet(images, needed),
            recipe,
            task.folder / f"ev{places[group[-1]]:+d}",
            log_every=25,
            label=label,
        )
        for place in group:
            save_weights(networks[place], paths[place], facts | {"code_version": code_version()})
        final.unlink()
    for network in networks.values():  # the same memory format whether just trained or loaded
        network.eval().to(memory_format=torch.channels_last)
    return {places[place]: network for place, network in networks.items()}


def _without_version(metadata: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in metadata.items() if key != "code_version"}


def _infer(ldr: np.ndarray, networks: Mapping[int, nn.Module]) -> dict[int, np.ndarray]:
    """Every exposure of a contender from the EV 0 image, 8 bits between the links (D8)."""
    images, image = {}, ldr
    for ev, network in networks.items():
        fast = InferenceNetwork(network) if isinstance(network, SubNetwork) else network
        image = images[ev] = to_uint8(infer_exposure(image, fast))
    return images


def _baseline_rows(study: str, names: Sequence[str], dataset: str) -> pd.DataFrame:
    """The tone curve of the data set's training scenes, scored as the contenders are."""
    evs = {ev for name in names for ev in _scored(study, STUDIES[study][name].evs)}
    evs = tuple(sorted(evs, key=abs))
    curves = tone_curve.fit((s.images for s in load_stacks(dataset, split="train")), evs)
    method = Method("tone_curve", partial(tone_curve.infer_stack, curves=curves))
    rows = exposure_rows(load_stacks(dataset, split="test"), [method], table=study, evs=evs)
    return pd.DataFrame(rows).assign(seed=0, recipe="none")


def _log(task: _Task, ev: int) -> pd.DataFrame:
    """The loss curve of one network; of the whole chain where that was trained together."""
    last = ev if task.recipe.mode == "teacher" else task.contender.evs[-1]
    rows = pd.DataFrame(read_log(task.folder / f"ev{last:+d}" / "log.csv"))
    rows = rows[["patches", "loss", "pixel", "tv", "patches_per_s"]]
    rows["patches"] = rows["patches"].astype(int)
    front = pd.DataFrame({"method": task.name, "seed": task.seed, "ev": ev}, index=rows.index)
    return pd.concat([front, rows], axis=1)


def _write(path: Path, frame: pd.DataFrame) -> None:
    with atomic_path(path) as temporary:
        frame.round(6).to_csv(temporary, index=False, lineterminator="\n")


# ------------------------------------------------------------------------- a look into a network


def _look(
    task: _Task, ev: int, networks: Mapping[int, nn.Module], stacks: Sequence[ExposureStack]
) -> list[dict]:
    """Activation rows of one network on true inputs."""
    network = networks[ev]
    front = {"method": task.name, "seed": task.seed, "ev": ev}
    if not isinstance(network, SubNetwork):
        return [front | {"block": "none"}]
    evs = task.contender.evs
    before = (0, *evs)[evs.index(ev)]
    pixels = [torch.from_numpy(s.images[before]).permute(2, 0, 1)[None] / 255 for s in stacks]
    return [front | row for row in activation_rows(network, pixels)]


def activation_rows(network: SubNetwork, images: Iterable[Tensor]) -> list[dict]:
    """What the activations of a subnetwork do on images, and who makes its negative residuals.

    Parameters
    ----------
    network
        A trained subnetwork; it is run in evaluation mode.
    images
        Batches ``(N, C, H, W)``, float32 in [0, 1].

    Returns
    -------
    list of dict
        A row per block (``features.0`` … ``r3``): ``alpha``, the slope learnt (0 for ReLU, the fixed
        one for leaky ReLU); ``negative``, share of the activation's inputs below zero, 0..1. A row
        ``r4``: ``negative``, share of the residual below zero; ``negative_features``, of all that
        enters r4's sums with a negative sign, the part that comes from negative features (through
        positive weights), 0..1; the rest comes from positive features through negative weights.

    Notes
    -----
    Section 5.2 says that PReLU damps negative residuals. A residual is a weighted sum of features by
    weights of either sign, so it can be negative without any feature being so; these rows say how
    trained networks do it.
    """
    network.eval()
    blocks = {name: part for name, part in network.named_modules() if _is_block(part)}
    below = dict.fromkeys([*blocks, "r4"], 0)
    total = dict.fromkeys(below, 0)
    negative_features = positive_features = 0.0

    def count(name: str, values: Tensor) -> None:
        below[name] += int((values < 0).sum())
        total[name] += values.numel()

    def hook(name: str) -> Callable:
        return lambda _, inputs: count(name, inputs[0])

    def last(_, inputs) -> None:
        nonlocal negative_features, positive_features
        weights = network.r4.weight.detach().flatten(1).double()
        features = inputs[0].detach()
        above = features.clamp(min=0).sum((0, 2, 3), dtype=torch.float64)
        under = -features.clamp(max=0).sum((0, 2, 3), dtype=torch.float64)
        negative_features += float((weights.clamp(min=0) @ under).sum())
        positive_features += float((-weights.clamp(max=0) @ above).sum())

    handles = [part[2].register_forward_pre_hook(hook(name)) for name, part in blocks.items()]
    handles.append(network.r4.register_forward_pre_hook(last))
    try:
        with torch.no_grad():
            for image in images:
                count("r4", network.residual(image))
    finally:
        for handle in handles:
            handle.remove()
    rows = [
        {"block": name, "alpha": _alpha(part[2]), "negative": below[name] / total[name]}
        for name, part in blocks.items()
    ]
    share = negative_features / max(negative_features + positive_features, 1e-12)
    negative = below["r4"] / total["r4"]
    return [*rows, {"block": "r4", "negative": negative, "negative_features": share}]


def _is_block(part: nn.Module) -> bool:
    return isinstance(part, nn.Sequential) and isinstance(part[0], nn.Conv2d)


def _alpha(activation: nn.Module) -> float:
    weight = getattr(activation, "weight", None)
    if weight is None:
        return float(getattr(activation, "negative_slope", 0.0))
    return float(weight.detach().mean())
