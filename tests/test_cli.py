"""The command line as a user meets it: what it writes, what it says, and what it leaves behind."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import nbformat
import numpy as np
import OpenEXR
import pytest
import torch
from PIL import Image

from replication import __version__, commands, runs
from replication.__main__ import main
from replication.data import stacks
from replication.data.stacks import STACK_EVS as EVS
from replication.data.stacks import dataset_hash, has_split, load_stacks
from replication.evaluation import radiance as comparison
from replication.evaluation import rows as report
from replication.files import ROOT
from replication.hdr import io, reinhard
from replication.metrics.hdrvdp2 import hdrvdp2
from replication.model import SubNetwork
from replication.reconstruct import infer_stack, merge_stack
from replication.train import Recipe, read_log
from replication.weights import read_safetensors, save_weights, weights_path


def picture(height=48, width=61, seed=0, dtype=np.uint8):
    top = np.iinfo(dtype).max
    small = np.random.default_rng(seed).integers(0, top, (5, 6, 3), dtype, endpoint=True)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST)


def save(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **options)
    return path


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def convert(photos, output, weights, *options):
    photos = [str(photo) for photo in photos]
    return main(["convert", *photos, "-o", str(output), "--weights", str(weights), *options])


def results_of(name):
    frames = [f"{name}_stack/ev{ev:+d}.png" for ev in EVS]
    return {f"{name}.hdr", f"{name}.exr", f"{name}_tonemapped.png", *frames}


def check_results(output, name, photo, chain):
    """What is there about one photo, against the package itself on the upright 8-bit photo."""
    assert results_of(name) <= set(files(output))
    truth = infer_stack(photo, chain)
    for ev in EVS:
        frame = io.read_image(output / f"{name}_stack" / f"ev{ev:+d}.png")
        np.testing.assert_array_equal(frame, truth[ev], err_msg=f"EV {ev:+d}")
    np.testing.assert_array_equal(truth[0], photo)
    hdr = merge_stack(truth)
    np.testing.assert_array_equal(io.read_hdr(output / f"{name}.exr"), hdr)
    rgbe = io.read_hdr(output / f"{name}.hdr")
    assert (np.abs(rgbe - hdr) <= hdr.max(axis=2, keepdims=True) / 128).all()
    tone_mapped = io.read_image(output / f"{name}_tonemapped.png")
    np.testing.assert_array_equal(tone_mapped, np.rint(255 * reinhard.tone_map(hdr)))


# ------------------------------------------------------------------------------------ convert


def rgb(path):
    return save(path / "a.png", picture()), picture()


def jpeg(path):
    save(path / "a.jpg", picture(), quality=90)
    return path / "a.jpg", np.array(Image.open(path / "a.jpg"))


def deep(path):
    image = picture(dtype=np.uint16)
    cv2.imwrite(str(path / "a.png"), image[..., ::-1])
    return path / "a.png", np.rint(image / 257).astype(np.uint8)


def grey(path):
    return save(path / "a.png", picture()[..., 0]), picture()[..., [0, 0, 0]]


def deep_grey(path):
    image = picture(dtype=np.uint16)[..., 0]
    cv2.imwrite(str(path / "a.png"), image)
    return path / "a.png", np.rint(image[..., None].repeat(3, 2) / 257).astype(np.uint8)


def alpha(path):
    image = np.dstack([picture(), np.arange(61, dtype=np.uint8)[None].repeat(48, 0)])
    return save(path / "a.png", image), picture()


def turned(path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to the right
    save(path / "a.png", picture(), exif=exif)
    return path / "a.png", np.rot90(picture(), -1)


def one_pixel(path):
    image = np.array([[[200, 90, 10]]], np.uint8)
    return save(path / "a.png", image), image


def odd(path):
    return save(path / "a.png", picture(53, 37)), picture(53, 37)


def black(path):
    image = np.zeros((9, 12, 3), np.uint8)
    return save(path / "a.png", image), image


@pytest.mark.parametrize(
    "make", [rgb, jpeg, deep, grey, deep_grey, alpha, turned, one_pixel, odd, black]
)
def test_convert(make, tmp_path, weights_folder, chain, capsys):
    photo, expected = make(tmp_path)
    output = tmp_path / "new" / "results"
    assert convert([photo], output, weights_folder) == 0
    check_results(output, "a", expected, chain)
    assert files(output) == sorted(results_of("a"))
    told = capsys.readouterr()
    assert told.err == ""
    assert told.out == f"a: {output}/a.hdr, .exr, _tonemapped.png, _stack/\n"


def test_several_photos_with_a_bad_one_among_them(tmp_path, weights_folder, chain, capsys):
    photos = [save(tmp_path / f"{name}.png", picture(seed=i)) for i, name in enumerate("ab")]
    odd_name = save(tmp_path / "Café 2. Stock.v2.png", picture(20, 30))
    bad = tmp_path / "bad.jpg"
    bad.write_text("no picture")
    output = tmp_path / "results"
    assert convert([photos[0], bad, photos[1], odd_name], output, weights_folder) == 2
    for i, name in enumerate("ab"):
        check_results(output, name, picture(seed=i), chain)
    check_results(output, "Café 2. Stock.v2", picture(20, 30), chain)
    assert len(files(output)) == 30
    told = capsys.readouterr()
    assert [line.split(":")[0] for line in told.out.splitlines()] == [
        "a",
        "bad",
        "b",
        "Café 2. Stock.v2",
    ]
    assert told.err.splitlines() == [
        f"error: 1 of 4 photos could not be converted: {bad} is not an image that can be read, or "
        "is damaged or incomplete."
    ]


def test_earlier_results_are_replaced(tmp_path, weights_folder, chain):
    for seed in (0, 1):
        photo = save(tmp_path / "a.png", picture(seed=seed))
        assert convert([photo], tmp_path / "results", weights_folder) == 0
        check_results(tmp_path / "results", "a", picture(seed=seed), chain)
    assert files(tmp_path / "results") == sorted(results_of("a"))


def test_method_and_stride_are_passed_on(tmp_path, weights_folder, chain):
    photo = save(tmp_path / "a.png", picture(66, 70))
    options = ("--method", "patches", "--stride", "6")
    assert convert([photo], tmp_path, weights_folder, *options) == 0
    truth = infer_stack(picture(66, 70), chain, method="patches", stride=6)
    for ev in EVS:
        np.testing.assert_array_equal(
            io.read_image(tmp_path / "a_stack" / f"ev{ev:+d}.png"), truth[ev]
        )


def test_without_a_photo_the_built_in_one_is_converted(tmp_path, weights_folder):
    assert convert([], tmp_path, weights_folder) == 0
    assert files(tmp_path) == sorted(results_of("coffee"))
    assert io.read_hdr(tmp_path / "coffee.exr").shape == (400, 600, 3)
    np.testing.assert_array_equal(
        io.read_image(tmp_path / "coffee_stack" / "ev+0.png"), commands.coffee()
    )


def test_interrupted_while_writing(tmp_path, weights_folder, chain, monkeypatch, capsys):
    """Ctrl-C in the middle of the second photo's files: the first is whole, nothing else there."""
    photos = [save(tmp_path / f"{name}.png", picture(seed=i)) for i, name in enumerate("abc")]
    write, calls = io.write_png, []

    def interrupted(path, image):
        calls.append(path)
        if len(calls) == 12:  # eight pictures a photo
            raise KeyboardInterrupt
        write(path, image)

    monkeypatch.setattr(io, "write_png", interrupted)
    assert convert(photos, tmp_path / "results", weights_folder) == 130
    assert calls[-1].parent.name == "b_stack"
    check_results(tmp_path / "results", "a", picture(seed=0), chain)
    assert files(tmp_path / "results") == sorted(results_of("a"))
    assert capsys.readouterr().err == "error: interrupted; no file is half-written.\n"


