"""HDR-VDP-2 against the original program, SciPy, plain formulas and what must hold."""

import json
import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from replication.files import ReplicationError
from replication.metrics import drim, hdrvdp2, pixels_per_degree, pyramid, vision
from tests.conftest import SHARED_GOLDEN

GOLDEN = Path(__file__).parent / "golden"
PPD = 33.510213911468036
DISTORTIONS = ["noise5", "blur15", "gamma11", "scale08", "ldr8", "local"]
ENCODINGS = {"rgb": "rgb-bt.709", "lum": "luminance"}
LUMINANCE = np.array([0.2126, 0.7152, 0.0722])

needs_shared = pytest.mark.skipif(not SHARED_GOLDEN.is_dir(), reason="complete results elsewhere")


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "hdrvdp2.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def scores():
    return json.loads((GOLDEN / "hdrvdp2.json").read_text())["scores"]


def pair(golden, name):
    if name == "gabor_test":
        test = np.repeat(golden[name][..., None], 3, axis=2)
        return test.astype(np.float64), np.full(test.shape, 50.0)
    return golden[name].astype(np.float64), golden["disk_reference"].astype(np.float64)


def coded(image, encoding):
    return image @ LUMINANCE if encoding == "lum" else image


def blocks_of_8(image):
    height, width = image.shape[0] // 8, image.shape[1] // 8
    image = image[: 8 * height, : 8 * width].astype(np.float64)
    return image.reshape(height, 8, width, 8).mean(axis=(1, 3))


