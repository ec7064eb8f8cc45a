"""From a data set to weights files: train subnetworks, one by one, as a chain, or stage by stage."""

from __future__ import annotations

import functools
import itertools
import json
import operator
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
import yaml
from tqdm import tqdm

from replication import train as training
from replication.data.patches import PatchSet
from replication.data.stacks import dataset_hash, has_split, load_stacks
from replication.evaluation.exposures import subnetwork_methods, subnetwork_psnr
from replication.evaluation.rows import at_least_one, in_processes
from replication.fast import choose_device
from replication.files import ReplicationError, atomic_path, check_folder, sha256_file
from replication.images import to_uint8
from replication.model import SubNetwork, activation_for, chain_evs, previous_ev
from replication.provenance import code_version
from replication.reconstruct import infer_exposure
from replication.train import Recipe, check_same
from replication.weights import load_weights, read_safetensors, save_weights, weights_path


def train_subnetworks(
    evs: Sequence[int],
    output: str | Path,
    *,
    dataset: str = "mini",
    init: str | Path | None = None,
    inferred_from: str | Path | None = None,
    activation: str | None = None,
    device: str | None = None,
    threads: int | None = None,
    compile: bool = False,
    **recipe,
) -> dict[int, Path]:
    """Train subnetworks on a data set's training scenes: EV -> weights file; resumes.

    Args:
        evs: One EV, or the EVs of one side for chained training.
        output: Folder for log, checkpoint, and the finished ``ev+1.safetensors`` ….
        dataset: As in :func:`replication.data.stacks.load_stacks`.
        init: Weights folder to start from; by default fresh weights from the seed.
        inferred_from: Weights folder of the subnetworks that infer the input; by default it is the
            true image (Section 4.3 allows both; D7).
        activation: Instead of the paper's; `threads`, those of the CPU.
        device: cpu, cuda or cuda:N, by default a GPU where there is one.
        **recipe: Fields of :class:`replication.train.Recipe`; `compile`, as in its module's `train`.
    """
    plan, evs = Recipe.of(recipe), tuple(dict.fromkeys(evs))
    evs = chain_evs(evs) if plan.mode == "chained" else evs
    if 0 in evs or not evs:
        raise ReplicationError("EV +0 is the photo itself; there is nothing to train.")
    if inferred_from and len(evs) > 1:
        raise ReplicationError("Training on inferred images takes one EV at a time.")
    torch.set_num_threads(at_least_one(threads or torch.get_num_threads(), "threads"))
    written = {ev: weights_path(ev, check_folder(output)) for ev in evs}
    with training.joined_processes(choose_device(device)) as device:
        plan, before = plan.on(device), range(1, evs[0]) if evs[0] > 0 else range(-1, evs[0], -1)
        before = {ev: weights_path(ev, inferred_from) for ev in before} if inferred_from else {}
        facts = {"recipe": asdict(plan), "dataset": dataset}
        facts["inputs"] = "inferred" if inferred_from else "true"
        facts["inferred_from"] = [_hash(path) for path in before.values()]
        own = {ev: {"ev": ev, "activation": activation or activation_for(ev)} for ev in evs}
        for ev in evs:
            own[ev]["init"] = _hash(weights_path(ev, init)) if init else None
        if all(path.exists() for path in written.values()):
            for ev, path in written.items():
                known, wanted = read_safetensors(path)[1], facts | own[ev]
                check_same(path, {k: json.loads(known[k]) for k in wanted if k in known}, wanted)
            return written
        stacks = load_stacks(dataset, split="train")
        images = [dict(stack.images) for stack in stacks]
        for ev, path in before.items():
            load_weights(network := SubNetwork(activation_for(ev)), path, ev)
            for scene in tqdm(images, desc=f"inferring EV {ev:+d}", disable=None):
                source = scene[previous_ev(ev)]
                scene[ev] = to_uint8(infer_exposure(source, network, device=device))
        patches, networks = PatchSet(images, training.evs_needed(evs), device=device), {}
        for ev in evs:
            make = functools.partial(SubNetwork, own[ev]["activation"])
            networks[ev] = training.seeded(make, plan.seed + ev)
            if init:
                load_weights(networks[ev], weights_path(ev, init), ev)
        facts |= {"dataset_hash": dataset_hash(stacks), "patches_in_data": len(patches)}
        kept = facts | {f"EV {ev:+d}": own[ev] for ev in evs}
        options = {"label": " ".join(f"EV {ev:+d}" for ev in evs), "compile": compile}
        final = training.train(networks, patches, plan, output, facts=kept, **options)
        rank, processes = training.process()
        if rank == 0:
            facts |= {"device": str(device), "processes": processes, "code_version": code_version()}
            for ev, network in networks.items():
                own[ev]["validation"] = _validation(network, ev, dataset, stacks)
                save_weights(network.cpu(), written[ev], facts | own[ev])
            final.unlink()
    return written


