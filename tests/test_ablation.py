"""Ablations: what is compared, that it is compared fairly, and what the tables say of it."""

from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
import torch

from replication import paper
from replication.data.stacks import ExposureStack
from replication.evaluation import ablation
from replication.evaluation import rows as report
from replication.evaluation.ablation import BASE, STUDIES, activation_rows, run_study
from replication.files import ReplicationError
from replication.images import to_uint8
from replication.model import PerChannel, SubNetwork, as_prelu, parameter_count
from replication.reconstruct import infer_exposure
from replication.report import tables
from replication.train import Recipe, seeded
from replication.weights import load_weights
from tests.conftest import randomise_norms


def camera(scene: str, split: str, seed: int, side: int = 80) -> ExposureStack:
    """A scene of smooth radiance, photographed with gamma 2.2 and clipping."""
    generator = np.random.default_rng(seed)
    coarse = generator.uniform(-2.5, 1.5, (6, 6, 3))
    y = np.linspace(0, 4.99, side)
    low, part = y.astype(int), (y % 1)[:, None, None]
    rows = coarse[low] * (1 - part) + coarse[low + 1] * part
    part = (y % 1)[None, :, None]
    log2 = rows[:, low] * (1 - part) + rows[:, low + 1] * part
    images = {ev: to_uint8(np.clip(2.0 ** (log2 + ev), 0, 1) ** (1 / 2.2)) for ev in range(-3, 4)}
    return ExposureStack("made", scene, split, images)


@pytest.fixture
def made(monkeypatch):
    stacks = [camera("a", "train", 0), camera("b", "train", 1), camera("c", "test", 2, side=176)]

    def load(dataset, *, split):
        assert dataset == "made"
        return [stack for stack in stacks if stack.split == split]

    monkeypatch.setattr(ablation, "load_stacks", load)
    return stacks


def study(folder, name="table2", **options):
    fast = {"dataset": "made", "patches": 8, "seeds": 1, "precision": "float32"}
    return run_study(name, folder, **fast | options)


# ------------------------------------------------------------------------------- what is compared


def test_table_2_contenders_differ_in_one_thing_at_a_time():
    one = STUDIES["table2"]
    size = {k: sum(parameter_count(c.make()) for _ in c.evs) for k, c in one.items()}
    assert size["single_deep"] == pytest.approx(size["chain"], rel=0.015)
    assert size["single"] == size["chain"] / 3
    assert one["chain"].evs == (1, 2, 3)
    assert {len({c.visits * len(c.evs)}) for c in one.values()} == {1}  # patches seen, in all
    assert {c.evs[-1] for c in one.values()} == {3}


def test_table_3_contenders_differ_in_the_activation_only():
    assert {name for _, name in paper.TABLE3} <= STUDIES["table3"].keys()
    for name, one in STUDIES["table3"].items():
        assert one.evs == (-1, -2, -3)
        assert one.make().activation == name
        assert not one.recipe


def test_sensitivity_changes_one_setting_at_a_time():
    variants = STUDIES["sensitivity"]
    assert not variants["reference"].recipe
    for name, one in variants.items():
        changed = [k for k, v in one.recipe.items() if BASE.get(k, getattr(Recipe(), k)) != v]
        assert len(changed) == (name not in ("reference", "per_channel"))


def test_names_of_all_contenders_are_known_to_the_tables():
    assert {name for one in STUDIES.values() for name in one} <= tables.ABLATION_NAMES.keys()


# ----------------------------------------------------------------------------------- how it is run


def test_rows_are_complete_and_come_back_the_same(made, tmp_path):
    path = study(tmp_path / "a", contenders=["chain", "shallow"], seeds=2)
    rows = report.read_rows(path)
    assert sorted(set(zip(rows["method"], rows["seed"], strict=True))) == [
        ("chain", 0),
        ("chain", 1),
        ("shallow", 0),
        ("shallow", 1),
        ("tone_curve", 0),
    ]
    assert set(rows["ev"]) == {3}
    assert rows["psnr"].nunique() == 5
    again = report.read_rows(study(tmp_path / "b", contenders=["chain", "shallow"], seeds=2))
    pd.testing.assert_frame_equal(rows, again)
    logs = pd.read_csv(tmp_path / "a" / "table2_logs.csv")
    assert set(zip(logs["method"], logs["ev"], strict=True)) == {
        ("chain", 1),
        ("chain", 2),
        ("chain", 3),
        ("shallow", 3),
    }
    seen = logs.groupby(["method", "seed"])["patches"].sum()
    assert set(seen) == {24}


