"""HDR-VDP-2 against the original program, SciPy, plain formulas and what must hold."""

import json
import warnings
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from replication.files import ReplicationError
from replication.metrics import hdrvdp2, pixels_per_degree, vision
from replication.metrics.pyramid import fast_length, level_count, rebuild, steerable_pyramid
from replication.metrics.resize import resize_bicubic
from tests.conftest import SHARED_GOLDEN

GOLDEN = Path(__file__).parent / "golden"
PPD = 33.510213911468036
DISTORTIONS = ["noise5", "blur15", "gamma11", "scale08", "ldr8", "local"]
ENCODINGS = {"rgb": "rgb-bt.709", "lum": "luminance"}
LUMINANCE = np.array([0.2126, 0.7152, 0.0722])

needs_shared = pytest.mark.skipif(
    not (SHARED_GOLDEN / "hdrvdp_scores.json").is_file(),
    reason="the complete results are elsewhere",
)
# the module itself: the package gives its name to the function
steps = import_module("replication.metrics.hdrvdp2")


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


# --- the original program, results that are not part of the repository -------------------------


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


@needs_shared
def test_all_encodings_equal_the_original():
    results = json.loads((SHARED_GOLDEN / "hdrvdp_options.json").read_text())["encodings"]
    images, radiance = shared("hdrvdp_display_enc.npz"), bottles()
    to_xyz = [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
    for name, encoding in (("srgb", "sRGB-display"), ("luma", "luma-display"), ("xyz", "XYZ")):
        test, reference = images["test"], images["ref"]
        if name == "luma":
            test, reference = test @ LUMINANCE, reference @ LUMINANCE
        if name == "xyz":
            test, reference = (
                radiance[key] @ np.transpose(to_xyz) for key in ("noise5", "identical")
            )
        result = hdrvdp2(test, reference, encoding, PPD)
        assert pytest.approx(results[name]["Q"], abs=1e-6) == result.Q, name
        assert pytest.approx(results[name]["Q220"], abs=1e-6) == result.Q_220, name
        assert result.C_max == pytest.approx(results[name]["C_max"], rel=1e-6), name
        if name != "xyz":
            np.testing.assert_allclose(result.P_map, images[f"P_map_{name}"], rtol=0, atol=1e-6)


@needs_shared
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_intermediate_equals_the_original(encoding):
    dump, images = shared("hdrvdp_dump_mini_bottles_noise5.npz"), bottles()
    dump = {key.removeprefix(f"{encoding}_"): dump[key] for key in dump if key.startswith(encoding)}
    test, reference = (coded(images[key], encoding) for key in ("noise5", "identical"))
    planes = vision.read_intensities(reference, test, ENCODINGS[encoding])
    changed = steps._changed(planes)
    everywhere = np.ones(reference.shape[:2])
    np.testing.assert_array_equal(everywhere if changed is None else changed, dump["diff_mask"])

    response, adaptation = vision.retinal_response(planes, PPD)
    np.testing.assert_allclose(response[0], dump["P_R"], rtol=1e-9, atol=1e-8)
    np.testing.assert_allclose(response[1], dump["P_T"], rtol=1e-9, atol=1e-8)
    np.testing.assert_allclose(adaptation.mean(0), dump["L_adapt"], rtol=1e-9)

    bands = steps._decompose(response, adaptation, PPD, torch.float64)
    sensitivities = steps._sensitivities(adaptation, bands, PPD)
    masks = [steps._mutual_mask(*pair) for pair in bands]
    assert [len(reference) for reference, _ in bands] == dump["sz"].tolist()
    row = 0
    for band, (reference, difference) in enumerate(bands):
        gain, near = 2.0**band, steps._neighbours(masks, band)
        visible, errors = steps._compare(
            band, difference, masks[band], near, sensitivities[band], changed
        )
        frequency = PPD / 2 ** (band + 1)
        curve = vision.neural_csf(frequency, dump["csf_la"])
        if band < len(bands) - 1:  # the base band has been filtered already
            np.testing.assert_allclose(curve, dump["CSF"][:, band], rtol=1e-9)
        for o in range(len(reference)):
            key = f"b{band + 1}_o{o + 1}"
            for ours, theirs in (
                (gain * reference[o], dump[f"R_{key}"]),
                (gain * (reference[o] + difference[o]), dump[f"T_{key}"]),
                (visible[o], dump[f"D_{key}"]),
            ):
                np.testing.assert_allclose(ours, theirs, rtol=2e-7, atol=2e-7 * abs(theirs).max())
            assert errors[o] == pytest.approx(dump["tele"][row, 5], rel=1e-8)
            assert frequency == pytest.approx(dump["tele"][row, 2], rel=1e-12)
            row += 1
    assert row == len(dump["tele"])


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


def test_numbers_belong_to_the_maps():
    reference = scene()
    test = noisy(reference, 0.05)
    result = hdrvdp2(test, reference, "rgb-bt.709", 30)
    assert result.P_det == result.P_map.max()
    assert result.C_max == result.C_map.max()
    np.testing.assert_allclose(result.P_map, 1 - 0.5**result.C_map, rtol=1e-9)
    alone = hdrvdp2(test, reference, "rgb-bt.709", 30, do_spatial_pooling=False)
    np.testing.assert_allclose(
        result.C_map, alone.C_map * alone.C_map.sum() / alone.C_max, rtol=1e-6
    )
    assert alone.Q == result.Q
    mos = 100 / (1 + np.exp(3.455 * (result.Q_220 + 0.8886)))
    assert pytest.approx(mos, rel=1e-12) == result.Q_MOS


def test_masking_hides_differences():
    reference = noisy(scene(), 0.5)
    test = noisy(reference, 0.05)
    masked, open_ = (
        hdrvdp2(test, reference, "rgb-bt.709", 30, do_masking=masking) for masking in (True, False)
    )
    assert masked.Q > open_.Q
    assert masked.C_max < open_.C_max


def test_encodings_agree():
    """One pair of pictures, told in every encoding that can tell it."""
    rng = np.random.default_rng(3)
    code = np.rint(255 * np.clip(rng.uniform(size=(24, 31, 3)) ** 2, 0, 1)).astype(np.uint8)
    other = np.clip(code.astype(int) + rng.integers(-9, 10, code.shape), 0, 255).astype(np.uint8)
    for encoding in ("sRGB-display", "luma-display"):
        pair = (code, other) if encoding.startswith("sRGB") else (code[..., 0], other[..., 0])
        bytes_ = hdrvdp2(*pair, encoding, 30)
        assert bytes_.Q == hdrvdp2(*(image / 255 for image in pair), encoding, 30).Q < 100
    light = [
        99 * np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4) + 1
        for v in (code / 255, other / 255)
    ]
    srgb, rgb = hdrvdp2(code, other, "sRGB-display", 30), hdrvdp2(*light, "rgb-bt.709", 30)
    assert pytest.approx(rgb.Q, abs=1e-9) == srgb.Q
    to_xyz = np.linalg.inv(vision._XYZ_TO_RGB).T
    xyz = hdrvdp2(*(image @ to_xyz for image in light), "XYZ", 30)
    assert pytest.approx(rgb.Q, abs=1e-6) == xyz.Q
    luma = hdrvdp2(code[..., 1], other[..., 1], "luma-display", 30)
    grey = [99 * (image[..., 1] / 255) ** 2.2 + 1 for image in (code, other)]
    assert pytest.approx(hdrvdp2(*grey, "luminance", 30).Q, abs=1e-9) == luma.Q


