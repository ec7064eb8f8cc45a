"""Response and merge against the MATLAB toolbox, OpenCV, plain loops and scenes of known radiance."""

import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest

from replication.hdr import debevec
from tests.conftest import SHARED_GOLDEN
from tests.test_stacks import fails

GOLDEN = Path(__file__).parent / "golden" / "debevec_syn7.npz"
TIMES = 2.0 ** np.arange(-3, 4)
LEVEL = np.arange(256)
HAT = np.minimum(LEVEL, 255 - LEVEL) / 127.5


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as file:
        return dict(file)


CAMERAS = [lambda x: x ** (1 / 2.2), lambda x: 1.6 * x**0.9 / (x**0.9 + 0.6)]


def synthetic_stack(camera, shape=(96, 128)):
    """Smooth random radiance over some ten stops, seen through `camera` in seven exposures."""
    base = cv2.GaussianBlur(np.random.default_rng(1).normal(size=(*shape, 3)), (0, 0), 3)
    radiance = np.exp(1.1 * base / base.std() - 1.0)
    exposures = (np.clip(0.5 * radiance * t, 0, 1) for t in TIMES)
    return radiance, [np.rint(255 * camera(x)).astype(np.uint8) for x in exposures]


def test_samples_are_quantiles_of_each_channel():
    """An image with every level once has the level i / 255 at share i / 255, whatever the order."""
    levels = np.random.default_rng(0).permutation(256).astype(np.uint8).reshape(16, 16)
    image = np.stack([levels, levels.T, levels[::-1]], axis=2)
    samples = debevec.sample_grossberg([image, image // 2])
    np.testing.assert_allclose(samples[:, 0], np.repeat(LEVEL[:, None], 3, 1), atol=1)
    np.testing.assert_allclose(samples[:, 1], np.repeat(LEVEL[:, None] // 2, 3, 1), atol=1)


@pytest.mark.parametrize(
    ("smoothness", "bounds"),
    [(10, (5e-4, 1e-9, 2e-3)), (20, (1e-9, 2.4e-4, 1e-9)), (128, (1e-9, 1e-9, 1e-9))],
)
def test_solve_response_equals_the_toolbox(golden, smoothness, bounds):
    """To rounding; in the ill-determined channels ours minimises the equations better."""
    log_times = np.log(golden["exposure_times"])
    for channel, bound in enumerate(bounds):
        samples = golden["samples"][:, :, channel]
        ours = debevec.solve_response(samples, log_times, smoothness)
        theirs = golden[f"g_lambda{smoothness}"][:, channel]
        assert np.abs(ours - theirs).max() < bound
        assert abs(ours[128]) < 1e-9
        costs = [cost(g, samples, log_times, smoothness) for g in (ours, theirs)]
        assert costs[0] <= costs[1] * (1 + 1e-9)


def cost(g, samples, log_times, smoothness):
    """Debevec & Malik's objective, with the best log radiance of every row."""
    w2 = HAT[samples] ** 2
    difference = g[samples] - log_times
    total = w2.sum(1, keepdims=True)
    mean = (w2 * difference).sum(1, keepdims=True) / np.where(total > 0, total, 1)
    bend = smoothness * HAT[1:-1] * np.diff(g, 2)
    return (w2 * (difference - mean) ** 2).sum() + (bend**2).sum() + g[128] ** 2


def test_channels_are_equal_at_mid_grey_and_blue_is_normalised():
    _, images = synthetic_stack(CAMERAS[1])
    images = [image // np.array([1, 2, 3], np.uint8) for image in images]
    response = debevec.estimate_response(images, TIMES)
    assert np.ptp(response[127]) < 1e-12
    samples = debevec.sample_grossberg(images)
    raw = [debevec.solve_response(samples[:, :, c], np.log(TIMES), 20.0) for c in range(3)]
    factors = np.exp(response - np.transpose(raw) + raw[2].max())
    np.testing.assert_allclose(np.prod(factors[0]), 1.0, rtol=1e-12)
    np.testing.assert_allclose(factors, np.repeat(factors[:1], 256, 0), rtol=1e-9)


@pytest.mark.parametrize("camera", CAMERAS, ids=["gamma", "sigmoid"])
def test_known_camera_and_radiance_are_recovered(camera):
    """Also against OpenCV, which solves the same equations on 256 pixels of its own choice."""
    times = TIMES.astype(np.float32)
    radiance, images = synthetic_stack(camera)
    response = debevec.estimate_response(images, TIMES)
    x = np.linspace(0, 1, 200_001)
    truth = np.log(np.interp(LEVEL[1:], 255 * camera(x), x))[19:245, None]
    error = response[20:246] - truth
    assert np.sqrt(np.mean((error - error.mean(axis=0)) ** 2)) < 0.03
    merged = debevec.merge(images, TIMES, response)
    stops = np.log2(merged / radiance) - np.median(np.log2(merged / radiance))
    well_exposed = np.max([np.minimum(i, 255 - i) for i in images], axis=0) > 30
    assert np.median(np.abs(stops)) < 0.01
    assert np.sqrt(np.mean(stops[well_exposed] ** 2)) < 0.02
    theirs = cv2.createCalibrateDebevec(256, 20).process(images, times)
    stops = np.log2(cv2.createMergeDebevec().process(images, times, theirs) / merged)
    assert np.median(np.abs(stops - np.median(stops, axis=(0, 1)))) < 0.02


@pytest.mark.parametrize("curve", ["curve", "gamma"])
def test_merge_equals_the_toolbox(golden, curve):
    response = np.repeat(2.2 * np.log(np.maximum(LEVEL / 255, 1e-15))[:, None], 3, axis=1)
    response = np.log(golden["lin_fun_lambda20"]) if curve == "curve" else response
    frames = list(np.moveaxis(golden["pixel_levels"], 1, 0)[:, None])
    merged = debevec.merge(frames, golden["exposure_times"], response)
    truth = golden[f"pixel_hdr_{curve}_deb97_log"]
    np.testing.assert_allclose(merged[0], truth, rtol=2e-6, atol=1e-30)


@pytest.mark.parametrize(
    ("levels", "source"),
    [
        ([0, 0, 255, 255], -1),  # frame 2 of 4 is the middle one
        ([0, 255, 255, 255], 0),
        ([0, 0, 0, 255, 255], -1),
        ([0, 0, 255, 255, 255], 0),
    ],
)
def test_pixels_that_no_frame_exposes_well(levels, source):
    """The middle frame decides for all channels: bright takes the shortest exposure, dark the longest."""
    times, response = np.array([0.5, 1, 3, 8, 9])[: len(levels)], np.outer(LEVEL, [0.01, 0.02, 0.03]) - 6
    frames = np.tile(np.array(levels, np.uint8)[:, None, None, None], (1, 1, 1, 3))
    frames[..., 1] = 100
    truth = np.exp(response[frames[source, 0, 0], [0, 1, 2]]) / times[source]
    np.testing.assert_allclose(debevec.merge(frames, times, response)[0, 0], truth, rtol=1e-6)
    frames[..., 0], frames[..., 2] = 255, 0  # the longest wins where both apply
    truth = np.exp(response[[255, 100, 0], [0, 1, 2]]) / times[-1]
    np.testing.assert_allclose(debevec.merge(frames, times, response)[0, 0], truth, rtol=1e-6)


def test_order_and_container_of_the_stack_do_not_matter():
    _, images = synthetic_stack(CAMERAS[1], shape=(40, 30))
    response, order = debevec.estimate_response(images, TIMES), [4, 0, 6, 2, 1, 5, 3]
    shuffled = np.stack([images[i] for i in order])
    assert np.array_equal(debevec.estimate_response(shuffled, TIMES[order]), response)
    merged = debevec.merge(images, TIMES, response)
    assert np.array_equal(debevec.merge(shuffled, TIMES[order], response), merged)


def test_blocks_bound_the_memory_and_change_nothing(monkeypatch):
    frames = np.random.default_rng(0).integers(0, 256, (7, 700, 1000, 3)).astype(np.uint8)
    tracemalloc.start()
    merged = debevec.merge(frames, TIMES, np.zeros((256, 3)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 700 * 1000 * 12 + 16e6, "little more than the result"
    monkeypatch.setattr(debevec, "_BLOCK_PIXELS", 50)
    assert np.array_equal(debevec.merge(frames[:, :9], TIMES, np.zeros((256, 3))), merged[:9])


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((7, 5, 6, 3)),
        np.full((7, 5, 6, 3), 255),
        np.random.default_rng(1).choice([0, 255], (7, 5, 6, 3)),
        np.random.default_rng(3).integers(0, 256, (7, 40, 40, 3))[::-1].cumsum(0).clip(0, 255),
    ],
)
def test_any_stack_gives_finite_radiance(frames):
    frames = frames.astype(np.uint8)
    merged = debevec.merge(frames, TIMES, debevec.estimate_response(frames, TIMES))
    assert merged.dtype == np.float32
    assert np.isfinite(merged).all()
    assert merged.all() if frames.any() else not merged.any(), "black is black"


def test_bad_input_gets_one_sentence():
    good, flat = np.zeros((2, 4, 4, 3), np.uint8), np.zeros((256, 3))
    fails("no image", debevec.estimate_response, [], [])
    fails("2 images", debevec.estimate_response, good, [1, 2, 3])
    fails("positive", debevec.estimate_response, good, [0, 2])
    fails("two different", debevec.estimate_response, good, [2, 2])
    fails("positive", debevec.merge, good, [1, np.nan], flat)
    fails("NaN", debevec.merge, good, [1, 2], flat * np.nan)


@pytest.mark.skipif(not SHARED_GOLDEN.is_dir(), reason="the whole golden results are not here")
def test_whole_stack_equals_the_toolbox():
    with np.load(SHARED_GOLDEN / "inputs" / "stacks.npz") as file:
        stack, times = np.moveaxis(file["syn7"], -1, 0), file["syn7_exposure"]
    with np.load(SHARED_GOLDEN / "debevec_2018.npz") as file:
        truth = {name[6:]: file[name] for name in file.files if name.startswith("syn7__")}
    assert np.array_equal(debevec.sample_grossberg(stack), truth["samples_grossberg"])
    response, curve = np.exp(debevec.estimate_response(stack, times)), truth["lin_fun_lambda20"]
    relative = (response / response[127]) / (curve / curve[127]) - 1
    assert (np.abs(relative).max(axis=0) < [1e-9, 2.4e-4, 1e-9]).all()
    merged = debevec.merge(stack, times, np.log(curve))
    np.testing.assert_allclose(merged, truth["hdr_LUT_Deb97_log"], rtol=2e-6)
