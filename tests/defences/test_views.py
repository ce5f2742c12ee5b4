"""Views as maps of tensors against the library that published code makes them with."""

import pytest
import torch
from PIL import Image, ImageOps
from torch.nn.functional import interpolate

from apd_bench.defences.views import View, _apply, draw_views, look

GENERATOR = torch.Generator().manual_seed(0)
SMOOTH = interpolate(torch.rand(2, 3, 5, 5, generator=GENERATOR), size=40, mode="bicubic").clamp(0, 1)
IMAGES = (SMOOTH * 200 + 30).round().clamp(0, 255) / 255
FLAT = torch.full((1, 3, 8, 8), 77 / 255)


def as_pillow(x, change):
    pictures = [Image.fromarray((item * 255).round().byte().permute(1, 2, 0).numpy()) for item in x]
    changed = [torch.frombuffer(bytearray(change(item).tobytes()), dtype=torch.uint8) for item in pictures]
    return torch.stack([item.view(*x.shape[2:], 3).permute(2, 0, 1) for item in changed]).float() / 255


@pytest.mark.parametrize(("name", "amount", "change"), [
    ("autocontrast", 0.0, ImageOps.autocontrast),
    ("equalize", 0.0, ImageOps.equalize),
    ("posterize", 0.0, lambda item: ImageOps.posterize(item, 4)),
    ("solarize", 0.5, lambda item: ImageOps.solarize(item, 128)),
])  # fmt: skip
def test_maps_of_values_are_those_of_pillow(name, amount, change):
    for x in (IMAGES, FLAT):
        difference = (_apply(x, name, amount) - as_pillow(x, change)).abs()
        assert difference.max() <= 1.01 / 255


@pytest.mark.parametrize(("name", "amount", "affine"), [
    ("shear_x", 0.03, (1, 0.03, 0, 0, 1, 0)),
    ("shear_y", -0.03, (1, 0, 0, -0.03, 1, 0)),
    ("shift_x", 1 / 40, (1, 0, 1, 0, 1, 0)),
    ("shift_y", -1 / 40, (1, 0, 0, 0, 1, -1)),
    ("rotate", 2, None),
])  # fmt: skip
def test_maps_of_places_are_those_of_pillow(name, amount, affine):
    def change(item):
        if affine is None:
            return item.rotate(amount, resample=Image.BILINEAR)
        return item.transform((40, 40), Image.AFFINE, affine, resample=Image.BILINEAR)

    inside = (..., slice(3, -3), slice(3, -3))  # at the border Pillow mixes no black in
    difference = (_apply(IMAGES, name, amount) - as_pillow(IMAGES, change))[inside].abs()
    assert difference.max() < 2 / 255 < (IMAGES - as_pillow(IMAGES, change))[inside].abs().max()


def test_a_crop_is_the_part_of_the_image_enlarged_and_reads_nothing_from_outside():
    left, top, size = 0, 20, 20  # at two borders of the image
    affine = torch.tensor([[0.5, 0, -0.5], [0, 0.5, 0.5]])
    view = look(IMAGES, [View(affine)])[:, 0]
    part = interpolate(
        IMAGES[:, :, top : top + size, left : left + size], size=40, mode="bilinear", align_corners=False
    )
    torch.testing.assert_close(view[:, :, 1:, :-1], part[:, :, 1:, :-1], atol=1e-5, rtol=0)


def test_views_differ_keep_the_range_and_have_gradients_through_8_bit_maps():
    views = draw_views(12, "augmix", torch.Generator().manual_seed(3))
    x = IMAGES.clone().requires_grad_()
    seen = look(x, views)
    assert seen.shape == (2, 12, 3, 40, 40) and seen.min() >= 0 and seen.max() <= 1 + 1e-6
    assert len({float(item.mean()) for item in seen[0].detach()}) == 12
    (g,) = torch.autograd.grad(seen.sum(), x)
    assert g.isfinite().all() and (g != 0).float().mean() > 0.5
    for name in ("equalize", "posterize"):
        (g,) = torch.autograd.grad(_apply(x, name, 0.0).sum(), x)
        assert torch.equal(g, torch.ones_like(g))
