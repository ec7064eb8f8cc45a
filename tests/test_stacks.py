"""Readers of exposure stacks, on small trees made here, and the committed manifests."""

import csv

import cv2
import numpy as np
import OpenEXR
import pytest
from PIL import Image

from replication.data import stacks
from replication.data.stacks import (
    EVS,
    ExposureStack,
    dataset_hash,
    iter_stacks,
    load_stacks,
    manifest,
    read_folder,
)
from replication.files import ReplicationError


def picture(ev=0, height=6, width=8, seed=0):
    """Random scene in the middle tones, exposed at an EV by a linear camera."""
    light = np.random.default_rng(seed).uniform(0.1, 0.9, (height, width, 3))
    return np.rint(255 * np.clip(light * 2.0**ev, 0, 1)).astype(np.uint8)


def save(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **options)


def save_hdr(path, radiance):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.ascontiguousarray(radiance[..., ::-1]))


def write_csv(path, rows):
    with open(path, "w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def openstacks(tmp_path, monkeypatch):
    """Three small scenes in the layout of openstacks, with their own manifest."""
    rows = []
    for seed, (dataset, scene, split) in enumerate(
        [("hdrps", "hill", "train"), ("hdrps", "lake", "test"), ("empa", "tower", "test")]
    ):
        for ev in EVS:
            path = f"{dataset}/{scene}/ev{ev:+d}.webp"
            save(tmp_path / "openstacks" / path, picture(ev, seed=seed), lossless=True)
            rows.append(dict(dataset=dataset, scene=scene, split=split, ev=ev, path=path))
    write_csv(tmp_path / "openstacks.csv", rows)
    monkeypatch.setattr(stacks, "MANIFESTS", tmp_path)
    return tmp_path


class TestLoadStacks:
    def test_pictures_and_properties(self, openstacks):
        loaded = load_stacks("openstacks", root=openstacks)
        assert [(s.dataset, s.scene, s.split) for s in loaded] == [
            ("hdrps", "hill", "train"),
            ("hdrps", "lake", "test"),
            ("empa", "tower", "test"),
        ]
        for seed, stack in enumerate(loaded):
            assert stack.evs == [-3, -2, -1, 0, 1, 2, 3]
            np.testing.assert_array_equal(
                stack.exposure_times, [0.125, 0.25, 0.5, 1, 2, 4, 8], strict=True
            )
            assert stack.shape == (6, 8, 3)
            assert stack.radiance is None
            for ev in EVS:
                np.testing.assert_array_equal(stack.images[ev], picture(ev, seed=seed), strict=True)

    def test_selection(self, openstacks):
        def names(*args, **kwargs):
            return [s.scene for s in load_stacks(*args, root=openstacks, **kwargs)]

        assert names("hdrps") == ["hill", "lake"]
        assert names("openstacks", "test") == ["lake", "tower"]
        assert names("openstacks", scenes=["tower", "hill"]) == ["hill", "tower"]

    def test_iter_reads_one_at_a_time(self, openstacks):
        (openstacks / "openstacks/empa/tower/ev+1.webp").unlink()
        found = iter_stacks("openstacks", root=openstacks)
        assert next(found).scene == "hill"
        assert next(found).scene == "lake"
        with pytest.raises(ReplicationError):
            next(found)

    def test_data_root_from_the_environment(self, openstacks, monkeypatch):
        monkeypatch.setenv("REPLICATION_DATA", str(openstacks))
        assert len(load_stacks("empa")) == 1

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("nosuch",), "Unknown data set 'nosuch'; there are mini, openstacks"),
            (("hdrps", "testing"), "Unknown split 'testing'; there are train, val, test"),
            (("hdrps", "val"), "There are no scenes in the data set hdrps, split val"),
            (("hdrps", "test", ["hill"]), "no scene 'hill' in the data set hdrps, split test"),
        ],
    )
    def test_wrong_names(self, openstacks, arguments, words):
        with pytest.raises(ReplicationError, match=words):
            load_stacks(*arguments, root=openstacks)

    @pytest.mark.parametrize("dataset", stacks.DATASETS)
    def test_absent_data_tell_the_command(self, tmp_path, dataset):
        with pytest.raises(ReplicationError, match=r"run `python -m replication fetch \w+") as info:
            load_stacks(dataset, root=tmp_path)
        assert "\n" not in str(info.value)

    def test_missing_exposure(self, openstacks):
        (openstacks / "openstacks/hdrps/lake/ev-2.webp").unlink()
        with pytest.raises(ReplicationError, match=r"EV -2 picture of hdrps scene lake is missing"):
            load_stacks("hdrps", root=openstacks)

    def test_other_size(self, openstacks):
        save(openstacks / "openstacks/hdrps/lake/ev+3.webp", picture(3, 5, 8), lossless=True)
        with pytest.raises(
            ReplicationError, match=r"EV \+3 picture of hdrps scene lake has 8x5 .* EV \+0 has 8x6"
        ):
            load_stacks("hdrps", root=openstacks)

    def test_unreadable_frame(self, openstacks):
        path = openstacks / "openstacks/hdrps/lake/ev+1.webp"
        path.write_bytes(path.read_bytes()[:60])
        with pytest.raises(
            ReplicationError, match=r"Cannot read the EV \+1 picture of hdrps scene lake"
        ):
            load_stacks("hdrps", root=openstacks)


