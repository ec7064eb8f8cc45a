"""The command line: one verb per thing that a user wants to do."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import NoReturn

from replication import __version__
from replication.files import ReplicationError

EXIT_BAD_INPUT, EXIT_INTERRUPTED = 2, 130


def _fetch(args: argparse.Namespace) -> None:
    from replication.data.fetch import fetch

    print(fetch(args.dataset, source_dir=args.source, check=args.check))


def _train(args: argparse.Namespace) -> None:
    from replication.commands import train_command
    from replication.weights import weights_path

    given = {k: v for k, v in vars(args).items() if k not in ("call", "verb") and v is not None}
    there = all(weights_path(ev, args.output).exists() for ev in args.ev)
    for ev, path in train_command(**given).items():
        if os.environ.get("RANK", "0") == "0":  # of the processes of torchrun, one tells
            print(f"EV {ev:+d}: {path}{' (was trained already)' if there else ''}")


def _ablate(args: argparse.Namespace) -> None:
    from replication.commands import ablate_command

    ablate_command(
        args.study,
        args.output,
        dataset=args.dataset,
        patches=args.patches,
        seeds=args.seeds,
        jobs=args.jobs,
        contenders=args.contenders,
        recipe=args.recipe,
        precision=args.precision,
    )


def _run(args: argparse.Namespace) -> None:
    from replication import runs
    from replication.report import documents

    output = runs.run(
        args.profile,
        args.notebook or None,
        from_notebook=args.from_notebook,
        jobs=args.jobs,
        output=args.output,
        parameters=runs.parse_parameters(args.parameter),
    )
    if report := documents.write_run_report(output):
        print(f"Tables beside the paper's: {report}")


def _convert(args: argparse.Namespace) -> None:
    from replication.commands import convert_command

    convert_command(
        args.photo,
        args.output,
        weights=args.weights,
        method=args.method,
        tile=args.tile,
        stride=args.stride,
    )


def _evaluate(args: argparse.Namespace) -> None:
    from replication.commands import evaluate_command

    given = {k: v for k, v in vars(args).items() if k not in ("call", "verb")}
    print(f"Rows in {evaluate_command(**given)}.")


def _compare(args: argparse.Namespace) -> None:
    from replication.commands import compare_command

    compare_command(**{k: v for k, v in vars(args).items() if k not in ("call", "verb")})


def _report(args: argparse.Namespace) -> None:
    from replication.commands import report_command

    report_command(check=args.check, score=args.score)


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are told as all others are: on one line."""

    def error(self, message: str) -> NoReturn:
        raise ReplicationError(f"{message}; see `{self.prog} --help`.")


def _verify(args: argparse.Namespace) -> None:
    from replication.commands import verify_command

    print(verify_command(args.run, against=args.against, jobs=args.jobs))


def _docs(args: argparse.Namespace) -> None:
    from replication import site

    pages = site.build(args.output)
    print(f"{len(pages)} pages: {args.output / 'index.html'}")


