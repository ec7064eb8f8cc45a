"""HDR comparison: protocol, rows with known answers, resuming, and the verbs evaluate and compare."""

from functools import partial

import numpy as np
import OpenEXR
import pandas as pd
import pytest
import torch

from replication import metrics
from replication.baselines import tone_curve
from replication.data.stacks import ExposureStack
from replication.evaluation import radiance, rows
from replication.files import ReplicationError
from replication.hdr import io, reinhard
from replication.images import luminance, to_uint8
from replication.reconstruct import merge_stack
from replication.weights import save_weights, weights_path


def make_stack(name="one", seed=0, size=(48, 64)):
    """A scene of gratings, a lamp that EV 0 clips, and noise-free frames of a gamma camera."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[0 : size[0], 0 : size[1]] / 48
    light = 0.12 * (1.2 + np.sin(9 * x + generator.uniform(0, 3)) * np.cos(7 * y))
    lamp = 3 * np.exp(-((x - 0.7) ** 2 + (y - 0.5) ** 2) * 18)
    light = ((light + lamp)[..., None] * generator.uniform(0.7, 1, 3)).astype(np.float32)
    images = {ev: to_uint8(np.clip(light * 2.0**ev, 0, 1) ** (1 / 2.2)) for ev in range(-3, 4)}
    return ExposureStack("made", name, "test", images, light)


@pytest.fixture(scope="module")
def stack():
    return make_stack()


@pytest.fixture(scope="module")
def truth(stack):
    return merge_stack(stack.images)


@pytest.fixture(scope="module")
def methods(weights_folder):
    return radiance.photo_methods(weights_folder) + radiance.truth_methods()


def test_the_truth_scores_perfectly_in_any_unit(stack, truth):
    scores, seen, changes = radiance.scores(truth, truth, stack.images[0])
    assert (scores["psnr"], scores["hdrvdp2_q"]) == (np.inf, pytest.approx(100))
    assert max(scores["log_rmse_clipped"], scores["log_rmse_unclipped"]) < 1e-6
    assert seen.P_map.max() < 1e-12
    assert max(map(np.max, changes)) == 0
    other, _, _ = radiance.scores(truth * np.float32(7), truth, stack.images[0])
    assert other["hdrvdp2_q"] > 99
    ratio = luminance(truth) / luminance(stack.radiance)  # the truth is the light of the scene
    assert np.percentile(np.abs(np.log10(ratio / np.median(ratio))), 95) < 0.05


def test_a_known_error_is_measured(stack, truth):
    # one stop too dark wherever EV 0 clips, so log10 2 there, 0 elsewhere
    clipped = (stack.images[0] > 250).any(axis=2)
    test = np.where(clipped[..., None], truth / 2, truth)
    scores, _, _ = radiance.scores(test, truth, stack.images[0])
    for name in ("log_rmse_clipped", "log_rmse_clipped_fully"):
        assert scores[name] == pytest.approx(np.log10(2), rel=1e-5)
    assert scores["log_rmse_unclipped"] < 1e-6
    assert scores["clipped_share"] == pytest.approx(clipped.mean())
    shown = [to_uint8(reinhard.tone_map(image)) for image in (test, truth)]
    assert scores["psnr"] == metrics.psnr(*shown, data_range=255)  # of the images as they come
    scores, _, _ = radiance.scores(test, truth, np.full_like(stack.images[0], 100))
    assert scores["clipped_share"] == 0
    assert all(np.isnan(scores[name]) for name in rows.MAY_BE_EMPTY)


def test_rows_have_every_measure_and_order_as_they_must(stack, methods):
    found = pd.DataFrame(radiance.comparison_rows([stack], methods)).set_index("method")
    assert list(found.index) == [method.name for method in methods]
    assert set(rows.METRICS) - {"ssim", "ms_ssim"} <= set(found.columns)
    assert found["protocol"].eq(radiance.PROTOCOL).all()
    assert found["weights_hash"].ne("none").sum() == 3  # two with the curve, and the chain
    # a gamma 2.2 camera: linearising is exact where nothing clips, so the response does not help
    for name in ("linearised", "true_response", "three_frames", "oracle_curve"):
        assert found.loc[name, "log_rmse_unclipped"] < 0.03
    known, curve = found.loc["truth_where_clipped"], found.loc["tone_curve"]
    assert known["log_rmse_clipped"] < 1e-6
    assert known["log_rmse_unclipped"] == pytest.approx(curve["log_rmse_unclipped"], rel=1e-5)
    assert known["hdrvdp2_q"] > curve["hdrvdp2_q"]
    # the scaling study starts from the protocol; a relative image lies in the dark, where eyes see less
    table = pd.DataFrame(radiance.scaling_rows([stack], methods[:1])).set_index("scaling")
    assert len(table) == len(radiance.TEST_SCALES) + len(radiance.REFERENCE_PEAKS) - 1
    own = found.loc["linearised", ["hdrvdp2_q", "pu21_psnr"]].to_dict()
    first = table.loc["mean where unclipped, truth 1000 cd/m2"]
    assert first[list(own)].to_dict() == pytest.approx(own)
    assert table.loc["mean where unclipped, truth 1 cd/m2", "hdrvdp2_q"] > first["hdrvdp2_q"]


def test_the_curve_is_learnt_on_the_training_data_of_the_chain(chain, tmp_path, stack):
    for ev in chain.evs:
        save_weights(chain[ev], weights_path(ev, tmp_path), {"ev": ev, "dataset": "mini"})
    curves, learnt = tone_curve.for_dataset("mini")
    own = next(m for m in radiance.photo_methods(tmp_path) if m.name == "tone_curve")
    assert own.weights_hash == radiance.truth_methods("mini")[-1].weights_hash == learnt
    np.testing.assert_array_equal(own.run(stack), tone_curve.expand(stack.images[0], curves))
    assert learnt != tone_curve.for_dataset("hdrps")[1]


def test_resumes_after_the_scenes_that_are_done(tmp_path, methods, monkeypatch):
    stacks, scored, real = [make_stack("one"), make_stack("two", 1)], [], radiance.merge_stack
    monkeypatch.setattr(radiance, "merge_stack", lambda images: scored.append(1) or real(images))

    def scenes_scored(stacks, methods, version="1.0+gabc"):
        monkeypatch.setattr(radiance, "code_version", lambda: version)
        scored.clear()
        result = radiance.comparison_rows(stacks, methods, folder=tmp_path)
        assert [row["scene"] for row in result][:: len(methods)] == [s.scene for s in stacks]
        return len(scored)

    one, two = methods[:1], methods[:2]
    assert scenes_scored(stacks[:1], one) == 1
    assert scenes_scored(stacks, one) == 1
    assert scenes_scored(stacks, two) == 2  # other methods
    assert scenes_scored(stacks, two, "1.0+gdef") == 2  # other code
    (tmp_path / "made_two.csv").write_text("cut off")
    assert scenes_scored([make_stack("one", 5), stacks[1]], two, "1.0+gdef") == 2
    black = {ev: np.zeros((20, 20, 3), np.uint8) for ev in range(-3, 4)}
    with pytest.raises(ReplicationError, match="made scene night"):  # a scene that fails is named
        scenes_scored([ExposureStack("made", "night", "test", black)], one)


def test_evaluate_computes_on_its_device(stack, weights_folder, tmp_path, monkeypatch):
    devices = []
    for module, name in ((radiance, "reconstruct"), (metrics, "hdrvdp2"), (metrics, "drim")):
        called = lambda real, *a, device, **o: devices.append(device) or real(*a, **o)  # noqa: E731
        monkeypatch.setattr(module, name, partial(called, getattr(module, name)))
    monkeypatch.setattr(radiance, "choose_device", lambda name: torch.device(name or "cpu"))
    monkeypatch.setattr(radiance, "load_stacks", lambda dataset, split: [stack])
    path = radiance.evaluate("made", tmp_path, weights=weights_folder, jobs=1, device="meta")
    assert devices == [torch.device("meta")] * (2 * len(rows.read_rows(path)) + 1)
    assert [p.name for p in (tmp_path / "rows").iterdir()] == ["made_one.csv"]
    with pytest.raises(ReplicationError, match="at least 1, not 0"):
        radiance.evaluate("nowhere", tmp_path, weights=tmp_path / "none", jobs=0)


@pytest.fixture
def files(tmp_path, truth):
    """Two HDR files and a photo whose left part is clipped."""
    other = truth * np.linspace(0.8, 1.2, truth.shape[1], dtype=np.float32)[:, None]
    photo = np.full(truth.shape, 90, np.uint8)
    photo[:, :16] = 255
    io.write_hdr(tmp_path / "a.exr", other)
    io.write_hdr(tmp_path / "b.exr", truth)
    io.write_png(tmp_path / "photo.png", photo)
    return tmp_path


def test_compare_scales_by_the_photo_or_not_at_all(files):
    pair, photo = (files / "a.exr", files / "b.exr"), files / "photo.png"
    options = {}, {"photo": photo}, {"absolute": True}
    plain, by_photo, absolute = (radiance.compare(*pair, **one) for one in options)
    assert (by_photo["clipped_share"], "clipped_share" in plain) == (0.25, False)
    assert len({one["pu21_psnr"] for one in (plain, by_photo, absolute)}) == 3
    seen = metrics.hdrvdp2(*map(io.read_hdr, pair), "rgb-bt.709", 33.5102139115)
    assert absolute["hdrvdp2_q"] == pytest.approx(seen.Q, abs=1e-9)
    assert radiance.compare_protocol(photo) == radiance.PROTOCOL


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("test", "reference", "words", "options"),
    [
        ("holes", "b", "holes.exr.* NaN", {}),
        ("b", "holes", "holes.exr.* NaN", {}),
        ("a", "small", r"a.exr has 64x48 pixels, but .*small.exr has 64x47", {}),
        ("huge", "b", "huge.exr", {}),
        ("huge", "b", "huge.exr", {"absolute": True}),
        ("tiny", "tiny", r"tiny.exr with .*tiny.exr: .*17", {}),
        ("small", "small", "photo.png has 64x48", {"photo": "photo.png"}),
        ("a", "b", "photo .*absolute", {"photo": "photo.png", "absolute": True}),
        ("a", "b", "Cannot write to .*a.exr is not a folder", {"maps": "a.exr"}),
        ("a", "b", "nonsense", {"device": "nonsense"}),
    ],
)
def test_compare_names_the_file_that_is_wrong(files, monkeypatch, test, reference, words, options):
    monkeypatch.chdir(files)
    good = io.read_hdr("a.exr")
    holes = np.where(np.arange(64)[:, None] == 5, np.nan, good)
    made = {"holes": holes, "small": good[:-1], "tiny": good[:16, :16], "huge": good * 0 + 3e38}
    for name, image in made.items():
        header = {"compression": OpenEXR.ZIP_COMPRESSION}
        OpenEXR.File(header, {"RGB": np.float32(image)}).write(f"{name}.exr")
    with pytest.raises(ReplicationError, match=words):
        radiance.compare(f"{test}.exr", f"{reference}.exr", **options)