def _hash(path: Path) -> str:
    if not path.is_file():
        raise ReplicationError(f"No weights at {path}.")
    return sha256_file(path)


def _validation(network: SubNetwork, ev: int, dataset: str, training: list) -> dict | None:
    """PSNR in dB on the validation scenes from the true image before, baselines beside the network's."""
    if not has_split(dataset, "val"):
        return None
    stacks = load_stacks(dataset, split="val")
    psnr = subnetwork_psnr(stacks, ev, subnetwork_methods(network, ev, training))
    if psnr["deep_chain"] < psnr["identity"]:
        both = f"{psnr['deep_chain']} dB, the unchanged image {psnr['identity']} dB"
        print(f"warning: on the validation scenes, EV {ev:+d} has {both}.", file=sys.stderr)
    return {"input": "true image before", "scenes": len(stacks), "psnr_db": psnr}


def run_recipe(
    path: str | Path, output: str | Path, *, dataset=None, jobs: int = 1, device=None
) -> dict[int, Path]:
    """Train all subnetworks of a recipe file: EV -> weights file in `output`; resumes.

    Args:
        path: YAML with ``dataset`` and ``stages``, a list. Each stage has ``evs``, a list of lists
            (several EVs in a list are trained as a chain), ``inputs``, true or inferred (by the
            subnetworks before), and keys of :class:`Recipe`. It starts from the stage before, if it can.
        output: Folder for the weights and one folder per stage.
        dataset: Instead of the file's; `device`, as in :func:`train_subnetworks`.
        jobs: Processes that share the lists of a stage, each on its own GPU where there are several.
    """
    named, stages = _read_recipe(path)
    newest, before = {}, None
    for number, (groups, inferred, recipe) in enumerate(stages, 1):
        folder, tasks = Path(output) / f"stage{number}", []
        for evs in groups:
            options = recipe | {"mode": "chained" if len(evs) > 1 else "teacher"}
            options |= {"dataset": dataset or named, "device": device}
            options["init"] = before if newest.keys() >= set(evs) else None
            options["inferred_from"] = before if inferred else None
            into = folder / "".join(f"ev{ev:+d}" for ev in evs)
            tasks.append(functools.partial(train_subnetworks, evs, into, **options))
        for _, done in in_processes(operator.call, tasks, jobs, f"stage {number}", "list", device):
            newest |= done
        before = folder
        for ev, target in itertools.product(newest, (folder, output)):
            with atomic_path(weights_path(ev, target)) as temporary:
                shutil.copyfile(newest[ev], temporary)
    return {ev: weights_path(ev, output) for ev in chain_evs(newest)}


def _read_recipe(path: str | Path) -> tuple[str, list[tuple[list, bool, dict]]]:
    """Data set, and of each stage the lists of EVs, whether inputs are inferred, and the recipe."""
    try:
        content, stages, trained = yaml.safe_load(Path(path).read_text("utf-8")), [], []
        if unknown := sorted(content.keys() - {"dataset", "stages"}):
            raise ReplicationError(f"unknown key {unknown[0]!r}; known are dataset and stages.")
        for stage in map(dict, content["stages"]):
            groups, inputs = stage.pop("evs"), stage.pop("inputs", True)
            if inputs not in (True, "true", "inferred"):
                raise ReplicationError(f"inputs are true or inferred, not {inputs!r}.")
            for evs in groups if inputs == "inferred" else ():
                if len(evs) > 1 or previous_ev(evs[0]) not in (0, *trained):
                    raise ReplicationError(f"no stage before infers the inputs of EVs {evs}.")
            trained += [ev for evs in groups for ev in evs]
            chain_evs(trained)
            Recipe.of(stage)
            stages.append((groups, inputs == "inferred", stage))
        return content["dataset"], stages
    except ReplicationError as error:
        raise ReplicationError(f"{path}: {error}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise ReplicationError(f"{path} is no training recipe: {error!r}.") from error