def test_surround_of_the_images_mean():
    reference = np.stack([np.full((32, 40), level) for level in (3.0, 3.0, 3.0)], axis=-1)
    reference[:16] *= 4
    test = noisy(reference, 0.1)
    mean = hdrvdp2(test, reference, "rgb-bt.709", 30, surround=-1)
    assert (
        pytest.approx(hdrvdp2(test, reference, "rgb-bt.709", 30, surround=6.0).Q, abs=1e-9)
        == mean.Q
    )
    assert pytest.approx(hdrvdp2(test, reference, "rgb-bt.709", 30).Q, abs=1e-3) != mean.Q


@pytest.mark.parametrize("shape", [(17, 17), (17, 70), (33, 34), (70, 19), (65, 66)])
def test_all_sizes_from_17_pixels(shape):
    reference = scene(shape)
    result = hdrvdp2(noisy(reference, 0.1), reference, "rgb-bt.709", 30)
    assert 0 < result.Q < 100
    assert np.isfinite(result.C_map).all()
    assert result.P_map.shape == shape


def test_black_and_nan_are_allowed():
    reference = scene()
    reference[5:9, 5:9] = 0
    test = noisy(reference, 0.1)
    result = hdrvdp2(test, reference, "rgb-bt.709", 30)
    assert 0 < result.Q < 100
    assert np.isfinite(result.P_map).all()
    test[20, 20] = 1e-5
    spoilt = test.copy()
    spoilt[20, 20] = np.nan
    assert (
        pytest.approx(hdrvdp2(test, reference, "rgb-bt.709", 30).Q, abs=1e-12)
        == hdrvdp2(spoilt, reference, "rgb-bt.709", 30).Q
    )
    with pytest.warns(UserWarning, match="absolute luminance"):
        dark = hdrvdp2(0 * test, 0 * reference, "rgb-bt.709", 30)
    assert pytest.approx(100, abs=1e-9) == dark.Q


