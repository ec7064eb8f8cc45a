"""Per-image rows against numbers made by hand; tests/paper computes rows of a real scene."""

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from replication.baselines import tone_curve
from replication.data.stacks import ExposureStack, load_stacks
from replication.evaluation import exposures
from replication.evaluation.exposures import exposure_rows, identity
from replication.evaluation.rows import Method
from replication.files import ReplicationError, sha256_array, sha256_file
from replication.images import to_uint8
from replication.metrics import fidelity
from replication.paper import EVS
from replication.provenance import code_version
from replication.reconstruct import infer_exposure


def make_stack(scene="hall", split="test", step=9, size=(163, 170), seed=0):
    """EV n is EV 0 plus n steps in every channel, so its distance is known without arithmetic."""
    middle = np.random.default_rng(seed).integers(60, 190, (*size, 3), np.uint8)
    images = {ev: (middle.astype(int) + step * ev).astype(np.uint8) for ev in range(-3, 4)}
    return ExposureStack("mini", scene, split, images)


def decibels(difference):
    """PSNR of two 8-bit images that differ by so much everywhere."""
    return 20 * np.log10(255 / difference) if difference else np.inf


def brighter(by):
    """A method that adds the same to EV 0 for every exposure."""
    return Method(f"plus{by}", lambda s: dict.fromkeys(EVS, s.images[0] + np.uint8(by)), "abc")


def test_what_a_row_says():
    stack = make_stack()
    (row,) = exposure_rows([stack], [brighter(9)], "table1", (2,))
    window = dict(gaussian_weights=True, sigma=1.5, use_sample_covariance=False, channel_axis=2)
    pair = stack.images[0] + np.uint8(9), stack.images[2]
    expected = structural_similarity(*pair, data_range=255, **window)
    assert row.pop("ssim") == pytest.approx(expected, abs=1e-4)
    assert 0.99 < row.pop("ms_ssim") < 1
    assert row.pop("psnr") == pytest.approx(decibels(9))
    names = dict(table="table1", dataset="mini", split="test", scene="hall", method="plus9", ev=2)
    size = dict(width=170, height=163, data_range=255, border=0, protocol=fidelity.PROTOCOL)
    hashes = dict(weights_hash="abc", data_hash=sha256_array(stack.images[2])[:12])
    assert row == names | size | hashes | {"code_version": code_version()}
    with pytest.raises(ReplicationError, match="161"):  # MS-SSIM's
        exposure_rows([make_stack(size=(160, 200))], [identity()])


def test_a_subnetwork_and_its_baselines_read_the_true_image_before(chain):
    training = [make_stack("train", "train", seed=seed) for seed in (1, 2)]
    stack = make_stack()
    methods = exposures.subnetwork_methods(chain[-2], -2, training, "abc")
    same, curve, network = (method.run(stack)[-2] for method in methods)
    assert same is stack.images[-1]
    np.testing.assert_array_equal(curve, stack.images[-2])
    inferred = to_uint8(infer_exposure(stack.images[-1], chain[-2], device="cpu"))
    np.testing.assert_array_equal(network, inferred)
    found = exposures.subnetwork_rows([stack], -2, methods)
    assert [row["method"] for row in found] == ["identity", "tone_curve", "deep_chain"]
    assert [(row["ev"], row["weights_hash"]) for row in found][1:] == [(-2, "none"), (-2, "abc")]
    means = exposures.subnetwork_psnr([stack, stack], -2, methods)
    assert means == pytest.approx({row["method"]: row["psnr"] for row in found}, abs=5.1e-4)
    assert means["identity"] == round(decibels(9), 3)


def test_tone_curves_are_those_of_the_data_set():
    # mini, not hdrps: the curve that a network trained on mini is compared with
    stack, own = make_stack(), tone_curve.fit(s.images for s in load_stacks("mini", split="train"))
    for rounded, name in ((True, "tone_curve"), (False, "tone_curve_unrounded")):
        method = exposures.tone_curves("mini", rounded=rounded)
        expected = tone_curve.infer_stack(stack.images[0], own, rounded=rounded)
        np.testing.assert_equal(method.run(stack), expected)
        assert (method.name, method.weights_hash) == (name, tone_curve.for_dataset("mini")[1])
    shipped = sha256_file(tone_curve.REFERENCE)[:12]
    assert exposures.tone_curves().weights_hash == shipped != method.weights_hash


def test_gain_map_is_positive_where_the_images_are_nearer():
    grey = np.full((4, 5, 3), 100, np.uint8)
    truth, far = {0: grey, 1: grey + 50, -1: grey - 50}, {0: grey, 1: grey + 60, -1: grey - 45}
    near = {0: grey, 1: grey + 47, -1: grey - 50}
    near[1][0, 0] = 0
    gain = exposures.gain_map(truth, near, far)
    assert gain.shape == (4, 5)
    assert gain[1:] == pytest.approx((10 - 3 + 5 - 0) / 2)
    assert gain[0, 0] == pytest.approx((10 - 150 + 5) / 2)
