"""Tone mapping and bilateral grid against the MATLAB toolbox, plain loops, SciPy and formulas."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from replication.files import ReplicationError
from replication.hdr import bilateral, reinhard
from replication.images import luminance as luminance_of

GOLDEN = Path(__file__).parent / "golden" / "reinhard_mini_disk.npz"
WHOLE = Path(__file__).resolve().parents[2] / "shared" / "golden"
OPERATORS = ["global", "local", "bilateral"]


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as file:
        return dict(file)


def scene(shape=(40, 52), seed=0):
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=(*shape, 3)), (4, 4, 0))
    return np.exp(2 * smooth / smooth.std()).astype(np.float32)


def blocks_of_4(image):
    height, width = image.shape[0] // 4, image.shape[1] // 4
    image = image[: 4 * height, : 4 * width].astype(np.float64)
    return image.reshape(height, 4, width, 4, 3).mean(axis=(1, 3))


# --- parameters ------------------------------------------------------------------------------


def test_automatic_parameters_equal_the_toolbox(golden):
    luminance = luminance_of(golden["hdr"])
    assert reinhard.log_mean(luminance) == pytest.approx(float(golden["log_mean"]), rel=1e-10)
    assert reinhard.automatic_key(luminance) == pytest.approx(float(golden["key"]), rel=1e-10)
    assert reinhard.automatic_white(luminance) == pytest.approx(float(golden["white"]), rel=1e-10)


def test_automatic_parameters_by_hand():
    """Of the luminances 1 to 200, number 2 is the 1 % and number 198 the 99 % order statistic."""
    luminance = np.random.default_rng(0).permutation(np.arange(1.0, 201.0)).reshape(10, 20)
    mean = np.exp(np.mean(np.log(np.arange(1, 201) + 1e-3)))
    spread = np.log2(198 / 2)
    key = 0.18 * 4 ** ((2 * np.log2(mean) - np.log2(2) - np.log2(198)) / spread)
    assert reinhard.log_mean(luminance) == pytest.approx(mean, rel=1e-12)
    assert reinhard.automatic_key(luminance) == pytest.approx(key, rel=1e-8)
    assert reinhard.automatic_white(luminance) == pytest.approx(1.5 * 99 / 32, rel=1e-8)


def test_image_without_contrast_has_middle_key():
    assert reinhard.automatic_key(np.full((5, 5), 3.0)) == 0.18


# --- operators -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("global_auto", {}),
        ("global_a018", {"key": 0.18}),
        ("global_a018_wInf", {"key": 0.18, "white": np.inf}),
        ("bilateral_auto", {}),
        ("bilateral_a018_wInf", {"key": 0.18, "white": np.inf}),
    ],
)
def test_equals_the_toolbox(golden, name, options):
    ours = reinhard.tone_map_linear(golden["hdr"], operator=name.split("_")[0], **options)
    assert ours.dtype == np.float32
    if name in golden:
        np.testing.assert_allclose(ours, golden[name], rtol=1e-6)
    else:
        np.testing.assert_allclose(blocks_of_4(ours), golden[f"{name}__b4"], rtol=1e-6)


def test_global_is_the_formula():
    hdr = scene()
    ours = reinhard.tone_map_linear(hdr, key=0.3, white=2.0)
    luminance = hdr.astype(float) @ [0.2126, 0.7152, 0.0722]
    scaled = 0.3 * luminance / np.exp(np.log(luminance + 1e-3).mean())
    display = scaled * (1 + scaled / 4) / (1 + scaled)
    np.testing.assert_allclose(ours, hdr * (display / luminance)[..., None], rtol=1e-6)


def test_the_white_point_maps_to_one():
    hdr = np.repeat(np.geomspace(0.1, 1000, 300).reshape(15, 20, 1), 3, axis=2)
    scaled = 0.18 * hdr / reinhard.log_mean(hdr[..., 0])
    white = float(scaled.max())
    assert reinhard.tone_map_linear(hdr, key=0.18, white=white).max() == pytest.approx(1, rel=1e-6)
    assert reinhard.tone_map_linear(hdr, key=0.18, white=np.inf).max() == pytest.approx(
        white / (1 + white), rel=1e-6
    )


@pytest.mark.parametrize("operator", OPERATORS)
def test_scale_of_radiance_does_not_matter_when_delta_follows(operator):
    hdr = scene()
    one = reinhard.tone_map(hdr, operator=operator, delta=1e-3)
    np.testing.assert_allclose(
        reinhard.tone_map(hdr * 64, operator=operator, delta=64e-3), one, atol=2e-6
    )


def test_picture_is_clipped_and_gamma_encoded():
    hdr = scene()
    linear = reinhard.tone_map_linear(hdr)
    assert linear.max() > 1
    for gamma in (1.0, 2.2):
        picture = reinhard.tone_map(hdr, gamma=gamma)
        assert picture.dtype == np.float32
        np.testing.assert_allclose(picture, np.clip(linear, 0, 1) ** (1 / gamma), rtol=1e-5)


# --- local -----------------------------------------------------------------------------------


def naive_local(hdr, key, phi=8.0, threshold=0.05):
    """The publication's eqs. 5 to 9 in float64, with SciPy's Gaussians, pixel by pixel."""
    luminance = hdr.astype(float) @ [0.2126, 0.7152, 0.0722]
    scaled = key * luminance / np.exp(np.log(luminance + 1e-3).mean())
    scales = [1.6**i for i in range(9)]
    blurred = []
    for s in scales:
        radius = int(np.ceil(s))
        offset = np.arange(-radius, radius + 1)
        taps = np.exp(-(offset**2) / (s / (2 * np.sqrt(2))) ** 2)
        taps /= taps.sum()
        rows = ndimage.correlate1d(scaled, taps, axis=0, mode="reflect")
        blurred.append(ndimage.correlate1d(rows, taps, axis=1, mode="reflect"))
    result = np.empty_like(scaled)
    for pixel in np.ndindex(scaled.shape):
        chosen = blurred[0][pixel]
        for i in range(8):
            centre, surround = blurred[i][pixel], blurred[i + 1][pixel]
            activity = abs(centre - surround) / (2**phi * key / scales[i] ** 2 + centre)
            if activity >= threshold:
                break
            chosen = centre
        result[pixel] = scaled[pixel] / (1 + chosen)
    return hdr * (result / luminance)[..., None]


def test_local_equals_plain_loops():
    hdr = scene()
    hdr[10:14, 20:24] *= 300
    ours = reinhard.tone_map_linear(hdr, operator="local", key=0.18, white=np.inf)
    truth = naive_local(hdr, 0.18)
    close = np.isclose(ours, truth, rtol=2e-5).all(axis=2)
    assert close.mean() > 0.998, "only pixels at the threshold may differ by rounding"
    simple = reinhard.tone_map_linear(hdr, operator="global", key=0.18, white=np.inf)
    assert np.abs(ours / simple - 1).max() > 0.1


def test_local_is_centred():
    """Mirroring the scene mirrors the result: nothing is displaced."""
    hdr = scene((33, 46))
    ours = reinhard.tone_map_linear(hdr, operator="local")
    mirrored = reinhard.tone_map_linear(hdr[::-1, ::-1], operator="local")[::-1, ::-1]
    np.testing.assert_allclose(ours, mirrored, rtol=1e-4)


def test_local_of_a_constant_image_is_global():
    hdr = np.full((20, 30, 3), 2.5, np.float32)
    options = {"key": 0.18, "white": np.inf}
    np.testing.assert_allclose(
        reinhard.tone_map_linear(hdr, operator="local", **options),
        reinhard.tone_map_linear(hdr, operator="global", **options),
        rtol=1e-5,
    )


def test_local_keeps_more_contrast_around_a_lamp():
    """Dodging: texture on a bright wall loses less contrast than under the global operator."""
    rng = np.random.default_rng(4)
    hdr = np.repeat((50 * np.exp(0.3 * rng.normal(size=(60, 60, 1)))), 3, axis=2)
    hdr[:, :30] /= 500
    contrast = {
        operator: np.log(reinhard.tone_map_linear(hdr, operator=operator)[:, 40:]).std()
        for operator in ("global", "local")
    }
    assert contrast["local"] > 1.1 * contrast["global"]


# --- bilateral grid --------------------------------------------------------------------------


def naive_bilateral(data, guide, value_range, sigma_s, sigma_r):
    """Definition of the grid in dictionaries and loops."""
    lowest = value_range[0]

    def nearest(x):
        return int(np.floor(x + 0.5))

    total, count = {}, {}
    for (i, j), value in np.ndenumerate(data):
        cell = (
            nearest(i / sigma_s),
            nearest(j / sigma_s),
            nearest((guide[i, j] - lowest) / sigma_r),
        )
        for step in np.ndindex(3, 3, 3):
            near = tuple(int(c + s - 1) for c, s in zip(cell, step, strict=True))
            weight = np.exp(-0.5 * sum((s - 1) ** 2 for s in step))
            total[near] = total.get(near, 0.0) + weight * value
            count[near] = count.get(near, 0.0) + weight
    result = np.zeros(data.shape)
    for i, j in np.ndindex(data.shape):
        place = (i / sigma_s, j / sigma_s, (guide[i, j] - lowest) / sigma_r)
        base = tuple(int(np.floor(p)) for p in place)
        for step in np.ndindex(2, 2, 2):
            corner = tuple(int(b + s) for b, s in zip(base, step, strict=True))
            weight = np.prod(
                [abs(1 - s - (p - b)) for p, b, s in zip(place, base, step, strict=True)]
            )
            if corner in count:
                result[i, j] += weight * total[corner] / count[corner]
    return result


@pytest.mark.parametrize(("sigma_s", "sigma_r"), [(1.6, 0.1), (4.0, 0.3), (100.0, 5.0)])
def test_bilateral_grid_equals_plain_loops(sigma_s, sigma_r):
    rng = np.random.default_rng(0)
    data, guide = rng.random((13, 17)), rng.uniform(-1, 2, (13, 17))
    options = {"value_range": (-1.0, 2.0), "sigma_s": sigma_s, "sigma_r": sigma_r}
    ours = bilateral.bilateral_grid(data, guide, **options)
    np.testing.assert_allclose(ours, naive_bilateral(data, guide, **options), rtol=1e-10)


@pytest.mark.parametrize("sigma_s", [0.7, 1.6, 5.3])
def test_bilateral_grid_does_not_depend_on_bands(monkeypatch, sigma_s):
    rng = np.random.default_rng(1)
    data = rng.random((41, 23))
    options = {"value_range": (0.0, 1.0), "sigma_s": sigma_s, "sigma_r": 0.1}
    whole = bilateral.bilateral_grid(data, data, **options)
    monkeypatch.setattr(bilateral, "_CELLS_AT_ONCE", 1)
    np.testing.assert_allclose(bilateral.bilateral_grid(data, data, **options), whole, rtol=1e-12)


def test_bilateral_grid_smooths_but_keeps_edges():
    rng = np.random.default_rng(2)
    step = np.repeat([0.2, 0.8], 20)[None].repeat(40, axis=0)
    noisy = np.clip(step + 0.02 * rng.normal(size=step.shape), 0, 1)
    smooth = bilateral.bilateral_grid(noisy, noisy, value_range=(0, 1), sigma_s=4, sigma_r=0.15)
    assert np.abs(smooth - step).max() < 0.02
    assert (smooth - step).std() < 0.4 * (noisy - step).std()


# --- any and bad input -----------------------------------------------------------------------


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize(
    "hdr",
    [
        np.full((6, 7, 3), 1e-30),
        np.full((6, 7, 3), 1e38),
        np.full((1, 1, 3), 0.5),
        np.full((1, 9, 3), 0.5) * (1 + 1e-7 * np.arange(9))[:, None],
        np.eye(9)[..., None].repeat(3, axis=2) * 1e30,
        np.geomspace(1e-35, 1e35, 27).reshape(3, 3, 3),
        np.random.default_rng(0).random((5, 200, 3)).astype(np.float16),
    ],
    ids=["dark", "bright", "one pixel", "almost constant", "diagonal", "wide", "half floats"],
)
def test_any_radiance_gives_a_picture(operator, hdr):
    picture = reinhard.tone_map(hdr, operator=operator)
    assert picture.shape == hdr.shape
    assert picture.dtype == np.float32
    assert picture.min() >= 0
    assert picture.max() <= 1


@pytest.mark.parametrize("operator", OPERATORS)
def test_black_stays_black(operator):
    assert not reinhard.tone_map(np.zeros((5, 6, 3)), operator=operator).any()


def test_input_is_left_alone():
    hdr = scene()
    before = hdr.copy()
    for operator in OPERATORS:
        reinhard.tone_map(hdr, operator=operator)
    assert np.array_equal(hdr, before)


GREY = np.full((4, 4, 3), 0.5)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: reinhard.tone_map(GREY[..., 0]), r"\(H, W, 3\)"),
        (lambda: reinhard.tone_map(GREY.astype(np.uint8)), "floating point"),
        (lambda: reinhard.tone_map(GREY * np.nan), "NaN"),
        (lambda: reinhard.tone_map(GREY / 0), "infinite"),
        (lambda: reinhard.tone_map(-GREY), "negative"),
        (lambda: reinhard.tone_map(GREY[:0]), "shape"),
        (lambda: reinhard.tone_map(GREY, operator="drago"), "drago"),
        (lambda: reinhard.tone_map(GREY, key=0), "positive"),
        (lambda: reinhard.tone_map(GREY, white=np.nan), "positive"),
        (lambda: reinhard.tone_map(GREY, delta=0), "positive"),
        (lambda: reinhard.tone_map(GREY, gamma=-1), "gamma"),
        (lambda: grid(GREY[..., 0], GREY[:2, :, 0]), "one shape"),
        (lambda: grid(GREY[..., 0], GREY[..., 0] + 1), "within"),
        (lambda: grid(GREY[..., 0] * np.nan, GREY[..., 0]), "finite"),
        (lambda: grid(GREY[..., 0], GREY[..., 0], sigma_r=0.0), "positive"),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_bad_input_is_told_in_one_sentence(call, words):
    with pytest.raises(ReplicationError, match=words) as error:
        call()
    assert "\n" not in str(error.value)


def grid(data, guide, sigma_r=0.1):
    return bilateral.bilateral_grid(data, guide, value_range=(0, 1), sigma_s=2, sigma_r=sigma_r)


# --- the whole golden results, where they are ------------------------------------------------


@pytest.mark.skipif(not WHOLE.is_dir(), reason="the whole golden results are not here")
@pytest.mark.parametrize("name", ["syn_disk", "mini_bottles", "mini_disk"])
def test_whole_golden_results(name):
    with np.load(WHOLE / "inputs" / "tmo_hdr.npz") as file:
        hdr = file[name]
    parameters = json.loads((WHOLE / "reinhard_2018.json").read_text())[name]
    luminance = luminance_of(hdr)
    assert reinhard.log_mean(luminance) == pytest.approx(parameters["Lwa"], rel=1e-10)
    assert reinhard.automatic_key(luminance) == pytest.approx(parameters["alpha"], rel=1e-10)
    assert reinhard.automatic_white(luminance) == pytest.approx(parameters["white"], rel=1e-10)
    options = {"auto": {}, "a018": {"key": 0.18}, "a018_wInf": {"key": 0.18, "white": np.inf}}
    compared = 0
    with np.load(WHOLE / "reinhard_2018.npz") as file:
        for operator in ("global", "bilateral"):
            for tag, chosen in options.items():
                key = f"{name}__{operator}_{tag}"
                for suffix, reduce in (("", np.asarray), ("__b4", blocks_of_4)):
                    if key + suffix in file:
                        ours = reinhard.tone_map_linear(hdr, operator=operator, **chosen)
                        np.testing.assert_allclose(reduce(ours), file[key + suffix], rtol=1e-6)
                        compared += 1
    assert compared == 5
