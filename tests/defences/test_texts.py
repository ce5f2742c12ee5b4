"""The class texts of the defences that change them: those of the model where nothing is tuned, or a refusal."""

import pytest
import torch
from torch.nn.functional import normalize

from apd_bench.core.errors import IncompatibleChoice
from apd_bench.core.registry import DATASETS
from apd_bench.data.splits import load_dataset
from apd_bench.defences.parse import make_defence
from apd_bench.methods.recipes import load_recipe
from apd_bench.prompts.classifier import Classifier
from apd_bench.training.prompt_states import build_learner, zero_shot


@pytest.fixture
def with_template(tiny):
    """The zero-shot classifier of tiny-clean on the same set with other texts."""

    def make(template):
        data = load_dataset(DATASETS.get(f"food(template={template!r})"), image_size=40)
        return zero_shot(tiny[0].backbone, data.classes, data.template)

    return make


@pytest.mark.parametrize("method", ["zero_shot", "coop", "vlp", "maple", "fap", "apd"])
@pytest.mark.parametrize("name", ["tpt", "r_tpt"])
def test_without_a_step_and_other_views_the_prediction_is_the_models(name, method, tiny):
    backbone, learner = tiny[0].backbone, tiny[0].learner
    made = build_learner(load_recipe(method), backbone, learner.class_names, learner.template)
    model = Classifier.from_learner(backbone, made)
    defence = make_defence(f"{name}(views=1)", model)
    defence.options["rate"] = 0.0
    with torch.no_grad():
        torch.testing.assert_close(defence(tiny[1][:2]), model(tiny[1][:2]), atol=1e-4, rtol=0)


def test_texts_that_no_context_can_say_are_refused_with_the_way_out(with_template):
    for template, reason in (("{} texture.", "no words before the name"), ("openai7", "tunes one context")):
        with pytest.raises(IncompatibleChoice, match=reason) as told:
            make_defence("r_tpt", with_template(template))
        assert "template='a photo of a {}.'" in told.value.hint


def test_the_empty_prompt_of_an_ensemble_is_the_mean_of_its_templates(with_template):
    model = with_template(["a photo of a {}.", "an icon of a {}."])
    backbone = model.backbone
    with torch.no_grad():
        each = backbone.encode_text(backbone.tokenize(["a photo of a .", "an icon of a ."]))
    expected = normalize(normalize(each, dim=-1).mean(0, keepdim=True), dim=-1)
    torch.testing.assert_close(make_defence("clipure_cos", model).get_buffer("t"), expected)
