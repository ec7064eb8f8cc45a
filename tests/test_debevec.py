"""Response and merge against the MATLAB toolbox, OpenCV, plain loops and scenes of known radiance."""

import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest

from replication.files import ReplicationError
from replication.hdr import debevec

GOLDEN = Path(__file__).parent / "golden" / "debevec_syn7.npz"
WHOLE = Path(__file__).resolve().parents[2] / "shared" / "golden"
TIMES = 2.0 ** np.arange(-3, 4)


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as file:
        return dict(file)


def synthetic_stack(camera, seed=1, shape=(96, 128)):
    """Smooth random radiance over some ten stops, seen through `camera` in seven exposures."""
    rng = np.random.default_rng(seed)
    base = cv2.GaussianBlur(rng.normal(size=(*shape, 3)), (0, 0), 3)
    radiance = np.exp(1.1 * base / base.std() - 1.0)
    images = [
        np.rint(255 * camera(np.clip(0.5 * radiance * t, 0, 1))).astype(np.uint8) for t in TIMES
    ]
    return radiance, images


def gamma_camera(x):
    return x ** (1 / 2.2)


def sigmoid_camera(x):
    return 1.6 * x**0.9 / (x**0.9 + 0.6)


def true_log_exposure(camera):
    x = np.linspace(0, 1, 200_001)
    return np.log(np.interp(np.arange(1, 256), 255 * camera(x), x))


# --- samples ---------------------------------------------------------------------------------


