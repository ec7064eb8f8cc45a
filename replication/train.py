"""One training loop for every network of the kit: Eq. 3-4, teacher-forced or chained, resumable.

A run is determined by its data, its :class:`Recipe` and the version of the code: the order of the
patches and their flips are functions of (seed, epoch), so a killed and resumed run equals an
uninterrupted one, bitwise on a CPU with the same numbers of threads and processes.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from replication import parallel
from replication.data.patches import PatchSet
from replication.files import ReplicationError, atomic_path
from replication.model import previous_ev
from replication.paper import BATCH_SIZE, BETA1, LEARNING_RATE, TV_WEIGHT
from replication.weights import load_state, read_safetensors, write_safetensors

TELL_SECONDS = 300
"""Time between two lines of progress where there is no terminal."""

LOG_COLUMNS = ("step", "patches", "epoch", "loss", "pixel", "tv", "learning_rate", "patches_per_s")


@dataclass(frozen=True)
class Recipe:
    """How a run is trained; the defaults are the paper's (Section 4.3).

    Attributes
    ----------
    patches : int
        Patch visits in all; the paper's is 100 epochs × about 180,000.
    mode : str
        ``"teacher"``: every subnetwork takes the true image before it; ``"chained"``: the inferred one,
        clamped to [0, 1], so that the losses at EV ±1 and ±2 join the one at ±3 (Section 4.3).
    batch_size, learning_rate, beta1, tv_weight : int, float, float, float
        Patches per step (of all processes together), Adam's parameters, λ of Eq. 3.
    norm : int
        Of the pixel loss: 1 is the paper's (Eq. 4), 2 means squares.
    schedule : str
        ``"constant"`` or ``"cosine"`` (to zero at the end).
    frozen_norm : float
        Part of the run, at its end, in which batch normalisation uses and keeps its running
        statistics, as it does when the network is used (DEVIATIONS D7). 0 is the paper's.
    flips : bool
        Mirror patches at random.
    precision : str
        ``"float32"``, ``"tf32"`` (the same on a CPU; on a GPU convolutions round their input to 11
        bits) or ``"bfloat16"`` (autocast; weights, losses and updates stay float32).
    seed : int
        Of the initial weights (:func:`seeded`) and of the order of the patches.
    """

    patches: int = 18_000_000
    mode: str = "teacher"
    batch_size: int = BATCH_SIZE
    learning_rate: float = LEARNING_RATE
    beta1: float = BETA1
    tv_weight: float = TV_WEIGHT
    norm: int = 1
    schedule: str = "constant"
    frozen_norm: float = 0.0
    flips: bool = False
    precision: str = "float32"
    seed: int = 0

    def __post_init__(self):
        _one_of("mode", self.mode, ("teacher", "chained"))
        _one_of("schedule", self.schedule, ("constant", "cosine"))
        _one_of("precision", self.precision, ("float32", "tf32", "bfloat16"))
        if self.norm not in (1, 2):
            raise ReplicationError(f"The norm of the pixel loss is 1 or 2, not {self.norm}.")
        if not (math.isfinite(self.tv_weight) and self.tv_weight >= 0):
            raise ReplicationError(f"tv_weight must not be negative, but is {self.tv_weight}.")
        if self.batch_size < 1 or self.patches < self.batch_size:
            raise ReplicationError(
                f"A recipe needs 1 <= batch_size <= patches, not {self.batch_size} and {self.patches}."
            )
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ReplicationError(f"learning_rate must be positive, not {self.learning_rate}.")
        if not 0 <= self.frozen_norm <= 1:
            raise ReplicationError(f"frozen_norm is a part in [0, 1], not {self.frozen_norm}.")

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.patches // self.batch_size

    @property
    def digest(self) -> str:
        """Eight hex digits that name the recipe, for folders that must not mix two of them."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:8]

    @classmethod
    def of(cls, values: dict) -> Recipe:
        """Make a recipe from a mapping; an unknown key raises ReplicationError and lists the known ones."""
        known = [field.name for field in fields(cls)]
        for key in values:
            if key not in known:
                raise ReplicationError(f"Unknown recipe key {key!r}; known are {', '.join(known)}.")
        return cls(**values)


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ReplicationError(f"Unknown {name} {value!r}; known are {', '.join(known)}.")


