"""Readers of exposure stacks on small trees made here, the committed manifests and their splits."""

import cv2
import numpy as np
import OpenEXR
import pandas as pd
import pytest
from PIL import Image

import replication.recipes as training
from replication.data import stacks
from replication.data.stacks import STACK_EVS, dataset_hash, load_stacks, manifest, read_folder
from replication.files import ReplicationError


def picture(ev=0, height=6, width=8, seed=0):
    """Random scene in the middle tones, exposed at an EV by a linear camera."""
    light = np.random.default_rng(seed).uniform(0.1, 0.9, (height, width, 3))
    return np.rint(255 * np.clip(light * 2.0**ev, 0, 1)).astype(np.uint8)


def save(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **options)


def save_exr(path, radiance):
    OpenEXR.File({"type": OpenEXR.scanlineimage}, {"RGB": radiance}).write(str(path))


@pytest.fixture
def openstacks(tmp_path, monkeypatch):
    """Three small scenes in the layout of openstacks, with their own manifest."""
    rows, scenes = ["dataset,scene,split,ev,path"], ("hdrps,hill", "hdrps,lake", "empa,tower")
    for seed, scene in enumerate(scenes):
        for ev in STACK_EVS:
            path = f"{scene.replace(',', '/')}/ev{ev:+d}.webp"
            save(tmp_path / "openstacks" / path, picture(ev, seed=seed), lossless=True)
            rows.append(f"{scene},{'test' if seed else 'train'},{ev},{path}")
    (tmp_path / "openstacks.csv").write_text("\n".join(rows))
    monkeypatch.setattr(stacks, "MANIFESTS", tmp_path)
    monkeypatch.setenv("REPLICATION_DATA", str(tmp_path))
    return tmp_path / "openstacks"


def test_pictures_and_properties(openstacks):
    loaded = load_stacks("openstacks")
    names = [("hdrps", "hill", "train"), ("hdrps", "lake", "test"), ("empa", "tower", "test")]
    assert [(s.dataset, s.scene, s.split) for s in loaded] == names
    for seed, stack in enumerate(loaded):
        assert stack.evs == list(stack.images) == [-3, -2, -1, 0, 1, 2, 3]
        np.testing.assert_array_equal(stack.exposure_times, [0.125, 0.25, 0.5, 1, 2, 4, 8])
        assert stack.shape == (6, 8, 3)
        assert stack.radiance is None
        for ev in STACK_EVS:
            np.testing.assert_array_equal(stack.images[ev], picture(ev, seed=seed), strict=True)


def test_selection(openstacks):
    def names(*args, **kwargs):
        return [s.scene for s in load_stacks(*args, root=openstacks.parent, **kwargs)]

    assert names("hdrps") == ["hill", "lake"]
    assert names("openstacks", "test") == ["lake", "tower"]
    assert names("openstacks", scenes=["tower", "hill"]) == ["hill", "tower"]
    assert stacks.has_split("hdrps", "train")
    assert not stacks.has_split("empa", "train")


def fails(words, function, *arguments, **options):
    with pytest.raises(ReplicationError, match=words) as info:
        function(*arguments, **options)
    assert "\n" not in str(info.value)


def test_wrong_names_and_absent_data(openstacks, tmp_path):
    fails("Unknown data set 'nosuch'; there are mini, openstacks", load_stacks, "nosuch")
    fails("Unknown split 'x'; there are train, val, test", load_stacks, "hdrps", "x")
    fails("There are no scenes in the data set hdrps, split val", load_stacks, "hdrps", "val")
    fails("'vds' has no manifest", manifest, "vds")
    fails("no scene 'hill' in the data .* split test", load_stacks, "hdrps", "test", ["hill"])
    for dataset in stacks.DATASETS:
        hint = r"run `python -m replication fetch \w+"
        fails(hint, load_stacks, dataset, root=tmp_path / "nowhere")