def test_samples_are_quantiles_of_each_channel():
    """An image with every level once has the level i / 255 at share i / 255, whatever the order."""
    levels = np.random.default_rng(0).permutation(256).astype(np.uint8).reshape(16, 16)
    image = np.stack([levels, levels.T, levels[::-1]], axis=2)
    samples = debevec.sample_grossberg([image, image // 2])
    assert samples.shape == (256, 2, 3)
    np.testing.assert_allclose(samples[:, 0], np.repeat(np.arange(256)[:, None], 3, 1), atol=1)
    np.testing.assert_allclose(samples[:, 1], np.repeat(np.arange(256)[:, None] // 2, 3, 1), atol=1)


def test_samples_take_the_first_of_equally_near_levels():
    image = np.full((2, 2, 3), 7, np.uint8)
    image[0] = 200
    samples = debevec.sample_grossberg(image[None], samples=3)
    assert samples[:, 0, 0].tolist() == [0, 7, 200]


# --- response --------------------------------------------------------------------------------


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
        ours_cost = cost(ours, samples, log_times, smoothness)
        assert ours_cost <= cost(theirs, samples, log_times, smoothness) * (1 + 1e-9)


def cost(g, samples, log_times, smoothness):
    """Debevec & Malik's objective, with the best log radiance of every row."""
    level = np.arange(256)
    weight = np.minimum(level, 255 - level) / 127.5
    w2 = weight[samples] ** 2
    difference = g[samples] - log_times
    total = w2.sum(1, keepdims=True)
    mean = (w2 * difference).sum(1, keepdims=True) / np.where(total > 0, total, 1)
    bend = smoothness * weight[1:-1] * np.diff(g, 2)
    return (w2 * (difference - mean) ** 2).sum() + (bend**2).sum() + g[128] ** 2


def test_solve_response_equals_the_full_system():
    """The elimination of the radiances changes nothing: solve for all unknowns at once."""
    rng = np.random.default_rng(3)
    samples = np.sort(rng.integers(0, 256, (40, 4)), axis=1)
    log_times = np.log([1.0, 2.5, 4.0, 9.0])
    level = np.arange(256)
    weight = np.minimum(level, 255 - level) / 127.5
    rows, right = [], []
    for i, row in enumerate(samples):
        for z, log_time in zip(row, log_times, strict=True):
            equation = np.zeros(256 + 40)
            equation[z], equation[256 + i] = weight[z], -weight[z]
            rows.append(equation)
            right.append(weight[z] * log_time)
    for z in range(1, 255):
        equation = np.zeros(256 + 40)
        equation[z - 1 : z + 2] = 5.0 * weight[z] * np.array([1, -2, 1])
        rows.append(equation)
        right.append(0.0)
    anchor = np.zeros(256 + 40)
    anchor[128] = 1
    full = np.linalg.lstsq(np.array([*rows, anchor]), np.array([*right, 0.0]), rcond=None)[0]
    ours = debevec.solve_response(samples, log_times, 5.0)
    np.testing.assert_allclose(ours, full[:256], atol=1e-8)


def test_channels_are_equal_at_mid_grey_and_blue_is_normalised():
    _, images = synthetic_stack(sigmoid_camera)
    images = [np.stack([i[..., 0], i[..., 1] // 2, i[..., 2] // 3], axis=2) for i in images]
    response = debevec.estimate_response(images, TIMES)
    assert response.shape == (256, 3)
    assert np.ptp(response[127]) < 1e-12
    raw = np.stack(
        [
            debevec.solve_response(debevec.sample_grossberg(images)[:, :, c], np.log(TIMES), 20.0)
            for c in range(3)
        ],
        axis=1,
    )
    factors = np.exp(response - raw + raw[:, 2].max())
    np.testing.assert_allclose(np.prod(factors[0]), 1.0, rtol=1e-12)
    np.testing.assert_allclose(factors, np.repeat(factors[:1], 256, 0), rtol=1e-9)


@pytest.mark.parametrize("camera", [gamma_camera, sigmoid_camera])
def test_known_camera_and_radiance_are_recovered(camera):
    radiance, images = synthetic_stack(camera)
    response = debevec.estimate_response(images, TIMES)
    error = response[20:246] - true_log_exposure(camera)[19:245, None]
    error -= error.mean(axis=0)
    assert np.sqrt(np.mean(error**2)) < 0.03

    stops = np.log2(debevec.merge(images, TIMES, response) / radiance)
    stops -= np.median(stops)
    well_exposed = np.max([np.minimum(i, 255 - i) for i in images], axis=0) > 30
    assert well_exposed.mean() > 0.99
    assert np.median(np.abs(stops)) < 0.01
    assert np.sqrt(np.mean(stops[well_exposed] ** 2)) < 0.02


def test_true_response_gives_back_radiance_within_quantisation():
    """With the camera's own curve, half a level of every frame bounds the error."""
    radiance, images = synthetic_stack(gamma_camera)
    level = np.arange(256)
    curve = (np.maximum(level, 1e-3) / 255) ** 2.2
    response = np.repeat(np.log(curve)[:, None], 3, axis=1)
    merged = debevec.merge(images, TIMES, response, fill_in=False)

    weight = np.minimum(level, 255 - level) / 127.5
    half_level = 2.2 * 0.5 / np.maximum(level - 0.5, 0.5) + 1 / 65536 / curve
    well_exposed = np.max([np.minimum(i, 255 - i) for i in images], axis=0) > 30
    levels = np.stack([i[well_exposed] for i in images])
    bound = (weight * half_level)[levels].sum(axis=0) / weight[levels].sum(axis=0)
    ratio = merged[well_exposed] / (0.5 * radiance[well_exposed])
    assert (np.abs(np.log(ratio)) < bound).all()
    assert abs(np.median(ratio) - 1) < 1e-3


@pytest.mark.parametrize("camera", [gamma_camera, sigmoid_camera])
def test_agrees_with_opencv(camera):
    """OpenCV solves the same equations on 256 pixels of its own choice.

    Bounds: curve 0.06 rms in ln units over levels 20 to 235; radiance 0.02 stops in the median.
    """
    _, images = synthetic_stack(camera)
    times = TIMES.astype(np.float32)
    ours = debevec.estimate_response(images, TIMES)
    theirs = cv2.createCalibrateDebevec(256, 20).process(images, times)
    error = (np.log(theirs[:, 0]) - ours)[20:236]
    error -= error.mean(axis=0)
    assert np.sqrt(np.mean(error**2)) < 0.06

    stops = np.log2(
        cv2.createMergeDebevec().process(images, times, theirs) / debevec.merge(images, TIMES, ours)
    )
    stops -= np.median(stops, axis=(0, 1))
    assert np.median(np.abs(stops)) < 0.02


def test_merge_equals_opencv_where_nothing_clips():
    """Same curve, no level near the ends: the two merges differ by their weights' offset only."""
    radiance = np.random.default_rng(5).uniform(0.15, 0.35, (40, 50, 3))
    times = np.array([0.5, 1.0, 2.0])
    images = [np.rint(255 * gamma_camera(radiance * t)).astype(np.uint8) for t in times]
    curve = (np.maximum(np.arange(256), 0.5) / 255) ** 2.2
    response = np.repeat(np.log(curve)[:, None], 3, axis=1)
    theirs = cv2.createMergeDebevec().process(
        images, times.astype(np.float32), np.exp(response)[:, None].astype(np.float32)
    )
    ours = debevec.merge(images, times, response)
    assert np.abs(theirs / ours - 1).max() < 2e-3


# --- merge -----------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", ["deb97", "all"])
@pytest.mark.parametrize("curve", ["curve", "gamma"])
def test_merge_equals_the_toolbox(golden, curve, weight):
    if curve == "curve":
        response = np.log(golden["lin_fun_lambda20"])
    else:
        level = np.maximum(np.arange(256) / 255, 1e-15)
        response = np.repeat(2.2 * np.log(level)[:, None], 3, axis=1)
    frames = list(np.moveaxis(golden["pixel_levels"], 1, 0)[:, None])
    merged = debevec.merge(
        frames, golden["exposure_times"], response, weight={"deb97": "Deb97"}.get(weight, weight)
    )
    truth = golden[f"pixel_hdr_{curve}_{weight}_log"]
    np.testing.assert_allclose(merged[0], truth, rtol=2e-6, atol=1e-30)


def naive_merge(frames, times, response, weight, kind):
    """One pixel, plain loops: frames (N, 3) ascending in time."""
    result = np.zeros(3)
    middle = frames[int(np.floor(len(frames) / 2 + 0.5)) - 1]
    source = None
    for c in range(3):
        top = bottom = total = 0.0
        for z, t in zip(frames[:, c], times, strict=True):
            x = z / 255
            w = {
                "Deb97": 2 * min(x, 1 - x),
                "hat": 1 - (2 * x - 1) ** 12,
                "Robertson": (np.exp(-16 * (x - 0.5) ** 2) - np.exp(-4)) / (1 - np.exp(-4)),
            }.get(weight, 1.0)
            lin = np.exp(response[z, c])
            if kind == "log":
                top, bottom = top + w * (np.log(lin + 1 / 65536) - np.log(t)), bottom + w
            elif kind == "linear":
                top, bottom = top + w * lin / t, bottom + w
            else:
                top, bottom = top + w * lin * t, bottom + w * t * t
            total += w
        if total <= 1e-4:
            if source is None or middle[c] < 127.5:
                source = 0 if middle[c] > 127.5 else -1
        else:
            result[c] = np.exp(top / bottom) if kind == "log" else top / bottom
    if source is not None:
        result = np.exp(response[frames[source], [0, 1, 2]]) / times[source]
    return result


@pytest.mark.parametrize("kind", ["log", "linear", "w_time_sq"])
@pytest.mark.parametrize("weight", ["Deb97", "all", "hat", "Robertson", "box"])
def test_merge_equals_plain_loops(weight, kind):
    rng = np.random.default_rng(7)
    frames = rng.integers(0, 256, (4, 12, 9, 3)).astype(np.uint8)
    frames[:, :4] = rng.choice([0, 255], (4, 4, 9, 3))
    times = np.array([0.5, 1.0, 3.0, 8.0])
    response = np.cumsum(rng.uniform(0, 0.05, (256, 3)), axis=0) - 6
    merged = debevec.merge(frames, times, response, weight=weight, merge=kind)
    truth = np.array(
        [
            [naive_merge(frames[:, y, x], times, response, weight, kind) for x in range(9)]
            for y in range(12)
        ]
    )
    np.testing.assert_allclose(merged, truth, rtol=1e-6)


def test_without_fill_in_unusable_channels_are_zero():
    frames = np.zeros((2, 1, 2, 3), np.uint8)
    frames[:, 0, 1] = 100
    merged = debevec.merge(frames, [1, 2], np.zeros((256, 3)), fill_in=False)
    assert (merged[0, 0] == 0).all()
    assert (merged[0, 1] > 0).all()


def test_order_and_container_of_the_stack_do_not_matter():
    _, images = synthetic_stack(sigmoid_camera, shape=(40, 30))
    order = [4, 0, 6, 2, 1, 5, 3]
    response = debevec.estimate_response(images, TIMES)
    shuffled = np.stack([images[i] for i in order])
    assert np.array_equal(debevec.estimate_response(shuffled, TIMES[order]), response)
    assert np.array_equal(
        debevec.merge(shuffled, TIMES[order], response), debevec.merge(images, TIMES, response)
    )


def test_blocks_do_not_matter(monkeypatch):
    rng = np.random.default_rng(2)
    frames = rng.integers(0, 256, (3, 37, 23, 3)).astype(np.uint8)
    whole = debevec.merge(frames, [1, 2, 4], np.zeros((256, 3)))
    samples = debevec.sample_grossberg(frames)
    monkeypatch.setattr(debevec, "_BLOCK_PIXELS", 50)
    monkeypatch.setattr(debevec, "_EXACT_COUNT", 50)
    assert np.array_equal(debevec.sample_grossberg(frames), samples)
    assert np.array_equal(debevec.merge(frames, [1, 2, 4], np.zeros((256, 3))), whole)


def test_memory_beyond_the_images_is_little_more_than_the_result():
    frames = np.random.default_rng(0).integers(0, 256, (7, 700, 1000, 3)).astype(np.uint8)
    tracemalloc.start()
    debevec.merge(frames, TIMES, np.zeros((256, 3)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 700 * 1000 * 12 + 16e6


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((7, 5, 6, 3)),
        np.full((7, 5, 6, 3), 255),
        np.full((7, 5, 6, 3), 127),
        np.random.default_rng(0).integers(0, 256, (7, 5, 6, 3)),
        np.random.default_rng(1).choice([0, 255], (7, 5, 6, 3)),
        np.random.default_rng(2).integers(0, 256, (7, 1, 1, 3)),
        np.random.default_rng(3).integers(0, 256, (7, 40, 40, 3))[::-1].cumsum(0).clip(0, 255),
    ],
    ids=["black", "white", "grey", "noise", "black and white", "one pixel", "saturating"],
)
def test_any_stack_gives_finite_radiance(frames):
    frames = frames.astype(np.uint8)
    response = debevec.estimate_response(frames, TIMES)
    assert np.isfinite(response).all()
    for weight in ("Deb97", "all", "hat", "Robertson", "box"):
        for kind in ("log", "linear", "w_time_sq"):
            for fill_in in (True, False):
                merged = debevec.merge(
                    frames, TIMES, response, weight=weight, merge=kind, fill_in=fill_in
                )
                assert merged.dtype == np.float32
                assert merged.shape == frames.shape[1:]
                assert np.isfinite(merged).all()
                assert (merged >= 0).all()


@pytest.mark.parametrize("kind", ["log", "linear", "w_time_sq"])
def test_extreme_response_and_times_stay_finite(kind):
    frames = (
        np.arange(256, dtype=np.uint8).reshape(1, 1, 256, 1).repeat(3, axis=3).repeat(2, axis=0)
    )
    for scale in (-500.0, 500.0):
        response = np.linspace(-1, 1, 256)[:, None].repeat(3, axis=1) * scale
        assert np.isfinite(debevec.merge(frames, [1e-6, 1e6], response, merge=kind)).all()


# --- bad input -------------------------------------------------------------------------------

GOOD = np.zeros((2, 4, 4, 3), np.uint8)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: debevec.estimate_response([], []), "no image"),
        (lambda: debevec.estimate_response(GOOD / 255, [1, 2]), "uint8"),
        (lambda: debevec.estimate_response(GOOD[..., 0], [1, 2]), r"\(H, W, 3\)"),
        (lambda: debevec.estimate_response([GOOD[0], GOOD[1, :2]], [1, 2]), "Image 1"),
        (lambda: debevec.estimate_response(GOOD, [1, 2, 3]), "2 images"),
        (lambda: debevec.estimate_response(GOOD, [0, 2]), "positive"),
        (lambda: debevec.estimate_response(GOOD, [1, np.nan]), "positive"),
        (lambda: debevec.estimate_response(GOOD, [2, 2]), "two different"),
        (lambda: debevec.estimate_response(GOOD, [1, 2], smoothness=0), "smoothness"),
        (lambda: debevec.estimate_response(GOOD, [1, 2], samples=1), "samples"),
        (lambda: debevec.solve_response(np.zeros((3, 2), int), [0, 1, 2], 20), "shapes"),
        (lambda: debevec.solve_response(np.full((3, 2), 256), [0, 1], 20), "0 to 255"),
        (lambda: debevec.merge(GOOD, [1, 2], np.zeros((256,))), "256 x 3"),
        (lambda: debevec.merge(GOOD, [1, 2], np.full((256, 3), np.nan)), "NaN"),
        (lambda: debevec.merge(GOOD, [1, 2], np.zeros((256, 3)), weight="tent"), "tent"),
        (lambda: debevec.merge(GOOD, [1, 2], np.zeros((256, 3)), merge="mean"), "mean"),
    ],
)
def test_bad_input_is_told_in_one_sentence(call, words):
    with pytest.raises(ReplicationError, match=words) as error:
        call()
    assert "\n" not in str(error.value)


# --- the whole golden results, where they are ------------------------------------------------


@pytest.mark.skipif(not WHOLE.is_dir(), reason="the whole golden results are not here")
def test_whole_stack_equals_the_toolbox():
    with np.load(WHOLE / "inputs" / "stacks.npz") as file:
        stack, times = np.moveaxis(file["syn7"], -1, 0), file["syn7_exposure"]
    with np.load(WHOLE / "debevec_2018.npz") as file:
        truth = {name: file[name] for name in file.files if name.startswith("syn7__")}
    samples = debevec.sample_grossberg(stack)
    assert np.array_equal(samples, truth["syn7__samples_grossberg"])
    response = np.exp(debevec.estimate_response(stack, times))
    curve = truth["syn7__lin_fun_lambda20"]
    relative = (response / response[127]) / (curve / curve[127]) - 1
    assert (np.abs(relative).max(axis=0) < [1e-9, 2.4e-4, 1e-9]).all()
    np.testing.assert_allclose(response, curve, rtol=1e-3)
    regular = truth["syn7__samples_regular"]
    for c in range(3):
        g = debevec.solve_response(regular[:, :, c], np.log(times), 20.0)
        np.testing.assert_allclose(g, truth["syn7__g_regular_lambda20"][:, c], atol=1e-9)

    response = np.log(curve)
    merged = debevec.merge(stack, times, response)
    np.testing.assert_allclose(merged, truth["syn7__hdr_LUT_Deb97_log"], rtol=2e-6)
    for name in ("all_log", "hat_log", "Robertson_log", "box_log", "Deb97_linear"):
        weight, kind = name.split("_")
        merged = debevec.merge(stack, times, response, weight=weight, merge=kind)
        np.testing.assert_allclose(
            blocks_of_4(merged), truth[f"syn7__hdr_LUT_{name}__b4"], rtol=2e-6
        )
    merged = debevec.merge(stack, times, response, merge="w_time_sq")
    np.testing.assert_allclose(
        blocks_of_4(merged), truth["syn7__hdr_LUT_Deb97_w_time_sq__b4"], rtol=2e-6
    )


def blocks_of_4(image):
    height, width = image.shape[0] // 4, image.shape[1] // 4
    image = image[: 4 * height, : 4 * width].astype(np.float64)
    return image.reshape(height, 4, width, 4, 3).mean(axis=(1, 3))
