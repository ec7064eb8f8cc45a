"""Per-image rows against numbers made by hand, and the distances measured on real stacks before."""

import hashlib

import numpy as np
import pandas as pd
import pytest
from skimage.metrics import structural_similarity

from replication.baselines import tone_curve
from replication.data.stacks import ExposureStack, iter_stacks
from replication.evaluation import exposures as evaluate
from replication.evaluation import rows as report
from replication.evaluation.exposures import Method, exposure_rows, link_methods, link_rows
from replication.fast import InferenceNetwork
from replication.files import ReplicationError, data_root, sha256_array, sha256_file
from replication.images import to_uint8
from replication.metrics import fidelity
from replication.paper import EVS
from replication.provenance import code_version
from replication.reconstruct import infer_exposure, infer_stack
from replication.weights import weights_path

SIZE = (163, 170)


def make_stack(scene="hall", split="test", step=9, size=SIZE, seed=0):
    """EV n is EV 0 plus n steps in every channel, so its distance is known without arithmetic."""
    middle = np.random.default_rng(seed).integers(60, 190, (*size, 3), np.uint8)
    images = {ev: (middle.astype(int) + step * ev).astype(np.uint8) for ev in range(-3, 4)}
    return ExposureStack("mini", scene, split, images)


def decibels(difference):
    """PSNR of two 8-bit images that differ by so much everywhere."""
    return 20 * np.log10(255 / difference)


def brighter(by):
    """A method that adds the same to EV 0 for every exposure."""
    return Method(f"plus{by}", lambda ldr: dict.fromkeys(EVS, ldr + np.uint8(by)), "abc")


class TestExposureRows:
    def test_one_row_a_scene_method_and_exposure(self):
        stacks = [make_stack("hall", step=9), make_stack("park", step=11, seed=1)]
        rows = exposure_rows(stacks, [evaluate.identity(), brighter(4)])
        found = {(row["scene"], row["method"], row["ev"]): row["psnr"] for row in rows}
        assert len(rows) == len(found) == 2 * 2 * 6
        for (scene, method, ev), psnr in found.items():
            away = {"hall": 9, "park": 11}[scene] * ev - {"identity": 0, "plus4": 4}[method]
            assert psnr == pytest.approx(decibels(abs(away)), abs=1e-9)

    def test_identity_rows_average_to_table_1(self):
        """Table 1 is the mean over scenes of the decibels between EV 0 and an exposure."""
        rows = exposure_rows(
            [make_stack(str(step), step=step) for step in (5, 10, 15)],
            [evaluate.identity()],
            table="table1",
            evs=(-1, 2),
        )
        summary = report.summarise(pd.DataFrame(rows), by=("table", "ev"))
        assert summary["table"].tolist() == ["table1", "table1"]
        assert summary["n"].tolist() == [3, 3]
        for ev, mean, sigma in zip(
            summary["ev"], summary["psnr_mean"], summary["psnr_sigma"], strict=True
        ):
            values = [decibels(abs(step * ev)) for step in (5, 10, 15)]
            assert mean == pytest.approx(np.mean(values))
            assert sigma == pytest.approx(np.std(values, ddof=1))

    def test_what_a_row_says(self):
        stack = make_stack()
        (row,) = exposure_rows([stack], [brighter(9)], evs=(2,))
        assert set(row) <= set(report.ROW_COLUMNS)
        assert row["ssim"] == pytest.approx(
            structural_similarity(
                *(stack.images[0] + np.uint8(9), stack.images[2]),
                **dict(gaussian_weights=True, sigma=1.5, use_sample_covariance=False),
                **dict(data_range=255, channel_axis=2),
            ),
            abs=1e-4,
        )
        assert 0.99 < row["ms_ssim"] < 1
        del row["psnr"], row["ssim"], row["ms_ssim"]
        assert row == {
            "table": "table4",
            "dataset": "mini",
            "split": "test",
            "scene": "hall",
            "method": "plus9",
            "ev": 2,
            "width": 170,
            "height": 163,
            "data_range": 255,
            "border": 0,
            "weights_hash": "abc",
            "data_hash": sha256_array(stack.images[2])[:12],
            "code_version": code_version(),
            "protocol": fidelity.PROTOCOL,
        }

    def test_rows_fit_the_report(self, tmp_path):
        stacks = [make_stack("b"), make_stack("a", split="", seed=1)]
        rows = exposure_rows(stacks, [evaluate.identity(), brighter(9)])
        table = report.read_rows(report.write_rows(tmp_path / "rows.csv", rows))
        assert len(table) == len(rows)
        assert set(table["split"]) == {"test", "none"}
        keys = ["scene", "method", "ev"]
        back = {tuple(line[key] for key in keys): line for line in table.to_dict("records")}
        for row in rows:
            line = back[tuple(row[key] for key in keys)]
            assert line.keys() == row.keys()
            assert {
                k: v for k, v in line.items() if not isinstance(v, float)
            }.items() <= row.items()
            for metric in ("psnr", "ssim", "ms_ssim"):
                assert line[metric] == pytest.approx(row[metric], abs=5.1e-7)

    def test_a_perfect_method_is_infinitely_good(self):
        stack = make_stack()
        (row,) = exposure_rows([stack], [Method("oracle", lambda _: stack.images)], evs=(1,))
        assert (row["psnr"], row["ssim"], row["ms_ssim"]) == (np.inf, 1, 1)

    def test_too_small_for_ms_ssim(self):
        with pytest.raises(ReplicationError, match="at least 161 pixels"):
            exposure_rows([make_stack(size=(160, 200))], [evaluate.identity()])


