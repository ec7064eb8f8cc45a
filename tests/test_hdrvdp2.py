"""HDR-VDP-2 against the original program, SciPy, plain formulas and what must hold."""

import json
import warnings
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
SCORES = {name: name for name in ("Q", "Q_220", "Q_MOS", "P_det", "C_max")}
SCORES |= {"Q220": "Q_220", "Q_MOS220": "Q_MOS"}  # names in the complete results

needs_shared = pytest.mark.skipif(not SHARED_GOLDEN.is_dir(), reason="complete results elsewhere")


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "hdrvdp2.npz") as file:
        return dict(file)


def pair(golden, name):
    if name == "gabor_test":
        test = np.repeat(golden[name][..., None], 3, axis=2)
        return test.astype(np.float64), np.full(test.shape, 50.0)
    return golden[name].astype(np.float64), golden["disk_reference"].astype(np.float64)


def coded(image, encoding):
    return image @ LUMINANCE if encoding == "lum" else image


def shared(name):
    with np.load(SHARED_GOLDEN / name) as file:
        return {key: file[key].astype(np.float64) for key in file}


def assert_scores(result, want, tolerance=1e-6):
    for key in SCORES.keys() & want.keys():
        close = {"rel": tolerance} if key == "C_max" else {"abs": tolerance}
        assert getattr(result, SCORES[key]) == pytest.approx(want[key], **close), key
    assert result.P_map.mean() == pytest.approx(want.get("P_mean", result.P_map.mean()), abs=tolerance)