def pixel_loss(inferred: Tensor, target: Tensor, norm: int = 1) -> Tensor:
    """Eq. 4: the L1 norm over the colour channels, averaged over batch and pixels.

    Parameters
    ----------
    inferred, target
        ``(N, C, H, W)``, float, [0, 1].
    norm
        1 is the paper's; 2 takes squares instead, so that the mean of what is possible is learnt and
        not the median (DEVIATIONS D7).
    """
    difference = inferred - target
    return (difference.abs() if norm == 1 else difference.square()).sum(1).mean()


def total_variation(image: Tensor) -> Tensor:
    """Regularisation of Eq. 3: anisotropic total variation per pixel (DEVIATIONS D4).

    Sum of the absolute differences to the right and to the lower neighbour, over the channels, divided
    by the number of pixels, averaged over the batch. `image` is ``(N, C, H, W)``.
    """
    down = (image[..., 1:, :] - image[..., :-1, :]).abs().sum()
    right = (image[..., :, 1:] - image[..., :, :-1]).abs().sum()
    return (down + right) / (image.shape[0] * image.shape[-2] * image.shape[-1])


def loss(
    inferred: Tensor, target: Tensor, tv_weight: float = TV_WEIGHT, norm: int = 1
) -> tuple[Tensor, Tensor, Tensor]:
    """Eq. 3: pixel loss + λ total variation of the inferred image.

    Returns
    -------
    tuple of Tensor
        The loss and its two parts (the total variation without λ); scalars.
    """
    pixel = pixel_loss(inferred, target, norm)
    variation = total_variation(inferred)
    return pixel + tv_weight * variation, pixel, variation


def chain_losses(
    networks: dict[int, nn.Module],
    images: dict[int, Tensor],
    mode: str,
    tv_weight: float = TV_WEIGHT,
    norm: int = 1,
) -> Tensor:
    """Loss summed over the exposures of an arm, and its parts.

    Parameters
    ----------
    networks
        EV -> subnetwork in the order of the chain.
    images
        EV -> true patches ``(N, 3, H, W)`` in [0, 1].
    mode
        ``"teacher"`` or ``"chained"``, see :class:`Recipe`.
    tv_weight, norm
        As in :func:`loss` and :func:`pixel_loss`.

    Returns
    -------
    Tensor
        ``(3,)``: loss, pixel part, total variation part.
    """
    inferred: dict[int, Tensor] = {}
    parts = []
    for ev, network in networks.items():
        before = previous_ev(ev)
        if mode == "chained" and before in inferred:
            source = inferred[before].clamp(0, 1)
        else:
            source = images[before]
        inferred[ev] = network(source).to(images[ev].dtype)
        parts.append(torch.stack(loss(inferred[ev], images[ev], tv_weight, norm)))
    return torch.stack(parts).sum(0)


