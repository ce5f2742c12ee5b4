"""The training loop: what it trains, what it counts, what it draws, and when it raises the alarm."""

import dataclasses
import math

import pytest
import torch

from apd_bench.core.errors import UsageError
from apd_bench.methods.catalog import builtin
from apd_bench.methods.recipes import load_recipe
from apd_bench.training import fit as training
from apd_bench.training.augment import TrainingImages, crop_flip
from apd_bench.training.contract import CHECKS, check
from apd_bench.training.fit import fit
from apd_bench.training.loop import learning_rate
from apd_bench.training.prompt_states import digest_of, restore
from apd_bench.training.toy import toy_fit
from apd_bench.training.watch import near_chance

QUICK = {"training": {"epochs": 3, "batch_size": 8, "warmup_epochs": 0, "augment": "none"}}


def train(backbone, data, name, *changes, seed=1, eps=4 / 255):
    return fit(toy_fit(load_recipe(name, QUICK, *changes), backbone, data, seed=seed, eps=eps), backbone, data)


def test_the_rate_warms_up_and_then_follows_a_cosine_over_all_epochs():
    table = {"lr": 0.4, "warmup_lr": 1e-5, "warmup_epochs": 1, "schedule": "cosine", "epochs": 4}
    rates = [learning_rate(table, epoch) for epoch in range(4)]
    assert rates == pytest.approx([1e-5, 0.4, 0.2 * (1 + math.sqrt(0.5)), 0.2])
    assert learning_rate(table | {"schedule": "constant"}, 3) == 0.4


def test_training_lowers_the_loss_logs_its_terms_and_leaves_the_random_state_alone(backbone, data):
    random_state = torch.get_rng_state()
    history = train(backbone, data, "apd", {"training": {"epochs": 6, "lr": 0.01}}).card["history"]
    assert torch.equal(random_state, torch.get_rng_state())
    assert len(history) == 6
    assert set(history[0]) == {
        "epoch", "lr", "kl_adversarial", "teacher_ce", "loss", "gradient_norm", "teacher_gradient_norm"
    }  # fmt: skip
    assert history[-1]["teacher_ce"] < history[0]["teacher_ce"]
    for row in history:
        assert row["loss"] == pytest.approx(row["kl_adversarial"] + row["teacher_ce"], rel=1e-5)


def test_passes_are_counted(backbone, data):
    card = train(backbone, data, "apd").card
    images, epochs, steps = 16, 3, 2
    student, teacher = images * epochs * (steps + 1), images * epochs
    assert card["forwards"] == student + teacher
    assert card["backwards"] == student + teacher
    assert card["text_forwards"] == 2 * epochs * 2  # 2 batches an epoch, student and teacher
    text = train(backbone, data, "apt").card  # its update needs no gradient of the image tower
    assert (text["forwards"], text["backwards"]) == (images * epochs * 4, images * epochs * 3)


@pytest.mark.parametrize(
    ("last", "size", "images"), [("keep", 6, 16), ("drop", 6, 12), ("drop", 8, 16), ("drop", 32, 16)]
)
def test_the_last_batch_is_dropped_as_dassl_does_where_a_full_one_is_there(last, size, images, backbone, data):
    changes = {"training": {"epochs": 1, "batch_size": size, "last_batch": last}}
    assert train(backbone, data, "vpt", changes).card["forwards"] == images


def test_the_card_holds_what_is_needed_to_rebuild_the_model(backbone, data):
    state = train(backbone, data, "apd")
    learner = restore(state, backbone)
    assert all(torch.equal(learner.state()[name], tensor) for name, tensor in state.state.items())
    assert state.card["num_parameters"] == sum(tensor.numel() for tensor in state.state.values())
    assert len(state.card["sample_ids"]) == 16
    assert state.recipe == load_recipe("apd", QUICK)


def test_zero_shot_is_a_state_without_tensors_and_who_attacks_needs_a_budget(backbone, data):
    state = fit(toy_fit(load_recipe("zero_shot"), backbone, data, eps=None), backbone, data)
    assert state.state == {}
    assert state.card["num_parameters"] == state.card["forwards"] == 0
    with pytest.raises(UsageError, match="budget"):
        train(backbone, data, "apt", eps=None)


def test_the_base_half_is_drawn_from_the_draw_of_all_classes(backbone, data):
    plan = toy_fit(load_recipe("apt", QUICK), backbone, data)
    whole = fit(plan, backbone, data)
    base = fit(dataclasses.replace(plan, classes="base"), backbone, data)
    assert base.card["classes"] == list(data.classes[:2])
    assert set(base.card["sample_ids"]) < set(whole.card["sample_ids"])


