"""Losses against values worked out by hand on two classes, where every probability is a fraction."""

import math

import pytest
import torch
import torch.nn.functional as F

from apd_bench.core.errors import UsageError
from apd_bench.methods.adversarial import AdversarialCrossEntropy
from apd_bench.methods.advpt import FeatureBank
from apd_bench.methods.advtp import PromptAttack
from apd_bench.methods.apd import Distillation
from apd_bench.methods.ce_mix import MixedCrossEntropy
from apd_bench.methods.clean import CleanCrossEntropy
from apd_bench.methods.fap import ConsistencyWithDifference
from apd_bench.methods.objective import Batch, kl, reverse_kl
from apd_bench.methods.recipes import load_recipe
from apd_bench.prompts.classifier import Output

CLEAN, ATTACKED = 0.0, 1.0
LN2 = math.log(2)
DIVERGENCE = math.log(2 / math.sqrt(3))  # KL of (1/2, 1/2) from (3/4, 1/4)


class Table:
    """A predictor that answers by the value of each image's first pixel: 0 is clean, 1 is attacked."""

    def __init__(self, clean, attacked, features=None):
        self.logits = {CLEAN: clean, ATTACKED: attacked}
        self.features = features or {CLEAN: [1.0, 0.0], ATTACKED: [1.0, 0.0]}
        self.text_features = torch.eye(2)

    def __call__(self, pixels):
        kinds = [float(value) for value in pixels[:, 0, 0, 0]]
        logits = torch.stack([torch.as_tensor(self.logits[kind]) for kind in kinds])
        return Output(logits, torch.tensor([self.features[kind] for kind in kinds]), self.text_features)


def batch(count):
    return Batch(torch.zeros(count, 3, 2, 2), torch.zeros(count, dtype=torch.long), ("a",) * count, torch.arange(count))


def attack(pixels, labels, **options):
    return torch.ones_like(pixels)


def logits(*probabilities):
    return torch.tensor(probabilities).log()


def total(terms):
    return sum(float(value) for name, value in terms.items() if not name.startswith("_"))


def test_kl_sums_over_classes_and_averages_over_nothing_else():
    target = torch.tensor([[0.5, 0.5], [0.75, 0.25]])
    other = logits([0.75, 0.25], [0.75, 0.25])
    torch.testing.assert_close(kl(target, other), torch.tensor([DIVERGENCE, 0.0]))
    unused = torch.full((1, 98), -60.0)
    padded = kl(torch.tensor([[0.5, 0.5] + [0.0] * 98]), torch.cat([logits([0.75, 0.25]), unused], 1))
    torch.testing.assert_close(padded, torch.tensor([DIVERGENCE]))
    one, other = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.75, 0.25]])
    torch.testing.assert_close(reverse_kl(one, other.log()), kl(other, one.log()))


WRONG, SURE, EVEN = logits(0.25, 0.75), logits(0.75, 0.25), logits(0.5, 0.5)
ADVERSARIAL = AdversarialCrossEntropy


@pytest.mark.parametrize(("objective", "clean", "attacked", "names", "expected"), [
    (CleanCrossEntropy(), WRONG, EVEN, None, 2 * LN2),
    (ADVERSARIAL(), WRONG, EVEN, ["ce_adversarial"], LN2),  # it never sees a clean image
    (ADVERSARIAL(loss="half"), WRONG, EVEN, None, (2 * 2 * LN2 + 3 * LN2) / 5),  # one mean over 2 clean, 3 attacked
    (ADVERSARIAL(loss="trades", beta=6.0), EVEN, SURE, None, LN2 + 6 * DIVERGENCE),  # of the attacked from the clean
    (MixedCrossEntropy(adversarial_weight=5.0), WRONG, EVEN, None, 2 * LN2 + 5 * LN2),
    (ConsistencyWithDifference(consistency_weight=1.0, difference=False), EVEN, SURE, None, LN2 + DIVERGENCE),
])  # fmt: skip
def test_losses_without_a_teacher_by_hand(objective, clean, attacked, names, expected):
    terms = objective(Table(clean, attacked), batch(5), attack, None)
    assert total(terms) == pytest.approx(expected)
    assert names is None or list(terms) == names


def test_trades_lets_gradients_through_the_clean_distribution():
    clean = torch.tensor([0.3, -0.3], requires_grad=True)
    student = Table(clean, logits(0.75, 0.25))
    terms = AdversarialCrossEntropy(loss="trades")(student, batch(2), attack, None)
    (gradient,) = torch.autograd.grad(terms["kl_adversarial"], clean)
    assert gradient.abs().min() > 0


def test_apd_default_by_hand():
    student = Table(logits(0.9, 0.1), logits(0.75, 0.25))
    teacher = Table(logits(0.5, 0.5), logits(0.01, 0.99))
    terms = Distillation()(student, batch(4), attack, teacher)
    assert float(terms["kl_adversarial"]) == pytest.approx(DIVERGENCE)  # of the student attacked from the teacher clean
    assert float(terms["teacher_ce"]) == pytest.approx(LN2)
    assert set(terms) == {"kl_adversarial", "teacher_ce"}


