"""The command line: one verb per thing that a user wants to do."""

from __future__ import annotations

import argparse
import functools
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import psutil

from replication import __version__
from replication.files import REFERENCE, RESULTS, ReplicationError, in_clone

NO_RECIPE = "verb call parser clone ev recipe output jobs dataset device"
"""What `train` takes beside options of its recipe, which are passed on where they are given."""

SAY = functools.partial(print, flush=True)


def _options(args: argparse.Namespace, names: str) -> dict:
    return {name: getattr(args, name) for name in names.split()}


def _convert(args: argparse.Namespace) -> None:
    from replication.reconstruct import convert

    convert(args.photo, args.output, **_options(args, "weights method tile stride device"))


def _fetch(args: argparse.Namespace) -> None:
    from replication.data.fetch import fetch

    print(fetch(args.dataset, source_dir=args.source, check=args.check))


def _train(args: argparse.Namespace) -> None:
    from replication.recipes import run_recipe, train_subnetworks

    given = {k: v for k, v in vars(args).items() if v is not None and k not in NO_RECIPE.split()}
    there = set(args.output.glob("ev*.safetensors"))
    if args.ev:
        given |= {"dataset": args.dataset or "mini", "device": args.device}
        written = train_subnetworks(args.ev, args.output, **given)
    elif given:
        raise ReplicationError(f"The recipe {args.recipe} decides {', '.join(given)} itself.")
    else:
        written = run_recipe(args.recipe, args.output, **_options(args, "dataset jobs device"))
    if os.environ.get("RANK", "0") == "0":  # one of the processes of torchrun prints
        for ev, path in written.items():
            print(f"EV {ev:+d}: {path}{' (was trained already)' if path in there else ''}")


def _ablate(args: argparse.Namespace) -> None:
    from replication.evaluation.ablation import run_study
    from replication.evaluation.rows import read_rows
    from replication.report.tables import ablation_frame, as_text

    names = "dataset patches seeds jobs contenders recipe precision device"
    path = run_study(args.study, args.output, **_options(args, names))
    print(as_text(ablation_frame(read_rows(path))))
    print(f"One row per scene, contender and seed: {path}")


def _run(args: argparse.Namespace) -> None:
    from replication import runs
    from replication.report.documents import write_run_report

    options = _options(args, "from_notebook jobs output device")
    options |= {"parameters": runs.parse_parameters(args.parameter), "progress": SAY}
    output = runs.run(args.profile, args.notebook, **options)
    if report := write_run_report(output):
        print(f"Tables beside the paper's: {report}")


def _evaluate(args: argparse.Namespace) -> None:
    from replication.evaluation import radiance
    from replication.evaluation.rows import read_rows
    from replication.report.tables import as_text, table5_frame

    path = radiance.evaluate(args.dataset, args.output, **_options(args, "split weights jobs device"))
    for name, rows in read_rows(path).groupby("dataset", sort=False):
        print(f"{name}, mean ± σ\n{as_text(table5_frame(rows), together=3)}\n")
    print(f"Protocol: {radiance.PROTOCOL}.\nRows in {path}.")


def _compare(args: argparse.Namespace) -> None:
    from replication.evaluation import radiance
    from replication.evaluation.rows import METRICS

    options = _options(args, "photo absolute maps device")
    for name, value in radiance.compare(args.test, args.reference, **options).items():
        print(f"{name:24s} {value:10.4f}  {METRICS[name]}")
    print(f"Protocol: {radiance.compare_protocol(args.photo, args.absolute)}.")
    if args.maps:
        print(f"Maps in {args.maps}.")


def _report(args: argparse.Namespace) -> None:
    from replication.report.documents import update_tables

    update_tables(check=args.check)


def _verify(args: argparse.Namespace) -> None:
    from replication import runs
    from replication.report import verify

    options = {"output": RESULTS / "runs" / "verify", "device": args.device, "progress": SAY}
    run = args.run or runs.run("quick", verify.NOTEBOOKS, **options)
    found = verify.verify(run, args.against or REFERENCE)
    print(found)
    if found.differ:
        raise ReplicationError(f"{len(found.differ)} of the tables differ.")


class _Parser(argparse.ArgumentParser):
    """A parser that says what is wrong in one sentence, with the verb's own --help."""

    def error(self, message: str) -> NoReturn:
        raise ReplicationError(f"{message}; see `{self.prog} --help`.")


def _positive(text: str) -> int:
    if text.isdecimal() and int(text):
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")


def _folder(text: str) -> Path:
    if text.strip():
        return Path(text)
    raise argparse.ArgumentTypeError("the name of the folder is empty")