def test_runs_that_diverge_or_stay_at_chance_are_marked_collapsed(backbone, data):
    state = train(backbone, data, "apt", {"training": {"lr": 1e30, "momentum": 0.0}})
    assert state.card["collapsed"]
    assert "not finite" in state.card["warnings"][0]
    assert all(tensor.isfinite().all() for tensor in state.state.values())
    assert len(state.card["history"]) < 3
    card = train(backbone, data, "apt", {"training": {"lr": 0.0, "warmup_lr": 0.0}}).card
    limit = 0.25 + 2 * math.sqrt(0.25 * 0.75 / 16)
    assert card["collapsed"] == (card["train_accuracy"] <= limit)
    assert card["chance"] == 0.25


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("shots", [1, 2, 16])
def test_a_perfect_fit_is_no_collapse_and_a_constant_answer_is_one(classes, shots):
    assert not near_chance(1.0, 1 / classes, classes * shots)
    assert near_chance(1 / classes, 1 / classes, classes * shots)


def test_fewer_images_than_shots_are_said_on_the_card(backbone, data):
    labels = data.train.labels
    places = [*(labels == 0).nonzero().flatten().tolist()[:2], *(labels != 0).nonzero().flatten().tolist()]
    few = dataclasses.replace(data, train=data.train.subset(places))
    assert train(backbone, few, "apt").card["fewer_shots"] == {"classes": 1, "fewest": 2}
    assert "fewer_shots" not in train(backbone, data, "apt").card


@pytest.mark.parametrize(
    ("name", "used"),
    [("advvp(text='')", ["a {}.", "the {}."]), ("advvp", ["a photo of a {}."]), ("fap", ["a {}."]), ("apt", [])],
)
def test_the_card_says_which_templates_of_an_ensemble_act(backbone, data, name, used):
    card = train(backbone, dataclasses.replace(data, template="a {}.\nthe {}."), name).card
    assert card["effective"]["templates"] == used


def test_progress_is_told_after_each_epoch(backbone, data):
    heard = []
    plan = toy_fit(load_recipe("apd.offline", QUICK), backbone, data)
    state = fit(plan, backbone, data, on_progress=heard.append)
    assert [(event["stage"], event["epoch"]) for event in heard] == [
        (stage, epoch) for stage in ("teacher", "student") for epoch in (1, 2, 3)
    ]
    assert len(state.card["teacher_history"]) == 3


def test_clipping_bounds_the_step(backbone, data):
    options = {"lr": 1.0, "momentum": 0.0, "weight_decay": 0.0, "epochs": 1, "batch_size": 16}
    still = train(backbone, data, "apt", {"training": options | {"lr": 0.0}}).state["context"]
    moved = train(backbone, data, "apt", {"training": options | {"clip_norm": 1e-3}}).state["context"]
    assert float((moved - still).norm()) == pytest.approx(1e-3, rel=1e-2)


def test_images_come_from_memory_or_from_the_split_alike(data, monkeypatch):
    held = TrainingImages(data.train, torch.device("cpu"))
    monkeypatch.setattr("apd_bench.training.augment.MEMORY_LIMIT", 0)
    streamed = TrainingImages(data.train, torch.device("cpu"))
    assert held.held is not None and streamed.held is None
    places = torch.tensor([3, 0, 7])
    assert torch.equal(held(places), streamed(places))
    assert torch.equal(held(places), data.train.pixels(places))
    for images in (held, streamed):
        batches = list(images.batches([places, places[:1], places.flip(0)]))
        assert all(
            torch.equal(one, held(two)) for one, two in zip(batches, [places, places[:1], places.flip(0)], strict=True)
        )


def test_crop_and_flip_stay_in_range_and_keep_a_flat_image_flat():
    generator = torch.Generator().manual_seed(0)
    flat = torch.full((4, 3, 16, 16), 0.3)
    torch.testing.assert_close(crop_flip(flat, generator), flat)
    ramp = torch.linspace(0, 1, 16).expand(64, 3, 16, 16).contiguous()
    cropped = crop_flip(ramp, generator)
    assert cropped.min() >= 0 and cropped.max() <= 1
    rising = (cropped[:, 0, 8, -1] > cropped[:, 0, 8, 0]).float().mean()
    assert 0.3 < rising < 0.7  # about half are mirrored
    assert (cropped.amax(dim=(1, 2, 3)) - cropped.amin(dim=(1, 2, 3))).min() < 0.9  # and they are crops


def test_seed_optimiser_and_augmentation_decide_and_only_the_seed_changes_the_draw(backbone, data):
    changes = ({}, {"optimizer": "adamw"}, {"augment": "crop_flip"})
    states = [train(backbone, data, "apt", {"training": change}) for change in changes]
    assert len({tuple(state.card["sample_ids"]) for state in states}) == 1
    states.append(train(backbone, data, "apt", seed=0))  # which is a seed
    assert len({digest_of(state.state) for state in states}) == 4


def test_an_unknown_objective_option_is_explained():
    recipe = dataclasses.replace(load_recipe("apd"), objective_options={"temprature": 2})
    with pytest.raises(UsageError, match="Did you mean 'temperature'"):
        training.build_objective(recipe)


@pytest.mark.parametrize("entry", [*builtin()], ids=lambda entry: entry.name)
def test_every_registered_method_keeps_the_contract(entry, backbone):
    results = check(entry, backbone=backbone)
    assert [f"{result.name}: {result.detail}" for result in results if not result.passed] == []
    assert len(results) == (len(CHECKS) if entry.name != "zero_shot" else 3)