def parser() -> argparse.ArgumentParser:
    """Build the parser; each verb's help says what it reads and writes."""
    top = _Parser(prog="python -m replication", description=__doc__)
    top.add_argument("--version", action="version", version=__version__)
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")

    verb = verbs.add_parser("convert", help="photos to HDR images")
    verb.add_argument("photo", nargs="*", type=Path, help="LDR photos; none: a built-in photograph")
    verb.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    verb.add_argument("--weights", type=Path, metavar="DIR", help="default: the shipped weights")
    verb.add_argument("--method", default="tiled", choices=("tiled", "whole", "patches"))
    verb.add_argument("--tile", type=int, default=512, help="tile side in pixels")
    verb.add_argument("--stride", type=int, default=10, help="of --method patches; the paper has 1")
    verb.set_defaults(call=_convert)

    verb = verbs.add_parser("fetch", help="get a data set, every file verified")
    verb.add_argument("dataset", help="mini, openstacks or vds")
    verb.add_argument("--from", dest="source", type=Path, metavar="DIR", help="an existing copy")
    verb.add_argument("--check", action="store_true", help="only verify what is there")
    verb.set_defaults(call=_fetch)

    verb = verbs.add_parser(
        "train",
        help="train one subnetwork, or an arm of the chain",
        epilog="Several processes: torchrun --nproc-per-node=2 -m replication -- train …",
    )
    verb.add_argument(
        "--ev", type=int, nargs="+", required=True, help="e.g. 1, or 1 2 3 --mode chained"
    )
    verb.add_argument("--dataset", default="mini")
    verb.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    verb.add_argument("--init", type=Path, metavar="DIR", help="start from these weights")
    verb.add_argument(
        "--inferred-from", type=Path, metavar="DIR", help="train on images that these weights infer"
    )
    verb.add_argument("--activation", help="default: the paper's for the EV")
    verb.add_argument("--patches", type=int, help="patch visits in all")
    verb.add_argument("--mode", choices=("teacher", "chained"))
    verb.add_argument("--batch-size", type=int)
    verb.add_argument("--learning-rate", type=float)
    verb.add_argument("--norm", type=int, choices=(1, 2), help="of the pixel loss; the paper has 1")
    verb.add_argument("--tv-weight", type=float, help="the paper's lambda; default 0.001")
    verb.add_argument("--schedule", choices=("constant", "cosine"))
    verb.add_argument("--frozen-norm", type=float)
    verb.add_argument("--flips", action="store_true", default=None)
    verb.add_argument("--precision", choices=("float32", "tf32", "bfloat16"))
    verb.add_argument("--seed", type=int)
    verb.add_argument("--device", help="cpu or cuda; default: cuda where there is one")
    verb.add_argument("--threads", type=int, help="CPU threads of torch")
    verb.add_argument("--compile", action="store_true", help="use torch.compile")
    verb.set_defaults(call=_train)

    verb = verbs.add_parser("ablate", help="train and compare the contenders of a study")
    verb.add_argument("study", choices=("table2", "table3", "sensitivity"))
    verb.add_argument("-o", "--output", type=Path, required=True)
    verb.add_argument("--dataset", default="mini")
    verb.add_argument("--patches", type=int, default=6000, help="visits per network of a chain")
    verb.add_argument("--seeds", type=int, default=3)
    verb.add_argument("--jobs", type=int, default=1, help="processes that share the contenders")
    verb.add_argument("--contenders", nargs="+", help="some of them; all by default")
    verb.add_argument("--recipe", choices=("reference", "paper"), default="reference")
    verb.add_argument("--precision", choices=("float32", "tf32", "bfloat16"), default="bfloat16")
    verb.set_defaults(call=_ablate)

    verb = verbs.add_parser("run", help="execute the notebooks headlessly")
    verb.add_argument("notebook", nargs="*", help="e.g. 06_ldr_stacks; none: all of the profile")
    verb.add_argument("--profile", default="quick")
    verb.add_argument("--from-notebook", metavar="NOTEBOOK", help="resume there")
    verb.add_argument("--jobs", type=int, default=1, help="processes for the six EVs")
    verb.add_argument("--output", type=Path, metavar="DIR", help="default: results/runs/PROFILE")
    verb.add_argument("-p", "--parameter", action="append", default=[], metavar="NAME=VALUE")
    verb.set_defaults(call=_run)

    verb = verbs.add_parser("evaluate", help="all methods' HDR images against the true ones")
    verb.add_argument("dataset", help="mini, openstacks (or its hdrps, empa), vds")
    verb.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    verb.add_argument("--split", default="test", choices=("train", "val", "test"))
    verb.add_argument("--weights", type=Path, metavar="DIR", help="default: the shipped weights")
    verb.add_argument("--jobs", type=int, help="processes; default: one per core")
    verb.set_defaults(call=_evaluate)

    verb = verbs.add_parser("compare", help="score an HDR image against another (HDR-VDP-2, …)")
    verb.add_argument("test", type=Path, help=".hdr or .exr")
    verb.add_argument("reference", type=Path, help=".hdr or .exr of the same size")
    verb.add_argument("--photo", type=Path, help="LDR picture that the test was made from")
    verb.add_argument("--absolute", action="store_true", help="both files are in cd/m2: no scaling")
    verb.add_argument("--maps", type=Path, metavar="DIR", help="write maps of what is seen there")
    verb.set_defaults(call=_compare)

    verb = verbs.add_parser("verify", help="compare the shipped results with a fresh run")
    verb.add_argument("run", type=Path, nargs="?", help="a run's folder; by default a fresh run")
    verb.add_argument("--against", type=Path, help="another run's folder, not the shipped results")
    verb.add_argument("--jobs", type=int, default=1)
    verb.set_defaults(call=_verify)

    verb = verbs.add_parser("docs", help="README, report and notebooks as a static site")
    verb.add_argument("-o", "--output", type=Path, default=Path("site"))
    verb.set_defaults(call=_docs)

    verb = verbs.add_parser("report", help="regenerate the tables from the committed rows")
    verb.add_argument("--check", action="store_true", help="only say whether they are up to date")
    verb.add_argument("--score", action="store_true", help="score the shipped weights anew first")
    verb.set_defaults(call=_report)
    return top


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; 0 on success, 2 on bad input (one line on stderr), 130 on Ctrl-C."""
    try:
        args = parser().parse_args(arguments)
        args.call(args)
        return 0
    except KeyboardInterrupt:
        status, message = EXIT_INTERRUPTED, "interrupted; no file is half-written."
    except ReplicationError as error:
        status, message = EXIT_BAD_INPUT, str(error)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        status, message = EXIT_BAD_INPUT, f"{error.strerror or error}{where}."
    print("error:", " ".join(message.split()), file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
