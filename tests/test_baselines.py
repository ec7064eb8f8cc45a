"""Inverse tone mapping against the MATLAB toolbox, plain loops, and pictures with known answers."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest

from replication.baselines import huo, kovaleski_oliveira, masia
from replication.baselines.expansion import linearise
from replication.files import ReplicationError
from replication.images import luminance
from tests.conftest import SHARED_GOLDEN

GOLDEN = Path(__file__).parent / "golden" / "expansion_disks.npz"
METHODS = [huo.expand, kovaleski_oliveira.expand, masia.expand]
NAMES = ["huo", "kovaleski_oliveira", "masia"]
VARIANTS = {
    "huophys_5000": (huo.expand, {"max_luminance": 5000}),
    "huophys_1000": (huo.expand, {"max_luminance": 1000}),
    "ko_paper": (kovaleski_oliveira.expand, {}),
    "ko_demo": (kovaleski_oliveira.expand, {"min_luminance": 0.1, "max_luminance": 5000}),
    "ko_video_s20": (kovaleski_oliveira.expand, {"video": True, "sigma_s": 20}),
    "masia_n1m1": (masia.expand, {}),
    "masia_n0m1": (masia.expand, {"noise_removal": False}),
    "masia_n1m0": (masia.expand, {"multilinear": False}),
    "masia_n0m0": (masia.expand, {"noise_removal": False, "multilinear": False}),
}

pytestmark = pytest.mark.filterwarnings("ignore:Masia's exponent")


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as file:
        return dict(file)


def scene(height=38, width=51, seed=0):
    """A colourful picture with clipped, almost clipped, dark and black pixels."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / height
    waves = [0.5 + 0.4 * np.sin(6 * x * (c + 1) + 3 * y - c) for c in range(3)]
    picture = np.stack(waves, axis=2) + 0.05 * rng.normal(size=(height, width, 3))
    picture += np.exp(-40 * ((x - 0.7) ** 2 + (y - 0.4) ** 2))[..., None]
    picture[-4:, :5] = 0
    return np.rint(255 * np.clip(picture, 0, 1)).astype(np.uint8)


def blocks_of_4(image):
    height, width = image.shape[0] // 4, image.shape[1] // 4
    image = image[: 4 * height, : 4 * width].astype(np.float64)
    return image.reshape(height, 4, width, 4, 3).mean(axis=(1, 3))


def statistics(image):
    values = np.sort(image.astype(np.float64), axis=None)
    return np.array([values[0], values.mean(), np.median(values), values[-1]])


# --- the toolbox -----------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_the_toolbox(golden, variant):
    expand, options = VARIANTS[variant]
    grey = np.repeat(golden["mini_disk"][..., None], 3, axis=2)
    ours = expand(grey, **options)
    assert ours.dtype == np.float32
    assert ours.shape == grey.shape
    for channel in range(3):
        truth = golden[f"mini_disk__{variant}"]
        np.testing.assert_allclose(ours[::2, ::2, channel], truth, rtol=1e-6)

    ours = expand(golden["syn_disk"], **options)
    truth = golden[f"syn_disk__{variant}__b4"]
    np.testing.assert_allclose(blocks_of_4(ours)[::4, ::4], truth, rtol=1e-6)
    truth = golden[f"syn_disk__{variant}__stat"][[0, 1, 2, 4]]  # min, mean, median, max
    np.testing.assert_allclose(statistics(ours), truth, rtol=1e-6)


@pytest.mark.parametrize("picture", ["mini_disk", "syn_disk"])
def test_exponents_equal_the_toolbox(golden, picture):
    ldr = golden[picture]
    ldr = np.repeat(ldr[..., None], 3, axis=2) if ldr.ndim == 2 else ldr
    _, bright = linearise(ldr)
    ours = [masia.exponent(bright), masia.exponent(bright, multilinear=False)]
    np.testing.assert_allclose(ours, golden[f"{picture}__exponents"], atol=1e-9)


# --- plain loops -----------------------------------------------------------------------------