def test_the_inputs_are_left_alone():
    reference = scene().astype(np.float32)
    test = noisy(reference, 0.1).astype(np.float32)
    want = hdrvdp2(test, reference, "rgb-bt.709", 30)
    before = test.copy(), reference.copy()
    for turn in (
        np.asfortranarray,
        lambda image: image.astype(">f4"),
        lambda image: image[::-1].copy()[::-1],
        lambda image: np.lib.stride_tricks.as_strided(image, writeable=False),
    ):
        assert hdrvdp2(turn(test), turn(reference), "rgb-bt.709", 30).Q == want.Q
    np.testing.assert_array_equal(test, before[0])
    np.testing.assert_array_equal(reference, before[1])


def test_strips_do_not_show(monkeypatch):
    reference = scene((150, 200))
    test = noisy(reference, 0.1)
    want = hdrvdp2(test, reference, "rgb-bt.709", 30)
    for module in (steps, vision):
        monkeypatch.setattr(module, "strips", lambda count, device, size=0: [slice(0, count)])
    result = hdrvdp2(test, reference, "rgb-bt.709", 30)
    assert pytest.approx(want.Q, abs=1e-10) == result.Q
    np.testing.assert_allclose(result.P_map, want.P_map, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, "float32", np.float32, np.dtype("float32")])
def test_names_of_float32(dtype):
    assert hdrvdp2(scene(), scene(), "rgb-bt.709", 30, dtype=dtype).P_map.dtype == np.float32


def test_tensors_give_tensors():
    reference = torch.from_numpy(scene()).requires_grad_()
    test = torch.from_numpy(noisy(scene(), 0.1))
    want = hdrvdp2(test.numpy(), reference.detach().numpy(), "rgb-bt.709", 30)
    result = hdrvdp2(test, reference, "rgb-bt.709", 30)
    assert result.Q == want.Q
    assert isinstance(result.P_map, torch.Tensor)
    assert isinstance(want.P_map, np.ndarray)
    assert result.P_map.dtype == torch.float64
    np.testing.assert_array_equal(result.P_map.numpy(), want.P_map)


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


def test_neural_csf_by_hand():
    np.testing.assert_allclose(
        vision.neural_csf(4, np.array([0.01, 1, 100])), [0.34649, 0.92587, 1.63449], atol=5e-6
    )
    assert vision.neural_csf(0, 10) == 0
    p1, p2, p3, p4 = 0.334278, 3.79542, 1.07327, 6.4635
    want = p4 / np.sqrt((1 + (p1 * 3) ** p2) / (1 - np.exp(-((3 / 7) ** 2))) ** p3)
    assert vision.neural_csf(3, 20) == pytest.approx(want, rel=1e-12)
    assert vision.neural_csf(3, 1e-9) == vision.neural_csf(3, 0.002)


def test_optics_pass_constants_and_add_up():
    assert vision.optical_mtf(torch.zeros(1)).item() == pytest.approx(1, abs=1e-7)
    falling = vision.optical_mtf(torch.linspace(0, 60, 100)).diff()
    assert (falling < 0).all()


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


def test_response_rises_with_luminance():
    response = vision.photoreceptor_response()
    assert (response[:, 0] == 0).all()
    assert (np.diff(response, axis=1) >= 0).all()
    higher = vision.photoreceptor_response(2.4 + np.log10(2))
    np.testing.assert_allclose(higher, 2 * response, rtol=1e-9)


@pytest.mark.parametrize("shape", [(17, 40), (48, 65), (34, 33)])
def test_pyramid_is_a_chain_of_correlations(shape):
    """Against SciPy, filter by filter, as the pyramid is defined."""
    with np.load(Path(vision.__file__).with_name("sp3_filters.npz")) as file:
        taps = dict(file)
    image = np.random.default_rng(5).normal(size=shape)

    def correlate(part, kernel):
        return ndimage.correlate(part, kernel, mode="mirror")

    want, low = [[correlate(image, taps["hi0"])]], correlate(image, taps["lo0"])
    for _ in range(level_count(*shape)):
        want.append([correlate(low, kernel) for kernel in taps["b"]])
        low = correlate(low, taps["lo"])[::2, ::2]
    want.append([low])
    bands = steerable_pyramid(torch.from_numpy(np.stack([image, 2 * image])))
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
    np.testing.assert_allclose(rebuild([band[:, 0] for band in bands]), rebuilt, atol=1e-12)


def test_pyramid_nearly_gives_the_image_back():
    image = scene((129, 160))[..., 0]
    bands = steerable_pyramid(torch.from_numpy(image)[None])
    back = rebuild([band[:, 0] for band in bands]).numpy()
    inside = slice(24, -24)
    error = (back - image)[inside, inside]
    assert np.sqrt(np.mean(error**2)) < 0.03 * image.std()


def test_levels_of_the_pyramid():
    assert [level_count(n, 500) for n in (16, 17, 33, 34, 67, 68, 608)] == [0, 1, 1, 2, 2, 3, 5]