def scene(shape=(40, 52), seed=0):
    """A smooth scene of about 1 to 1000 cd/m2."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=(*shape, 3)), (3, 3, 0))
    return 30 * np.exp(smooth / smooth.std())


def noisy(image, amount, seed=1):
    noise = np.random.default_rng(seed).normal(size=image.shape)
    return image * np.exp(amount * noise)


# --- the original program --------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("name", [*(f"disk_{name}" for name in DISTORTIONS), "gabor_test"])
def test_scores_and_maps_equal_the_original(golden, scores, name, encoding):
    test, reference = (coded(image, encoding) for image in pair(golden, name))
    result = hdrvdp2(test, reference, ENCODINGS[encoding], PPD)
    want = scores[name][encoding]
    assert pytest.approx(want["Q"], abs=1e-6) == result.Q
    assert pytest.approx(want["Q_220"], abs=1e-6) == result.Q_220
    assert pytest.approx(want["Q_MOS"], abs=1e-6) == result.Q_MOS
    assert result.P_det == pytest.approx(want["P_det"], abs=1e-6)
    assert result.C_max == pytest.approx(want["C_max"], rel=1e-6)
    np.testing.assert_allclose(
        blocks_of_8(result.P_map), golden[f"{name}_{encoding}_P8"], rtol=0, atol=1e-6
    )
    if f"{name}_{encoding}_P_map" in golden:
        np.testing.assert_allclose(
            result.P_map, golden[f"{name}_{encoding}_P_map"], rtol=0, atol=1e-6
        )


@pytest.mark.parametrize("name", [*(f"disk_{name}" for name in DISTORTIONS), "gabor_test"])
def test_float32_gives_nearly_the_same(golden, scores, name):
    result = hdrvdp2(*pair(golden, name), "rgb-bt.709", PPD, dtype=torch.float32)
    assert pytest.approx(scores[name]["rgb"]["Q"], abs=1e-4) == result.Q
    assert result.P_map.dtype == result.C_map.dtype == np.float32
    np.testing.assert_allclose(
        blocks_of_8(result.P_map), golden[f"{name}_rgb_P8"], rtol=0, atol=1e-4
    )


def test_curves_equal_the_original(golden):
    mtf = vision.optical_mtf(torch.from_numpy(golden["curve_rho"])).numpy()
    np.testing.assert_allclose(mtf, golden["curve_mtf"], rtol=1e-12)
    luminance = golden["curve_la"]
    sensitivity = vision.neural_csf(golden["curve_ncsf_rho"], luminance[:, None])
    np.testing.assert_allclose(sensitivity, golden["curve_ncsf"], rtol=1e-10)
    np.testing.assert_allclose(vision.joint_sensitivity(luminance), golden["curve_sA"], rtol=1e-12)
    np.testing.assert_allclose(vision.rod_sensitivity(luminance), golden["curve_sR"], rtol=1e-10)
    cone, rod = vision.photoreceptor_response()
    np.testing.assert_allclose(np.linspace(-5, 5, 2048), golden["curve_logl"], atol=1e-12)
    np.testing.assert_allclose(cone, golden["curve_jnd_cone"], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(rod, golden["curve_jnd_rod"], rtol=1e-9, atol=1e-12)


def shared(name):
    with np.load(SHARED_GOLDEN / name) as file:
        return {key: file[key].astype(np.float64) for key in file}


def bottles():
    return shared("inputs/vdp_mini_bottles.npz")


@needs_shared
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("dataset", ["mini_bottles", "mini_disk", "syn_disk", "gabor"])
def test_all_scores_and_maps_equal_the_original(dataset, encoding):
    scores = json.loads((SHARED_GOLDEN / "hdrvdp_scores.json").read_text())["scores"][dataset]
    images, maps = shared(f"inputs/vdp_{dataset}.npz"), shared("hdrvdp_pmaps.npz")
    reference = coded(images["reference" if dataset == "gabor" else "identical"], encoding)
    for name, want in scores.items():
        want, test = want[encoding], coded(images[name], encoding)
        result = hdrvdp2(test, reference, ENCODINGS[encoding], PPD)
        assert pytest.approx(want["Q"], abs=1e-6) == result.Q, name
        assert pytest.approx(want["Q220"], abs=1e-6) == result.Q_220, name
        assert pytest.approx(want["Q_MOS220"], abs=1e-6) == result.Q_MOS, name
        assert result.C_max == pytest.approx(want["C_max"], rel=1e-6), name
        key = f"{dataset}__{name}__{encoding}__"
        np.testing.assert_allclose(blocks_of_8(result.P_map), maps[key + "P8"], rtol=0, atol=1e-6)
        if key + "P_map" in maps:
            np.testing.assert_allclose(result.P_map, maps[key + "P_map"], rtol=0, atol=1e-6)
            np.testing.assert_allclose(result.C_map, maps[key + "C_map"], rtol=1e-5, atol=1e-10)


OPTIONS = {
    "surround_m1": {"surround": -1},
    "surround_13": {"surround": 13},
    "crt": {"rgb_display": "crt"},
    "ledlcd": {"rgb_display": "led-lcd"},
    "nomask": {"do_masking": False},
    "nomtf": {"do_mtf": False},
    "nopool": {"do_spatial_pooling": False},
    "peak3": {"peak_sensitivity": 3},
    **{f"ppd{ppd}": {} for ppd in (15, 30, 60, 100)},
    **{f"scale_1e{power}": {} for power in ("m3", "m2", "m1", "1", "2")},
}


@needs_shared
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_all_options_equal_the_original(dtype):
    tolerance = 1e-6 if dtype == "float64" else 1e-4
    results = json.loads((SHARED_GOLDEN / "hdrvdp_options.json").read_text())
    assert OPTIONS.keys() == results.keys() - {"encodings", "_note"}
    images = bottles()
    for option, keywords in OPTIONS.items():
        ppd = float(option[3:]) if option.startswith("ppd") else PPD
        factor = 10.0 ** int(option[8:].replace("m", "-")) if option.startswith("scale") else 1
        for name, want in results[option].items():
            test, reference = factor * images[name], factor * images["identical"]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                result = hdrvdp2(test, reference, "rgb-bt.709", ppd, dtype=dtype, **keywords)
            assert pytest.approx(want["Q"], abs=tolerance) == result.Q, option
            assert pytest.approx(want["Q220"], abs=tolerance) == result.Q_220, option
            assert result.P_det == pytest.approx(want["P_det"], abs=tolerance), option
            assert result.P_map.mean() == pytest.approx(want["P_mean"], abs=tolerance), option


TO_XYZ = [
    [0.4124564, 0.3575761, 0.1804375],
    [0.2126729, 0.7151522, 0.0721750],
    [0.0193339, 0.1191920, 0.9503041],
]


@needs_shared
@pytest.mark.parametrize(
    ("name", "encoding"), [("srgb", "sRGB-display"), ("luma", "luma-display"), ("xyz", "XYZ")]
)
def test_all_encodings_equal_the_original(name, encoding):
    want = json.loads((SHARED_GOLDEN / "hdrvdp_options.json").read_text())["encodings"][name]
    images, radiance = shared("hdrvdp_display_enc.npz"), bottles()
    pair = [images["test"], images["ref"]]
    if name == "luma":
        pair = [image @ LUMINANCE for image in pair]
    if name == "xyz":
        pair = [radiance[key] @ np.transpose(TO_XYZ) for key in ("noise5", "identical")]
    result = hdrvdp2(*pair, encoding, PPD)
    assert pytest.approx(want["Q"], abs=1e-6) == result.Q
    assert pytest.approx(want["Q220"], abs=1e-6) == result.Q_220
    assert result.C_max == pytest.approx(want["C_max"], rel=1e-6)
    if name != "xyz":
        np.testing.assert_allclose(result.P_map, images[f"P_map_{name}"], rtol=0, atol=1e-6)
        code = [np.rint(255 * image).astype(np.uint8) for image in pair]
        floats = [image / 255 for image in code]
        assert hdrvdp2(*code, encoding, PPD).Q == hdrvdp2(*floats, encoding, PPD).Q


# --- what must hold --------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", vision.ENCODINGS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_identical_images_are_perfect(encoding, dtype):
    image = scene()
    if encoding.endswith("display"):
        image /= image.max()
    if encoding.startswith("lum"):
        image = image[..., 0]
    result = hdrvdp2(image, image.copy(), encoding, 30, dtype=dtype)
    assert pytest.approx(100, abs=1e-9) == result.Q
    assert result.P_det == result.C_max == 0
    assert not result.P_map.any()
    assert not result.C_map.any()
    assert result.P_map.shape == result.C_map.shape == image.shape[:2]
    assert not np.any(drim(image, image.copy(), encoding, 30))


def test_more_noise_and_more_blur_are_worse():
    reference = scene((64, 80))
    for tests in (
        [noisy(reference, amount) for amount in (0.01, 0.03, 0.1, 0.3)],
        [ndimage.gaussian_filter(reference, (s, s, 0)) for s in (0.5, 1, 2, 4)],
    ):
        results = [hdrvdp2(test, reference, "rgb-bt.709", 30) for test in tests]
        assert all(better.Q > worse.Q for better, worse in pairwise(results))
        assert all(better.Q_MOS > worse.Q_MOS for better, worse in pairwise(results))
        assert results[0].Q < 100


def test_a_difference_is_seen_where_it_is():
    reference = np.full((96, 128), 80.0)
    test = reference.copy()
    test[40:56, 88:104] *= 1.5
    result = hdrvdp2(test, reference, "luminance", 30, do_spatial_pooling=False)
    assert result.P_map[38:58, 86:106].max() > 0.99
    assert result.P_map[:, :32].max() < 0.05


@pytest.mark.parametrize("shape", [(17, 17), (17, 70), (33, 34), (70, 19), (65, 66)])
def test_all_sizes_from_17_pixels(shape):
    reference = scene(shape)
    result = hdrvdp2(noisy(reference, 0.1), reference, "rgb-bt.709", 30)
    assert 0 < result.Q < 100
    assert np.isfinite(result.C_map).all()
    assert result.P_map.shape == shape


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-6), ("float32", 1e-4)])
def test_a_gpu_gives_the_same(golden, scores, dtype, tolerance):
    images = [torch.from_numpy(image).cuda() for image in pair(golden, "disk_local")]
    result = hdrvdp2(*images, "rgb-bt.709", PPD, dtype=dtype)
    assert pytest.approx(scores["disk_local"]["rgb"]["Q"], abs=tolerance) == result.Q
    assert result.P_map.is_cuda
    np.testing.assert_allclose(
        result.P_map.cpu(), golden["disk_local_rgb_P_map"], rtol=0, atol=max(tolerance, 1e-5)
    )


# --- parts -----------------------------------------------------------------------------------


def test_pixels_per_degree():
    assert pixels_per_degree(24, (1920, 1200), 0.5) == pytest.approx(33.5102139115, abs=1e-9)
    # a display that fills 2 x 45 degrees: 1 m high, seen from 0.5 m
    assert pixels_per_degree(np.sqrt(2) / 0.0254, (900, 900), 0.5) == pytest.approx(10)


@pytest.mark.parametrize("shape", [(31, 45), (64, 40), (37, 70)])
def test_scatter_is_a_product_of_spectra(shape):
    """On a grid of twice the size that the surround fills, all at once."""
    image = scene(shape)[..., 0]
    filled = np.full((2 * shape[0], 2 * shape[1]), 2.0)
    filled[: shape[0], : shape[1]] = image
    rho = np.hypot(*np.meshgrid(*(np.fft.fftfreq(n) * 30 for n in filled.shape), indexing="ij"))
    transfer = vision.optical_mtf(torch.from_numpy(rho)).numpy()
    want = np.fft.ifft2(np.fft.fft2(filled) * transfer).real[: shape[0], : shape[1]]
    ours = torch.from_numpy(image - 2.0)[None]
    vision._scatter(ours, 30)
    np.testing.assert_allclose(ours[0] + 2, want, rtol=1e-10)


@pytest.mark.parametrize("shape", [(17, 40), (48, 65), (34, 33)])
def test_pyramid_is_a_chain_of_correlations(shape):
    """Against SciPy, filter by filter, as the pyramid is defined."""
    with np.load(Path(vision.__file__).with_name("sp3_filters.npz")) as file:
        taps = dict(file)
    image = np.random.default_rng(5).normal(size=shape)

    def correlate(part, kernel):
        return ndimage.correlate(part, kernel, mode="mirror")

    want, low = [[correlate(image, taps["hi0"])]], correlate(image, taps["lo0"])
    for _ in range(pyramid.level_count(*shape)):
        want.append([correlate(low, kernel) for kernel in taps["b"]])
        low = correlate(low, taps["lo"])[::2, ::2]
    want.append([low])
    bands = pyramid.steerable_pyramid(torch.from_numpy(np.stack([image, 2 * image])))
    assert len(bands) == len(want)
    for ours, theirs in zip(bands, want, strict=True):
        np.testing.assert_allclose(ours[:, 0], np.stack(theirs), atol=1e-12)
        np.testing.assert_allclose(ours[:, 1], 2 * np.stack(theirs), atol=1e-12)

    rebuilt = want[-1][0]
    for band in reversed(want[1:-1]):
        spread = np.zeros(band[0].shape)
        spread[::2, ::2] = rebuilt
        rebuilt = ndimage.convolve(spread, taps["lo"], mode="mirror")
        rebuilt += sum(
            ndimage.convolve(part, kernel, mode="mirror")
            for part, kernel in zip(band, taps["b"], strict=True)
        )
    rebuilt = ndimage.convolve(rebuilt, taps["lo0"], mode="mirror")
    rebuilt += ndimage.convolve(want[0][0], taps["hi0"], mode="mirror")
    np.testing.assert_allclose(pyramid.rebuild([band[:, 0] for band in bands]), rebuilt, atol=1e-12)


def test_sizes_of_levels_and_transforms():
    assert [pyramid.level_count(n, 500) for n in (16, 17, 33, 34, 67, 68, 608)] == [
        0,
        1,
        1,
        2,
        2,
        3,
        5,
    ]
    assert [pyramid.fast_length(n) for n in (1, 2, 13, 97, 257)] == [2, 2, 14, 98, 264]


@pytest.mark.parametrize(("length", "target"), [(9, 17), (17, 9), (33, 5), (40, 20), (66, 131)])
def test_resizing_follows_the_definition(length, target):
    """Output pixel by output pixel; Keys' kernel, and edges mirrored with the edge pixel repeated."""
    image = np.random.default_rng(6).normal(size=(length, 3))
    padded = np.pad(image, ((length, length), (0, 0)), mode="symmetric")
    scale, want = target / length, []
    for x in range(1, target + 1):
        centre = x / scale + 0.5 * (1 - 1 / scale)
        t = min(scale, 1) * np.abs(centre - np.arange(1 - length, 2 * length + 1))
        near, far = 1.5 * t**3 - 2.5 * t**2 + 1, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
        weights = np.where(t <= 1, near, np.where(t <= 2, far, 0))
        want.append(weights @ padded / weights.sum())
    ours = pyramid.resize_bicubic(torch.from_numpy(image), (target, 3))
    np.testing.assert_allclose(ours, want, atol=1e-12)
    turned = pyramid.resize_bicubic(torch.from_numpy(image.T.copy()), (3, target))
    np.testing.assert_allclose(turned, np.transpose(want), atol=1e-12)


