"""HDR comparison: protocol, reference rows with known answers, processes, resuming."""

import numpy as np
import pandas as pd
import pytest
import torch

from replication.baselines import expandnet
from replication.data.stacks import ExposureStack
from replication.evaluation import radiance as comparison
from replication.evaluation import rows as report
from replication.files import ReplicationError
from replication.hdr import reinhard
from replication.images import luminance as luminance_of
from replication.images import to_uint8
from replication.metrics import fidelity
from replication.reconstruct import merge_stack
from replication.report import tables


def make_stack(name="one", seed=0, size=(48, 64)):
    """A scene of gratings, a lamp that EV 0 clips, and noise-free frames of a gamma camera."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[0 : size[0], 0 : size[1]] / 48
    light = 0.12 * (1.2 + np.sin(9 * x + generator.uniform(0, 3)) * np.cos(7 * y))
    lamp = 3 * np.exp(-((x - 0.7) ** 2 + (y - 0.5) ** 2) * 18)
    tint = generator.uniform(0.7, 1, 3)
    radiance = ((light + lamp)[..., None] * tint).astype(np.float32)
    images = {ev: to_uint8(np.clip(radiance * 2.0**ev, 0, 1) ** (1 / 2.2)) for ev in range(-3, 4)}
    return ExposureStack("made", name, "test", images, radiance)


@pytest.fixture(scope="module")
def stack():
    return make_stack()


@pytest.fixture(scope="module")
def methods(weights_folder):
    return comparison.photo_methods(weights_folder) + comparison.truth_methods()


@pytest.fixture(scope="module")
def rows(stack, methods):
    return pd.DataFrame(comparison.comparison_rows([stack], methods)).set_index("method")


def test_the_truth_scores_perfectly_in_any_unit(stack):
    truth = merge_stack(stack.images)
    scores, seen, changes = comparison.scores(truth, truth, stack.images[0])
    assert scores["psnr"] == np.inf
    assert scores["hdrvdp2_q"] == pytest.approx(100)
    assert scores["pu21_psnr"] > 150  # scaling rounds to float32
    assert max(scores["log_rmse_clipped"], scores["log_rmse_unclipped"]) < 1e-6
    assert seen.P_map.max() < 1e-12
    assert max(map(np.max, changes)) == 0
    other, _, _ = comparison.scores(truth * np.float32(7), truth, stack.images[0])
    assert other["hdrvdp2_q"] > 99
    assert other["log_rmse_unclipped"] < 1e-6


def test_a_known_error_is_measured(stack):
    # one stop too dark wherever EV 0 clips, so log10 2 there, 0 elsewhere
    truth = merge_stack(stack.images)
    clipped = (stack.images[0] > 250).any(axis=2)
    test = truth.copy()
    test[clipped] /= 2
    scores, _, _ = comparison.scores(test, truth, stack.images[0])
    assert scores["log_rmse_clipped"] == pytest.approx(np.log10(2), rel=1e-5)
    assert scores["log_rmse_clipped_fully"] == pytest.approx(np.log10(2), rel=1e-5)
    assert scores["log_rmse_unclipped"] < 1e-6
    assert scores["clipped_share"] == pytest.approx(clipped.mean())


def test_errors_over_no_pixels_are_empty(stack):
    truth = merge_stack(stack.images)
    dark = np.full_like(stack.images[0], 100)
    scores, _, _ = comparison.scores(truth * np.float32(2), truth, dark)
    for name in report.MAY_BE_EMPTY:
        assert np.isnan(scores[name])
    assert scores["clipped_share"] == 0


def test_rows_have_every_measure_and_their_protocol(rows, methods):
    assert list(rows.index) == [method.name for method in methods]
    assert set(rows.index) <= tables.METHOD_NAMES.keys()
    assert rows.loc["linearised", "protocol"] == comparison.PROTOCOL
    assert "33.5102" in comparison.PROTOCOL
    assert "99.9th" in comparison.PROTOCOL
    hdr_metrics = [name for name in report.METRICS if name not in ("ssim", "ms_ssim")]
    assert set(hdr_metrics) <= set(rows.columns)
    assert rows["weights_hash"].ne("none").sum() == 3  # two with the curve, and the chain


def test_rows_of_the_truth_order_as_they_must(rows, stack):
    # a gamma 2.2 camera: linearising is exact where nothing clips, so the response does not help
    assert rows.loc["linearised", "log_rmse_unclipped"] < 0.03
    assert rows.loc["true_response", "log_rmse_unclipped"] < 0.03
    # the truth in clipped pixels leaves no error there and the tone curve's elsewhere
    assert rows.loc["truth_where_clipped", "log_rmse_clipped"] < 1e-6
    assert rows.loc["truth_where_clipped", "log_rmse_unclipped"] == pytest.approx(
        rows.loc["tone_curve", "log_rmse_unclipped"], rel=1e-5
    )
    q = rows["hdrvdp2_q"]
    assert q["truth_where_clipped"] > q["tone_curve"]
    assert rows.loc["three_frames", "log_rmse_unclipped"] < 0.03


def test_oracle_is_at_least_as_near_as_any_pointwise_stack(stack):
    oracle = comparison.truth_methods()[2].expand(stack)
    scores, _, _ = comparison.scores(oracle, merge_stack(stack.images), stack.images[0])
    assert scores["log_rmse_unclipped"] < 0.02


def test_tone_mapped_psnr_is_of_the_images_as_they_come(stack):
    truth = merge_stack(stack.images)
    test = truth**0.9
    shown = [to_uint8(reinhard.tone_map(image)) for image in (test, truth)]
    scores, _, _ = comparison.scores(test, truth, stack.images[0])
    assert scores["psnr"] == fidelity.psnr(*shown, data_range=255)


def test_processes_give_the_same_rows(methods):
    stacks = [make_stack("one"), make_stack("two", 1), make_stack("three", 2)]
    cheap = [m for m in methods if m.name in ("linearised", "oracle_curve")]
    alone = comparison.comparison_rows(stacks, cheap)
    assert comparison.comparison_rows(stacks, cheap, jobs=2) == alone
    assert [row["scene"] for row in alone] == ["one", "one", "two", "two", "three", "three"]


def test_resumes_after_the_scenes_that_are_done(tmp_path, methods, monkeypatch):
    monkeypatch.setattr(comparison, "code_version", lambda: "1.0+gabc")
    stacks = [make_stack("one"), make_stack("two", 1)]
    cheap = [methods[0]]
    first = comparison.comparison_rows(stacks[:1], cheap, folder=tmp_path)
    scored = []
    real = comparison._scene_rows

    def watched(stack, **options):
        scored.append(stack.scene)
        return real(stack, **options)

    monkeypatch.setattr(comparison, "_scene_rows", watched)
    both = comparison.comparison_rows(stacks, cheap, folder=tmp_path)
    assert scored == ["two"]
    assert both[0]["scene"] == "one"
    assert both[0]["hdrvdp2_q"] == pytest.approx(first[0]["hdrvdp2_q"], abs=1e-6)
    # other methods, other code, a changed picture or a broken file: all anew
    comparison.comparison_rows(stacks, methods[:2], folder=tmp_path)
    assert scored == ["two", "one", "two"]
    monkeypatch.setattr(comparison, "code_version", lambda: "1.0+gdef")
    comparison.comparison_rows(stacks, methods[:2], folder=tmp_path)
    assert scored == ["two", "one", "two", "one", "two"]
    changed = make_stack("one", 5)
    (tmp_path / "made_two.csv").write_text("cut off")
    comparison.comparison_rows([changed, stacks[1]], methods[:2], folder=tmp_path)
    assert scored[5:] == ["one", "two"]


def test_rows_of_an_edited_tree_are_never_kept(tmp_path, methods, monkeypatch):
    monkeypatch.setattr(comparison, "code_version", lambda: "1.0+gabc.dirty")
    stack, cheap = make_stack(), [methods[0]]
    comparison.comparison_rows([stack], cheap, folder=tmp_path)
    (path,) = tmp_path.iterdir()
    before = path.stat().st_mtime_ns
    comparison.comparison_rows([stack], cheap, folder=tmp_path)
    assert path.stat().st_mtime_ns > before


def test_a_failing_scene_is_named(methods):
    black = {ev: np.zeros((20, 20, 3), np.uint8) for ev in range(-3, 4)}
    with pytest.raises(ReplicationError, match="made scene night"):
        comparison.comparison_rows([ExposureStack("made", "night", "test", black)], methods[:1])
    with pytest.raises(ReplicationError, match="processes"):
        comparison.comparison_rows([], methods, jobs=0)


def test_scaling_study_moves_what_it_should(stack, methods):
    dim = comparison.Expansion("linearised", methods[0].expand)
    rows = pd.DataFrame(comparison.scaling_rows([stack], [dim])).set_index("scaling")
    assert len(rows) == len(comparison.TEST_SCALES) + len(comparison.REFERENCE_PEAKS) - 1
    own, _, _ = comparison.scores(dim.expand(stack), merge_stack(stack.images), stack.images[0])
    assert rows.index[0] == tables.PROTOCOL_SCALING
    assert rows.iloc[0]["hdrvdp2_q"] == pytest.approx(own["hdrvdp2_q"])
    assert rows.iloc[0]["pu21_psnr"] == pytest.approx(own["pu21_psnr"])
    # a relative image lies in the dark, where the eye sees less
    dark = rows.loc["mean where unclipped, truth 1 cd/m2", "hdrvdp2_q"]
    assert dark > rows.iloc[0]["hdrvdp2_q"]


def test_figure7_has_the_papers_methods_and_the_curve(stack, methods):
    ldr, truth, results = comparison.figure7(stack, methods)
    assert list(results) == ["masia", "kovaleski_oliveira", "huo", "tone_curve", "deep_chain"]
    for picture, seen, changes, q in results.values():
        assert picture.shape == ldr.shape == truth.shape == changes.shape
        assert seen.shape == ldr.shape[:2]
        assert changes.dtype == np.uint8
        assert q < 100


# ----------------------------------------------------------------------------------- ExpandNet

FAKE = """
import torch
from torch import nn

class ExpandNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(3))

    def predict(self, x, patch_size):
        assert patch_size == 256 and x.shape[0] == 3 and x.min() == 0 and x.max() == 1
        return (x ** 2) * self.gain[:, None, None]
"""


@pytest.fixture
def clone(tmp_path):
    (tmp_path / "model.py").write_text(FAKE)
    torch.save({"gain": torch.tensor([1.0, 2.0, 4.0])}, tmp_path / "weights.pth")
    return tmp_path


def test_expandnet_runs_from_a_clone(clone, photo):
    hdr = expandnet.expand(photo, clone=clone)
    linear = ((photo - photo.min()) / np.float32(np.ptp(photo))) ** 2 * [1, 2, 4]
    np.testing.assert_allclose(
        hdr, (linear - linear.min()) / (linear.max() - linear.min()), atol=1e-6
    )
    assert hdr.dtype == np.float32
    (method,) = [
        m for m in comparison.photo_methods(expandnet_clone=clone) if m.name == "expandnet"
    ]
    assert len(method.weights_hash) == 12


def test_expandnet_needs_its_files(clone, tmp_path, photo):
    with pytest.raises(ReplicationError, match=r"no model\.py"):
        expandnet.load(tmp_path / "nowhere")
    torch.save({"other": torch.zeros(3)}, clone / "weights.pth")
    with pytest.raises(ReplicationError, match="Cannot load ExpandNet"):
        expandnet.load(clone / ".")
    (clone / "weights.pth").unlink()
    with pytest.raises(ReplicationError, match=r"no weights\.pth"):
        expandnet.load(clone / ".." / clone.name)


def test_a_constant_picture_does_not_divide_by_zero(clone):
    with pytest.raises(ReplicationError, match="uint8 or floating"):
        expandnet.expand(np.zeros((4, 4, 3), np.int32), clone=clone)
    assert not expandnet._stretched(np.full((4, 4, 3), 9, np.uint8)).any()


def test_the_merged_truth_is_the_light_that_was_photographed(stack):
    merged, known = merge_stack(stack.images), stack.radiance
    ratio = luminance_of(merged) / luminance_of(known)
    assert np.percentile(np.abs(np.log10(ratio / np.median(ratio))), 95) < 0.05
