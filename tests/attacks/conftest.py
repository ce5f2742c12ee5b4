"""The oracle: linear models, on which the best perturbation is known exactly."""

import pytest
import torch
from torch import nn

torch.set_num_threads(1)


class Linear(nn.Module):
    """Logits scale * (W x + b) + shift, computed in float32 and returned in `dtype`."""

    def __init__(self, classes, size=6, *, scale=1.0, shift=0.0, dtype=torch.float32, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.W = nn.Parameter(torch.randn(classes, 3 * size * size, generator=generator))
        self.b = nn.Parameter(-self.W.detach().sum(1) / 2)
        self.scale, self.shift, self.dtype = scale, shift, dtype

    def forward(self, x):
        return (self.scale * (x.flatten(1) @ self.W.T + self.b) + self.shift).to(self.dtype)


class Oracle:
    """A linear model, images on the 8-bit grid with their predictions as labels, and the exact answers."""

    def __init__(self, classes, n=24, size=6, *, saturated=False, seed=0, **options):
        generator = torch.Generator().manual_seed(seed + 1)
        self.model = Linear(classes, size, seed=seed, **options)
        images = torch.randint(0, 256, (n, 3, size, size), generator=generator)
        if saturated:  # pixels at 0 and 255: the box binds
            images = (images > 127) * 255
        self.x = images.float() / 255
        with torch.no_grad():
            self.y = self.model(self.x).float().argmax(1)
        self.ids = [f"sample-{place}" for place in range(n)]
        self.classes = classes

    def directions(self):
        """Differences of weights [N, K, d] and margins to overcome [N, K]; the true class is never a target."""
        W, x = self.model.W.detach().double(), self.x.double().flatten(1)
        z = x @ W.T + self.model.b.detach().double()
        true = self.y[:, None]
        need = z.gather(1, true) - z
        return W[None] - W[self.y][:, None], need.scatter(1, true, float("inf"))

    def excess(self, eps, norm):
        """The largest margin [N] reached within eps (a number or [N]) and [0,1]; positive means broken."""
        d, need = self.directions()
        low, high = -self.x.double().flatten(1)[:, None], 1 - self.x.double().flatten(1)[:, None]
        eps = torch.as_tensor(eps, dtype=torch.float64).expand(len(self.x))[:, None, None]
        if norm == "Linf":
            low, high = torch.maximum(low, -eps), torch.minimum(high, eps)
            gain = torch.maximum(d * low, d * high).sum(2)
        else:
            gain = (d * self._sphere(d, low, high, eps)).sum(2)
        return (gain - need).amax(1)

    def distance(self):
        """The exact L2 distance [N] to the nearest other class within the box."""
        d, need = self.directions()
        low, high = -self.x.double().flatten(1)[:, None], 1 - self.x.double().flatten(1)[:, None]
        small, large = torch.zeros_like(need), torch.full_like(need, 1e3)
        for _ in range(50):
            middle = (small + large) / 2
            reached = (d * (middle[..., None] * d).clamp(low, high)).sum(2) >= need
            small, large = torch.where(reached, small, middle), torch.where(reached, middle, large)
        far = (large[..., None] * d).clamp(low, high).norm(dim=2)
        return torch.where(large < 999, far, torch.inf).amin(1)

    def _sphere(self, d, low, high, eps):
        small, large = torch.zeros(d.shape[:2]).double(), torch.full(d.shape[:2], 1e3).double()
        for _ in range(50):
            middle = (small + large) / 2
            outside = (middle[..., None] * d).clamp(low, high).norm(dim=2) > eps[..., 0]
            small, large = torch.where(outside, small, middle), torch.where(outside, middle, large)
        return (small[..., None] * d).clamp(low, high)


@pytest.fixture
def oracle():
    return Oracle


@pytest.fixture(scope="session")
def killed_after():
    """A model that ends the process, as Ctrl-C does, once it has seen more than so many images."""

    def make(net, passes):
        seen = 0

        def killed(pixels):
            nonlocal seen
            seen += len(pixels)
            if seen > passes:
                raise KeyboardInterrupt
            return net(pixels)

        return killed

    return make


@pytest.fixture(scope="session")
def small_net():
    """A little convolutional network that is accurate on its own labels, with images on the 8-bit grid."""

    def make(classes=10, n=24, size=12, scale=1.0, seed=0):
        generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            net = nn.Sequential(
                nn.Conv2d(3, 8, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(8 * ((size - 1) // 2) ** 2, classes)
            )
        with torch.no_grad():
            net[3].weight.mul_(10 * scale)
        x = torch.randint(0, 256, (n, 3, size, size), generator=generator).float() / 255
        with torch.no_grad():
            y = net(x).argmax(1)
        return net, x, y, [f"sample-{place}" for place in range(n)]

    return make