# --- input, also of DRIM, which reads images by the same function -----------------------------


def test_black_is_allowed_and_inputs_stay_unchanged():
    reference = scene().astype(np.float32)
    reference[5:9, 5:9] = 0
    test = noisy(reference, 0.1).astype(np.float32)
    want = hdrvdp2(test, reference, "rgb-bt.709", 30)
    assert 0 < want.Q < 100
    before = test.copy(), reference.copy()
    for turn in (np.asfortranarray, lambda x: x.astype(">f4"), lambda x: x[::-1].copy()[::-1]):
        assert hdrvdp2(turn(test), turn(reference), "rgb-bt.709", 30).Q == want.Q
    tensors = hdrvdp2(torch.from_numpy(test), torch.from_numpy(reference), "rgb-bt.709", 30)
    assert isinstance(tensors.P_map, torch.Tensor)
    np.testing.assert_array_equal(tensors.P_map.numpy(), want.P_map)
    np.testing.assert_array_equal((test, reference), before)
    holed, filled = test.copy(), test.copy()
    holed[3, 4], filled[3, 4] = np.nan, 1e-5  # as the original does (D30)
    assert (
        pytest.approx(hdrvdp2(filled, reference, "rgb-bt.709", 30).Q, rel=1e-6)
        == hdrvdp2(holed, reference, "rgb-bt.709", 30).Q
    )
    with pytest.warns(UserWarning, match="absolute luminance"):
        assert pytest.approx(100) == hdrvdp2(0 * test, 0 * test, "rgb-bt.709", 30).Q