def assert_maps(result, maps, prefix, tolerance=1e-6):
    """The visibility as means of 8 x 8 blocks, and whole maps where there are some."""
    height, width = (n // 8 for n in result.P_map.shape)
    blocks = result.P_map[: 8 * height, : 8 * width].astype(np.float64)
    blocks = blocks.reshape(height, 8, width, 8).mean(axis=(1, 3))
    np.testing.assert_allclose(blocks, maps[prefix + "P8"], rtol=0, atol=tolerance)
    if prefix + "P_map" in maps:
        np.testing.assert_allclose(result.P_map, maps[prefix + "P_map"], rtol=0, atol=tolerance)
    if prefix + "C_map" in maps:
        np.testing.assert_allclose(result.C_map, maps[prefix + "C_map"], rtol=1e-5, atol=1e-10)


def scene(shape=(40, 52), seed=0):
    """A smooth scene of about 1 to 1000 cd/m2."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=(*shape, 3)), (3, 3, 0))
    return 30 * np.exp(smooth / smooth.std())


def noisy(image, amount):
    return image * np.exp(amount * np.random.default_rng(1).normal(size=image.shape))


# --- the original program --------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("name", [*(f"disk_{name}" for name in DISTORTIONS), "gabor_test"])
def test_scores_and_maps_equal_the_original(golden, name, encoding):
    scores = json.loads((GOLDEN / "hdrvdp2.json").read_text())["scores"]
    images = [coded(image, encoding) for image in pair(golden, name)]
    for dtype, tolerance in ((np.float64, 1e-6), (np.float32, 1e-4)):
        result = hdrvdp2(*images, ENCODINGS[encoding], PPD, dtype=dtype.__name__)
        assert result.P_map.dtype == result.C_map.dtype == dtype
        assert_scores(result, scores[name][encoding], tolerance)
        assert_maps(result, golden, f"{name}_{encoding}_", tolerance)


def test_curves_equal_the_original(golden):
    mtf = vision.optical_mtf(torch.from_numpy(golden["curve_rho"])).numpy()
    np.testing.assert_allclose(mtf, golden["curve_mtf"], rtol=1e-12)
    sensitivity = vision.neural_csf(golden["curve_ncsf_rho"], golden["curve_la"][:, None])
    np.testing.assert_allclose(sensitivity, golden["curve_ncsf"], rtol=1e-10)
    np.testing.assert_allclose(np.linspace(-5, 5, 2048), golden["curve_logl"], atol=1e-12)
    want = golden["curve_jnd_cone"], golden["curve_jnd_rod"]
    np.testing.assert_allclose(vision.photoreceptor_response(), want, rtol=1e-9, atol=1e-12)


@needs_shared
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("dataset", ["mini_bottles", "mini_disk", "syn_disk", "gabor"])
def test_all_scores_and_maps_equal_the_original(dataset, encoding):
    scores = json.loads((SHARED_GOLDEN / "hdrvdp_scores.json").read_text())["scores"][dataset]
    images, maps = shared(f"inputs/vdp_{dataset}.npz"), shared("hdrvdp_pmaps.npz")
    reference = coded(images["reference" if dataset == "gabor" else "identical"], encoding)
    for name, want in scores.items():
        result = hdrvdp2(coded(images[name], encoding), reference, ENCODINGS[encoding], PPD)
        assert_scores(result, want[encoding])
        assert_maps(result, maps, f"{dataset}__{name}__{encoding}__")


OPTIONS = {"surround_m1": {"surround": -1}, "surround_13": {"surround": 13}}
OPTIONS |= {"crt": {"rgb_display": "crt"}, "ledlcd": {"rgb_display": "led-lcd"}}
OPTIONS |= {"nomask": {"do_masking": False}, "nomtf": {"do_mtf": False}}
OPTIONS |= {"nopool": {"do_spatial_pooling": False}, "peak3": {"peak_sensitivity": 3}}
OPTIONS |= {f"ppd{ppd}": {"pixels_per_degree": ppd} for ppd in (15, 30, 60, 100)}
OPTIONS |= {f"scale_1e{power}": {} for power in ("m3", "m2", "m1", "1", "2")}


@needs_shared
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-6), ("float32", 1e-4)])
def test_all_options_equal_the_original(dtype, tolerance):
    results = json.loads((SHARED_GOLDEN / "hdrvdp_options.json").read_text())
    assert OPTIONS.keys() == results.keys() - {"encodings", "_note"}
    images = shared("inputs/vdp_mini_bottles.npz")
    for option, keywords in OPTIONS.items():
        factor = 10.0 ** int(option[8:].replace("m", "-")) if option.startswith("scale") else 1
        keywords = {"pixels_per_degree": PPD, "dtype": dtype} | keywords
        for name, want in results[option].items():
            test, reference = factor * images[name], factor * images["identical"]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                result = hdrvdp2(test, reference, "rgb-bt.709", **keywords)
            assert_scores(result, want, tolerance)


RED, GREEN = (0.4124564, 0.2126729, 0.0193339), (0.3575761, 0.7151522, 0.1191920)
TO_XYZ = np.array([RED, GREEN, (0.1804375, 0.0721750, 0.9503041)])


@needs_shared
@pytest.mark.parametrize(
    ("name", "encoding"), [("srgb", "sRGB-display"), ("luma", "luma-display"), ("xyz", "XYZ")]
)
def test_all_encodings_equal_the_original(name, encoding):
    want = json.loads((SHARED_GOLDEN / "hdrvdp_options.json").read_text())["encodings"][name]
    images, radiance = shared("hdrvdp_display_enc.npz"), shared("inputs/vdp_mini_bottles.npz")
    pair = [images["test"], images["ref"]]
    if name == "luma":
        pair = [image @ LUMINANCE for image in pair]
    if name == "xyz":
        pair = [radiance[key] @ TO_XYZ for key in ("noise5", "identical")]
    result = hdrvdp2(*pair, encoding, PPD)
    assert_scores(result, want)
    if name != "xyz":
        np.testing.assert_allclose(result.P_map, images[f"P_map_{name}"], rtol=0, atol=1e-6)
        code = [np.rint(255 * image).astype(np.uint8) for image in pair]
        assert hdrvdp2(*code, encoding, PPD).Q == hdrvdp2(*(x / 255 for x in code), encoding, PPD).Q


# --- what must hold --------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", vision.ENCODINGS)
def test_identical_images_are_perfect(encoding):
    image = scene()[..., 0] if encoding.startswith("lum") else scene()
    if encoding.endswith("display"):
        image /= image.max()
    for dtype in (torch.float64, torch.float32):
        result = hdrvdp2(image, image.copy(), encoding, 30, dtype=dtype)
        assert pytest.approx(100, abs=1e-9) == result.Q
        assert result.P_det == result.C_max == result.P_map.max() == result.C_map.max() == 0
        assert result.P_map.shape == result.C_map.shape == image.shape[:2]
    assert not np.any(drim(image, image.copy(), encoding, 30))


@pytest.mark.parametrize("shape", [(17, 17), (17, 70), (33, 34), (70, 19), (65, 66)])
def test_all_sizes_from_17_pixels(shape):
    reference = scene(shape)
    result = hdrvdp2(noisy(reference, 0.1), reference, "rgb-bt.709", 30)
    assert 0 < result.Q < 100
    assert np.isfinite(result.C_map).all()
    assert result.P_map.shape == shape


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_gives_the_same(golden):
    images = pair(golden, "disk_local")
    results = [hdrvdp2(*images, "rgb-bt.709", PPD, device=device) for device in ("cpu", "cuda")]
    assert pytest.approx(results[1].Q, abs=1e-6) == results[0].Q
    changes = [drim(*images, "rgb-bt.709", PPD, device=device) for device in ("cpu", "cuda")]
    assert np.mean(np.abs(np.subtract(*changes)) > 0.02) < 1e-3


# --- parts -----------------------------------------------------------------------------------


def test_pixels_per_degree():
    assert pixels_per_degree(24, (1920, 1200), 0.5) == pytest.approx(33.5102139115, abs=1e-9)
    # a display that fills 2 x 45 degrees: 1 m high, seen from 0.5 m
    assert pixels_per_degree(np.sqrt(2) / 0.0254, (900, 900), 0.5) == pytest.approx(10)
    for wrong in ((0, (4, 3), 1), (24, (4, 3), np.nan)):
        with pytest.raises(ReplicationError, match="A display needs"):
            pixels_per_degree(*wrong)


@pytest.mark.parametrize("shape", [(17, 40), (48, 65), (34, 33)])
def test_pyramid_is_a_chain_of_correlations(shape):
    """Against SciPy, filter by filter, as the pyramid is defined."""
    with np.load(Path(vision.__file__).with_name("sp3_filters.npz")) as file:
        taps = dict(file)
    image = np.random.default_rng(5).normal(size=shape)

    def filtered(part, kernel):
        return ndimage.correlate(part, kernel, mode="mirror")

    want, low = [[filtered(image, taps["hi0"])]], filtered(image, taps["lo0"])
    for _ in range(pyramid.level_count(*shape)):
        want.append([filtered(low, kernel) for kernel in taps["b"]])
        low = filtered(low, taps["lo"])[::2, ::2]
    want.append([low])
    bands = pyramid.steerable_pyramid(torch.from_numpy(np.stack([image, 2 * image])))
    for ours, theirs in zip(bands, want, strict=True):
        np.testing.assert_allclose(ours[:, 0], np.stack(theirs), atol=1e-12)
        np.testing.assert_allclose(ours[:, 1], 2 * np.stack(theirs), atol=1e-12)


def test_sizes_of_levels_and_transforms():
    levels = {16: 0, 17: 1, 33: 1, 34: 2, 67: 2, 68: 3, 608: 5}
    assert {n: pyramid.level_count(n, 500) for n in levels} == levels
    lengths = {1: 2, 2: 2, 13: 14, 97: 98, 257: 264}
    assert {n: pyramid.fast_length(n) for n in lengths} == lengths


# --- input, also of DRIM, which reads images by the same function -----------------------------


@pytest.mark.parametrize("metric", [hdrvdp2, drim])
def test_kinds_of_input(metric):
    """Black is allowed, memory layouts do not matter, tensors give tensors, inputs stay unchanged."""
    reference = scene().astype(np.float32)
    reference[5:9, 5:9] = 0
    test = noisy(reference, 0.1).astype(np.float32)
    before = test.copy(), reference.copy()

    def maps(*pair):
        return [m for m in metric(*pair, "rgb-bt.709", 30) if not isinstance(m, float)]

    want = maps(test, reference)
    for turn in (np.asfortranarray, lambda x: x.astype(">f4"), lambda x: x[::-1].copy()[::-1]):
        np.testing.assert_array_equal(maps(turn(test), turn(reference)), want)
    tensors = maps(torch.from_numpy(test), torch.from_numpy(reference))
    assert all(isinstance(image, torch.Tensor) for image in tensors)
    np.testing.assert_array_equal(tensors, want)
    np.testing.assert_array_equal((test, reference), before)
    filled = test.copy()
    test[3, 4], filled[3, 4] = np.nan, 1e-5  # as the original does (D30)
    np.testing.assert_allclose(maps(test, reference), maps(filled, reference), rtol=1e-5)
    with pytest.warns(UserWarning, match="absolute luminance") as warned:
        assert np.max(maps(0 * reference, 0 * reference)) == 0
    assert warned[0].filename == __file__


FLAT = np.full((20, 20, 3), 2.0)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"color_encoding": "sRGB"}, "Unknown colour encoding 'sRGB'"),
        ({"color_encoding": "sRGB-display"}, "within 0 and 1; the reference"),
        ({"test": np.ones((20, 21, 3))}, "one size"),
        ({"test": FLAT[..., 0], "reference": FLAT[..., 0]}, r"images \(H, W, 3\)"),
        ({"test": FLAT[:16], "reference": FLAT[:16]}, "17 x 17"),
        ({"test": FLAT * np.inf}, "within 0 and 1e.15; the test image holds inf"),
        ({"test": np.float32(FLAT * 1.5e38)}, "the test image holds 3e.38"),
        ({"reference": -FLAT}, "the reference image holds -2 to -2"),
        ({"test": FLAT.astype(np.uint8)}, "the test image is uint8"),
        ({"pixels_per_degree": 0}, "pixels_per_degree"),
        ({"surround": -2}, "surround"),
        ({"rgb_display": "oled"}, "Unknown display 'oled'"),
        ({"device": "no such thing"}, "Unknown device 'no such thing'"),
        ({"peak_sensitivity": np.nan}, "peak_sensitivity"),
        ({"dtype": torch.float16}, "float64 or float32"),
        ({"peak_contrast": np.nan}, "peak_contrast"),
    ],
)
def test_wrong_input_is_refused_in_one_sentence(change, message):
    options = {"test": FLAT, "reference": FLAT, "color_encoding": "rgb-bt.709"}
    options |= {"pixels_per_degree": 30} | change
    for metric, other in ((hdrvdp2, {"peak_contrast"}), (drim, {"peak_sensitivity", "dtype"})):
        if not other & change.keys():
            with pytest.raises(ReplicationError, match=message) as error:
                metric(**options)
            assert "\n" not in str(error.value)