def test_faulty_frames(openstacks):
    path, where = openstacks / "hdrps/lake/ev+1.webp", r"EV \+1 picture of hdrps scene lake"
    save(path, picture(height=5), lossless=True)
    fails(where + r" is \(5, 8, 3\), but EV \+0 is \(6, 8, 3\)", load_stacks, "hdrps")
    path.write_bytes(path.read_bytes()[:60])
    fails(f"Cannot read the {where} .*damaged", load_stacks, "hdrps")
    path.unlink()
    fails(f"Cannot read the {where} .*no file", load_stacks, "hdrps")


def test_faulty_manifests(openstacks):
    path, where = openstacks.parent / "openstacks.csv", r"the manifest .*openstacks\.csv: .*"
    for content, words in (
        (b"dataset,scene\n\xff\xfe,x\n", "'utf-8' codec can't decode"),
        (b"dataset,scene,split,ev\nhdrps,hill,train,0\n", "a row has no path"),
        (b"dataset,scene,split,ev,path\nhdrps,hill\n", "a row has no split"),
    ):
        path.write_bytes(content)
        fails(where + words, load_stacks, "hdrps")
    path.unlink()
    fails(where + "No such file", load_stacks, "hdrps")


@pytest.fixture
def mini(tmp_path, monkeypatch):
    """Two scenes of one panorama, and one of another."""
    rows = ["scene,panorama,ev,path"]
    for scene in ("hall_az000", "hall_az090", "park_az000"):
        for ev in STACK_EVS:
            save(tmp_path / f"mini/{scene}/ev{ev:+d}.png", picture(ev))
            rows.append(f"{scene},{scene[:4]},{ev},{scene}/ev{ev:+d}.png")
        radiance = np.full((6, 8, 3), 0.1, np.float32)
        radiance[0, 0] = (1e-20, 1 / 3, 1e20)
        save_exr(tmp_path / f"mini/{scene}/radiance.exr", radiance)
        rows.append(f"{scene},{scene[:4]},radiance,{scene}/radiance.exr")
    (tmp_path / "mini_frames.csv").write_text("\n".join(rows))
    (tmp_path / "mini.csv").write_text("panorama,split\nhall,train\npark,test\n")
    monkeypatch.setattr(stacks, "MANIFESTS", tmp_path)
    return tmp_path


def test_radiance_is_exact_and_checked_and_split_is_the_panoramas(mini):
    train = load_stacks("mini", "train", root=mini)
    assert [s.scene for s in train] == ["hall_az000", "hall_az090"]
    radiance = train[0].radiance
    assert radiance.dtype == np.float32
    np.testing.assert_array_equal(radiance[0, 0], np.float32([1e-20, 1 / 3, 1e20]))
    np.testing.assert_array_equal(radiance[1], np.full((8, 3), 0.1, np.float32))
    path, where = mini / "mini/park_az000/radiance.exr", "radiance of mini scene park_az000"
    save_exr(path, np.full((6, 8, 3), np.nan, np.float32))
    fails(where + " has NaN or infinite values", load_stacks, "mini", "test", root=mini)
    save_exr(path, np.ones((4, 4, 3), np.float32))
    fails(where + r" is \(4, 4, 3\)", load_stacks, "mini", "test", root=mini)
    path.unlink()
    fails(f"Cannot read the {where}", load_stacks, "mini", "test", root=mini)
    (mini / "mini.csv").write_text("panorama,split\nhall,train\n")
    fails(r"The panorama park is not in mini\.csv", manifest, "mini")


COUNTS = [("mini", (24, 4, 12)), ("hdrps", (22, 4, 10)), ("empa", (0, 0, 15))]


@pytest.mark.parametrize(("dataset", "counts"), COUNTS)
def test_committed_scenes_and_splits(dataset, counts):
    frames = pd.DataFrame(manifest(dataset))
    # views of one place; a number alone, as of ur-chapel-2, museum1 and 507, is no pair
    pairs = "knossos|forth|zurich|bandon-sunset|blooming-gorse|cemetery-tree|exploratorium"
    pairs += "|west-branch-ausable|amikeus-beaver-dam-pm"
    frames["place"] = frames.scene.replace(rf"^({pairs})-?\d*$|_az\d+$", r"\1", regex=True)
    assert (frames.place == frames.get("panorama", frames.place)).all()
    assert len({*frames.scene} - {*frames.place}) == {"mini": 40, "hdrps": 12, "empa": 10}[dataset]
    for column in {"scene", "place", "pixel_sha256", "source_sha256"} & set(frames):
        assert (frames.groupby(column)["split"].nunique() == 1).all()  # none is in two splits
    scenes = frames.groupby("split")["scene"].nunique()
    assert tuple(scenes.get(split, 0) for split in stacks.SPLITS) == counts
    for _, part in frames[frames.ev != "radiance"].groupby("scene"):
        assert sorted(part.ev.astype(int)) == list(STACK_EVS)
    assert frames.pixel_sha256.is_unique


