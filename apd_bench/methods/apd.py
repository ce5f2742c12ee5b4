"""APD, adversarial prompt distillation (Luo, Wang, Zi, Zhao, Ma, Jiang; arXiv 2411.15244; ICASSP 2026).

Established: prompts in both branches; a teacher CLIP that only ever sees clean images guides an adversarially tuned
student; online in the latest version. Inferred: every weight, the direction of the KL, the temperature, the schedule
(see `baselines/apd/CARD.md`). With `x'` the adversarial image, `q = softmax(f(x; P_T) / tau)` without gradient:

    teacher:  L_T = CE(f(x; P_T), y) + mu KL(sg p_S(x') || p_T(x))
    student:  L_S = a (1-b) tau^2 KL(q || p_S(x'; tau)) + b CE(f(x'; P_S), y) + g tau^2 KL(q || p_S(x; tau))

Both are updated in the same step from the same batch, each by its own optimiser; the teacher is dropped at inference.
RSLAD (Zi et al., ICCV 2021) is a = 5/6, g = 1/6 with the inner KL to the teacher; ARD (Goldblum et al., AAAI 2020) is
b = 1/2 with the label loss on clean images.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from apd_bench.core.errors import UsageError
from apd_bench.core.specs import one_of
from apd_bench.methods.objective import (
    TEACHERS,
    Adversary,
    Batch,
    Objective,
    Predictor,
    Terms,
    cross_entropy,
    kl,
    probabilities,
    reverse_kl,
)
from apd_bench.prompts.classifier import Output

DIRECTIONS = {"forward": kl, "reverse": reverse_kl}


@dataclass
class Distillation(Objective):
    """Adversarial distillation from a clean teacher; each switch of the method is one field.

    teacher            "online", "offline" (tuned on clean images before, then frozen) or "zero_shot" (the template)
    direction          "forward" KL(teacher || student) or "reverse"
    temperature        tau
    adversarial_weight a, on the distillation at x'
    label_weight       b, on the hard label
    label_on           where the hard label is asked for: "adversarial" (x') or "clean" (x)
    clean_weight       g, on the distillation at x
    feature_weight     on 1 - cos of teacher's and student's image features (of x and x')
    feedback           mu, the online teacher's pull towards the student
    """

    attacks: ClassVar[bool] = True

    teacher: str = "online"
    direction: str = "forward"
    temperature: float = 1.0
    adversarial_weight: float = 1.0
    label_weight: float = 0.0
    label_on: str = "adversarial"
    clean_weight: float = 0.0
    feature_weight: float = 0.0
    feedback: float = 0.0

    def __post_init__(self) -> None:
        one_of("The teacher of apd", self.teacher, TEACHERS)
        one_of("The direction of apd", self.direction, DIRECTIONS)
        one_of("label_on of apd", self.label_on, ("adversarial", "clean"))
        if self.temperature <= 0 or not 0 <= self.label_weight <= 1:
            raise UsageError(
                f"apd needs temperature > 0 and label_weight in [0, 1], got {self.temperature} and {self.label_weight}."
            )
        if self.feedback and self.teacher != "online":
            raise UsageError(f"A teacher of kind '{self.teacher}' is frozen and takes no feedback.")

    @property
    def teacher_kind(self) -> str:
        """The kind of teacher that the loop provides."""
        return self.teacher

    def __call__(self, student: Predictor, batch: Batch, adversary: Adversary, teacher: Predictor | None) -> Terms:
        """The student's terms, and the teacher's where it is online."""
        if teacher is None:
            raise UsageError("Distillation was called without a teacher.")
        taught = teacher(batch.pixels)
        target = probabilities(taught, self.temperature)
        attacked = adversary(batch.pixels, batch.labels, target=probabilities(taught))
        adversarial = student(attacked)
        asked = self.clean_weight > 0 or (self.label_weight > 0 and self.label_on == "clean")
        clean = student(batch.pixels) if asked else None
        terms = self._student_terms(adversarial, clean, taught, target, batch.labels)
        if self.teacher == "online":
            terms["teacher_ce"] = cross_entropy(taught, batch.labels)
            if self.feedback:
                terms["teacher_feedback"] = self.feedback * kl(probabilities(adversarial), taught.logits).mean()
        return terms

    def _student_terms(
        self, adversarial: Output, clean: Output | None, taught: Output, target: Tensor, labels: Tensor
    ) -> Terms:
        divergence, tau = DIRECTIONS[self.direction], self.temperature
        terms: Terms = {}
        soft_weight = self.adversarial_weight * (1 - self.label_weight) * tau**2
        if soft_weight:
            terms["kl_adversarial"] = soft_weight * divergence(target, adversarial.logits, tau).mean()
        if self.label_weight:
            labelled = clean if clean is not None and self.label_on == "clean" else adversarial
            terms[f"ce_{self.label_on}"] = self.label_weight * cross_entropy(labelled, labels)
        if self.clean_weight and clean is not None:
            terms["kl_clean"] = self.clean_weight * tau**2 * divergence(target, clean.logits, tau).mean()
        if self.feature_weight:
            cosine = (adversarial.image_features * taught.image_features.detach()).sum(dim=-1)
            terms["feature"] = self.feature_weight * (1 - cosine).mean()
        return terms