class TestMini:
    @pytest.fixture
    def mini(self, tmp_path, monkeypatch):
        rows = []
        for scene in ("hall_az000", "hall_az090", "park_az000"):
            folder = tmp_path / "mini" / scene
            for ev in EVS:
                save(folder / f"ev{ev:+d}.png", picture(ev))
                rows.append(
                    dict(scene=scene, panorama=scene[:4], ev=ev, path=f"{scene}/ev{ev:+d}.png")
                )
            radiance = np.full((6, 8, 3), 0.1, np.float32)
            radiance[0, 0] = (1e-20, 1 / 3, 1e20)
            header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
            OpenEXR.File(header, {"RGB": radiance}).write(str(folder / "radiance.exr"))
            rows.append(
                dict(scene=scene, panorama=scene[:4], ev="radiance", path=f"{scene}/radiance.exr")
            )
        write_csv(tmp_path / "mini_frames.csv", rows)
        write_csv(
            tmp_path / "mini.csv",
            [dict(panorama="hall", split="train"), dict(panorama="park", split="test")],
        )
        monkeypatch.setattr(stacks, "MANIFESTS", tmp_path)
        return tmp_path

    def test_radiance_is_exact_and_split_is_the_panoramas(self, mini):
        train = load_stacks("mini", "train", root=mini)
        assert [s.scene for s in train] == ["hall_az000", "hall_az090"]
        radiance = train[0].radiance
        assert radiance.dtype == np.float32
        np.testing.assert_array_equal(radiance[0, 0], np.float32([1e-20, 1 / 3, 1e20]))
        np.testing.assert_array_equal(radiance[1], np.full((8, 3), 0.1, np.float32))

    def test_nan_radiance(self, mini):
        radiance = np.full((6, 8, 3), np.nan, np.float32)
        path = mini / "mini/park_az000/radiance.exr"
        OpenEXR.File({"type": OpenEXR.scanlineimage}, {"RGB": radiance}).write(str(path))
        with pytest.raises(
            ReplicationError, match="radiance of mini scene park_az000 has NaN or infinite values"
        ):
            load_stacks("mini", "test", root=mini)

    def test_radiance_of_another_size(self, mini):
        path = mini / "mini/park_az000/radiance.exr"
        OpenEXR.File(
            {"type": OpenEXR.scanlineimage}, {"RGB": np.ones((4, 4, 3), np.float32)}
        ).write(str(path))
        with pytest.raises(ReplicationError, match="radiance of mini scene park_az000 has 4x4"):
            load_stacks("mini", "test", root=mini)

    def test_missing_radiance(self, mini):
        (mini / "mini/park_az000/radiance.exr").unlink()
        with pytest.raises(ReplicationError, match="Cannot read the radiance of mini scene park"):
            load_stacks("mini", "test", root=mini)

    def test_manifests_that_do_not_fit(self, mini):
        write_csv(mini / "mini.csv", [dict(panorama="hall", split="train")])
        with pytest.raises(ReplicationError, match=r"panorama 'park' unknown to mini\.csv"):
            manifest("mini")