def test_a_finished_study_is_not_trained_again(made, tmp_path, monkeypatch):
    options = {"contenders": ["shallow"]}
    before = study(tmp_path, **options).read_bytes()
    monkeypatch.setattr(ablation, "train", lambda *_, **__: pytest.fail("trained again"))
    assert study(tmp_path, **options).read_bytes() == before
    with pytest.raises(ReplicationError, match=r"ev\+3.safetensors was trained in another way"):
        study(tmp_path, patches=16, **options)


@pytest.mark.parametrize(("name", "evs"), [("chain", (0, 1, 2, 3)), ("shallow", (0, 3))])
def test_links_are_trained_from_the_exposure_before(made, tmp_path, monkeypatch, name, evs):
    seen = {}

    def record(images, places):
        seen[places[-1]] = [[scene[place] for place in places] for scene in images]
        return real(images, places)

    real = ablation.PatchSet
    monkeypatch.setattr(ablation, "PatchSet", record)
    study(tmp_path, contenders=[name])
    training = [stack for stack in made if stack.split == "train"]
    assert sorted(seen) == list(range(1, len(evs)))
    for place, scenes in seen.items():
        for stack, (source, target) in zip(training, scenes, strict=True):
            assert source is stack.images[evs[place - 1]]
            assert target is stack.images[evs[place]]


def test_scores_are_those_of_the_networks_run_one_after_the_other(made, tmp_path):
    rows = report.read_rows(study(tmp_path, "table3", contenders=["relu"]))
    image, test = made[-1].images[0], made[-1]
    for ev in (-1, -2, -3):
        network = SubNetwork("relu")
        load_weights(network, tmp_path / "table3" / "relu_seed0" / f"ev{ev:+d}.safetensors")
        image = to_uint8(infer_exposure(image, network.eval(), method="whole"))
        error = np.mean((image.astype(float) - test.images[ev]) ** 2)
        own = rows[(rows["method"] == "relu") & (rows["ev"] == ev)]["psnr"].item()
        assert own == pytest.approx(10 * np.log10(255**2 / error), abs=0.02)


def test_chained_links_are_trained_together(made, tmp_path):
    path = study(tmp_path, "sensitivity", contenders=["reference", "chained", "per_channel"])
    rows = report.read_rows(path)
    assert set(rows["ev"]) == {-1, -2}
    folder = tmp_path / "sensitivity" / "chained_seed0"
    assert [one.name for one in folder.glob("ev*") if one.is_dir()] == ["ev-2"]
    shown = tables.ablation_frame(rows)
    assert list(shown["contender"]) == [
        "tone curve",
        "reference",
        "a channel at a time",
        "trained chained",
    ]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"name": "table9"}, "Unknown study 'table9'; known are table2, table3, sensitivity"),
        ({"contenders": ["deep"]}, "Unknown contender 'deep' of table2; known are chain, shallow"),
        ({"seeds": 0}, "The number of seeds must be at least 1, not 0"),
        ({"patches": 2}, "1 <= batch_size <= patches"),
        ({"precision": "int8"}, "int8"),
        ({"recipe": "secret"}, "Unknown recipe 'secret'; known are reference, paper"),
    ],
)
def test_wrong_orders_are_told(made, tmp_path, options, sentence):
    with pytest.raises(ReplicationError, match=sentence):
        study(tmp_path, **options)
    assert not list(tmp_path.iterdir())


def test_the_papers_recipe_is_the_default_recipe(made, tmp_path):
    study(tmp_path, contenders=["single"], patches=2, recipe="paper")
    path = tmp_path / "table2" / "single_seed0" / "ev+3.safetensors"
    assert load_weights(SubNetwork(), path)["recipe"] == asdict(Recipe(patches=6))


def test_per_channel_is_one_network_for_every_colour():
    network = seeded(lambda: SubNetwork("mprelu", channels=1), 3).eval()
    x = torch.rand(2, 3, 20, 24)
    with torch.no_grad():
        expected = torch.cat([network(x[:, c : c + 1]) for c in range(3)], 1)
        torch.testing.assert_close(PerChannel(network)(x), expected)


# ----------------------------------------------------------------------- who makes the residuals


