"""The command line as a user meets it: what it passes on, what it says, and what it leaves behind."""

import itertools
import os
import re
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest

from replication.__main__ import main
from replication.evaluation import radiance
from replication.files import REFERENCE
from replication.hdr import io
from replication.report import verify
from replication.weights import weights_path
from tests.conftest import files, vds

VERBS = ("convert", "fetch", "train", "ablate", "run", "evaluate", "compare", "verify", "report")


def picture(height=48, width=61, seed=0):
    small = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST)


def program(command, **environment):
    """Start Python as a process of its own."""
    pipes = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
    command = [sys.executable, *map(str, command)]
    return subprocess.Popen(command, env=os.environ | environment, **pipes)


# ------------------------------------------------------------------------------- what is passed on


def test_convert_goes_on_after_a_bad_photo(tmp_path, weights_folder, capsys):
    io.write_png(tmp_path / "a.png", picture())
    (tmp_path / "bad.jpg").write_text("no picture")
    photos = [str(tmp_path / name) for name in ("bad.jpg", "a.png")]
    out = tmp_path / "new" / "results"
    assert main(["convert", *photos, "--output", str(out), "--weights", str(weights_folder)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: 1 of 2 photos could not be converted")
    stack = [f"a_stack/ev{ev:+d}.png" for ev in range(-3, 4)]
    assert files(out) == sorted(["a.hdr", "a.exr", "a_tonemapped.png", *stack])


def test_fetch_and_train(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("REPLICATION_DATA", str(tmp_path))
    vds(tmp_path / "copy", side=72)
    assert main(["fetch", "vds", "--from", str(tmp_path / "copy/vds")]) == 0
    assert f"vds in {tmp_path / 'vds'}: 42 files right\n" in capsys.readouterr().out
    assert main(["fetch", "vds", "--check"]) == 0
    capsys.readouterr()
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


CALLS = {
    "convert a.png -o out": ("reconstruct.convert", {"tile": 512}),
    "train --ev 1 --seed 4 -o out": ("recipes.train_subnetworks", {"dataset": "mini", "seed": 4}),
    "train --recipe r.yaml --jobs 2 -o out": ("recipes.run_recipe", {"dataset": None, "jobs": 2}),
    "ablate table2 -o out": ("evaluation.ablation.run_study", {"seeds": 3}),
    "run --output out -p ev=1": ("runs.run", {"parameters": {"ev": 1}}),
    "evaluate mini -o out": ("evaluation.radiance.evaluate", {"split": "test"}),
    "compare a.exr b.exr --absolute": ("evaluation.radiance.compare", {"absolute": True}),
    "verify": ("runs.run", {}),
}


@pytest.mark.parametrize("arguments", CALLS)
def test_the_device_and_other_options_reach_the_package(monkeypatch, arguments):
    (target, expected), calls = CALLS[arguments], []

    def recorded(*args, **options):
        calls.append(options)
        raise InterruptedError("reached")

    monkeypatch.setattr("replication.fast.choose_device", lambda name: calls.clear())
    monkeypatch.setattr(f"replication.{target}", recorded)
    assert main([*arguments.split(), "--device", "cuda:1"]) == 2
    assert (expected | {"device": "cuda:1"}).items() <= calls[0].items()


def test_verify_report_and_run_say_what_they_found(monkeypatch, capsys, tmp_path):
    found = verify.Findings(["table1.csv: 3 rows"], ["table4.csv: 2 of 3 rows differ"], [])
    monkeypatch.setattr(verify, "verify", lambda run, against: found)
    assert main(["verify", str(tmp_path)]) == 2
    told = capsys.readouterr()
    assert "differ  table4.csv" in told.out
    assert told.err == "error: 1 of the tables differ.\n"
    found.differ.clear()
    assert main(["verify", str(tmp_path)]) == 0
    monkeypatch.setattr(radiance, "compare", lambda test, reference, **_: {"psnr": 12.5})
    assert main(["compare", "a", "b", "--absolute"]) == 0
    assert re.search(r"psnr +12\.5000.*\nProtocol: .*as they are", capsys.readouterr().out)
    shipped = REFERENCE / "tables" / "table5.csv"
    monkeypatch.setattr(radiance, "evaluate", lambda *args, **_: shipped)
    assert main(["evaluate", "openstacks", "-o", "out"]) == 0
    told = capsys.readouterr().out
    assert told.endswith(f"Protocol: {radiance.PROTOCOL}.\nRows in {shipped}.\n")
    assert "hdrps, 10 test scenes\n" in told
    calls, documents = [], "replication.report.documents"
    monkeypatch.setattr(f"{documents}.update_tables", lambda *, check: calls.append(check))
    assert main(["report", "--check"]) == main(["report"]) == 0
    assert calls == [True, False]
    capsys.readouterr()
    monkeypatch.setattr("replication.runs.run", lambda *args, progress, **_: progress(args))
    monkeypatch.setattr(f"{documents}.write_run_report", lambda run: "REPORT.md")
    assert main(["run", "01_data"]) == 0
    told = "('quick', ['01_data'])\nTables beside the paper's: REPORT.md\n"
    assert capsys.readouterr().out == told


# ------------------------------------------------------------------------------------ what is said

SAID = """
                                            > required: VERB; see `python -m replication --help`
conver                                      > 'conver' convert
convert PHOTO -o EMPTY                      > -o/--output name of the folder is empty
convert PHOTO -o PHOTO                      > PHOTO is not a folder
convert PHOTO -o TMP/out --tile 0           > --tile '0'
convert PHOTO -o TMP/out --weights TMP/none > TMP/none
convert PHOTO -o TMP/out --device abacus    > abacus
convert PHOTO -o TMP/out --nonsense         > --nonsense; see `python -m replication convert --help`
fetch mini --check                          > TMP/data/mini
run --profile huge -o TMP/out               > no profile 'huge' open, paper, quick
run --outputs TMP/out                       > --outputs; see `python -m replication run --help`
run 99 -o TMP/out                           > no notebook '99' 06_ldr_stacks
run -o TMP/out -p ev                        > NAME=VALUE, not 'ev'
train -o TMP/out                            > --ev --recipe train --help
train -o TMP/out --recipe r.yaml --patches 5 > r.yaml decides patches
train -o TMP/out --ev 1                     > TMP/data fetch mini
ablate table2 -o TMP/out --jobs 0           > --jobs '0' ablate --help
evaluate vds -o TMP/out                     > fetch vds
compare PHOTO PHOTO                         > PHOTO .exr
verify --jobs 2                             > --jobs verify --help
verify TMP/none                             > TMP/none
"""


@pytest.mark.parametrize("line", SAID.strip("\n").splitlines())
def test_bad_input_is_said_in_one_line_and_leaves_nothing(line, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("REPLICATION_DATA", str(tmp_path / "data"))
    io.write_png(tmp_path / "photo.png", picture())
    line = line.replace("PHOTO", str(tmp_path / "photo.png")).replace("TMP", str(tmp_path))
    arguments, words = line.split(">")
    before = files(tmp_path)
    assert main([word.replace("EMPTY", "") for word in arguments.split()]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert re.fullmatch("error: .*[.)]", line)
    assert not [part for part in words.split() if part not in line]
    assert files(tmp_path) == before


@pytest.mark.parametrize("verb", VERBS)
def test_help_names_the_options_that_verbs_share(verb, capsys):
    with pytest.raises(SystemExit, match="0"):
        main([verb, "--help"])
    told = capsys.readouterr().out
    assert told.startswith(f"usage: python -m replication {verb}")
    assert ("--device" in told) == (verb not in ("fetch", "report"))
    assert ("-o DIR, --output" in told) == (verb not in ("fetch", "report", "verify"))


# ----------------------------------------------------------------------------- as a program


def test_terminals_pipes_and_the_system_do_no_harm():
    code = "import sys; from replication import __main__ as m; m._fetch = lambda args: {}; "
    code += "sys.exit(m.main(['fetch', 'mini']))"
    shown = program(["-c", code.format(r"print('Caf\xe9 \udce9')")], PYTHONIOENCODING="ascii")
    closed = program(["-c", code.format("print('x' * 10**6)")])
    missing = program(["-c", code.format("open('/no/where')")])
    closed.stdout.close()
    assert (closed.stderr.read(), closed.wait()) == (b"", 141)
    assert (shown.communicate(), shown.returncode) == ((rb"Caf\xe9 \udce9" + b"\n", b""), 0)
    assert missing.communicate()[1] == b"error: No such file or directory (/no/where).\n"


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_training_leaves_no_half_written_file(tmp_path, sent, status):
    vds(tmp_path, side=72)
    brief = {"--dataset": "vds", "--ev": 1, "--patches": 1000000, "--batch-size": 2}
    order = ["-m", "replication", "train", *itertools.chain(*brief.items()), "-o"]
    done = program([*order, tmp_path / "out"], REPLICATION_DATA=str(tmp_path), OMP_NUM_THREADS="1")
    deadline = time.monotonic() + 120
    while not (tmp_path / "out" / ".lock").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(2)  # it trains now
    done.send_signal(sent)
    out, errors = done.communicate(timeout=300)
    assert (done.returncode, out, len(errors.splitlines())) == (status, b"", 1)
    assert errors.startswith(b"error: ")
    assert not [name for name in files(tmp_path / "out") if ".part" in name]
