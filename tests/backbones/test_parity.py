"""Without prompts, and with prompts of length zero, a backbone is open_clip's own model."""

import pytest
import torch
from open_clip import get_model_config

from apd_bench.backbones.catalog import resolve
from apd_bench.backbones.load import load_backbone
from apd_bench.backbones.slots import TextPrompts, VisualPrompts
from tests.backbones.conftest import KINDS

TEXTS = ["a photo of a cat.", "an x-ray of a hand, a medical image.", "ice cream."]
TOLERANCE = 1e-5


def reference(backbone, pixels):
    return backbone.model.encode_image(pixels * backbone.scale + backbone.shift)


def empty_prompts(backbone):
    shapes = backbone.shapes
    text = visual = None
    if "text_tokens" in shapes.offers:
        text = TextPrompts(torch.zeros(0, shapes.text_width), torch.zeros(shapes.text_layers - 1, 0, shapes.text_width))
    if "visual_tokens" in shapes.offers:
        visual = VisualPrompts(torch.zeros(shapes.visual_layers, 0, shapes.visual_width))
    return text, visual


def largest_differences(backbone, batch=2):
    size = backbone.shapes.image_size
    pixels = torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(3))
    text, visual = empty_prompts(backbone)
    with torch.no_grad():
        image = reference(backbone, pixels)
        uncut = backbone.model.encode_text(backbone.tokenizer(TEXTS, context_length=backbone.shapes.context_length))
        tokens = backbone.tokenize(TEXTS)
        pairs = {
            "image": (backbone.encode_image(pixels), image),
            "image with empty prompts": (backbone.encode_image(pixels, visual), image),
            "text": (backbone.encode_text(tokens), uncut),
            "text with empty prompts": (backbone.encode_text(tokens, text), uncut),
        }
    return {name: float((ours - theirs).abs().max()) for name, (ours, theirs) in pairs.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_equals_open_clip(kind, backbones):
    differences = largest_differences(backbones[kind])
    assert max(differences.values()) <= TOLERANCE, differences


@pytest.mark.parametrize("architecture", ["ViT-S-32", "PE-Core-T-16-384", "ViT-B-32-quickgelu"])
def test_equals_open_clip_for_its_own_configurations(architecture):
    spec = resolve(f"{architecture}/random")
    assert spec is not None
    assert spec.activation == ("quick_gelu" if get_model_config(architecture).get("quick_gelu") else "gelu")
    differences = largest_differences(load_backbone(spec), batch=1)
    assert max(differences.values()) <= TOLERANCE, differences


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_of_the_pixels_equals_open_clip(kind, backbones):
    backbone = backbones[kind]
    size = backbone.shapes.image_size
    pixels = torch.rand(2, 3, size, size, requires_grad=True)
    weight = torch.randn(backbone.shapes.embed_dim)
    ours = torch.autograd.grad((backbone.encode_image(pixels) @ weight).sum(), pixels)[0]
    theirs = torch.autograd.grad((reference(backbone, pixels) @ weight).sum(), pixels)[0]
    assert torch.allclose(ours, theirs, atol=TOLERANCE * float(theirs.abs().max() + 1))


def test_the_last_row_alone_and_all_rows_agree_with_and_without_gradient(plain, pixels):
    with torch.no_grad():
        without = plain.encode_image(pixels)
    assert torch.equal(plain.encode_image(pixels.requires_grad_()).detach(), without)
