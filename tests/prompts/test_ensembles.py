"""Ensembles of templates: the features are open_clip's, and every learner says which templates it uses."""

import pytest
import torch
from open_clip import OPENAI_IMAGENET_TEMPLATES, SIMPLE_IMAGENET_TEMPLATES
from open_clip.zero_shot_classifier import build_zero_shot_classifier_legacy

from apd_bench.core.errors import UnknownName, UsageError
from apd_bench.core.identity import counted
from apd_bench.core.registry import DATASETS
from apd_bench.data.splits import load_dataset
from apd_bench.data.templates import ensemble
from apd_bench.prompts.catalog import LEARNERS
from apd_bench.prompts.classifier import Classifier, PromptedModel

NAMES = ("cat", "dog", "ice cream cone")
TEMPLATES = ["a photo of a {}.", "a drawing of the {}, seen from above.", "{}"]


@pytest.mark.parametrize("kind", ["template", "visual", "frame"])
def test_the_features_are_those_of_open_clip(make, backbone, kind):
    learner = make(kind, names=NAMES, template=ensemble(TEMPLATES))
    found = Classifier.from_learner(backbone, learner).text_features
    length = backbone.model.context_length

    def tokenize(texts):
        tokens = backbone.tokenize(texts)
        return torch.nn.functional.pad(tokens, (0, length - tokens.shape[1]))

    expected = build_zero_shot_classifier_legacy(backbone.model, tokenize, NAMES, TEMPLATES)
    assert torch.allclose(found, expected.T, atol=1e-6)
    assert not torch.allclose(found, Classifier.from_learner(backbone, make(kind, names=NAMES)).text_features)
    assert learner.used_templates == tuple(TEMPLATES)


@pytest.mark.parametrize("kind", sorted(set(LEARNERS) - {"template", "visual", "frame"}))
def test_learned_text_starts_from_the_first_template_alone(make, backbone, kind):
    for options, used in (({"init": "template"}, TEMPLATES[:1]), ({"init": "a photo of a"}, [])):
        many = make(kind, names=NAMES, template=ensemble(TEMPLATES), **options)
        one = make(kind, names=NAMES, template=TEMPLATES[0], **options)
        assert torch.equal(many.texts(), one.texts())
        assert list(many.used_templates) == used
        if not getattr(many, "by_image", False):
            features = [PromptedModel(backbone, learner).bind().text_features for learner in (many, one)]
            assert torch.equal(*features)


def test_the_named_ensembles_are_those_of_open_clip():
    for name, templates in (("openai80", OPENAI_IMAGENET_TEMPLATES), ("openai7", SIMPLE_IMAGENET_TEMPLATES)):
        assert ensemble(name).splitlines() == [template("{}") for template in templates]


def test_a_built_in_set_takes_templates_as_an_option_and_keeps_its_samples():
    plain, spec = DATASETS.get("animals"), DATASETS.get("animals(template=['a {}.', 'the {}.'])")
    assert (spec.template, spec.digest) == ("a {}.\nthe {}.", plain.digest)
    assert counted(spec) != counted(plain)
    assert DATASETS.get(spec.name) is spec
    assert load_dataset(spec, image_size=8).test.ids == load_dataset(plain, image_size=8).test.ids
    dtd = DATASETS.get("dtd(template='openai80')")
    assert (len(dtd.template.splitlines()), dtd.options) == (80, {"card": "dtd"})
    with pytest.raises(UnknownName, match="option of the dataset animals"):
        DATASETS.get("animals(problems='exclude')")
    with pytest.raises(UsageError, match=r"has no '\{\}'"):
        DATASETS.get("dtd(template=['a {}.', 'texture'])")
