"""The tone curve on stacks with a known curve."""

import numpy as np
import pytest

from replication.baselines import tone_curve
from replication.files import sha256_file
from replication.hdr.io import write_png
from tests.test_stacks import fails


@pytest.fixture
def stack():
    level = np.arange(256, dtype=np.uint8)
    base = np.stack([level, level[::-1], np.roll(level, 7)], -1)[None]
    return {0: base, 1: np.minimum(base + np.array([10, 20, 30]), 255).astype(np.uint8)}


def test_curve_is_the_mean_target_of_each_level():
    first = {0: np.full((1, 2, 3), 50, np.uint8), 1: np.full((1, 2, 3), 80, np.uint8)}
    second = {0: np.full((1, 1, 3), 50, np.uint8), 1: np.full((1, 1, 3), 110, np.uint8)}
    curves = tone_curve.fit([first, second], (1,))
    assert curves[1][50] == pytest.approx([90, 90, 90])  # two pixels at 80, one at 110
    back = tone_curve.fit([first], (0,), source=1)
    assert back[0][80] == pytest.approx([50] * 3)
    image = np.array([[[0] * 3, [100] * 3]], np.uint8)
    curve = tone_curve.fit([{0: image, 1: image * 2}], (1,))[1]
    assert curve[50] == pytest.approx([100] * 3), "interpolated"
    assert curve[255] == pytest.approx([200] * 3), "beyond the last level: its value"


def test_a_pointwise_camera_is_learnt_exactly_and_read_back(stack, tmp_path):
    curves = tone_curve.fit([stack], (1,))
    inferred = tone_curve.infer_stack(stack[0], curves)
    assert list(inferred) == [0, 1]
    assert np.array_equal(inferred[1], stack[1])
    unrounded = tone_curve.infer_stack(stack[0], curves, rounded=False)[1]
    assert unrounded == pytest.approx(stack[1])

    tone_curve.write(tmp_path / "curves.csv", curves)
    again = tone_curve.read(tmp_path / "curves.csv")
    assert list(again) == [1]
    np.testing.assert_allclose(again[1], curves[1], atol=5e-5)


def test_expand_gives_back_the_radiance_of_a_synthetic_scene():
    radiance = np.geomspace(0.02, 4, 4096).reshape(64, 64, 1).repeat(3, -1)
    exposures = {ev: np.clip(radiance * 2.0**ev, 0, 1) for ev in range(-3, 4)}
    images = {ev: np.rint(255 * x ** (1 / 2.2)).astype(np.uint8) for ev, x in exposures.items()}
    hdr = tone_curve.expand(images[0], tone_curve.fit([images]))
    seen = (images[0][..., 1] > 40) & (images[0][..., 1] < 215)
    ratio = np.log2(hdr[..., 1][seen] / radiance[..., 0][seen])
    assert np.ptp(ratio) < 0.35  # stops; the middle tones come back up to a factor


def test_curves_of_a_data_set(tmp_path, monkeypatch):
    shipped = sha256_file(tone_curve.REFERENCE)[:12]
    for dataset in ("hdrps", "openstacks", "empa"):
        curves, digits = tone_curve.for_dataset(dataset)
        assert digits == shipped
        assert np.array_equal(curves[1], tone_curve.read()[1])

    found = {}
    for shift in (5, 9):  # two copies of one data set: each has its own curves
        root = tmp_path / str(shift)
        monkeypatch.setenv("REPLICATION_DATA", str(root))
        for ev in range(-3, 4):
            image = np.full((8, 8, 3), 100 + shift * ev, np.uint8)
            write_png(root / f"vds/train_set/t01/t01_{ev}EV_true.jpg.png", image)
        curves, found[shift] = tone_curve.for_dataset("vds")
        assert curves[2][100] == pytest.approx([100 + 2 * shift] * 3)
        assert tone_curve.for_dataset("vds")[0] is curves, "fitted once"
    assert len({shipped, *found.values()}) == 3


def test_errors(stack, tmp_path):
    fails("at least one stack", tone_curve.fit, [], (1,))
    fails(r"Stack 0 lacks EV \+2", tone_curve.fit, [stack], (1, 2))
    fails("No tone curves at", tone_curve.read, tmp_path / "none.csv")
    for text in ("level,ev+1_r\n0,3\n", "level,ev+1_r,ev+1_g,ev+1_b\n0,1,2,3\n", "\xff"):
        (tmp_path / "bad.csv").write_text(text, encoding="latin-1")
        fails(r"bad\.csv holds no tone curves", tone_curve.read, tmp_path / "bad.csv")