def test_interrupted_while_inferring(tmp_path, weights_folder, monkeypatch):
    def interrupted(*args, **options):
        options["progress"](1)
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "infer_stack", interrupted)
    photo = save(tmp_path / "a.png", picture())
    assert convert([photo], tmp_path / "results", weights_folder) == 130
    assert files(tmp_path) == ["a.png"]


# ---------------------------------------------------------------------------------- bad input


def tiny_vds(root, train=2, height=66, width=75):
    """The paper's tree, small: with two scenes, train-t01 or train-t02 is left for training."""
    for number in range(1, train + 1):
        light = picture(height, width, seed=number) / 255
        for ev in EVS:
            image = np.rint(255 * np.clip(light * 2.0**ev, 0, 1)).astype(np.uint8)
            name = f"t{number:02d}"
            save(root / "vds/train_set" / name / f"{name}_{ev}EV_true.jpg.png", image)
    return root


def tiny_mini(root, monkeypatch):
    """One scene of mini with its own manifests."""
    for ev in EVS:
        save(root / "mini/hall_az000" / f"ev{ev:+d}.png", picture())
    rows = [f"hall_az000,hall,{ev},hall_az000/ev{ev:+d}.png" for ev in EVS]
    rows.append("hall_az000,hall,radiance,hall_az000/radiance.exr")
    (root / "mini_frames.csv").write_text("\n".join(["scene,panorama,ev,path", *rows]))
    (root / "mini.csv").write_text("panorama,split\nhall,train\n")
    monkeypatch.setattr(stacks, "MANIFESTS", root)


