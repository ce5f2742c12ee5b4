"""What each learner learns, and where it goes."""

import pytest
import torch
from torch.nn.functional import linear

from apd_bench.core.errors import IncompatibleChoice, UsageError
from apd_bench.prompts.classifier import Classifier


def words(backbone, learner):
    """The texts of a learner as they would be read, without padding."""
    end, start = "<end_of_text>", "<start_of_text>"
    texts = (backbone.tokenizer.decode(row.tolist()) for row in learner.texts())
    return [text.split(end)[0].replace(start, "").strip() for text in texts]


class TestTemplate:
    def test_texts_are_the_template_with_the_names_also_after_another_one(self, make, backbone):
        learner = make("template")
        assert words(backbone, learner)[1] == "a photo of a x ray , a kind of thing ."
        assert learner.num_parameters == 0
        assert learner.forward().text is None
        learner.rebind(["dog"], "some {}")
        assert words(backbone, learner) == ["some dog"]


class TestText:
    def test_a_random_context_is_small_and_stands_before_the_name(self, make, backbone):
        learner = make("text", tokens=16)
        assert learner.context.shape == (16, 16)
        assert 0.015 < float(learner.context.detach().std()) < 0.025
        assert words(backbone, learner)[0] == "x " * 16 + "cat ."

    def test_words_of_a_phrase_or_of_the_template_start_the_context_and_missing_ones_are_random(self, make, backbone):
        learner = make("text", tokens=4, init="a photo of a")
        assert torch.equal(learner.context, backbone.embed_words("a photo of a"))
        learner = make("text", tokens=3, init="photo")
        assert torch.equal(learner.context[:1], backbone.embed_words("photo"))
        assert float(learner.context[1:].detach().abs().max()) < 0.1
        assert words(backbone, learner)[0] == "photo x x cat ."
        learner = make("text", tokens=2, init="template")
        assert torch.equal(learner.context, backbone.embed_words("a photo"))
        assert words(backbone, learner)[0] == "a photo of a cat , a kind of thing ."
        assert words(backbone, make("text", tokens=2, init="template-literal"))[0].endswith(". cat .")

    def test_depth_is_cut_to_the_tower_and_says_so(self, make):
        learner = make("text", tokens=2, depth=9)
        assert learner.deep.shape == (2, 2, 16)
        assert learner.effective["depth"] == 3
        assert make("text", tokens=2).deep is None

    def test_class_wise_context_is_drawn_per_class_and_follows_its_class(self, make):
        learner = make("text", tokens=2, class_specific=True)
        assert learner.context.shape == (3, 2, 16)
        assert not torch.equal(learner.context[0], learner.context[1])
        last, first = learner.context[2].clone(), learner.context[0].clone()
        learner.rebind(["ice cream cone", "cat"])
        assert torch.equal(learner.context, torch.stack([last, first]))
        with pytest.raises(IncompatibleChoice, match="none for 'dog'"):
            learner.rebind(["cat", "dog"])

    def test_a_context_too_long_for_the_tower_is_named(self, make):
        with pytest.raises(UsageError, match="the backbone reads 40"):
            make("text", tokens=39).texts()

    @pytest.mark.parametrize("position", ["front", "middle"])
    def test_the_position_is_that_of_the_name(self, position, make, backbone):
        expected = {"front": "ice cream cone x x x x .", "middle": "x x ice cream cone x x ."}
        assert words(backbone, make("text", tokens=4, position=position))[2] == expected[position]


class TestVisual:
    def test_one_row_of_tokens_for_every_block_up_to_the_depth(self, make):
        assert make("visual", tokens=5, depth=2).forward().visual.tokens.shape == (2, 5, 32)
        deep = make("visual")
        assert deep.tokens.shape == (4, 8, 32)
        assert deep.effective["depth"] == 4


class TestIndependent:
    def test_two_words_of_the_phrase_are_learned_and_lengths_are_those_of_each_tower(self, make, backbone):
        learner = make("independent")
        prompts = learner()
        assert torch.equal(learner.context, backbone.embed_words("a photo"))
        assert words(backbone, learner)[0] == "a photo of a cat ."
        assert prompts.text.deep.shape == (2, 2, 16)
        assert prompts.visual.tokens.shape == (4, 2, 32)
        prompts = make("independent", text_tokens=4, visual_tokens=3, text_depth=1, visual_depth=2)()
        assert prompts.text.context.shape == (4, 16)
        assert len(prompts.text.deep) == 0
        assert prompts.visual.tokens.shape == (2, 3, 32)


class TestCoupled:
    def test_the_visual_prompt_of_a_layer_is_a_linear_map_of_its_text_prompt_copied_to_deep_ones(self, make):
        learner = make("coupled")
        prompts = learner()
        text = [learner.context, *learner.deep]
        maps = [(learner.first.weight[0], learner.first.bias[0])]
        maps += list(zip(learner.further.weight, learner.further.bias, strict=True))
        assert prompts.visual.tokens.shape == (3, 2, 32)
        for tokens, prompt, (weight, bias) in zip(prompts.visual.tokens, text, maps, strict=True):
            assert torch.allclose(tokens, linear(prompt, weight, bias), atol=1e-6)
        assert torch.equal(learner.further.weight[0], learner.further.weight[1])
        assert not torch.equal(learner.further.weight[0], learner.first.weight[0])
        assert float(learner.first.weight.detach().abs().max()) <= 16**-0.5


class TestFap:
    def test_deep_text_comes_from_the_image_side_and_the_first_layer_goes_the_other_way(self, make):
        learner = make("fap")
        prompts = learner()
        assert torch.equal(prompts.visual.tokens[1:], learner.tokens)
        for deep, tokens, weight, bias in zip(
            prompts.text.deep, learner.tokens, learner.further.weight, learner.further.bias, strict=True
        ):
            assert torch.allclose(deep, linear(tokens, weight, bias), atol=1e-6)
        first = linear(learner.context, learner.first.weight[0], learner.first.bias[0])
        assert torch.allclose(prompts.visual.tokens[0], first, atol=1e-6)


class TestFrame:
    def test_the_frame_is_zero_inside_and_learned_outside(self, make):
        learner = make("frame", pad=30)
        frame = learner().visual.frame.detach()
        assert learner.effective["pad_pixels"] == 2
        assert frame.shape == (3, 16, 16)
        assert not frame[:, 2:-2, 2:-2].any()
        assert (frame != 0).sum() == 3 * (16 * 16 - 12 * 12)
        assert learner.num_parameters == int((frame != 0).sum()) + 5 * 32

    def test_the_frame_acts_in_the_prediction(self, make, backbone, pixels):
        learner = make("frame")
        before = Classifier.from_learner(backbone, learner)(pixels)
        with torch.no_grad():
            learner.top.zero_()
        assert not torch.allclose(Classifier.from_learner(backbone, learner)(pixels), before)

    def test_a_frame_that_covers_the_image_is_refused(self, make):
        with pytest.raises(UsageError, match="leaves nothing"):
            make("frame", pad=112)