class TestCommittedManifests:
    @pytest.mark.parametrize("dataset", ["mini", "openstacks"])
    def test_seven_frames_a_scene_and_no_scene_in_two_splits(self, dataset):
        scenes = {}
        for row in manifest(dataset):
            scenes.setdefault(row["scene"], []).append(row)
        assert len(scenes) == {"mini": 40, "openstacks": 51}[dataset]
        for rows in scenes.values():
            assert len({row["split"] for row in rows}) == 1
            assert sorted(int(row["ev"]) for row in rows if row["ev"] != "radiance") == list(EVS)
        hashes = [row["pixel_sha256"] for rows in scenes.values() for row in rows]
        assert len(set(hashes)) == len(hashes)

    def test_no_panorama_is_in_two_splits(self):
        panoramas = stacks.read_csv(stacks.MANIFESTS / "mini.csv")
        assert len({row["panorama"] for row in panoramas}) == len(panoramas) == 10
        assert len({row["sha256"] for row in panoramas}) == 10
        splits = {}
        for row in manifest("mini"):
            assert row["scene"].startswith(row["panorama"] + "_az")
            splits.setdefault(row["panorama"], set()).add(row["split"])
        assert all(len(split) == 1 for split in splits.values())
        counts = {name: sum(split == {name} for split in splits.values()) for name in stacks.SPLITS}
        assert counts == {"train": 6, "val": 1, "test": 3}

    def test_no_place_of_hdrps_is_in_two_splits(self):
        # numbered scenes (lake-1, lake-2) show one place
        splits = {}
        for row in manifest("hdrps"):
            place = row["scene"].rstrip("0123456789").rstrip("-") or row["scene"]
            splits.setdefault(place, set()).add(row["split"])
        assert all(len(split) == 1 for split in splits.values())

    def test_vds_has_none(self):
        with pytest.raises(ReplicationError, match="'vds' has no manifest"):
            manifest("vds")

    def test_sizes_of_the_splits(self):
        scenes = {(row["dataset"], row["scene"], row["split"]) for row in manifest("openstacks")}
        counted = [
            (d, s, sum(x[0] == d and x[2] == s for x in scenes))
            for d, s in [("hdrps", "train"), ("hdrps", "val"), ("hdrps", "test"), ("empa", "test")]
        ]
        assert [n for *_, n in counted] == [22, 4, 10, 15]


