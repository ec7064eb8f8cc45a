"""The absolute scale of HDR images on cases with known answers."""

import numpy as np
import pytest

from replication.files import ReplicationError
from replication.images import luminance
from replication.metrics.scaling import clipped_channels, scale_reference, scale_test


def radiance(shape=(30, 40), seed=0):
    rng = np.random.default_rng(seed)
    return np.exp(rng.normal(size=(*shape, 3))).astype(np.float32)


GREY = np.full((4, 5, 3), 0.5)
ALL = np.ones((4, 5), bool)


def test_reference_by_hand():
    """Of the luminances 0 to 1000, number 999 is the 99.9th percentile."""
    values = np.random.default_rng(0).permutation(1001).astype(np.float32)
    hdr = np.repeat(values.reshape(7, 143, 1), 3, axis=2)
    scaled = scale_reference(hdr)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled, hdr * (1000 / 999), rtol=1e-6)
    np.testing.assert_allclose(scale_reference(hdr, luminance=20), hdr * (20 / 999), rtol=1e-6)


@pytest.mark.parametrize("unit", [1e-12, 1e-3, 1e12])
def test_the_unit_of_radiance_does_not_matter(unit):
    hdr = radiance()
    reference = scale_reference(hdr)
    np.testing.assert_allclose(scale_reference(hdr * np.float32(unit)), reference, rtol=1e-5)
    test, mask = radiance(seed=1), luminance(hdr) < 5
    ours = scale_test(test * np.float32(unit), reference, mask)
    np.testing.assert_allclose(ours, scale_test(test, reference, mask), rtol=1e-5)
    assert np.percentile(luminance(reference), 99.9) == pytest.approx(1000, rel=1e-6)


def test_only_unclipped_pixels_set_the_scale_of_the_test():
    reference = scale_reference(radiance())
    mask = np.zeros(reference.shape[:2], bool)
    mask[:, :20] = True
    test = reference / 7
    test[~mask] *= 1000
    scaled = scale_test(test, reference, mask)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled[mask], reference[mask], rtol=1e-5)
    np.testing.assert_allclose(scaled[~mask], 1000 * reference[~mask], rtol=1e-5)


def test_clipped_channels_are_counted():
    ldr = np.array([[[251, 255, 252], [250, 251, 0], [0, 0, 255], [250, 250, 250]]], np.uint8)
    assert clipped_channels(ldr).tolist() == [[3, 1, 1, 0]]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: scale_reference(GREY * np.nan), "NaN"),
        (lambda: scale_reference(GREY * 0), "percentile of the reference is 0"),
        (lambda: scale_reference(GREY, luminance=0), "must be positive, not 0"),
        (lambda: scale_reference(GREY, luminance=1e39), "The reference holds values too bright"),
        (lambda: scale_test(GREY * 6e38, GREY, ALL), "The test holds values too bright.*3e.38"),
        (lambda: scale_test(GREY[1:], GREY, ALL), r"not \(3, 5, 3\), \(4, 5, 3\)"),
        (lambda: scale_test(GREY, GREY, ALL[1:]), r"bool \(3, 5\)"),
        (lambda: scale_test(GREY, GREY, ALL.astype(int)), "int64"),
        (lambda: scale_test(GREY, GREY, ~ALL), "no unclipped pixel"),
        (lambda: scale_test(GREY * 0, GREY, ALL), "The test is black"),
        (lambda: scale_test(GREY, GREY * 0, ALL), "The reference is black"),
        (lambda: clipped_channels(GREY), "must be uint8"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(call, words):
    with pytest.raises(ReplicationError, match=words) as error:
        call()
    assert "\n" not in str(error.value)
