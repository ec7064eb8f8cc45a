"""Ablations: what is compared, that it is compared fairly, and where it is computed."""

import numpy as np
import pandas as pd
import pytest
import torch

from replication import paper
from replication.baselines import tone_curve
from replication.data.stacks import ExposureStack
from replication.evaluation import ablation, rows
from replication.evaluation.ablation import BASE, STUDIES, activation_rows, run_study
from replication.files import locked
from replication.images import to_uint8
from replication.metrics import psnr
from replication.model import SubNetwork, as_prelu, parameter_count
from replication.reconstruct import infer_exposure
from replication.train import Recipe, seeded
from replication.weights import load_weights, weights_path
from tests.conftest import frames, randomise_norms
from tests.test_stacks import fails


@pytest.fixture
def made(monkeypatch):
    scenes = [("a", "train", 80), ("b", "train", 80), ("c", "test", 176)]
    stacks = [ExposureStack("made", *s[:2], frames(n, s[2])) for n, s in enumerate(scenes)]
    curves = tone_curve.fit(stack.images for stack in stacks[:2])
    load = lambda dataset, *, split: [s for s in stacks if (s.dataset, s.split) == (dataset, split)]  # noqa: E731
    monkeypatch.setattr(ablation, "load_stacks", load)
    monkeypatch.setattr(tone_curve, "for_dataset", {"made": (curves, "abc")}.get)
    monkeypatch.setattr(ablation, "code_version", lambda: "1.0+gabc")
    monkeypatch.setattr(ablation.exposures, "code_version", lambda: "1.0+gabc")
    return stacks


def study(folder, name="table2", **options):
    fast = {"dataset": "made", "patches": 8, "seeds": 1, "precision": "float32", "device": "cpu"}
    return run_study(name, folder, **fast | options)


def test_contenders_differ_in_one_thing_at_a_time():
    two = STUDIES["table2"]
    size = {name: sum(parameter_count(c.make()) for _ in c.evs) for name, c in two.items()}
    assert size["single_deep"] == pytest.approx(size["chain"], rel=0.015)
    assert size["single"] * 3 == size["chain"] == size["chain_joint"]
    assert size["shallow_no_skip"] == size["shallow"]
    assert {(c.share * len(c.evs), c.evs[-1]) for c in two.values()} == {(3, 3)}  # patches in all
    assert two["chain_joint"].recipe == {"mode": "chained"}
    image = torch.rand(1, 3, 9, 9)
    without, skip = (seeded(two[name].make, 0) for name in ("shallow_no_skip", "shallow"))
    torch.testing.assert_close(skip(image), without(image) + image)
    assert {name for _, name in paper.TABLE3} <= STUDIES["table3"].keys()
    for name, one in STUDIES["table3"].items():
        assert (one.evs, one.make().activation, one.recipe) == ((-1, -2, -3), name, {})
    for name, one in STUDIES["sensitivity"].items():
        changed = [k for k, v in one.recipe.items() if BASE.get(k, getattr(Recipe(), k)) != v]
        assert len(changed) == (name not in ("reference", "per_channel"))


def test_rows_are_complete_and_a_finished_study_is_not_computed_again(made, tmp_path, monkeypatch):
    path = study(tmp_path, contenders=["chain", "shallow"])
    found, before = rows.read_rows(path), path.read_bytes()
    assert (set(found["ev"]), set(found["method"])) == ({3}, {"chain", "shallow", "tone_curve"})
    words = [f"{n} patches per network, reference recipe, changes {{}}" for n in (8, 24)]
    assert set(found["recipe"]) == {"none", *words}
    ends = pd.read_csv(tmp_path / "table2_logs.csv").groupby(["method", "ev"])["patches"].max()
    assert ends.to_dict() == {("chain", 1): 8, ("chain", 2): 8, ("chain", 3): 8, ("shallow", 3): 24}
    again = rows.read_rows(study(tmp_path / "b", contenders=["shallow"], seeds=2))
    assert again["psnr"].nunique() == len(again) == 3  # two seeds and the tone curve
    same = again[again["seed"] == 0].reset_index(drop=True)
    pd.testing.assert_frame_equal(same, found[found["method"] != "chain"].reset_index(drop=True))
    monkeypatch.setattr(ablation, "train", lambda *_, **__: pytest.fail("trained again"))
    monkeypatch.setattr(ablation, "infer_exposure", lambda *_, **__: pytest.fail("scored again"))
    assert study(tmp_path, contenders=["chain", "shallow"]).read_bytes() == before
    words = r"ev\+3.safetensors was .* another patches, 24"
    fails(words, study, tmp_path, contenders=["shallow"], patches=16)
    made[0].images[3][0, 0] ^= 1
    fails("another training_hash", study, tmp_path, contenders=["shallow"])
    with locked(tmp_path / "table2"):
        fails("in use by another", study, tmp_path, contenders=["shallow"])