def parser() -> argparse.ArgumentParser:
    """The parser; the help of a verb says what it reads and writes."""
    top = _Parser(prog="python -m replication", description=__doc__)
    top.add_argument("--version", action="version", version=__version__)
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, call, text: str, output: str | None = None, clone=False):
        one = verbs.add_parser(name, help=text, description=text)
        one.set_defaults(call=call, parser=one, clone=clone)
        if output is not None:
            add = {"type": _folder, "required": not output, "metavar": "DIR"}
            one.add_argument("-o", "--output", help=output or "made where it does not exist", **add)
        if name not in ("fetch", "report"):
            one.add_argument("--device", help="cpu, cuda or cuda:N; default: a GPU if there is one")
        return one.add_argument

    add = verb("convert", _convert, "photos to HDR images", output="")
    add("photo", nargs="*", type=Path, help="LDR photos; none: a photograph of scikit-image")
    add("--weights", type=Path, metavar="DIR", help="default: the shipped weights")
    add("--method", default="tiled", choices=("tiled", "whole", "patches"))
    add("--tile", type=_positive, default=512, help="side of a tile in pixels")
    add("--stride", type=_positive, default=10, help="of --method patches; the paper has 1")

    add = verb("fetch", _fetch, "get a data set and verify every file")
    add("dataset", help="mini, openstacks or vds")
    add("--from", dest="source", type=Path, metavar="DIR", help="an existing copy")
    add("--check", action="store_true", help="only verify what is there")

    torchrun = "torchrun --nproc-per-node=2 -m replication -- train … shares the work"
    add = verb("train", _train, f"train subnetworks; resumes; {torchrun}", output="")
    either = verbs.choices["train"].add_mutually_exclusive_group(required=True)
    either.add_argument("--ev", type=int, nargs="+", help="e.g. 1, or 1 2 3 --mode chained")
    either.add_argument("--recipe", type=Path, metavar="FILE", help="stages that make all six")
    add("--jobs", type=_positive, default=1, help="processes, with --recipe")
    add("--dataset", help="default: mini, or the recipe's")
    add("--init", type=Path, metavar="DIR", help="start from these weights")
    add("--inferred-from", type=Path, metavar="DIR", help="train on what these weights infer")
    add("--activation", help="default: the paper's for the EV")
    add("--patches", type=_positive, help="patches seen in all")
    add("--mode", choices=("teacher", "chained"))
    add("--batch-size", type=_positive)
    add("--learning-rate", type=float)
    add("--norm", type=int, choices=(1, 2), help="of the pixel loss; the paper has 1")
    add("--tv-weight", type=float, help="the paper's lambda; default 0.001")
    add("--schedule", choices=("constant", "cosine"))
    add("--frozen-norm", type=float, help="share of the steps after which statistics are fixed")
    add("--flips", action="store_true", default=None)
    add("--precision", choices=("float32", "tf32", "bfloat16"))
    add("--seed", type=int)
    add("--threads", type=_positive, help="CPU threads of torch")
    add("--compile", action="store_true", default=None, help="use torch.compile")

    add = verb("ablate", _ablate, "train and compare the contenders of a study; resumes", output="")
    add("study", choices=("table2", "table3", "sensitivity"))
    add("--dataset", default="mini")
    add("--patches", type=_positive, default=6000, help="patches seen by a network of a chain")
    add("--seeds", type=_positive, default=3)
    add("--jobs", type=_positive, default=1, help="processes that share the contenders")
    add("--contenders", nargs="+", help="some of them; all by default")
    add("--recipe", choices=("reference", "paper"), default="reference")
    add("--precision", choices=("auto", "float32", "tf32", "bfloat16"), default="auto")

    add = verb("run", _run, "execute notebooks", output="default: results/runs/PROFILE", clone=True)
    add("notebook", nargs="*", help="e.g. 06_ldr_stacks; none: all of the profile")
    add("--profile", default="quick", help="quick, open, full or paper")
    add("--from-notebook", metavar="NOTEBOOK", help="resume there")
    add("--jobs", type=_positive, default=1, help="executions of one notebook at once")
    add("-p", "--parameter", action="append", default=[], metavar="NAME=VALUE")

    add = verb("evaluate", _evaluate, "HDR images of all methods against the true ones", output="")
    add("dataset", help="mini, openstacks (or its hdrps, empa), vds")
    add("--split", default="test", choices=("train", "val", "test"))
    add("--weights", type=Path, metavar="DIR", help="default: the shipped weights")
    add("--jobs", type=_positive, help="processes; default: one per core")

    add = verb("compare", _compare, "score an HDR image against another (HDR-VDP-2, …)")
    add("test", type=Path, help=".hdr or .exr")
    add("reference", type=Path, help=".hdr or .exr of the same size")
    add("--photo", type=Path, help="LDR picture that the test was made from")
    add("--absolute", action="store_true", help="both files are in cd/m2: no scaling")
    add("-o", "--output", "--maps", dest="maps", type=_folder, metavar="DIR", help="for maps")

    add = verb("verify", _verify, "compare the shipped results with a run", clone=True)
    add("run", type=Path, nargs="?", help="a run's folder; by default a fresh run")
    add("--against", type=Path, metavar="DIR", help="another run instead of the shipped results")

    add = verb("report", _report, "regenerate the tables from the committed rows", clone=True)
    add("--check", action="store_true", help="only say whether they are up to date")
    return top


def _terminate(number: int, frame: object) -> NoReturn:
    for child in psutil.Process().children(recursive=True):  # Ctrl-C in a terminal reaches them too
        with suppress(psutil.NoSuchProcess):
            child.send_signal(signal.SIGINT)
    raise KeyboardInterrupt(signal.SIGTERM)


def main(arguments: list[str] | None = None) -> int:
    """Run it: 0, or 2 on bad input (one sentence), 130 on Ctrl-C, 143 on SIGTERM, 141 on a closed pipe."""
    for stream in (sys.stdout, sys.stderr):  # no name of a file ends in a traceback
        stream.reconfigure(errors="backslashreplace")
    with suppress(ValueError):  # signals are for the main thread only
        signal.signal(signal.SIGTERM, _terminate)
    try:
        args, unknown = parser().parse_known_args(arguments)
        if unknown:
            args.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
        if args.clone and not in_clone():
            raise ReplicationError(f"`{args.verb}` needs a clone of the repository.")
        if getattr(args, "device", None):
            from replication.fast import choose_device

            choose_device(args.device)
        args.call(args)
        sys.stdout.flush()
        return 0
    except KeyboardInterrupt as stop:
        status, how = (143, "stopped by SIGTERM") if stop.args else (130, "interrupted")
        message = f"{how}; no file is half-written."
    except BrokenPipeError:  # of `… | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except ReplicationError as error:
        status, message = 2, str(error)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        status, message = 2, f"{error.strerror or error}{where}."
    print("error:", " ".join(message.split()), file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