@pytest.fixture(params=["/set", "_set"])
def vds(tmp_path, request, monkeypatch):
    """Both layouts: train/set/t01 without HDR, train_set/t01 with train_hdr_set."""
    folder = tmp_path / "vds"
    for tree, number in [("train", n) for n in range(1, 11)] + [("test", 1), ("test", 2)]:
        name = f"t{number:02d}"
        for ev in STACK_EVS:
            image = picture(ev, 66, 70, seed=number + 100 * (tree == "test"))
            save(folder / f"{tree}{request.param}/{name}/{name}_{ev}EV_true.jpg.png", image)
        if request.param == "_set":
            (folder / f"{tree}_hdr_set" / name).mkdir(parents=True)
            hdr = np.full((66, 70, 3), 0.5 * number, np.float32)
            assert cv2.imwrite(str(folder / f"{tree}_hdr_set/{name}/target_hdr.hdr"), hdr)
    monkeypatch.setenv("REPLICATION_DATA", str(tmp_path))
    return folder / f"test{request.param}"


def test_both_layouts_of_vds(vds):
    every = load_stacks("vds")
    splits = [s.split for s in every]
    assert len({s.scene for s in every}) == len(every) == 12
    assert [splits.count(split) for split in stacks.SPLITS] == [7, 3, 2]  # 7 : 3
    for number, stack in enumerate(load_stacks("vds", "test"), 1):
        assert stack.scene == f"test-t0{number}"
        for ev in STACK_EVS:
            np.testing.assert_array_equal(stack.images[ev], picture(ev, 66, 70, number + 100))
        if vds.name == "test_set":
            assert (stack.radiance == 0.5 * number).all()
        else:
            assert stack.radiance is None
    (vds / "t02/t02_-1EV_true.jpg.png").unlink()
    fails("EV -1 picture of vds scene test-t02 .*t02_-1EV", load_stacks, "vds")


def test_training_opens_no_test_picture(vds, tmp_path, monkeypatch):
    read, real = [], stacks.read_image
    monkeypatch.setattr(stacks, "read_image", lambda path: read.append(path) or real(path))
    training.train_subnetworks([1], tmp_path / "out", dataset="vds", patches=4, batch_size=2)
    assert read
    assert not [path for path in read if path.is_relative_to(vds)]


def bracket(folder, exposures, orientation=1):
    """JPEG photos with EXIF of an evenly lit scene; `exposures` maps names to (F, S, ISO)."""
    light = np.tile(np.linspace(0, 1, 256), (32, 1))[..., None] * np.ones(3)
    for name, (f_number, exposure_time, iso) in exposures.items():
        exif = Image.Exif()
        exif.get_ifd(0x8769).update({0x829D: f_number, 0x829A: exposure_time, 0x8827: iso})
        exif[0x0112] = orientation
        gain = exposure_time * iso / f_number**2 / (1 / 60 * 100 / 16)
        image = np.rint(255 * np.clip(light * gain, 0, 1)).astype(np.uint8)
        save(folder / name, image, quality=98, exif=exif)