def naive_bilateral(data, guide, low, sigma_s, sigma_r):
    """The bilateral grid of Chen et al. in a dictionary of cells."""

    def nearest(x):
        return int(np.floor(x + 0.5))

    total, count = {}, {}
    for (i, j), value in np.ndenumerate(data):
        centre = nearest(i / sigma_s), nearest(j / sigma_s), nearest((guide[i, j] - low) / sigma_r)
        for step in np.ndindex(3, 3, 3):
            offset = np.array(step) - 1
            cell = tuple(int(c) for c in centre + offset)
            weight = np.exp(-0.5 * (offset**2).sum())
            total[cell] = total.get(cell, 0.0) + weight * value
            count[cell] = count.get(cell, 0.0) + weight
    result = np.zeros(data.shape)
    for i, j in np.ndindex(data.shape):
        place = np.array([i / sigma_s, j / sigma_s, (guide[i, j] - low) / sigma_r])
        base = np.floor(place).astype(int)
        for step in np.ndindex(2, 2, 2):
            cell = tuple(int(c) for c in base + step)
            weight = np.prod(np.where(step, place - base, 1 - (place - base)))
            if cell in count:
                result[i, j] += weight * total[cell] / count[cell]
    return result


def naive(ldr, expanded_luminance):
    """Light, expansion and colour of one method, pixel by pixel."""
    linear = (ldr.astype(float) / 255) ** 2.2
    bright = linear @ [0.2126, 0.7152, 0.0722]
    expanded = expanded_luminance(linear, bright)
    result = np.zeros(ldr.shape)
    for place in np.ndindex(bright.shape):
        if bright[place] > 0:
            result[place] = linear[place] * expanded[place] / bright[place]
    return result


def naive_huo(peak):
    def expanded(_, bright):
        local = naive_bilateral(bright, bright, 0, 16, 0.3)
        local = naive_bilateral(local, local, 0, 10, 0.1)
        mean = np.exp(np.mean([np.log(v + 1e-3) for v in bright.flat]))
        response = (peak * local) ** 0.86 + (peak * mean) ** 0.86
        return bright / bright.max() * response ** (1 / 0.86)

    return expanded


def naive_kovaleski_oliveira(level, sigma_s, boost):
    def expanded(linear, bright):
        mask = (linear.max(axis=2) > (level / 255) ** 2.2 * (1 + 1e-12)).astype(float)
        near = naive_bilateral(mask, bright, 0, sigma_s, (25 / 255) ** 2.2)
        return (bright * (1200 - 0.3) + 0.3) * boost(near)

    return expanded


def naive_masia(regression, noise_removal):
    def expanded(_, bright):
        ascending = sorted(bright.flat)
        positive = [v for v in ascending if v > 0]
        low = positive[round(0.01 * len(positive)) - 1]
        high = ascending[round(0.99 * len(ascending)) - 1]
        mean = np.mean([np.log(v + 1e-3) for v in ascending])
        key = (mean - np.log(low)) / (np.log(high) - np.log(low))
        over = 100 * sum(v >= 254 / 255 for v in ascending) / len(ascending)
        gamma = regression(mean, key, over)
        if not noise_removal:
            return 5000 * bright**gamma
        base = naive_bilateral(
            bright,
            bright,
            ascending[0],
            min(bright.shape) / 16,
            0.1 * (ascending[-1] - ascending[0]),
        )
        base = np.where(base > 0, base, 1)
        return 5000 * bright / base * base**gamma

    return expanded


def of_2017(mean, key, over):
    return 2.4379 + 0.2319 * mean - 1.1228 * key + 0.0085 * over


def of_2009(_, key, __):
    return 10.44 * key - 6.282


@pytest.mark.parametrize(
    ("ours", "truth"),
    [
        (huo.expand, naive_huo(5000)),
        (lambda ldr: huo.expand(ldr, max_luminance=300), naive_huo(300)),
        (
            lambda ldr: kovaleski_oliveira.expand(ldr, sigma_s=12),
            naive_kovaleski_oliveira(254, 12, lambda e: 3 * e + 1),
        ),
        (
            lambda ldr: kovaleski_oliveira.expand(ldr, video=True, intended_range=True),
            naive_kovaleski_oliveira(230, 150, lambda e: (3 * e + 1) / 4),
        ),
        (masia.expand, naive_masia(of_2017, True)),
        (lambda ldr: masia.expand(ldr, noise_removal=False), naive_masia(of_2017, False)),
        (lambda ldr: masia.expand(ldr, multilinear=False), naive_masia(of_2009, True)),
    ],
    ids=["huo", "huo 300", "ko", "ko video", "masia", "masia no base", "masia 2009"],
)
def test_equals_plain_loops(ours, truth):
    ldr = scene()
    np.testing.assert_allclose(ours(ldr), naive(ldr, truth), rtol=1e-6)


