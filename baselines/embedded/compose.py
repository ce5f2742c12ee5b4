"""Composes pictures from drawings: placement, background and colour, a whole batch at a time."""

import torch
from torch import Tensor
from torch.nn import functional as F

SIZE = 40
_LUMINANCE = (0.299, 0.587, 0.114)


def _uniform(shape: tuple[int, ...], low: float, high: float, rng: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=rng) * (high - low) + low


def _luminance(colour: Tensor) -> Tensor:
    weights = torch.tensor(_LUMINANCE).view(1, 3, *([1] * (colour.ndim - 2)))
    return (colour * weights).sum(1)


def _with_luminance(colour: Tensor, target: Tensor) -> Tensor:
    """[B, 3] colours mixed with black or white until their luminance is the [B] target."""
    now, goal = _luminance(colour)[:, None], target[:, None]
    darker = colour * goal / now.clamp_min(1e-3)
    lighter = 1 - (1 - colour) * (1 - goal) / (1 - now).clamp_min(1e-3)
    return torch.where(goal < now, darker, lighter).clamp(0, 1)


def _contrasting(luminance: Tensor, margin: float, rng: torch.Generator) -> Tensor:
    """[B] random luminances that differ from the given ones by at least the margin."""
    room_below = (luminance - margin).clamp_min(0)
    room_above = (1 - luminance - margin).clamp_min(0)
    draw = torch.rand(len(luminance), generator=rng) * (room_below + room_above)
    return torch.where(draw < room_below, draw, draw - room_below + luminance + margin).clamp(0, 1)


def place(rgba: Tensor, strength: float, rng: torch.Generator) -> Tensor:
    """[B, 4, 40, 40] premultiplied drawings, scaled, turned, mirrored and shifted."""
    n = len(rgba)
    scale = _uniform((n,), 0.95 - 0.4 * strength, 0.95, rng)
    aspect = torch.exp(_uniform((n,), -0.15, 0.15, rng) * strength)
    angle = _uniform((n,), -0.3, 0.3, rng) * strength
    mirror = torch.where(torch.rand(n, generator=rng) < 0.5, -1.0, 1.0)
    shift = _uniform((n, 2), -1, 1, rng) * (1 - scale)[:, None]
    cos, sin = torch.cos(angle), torch.sin(angle)
    inverse_x, inverse_y = 1 / (scale * aspect), 1 / (scale / aspect)
    rows = torch.stack(
        [
            torch.stack([mirror * cos * inverse_x, mirror * sin * inverse_x], 1),
            torch.stack([-sin * inverse_y, cos * inverse_y], 1),
        ],
        1,
    )
    theta = torch.cat([rows, -(rows @ shift[:, :, None])], 2)
    grid = F.affine_grid(theta, [n, 4, SIZE, SIZE], align_corners=False)
    # Drawings are always made smaller: a 3x3 mean first keeps thin lines from breaking up.
    smooth = F.avg_pool2d(rgba, 3, stride=1, padding=1)
    return F.grid_sample(smooth, grid, align_corners=False)


def background(luminance: Tensor, strength: float, rng: torch.Generator) -> Tensor:
    """[B, 3, 40, 40] solid colours, gradients and smooth noise of about the given luminance."""
    n = len(luminance)
    base = _with_luminance(torch.rand(n, 3, generator=rng), luminance)[:, :, None, None]
    kind = torch.randint(0, 3, (n, 1, 1, 1), generator=rng)
    coarse = _uniform((n, 3, 4, 4), -1, 1, rng) * (kind == 2)
    ends = _uniform((n, 3, 2, 2), -1, 1, rng) * (kind == 1)
    texture = _enlarged(coarse, "bicubic") + _enlarged(ends, "bilinear")
    return (base + 0.3 * strength * texture).clamp(0, 1)


def _enlarged(coarse: Tensor, mode: str) -> Tensor:
    """Interpolates [B, 3, k, k] to [B, 3, 40, 40] by two small matrix products, as fast as it gets."""
    side = coarse.shape[-1]
    basis = F.interpolate(torch.eye(side)[None, :, :, None], size=(SIZE, 1), mode=mode, align_corners=True)
    matrix = basis[0, :, :, 0].T
    return matrix @ coarse @ matrix.T


def compose(rgba: Tensor, mono: Tensor, strength: float, rng: torch.Generator) -> Tensor:
    """[B, 3, 40, 40] pictures in [0, 1] from [B, 48, 48, 4] uint8 drawings; one-colour drawings get a random colour."""
    drawing = rgba.permute(0, 3, 1, 2).contiguous().float() / 255
    n = len(drawing)
    mass = drawing[:, 3].sum((1, 2)).clamp_min(1e-3)
    own = _luminance(drawing[:, :3]).sum((1, 2)) / mass
    own = torch.where(mono, torch.rand(n, generator=rng), own)
    behind = _contrasting(own, 0.3, rng)
    # A one-colour drawing is only its outline, so it needs more contrast than a painted one.
    ink = _with_luminance(torch.rand(n, 3, generator=rng), _contrasting(behind, 0.4, rng))
    placed = place(drawing, strength, rng)
    alpha = placed[:, 3:]
    gain = torch.exp(_uniform((n, 3, 1, 1), -0.25, 0.25, rng) * strength)
    painted = (placed[:, :3] * gain).minimum(alpha)
    front = torch.where(mono[:, None, None, None], alpha * ink[:, :, None, None], painted)
    return (front + (1 - alpha) * background(behind, strength, rng)).clamp(0, 1)
