"""The package that pip installs from a wheel, without the repository around it."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from replication.files import ROOT
from replication.hdr import io


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Call an installed copy in an empty folder: arguments -> (status, output, errors, folder)."""
    wheels, target, here = (tmp_path_factory.mktemp(name) for name in ("wheel", "target", "here"))
    source = tmp_path_factory.mktemp("source") / "tree"  # building leaves traces in the tree
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "replication", source / "replication", ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--quiet"]
    options = ["--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "wheel", *options, "-w", wheels, source], check=True)
    (wheel,) = wheels.glob("*.whl")
    subprocess.run([*pip, "install", *options, "--target", target, wheel], check=True)
    environment = os.environ | {"PYTHONPATH": str(target), "OMP_NUM_THREADS": "1"}

    def call(*arguments):
        command = [sys.executable, "-m", "replication", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=here, env=environment)
        return done.returncode, done.stdout, done.stderr, here

    return call


def test_a_photo_is_converted_in_any_folder_and_verbs_that_need_a_clone_say_so(installed):
    *_, folder = installed("--version")
    picture = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    Image.fromarray(picture).save(folder / "photo.png")
    status, _, errors, _ = installed("convert", "photo.png", "-o", "out")
    assert (status, errors) == (0, "")
    hdr = io.read_hdr(folder / "out" / "photo.exr")
    assert hdr.shape == (40, 50, 3)
    assert np.isfinite(hdr).all()
    for verb in ("run", "verify", "report"):
        status, output, errors, _ = installed(verb)
        assert (status, output) == (2, "")
        assert errors == f"error: `{verb}` needs a clone of the repository.\n"