def test_fast_lengths():
    for length in range(1, 2000, 7):
        fast = rest = fast_length(length)
        for prime in (2, 3, 5, 7, 11):
            while rest % prime == 0:
                rest //= prime
        assert rest == 1
        assert fast % 2 == 0
        assert length <= fast <= 1.1 * length + 4


def keys_resize(row, target):
    """One row by the definition, output pixel by output pixel."""
    length, result = len(row), []
    scale = target / length
    shrink = min(scale, 1)
    for x in range(1, target + 1):
        centre, total, weights = x / scale + 0.5 * (1 - 1 / scale), 0.0, 0.0
        for tap in range(int(centre - 3 / shrink) - 2, int(centre + 3 / shrink) + 3):
            t = shrink * abs(centre - tap)
            if t <= 1:
                weight = 1.5 * t**3 - 2.5 * t**2 + 1
            elif t <= 2:
                weight = -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
            else:
                continue
            place = (tap - 1) % (2 * length)
            total += weight * row[place if place < length else 2 * length - 1 - place]
            weights += weight
        result.append(total / weights)
    return result


@pytest.mark.parametrize(("length", "target"), [(9, 17), (17, 9), (33, 5), (40, 20), (66, 131)])
def test_resizing_follows_the_definition(length, target):
    image = np.random.default_rng(6).normal(size=(length, 3))
    want = np.stack([keys_resize(column, target) for column in image.T], axis=1)
    np.testing.assert_allclose(
        resize_bicubic(torch.from_numpy(image), (target, 3)), want, atol=1e-12
    )
    turned = torch.from_numpy(image.T.copy())
    np.testing.assert_allclose(resize_bicubic(turned, (3, target)), want.T, atol=1e-12)


def test_resizing_keeps_constants_and_sizes():
    image = torch.full((20, 31), 7.0)
    torch.testing.assert_close(resize_bicubic(image, (20, 31)), image, rtol=0, atol=0)
    np.testing.assert_allclose(resize_bicubic(image, (11, 40)), 7, rtol=1e-6)


# --- errors ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"color_encoding": "sRGB"}, "Unknown colour encoding 'sRGB'"),
        ({"color_encoding": "luminance"}, r"shape \(H, W\)"),
        ({"color_encoding": "sRGB-display"}, "within 0 and 1; the reference"),
        ({"test": np.ones((20, 21, 3))}, "one size"),
        ({"test": np.ones((20, 20)), "reference": np.ones((20, 20))}, r"shape \(H, W, 3\)"),
        ({"test": np.ones((16, 40, 3)), "reference": np.ones((16, 40, 3))}, "17 x 17"),
        ({"test": np.full((20, 20, 3), np.inf)}, "finite.*the test"),
        ({"test": np.full((20, 20, 3), -np.inf)}, "not negative.*the test"),
        ({"reference": np.full((20, 20, 3), -1.0)}, "not negative; the reference"),
        ({"test": np.full((20, 20, 3), 200, np.uint8)}, "the test image is uint8"),
        ({"test": np.ones((20, 20, 3), complex)}, "the test image is complex128"),
        ({"test": np.full((20, 20, 3), "1")}, "the test image is str"),
        ({"pixels_per_degree": 0}, "pixels_per_degree"),
        ({"pixels_per_degree": np.nan}, "pixels_per_degree"),
        ({"surround": -2}, "surround"),
        ({"surround": np.inf}, "surround"),
        ({"rgb_display": "oled"}, "Unknown display 'oled'"),
        ({"peak_sensitivity": np.nan}, "peak_sensitivity"),
        ({"dtype": torch.float16}, "float64 or float32"),
        ({"dtype": "half"}, "float64 or float32"),
        ({"device": "no such thing"}, "Cannot compute in float64 on no such thing"),
    ],
)
def test_wrong_input_is_told_in_one_sentence(change, message):
    arguments = {
        "test": np.full((20, 20, 3), 2.0),
        "reference": np.full((20, 20, 3), 2.0),
        "color_encoding": "rgb-bt.709",
        "pixels_per_degree": 30,
    }
    with pytest.raises(ReplicationError, match=message) as error:
        hdrvdp2(**(arguments | change))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("arguments", [(0, (4, 3), 1), (24, (0, 3), 1), (24, (4, 3), np.nan)])
def test_wrong_display(arguments):
    with pytest.raises(ReplicationError, match="A display needs"):
        pixels_per_degree(*arguments)


def test_wrong_parts():
    with pytest.raises(ReplicationError, match="pyramid needs"):
        steerable_pyramid(torch.zeros(1, 16, 40))
    with pytest.raises(ReplicationError, match="Resizing needs"):
        resize_bicubic(torch.zeros(4, 4), (0, 4))
