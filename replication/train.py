"""Training (Section 4.3): the recipe, the losses of Eq. 3 and 4, and one resumable loop.

Order and flips of the patches follow from (seed, epoch), so a resumed run equals an uninterrupted one,
bitwise on a CPU. Under torchrun each process takes its share of every batch (DistributedDataParallel);
batch normalisation sees the whole batch on GPUs, and on CPUs each process normalises its own share.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import pandas as pd
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from replication import weights
from replication.data.patches import PatchSet
from replication.fast import for_training, has_bfloat16
from replication.files import ReplicationError, atomic_path, check_folder, locked
from replication.model import previous_ev
from replication.paper import BATCH_SIZE, BETA1, LEARNING_RATE, PATCHES, TV_WEIGHT

LOG_COLUMNS = ("step", "patches", "epoch", "loss", "pixel", "tv", "learning_rate", "patches_per_s")
CHECKPOINT_SECONDS = 60  # what a kill can lose
_CHOICES = {"mode": ("teacher", "chained"), "schedule": ("constant", "cosine"), "norm": (1, 2)}
_CHOICES |= {"precision": ("float32", "tf32", "bfloat16", "auto"), "flips": (False, True)}
_LIMITS = {"batch_size": (1, 2**31), "patches": (1, 2**50), "learning_rate": (1e-30, 1e3)}
_LIMITS |= {"beta1": (0, 0.9999), "tv_weight": (0, 1e6), "frozen_norm": (0, 1), "seed": (0, 2**62)}


@dataclass(frozen=True)
class Recipe:
    """How to train; the defaults are the paper's (Section 4.3)."""

    patches: int = PATCHES  # seen in all
    mode: str = "teacher"  # inputs are true images; "chained": inferred ones, and the losses add up
    batch_size: int = BATCH_SIZE  # patches of a step, of all processes together
    learning_rate: float = LEARNING_RATE  # of Adam
    beta1: float = BETA1
    tv_weight: float = TV_WEIGHT  # λ of Eq. 3
    norm: int = 1  # of the pixel loss: 1 is Eq. 4, 2 means squares
    schedule: str = "constant"  # "cosine": the rate falls to zero
    frozen_norm: float = 0.0  # last part of the run that keeps the statistics of normalisation (D7)
    flips: bool = False  # mirror patches at random
    precision: str = "float32"  # or "tf32", "bfloat16", "auto": bfloat16 where the processor has it
    seed: int = 0  # of the weights and of the order of the patches

    def __post_init__(self):
        for field in fields(self):
            name, value = field.name, getattr(self, field.name)
            if name in _CHOICES and value not in _CHOICES[name]:
                known = ", ".join(map(str, _CHOICES[name]))
                raise ReplicationError(f"Unknown {name} {value!r}; known are {known}.")
            low, high = _LIMITS.get(name, (value, value))
            if not isinstance(value, int | type(field.default)) or not low <= value <= high:
                kind = "whole number" if isinstance(field.default, int) else "number"
                raise ReplicationError(f"{name} is a {kind} in {low} … {high}, not {value!r}.")
        if self.patches < self.batch_size:
            raise ReplicationError(f"{self.patches} patches are less than the batch_size.")

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.patches // self.batch_size

    @property
    def log_every(self) -> int:
        """Steps per line of the log: 25 to about 500 lines in all."""
        return max(1, min(50, self.steps // 25), self.steps // 500)

    @property
    def digest(self) -> str:
        """Eight hex digits that name the recipe, for folders that must not mix two of them."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:8]

    @classmethod
    def of(cls, values: dict) -> Recipe:
        """Make a recipe from a mapping; ReplicationError lists the known keys for an unknown one."""
        known = [field.name for field in fields(cls)]
        if unknown := [key for key in values if key not in known]:
            raise ReplicationError(f"Unknown recipe key {unknown[0]!r}; known are {', '.join(known)}.")
        return cls(**values)

    def on(self, device: torch.device) -> Recipe:
        """The recipe with the precision that ``"auto"`` means on a device."""
        if self.precision != "auto":
            return self
        if not (native := has_bfloat16(device)):
            print(f"This {device.type} has no bfloat16 arithmetic: training in float32.")
        return replace(self, precision="bfloat16" if native else "float32")

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        cosine = 0.5 * (1 + math.cos(math.pi * step / self.steps))
        return self.learning_rate * (cosine if self.schedule == "cosine" else 1)


def pixel_loss(inferred: Tensor, target: Tensor, norm: int = 1) -> Tensor:
    """Eq. 4: L1 norm (2: squares) over the colours of ``(N, C, H, W)``, mean over batch and pixels."""
    difference = inferred - target
    return (difference.abs() if norm == 1 else difference.square()).sum(1).mean()


def total_variation(image: Tensor) -> Tensor:
    """Regularisation of Eq. 3: anisotropic total variation of ``(N, C, H, W)`` per pixel (D4)."""
    down = (image[..., 1:, :] - image[..., :-1, :]).abs().sum()
    right = (image[..., :, 1:] - image[..., :, :-1]).abs().sum()
    return (down + right) / (image.shape[0] * image.shape[-2] * image.shape[-1])


def loss(inferred: Tensor, target: Tensor, tv_weight=TV_WEIGHT, norm=1) -> tuple[Tensor, ...]:
    """Eq. 3, pixel loss + λ total variation of the inferred image, and its two parts without λ."""
    pixel, variation = pixel_loss(inferred, target, norm), total_variation(inferred)
    return pixel + tv_weight * variation, pixel, variation


def chain_losses(
    networks: dict[int, nn.Module], images: dict[int, Tensor], mode, tv_weight=TV_WEIGHT, norm=1
) -> Tensor:
    """The values of :func:`loss`, ``(3,)``, summed in the order of the chain; `mode` is the recipe's.

    `images` are EV -> true patches ``(N, 3, H, W)`` in [0, 1].
    """
    inferred, parts = {}, []
    for ev, network in networks.items():
        chained = mode == "chained" and previous_ev(ev) in inferred
        before = (inferred if chained else images)[previous_ev(ev)]
        inferred[ev] = network(before.clamp(0, 1) if chained else before).to(images[ev].dtype)
        parts.append(torch.stack(loss(inferred[ev], images[ev], tv_weight, norm)))
    return torch.stack(parts).sum(0)


def seeded(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    """Make a network with weights that depend on `seed` alone; all generators are restored."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()


def evs_needed(evs: Iterable[int]) -> tuple[int, ...]:
    """Exposures that training the given EVs reads: they and the ones before them, ascending."""
    return tuple(sorted({e for ev in evs for e in (ev, previous_ev(ev))}))


@functools.lru_cache(maxsize=4)
def _epoch(count: int, seed: int, epoch: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
    order = torch.randperm(count, generator=generator)
    return order, torch.rand(count, 2, generator=generator) < 0.5


def _draw(count: int, recipe: Recipe, step: int) -> tuple[Tensor, Tensor | None]:
    """Numbers and flips of the patches of a step, this process's share of them."""
    first, last, parts = step * recipe.batch_size, (step + 1) * recipe.batch_size, []
    for epoch in range(first // count, (last - 1) // count + 1):
        here = slice(max(first - epoch * count, 0), last - epoch * count)
        parts.append([values[here] for values in _epoch(count, recipe.seed, epoch)])
    rank, size = process()
    order, flips = (torch.cat(part).chunk(size)[rank] for part in zip(*parts, strict=True))
    return order, flips if recipe.flips else None


def process() -> tuple[int, int]:
    """Number of this process, and how many train together."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


@contextmanager
def joined_processes(device: torch.device) -> Iterator[torch.device]:
    """Join the processes that torchrun started, if it did; gives this process's device."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    try:
        if not dist.is_initialized():  # once: a second group could meet what the first one left
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
            atexit.register(dist.destroy_process_group)
        yield device
        dist.barrier()  # what process 0 wrote is there before another process goes on
    except RuntimeError as error:
        lost = f"Process {os.environ['RANK']} lost the others, one of which may have failed: "
        raise ReplicationError(lost + str(error).strip().partition("\n")[0]) from error


def _steps(networks: dict, optimizer, patches: PatchSet, recipe: Recipe, first: int) -> Iterator[Tensor]:
    """Take the steps from `first` on; yield the losses of each, ``(3,)``."""
    autocast = torch.autocast(patches.device.type, torch.bfloat16, recipe.precision == "bfloat16")
    live = recipe.steps - int(recipe.frozen_norm * recipe.steps)
    for step in range(first, recipe.steps):
        for part in nn.ModuleList(networks.values()).modules() if step >= live else ():
            if isinstance(part, nn.BatchNorm2d | nn.SyncBatchNorm):
                part.eval()
        optimizer.param_groups[0]["lr"] = recipe.rate(step)
        images = patches.gather(*_draw(len(patches), recipe, step))
        with autocast:
            losses = chain_losses(networks, images, recipe.mode, recipe.tv_weight, recipe.norm)
        optimizer.zero_grad(set_to_none=True)
        losses[0].backward()
        optimizer.step()
        yield losses.detach()


def train(
    networks: dict[int, nn.Module],
    patches: PatchSet,
    recipe: Recipe,
    folder: str | Path,
    *,
    facts: dict[str, object] | None = None,
    label: str = "",
    compile: bool = False,
) -> Path:
    """Train `networks` in place; log, checkpoint, and resume from the checkpoint in `folder` if any.

    Args:
        networks: EV -> network, in the order of the chain; one entry trains one subnetwork.
        patches: Patches of every EV in use; their device is the device of the training.
        recipe: What to do; `label` is shown with the progress.
        folder: Receives ``log.csv``, ``checkpoint.safetensors``, and ``final.safetensors``, returned.
        facts: What else must agree to resume, such as the data (JSON values).
        compile: Use ``torch.compile`` (it needs a C++ compiler).

    Raises:
        ReplicationError: The loss is not finite (the last good checkpoint stays), or the folder is in
            use, cannot be written, or holds another training.
    """
    folder, recipe, device = check_folder(folder), recipe.on(patches.device), patches.device
    checkpoint, final = folder / "checkpoint.safetensors", folder / "final.safetensors"
    log_file, facts = folder / "log.csv", (facts or {}) | {"recipe": asdict(recipe)}
    steps, (rank, size) = recipe.steps, process()
    if recipe.batch_size % size:
        raise ReplicationError(f"{size} processes cannot share a batch of {recipe.batch_size}.")
    module = nn.ModuleDict({f"{ev:+d}": network for ev, network in networks.items()})
    if size > 1 and device.type == "cuda":
        module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
    module.to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.Adam(module.parameters(), betas=(recipe.beta1, 0.999), fused=True)
    tf32 = torch.backends.cudnn.flags(True, benchmark=True, allow_tf32=recipe.precision == "tf32")
    with nullcontext() if rank else locked(folder), tf32:
        saved = final if final.exists() else checkpoint
        start = _load(saved, module, optimizer, facts) if saved.exists() else 0
        written = read_log(log_file) if start and log_file.exists() else []
        log = [row for row in written if row["step"] <= start]
        quick = {ev: for_training(network) for ev, network in networks.items()}
        if compile:
            quick = {ev: torch.compile(network) for ev, network in quick.items()}
        if size > 1:
            ids = [device] if device.type == "cuda" else None
            quick = {ev: DistributedDataParallel(net, device_ids=ids) for ev, net in quick.items()}
        work = _steps(quick, optimizer, patches, recipe, start)
        wait = 0.1 if os.isatty(2) and not os.environ.get("TQDM_DISABLE") else 300
        bar = tqdm(work, label, steps, initial=start, disable=rank > 0, mininterval=wait, delay=wait)
        sums, logged = torch.zeros(3, device=device), start  # since the last line of the log
        log_time = save_time = time.time()
        for step, losses in enumerate(bar, start + 1):
            sums += losses
            logs = step % recipe.log_every == 0 or step == steps
            saves = rank == 0 and (step == steps or time.time() > save_time + CHECKPOINT_SECONDS)
            if logs and size > 1:
                dist.all_reduce(sums)
                sums /= size
            values = (sums, *module.parameters()) if logs or saves else ()
            if not all(value.isfinite().all() for value in values):
                where = f"{label or folder} diverged: the loss is not finite near step {step} of {steps}"
                kept = checkpoint if checkpoint.exists() else "none"
                raise ReplicationError(f"Training {where}; the last good checkpoint is {kept}.")
            if logs:
                count, seen = step - logged, step * recipe.batch_size
                speed = count * recipe.batch_size / max(time.time() - log_time, 1e-9)
                means = (sums / count).tolist()
                row = (step, seen, seen / len(patches), *means, recipe.rate(step - 1), speed)
                log.append(dict(zip(LOG_COLUMNS, row, strict=True)))
                bar.set_postfix_str(f"loss {means[0]:.4f}, {speed:.0f} patches/s", refresh=False)
                sums.zero_()
                logged, log_time = step, time.time()
            if saves:
                with atomic_path(log_file) as temporary:
                    table = pd.DataFrame(log, columns=LOG_COLUMNS)
                    table.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")
                about = {"facts": json.dumps(facts, sort_keys=True), "step": str(step)}
                with atomic_path(final if step == steps else checkpoint) as temporary:
                    weights.write_safetensors(temporary, _state(module, optimizer), about)
                save_time = time.time()
        module.eval()
        if rank == 0:
            checkpoint.unlink(missing_ok=True)
    return final


def read_log(path: str | Path) -> list[dict[str, float]]:
    """Rows of a ``log.csv``, oldest first: column -> number (columns: ``LOG_COLUMNS``)."""
    try:
        table = pd.read_csv(path, usecols=LOG_COLUMNS, dtype=float)
        return table.astype({"step": int, "patches": int}).to_dict("records")
    except (OSError, ValueError) as error:
        raise ReplicationError(f"{path} is no readable training log: {error}.") from error


def _state(module: nn.Module, optimizer: torch.optim.Adam) -> dict[str, Tensor]:
    """Name -> tensor that a checkpoint holds, not copied; zeros for Adam before the first step."""
    tensors = {f"model.{name}": value for name, value in module.state_dict().items()}
    for name, weight in module.named_parameters():
        state = optimizer.state[weight]
        if not state:
            state["step"] = torch.zeros((), device=weight.device)
            state |= {key: torch.zeros_like(weight.detach()) for key in ("exp_avg", "exp_avg_sq")}
        tensors |= {f"adam.{key}.{name}": value for key, value in state.items()}
    return tensors


def _load(path: Path, module: nn.Module, optimizer, facts: dict) -> int:
    """Load a checkpoint, if it is of the same training; gives its step."""
    tensors, metadata = weights.read_safetensors(path)
    try:
        check_same(path, json.loads(metadata["facts"]), facts)
        for name, value in _state(module, optimizer).items():
            value.copy_(tensors[name])
        return int(metadata["step"])
    except (KeyError, ValueError, RuntimeError) as error:
        raise ReplicationError(f"{path} is no whole checkpoint; delete it to go on.") from error


def check_same(path: Path, found: dict, facts: dict) -> None:
    """Raise if a file comes from another training; a fact that an old file lacks does not count."""
    for key, value in facts.items():
        known = found.get(key, value)
        if isinstance(value, dict) and isinstance(known, dict):
            check_same(path, known, value)
        elif known != value:
            where = f"{path} was trained with another {key}, {known}, not {value}"
            raise ReplicationError(f"{where}; choose another folder or delete it to start anew.")