def seeded(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    """Make a network with initial weights that depend on `seed` alone; the global state is restored."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def _learning_rate(recipe: Recipe, step: int) -> float:
    if recipe.schedule == "constant":
        return recipe.learning_rate
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * step / recipe.steps))


def _epoch_order(count: int, recipe: Recipe, epoch: int) -> tuple[Tensor, Tensor | None]:
    generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + epoch)
    order = torch.randperm(count, generator=generator)
    flips = torch.rand(count, 2, generator=generator) < 0.5 if recipe.flips else None
    return order, flips


class _Order:
    """The patches of step s, for any s, without a state to save."""

    def __init__(self, count: int, recipe: Recipe) -> None:
        self.count, self.recipe = count, recipe
        self.epochs: dict[int, tuple[Tensor, Tensor | None]] = {}

    def batch(self, step: int) -> tuple[Tensor, Tensor | None]:
        first = step * self.recipe.batch_size
        last = first + self.recipe.batch_size
        epochs = range(first // self.count, (last - 1) // self.count + 1)
        self.epochs = {
            epoch: self.epochs.get(epoch) or _epoch_order(self.count, self.recipe, epoch)
            for epoch in epochs
        }
        here = {e: slice(max(first - e * self.count, 0), last - e * self.count) for e in epochs}
        order = torch.cat([self.epochs[e][0][here[e]] for e in epochs])
        if not self.recipe.flips:
            return order, None
        return order, torch.cat([self.epochs[e][1][here[e]] for e in epochs])


def train(
    networks: dict[int, nn.Module],
    patches: PatchSet,
    recipe: Recipe,
    folder: str | Path,
    *,
    checkpoint_seconds: float = 60.0,
    log_every: int = 50,
    stop_after: int | None = None,
    label: str = "",
    compile: bool = False,
) -> Path:
    """Train `networks` in place; log, checkpoint, and resume from the checkpoint in `folder` if any.

    Inside :func:`replication.parallel.group` each process takes its share of every batch; process 0
    reads and writes the folder.

    Parameters
    ----------
    networks
        EV -> network, in the order of the chain; one entry trains one subnetwork.
    patches
        Aligned patches of every EV in use; its device is the device of the training.
    recipe
        What to do; a checkpoint of another recipe is refused.
    folder
        Receives ``log.csv``, ``checkpoint.safetensors`` and, at the end, ``final.safetensors``.
    checkpoint_seconds
        Longest time between two checkpoints: what a kill can lose.
    log_every
        Steps per line of the log.
    stop_after
        Stop, with a checkpoint, after so many steps of this call (for tests and time slices).
    label
        Shown by the progress bar.
    compile
        Use ``torch.compile`` (on a CPU it needs a C++ compiler): the same up to rounding;
        results/reference/BENCHMARK.md says where it pays.

    Returns
    -------
    Path
        ``final.safetensors``, or the checkpoint where `stop_after` ended the call before the end.

    Raises
    ------
    ReplicationError
        If the loss is not finite (the last good checkpoint stays), a file cannot be written, the
        folder holds a checkpoint of another recipe or network, the batch cannot be shared equally, or
        another process is lost.
    """
    folder = Path(folder)
    checkpoint, final = folder / "checkpoint.safetensors", folder / "final.safetensors"
    module = nn.ModuleDict({f"{ev:+d}": network for ev, network in networks.items()})
    module.to(patches.device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.Adam(
        module.parameters(), lr=recipe.learning_rate, betas=(recipe.beta1, 0.999), fused=True
    )
    if recipe.batch_size % parallel.size():
        raise ReplicationError(
            f"A batch of {recipe.batch_size} cannot be shared equally by {parallel.size()} processes."
        )
    parallel.check_same("recipe or data", (recipe.digest, len(patches)))
    step = 0
    if saved_state := parallel.from_first(_read_saved, final, checkpoint):
        path, *content = saved_state
        step = _load_state(
            path, *content, module, optimizer if path == checkpoint else None, recipe
        )
        if path == final:
            return final
    log = _Log(folder / "log.csv", step)
    order = _Order(len(patches), recipe)
    freeze_from = recipe.steps - int(recipe.frozen_norm * recipe.steps)
    end = recipe.steps if stop_after is None else min(recipe.steps, step + stop_after)
    sums, counted, since, saved = torch.zeros(3, device=patches.device), 0, time.time(), time.time()
    told = saved
    autocast = torch.autocast(
        patches.device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"
    )
    convolutions = torch.backends.cudnn.flags(
        enabled=True, benchmark=True, allow_tf32=recipe.precision == "tf32"
    )
    called = {ev: torch.compile(net) if compile else net for ev, net in networks.items()}
    bar = tqdm(total=recipe.steps, initial=step, desc=label, unit="step", disable=not _terminal())
    with bar, log, convolutions:
        while step < end:
            if step >= freeze_from:
                _freeze_norm(module)
            for group in optimizer.param_groups:
                group["lr"] = _learning_rate(recipe, step)
            images = patches.gather(*map(parallel.share, order.batch(step)))
            with autocast:
                parts = chain_losses(called, images, recipe.mode, recipe.tv_weight, recipe.norm)
            optimizer.zero_grad(set_to_none=True)
            parts[0].backward()
            sums += parallel.average(module.parameters(), parts.detach())
            optimizer.step()
            step, counted = step + 1, counted + 1
            due = step == end or time.time() - saved > checkpoint_seconds
            if parallel.size() > 1:  # process 0's clock counts, and only where the log has a line
                meet = step == end or step % log_every == 0
                due = meet and parallel.from_first(bool, due)
            if due or step % log_every == 0:
                mean = (sums / counted).tolist()
                if not all(map(math.isfinite, mean)):
                    raise ReplicationError(
                        f"Training {label or folder} diverged: the loss is not finite near step {step} "
                        f"of {recipe.steps}; the last good checkpoint is {_or_none(checkpoint)}."
                    )
                seen = step * recipe.batch_size
                rate = counted * recipe.batch_size / max(time.time() - since, 1e-9)
                if step % log_every == 0 or step == recipe.steps:
                    log.write(
                        step,
                        seen,
                        seen / len(patches),
                        *mean,
                        _learning_rate(recipe, step - 1),
                        rate,
                    )
                    sums.zero_()
                    counted, since = 0, time.time()
                now = f"loss {mean[0]:.4f}, {rate:.0f} patches/s"
                bar.set_postfix_str(now, refresh=False)
                if bar.disable and parallel.rank() == 0 and time.time() - told > TELL_SECONDS:
                    left = (recipe.patches - seen) / rate / 60
                    print(
                        f"{label}: {seen:,} of {recipe.patches:,} patches, {now}, {left:.0f} min left"
                    )
                    told = time.time()
            if due:
                log.flush()
                parallel.from_first(_save_state, checkpoint, module, optimizer, recipe, step)
                saved = time.time()
            bar.update()
    module.eval()
    if step < recipe.steps:
        return checkpoint
    parallel.from_first(_save_state, final, module, None, recipe, step)
    if parallel.rank() == 0:
        checkpoint.unlink(missing_ok=True)
    return final


def _terminal() -> bool:
    """Progress bars belong in a terminal only; elsewhere a line now and then must do."""
    return os.isatty(2) and parallel.rank() == 0 and not os.environ.get("TQDM_DISABLE")


def _or_none(path: Path) -> str:
    return str(path) if path.exists() else "none"


def _freeze_norm(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.eval()


class _Log:
    """``log.csv``; on resume the lines past the checkpoint are dropped."""

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        self.rows = [row for row in read_log(path) if row["step"] <= step] if path.exists() else []
        self.flush()

    def __enter__(self) -> _Log:
        return self

    def __exit__(self, *_) -> None:
        self.flush()

    def write(self, *values: float) -> None:
        self.rows.append(dict(zip(LOG_COLUMNS, values, strict=True)))

    def flush(self) -> None:
        if parallel.rank():
            return
        with atomic_path(self.path) as temporary, open(temporary, "w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(LOG_COLUMNS)
            for row in self.rows:
                writer.writerow(
                    [
                        int(row["step"]),
                        int(row["patches"]),
                        *(f"{row[c]:.6g}" for c in LOG_COLUMNS[2:]),
                    ]
                )


def read_log(path: str | Path) -> list[dict[str, float]]:
    """Rows of a ``log.csv``, oldest first, as column -> float (columns: ``LOG_COLUMNS``)."""
    with open(path, newline="") as stream:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(stream)]


def _save_state(
    path: Path, module: nn.Module, optimizer: torch.optim.Adam | None, recipe: Recipe, step: int
) -> None:
    tensors = {f"model.{name}": value for name, value in module.state_dict().items()}
    if optimizer is not None:
        names = dict(module.named_parameters())
        for name, parameter in names.items():
            for key, value in optimizer.state[parameter].items():
                tensors[f"adam.{key}.{name}"] = value
    metadata = {"recipe": json.dumps(asdict(recipe), sort_keys=True), "step": str(step)}
    with atomic_path(path) as temporary:
        write_safetensors(temporary, tensors, metadata)


def _read_saved(*paths: Path) -> tuple[Path, dict[str, Tensor], dict[str, str]] | None:
    """Path and content of the first of the files that is there."""
    return next(((path, *read_safetensors(path)) for path in paths if path.exists()), None)


def _load_state(
    path: Path,
    tensors: dict[str, Tensor],
    metadata: dict[str, str],
    module: nn.Module,
    optimizer: torch.optim.Adam | None,
    recipe: Recipe,
) -> int:
    if metadata.get("recipe") != json.dumps(asdict(recipe), sort_keys=True):
        raise ReplicationError(
            f"{path} belongs to another recipe ({metadata.get('recipe')}); "
            "choose another folder or delete it to start anew."
        )
    state = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
    load_state(module, state, path)
    if optimizer is not None:
        for name, parameter in module.named_parameters():
            optimizer.state[parameter] = {
                key: tensors[f"adam.{key}.{name}"].to(
                    parameter.device,
                    memory_format=torch.channels_last
                    if tensors[f"adam.{key}.{name}"].ndim == 4
                    else torch.preserve_format,
                )
                for key in ("step", "exp_avg", "exp_avg_sq")
            }
    return int(metadata["step"])


def evs_needed(evs: Iterable[int]) -> tuple[int, ...]:
    """Exposures that training the given EVs reads: they and the ones before them, ascending."""
    return tuple(sorted({e for ev in evs for e in (ev, previous_ev(ev))}))


# ---- adapter: the old code under its new name, until this module is rewritten ----


import yaml  # noqa: E402

from replication.fast import InferenceNetwork, choose_device  # noqa: E402
from replication.files import check_folder, sha256_file  # noqa: E402
from replication.images import to_uint8  # noqa: E402
from replication.model import SubNetwork, activation_for, chain_evs  # noqa: E402
from replication.weights import load_weights, save_weights, weights_path  # noqa: E402


def train_subnetworks(
    evs,
    output,
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
    from replication import parallel
    from replication.data.patches import PatchSet
    from replication.data.stacks import dataset_hash, load_stacks
    from replication.provenance import code_version

    plan = Recipe.of(recipe)
    evs = chain_evs(evs) if plan.mode == "chained" else tuple(dict.fromkeys(evs))
    if 0 in evs:
        raise ReplicationError("EV +0 is the photo itself; there is nothing to train.")
    output = check_folder(output)
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
    device = str(choose_device(device))
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


def _trained_already(written: dict[int, Path], facts: dict[int, dict]) -> bool:
    """Whether all weights are there; raises if they were trained in another way."""
    if not all(path.exists() for path in written.values()):
        return False
    for one, path in written.items():
        _check_same(path, facts[one])
    return True


def _validation(
    network: SubNetwork, ev: int, dataset: str, training
) -> dict[str, object] | None:
    """Figures for the metadata: the link on the validation scenes, baselines beside it."""
    from replication.data.stacks import has_split, load_stacks
    from replication.evaluation import exposures as evaluate

    if not has_split(dataset, "val"):
        return None
    stacks = load_stacks(dataset, split="val")
    methods = evaluate.link_methods(network, ev, training)
    psnr = evaluate.link_psnr(stacks, ev, methods)
    return {"input": "true image before", "scenes": len(stacks), "psnr_db": psnr}


def _replace_inputs(
    images, evs, folder: Path, device: str
) -> None:
    """Put the inferred image in the place of the true one that the subnetwork of `evs` reads."""
    from replication.reconstruct import infer_exposure

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




def _check_same(path: Path, facts: dict) -> None:
    """Raise if finished weights were trained in another way than is asked for now."""
    from replication.weights import read_safetensors

    metadata = read_safetensors(path)[1]
    for key, value in facts.items():
        if json.loads(metadata.get(key, "null")) != value:
            raise ReplicationError(
                f"{path} was trained with another {key}, {metadata.get(key, 'unknown')}; "
                "choose another folder."
            )


def run_recipe(path, output, *, dataset=None, jobs=1, device=None):
    """Stand-in: trains the six subnetworks by the single stage {patches, …} of a YAML file."""
    recipe = yaml.safe_load(Path(path).read_text())
    data = recipe.pop("dataset", "hdrps") if dataset is None else dataset
    options = recipe.get("stages", [{}])[0]
    keep = {key: value for key, value in options.items() if key in Recipe.__dataclass_fields__}
    made = {}
    for ev in (1, 2, 3, -1, -2, -3):
        made |= train_subnetworks([ev], output, dataset=data, device=device, **keep)
        (Path(output) / "log.csv").unlink(missing_ok=True)
    return made