def test_plain_loops_see_a_partial_boost():
    """The scene of the comparison above has pixels between no and full boost."""
    ldr = scene()
    boosted = luminance(kovaleski_oliveira.expand(ldr, min_luminance=0, max_luminance=1))
    seen = ldr.any(axis=2)
    boost = boosted[seen] / linearise(ldr)[1][seen]
    assert ((boost > 1.2) & (boost < 3.8)).mean() > 0.05


# --- what must hold on any picture -----------------------------------------------------------


@pytest.mark.parametrize("expand", METHODS, ids=NAMES)
def test_colours_are_kept(expand):
    ldr = scene()
    linear, bright = linearise(ldr)
    hdr = expand(ldr)
    expected = linear * (luminance(hdr) / np.maximum(bright, 1e-300))[..., None]
    np.testing.assert_allclose(hdr, expected, rtol=1e-5)
    assert not hdr[-4:, :5].any(), "black stays black"


@pytest.mark.parametrize("expand", METHODS, ids=NAMES)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_floating_point_pictures_give_the_same(expand, dtype):
    ldr = scene()
    np.testing.assert_allclose(expand((ldr / 255).astype(dtype)), expand(ldr), rtol=1e-4)


@pytest.mark.parametrize("expand", METHODS, ids=NAMES)
def test_input_is_left_alone(expand):
    for ldr in (scene(), scene() / 255):
        before = ldr.copy()
        expand(ldr)
        assert np.array_equal(ldr, before)


def test_peaks_scale_the_result():
    ldr = scene()
    np.testing.assert_allclose(
        huo.expand(ldr, max_luminance=1000) * 5, huo.expand(ldr, max_luminance=5000), rtol=1e-6
    )
    np.testing.assert_allclose(
        masia.expand(ldr, max_output=1000) * 5, masia.expand(ldr, max_output=5000), rtol=1e-6
    )


def test_the_intended_range_is_a_quarter():
    ldr = scene()
    of_2018 = kovaleski_oliveira.expand(ldr)
    np.testing.assert_allclose(
        kovaleski_oliveira.expand(ldr, intended_range=True) * 4, of_2018, rtol=1e-6
    )


@pytest.mark.parametrize(("video", "level"), [(False, 254), (True, 230)])
def test_clipping_starts_above_the_threshold(video, level):
    for dtype in (np.uint8, np.float64, np.float32):
        grey = np.full((20, 20, 3), level, np.uint8)
        boost = []
        for step in (0, 1):
            ldr = grey + np.uint8(step)
            ldr = ldr if dtype is np.uint8 else (ldr / 255).astype(dtype)
            hdr = kovaleski_oliveira.expand(ldr, min_luminance=0, max_luminance=1, video=video)
            boost.append(hdr[0, 0, 1] / linearise(ldr)[0][0, 0, 1])
        assert boost == pytest.approx([1, 4])


# --- pictures without contrast ---------------------------------------------------------------


def grey(level, shape=(20, 30)):
    return np.full((*shape, 3), level, np.uint8)


@pytest.mark.parametrize("expand", METHODS, ids=NAMES)
@pytest.mark.parametrize(
    "ldr",
    [
        grey(0),
        grey(128),
        grey(255),
        grey(255, (1, 1)),
        grey(7, (3, 500)),
        np.eye(20, dtype=np.uint8)[..., None].repeat(3, axis=2) * 255,
        np.nextafter(np.full((9, 9, 3), 0.3), np.eye(9)[..., None]),
        np.full((9, 9, 3), 1e-200),
        np.random.default_rng(0).random((17, 300, 3)).astype(np.float16),
    ],
    ids=["black", "grey", "white", "pixel", "strip", "diagonal", "almost", "tiny", "half"],
)
def test_any_picture_gives_finite_radiance(expand, ldr):
    hdr = expand(ldr)
    assert hdr.dtype == np.float32
    assert hdr.shape == ldr.shape
    assert np.isfinite(hdr).all()
    assert hdr.min() >= 0
    if not ldr.any():
        assert not hdr.any()


def test_constant_pictures_by_hand():
    """The filters leave a constant as it is; M is its own mean, the key 1/2."""
    level = (128 / 255) ** 2.2
    bright = (level**0.86 + (level + 1e-3) ** 0.86) ** (1 / 0.86)
    np.testing.assert_allclose(huo.expand(grey(128)), 5000 * bright, rtol=1e-6)
    np.testing.assert_allclose(
        kovaleski_oliveira.expand(grey(128)), level * (1200 - 0.3) + 0.3, rtol=1e-6
    )
    gamma = 2.4379 + 0.2319 * np.log(level + 1e-3) - 1.1228 / 2
    np.testing.assert_allclose(masia.expand(grey(128)), 5000 * level**gamma, rtol=1e-6)
    np.testing.assert_allclose(kovaleski_oliveira.expand(grey(255)), 4800, rtol=1e-6)
    np.testing.assert_allclose(masia.expand(grey(255)), 5000, rtol=1e-6)