class TestVds:
    @pytest.fixture(params=["set", "_set"])
    def vds(self, tmp_path, request):
        """Both trees in use: train/set/t01 without HDR, train_set/t01 with train_hdr_set."""
        for tree, scenes in (("train", 10), ("test", 2)):
            for number in range(1, scenes + 1):
                name = f"t{number:02d}"
                folder = tmp_path / "vds"
                folder = folder / tree / "set" if request.param == "set" else folder / f"{tree}_set"
                for ev in EVS:
                    image = picture(ev, seed=number + 100 * (tree == "test"))
                    save(folder / name / f"{name}_{ev}EV_true.jpg.png", image)
                if request.param == "_set":
                    hdr = np.full((6, 8, 3), 0.5 * number, np.float32)
                    save_hdr(tmp_path / "vds" / f"{tree}_hdr_set" / name / "target_hdr.hdr", hdr)
        return tmp_path, request.param

    def test_both_layouts(self, vds):
        root, layout = vds
        every = load_stacks("vds", root=root)
        assert len({s.scene for s in every}) == len(every) == 12
        test = load_stacks("vds", "test", root=root)
        assert [s.scene for s in test] == ["test-t01", "test-t02"]
        for number, stack in enumerate(test, 1):
            assert stack.dataset == "vds"
            for ev in EVS:
                np.testing.assert_array_equal(stack.images[ev], picture(ev, seed=number + 100))
            if layout == "_set":
                np.testing.assert_array_equal(
                    stack.radiance, np.full((6, 8, 3), 0.5 * number, np.float32), strict=True
                )
            else:
                assert stack.radiance is None

    def test_seven_to_three_validation(self, vds):
        root, _ = vds
        train = {s.scene for s in load_stacks("vds", "train", root=root)}
        val = {s.scene for s in load_stacks("vds", "val", root=root)}
        assert (len(train), len(val)) == (7, 3)
        assert not train & val
        assert {s.scene for s in load_stacks("vds", "val", root=root)} == val

    def test_missing_exposure(self, vds):
        root, layout = vds
        folder = root / "vds" / ("test/set" if layout == "set" else "test_set") / "t02"
        (folder / "t02_-1EV_true.jpg.png").unlink()
        with pytest.raises(
            ReplicationError, match=r"EV -1 picture of vds scene test-t02 is missing"
        ):
            load_stacks("vds", root=root)

    def test_no_tree(self, tmp_path):
        with pytest.raises(ReplicationError, match=r"fetch vds --from DIR`"):
            load_stacks("vds", root=tmp_path)


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


