"""The tone curve on stacks whose true curve is known."""

import numpy as np
import pytest

from replication.baselines import tone_curve
from replication.files import ReplicationError

LEVELS = np.arange(256)


@pytest.fixture
def stack():
    base = np.stack([LEVELS, LEVELS[::-1], np.roll(LEVELS, 7)], -1).astype(np.uint8)[None]
    return {0: base, 1: np.minimum(base + np.array([10, 20, 30]), 255).astype(np.uint8)}


def test_curve_is_the_mean_target_of_each_level():
    first = {0: np.full((1, 2, 3), 50, np.uint8), 1: np.full((1, 2, 3), 80, np.uint8)}
    second = {0: np.full((1, 1, 3), 50, np.uint8), 1: np.full((1, 1, 3), 110, np.uint8)}
    curves = tone_curve.fit([first, second], (1,))
    assert curves[1][50] == pytest.approx([90, 90, 90])  # two pixels at 80, one at 110


def test_empty_levels_are_interpolated():
    image = np.array([[[0] * 3, [100] * 3]], np.uint8)
    curve = tone_curve.fit([{0: image, 1: image * 2}], (1,))[1]
    assert curve[50] == pytest.approx([100] * 3)
    assert curve[255] == pytest.approx([200] * 3)  # beyond the last level: its value


def test_a_pointwise_camera_is_learnt_exactly(stack):
    curves = tone_curve.fit([stack], (1,))
    inferred = tone_curve.infer_stack(stack[0], curves)
    assert list(inferred) == [0, 1]
    assert np.array_equal(inferred[1], stack[1])
    assert inferred[1].dtype == np.uint8
    unrounded = tone_curve.infer_stack(stack[0], curves, rounded=False)[1]
    assert unrounded == pytest.approx(stack[1])


def test_curves_round_trip_through_csv(stack, tmp_path):
    curves = tone_curve.fit([stack], (1,))
    tone_curve.write(tmp_path / "curves.csv", curves)
    again = tone_curve.read(tmp_path / "curves.csv")
    assert list(again) == [1]
    np.testing.assert_allclose(again[1], curves[1], atol=5e-5)


def test_expand_gives_back_the_radiance_of_a_synthetic_scene():
    radiance = np.geomspace(0.02, 4, 4096).reshape(64, 64, 1).repeat(3, -1)

    def camera(ev):
        return np.rint(255 * np.clip(radiance * 2.0**ev, 0, 1) ** (1 / 2.2)).astype(np.uint8)

    images = {ev: camera(ev) for ev in range(-3, 4)}
    hdr = tone_curve.expand(images[0], tone_curve.fit([images]))
    seen = (images[0][..., 1] > 40) & (images[0][..., 1] < 215)
    ratio = np.log2(hdr[..., 1][seen] / radiance[..., 0][seen])
    assert np.ptp(ratio) < 0.35  # stops; the middle tones come back up to a factor


def test_errors(stack, tmp_path):
    with pytest.raises(ReplicationError, match="at least one stack"):
        tone_curve.fit([], (1,))
    with pytest.raises(ReplicationError, match=r"lacks EV \+2"):
        tone_curve.fit([stack], (1, 2))
    with pytest.raises(ReplicationError, match="No tone curves at"):
        tone_curve.read(tmp_path / "none.csv")
    (tmp_path / "bad.csv").write_text("level,ev+1_r\n0,3\n")
    with pytest.raises(ReplicationError, match=r"bad\.csv holds no tone curves"):
        tone_curve.read(tmp_path / "bad.csv")
