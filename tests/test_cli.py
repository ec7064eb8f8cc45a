"""The command line as a user meets it: what it passes on, what it says, and what it leaves behind."""

import errno
import os
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest

from replication import __version__, runs
from replication.__main__ import main, parser
from replication.data.stacks import load_stacks
from replication.evaluation import radiance
from replication.evaluation import rows as report
from replication.hdr import io
from replication.reconstruct import infer_stack, merge_stack
from replication.report import documents, verify
from replication.weights import weights_path
from tests.test_profiles import vds

VERBS = ("convert", "fetch", "train", "ablate", "run", "evaluate", "compare", "verify", "report")
COMPUTING = [verb for verb in VERBS if verb not in ("fetch", "report")]


def picture(height=48, width=61, seed=0):
    small = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST)


def files(folder):
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return sorted(str(path.relative_to(folder)) for path in paths)


def results_of(name):
    frames = [f"{name}_stack/ev{ev:+d}.png" for ev in range(-3, 4)]
    return sorted([f"{name}.hdr", f"{name}.exr", f"{name}_tonemapped.png", *frames])


def program(*arguments, **environment):
    """Start the command line as a process of its own."""
    command = [sys.executable, "-m", "replication", *map(str, arguments)]
    pipes = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(command, text=True, env=os.environ | environment, **pipes)


# ------------------------------------------------------------------------------- what is passed on


