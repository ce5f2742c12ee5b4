import copy

import pytest
import torch

from apd_bench.backbones.slots import Prompts, TextPrompts, VisualPrompts
from apd_bench.backbones.towers import has_quick_gelu
from apd_bench.core.errors import IncompatibleChoice, UsageError

NAMES = ["cat", "x_ray", "ice cream cone"]
PHRASE = "a photo of a"


def same_features(backbone, layout, context, texts):
    """Whether words put in as context give the features of the plain texts."""
    with torch.no_grad():
        prompted = backbone.encode_text(layout.tokens, TextPrompts(context, rows=layout.rows))
        return torch.allclose(prompted, backbone.encode_text(backbone.tokenize(texts)), atol=1e-5)


@pytest.mark.parametrize("kind", ["plain", "custom_text", "quick_gelu", "eos_pool"])
@pytest.mark.parametrize(
    ("position", "text"), [("front", "{} a photo of a."), ("middle", "a photo {} of a."), ("end", "a photo of a {}.")]
)
def test_the_class_name_stands_where_the_position_says(kind, position, text, backbones):
    texts = [text.format(name.replace("_", " ")) for name in NAMES]
    layout = backbones[kind].prompt_layout(NAMES, 4, position)
    assert same_features(backbones[kind], layout, backbones[kind].embed_words(PHRASE), texts)


def test_context_stands_before_words_that_stay_and_class_wise_at_its_class(plain):
    layout = plain.prompt_layout(["cat"], 2, prefix=PHRASE)
    assert same_features(plain, layout, plain.embed_words("big red"), ["big red of a cat."])
    with pytest.raises(UsageError, match="as many words"):
        plain.prompt_layout(["cat"], 2, "middle", prefix=PHRASE)
    context = torch.stack([plain.embed_words("red"), plain.embed_words("blue")])
    assert same_features(plain, plain.prompt_layout(["cat", "dog"], 1), context, ["red cat.", "blue dog."])


def deep_reference(blocks, x, deep, place, mask=None):
    """Calls open_clip's own blocks, with `deep[l-1]` put in place before block l."""
    for index, block in enumerate(blocks):
        if 1 <= index <= len(deep):
            x = place(x, deep[index - 1])
        x = block(x, attn_mask=mask)
    return x


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_visual_tokens_enter_before_ln_pre_and_are_replaced_at_block_entry(depth, plain, pixels):
    visual, tokens = plain.model.visual, torch.randn(depth, 2, 32)
    with torch.no_grad():
        x = visual.conv1(pixels * plain.scale + plain.shift).flatten(2).transpose(1, 2)
        x = torch.cat([visual.class_embedding.expand(3, 1, -1), x], 1) + visual.positional_embedding
        x = visual.ln_pre(torch.cat([x, tokens[0].expand(3, -1, -1)], 1))
        x = deep_reference(
            visual.transformer.resblocks, x, tokens[1:], lambda x, t: torch.cat([x[:, :-2], t.expand(3, -1, -1)], 1)
        )
        expected = visual.ln_post(x[:, 0]) @ visual.proj
        assert torch.allclose(plain.encode_image(pixels, VisualPrompts(tokens)), expected, atol=1e-5)


@pytest.mark.parametrize("position", ["end", "middle", "front"])
def test_deep_text_prompts_replace_the_context_rows_at_block_entry(position, plain):
    model, context, deep = plain.model, torch.randn(2, 16), torch.randn(2, 2, 16)
    layout = plain.prompt_layout(NAMES, 2, position)
    rows = layout.rows if layout.rows is not None else torch.tensor([[1, 2]] * 3)

    def place(x, values):
        x = x.clone()
        for index in range(3):
            x[index, rows[index]] = values
        return x

    with torch.no_grad():
        tokens = layout.tokens
        length = tokens.shape[1]
        x = place(model.token_embedding(tokens), context) + model.positional_embedding[:length]
        x = deep_reference(model.transformer.resblocks, x, deep, place, model.attn_mask[:length, :length])
        expected = model.ln_final(x)[torch.arange(3), tokens.argmax(-1)] @ model.text_projection
        prompted = plain.encode_text(tokens, TextPrompts(context, deep, layout.rows))
    assert torch.allclose(prompted, expected, atol=1e-5)


def test_prompt_positions_do_not_enter_a_mean_over_patches(backbones, pixels):
    backbone = backbones["mean_pool"]
    seen = []
    handle = backbone.model.visual.ln_post.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    backbone.encode_image(pixels, VisualPrompts(torch.randn(1, 2, 32)))
    handle.remove()
    assert seen[0].shape == (3, 32)


def test_the_frame_is_added_after_normalisation(plain, pixels):
    frame = torch.randn(3, 16, 16)
    with torch.no_grad():
        framed = plain.encode_image(pixels, VisualPrompts(frame=frame))
        expected = plain.model.encode_image(pixels * plain.scale + plain.shift + frame)
    assert torch.allclose(framed, expected, atol=1e-5)


