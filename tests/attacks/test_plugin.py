"""An attack of one's own: from a file by name, held to the same contract, and refused in a sentence."""

import pytest
import torch

from apd_bench import attacks
from apd_bench.attacks.parse import parse_attack
from apd_bench.core.errors import UnknownName, UsageError
from apd_bench.core.specs import ThreatModel
from tests.pages import EXAMPLES

THREAT = ThreatModel(eps=4 / 255)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "own_attack.py"
    path.write_text(EXAMPLES["own_attack.py"])
    return path


def test_the_example_is_an_attack_like_any_other(small_net, file):
    net, x, y, ids = small_net(classes=5, n=12)
    spec = parse_attack(f"{file}:MI_FGSM(steps=20, mu=1)")
    assert spec.label == "mi-fgsm(steps=20)"
    result = attacks.run(spec, net, x, y, THREAT, ids)
    assert torch.equal(net(result.adversarials).argmax(1) != y, result.broken)
    assert (result.adversarials - x).abs().max() <= THREAT.eps + 1e-6
    one, fgsm = (attacks.run(text, net, x, y, THREAT, ids) for text in ("mi-fgsm(steps=1)", "fgsm"))
    assert torch.equal(one.adversarials, fgsm.adversarials)
    assert 0 < int(fgsm.broken.sum()) <= int(result.broken.sum()) < 12
    assert result.backwards < 20 * 12  # who is broken leaves
    with pytest.raises(UnknownName, match="option of mi-fgsm 'decay'"):
        parse_attack("mi-fgsm(decay=1)")


@pytest.mark.parametrize(("written", "said"), [
    ("def mine(search, *, steps): pass", "does not fit mine: missing a required argument: 'steps'"),
    ("def mine(model, pixels, labels): pass", "does not fit mine: missing a required argument"),
    ("mine = 3", "is a int, not a function"),
])  # fmt: skip
def test_a_function_that_does_not_fit_its_entry_is_one_sentence(written, said, small_net, tmp_path):
    net, x, y, ids = small_net(n=2)
    entry = "from apd_bench.attacks.catalog import AttackEntry\nMINE = AttackEntry('mine', f'{__name__}:mine', 'mine')"
    (tmp_path / "mine.py").write_text(f"{written}\n{entry}\n")
    with pytest.raises(UsageError) as caught:
        attacks.run(f"{tmp_path}/mine.py:MINE", net, x, y, THREAT, ids)
    assert said in str(caught.value)