def test_convert_writes_what_the_package_makes(tmp_path, weights_folder, chain, capsys):
    io.write_png(tmp_path / "a.png", picture())
    (tmp_path / "bad.jpg").write_text("no picture")
    photos = [str(tmp_path / name) for name in ("bad.jpg", "a.png")]
    out = tmp_path / "new" / "results"
    assert main(["convert", *photos, "--output", str(out), "--weights", str(weights_folder)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: 1 of 2 photos could not be converted")
    assert files(out) == results_of("a")
    hdr = merge_stack(infer_stack(picture(), chain))
    np.testing.assert_array_equal(io.read_hdr(out / "a.exr"), hdr)


def test_train_and_evaluate(tmp_path, monkeypatch, capsys, weights_folder):
    monkeypatch.setenv("REPLICATION_DATA", str(tmp_path))
    vds(tmp_path)
    brief = ["train", "--dataset", "vds", "--patches", "6", "--batch-size", "2", "--device", "cpu"]
    order = [*brief, "--ev", "-1", "-o", str(tmp_path / "out")]
    path = weights_path(-1, tmp_path / "out")
    for told in ("", " (was trained already)"):
        assert main(order) == 0
        assert capsys.readouterr().out == f"EV -1: {path}{told}\n"
    written = path.read_bytes()
    assert main([*order, "--seed", "4"]) == 2
    assert str(path) in capsys.readouterr().err
    assert path.read_bytes() == written
    order = ["evaluate", "vds", "-o", str(tmp_path / "out"), "--weights", str(weights_folder)]
    assert main([*order, "--jobs", "1"]) == 0
    told = capsys.readouterr().out
    assert "deep chain" in told
    assert f"Protocol: {radiance.PROTOCOL}." in told
    rows = report.read_rows(tmp_path / "out/table5.csv")
    assert set(rows["scene"]) == {stack.scene for stack in load_stacks("vds", "test")}


def test_compare_prints_every_score_with_its_protocol(tmp_path, capsys):
    paths = [str(tmp_path / name) for name in ("a.exr", "b.hdr")]
    for seed, path in enumerate(paths):
        io.write_hdr(path, picture(40, 50, seed) / np.float32(64) + np.float32(0.01))
    assert main(["compare", *paths, "--maps", str(tmp_path / "maps")]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    dark = np.zeros((40, 50, 3), np.uint8)
    expected, _, _ = radiance.scores(*map(io.read_hdr, paths), dark)
    for metric in ("psnr", "hdrvdp2_q", "pu21_psnr", "log_rmse_unclipped", "drim_loss"):
        assert float(lines[metric].split()[1]) == pytest.approx(expected[metric], abs=1e-4)
    assert "same mean luminance" in lines["Protocol:"]
    assert files(tmp_path / "maps") == ["a_drim.png", "a_hdrvdp2.png"]
    assert main(["compare", *paths, "--absolute"]) == 0
    assert "as they are" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "target", "expected"),
    [
        (["convert", "a.png", "-o", "out"], "reconstruct.convert", {"tile": 512, "device": "cuda:1"}),
        (["train", "--ev", "1", "-o", "out"], "recipes.train_subnetworks", {"device": "cuda:1"}),
        (
            ["train", "--recipe", "r.yaml", "--jobs", "2", "-o", "out"],
            "recipes.run_recipe",
            {"dataset": None, "jobs": 2, "device": "cuda:1"},
        ),
        (["ablate", "table2", "-o", "out"], "evaluation.ablation.run_study", {"device": "cuda:1"}),
        (["run", "-o", "out", "-p", "ev=1"], "runs.run", {"parameters": {"ev": 1}, "device": "cuda:1"}),
        (["evaluate", "mini", "-o", "out"], "evaluation.radiance.evaluate", {"device": "cuda:1"}),
        (["compare", "a.exr", "b.exr"], "evaluation.radiance.compare", {"device": "cuda:1"}),
        (["verify"], "runs.run", {"device": "cuda:1"}),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",
)
def test_the_device_and_other_options_reach_the_package(monkeypatch, arguments, target, expected):
    calls = []

    class Reached(Exception):
        pass

    def recorded(*args, **options):
        calls.append(options)
        raise Reached

    monkeypatch.setattr("replication.fast.choose_device", lambda name: calls.clear())
    monkeypatch.setattr(f"replication.{target}", recorded)
    with pytest.raises(Reached):
        main([*arguments, "--device", "cuda:1"])
    assert expected.items() <= calls[0].items()


def test_verify_says_what_differs(monkeypatch, capsys, tmp_path):
    found = verify.Findings(["table1.csv: 3 rows"], ["table4.csv: 2 of 3 rows differ"], [])
    monkeypatch.setattr(verify, "verify", lambda run, against: found)
    assert main(["verify", str(tmp_path)]) == 2
    told = capsys.readouterr()
    assert "differ  table4.csv" in told.out
    assert told.err == "error: 1 of the tables differ.\n"
    found.differ.clear()
    assert main(["verify", str(tmp_path)]) == 0


def test_report_and_fetch(tmp_path, monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(documents, "update_tables", lambda *, check: calls.append(check))
    assert main(["report", "--check"]) == main(["report"]) == 0
    assert calls == [True, False]
    monkeypatch.setenv("REPLICATION_DATA", str(tmp_path / "data"))
    vds(tmp_path / "copy")
    assert main(["fetch", "vds", "--from", str(tmp_path / "copy/vds")]) == 0
    assert f"vds in {tmp_path / 'data/vds'}: 42 files right\n" in capsys.readouterr().out
    assert main(["fetch", "vds", "--check"]) == 0


# ------------------------------------------------------------------------------------ what is said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("", "required: VERB; see `python -m replication --help`"),
        ("conver", "'conver' convert"),
        ("convert", "required: -o/--output; see `python -m replication convert --help`"),
        ("convert PHOTO -o EMPTY", "-o/--output name of the folder is empty"),
        ("convert PHOTO -o PHOTO", "PHOTO is not a folder"),
        ("convert TMP/none.jpg -o TMP/out", "TMP/none.jpg"),
        ("convert PHOTO -o TMP/out --tile 0", "--tile '0'"),
        ("convert PHOTO -o TMP/out --tile big", "--tile 'big' convert --help"),
        ("convert PHOTO -o TMP/out --weights TMP/none", "TMP/none"),
        ("convert PHOTO -o TMP/out --device abacus", "abacus"),
        ("convert PHOTO -o TMP/out --nonsense", "--nonsense; see `python -m replication convert --help`"),
        ("fetch imagenet", "'imagenet' mini, openstacks"),
        ("fetch mini --check", "TMP/data/mini"),
        ("fetch openstacks --from TMP/none", "TMP/none"),
        ("run --profile huge -o TMP/out", "no profile 'huge' open, paper, quick"),
        ("run --profile TMP/profile -o TMP/out", "no profile"),
        ("run --outputs TMP/out", "--outputs; see `python -m replication run --help`"),
        ("run 99 -o TMP/out", "no notebook '99' 06_ldr_stacks"),
        ("run -o TMP/out -p evs=1", "has a parameter evs"),
        ("run -o TMP/out -p ev", "NAME=VALUE, not 'ev'"),
        ("run -o TMP/out --jobs 0", "--jobs '0'"),
        ("train -o TMP/out", "--ev, --recipe train --help"),
        ("train -o TMP/out --ev 1 --recipe r.yaml", "--ev, --recipe"),
        ("train -o TMP/out --recipe r.yaml --patches 5", "r.yaml decides patches"),
        ("train -o TMP/out --ev 1", "TMP/data fetch mini"),
        ("train -o TMP/out --ev 0", "EV +0 is the photo itself"),
        ("train -o TMP/out --ev 1 --threads 0", "--threads '0'"),
        ("ablate table2 -o TMP/out --jobs 0", "--jobs '0' ablate --help"),
        ("ablate table9 -o TMP/out", "table9 table2"),
        ("evaluate vds -o TMP/out", "fetch vds"),
        ("evaluate vds -o TMP/out --jobs 0", "--jobs '0'"),
        ("compare PHOTO PHOTO", "PHOTO .exr"),
        ("compare TMP/a.exr TMP/b.exr", "TMP/a.exr"),
        ("verify --jobs 2", "--jobs verify --help"),
        ("verify TMP/none", "TMP/none"),
    ],
)
def test_bad_input_is_said_in_one_line_and_leaves_nothing(arguments, words, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("REPLICATION_DATA", str(tmp_path / "data"))
    io.write_png(tmp_path / "photo.png", picture())

    def filled(text):
        return text.replace("PHOTO", str(tmp_path / "photo.png")).replace("TMP", str(tmp_path))

    before = files(tmp_path)
    given = ["" if word == "EMPTY" else filled(word) for word in arguments.split()]
    assert main(given) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert line.endswith((".", ")"))
    for part in filled(words).split(" "):
        assert part in line
    assert files(tmp_path) == before


def test_every_verb_takes_both_spellings_of_output_and_computing_ones_a_device(capsys):
    needed = {"train": ["--ev", "1"], "ablate": ["table2"], "evaluate": ["mini"], "compare": ["a", "b"]}
    for verb in COMPUTING:
        for spelling in ("-o", "--output") if verb != "verify" else ():
            args = parser().parse_args([verb, *needed.get(verb, []), spelling, "out", "--device", "cpu"])
            assert str(getattr(args, "output", None) or args.maps) == "out"
    for words in (["--version"], ["--help"], *([verb, "--help"] for verb in VERBS)):
        with pytest.raises(SystemExit) as info:
            main(words)
        assert info.value.code == 0
        assert capsys.readouterr().out.startswith((__version__, "usage: python -m replication"))


def test_system_errors_are_said_too(monkeypatch, capsys):
    def refuse(*args, **options):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/some/where")

    monkeypatch.setattr("replication.data.fetch.fetch", refuse)
    assert main(["fetch", "mini"]) == 2
    assert capsys.readouterr().err == "error: Permission denied (/some/where).\n"


# ----------------------------------------------------------------------------- as a program


def stubbed(statement, **environment):
    """Run `fetch` as a program, with a statement in its place; its standard output is closed or read."""
    code = f"import sys; from replication import __main__ as m; m._fetch = lambda args: {statement};"
    command = [sys.executable, "-c", f"{code} sys.exit(m.main(['fetch', 'mini']))"]
    pipes = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(command, env=os.environ | environment, **pipes)


def test_names_that_the_terminal_cannot_show_do_no_harm():
    done = stubbed(r"print('Caf\xe9 \udce9')", PYTHONIOENCODING="ascii")
    assert done.communicate() == (rb"Caf\xe9 \udce9" + b"\n", b"")
    assert done.returncode == 0


def test_a_closed_pipe_is_quiet():
    done = stubbed("print('x' * 10**6)")
    done.stdout.close()
    assert (done.stderr.read(), done.wait()) == (b"", 141)


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_training_leaves_no_half_written_file(tmp_path, sent, status):
    vds(tmp_path)
    options = ["--dataset", "vds", "--ev", "1", "--patches", "1000000", "--batch-size", "2"]
    environment = {"REPLICATION_DATA": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = program("train", *options, "-o", tmp_path / "out", **environment)
    deadline = time.monotonic() + 120
    while not (tmp_path / "out" / ".lock").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(2)  # it trains now
    done.send_signal(sent)
    out, errors = done.communicate(timeout=60)
    assert (done.returncode, out, len(errors.splitlines())) == (status, "", 1)
    assert errors.startswith("error: ")
    assert not [name for name in files(tmp_path / "out") if ".part" in name]


def test_run_prints_its_progress_and_where_the_report_is(tmp_path, monkeypatch, capsys):
    def run(profile, notebooks, *, progress, **options):
        progress(f"{profile} {notebooks}")
        return tmp_path

    monkeypatch.setattr(runs, "run", run)
    monkeypatch.setattr(documents, "write_run_report", lambda run: "REPORT.md")
    assert main(["run", "01_data"]) == 0
    assert capsys.readouterr().out == "quick ['01_data']\nTables beside the paper's: REPORT.md\n"
