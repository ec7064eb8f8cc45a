"""Nothing that is scored is learnt from: splits are disjoint, and training opens no test picture."""

import pandas as pd
import pytest

from replication.commands import train_command
from replication.data import stacks
from replication.data.stacks import MANIFESTS
from replication.evaluation import ablation
from tests.test_cli import save, tiny_vds

SPLITS = ["train", "val", "test"]


def shared(groups):
    """Values that stand in more than one group."""
    groups = list(groups)
    return {v for i, one in enumerate(groups) for other in groups[:i] for v in one & other}


def test_no_scene_and_no_picture_of_openstacks_is_in_two_splits():
    frames = pd.read_csv(MANIFESTS / "openstacks.csv", dtype=str)
    assert set(frames["split"]) == set(SPLITS)
    for column in ("scene", "source_sha256", "pixel_sha256"):
        assert not shared(set(part[column]) for _, part in frames.groupby("split"))
    counts = frames[frames["dataset"] == "hdrps"].groupby("split")["scene"].nunique()
    assert [counts[split] for split in SPLITS] == [22, 4, 10]
    assert set(frames[frames["dataset"] == "empa"]["split"]) == {"test"}


def test_no_panorama_and_no_picture_of_mini_is_in_two_splits():
    panoramas = pd.read_csv(MANIFESTS / "mini.csv", dtype=str)
    assert panoramas["panorama"].is_unique
    assert panoramas["sha256"].is_unique
    split = panoramas.set_index("panorama")["split"]
    frames = pd.read_csv(MANIFESTS / "mini_frames.csv", dtype=str)
    frames["split"] = frames["panorama"].map(split)
    assert set(frames["split"]) == set(SPLITS)
    for column in ("scene", "pixel_sha256"):
        assert not shared(set(part[column]) for _, part in frames.groupby("split"))


@pytest.fixture
def opened(tmp_path, monkeypatch):
    """A tiny vds with two test scenes, and the list of the pictures that are read from it."""
    monkeypatch.setenv("REPLICATION_DATA", str(tmp_path))
    tiny_vds(tmp_path, train=4)
    for path in sorted((tmp_path / "vds/train_set").glob("t0[12]/*.png")):
        name = path.name.replace("t0", "t9")
        save(tmp_path / "vds/test_set" / name[:3] / name, stacks.read_image(path)[::-1])
    read, real = [], stacks.read_image
    monkeypatch.setattr(stacks, "read_image", lambda path: read.append(path) or real(path))
    return read


def test_training_opens_no_test_picture(opened, tmp_path):
    train_command([1], tmp_path / "out", dataset="vds", patches=4, batch_size=2)
    assert opened
    assert not [path for path in opened if "test" in path.parts[-3]]


def test_an_ablation_opens_test_pictures_only_to_score_them(opened, tmp_path, monkeypatch):
    def score(test, methods, **_):
        raise KeyboardInterrupt  # all training is done when the first scene is scored

    monkeypatch.setattr(ablation, "exposure_rows", score)
    monkeypatch.setattr(ablation, "_baseline_rows", lambda *_: None)
    read_before_training_ended = []
    real = ablation.train

    def train(*arguments, **options):
        final = real(*arguments, **options)
        read_before_training_ended[:] = opened
        return final

    monkeypatch.setattr(ablation, "train", train)
    with pytest.raises(KeyboardInterrupt):
        ablation.run_study("table2", tmp_path, dataset="vds", patches=8, seeds=1)
    assert read_before_training_ended
    assert not [path for path in read_before_training_ended if "test" in path.parts[-3]]