def test_rslad_and_ard_by_hand():
    student, teacher = Table(WRONG, SURE), Table(EVEN, EVEN)
    objective = Distillation(teacher="offline", adversarial_weight=5 / 6, clean_weight=1 / 6)
    terms = objective(student, batch(4), attack, teacher)
    assert float(terms["kl_adversarial"]) == pytest.approx(5 / 6 * DIVERGENCE)  # the same on both kinds, by symmetry
    assert float(terms["kl_clean"]) == pytest.approx(1 / 6 * DIVERGENCE)
    assert total(terms) == pytest.approx(DIVERGENCE)
    terms = Distillation(teacher="offline", label_weight=0.5, label_on="clean")(student, batch(2), attack, teacher)
    assert total(terms) == pytest.approx(0.5 * DIVERGENCE + 0.5 * 2 * LN2)


def test_the_temperature_softens_both_sides_and_is_squared_outside():
    student, teacher = Table(EVEN, logits(0.9, 0.1)), Table(EVEN, EVEN)
    soft = Distillation(teacher="offline", temperature=2.0)(student, batch(2), attack, teacher)
    softened = 3 / 4  # (0.9 / 0.1) ** 0.5 = 3
    divergence = 0.5 * math.log(0.5 / softened) + 0.5 * math.log(0.5 / (1 - softened))
    assert total(soft) == pytest.approx(4 * divergence)


@pytest.mark.parametrize(
    "options",
    [{"teacher": "onlin"}, {"direction": "back"}, {"temperature": 0.0}, {"teacher": "offline", "feedback": 1.0}],
)
def test_impossible_switches_are_refused(options):
    with pytest.raises(UsageError):
        Distillation(**options)


def test_fap_by_hand():
    # cos(z, z') = 0.6; CE of (1/2, 1/2) = ln 2
    student = Table(logits(0.5, 0.5), logits(0.75, 0.25), {0.0: [1.0, 0.0], 1.0: [0.6, 0.8]})
    terms = ConsistencyWithDifference(consistency_weight=1.5)(student, batch(4), attack, None)
    assert float(terms["ce_clean"]) == pytest.approx(LN2)
    assert float(terms["kl_adversarial"]) == pytest.approx(1.5 * 1.6 * DIVERGENCE)
    assert float(terms["_cosine"]) == pytest.approx(0.6)
    assert total(terms) == pytest.approx(LN2 + 2.4 * DIVERGENCE)


def test_fap_multiplies_per_sample_not_the_means():
    student = Table(logits(0.5, 0.5), logits(0.75, 0.25), {0.0: [1.0, 0.0], 1.0: [-1.0, 0.0]})

    def half(pixels, labels, **options):
        return torch.cat([torch.zeros_like(pixels[:2]), torch.ones_like(pixels[2:])])

    terms = ConsistencyWithDifference()(student, batch(4), half, None)
    assert float(terms["kl_adversarial"]) == pytest.approx(0.0)  # KL 0 where cos 1, and 1 + cos = 0 where KL > 0


def test_fap_attacks_the_kl_from_the_clean_prediction():
    seen = {}

    def spy(pixels, labels, **options):
        seen.update(options)
        return torch.ones_like(pixels)

    clean = torch.tensor([0.4, 0.1], requires_grad=True)
    ConsistencyWithDifference()(Table(clean, logits(0.75, 0.25)), batch(2), spy, None)
    torch.testing.assert_close(seen["target"], F.softmax(clean.detach(), 0).expand(2, 2))
    assert not seen["target"].requires_grad
    assert load_recipe("fap").inner_attack["loss"] == "kl"


def test_advpt_by_hand():
    # two stored features at 0 and 60 degrees from the text feature of class 0, scale 2
    objective = FeatureBank()
    objective._bank = torch.tensor([[1.0, 0.0], [0.5, math.sqrt(0.75)]])
    objective._scale = 2.0
    student = Table(logits(0.5, 0.5), logits(0.5, 0.5))  # text features: the unit vectors
    pixels = torch.zeros(2, 3, 2, 2)
    labels = torch.tensor([0, 0])
    terms = objective(student, Batch(pixels, labels, ("a", "b"), torch.tensor([1, 0])), attack, None)
    first = math.log(1 + math.exp(0 - 2))  # -log softmax((2, 0))_0
    second = math.log(1 + math.exp(2 * math.sqrt(0.75) - 1))  # -log softmax((1, 2 sqrt(3/4)))_0
    assert total(terms) == pytest.approx((first + second) / 2)


@pytest.mark.parametrize(
    ("objective", "said"),
    [(FeatureBank(), "bank was not made"), (PromptAttack(strategy="perturbed", prompt_step=0.1), "was not prepared")],
)
def test_what_has_to_be_prepared_says_so_where_it_was_not(objective, said):
    with pytest.raises(UsageError, match=said) as told:
        objective(Table(logits(0.5, 0.5), logits(0.5, 0.5)), batch(2), attack, None)
    assert "prepare(setting)" in told.value.hint