class TestLinkRows:
    def test_the_true_image_before_goes_in(self):
        stack = make_stack(step=9)
        for ev in EVS:
            seen = []

            def infer(image, ev=ev, seen=seen):
                seen.append(image)
                return {ev: image}

            (row,) = link_rows([stack], ev, [Method("same", infer)])
            assert seen[0] is stack.images[ev - np.sign(ev)]
            assert row["psnr"] == pytest.approx(decibels(9))
            assert (row["ev"], row["table"]) == (ev, "table4")

    def test_methods_of_a_link(self, chain):
        training = [make_stack("train", "train", seed=seed) for seed in (1, 2)]
        stack = make_stack()
        identity, curve, network = link_methods(chain[-2], -2, training, "abc")
        before = stack.images[-1]
        assert identity.infer(before)[-2] is before
        np.testing.assert_array_equal(curve.infer(before)[-2], stack.images[-2])
        inferred = to_uint8(infer_exposure(before, InferenceNetwork(chain[-2])))
        np.testing.assert_array_equal(network.infer(before)[-2], inferred)
        assert [m.name for m in (identity, curve, network)] == [
            "identity",
            "tone_curve",
            "deep_chain",
        ]
        assert [m.weights_hash for m in (identity, curve, network)] == ["none", "none", "abc"]


class TestMethods:
    def test_tone_curves(self, tmp_path):
        stack = make_stack()
        path = tmp_path / "curves.csv"
        tone_curve.write(path, tone_curve.fit([stack.images]))
        rounded = evaluate.tone_curves(path)
        unrounded = evaluate.tone_curves(path, rounded=False)
        assert (rounded.name, unrounded.name) == ("tone_curve", "tone_curve_unrounded")
        assert rounded.weights_hash == unrounded.weights_hash == sha256_file(path)[:12]
        for row in exposure_rows([stack], [rounded, unrounded], evs=(-3, 1)):
            assert row["psnr"] == np.inf

    def test_deep_chain(self, weights_folder, chain, photo):
        method = evaluate.deep_chain(weights_folder)
        inferred, truth = method.infer(photo), infer_stack(photo, chain)
        assert all(np.array_equal(inferred[ev], truth[ev]) for ev in EVS)
        files = "".join(
            hashlib.sha256(weights_path(ev, weights_folder).read_bytes()).hexdigest() for ev in EVS
        )
        assert method.weights_hash == hashlib.sha256(files.encode()).hexdigest()[:12]


# Mean PSNR in dB over scenes, measured once by other code (plain numpy, Pillow) on the same files.
EV_ORDER = (-3, -2, -1, 1, 2, 3)
EV_0 = {
    "hdrps": (10.18, 12.92, 18.38, 17.49, 11.44, 8.06),
    "empa": (9.64, 12.25, 17.68, 17.07, 11.27, 8.22),
}
TONE_CURVE = {
    "hdrps": (28.94, 31.56, 37.02, 36.48, 32.92, 30.52),
    "empa": (34.39, 34.69, 36.44, 35.45, 31.70, 30.17),
}


@pytest.fixture(scope="module")
def curves():
    return tone_curve.fit(stack.images for stack in iter_stacks("hdrps", "train"))


@pytest.mark.skipif(
    not (data_root() / "openstacks" / "hdrps").is_dir(), reason="openstacks is not fetched"
)
class TestRealStacks:
    @pytest.mark.parametrize("dataset", EV_0)
    def test_baselines(self, dataset, curves):
        scores = {"identity": [], "tone_curve": []}
        for stack in iter_stacks(dataset, "test"):
            ldr = stack.images[0]
            inferred = {
                "identity": dict.fromkeys(EVS, ldr),
                "tone_curve": tone_curve.infer_stack(ldr, curves, rounded=False),
            }
            for name, images in inferred.items():
                scores[name].append(
                    [fidelity.psnr(images[ev], stack.images[ev], data_range=255) for ev in EV_ORDER]
                )
        assert np.mean(scores["identity"], axis=0) == pytest.approx(EV_0[dataset], abs=0.02)
        assert np.mean(scores["tone_curve"], axis=0) == pytest.approx(TONE_CURVE[dataset], abs=0.02)

    def test_the_shipped_curves_are_these(self, curves):
        shipped = tone_curve.read()
        assert shipped.keys() == curves.keys()
        for ev in EVS:
            np.testing.assert_allclose(shipped[ev], curves[ev], atol=5.1e-5)


def test_gain_map_is_positive_where_the_images_are_nearer():
    grey = np.full((4, 5, 3), 100, np.uint8)
    truth = {0: grey, 1: grey + 50, -1: grey - 50}
    near = {0: grey, 1: grey + 47, -1: grey - 50}
    far = {0: grey, 1: grey + 60, -1: grey - 45}
    near[1][0, 0] = 0
    gain = evaluate.gain_map(truth, near, far)
    assert gain.shape == (4, 5)
    assert gain[1:] == pytest.approx((10 - 3 + 5 - 0) / 2)
    assert gain[0, 0] == pytest.approx((10 - 150 + 5) / 2)