def test_exif_gives_evs_and_histogram_the_middle(tmp_path):
    # a camera's rounded times; the names are in no order; ISO and aperture change too
    exposures = [(1 / 500, 100), (1 / 60, 400), (1 / 60, 100), (1 / 60, 200), (1 / 250, 100)]
    photos = {f"IMG_{n}.JPG": (4, *e) for n, e in zip((9, 1, 5, 3, 2), exposures, strict=True)}
    bracket(tmp_path / "street", photos | {"IMG_4.jpg": (5.6, 1 / 60, 100)})
    (tmp_path / "street/notes.txt").write_text("not a photo")
    stack = read_folder(tmp_path / "street")
    assert (stack.dataset, stack.scene, stack.split) == ("folder", "street", "")
    assert stack.evs == [-3, -2, -1, 0, 1, 2]
    middle = np.array(Image.open(tmp_path / "street/IMG_5.JPG"))
    np.testing.assert_array_equal(stack.images[0], middle)
    assert read_folder(tmp_path / "street", "x", neighbours=2).scene == "x"


def test_neighbours_and_orientation(tmp_path):
    # orientation 6: to be turned by 90 degrees to the right, so the dark left side goes up
    bracket(tmp_path, {f"{i}.jpg": (4, 2.0**i / 60, 100) for i in range(7)}, orientation=6)
    assert read_folder(tmp_path).evs == [0, 1, 2, 3, 4, 5, 6]
    assert read_folder(tmp_path, neighbours=3).evs == [-3, -2, -1, 0, 1, 2, 3]
    image = read_folder(tmp_path).images[0]
    assert image.shape == (256, 32, 3)
    assert image[0].mean() < 5 < 250 < image[-1].mean()


@pytest.mark.parametrize("name", ["ev+2.png", "EV2.bmp", "t01_2EV_true.jpg.png", "lake_ev2.tif"])
def test_names_with_ev(tmp_path, name):
    for ev, file in ((-2, "ev-2.png"), (0, "ev+0.png"), (2, name)):
        save(tmp_path / file, picture(ev))
    stack = read_folder(tmp_path)
    assert list(stack.images) == [-2, 0, 2]
    np.testing.assert_array_equal(stack.images[2], picture(2))


@pytest.mark.parametrize("name", ["revolver7.png", "ev0.5.png", "x_0.5EV.png", "IMG_1234.png"])
def test_names_without_ev(tmp_path, name):
    save(tmp_path / "ev0.png", picture())
    save(tmp_path / name, picture())
    fails(r"need EXIF data .* or names .*\.png have no F-number", read_folder, tmp_path)


def test_bad_folders(tmp_path):
    for words, *speeds in (
        ("of the same exposure: EV", 60, 59, 30),
        ("not whole stops apart: EV", 60, 60 / 2**0.5),
        ("not evenly spaced: EV", 60, 30, 7.5),
    ):
        bracket(tmp_path / words, {f"{speed:.0f}.jpg": (4, 1 / speed, 100) for speed in speeds})
        fails(words, read_folder, tmp_path / words)
    fails("There is no folder", read_folder, tmp_path / "0")
    for folder, words, *files in (
        ("1", r"at least two photos; .* has 1", ("ev+0.png", 6)),
        ("2", r"EV \+1 picture of folder scene 2 is \(4", ("ev+0.png", 6), ("ev+1.png", 4)),
        ("3", "folder scene 3 has no EV 0", ("ev+1.png", 6), ("ev+2.png", 6)),
        ("4", r"both named EV \+1", ("ev+1.png", 6), ("EV1.png", 6)),
    ):
        for name, height in files:
            save(tmp_path / folder / name, picture(height=height))
        fails(words, read_folder, tmp_path / folder)


def test_data_set_hash_depends_on_everything_but_the_order():
    def make(scene="a", split="train", value=0, radiance=None):
        image = np.full((2, 2, 3), value, np.uint8)
        return stacks.ExposureStack("d", scene, split, {0: image, 1: image}, radiance)

    a, b = make("a"), make("b", value=7)
    digest = dataset_hash([a, b])
    assert len(digest) == 16
    assert dataset_hash([b, a]) == digest
    others = [make("c", value=7), make("b", value=8), make("b", split="test", value=7)]
    others += [make("b", value=7, radiance=np.ones((2, 2, 3), np.float32))]
    assert len({dataset_hash([a, other]) for other in others} | {digest, dataset_hash([a])}) == 6
    frames = {0: picture(), 1: picture() / 255}
    fails(r"EV \+1 picture of d scene s must be uint8", stacks.ExposureStack, "d", "s", "", frames)
