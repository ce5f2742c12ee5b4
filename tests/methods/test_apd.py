"""The self-checks of APD: what must follow from its definition, whatever its unknown weights are."""

import pytest
import torch

from apd_bench.methods import apd
from apd_bench.methods.recipes import load_recipe
from apd_bench.prompts.classifier import Classifier
from apd_bench.training.fit import fit, prepare
from apd_bench.training.loop import descend
from apd_bench.training.prompt_states import digest_of, restore
from apd_bench.training.toy import toy_fit

SAME = {"training": {"epochs": 2, "batch_size": 8, "warmup_epochs": 0, "lr": 0.01, "augment": "none"}}


def trained(name, backbone, data, *changes, eps=4 / 255):
    return fit(toy_fit(load_recipe(name, SAME, *changes), backbone, data, eps=eps), backbone, data)


def trained_teacher(backbone, data, **options):
    """The state of the online teacher after a run of apd."""
    recipe = load_recipe("apd", SAME, {"objective": options})
    run = prepare(toy_fit(recipe, backbone, data, eps=4 / 255), backbone, data)
    descend(run)
    return run.teacher.learner.state()


@pytest.mark.parametrize("feedback", [0.0, 1.0])
def test_the_teacher_is_plain_clean_tuning_unless_it_gets_feedback(backbone, data, feedback):
    clean, teacher = trained("vlp", backbone, data, eps=None), trained_teacher(backbone, data, feedback=feedback)
    assert (digest_of(teacher) == digest_of(clean.state)) is (feedback == 0)


ALL = {"clean_weight": 0.5, "feature_weight": 1.0, "label_weight": 0.5, "feedback": 1.0}


@pytest.mark.parametrize("options", [{}, ALL])
def test_no_gradient_of_the_students_loss_reaches_the_teacher(backbone, data, options):
    run = prepare(toy_fit(load_recipe("apd", SAME, {"objective": options}), backbone, data), backbone, data)
    terms = run.terms(run.batch(torch.arange(8)), run.generator("noise"))
    student = sum(value for name, value in terms.items() if not name.startswith("teacher_"))
    teacher = sum(value for name, value in terms.items() if name.startswith("teacher_"))
    own, other = list(run.model.learner.parameters()), list(run.teacher.learner.parameters())
    leaked = torch.autograd.grad(student, other, allow_unused=True, retain_graph=True)
    assert all(gradient is None for gradient in leaked)
    assert all(gradient is None for gradient in torch.autograd.grad(teacher, own, allow_unused=True))


def test_label_weight_1_is_advvlp_and_an_offline_teacher_plain_clean_tuning_first(backbone, data):
    labelled = trained("apd", backbone, data, {"objective": {"label_weight": 1.0}})
    assert digest_of(labelled.state) == digest_of(trained("advvlp", backbone, data).state)
    offline = trained("apd.offline", backbone, data)
    clean = trained("vlp", backbone, data, eps=None)
    assert offline.card["teacher_history"] == clean.card["history"]


def test_budget_0_is_plain_clean_distillation(backbone, data, monkeypatch):
    without = trained("apd", backbone, data, eps=0.0)

    class CleanDistillation(apd.Distillation):
        def __call__(self, student, batch, adversary, teacher):
            return super().__call__(student, batch, lambda pixels, labels, **options: pixels, teacher)

    monkeypatch.setattr(apd, "Distillation", CleanDistillation)
    assert digest_of(without.state) == digest_of(trained("apd", backbone, data).state)


def test_the_teacher_is_dropped_at_inference(backbone, data):
    distilled, plain = trained("apd", backbone, data), trained("advvlp", backbone, data)
    assert distilled.card["num_parameters"] == plain.card["num_parameters"]
    shapes = [{name: value.shape for name, value in state.state.items()} for state in (distilled, plain)]
    assert shapes[0] == shapes[1]
    counts = []
    for state in (distilled, plain):
        classifier = Classifier.from_learner(backbone, restore(state, backbone))
        with torch.profiler.profile(with_flops=True) as profile:
            classifier(data.test.pixels(range(2)))
        counts.append(sum(event.flops for event in profile.key_averages()))
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize("kind", ["offline", "zeroshot-teacher"])
def test_a_frozen_teacher_has_no_terms_and_teaches_from_the_first_step(backbone, data, kind):
    history = trained(f"apd.{kind}", backbone, data).card["history"]
    assert set(history[0]) == {"epoch", "lr", "kl_adversarial", "loss", "gradient_norm"}
    assert history[0]["kl_adversarial"] > 0