@pytest.mark.parametrize(("name", "evs"), [("chain", (0, 1, 2, 3)), ("shallow", (0, 3))])
def test_networks_are_trained_from_the_exposure_before(made, tmp_path, monkeypatch, name, evs):
    seen, real = {}, ablation.PatchSet

    def record(images, numbers, **options):
        seen[numbers[-1]] = [[scene[number] for number in numbers] for scene in images]
        return real(images, numbers, **options)

    monkeypatch.setattr(ablation, "PatchSet", record)
    study(tmp_path, contenders=[name])
    assert sorted(seen) == list(range(1, len(evs)))
    for number, scenes in seen.items():
        for stack, (source, target) in zip(made, scenes, strict=False):
            assert source is stack.images[evs[number - 1]]
            assert target is stack.images[evs[number]]


def test_scores_are_those_of_the_networks_run_one_after_the_other(made, tmp_path):
    # trained together, so one folder holds the log and one training makes both
    found = rows.read_rows(study(tmp_path, "sensitivity", contenders=["chained"]))
    scores, test = found.set_index(["method", "ev"])["psnr"], made[-1]
    folder, image = tmp_path / "sensitivity" / "chained_seed0", test.images[0]
    assert [one.name for one in folder.glob("ev*") if one.is_dir()] == ["ev-2"]
    for ev in (-1, -2):
        network = SubNetwork("mprelu")
        load_weights(network, weights_path(ev, folder))
        image = to_uint8(infer_exposure(image, network.eval(), method="whole", device="cpu"))
        expected = psnr(image, test.images[ev], data_range=255)
        assert scores["chained", ev] == pytest.approx(expected, abs=0.02)


WRONG = [
    ({"name": "table9"}, "Unknown study 'table9'; known are table2, table3, sensitivity"),
    ({"contenders": ["deep"]}, "Unknown contender of table2 'deep'; known are chain, shallow"),
    ({"seeds": 0}, "The number of seeds must be at least 1, not 0"),
    ({"patches": 2}, "batch_size"),
    ({"recipe": "secret"}, "Unknown recipe 'secret'; known are reference, paper"),
    ({"device": "nonsense"}, "nonsense"),
]


@pytest.mark.parametrize(("options", "sentence"), WRONG)
def test_wrong_orders_are_refused_before_any_work(tmp_path, options, sentence):
    fails(sentence, study, tmp_path, **options)
    assert not list(tmp_path.iterdir())


def test_the_device_reaches_patches_networks_and_inference(made, tmp_path, monkeypatch):
    used, patches = [], ablation.PatchSet

    def infer(image, network, *, device):
        used.append((next(network.parameters()).device.type, device))
        return image / 255

    def look(network, images):
        used.extend((next(network.parameters()).device.type, image.device.type) for image in images)
        return [{"block": "r4"}]

    record = lambda *a, device: used.append(("meta", device)) or patches(*a, device="cpu")  # noqa: E731
    monkeypatch.setattr(ablation, "choose_device", lambda _: torch.device("meta"))  # holds no data
    monkeypatch.setattr(ablation, "PatchSet", record)
    monkeypatch.setattr(ablation, "infer_exposure", infer)
    monkeypatch.setattr(ablation, "activation_rows", look)
    study(tmp_path, contenders=["single"])
    assert used == [("meta", "meta")] * 4  # patches, two training images looked at, one test image


def test_mirrored_networks_have_mirrored_activations():
    mprelu = randomise_norms(seeded(lambda: SubNetwork("mprelu"), 1)).eval()
    x = [torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(0))]
    ours, twin = (
        pd.DataFrame(activation_rows(network, x)).set_index("block")
        for network in (mprelu, as_prelu(mprelu))
    )
    assert list(ours.index) == [*(f"features.{n}" for n in range(7)), "r1", "r2", "r3", "r4"]
    blocks = ours.index[:-1]
    np.testing.assert_allclose(ours["negative"][blocks], 1 - twin["negative"][blocks], atol=1e-3)
    np.testing.assert_allclose(ours["alpha"][blocks], 0.25)
    assert ours["negative"]["r4"] == pytest.approx(twin["negative"]["r4"], abs=1e-3)
    share = ours["negative_features"]["r4"]
    assert 0.5 < share < 1
    assert share == pytest.approx(1 - twin["negative_features"]["r4"], abs=1e-3)


def test_relu_makes_negative_residuals_from_positive_features():
    network = seeded(lambda: SubNetwork("relu"), 1)
    with torch.no_grad():
        network.r4.weight.abs_().neg_()
        network.r4.bias.zero_()
    *found, last = activation_rows(network, [torch.rand(1, 3, 32, 32)])
    assert last["negative"] > 0.9
    assert last["negative_features"] == 0
    assert {row["alpha"] for row in found} == {0.0}
