"""AdvTP, alias APT: a text context tuned on adversarial images (Li et al., CVPR 2024, arXiv 2403.01849, section 3).

    min_v CE(f(x'; v), y),   x' = argmax_{B_eps(x)} CE(f(. ; v_attack), y)

The three strategies of the paper differ in the text prompt v_attack that the inner attack sees:
- `onfly`: the current learned prompt;
- `constant`: a hand-made prompt, fixed;
- `perturbed`: at each step the prompt moves too, by gradient ascent with the rate `prompt_step`; afterwards it is put
  back, and the update is made on the final x'. The only strategy whose attack calls the text tower.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from apd_bench.core.errors import UsageError
from apd_bench.core.specs import one_of
from apd_bench.methods.adversarial import AdversarialCrossEntropy
from apd_bench.methods.adversary import project, start
from apd_bench.methods.objective import Adversary, Batch, Predictor, Setting, Terms, cross_entropy

STRATEGIES = ("onfly", "constant", "perturbed")


@dataclass
class PromptAttack(AdversarialCrossEntropy):
    """`strategy` is "onfly", "constant" or "perturbed".

    `text` is the class text that `constant` attacks (empty: the set's template), `prompt_step` the ascent rate of the
    perturbed prompt.
    """

    strategy: str = "onfly"
    prompt_step: float = 0.0
    text: str = ""
    _setting: Setting | None = field(default=None, init=False, repr=False)
    _hand_made: Predictor | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("The strategy of advtp", self.strategy, STRATEGIES)
        if self.strategy == "perturbed" and self.prompt_step <= 0:
            raise UsageError("The perturbed strategy needs objective.prompt_step > 0.")

    def prepare(self, setting: Setting) -> None:
        """Binds the hand-made prompt for `constant`, keeps the model at hand for `perturbed`."""
        self._setting = setting
        if self.strategy == "constant":
            self._hand_made = setting.hand_made(self.text)

    def __call__(self, student: Predictor, batch: Batch, adversary: Adversary, teacher: Predictor | None) -> Terms:
        """The adversarial cross-entropy, with the attack made by the chosen strategy."""
        if self.strategy == "onfly":
            return super().__call__(student, batch, adversary, teacher)

        def attack(pixels: Tensor, labels: Tensor, **options: Any) -> Tensor:
            if self.strategy == "constant":
                return adversary(pixels, labels, against=self._hand_made, **options)
            return self._perturbed(pixels, labels)

        return super().__call__(student, batch, attack, teacher)

    def _perturbed(self, pixels: Tensor, labels: Tensor) -> Tensor:
        """Images [B, 3, H, W] after joint steps on image and prompt, both uphill on the cross-entropy."""
        setting = self._setting
        if setting is None:
            raise UsageError("The perturbed strategy was not prepared.", hint="Call prepare(setting) first.")
        if setting.eps == 0:
            return pixels
        options, eps = setting.inner_attack, setting.eps
        prompt = {n: p.detach().clone() for n, p in setting.model.named_parameters() if p.requires_grad}
        moved = start(pixels, eps, str(options["start"]), setting.generator)
        for _ in range(int(options["steps"])):
            moved = moved.detach().requires_grad_(True)
            prompt = {name: value.detach().requires_grad_(True) for name, value in prompt.items()}
            setting.count(len(pixels), 1, 1)
            with torch.enable_grad():
                bound = torch.func.functional_call(setting.model, prompt, ())
                loss = cross_entropy(bound(moved), labels)
            gradients = torch.autograd.grad(loss, [moved, *prompt.values()])
            moved = project(moved.detach() + float(options["step"]) * eps * gradients[0].sign(), pixels, eps)
            rises = zip(prompt.items(), gradients[1:], strict=True)
            prompt = {name: value + self.prompt_step * rise for (name, value), rise in rises}
        return moved.detach()