def test_text_in_chunks_has_the_same_features_and_gradients(plain):
    names = [f"thing {index}" for index in range(7)]
    layout = plain.prompt_layout(names, 2)
    results = []
    for chunk, checkpoint in ((None, None), (3, False), (3, True), (2, None)):
        context = torch.ones(7, 2, 16, requires_grad=True)
        features = plain.encode_text(layout.tokens, TextPrompts(context), chunk=chunk, checkpoint=checkpoint)
        features.square().sum().backward()
        results.append((features.detach(), context.grad))
    for features, gradient in results[1:]:
        assert torch.allclose(features, results[0][0], atol=1e-5)
        assert torch.allclose(gradient, results[0][1], rtol=1e-4, atol=1e-4)


def test_memory_of_many_classes_stays_that_of_one_chunk(plain):
    """What autograd keeps for the backward pass grows with C without checkpoints, and barely with them."""
    layout = plain.prompt_layout([f"thing {index}" for index in range(40)], 2)

    def kept(checkpoint):
        sizes = []
        context = torch.ones(2, 16, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            plain.encode_text(layout.tokens, TextPrompts(context), chunk=4, checkpoint=checkpoint).sum()
        return sum(sizes)

    assert kept(True) < kept(False) / 20


def test_text_is_cut_at_the_longest_end_token(plain):
    tokens = plain.tokenize(["cat", "a photo of a cat."])
    assert tokens.shape == (2, 8)
    assert torch.equal(tokens, plain.tokenizer(["cat", "a photo of a cat."], context_length=20)[:, :8])


def test_what_does_not_fit_is_refused(plain, backbones):
    with pytest.raises(UsageError, match=r"'a a a .*' takes 27 tokens; the backbone reads 20"):
        plain.tokenize([" ".join("a" * 25)])
    with pytest.raises(UsageError, match=r"reads \[B, 3, 16, 16\], not \[1, 3, 32, 32\]"):
        plain.encode_image(torch.zeros(1, 3, 32, 32))
    with pytest.raises(IncompatibleChoice, match="takes no visual tokens; it offers deep_text, frame, text_tokens"):
        backbones["resnet"].encode_image(torch.rand(1, 3, 32, 32), VisualPrompts(torch.randn(1, 2, 8)))


def test_frozen_in_eval_mode_whatever_is_called_and_a_copy_has_its_own_weights(plain, pixels):
    plain.train()
    assert not any(module.training for module in plain.modules())
    assert not any(parameter.requires_grad for parameter in plain.parameters())
    twin = copy.deepcopy(plain)
    with torch.no_grad():
        twin.model.visual.proj.zero_()
        assert twin.encode_image(pixels).abs().max() == 0
        assert plain.encode_image(pixels).abs().max() > 0


def test_an_empty_batch_gives_empty_features_with_a_graph(plain):
    empty = torch.zeros(0, 3, 16, 16, requires_grad=True)
    features = plain.encode_image(empty, VisualPrompts(torch.randn(2, 2, 32)))
    assert features.shape == (0, 24)
    assert torch.autograd.grad(features.sum(), empty)[0].shape == empty.shape


def test_shapes_scale_bias_and_activation_are_those_of_the_model(backbones):
    plain, resnet = backbones["plain"].shapes, backbones["resnet"].shapes
    assert plain.offers == {"text_tokens", "deep_text", "visual_tokens", "frame"}
    assert (plain.visual_width, plain.text_width, plain.embed_dim) == (32, 16, 24)
    assert (plain.visual_layers, plain.text_layers, plain.context_length, plain.image_size) == (3, 3, 20, 16)
    assert resnet.offers == {"text_tokens", "deep_text", "frame"}
    assert resnet.visual_width is None
    assert [has_quick_gelu(backbones[name].model) for name in ("plain", "quick_gelu")] == [False, True]
    assert backbones["plain"].logit_scale == pytest.approx(1 / 0.07)
    assert backbones["plain"].logit_bias == 0.0
    assert backbones["siglip"].logit_bias == -10.0


def test_detached_prompts_share_values_without_a_graph():
    leaf = torch.randn(2, 16, requires_grad=True)
    prompts = Prompts(TextPrompts(leaf * 2, None), VisualPrompts(None, leaf * 3)).detach()
    assert not prompts.text.context.requires_grad
    assert not prompts.visual.frame.requires_grad
    assert torch.equal(prompts.text.context, leaf * 2)


def test_autocast_runs_both_towers(plain, pixels):
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        image, text = plain.encode_image(pixels), plain.encode_text(plain.tokenize(["a cat."]))
    assert torch.allclose(image.float(), plain.encode_image(pixels), atol=0.1)
    assert torch.allclose(text.float(), plain.encode_text(plain.tokenize(["a cat."])), atol=0.1)