@pytest.mark.filterwarnings("default")
def test_a_negative_exponent_is_told():
    """A dark picture with a lamp has a low key: the regression of 2009 turns its tones round."""
    night = grey(60)
    night[8:12, 13:17] = 250
    night[-1] = 20
    with pytest.warns(UserWarning, match="change places"):
        hdr = masia.expand(night, multilinear=False, noise_removal=False)
    assert hdr[10, 15, 0] < hdr[0, 0, 0] < hdr[-1, 0, 0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hdr = masia.expand(night, noise_removal=False)
    assert hdr[10, 15, 0] > hdr[0, 0, 0] > hdr[-1, 0, 0]


# --- bad input -------------------------------------------------------------------------------


@pytest.mark.parametrize("expand", METHODS, ids=NAMES)
@pytest.mark.parametrize(
    ("ldr", "words"),
    [
        (np.zeros((5, 6), np.uint8), r"\(H, W, 3\)"),
        (np.zeros((5, 6, 4), np.uint8), r"\(H, W, 3\)"),
        (np.zeros((0, 6, 3), np.uint8), r"\(H, W, 3\)"),
        (np.zeros((5, 6, 3), np.int64), "uint8 or floating point, not int64"),
        (np.full((5, 6, 3), 200.0), "within 0 and 1"),
        (np.full((5, 6, 3), -0.1), "within 0 and 1"),
        (np.full((5, 6, 3), np.nan), "NaN"),
        (np.full((5, 6, 3), np.inf), "infinite"),
    ],
)
def test_bad_pictures_are_told_in_one_sentence(expand, ldr, words):
    with pytest.raises(ReplicationError, match=words) as error:
        expand(ldr)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: huo.expand(scene(), max_luminance=0), "max_luminance must be positive"),
        (lambda: huo.expand(scene(), n=np.nan), "n must be positive"),
        (lambda: huo.expand(scene(), delta=0), "delta must be positive"),
        (lambda: masia.expand(scene(), max_output=-1), "max_output must be positive"),
        (lambda: masia.expand(scene(), delta=np.inf), "delta must be positive and finite"),
        (lambda: kovaleski_oliveira.expand(scene(), min_luminance=2000), "not 2000 and 1200"),
        (lambda: kovaleski_oliveira.expand(scene(), max_luminance=np.nan), "not 0.3 and nan"),
        (lambda: kovaleski_oliveira.expand(scene(), sigma_s=0), "sigma_s must be positive"),
        (lambda: kovaleski_oliveira.expand(scene(), sigma_r=-1), "sigma_r must be positive"),
    ],
)
def test_bad_options_are_told(call, words):
    with pytest.raises(ReplicationError, match=words):
        call()


# --- the complete golden results, where they are ---------------------------------------------


@pytest.mark.skipif(not SHARED_GOLDEN.is_dir(), reason="the complete golden results are not here")
@pytest.mark.parametrize("picture", ["ldr_syn_disk", "mini_bottles", "mini_disk"])
def test_complete_golden_results(picture):
    with np.load(SHARED_GOLDEN / "inputs" / "eo_ldr.npz") as file:
        ldr = file[picture]
    _, bright = linearise(ldr)
    parameters = json.loads((SHARED_GOLDEN / "eo_2018.json").read_text())[picture]
    assert masia.exponent(bright) == pytest.approx(parameters["masia_gamma_multi"], abs=1e-9)
    assert masia.exponent(bright, multilinear=False) == pytest.approx(
        parameters["masia_gamma_key"], abs=1e-9
    )
    with np.load(SHARED_GOLDEN / "eo_2018.npz") as file:
        for variant, (expand, options) in VARIANTS.items():
            ours = expand(ldr, **options)
            key = f"{picture}__{variant}"
            if key in file:
                np.testing.assert_allclose(ours, file[key], rtol=1e-6, err_msg=variant)
            else:
                truth = file[f"{key}__b4"]
                np.testing.assert_allclose(blocks_of_4(ours), truth, rtol=1e-6, err_msg=variant)
            truth = file[f"{key}__stat"][[0, 1, 2, 4]]
            np.testing.assert_allclose(statistics(ours), truth, rtol=1e-6, err_msg=variant)