def test_mirrored_networks_have_mirrored_activations():
    mprelu = randomise_norms(seeded(lambda: SubNetwork("mprelu"), 1)).eval()
    x = [torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(0))]
    ours = pd.DataFrame(activation_rows(mprelu, x)).set_index("block")
    twin = pd.DataFrame(activation_rows(as_prelu(mprelu), x)).set_index("block")
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
    rows = activation_rows(network, [torch.rand(1, 3, 32, 32)])
    assert rows[-1]["negative"] > 0.9
    assert rows[-1]["negative_features"] == 0
    assert {row["alpha"] for row in rows[:-1]} == {0.0}


# ---------------------------------------------------------------------------------------- tables


def rows_of(table, values):
    """Rows from ``(method, ev, seed) -> PSNR by scene``."""
    return pd.DataFrame(
        {
            "table": table,
            "dataset": "hdrps",
            "split": "test",
            "scene": f"s{number}",
            "method": method,
            "ev": ev,
            "seed": seed,
            "psnr": psnr,
        }
        for (method, ev, seed), scores in values.items()
        for number, psnr in enumerate(scores)
    )


@pytest.fixture
def table3():
    base = np.array([30.0, 32.0, 34.0, 36.0, 38.0, 40.0])
    return rows_of(
        "table3",
        {
            ("tone_curve", -1, 0): base - 1,
            ("mprelu", -1, 0): base + 1.0,
            ("mprelu", -1, 1): base + 1.2,
            ("prelu", -1, 0): base,
            ("prelu", -1, 1): base + 2.0,
            ("relu", -1, 0): base - 2.0,
            ("relu", -1, 1): base - 2.2,
        },
    )


def test_ablation_table_shows_images_seeds_and_the_paper(table3):
    shown = tables.ablation_frame(table3).set_index("contender")
    assert list(shown.index) == ["tone curve", "MPReLU", "PReLU", "ReLU"]
    assert shown.loc["MPReLU", "EV -1"] == "36.10 ± 3.74"
    assert shown.loc["MPReLU", "EV -1, seeds"] == "36.00 … 36.20"
    assert shown.loc["MPReLU", "EV -1, paper"] == "29.01 ± 3.83"
    assert shown.loc["tone curve", "EV -1, seeds"] == "–"
    assert shown.loc["ReLU", "EV -1, paper"] == "–"


def test_differences_are_paired_by_image_and_seed(table3):
    found = tables.ablation_differences(table3, "mprelu").set_index("against")
    assert found.loc["prelu", "difference"] == pytest.approx(0.1)
    assert found.loc["prelu", ["seed_low", "seed_high"]].tolist() == pytest.approx([-0.8, 1.0])
    assert found.loc["relu", ["seed_low", "seed_high"]].tolist() == pytest.approx([3.0, 3.4])
    assert found.loc["tone_curve", ["seed_low", "seed_high"]].tolist() == pytest.approx([2.0, 2.2])
    assert found.loc["relu", "wins"] == found.loc["relu", "n"] == 6
    shown = tables.difference_frame(found.reset_index()).set_index("against")
    assert shown.loc["ReLU", "EV -1"] == "+3.20 [3.20, 3.20]"


@pytest.mark.parametrize(
    ("method", "other", "words"),
    [
        (
            "mprelu",
            "prelu",
            r"paper \+0.73 dB: \*\*does not hold, no difference beyond that of images",
        ),
        ("mprelu", "relu", r"over seeds \[0.66, 5.74\]: \*\*holds\*\*"),
        ("relu", "mprelu", r"\*\*does not hold, the other is better\*\*"),
    ],
)
def test_verdicts_say_what_the_numbers_say(table3, method, other, words):
    verdict = tables.ablation_verdict(table3, method, other)
    assert verdict.count("\n") == 0
    assert pd.Series([verdict]).str.contains(words).all(), verdict


def test_a_small_difference_holds_in_direction_only():
    base = np.arange(6.0) + 20
    values = {("chain", 3, seed): base + 1 + seed / 10 for seed in (0, 1)}
    values |= {("shallow", 3, seed): base for seed in (0, 1)}
    verdict = tables.ablation_verdict(rows_of("table2", values), "chain", "shallow")
    assert "paper +10.66 dB: **holds in direction**" in verdict
    one = {key: value for key, value in values.items() if key[2] == 0}
    verdict = tables.ablation_verdict(rows_of("table2", one), "chain", "shallow")
    assert "**one seed, no verdict**" in verdict