def tiny_notebook(root, monkeypatch):
    """A profile `tiny` with one notebook `first`, which has the parameter `ev`."""
    cell = nbformat.v4.new_code_cell("output_dir = ''\nev = 1", metadata={"tags": ["parameters"]})
    (root / "profiles").mkdir()
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), root / "first.ipynb")
    (root / "profiles/tiny.yaml").write_text(
        "description: for tests\ndataset: none\nminutes: 1\nnotebooks: {first: {}}\n"
    )
    monkeypatch.setitem(runs.run.__kwdefaults__, "notebook_folder", root)


BAD_INPUT = {}


def bad_input(case):
    """Register a case: gets a place, returns the arguments and what the message must say."""
    BAD_INPUT[case.__name__.replace("_", " ")] = case
    return case


def photo_case(name, content=None):
    def case(at):
        if content is not None:
            (at.tmp / name).write_bytes(content())
        return [*at.convert, at.tmp / name], [at.tmp / name]

    return case


def encoded(kind):
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    data = cv2.imencode(kind, image)[1].tobytes()
    return data[: len(data) // 2]


BAD_INPUT["not an image"] = photo_case("a.jpg", lambda: b"this is a text")
BAD_INPUT["empty file"] = photo_case("a.png", bytes)
BAD_INPUT["truncated JPEG"] = photo_case("a.jpg", lambda: encoded(".jpg"))
BAD_INPUT["truncated PNG"] = photo_case("a.png", lambda: encoded(".png"))
BAD_INPUT["missing file"] = photo_case("a.jpg")


@bad_input
def directory_as_photo(at):
    (at.tmp / "a.jpg").mkdir()
    return [*at.convert, at.tmp / "a.jpg"], [at.tmp / "a.jpg", "is a directory"]


@bad_input
def radiance_map_as_photo(at):
    io.write_hdr(at.tmp / "a.hdr", np.ones((4, 4, 3), np.float32))
    return [*at.convert, at.tmp / "a.hdr"], [at.tmp / "a.hdr", "not an image"]


@bad_input
def two_photos_of_one_name(at):
    photos = [save(at.tmp / name / "a.png", picture()) for name in ("x", "y")]
    return [*at.convert, *photos], ["Two photos are named 'a'"]


@bad_input
def several_photos_all_bad(at):
    photos = [at.tmp / "a.jpg", at.tmp / "b.jpg"]
    return [*at.convert, *photos], ["2 of 2 photos", *photos]


@bad_input
def impossible_tile(at):
    return [*at.convert, at.photo, "--tile", "0"], ["tile and stride must be positive, not 0"]


@bad_input
def tile_that_is_no_number(at):
    return [*at.convert, at.photo, "--tile", "big"], ["argument --tile", "'big'", "--help"]


@bad_input
def no_weights_folder(at):
    return [*at.convert, at.photo, "--weights", at.tmp / "none"], [at.tmp / "none"]


@bad_input
def folder_without_weights(at):
    (at.tmp / "empty").mkdir()
    path = at.tmp / "empty" / "ev+1.safetensors"
    return [*at.convert, at.photo, "--weights", path.parent], ["No weights", path]


@bad_input
def truncated_weights(at):
    path = weights_path(-2, at.copy_weights())
    path.write_bytes(path.read_bytes()[:5000])
    return [*at.convert, at.photo, "--weights", path.parent], [path, "no readable safetensors"]


@bad_input
def weights_of_another_network(at):
    path = weights_path(3, at.copy_weights())
    save_weights(SubNetwork(kernels=8), path, {})
    return [*at.convert, at.photo, "--weights", path.parent], [path, "does not fit the network"]


@bad_input
def output_is_a_file(at):
    at.output.write_text("mine")
    return [*at.convert, at.photo], [at.output, "is not a folder"]


@bad_input
def output_below_a_file(at):
    below = at.photo / "results"
    return ["convert", at.photo, "-o", below, "--weights", at.weights], [below, "is not a folder"]


@bad_input
def disk_full_at_the_end_of_a_file(at):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    at.monkeypatch.setattr(os, "replace", full)
    return [*at.convert, at.photo], [at.output, "No space left on device"]


@bad_input
def disk_full_within_a_file(at):
    def full(path, data):
        with open(path, "wb") as stream:
            stream.write(data[:100])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    at.monkeypatch.setattr(Path, "write_bytes", full)
    return [*at.convert, at.photo], [at.output, "No space left on device"]


@bad_input
def unknown_data_set_to_fetch(at):
    return ["fetch", "imagenet"], ["Unknown data set 'imagenet'", "mini, openstacks"]


@bad_input
def fetch_from_a_missing_copy(at):
    return ["fetch", "openstacks", "--from", at.tmp / "none"], [at.tmp / "none"]


@bad_input
def check_of_absent_data(at):
    return ["fetch", "mini", "--check"], [at.tmp / "data/mini", "fetch mini"]


@bad_input
def unknown_profile(at):
    tiny_notebook(at.tmp, at.monkeypatch)
    return ["run", "--profile", "huge", "--output", at.output], ["no profile 'huge'", "tiny"]


@bad_input
def unknown_notebook(at):
    tiny_notebook(at.tmp, at.monkeypatch)
    return ["run", "99", "--profile", "tiny", "--output", at.output], ["no notebook '99'", "first"]


@bad_input
def unknown_parameter(at):
    tiny_notebook(at.tmp, at.monkeypatch)
    arguments = ["run", "--profile", "tiny", "--output", at.output, "-p", "evs=1"]
    return arguments, ["has a parameter evs"]


@bad_input
def parameter_without_a_value(at):
    return ["run", "-p", "ev"], ["NAME=VALUE, not 'ev'"]


@bad_input
def train_on_absent_data(at):
    return [*at.train, "--ev", "1"], ["data set mini is not in", at.tmp / "data", "fetch mini"]


@bad_input
def train_on_a_stack_with_a_missing_exposure(at):
    root = tiny_vds(at.tmp / "data", train=1)
    (root / "vds/train_set/t01/t01_-2EV_true.jpg.png").unlink()
    return [*at.train, "--dataset", "vds", "--ev", "1"], ["EV -2 picture of vds scene train-t01"]


@bad_input
def train_on_a_stack_with_a_damaged_exposure(at):
    root = tiny_vds(at.tmp / "data", train=1)
    path = root / "vds/train_set/t01/t01_3EV_true.jpg.png"
    path.write_bytes(path.read_bytes()[:60])
    return [*at.train, "--dataset", "vds", "--ev", "1"], ["EV +3 picture of vds scene", path]


@bad_input
def train_on_a_radiance_map_with_NaN(at):
    tiny_mini(at.tmp / "data", at.monkeypatch)
    path = at.tmp / "data/mini/hall_az000/radiance.exr"
    nan = np.full((48, 61, 3), np.nan, np.float32)
    OpenEXR.File({"type": OpenEXR.scanlineimage}, {"RGB": nan}).write(str(path))
    return [*at.train, "--ev", "1"], ["radiance of mini scene hall_az000 has NaN"]


@bad_input
def train_on_a_foreign_radiance_map(at):
    tiny_mini(at.tmp / "data", at.monkeypatch)
    path = at.tmp / "data/mini/hall_az000/radiance.exr"
    path.write_text("this is a text")
    return [*at.train, "--ev", "1"], ["radiance of mini scene hall_az000", path]


@bad_input
def train_on_pictures_smaller_than_a_patch(at):
    tiny_vds(at.tmp / "data", train=1, height=30)
    return [*at.train, "--dataset", "vds", "--ev", "1"], ["No training image holds a 64x64 patch"]


@bad_input
def train_into_a_file(at):
    return ["train", "-o", at.photo, "--ev", "1"], [at.photo, "is not a folder"]


@bad_input
def train_ev_0(at):
    return [*at.train, "--ev", "0"], ["EV +0 is the photo itself"]


@bad_input
def train_a_chain_with_a_gap(at):
    return [*at.train, "--ev", "1", "3", "--mode", "chained"], ["EV +3 has no link"]


@bad_input
def train_without_ev(at):
    return [*at.train], ["required: --ev"]


@bad_input
def train_on_an_unknown_device(at):
    return [*at.train, "--ev", "1", "--device", "abacus"], ["Unknown device 'abacus'"]


@bad_input
def train_with_an_impossible_learning_rate(at):
    return [*at.train, "--ev", "1", "--learning-rate", "nan"], ["learning_rate", "nan"]


@bad_input
def train_with_an_unknown_activation(at):
    tiny_vds(at.tmp / "data", train=1)
    arguments = [*at.train, "--dataset", "vds", "--ev", "1", "--activation", "swish"]
    return arguments, ["Unknown activation 'swish'", "prelu, mprelu"]


@bad_input
def train_with_impossible_threads(at):
    return [*at.train, "--ev", "1", "--threads", "0"], ["threads must be positive, not 0"]


@bad_input
def train_from_missing_weights(at):
    return [*at.train, "--ev", "1", "--init", at.tmp], [weights_path(1, at.tmp)]


@bad_input
def train_on_images_of_missing_weights(at):
    tiny_vds(at.tmp / "data", train=1)
    arguments = [*at.train, "--dataset", "vds", "--ev", "-2", "--inferred-from", at.tmp]
    return arguments, [weights_path(-1, at.tmp)]


def save_hdr(path, image):
    io.write_hdr(path, image.astype(np.float32))
    return path


def light(height=40, width=50, seed=0):
    return picture(height, width, seed) / np.float32(64) + np.float32(0.01)


@bad_input
def compare_with_a_missing_file(at):
    return ["compare", save_hdr(at.tmp / "a.exr", light()), at.tmp / "b.exr"], [at.tmp / "b.exr"]


@bad_input
def compare_images_of_other_sizes(at):
    one, two = (save_hdr(at.tmp / f"{h}.exr", light(h)) for h in (40, 41))
    return ["compare", one, two], [one, "50x40", two, "50x41"]


@bad_input
def compare_with_a_photo_of_another_size(at):
    one = save_hdr(at.tmp / "a.exr", light())
    return ["compare", one, one, "--photo", at.photo], [at.photo, "61x48", "50x40"]


@bad_input
def compare_a_photo(at):
    return ["compare", at.photo, at.photo], [at.photo, ".exr"]


@bad_input
def compare_images_that_are_too_small(at):
    one = save_hdr(at.tmp / "a.exr", light(16))
    return ["compare", one, one], ["17"]


@bad_input
def compare_holes(at):
    image = light()
    one = save_hdr(at.tmp / "a.exr", image)
    image[3, 4] = np.nan
    OpenEXR.File({"compression": OpenEXR.ZIP_COMPRESSION}, {"RGB": image.astype(np.float32)}).write(
        str(at.tmp / "b.exr")
    )
    return ["compare", at.tmp / "b.exr", one], ["NaN"]


@bad_input
def compare_photo_and_absolute(at):
    one = save_hdr(at.tmp / "a.exr", light())
    return ["compare", one, one, "--photo", at.photo, "--absolute"], ["photo", "absolute"]


@bad_input
def evaluate_an_unknown_data_set(at):
    return ["evaluate", "imagenet", "-o", at.output], ["imagenet"]


@bad_input
def evaluate_a_data_set_that_is_not_there(at):
    return ["evaluate", "vds", "-o", at.output], ["fetch vds"]


@bad_input
def evaluate_an_empty_split(at):
    tiny_vds(at.tmp / "data")
    return ["evaluate", "vds", "-o", at.output], ["no scenes", "test"]


@bad_input
def evaluate_with_an_expandnet_that_is_none(at):
    return ["evaluate", "vds", "-o", at.output, "--expandnet", at.tmp], [at.tmp, "model.py"]


@bad_input
def evaluate_in_no_process(at):
    tiny_vds(at.tmp / "data")
    arguments = ["evaluate", "vds", "-o", at.output, "--split", "train", "--jobs", "0"]
    return arguments, ["processes", "0"]


@bad_input
def unknown_verb(at):
    return ["conver"], ["'conver'", "convert"]


@bad_input
def nothing_at_all(at):
    return [], ["required: VERB"]


@pytest.fixture
def at(tmp_path, monkeypatch, weights_folder):
    """A place with a photo, weights, an output folder to be, and data sets of its own."""
    monkeypatch.setenv("REPLICATION_DATA", str(tmp_path / "data"))
    output = tmp_path / "results"

    def copy_weights():
        copy = tmp_path / "weights"
        copy.mkdir()
        for path in weights_folder.iterdir():
            (copy / path.name).write_bytes(path.read_bytes())
        return copy

    return SimpleNamespace(
        tmp=tmp_path,
        monkeypatch=monkeypatch,
        output=output,
        weights=weights_folder,
        copy_weights=copy_weights,
        photo=save(tmp_path / "photo.png", picture()),
        convert=["convert", "-o", output, "--weights", weights_folder],
        train=["train", "-o", output],
    )


@pytest.mark.parametrize("case", BAD_INPUT.values(), ids=BAD_INPUT.keys())
def test_bad_input_is_told_on_one_line_and_leaves_nothing(case, at, capfd):
    arguments, words = case(at)
    before = files(at.tmp)
    capfd.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    at.monkeypatch.undo()
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert line.endswith((".", ")"))
    for word in words:
        assert str(word) in line
    assert files(at.tmp) == before


def test_system_errors_are_told_too(monkeypatch, capsys):
    def refuse(*args, **options):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/some/where")

    monkeypatch.setattr("replication.data.fetch.fetch", refuse)
    assert main(["fetch", "mini"]) == 2
    assert capsys.readouterr().err == "error: Permission denied (/some/where).\n"


# -------------------------------------------------------------------------------------- train


@pytest.fixture
def vds(tmp_path, monkeypatch):
    monkeypatch.setenv("REPLICATION_DATA", str(tmp_path))
    return tiny_vds(tmp_path)


BRIEF = ["train", "--dataset", "vds", "--patches", "6", "--batch-size", "2", "--threads", "1"]


def train(output, *arguments):
    return main([*BRIEF, "-o", str(output), *map(str, arguments)])


def test_train_writes_weights_that_say_where_they_come_from(vds, capsys):
    output = vds / "out"
    assert train(output, "--ev", "-1", "--seed", "3", "--flips") == 0
    path = output / "ev-1.safetensors"
    assert capsys.readouterr() == (f"EV -1: {path}\n", "")
    assert files(output) == ["ev-1.safetensors", "log.csv"]
    assert read_log(output / "log.csv")[-1]["step"] == 3
    tensors, metadata = read_safetensors(path)
    assert tensors.keys() == SubNetwork("mprelu").state_dict().keys()
    metadata = {key: json.loads(value) for key, value in metadata.items()}
    assert Recipe(**metadata["recipe"]) == Recipe(patches=6, batch_size=2, seed=3, flips=True)
    assert metadata["data_hash"] == dataset_hash(load_stacks("vds", "train"))
    told = ("ev", "activation", "dataset", "inputs", "init", "device", "patches_in_data")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    assert [metadata[key] for key in told] == [-1, "mprelu", "vds", "true", None, device, 2]
    assert metadata["code_version"].startswith(__version__)
    assert (metadata["validation"] is not None) == has_split("vds", "val")

    written = path.read_bytes()
    assert train(output, "--ev", "-1", "--seed", "3", "--flips") == 0
    assert capsys.readouterr() == (f"EV -1: {path} (was trained already)\n", "")
    assert path.read_bytes() == written
    for other in (["--seed", "4"], ["--activation", "relu"], ["--inferred-from", output]):
        assert train(output, "--ev", "-1", "--seed", "3", "--flips", *other) == 2
        assert f"{path} was trained with another" in capsys.readouterr().err
    assert path.read_bytes() == written


def test_train_an_arm_in_a_chain(vds):
    assert train(vds / "out", "--ev", "2", "1", "--mode", "chained") == 0
    assert files(vds / "out") == ["ev+1.safetensors", "ev+2.safetensors", "log.csv"]
    for ev in (1, 2):
        tensors, metadata = read_safetensors(weights_path(ev, vds / "out"))
        assert json.loads(metadata["recipe"])["mode"] == "chained"
        assert int(metadata["ev"]) == ev
        assert all(tensor.isfinite().all() for tensor in tensors.values())


def test_train_on_inferred_images_is_training_with_them_in_place_of_the_true_ones(
    vds, weights_folder, chain
):
    """Bitwise: the same as when the data set's own EV +1 is what the network infers."""
    arguments = ("--ev", "2", "--device", "cpu")
    assert train(vds / "plain", *arguments) == 0
    assert train(vds / "out", *arguments, "--inferred-from", weights_folder) == 0
    for folder in (vds / "vds/train_set").iterdir():
        photo = io.read_image(folder / f"{folder.name}_0EV_true.jpg.png")
        save(folder / f"{folder.name}_1EV_true.jpg.png", infer_stack(photo, chain)[1])
    assert train(vds / "truth", *arguments) == 0
    plain, out, truth = (
        read_safetensors(weights_path(2, vds / name)) for name in ("plain", "out", "truth")
    )
    assert all(torch.equal(out[0][key], truth[0][key]) for key in truth[0])
    assert not torch.equal(out[0]["r4.weight"], plain[0]["r4.weight"])
    assert json.loads(out[1]["inputs"]) == "inferred"
    assert out[1]["data_hash"] == plain[1]["data_hash"] != truth[1]["data_hash"]


def test_train_from_other_weights(vds, weights_folder, chain):
    arguments = ("--ev", "1", "--learning-rate", "1e-12", "--init", weights_folder)
    assert train(vds / "out", *arguments) == 0
    tensors, metadata = read_safetensors(weights_path(1, vds / "out"))
    torch.testing.assert_close(tensors["r4.weight"], chain[1].state_dict()["r4.weight"])
    assert len(json.loads(metadata["init"])) == 64


# ---------------------------------------------------------------------------------- the rest


def test_fetch_and_check(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("REPLICATION_DATA", str(tmp_path / "data"))
    source = tiny_vds(tmp_path / "copy", train=1) / "vds"
    assert main(["fetch", "vds", "--from", str(source)]) == 0
    assert capsys.readouterr().out == f"vds in {tmp_path / 'data/vds'}: 7 files right\n"
    assert main(["fetch", "vds", "--check"]) == 0
    (source / "train_set/t01/t01_1EV_true.jpg.png").unlink()
    capsys.readouterr()
    assert main(["fetch", "vds", "--check"]) == 2
    assert "Cannot read the EV +1 picture of vds scene train-t01" in capsys.readouterr().err


# ----------------------------------------------------------------------- evaluate and compare


def test_evaluate_writes_rows_and_goes_on_after_them(vds, weights_folder, capsys, monkeypatch):
    monkeypatch.setattr(comparison, "code_version", lambda: "1.0+gabc")
    order = ["evaluate", "vds", "-o", str(vds / "out"), "--split", "train"]
    order += ["--weights", str(weights_folder), "--jobs", "1"]
    assert main(order) == 0
    told = capsys.readouterr().out
    assert "deep chain" in told
    assert "Protocol: PSNR: Reinhard 2002" in told
    (scene,) = load_stacks("vds", "train", root=vds)
    assert files(vds / "out") == [f"rows/vds_{scene.scene}.csv", "table5.csv"]
    rows = report.read_rows(vds / "out/table5.csv").set_index("method")
    expected, _, _ = comparison.scores(
        comparison.truth_methods()[2].expand(scene), merge_stack(scene.images), scene.images[0]
    )
    for metric, value in expected.items():
        assert rows.loc["oracle_curve", metric] == pytest.approx(value, abs=1e-6, nan_ok=True)
    monkeypatch.setattr(comparison, "_scene_rows", lambda *a, **o: pytest.fail("scored again"))
    first = (vds / "out/table5.csv").read_bytes()
    assert main(order) == 0
    assert (vds / "out/table5.csv").read_bytes() == first


def test_compare_prints_every_score_with_its_protocol(tmp_path, capsys):
    test, truth = save_hdr(tmp_path / "a.exr", light(seed=1)), save_hdr(tmp_path / "b.hdr", light())
    assert main(["compare", str(test), str(truth), "--maps", str(tmp_path / "maps")]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    images = io.read_hdr(test), io.read_hdr(truth)
    dark = np.zeros(images[0].shape, np.uint8)
    expected, _, _ = comparison.scores(*images, dark)
    for metric in ("psnr", "hdrvdp2_q", "pu21_psnr", "log_rmse_unclipped", "drim_loss"):
        assert float(lines[metric].split()[1]) == pytest.approx(expected[metric], abs=1e-4)
    assert "clipped_share" not in lines
    assert "1000 cd/m2; test: same mean luminance;" in lines["Protocol:"]
    assert files(tmp_path / "maps") == ["a_drim.png", "a_hdrvdp2.png"]


def test_compare_scales_by_the_photo_or_not_at_all(tmp_path, capsys):
    test, truth = save_hdr(tmp_path / "a.exr", light(seed=1)), save_hdr(tmp_path / "b.exr", light())
    clipped = picture(40, 50)
    clipped[:, :20] = 255
    photo = save(tmp_path / "photo.png", clipped)

    def told(metric, *options):
        assert main(["compare", str(test), str(truth), *map(str, options)]) == 0
        out = capsys.readouterr().out
        return float(out.split(f"{metric} ")[1].split()[0]), out

    scores = {
        told("pu21_psnr", *options)[0] for options in ((), ("--photo", photo), ("--absolute",))
    }
    assert len(scores) == 3
    absolute = hdrvdp2(io.read_hdr(test), io.read_hdr(truth), "rgb-bt.709", 33.5102139115)
    assert told("hdrvdp2_q", "--absolute")[0] == pytest.approx(absolute.Q, abs=1e-4)
    assert "as they are" in told("psnr", "--absolute")[1]
    assert told("clipped_share", "--photo", photo)[0] == 0.4


def test_help_and_version(capsys):
    for arguments, words in ((["--version"], __version__), (["--help"], "convert")):
        with pytest.raises(SystemExit) as info:
            main(arguments)
        assert info.value.code == 0
        assert words in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["convert", "none.jpg", "-o", "out"], ["--stride"]])
def test_as_a_program_with_bad_input(arguments, tmp_path, weights_folder):
    weights = ["--weights", str(weights_folder)] if arguments[0] == "convert" else []
    done = subprocess.run(
        [sys.executable, "-m", "replication", *arguments, *weights],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert (done.returncode, done.stdout.count("Traceback")) == (2, 0)
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert files(tmp_path) == []


def test_as_a_program(tmp_path, weights_folder, chain):
    save(tmp_path / "a.png", picture())
    command = [sys.executable, "-m", "replication", "convert", "a.png", "-o", "out"]
    done = subprocess.run(
        [*command, "--weights", str(weights_folder)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "a: out/a.hdr, .exr, _tonemapped.png, _stack/\n"
    assert files(tmp_path / "out") == sorted(results_of("a"))
