"""Whole image, tiles and patches against each other and the network itself; photos to files."""

import io as text_io
import os
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from replication import reconstruct as module
from replication.files import ReplicationError
from replication.hdr import io, reinhard
from replication.images import to_uint8
from replication.model import DeepChain, ShallowNetwork
from replication.paper import EVS
from replication.reconstruct import convert, infer_exposure, infer_stack, load_chain, merge_stack
from replication.weights import save_weights, weights_path
from tests.conftest import files
from tests.test_stacks import fails


def noise(*size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def plainly(network, image):
    """The definition: the network on the whole image, clamped."""
    x = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        return network(x).clamp(0, 1)[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize(("ev", "size", "tile"), [(1, (150, 97), 32), (-1, (10, 90), 50)])
def test_tiles_equal_the_whole_image_and_a_smaller_overlap_would_not_do(chain, monkeypatch, ev, size, tile):
    image = noise(*size)
    whole = infer_exposure(image, chain[ev], method="whole")
    np.testing.assert_allclose(whole, plainly(chain[ev], image), atol=1e-5)
    tiled = infer_exposure(image, chain[ev], method="tiled", tile=tile)
    np.testing.assert_allclose(tiled, whole, atol=1e-5)
    monkeypatch.setattr(module, "OVERLAP", 24)
    short = infer_exposure(image, chain[ev], method="tiled", tile=tile)
    assert np.abs(short - whole).max() > 1e-4


def test_patches_average_the_overlapping_patches(chain):
    image = noise(64, 70)
    inferred = infer_exposure(image, chain[1], method="patches", stride=6)
    left, right = (plainly(chain[1], image[:, at : at + 64]) for at in (0, 6))
    np.testing.assert_allclose(inferred[:, :6], left[:, :6], atol=1e-5)
    np.testing.assert_allclose(inferred[:, 64:], right[:, 58:], atol=1e-5)
    np.testing.assert_allclose(inferred[:, 6:64], (left[:, 6:] + right[:, :58]) / 2, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (65, 63)])
@pytest.mark.parametrize("method", ["tiled", "whole", "patches"])
def test_any_size(chain, size, method):
    inferred = infer_exposure(np.full((*size, 3), 100, np.uint8), chain[-1], method=method)
    assert (inferred.shape, inferred.dtype) == ((*size, 3), np.float32)
    assert np.isfinite(inferred).all()


def test_any_network_infers_on_the_device_a_tile_at_a_time_and_stays_as_it_is():
    """On torch's meta device no value comes back, so the copy that would fetch it must fail."""
    network, image = ShallowNetwork(filters=4), noise(70, 50)
    tiled = infer_exposure(image, network, tile=30, device="cpu")
    np.testing.assert_allclose(tiled, plainly(network, image), atol=1e-5)
    assert network.training
    quick = module._Tiled(network, tile=30, device="cpu")
    quick.device = torch.device("meta")
    quick.network.to("meta")
    with pytest.raises(NotImplementedError, match="meta"):
        quick(torch.zeros(1, 3, 70, 50))


def test_stack_is_the_chain_on_8_bit_images_and_is_merged(chain, photo):
    stack = infer_stack(photo, chain)
    assert list(stack) == sorted((*EVS, 0))
    assert np.array_equal(stack[0], photo)
    for ev in EVS:
        before = stack[ev - 1 if ev > 0 else ev + 1]
        difference = np.abs(to_uint8(plainly(chain[ev], before)).astype(int) - stack[ev])
        assert difference.max() <= 1  # a rounding at .5 may fall either way
        assert (difference > 0).mean() < 1e-3
    hdr = module.reconstruct(photo, chain)
    assert (hdr.dtype, hdr.shape) == (np.float32, photo.shape)
    np.testing.assert_array_equal(hdr, merge_stack(stack))


def test_load_chain_finds_weights_and_further_evs(weights_folder, tmp_path):
    chain = load_chain(weights_folder)
    assert chain.metadata[-3] == {"ev": -3}
    assert not chain.training
    longer = DeepChain((*EVS, 4))
    for ev in longer.evs:
        save_weights(longer[ev], weights_path(ev, tmp_path), {"ev": ev})
    assert load_chain(tmp_path).evs == longer.evs
    save_weights(longer[4], weights_path(4, tmp_path), {"ev": 3})
    fails(r"ev\+4\.safetensors is for the ev 3, not 4", load_chain, tmp_path)
    weights_path(1, tmp_path).unlink()
    fails(r"No weights at .*ev\+1", load_chain, tmp_path)
    fails(r"No weights folder at .*none", load_chain, tmp_path / "none")


def test_bad_photos_and_options_are_refused(chain):
    shape = r"RGB array \(H, W, 3\), not \(4, 4\)"
    fails(shape, infer_stack, np.zeros((4, 4), np.uint8), chain)
    fails("Unknown method 'fast'", infer_stack, noise(4, 4), chain, method="fast")
    fails("must be positive", infer_stack, noise(4, 4), chain, tile=0)
    fails("Unknown device 'abacus'", infer_stack, noise(4, 4), chain, device="abacus")


# ------------------------------------------------------------------------------------ convert


def save(path, image):
    Image.fromarray(image).save(path)
    return path


def results_of(name):
    frames = [f"{name}_stack/ev{ev:+d}.png" for ev in (0, *EVS)]
    return sorted([f"{name}.hdr", f"{name}.exr", f"{name}_tonemapped.png", *frames])


def test_convert_writes_what_the_package_computes(tmp_path, weights_folder, chain, capsys):
    photo = save(tmp_path / "a.png", noise(30, 41))
    output = tmp_path / "new" / "results"
    for seed in (1, 0):  # earlier results are replaced
        save(photo, noise(30, 41, seed=seed))
        convert([photo], output, weights=weights_folder, tile=16)
    stack = infer_stack(noise(30, 41), chain, tile=16)
    hdr = merge_stack(stack)
    assert files(output) == results_of("a")
    for ev, image in stack.items():
        frame = io.read_image(output / "a_stack" / f"ev{ev:+d}.png")
        np.testing.assert_array_equal(frame, image)
    np.testing.assert_array_equal(io.read_hdr(output / "a.exr"), hdr)
    tone_mapped = io.read_image(output / "a_tonemapped.png")
    np.testing.assert_array_equal(tone_mapped, np.rint(255 * reinhard.tone_map(hdr)))
    said = f"a: {output}/a.hdr, .exr, _tonemapped.png, _stack/\n"
    assert capsys.readouterr().out == 2 * said


def test_a_photo_that_fails_does_not_stop_the_others(tmp_path, weights_folder, monkeypatch, capsys):
    photos = [save(tmp_path / f"{name}.png", noise(12, 9)) for name in ("a", "b", "c", "Café 2.v2")]
    (tmp_path / "bad.jpg").write_text("no picture")
    infer, calls = module.infer_stack, []

    def starved(*arguments, **options):
        calls.append(1)
        if len(calls) == 2:
            raise MemoryError
        if len(calls) == 3:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return infer(*arguments, **options)

    monkeypatch.setattr(module, "infer_stack", starved)
    output = tmp_path / "results"
    with pytest.raises(ReplicationError) as error:
        convert([tmp_path / "bad.jpg", *photos], output, weights=weights_folder)
    for part in ("3 of 5", "bad.jpg", f"{photos[1]} needs more memory", f"{photos[2]} needs more"):
        assert part in str(error.value)
    assert files(output) == sorted(results_of("a") + results_of("Café 2.v2"))
    assert "b: not converted" in capsys.readouterr().out


@pytest.mark.skipif(os.name != "posix", reason="file names of bytes")
def test_names_beyond_utf_8_and_the_built_in_photo(tmp_path, weights_folder, monkeypatch):
    name = os.fsdecode(b"caf\xe9")
    photo = save(tmp_path / "x.png", noise(8, 9)).rename(tmp_path / f"{name}.png")
    output = text_io.TextIOWrapper(text_io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", output)
    monkeypatch.setattr(module, "coffee", lambda: noise(8, 9))
    for photos in ([photo], []):
        convert(photos, tmp_path / "results", weights=weights_folder)
    output.flush()
    assert output.buffer.getvalue().startswith(b"caf\\udce9: ")
    assert files(tmp_path / "results") == sorted(results_of(name) + results_of("coffee"))


def test_a_black_photo_stays_black(chain):
    hdr = merge_stack(infer_stack(np.zeros((9, 12, 3), np.uint8), chain))
    assert not hdr.any()
    assert not reinhard.tone_map(hdr).any()


def test_bad_orders_and_an_interrupt_leave_nothing_half_written(tmp_path, weights_folder, monkeypatch):
    fails("Two photos are named 'a'", convert, ["1/a.png", "2/a.png"], tmp_path / "results")
    photos = [save(tmp_path / f"{name}.png", noise(12, 9)) for name in "ab"]
    write, calls = io.write_png, []

    def interrupted(path, image):
        calls.append(path)
        if len(calls) == 12:  # eight pictures a photo
            raise KeyboardInterrupt
        write(path, image)

    monkeypatch.setattr(io, "write_png", interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert(photos, tmp_path / "results", weights=weights_folder)
    assert files(tmp_path / "results") == results_of("a")