class TestReadFolder:
    def test_exif_gives_evs_and_histogram_the_middle(self, tmp_path):
        # camera's rounded times; the names are in no order; ISO and aperture change too
        bracket(
            tmp_path / "street",
            {
                "IMG_9.jpg": (4, 1 / 500, 100),
                "IMG_1.jpg": (4, 1 / 60, 400),
                "IMG_5.JPG": (4, 1 / 60, 100),
                "IMG_3.jpg": (4, 1 / 60, 200),
                "IMG_4.jpg": (5.6, 1 / 60, 100),
                "IMG_2.jpg": (4, 1 / 250, 100),
            },
        )
        (tmp_path / "street" / "notes.txt").write_text("not a photo")
        stack = read_folder(tmp_path / "street")
        assert (stack.dataset, stack.scene, stack.split) == ("folder", "street", "")
        assert stack.evs == [-3, -2, -1, 0, 1, 2]
        means = [stack.images[ev].mean() for ev in stack.evs]
        assert means == sorted(means)
        np.testing.assert_array_equal(
            stack.images[0], np.array(Image.open(tmp_path / "street" / "IMG_5.JPG"))
        )
        assert read_folder(tmp_path / "street", "x", neighbours=2).scene == "x"

    def test_neighbours_move_the_middle(self, tmp_path):
        times = {f"{i}.jpg": (4, 2.0**i / 60, 100) for i in range(7)}
        bracket(tmp_path, times)
        assert read_folder(tmp_path).evs == [0, 1, 2, 3, 4, 5, 6]
        assert read_folder(tmp_path, neighbours=3).evs == [-3, -2, -1, 0, 1, 2, 3]

    def test_upright(self, tmp_path):
        # orientation 6: to be turned by 90 degrees to the right, so the dark left side goes up
        bracket(tmp_path, {"a.jpg": (4, 1 / 60, 100), "b.jpg": (4, 1 / 30, 100)}, orientation=6)
        image = read_folder(tmp_path).images[0]
        assert image.shape == (256, 32, 3)
        assert image[0].mean() < 5
        assert image[-1].mean() > 250

    def test_names_with_ev(self, tmp_path):
        for ev in (-2, 0, 2):
            save(tmp_path / f"scene_ev{ev:+d}.png", picture(ev))
        stack = read_folder(tmp_path)
        assert stack.evs == [-2, 0, 2]
        np.testing.assert_array_equal(stack.images[2], picture(2))

    @pytest.mark.parametrize(
        ("name", "ev"),
        [
            ("ev-3.png", -3),
            ("EV+2.JPG", 2),
            ("t01_-3EV_true.jpg.png", -3),
            ("t01_0EV_true.jpg.png", 0),
            ("lake_ev1.tif", 1),
            ("revolver7.png", None),
            ("prev2.png", None),
            ("ev0.5.png", None),
            ("x_0.5EV.png", None),
            ("IMG_1234.jpg", None),
        ],
    )
    def test_ev_of_name(self, name, ev):
        assert stacks._ev_of_name(name) == ev

    def test_no_exif_and_no_names(self, tmp_path):
        for name in ("a.png", "b.png"):
            save(tmp_path / name, picture())
        with pytest.raises(ReplicationError, match=r"need EXIF data .* or names with EV") as info:
            read_folder(tmp_path)
        assert "a.png" in str(info.value)

    @pytest.mark.parametrize(
        ("exposures", "words"),
        [
            ({"a.jpg": 60, "b.jpg": 59, "c.jpg": 30}, "same exposure, EV [+-][01]"),
            ({"a.jpg": 60, "b.jpg": 60 / 2**0.5}, "not whole stops apart: EV"),
            ({"a.jpg": 60, "b.jpg": 30, "c.jpg": 7.5}, "not evenly spaced: EV"),
        ],
    )
    def test_odd_brackets(self, tmp_path, exposures, words):
        bracket(tmp_path, {name: (4, 1 / speed, 100) for name, speed in exposures.items()})
        with pytest.raises(ReplicationError, match=words):
            read_folder(tmp_path)

    def test_other_bad_folders(self, tmp_path):
        with pytest.raises(ReplicationError, match="There is no folder"):
            read_folder(tmp_path / "nowhere")
        save(tmp_path / "one" / "ev+0.png", picture())
        with pytest.raises(ReplicationError, match=r"at least two photos; .* has 1"):
            read_folder(tmp_path / "one")
        save(tmp_path / "one" / "ev+1.png", picture(1, 4, 4))
        with pytest.raises(ReplicationError, match=r"EV \+1 picture of folder scene one has 4x4"):
            read_folder(tmp_path / "one")
        for name in ("ev+1.png", "ev+2.png"):
            save(tmp_path / "bright" / name, picture())
        with pytest.raises(ReplicationError, match="named EV 0"):
            read_folder(tmp_path / "bright")
        for name in ("ev+1.png", "EV1.png"):
            save(tmp_path / "twice" / name, picture())
        with pytest.raises(ReplicationError, match=r"both named EV \+1"):
            read_folder(tmp_path / "twice")


class TestExposureStack:
    def test_needs_ev_0_and_8_bit_rgb(self):
        with pytest.raises(ReplicationError, match="no EV 0 picture"):
            ExposureStack("d", "s", "", {1: picture()})
        with pytest.raises(ReplicationError, match=r"EV \+1 picture of d scene s is float64"):
            ExposureStack("d", "s", "", {0: picture(), 1: picture() / 255})


class TestDatasetHash:
    def make(self, scene="a", split="train", value=0, radiance=None):
        image = np.full((2, 2, 3), value, np.uint8)
        return ExposureStack("d", scene, split, {0: image, 1: image}, radiance)

    def test_order_does_not_matter_but_everything_else_does(self):
        a, b = self.make("a"), self.make("b", value=7)
        digest = dataset_hash([a, b])
        assert len(digest) >= 12
        assert int(digest, 16) >= 0
        assert dataset_hash([b, a]) == digest
        others = [
            [a],
            [a, self.make("c", value=7)],
            [a, self.make("b", value=8)],
            [a, self.make("b", split="test", value=7)],
            [a, self.make("b", value=7, radiance=np.ones((2, 2, 3), np.float32))],
        ]
        assert len({dataset_hash(other) for other in others} | {digest}) == 6