FLAT = np.full((20, 20, 3), 2.0)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("metric", [hdrvdp2, drim])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"color_encoding": "sRGB"}, "Unknown colour encoding 'sRGB'"),
        ({"color_encoding": "luminance"}, r"shape \(H, W\)"),
        ({"color_encoding": "sRGB-display"}, "within 0 and 1; the reference"),
        ({"test": np.ones((20, 21, 3))}, "one size"),
        ({"test": FLAT[..., 0], "reference": FLAT[..., 0]}, r"shape \(H, W, 3\)"),
        ({"test": FLAT[:16], "reference": FLAT[:16]}, "17 x 17"),
        ({"test": FLAT * np.inf}, "within 0 and 1e.15; the test image holds inf"),
        ({"test": np.float32(FLAT * 1.5e38)}, "the test image holds 3e.38"),
        ({"reference": -FLAT}, "the reference image holds -2 to -2"),
        ({"test": FLAT.astype(np.uint8)}, "the test image is uint8"),
        ({"test": FLAT.astype(complex)}, "the test image is complex128"),
        ({"test": np.full((20, 20, 3), "1")}, "the test image is str"),
        ({"pixels_per_degree": 0}, "pixels_per_degree"),
        ({"pixels_per_degree": np.nan}, "pixels_per_degree"),
        ({"surround": -2}, "surround"),
        ({"rgb_display": "oled"}, "Unknown display 'oled'"),
        ({"peak_sensitivity": np.nan}, "peak_sensitivity"),
        ({"dtype": torch.float16}, "float64 or float32"),
        ({"peak_contrast": 0}, "peak_contrast"),
        ({"peak_contrast": np.nan}, "peak_contrast"),
        ({"device": "no such thing"}, "Cannot compute in float64 on no such thing"),
    ],
)
def test_wrong_input_is_refused_in_one_sentence(metric, change, message):
    known = {"dtype", "peak_sensitivity"} if metric is drim else {"peak_contrast"}
    if known & change.keys():
        pytest.skip("an option of the other metric")
    options = {"test": FLAT, "reference": FLAT, "color_encoding": "rgb-bt.709"}
    with pytest.raises(ReplicationError, match=message) as error:
        metric(**(options | {"pixels_per_degree": 30} | change))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("arguments", [(0, (4, 3), 1), (24, (0, 3), 1), (24, (4, 3), np.nan)])
def test_wrong_display(arguments):
    with pytest.raises(ReplicationError, match="A display needs"):
        pixels_per_degree(*arguments)
