"""Randomized smoothing (Cohen, Rosenfeld and Kolter, ICML 2019): the majority over Gaussian noise, with a certificate.

Code: locuslab/smoothing, code/core.py. Noise is added to pixels in [0, 1] and not clipped. The paper counts an
abstention as an error; here it is one class more, the last, which is nobody's label. The certificate holds where no
attack is needed: with probability 1 - α the majority is constant within the radius, though few samples may abstain.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.stats import beta, binom, norm
from torch import Tensor
from torch.nn.functional import one_hot

from apd_bench.core.errors import UsageError
from apd_bench.defences.base import Defence, Draw

ABSTAIN = -1  # the certified class of an image without a certificate
_AT_ONCE = 64  # noisy copies of an image in one pass


class Smoothed(Defence):
    """PREDICT: the class with most votes among `samples` noisy copies, or an abstention where its lead may be chance.

    Logits [B, K + 1] are log((votes + 1/2) / n), and for the abstention log(k / n), with k the fewest votes of which
    the two-sided test against the runner-up gives p <= `alpha`. Votes have no gradient; it is that of the logarithm of
    the mean softmax (Salman et al., NeurIPS 2019, SmoothAdv).
    """

    draws: ClassVar[bool] = True

    def prepare(self) -> None:
        """Checks the options and tabulates the fewest votes that win, by the votes of the first two."""
        n, α = self.whole("samples"), self.options["alpha"]
        self.whole("selection")
        self.whole("estimation", 0)
        if not 0 < α < 1 or not self.options["sigma"] > 0:
            raise UsageError(f"smoothed needs sigma > 0 and 0 < alpha < 1, not {self.options['sigma']} and {α}.")
        self.register_buffer("fewest", torch.tensor(binom.isf(α / 2, np.arange(n + 1), 0.5) + 1), persistent=False)

    @property
    def width(self) -> int:
        """Noisy copies in one pass."""
        return min(self.whole("samples"), _AT_ONCE)

    def noise(self, generator: torch.Generator, shape: torch.Size) -> int:
        """The seed of the noise, which is drawn in parts."""
        return int(torch.randint(2**62, (), generator=generator))

    def predict(self, x: Tensor, noise: int) -> Tensor:
        """Logits [B, K + 1], the last of the abstention."""
        n, soft = self.options["samples"], []

        def see(z: Tensor) -> None:
            if z.requires_grad:
                soft.append(z.log_softmax(2).logsumexp(1))

        votes = self._votes(x, noise, n, see)
        least = self.get_buffer("fewest").to(votes.device)[votes.topk(2, dim=1).values.sum(1)]
        logits = torch.cat([(votes + 0.5) / n, least[:, None] / n], dim=1).log().to(x)
        if soft:
            stand_in = torch.stack(soft).logsumexp(0)
            logits = torch.cat([logits[:, :-1] + (stand_in - stand_in.detach()), logits[:, -1:]], dim=1)
        return logits

    def certificate(self, x: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
        """CERTIFY: classes [B], ABSTAIN where there is none, and L2 radii [B] within which they stand, else 0.

        The class is guessed from `selection` copies; of `estimation` others, the Clopper-Pearson lower bound p of its
        share at confidence 1 - `alpha` gives the radius σ Φ⁻¹(p).
        """
        n, α = self.whole("estimation"), self.options["alpha"]
        with torch.no_grad():
            guess = self._votes(x, self.drawn((*draw, "selection"), x), self.options["selection"]).argmax(1)
            votes = self._votes(x, self.drawn((*draw, "estimation"), x), n).gather(1, guess[:, None]).squeeze(1)
        share = np.nan_to_num(beta.ppf(α, votes.cpu().numpy(), n - votes.cpu().numpy() + 1))  # no votes: share 0
        radius = torch.as_tensor(self.options["sigma"] * norm.ppf(share)).to(x.device)
        sure = torch.as_tensor(share >= 0.5).to(x.device)
        return guess.where(sure, torch.full_like(guess, ABSTAIN)), radius.where(sure, torch.zeros_like(radius))

    def facts(self, x: Tensor) -> Mapping[str, Tensor]:
        """Certified classes and radii of unchanged images, where `estimation` asks for them."""
        if not self.options["estimation"]:
            return {}
        return dict(zip(("certified_class", "certified_radius"), self.certificate(x, ("facts",)), strict=True))

    def _votes(self, x: Tensor, seed: int, count: int, see: Callable[[Tensor], Any] | None = None) -> Tensor:
        """How many of `count` noisy copies of each image are taken for each class [B, K]; `see` gets their logits."""
        votes: Tensor | int = 0
        for noise in self._parts(x, seed, count):
            z = self.logits((x[:, None] + noise).flatten(0, 1)).view(len(x), len(noise), -1)
            votes = votes + one_hot(z.argmax(2), z.shape[2]).sum(1)
            if see is not None:
                see(z)
        return torch.as_tensor(votes)

    def _parts(self, x: Tensor, seed: int, count: int) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        for low in range(0, count, _AT_ONCE):
            shape = (min(_AT_ONCE, count - low), *x.shape[1:])
            yield (self.options["sigma"] * torch.randn(shape, generator=generator)).to(x)
