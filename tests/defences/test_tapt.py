"""TAPT: one step of torch on entropy and statistics, by hand; what it keeps of the training images, and where."""

import pytest
import torch
from torch import nn

import apd_bench
from apd_bench.core.errors import IncompatibleChoice
from apd_bench.core.options import RunOptions
from apd_bench.defences.parse import make_defence
from apd_bench.defences.prompt_tuning import entropy
from apd_bench.defences.views import look
from apd_bench.runner.session import plan_of


def watched(classifier, x, tokens):
    """Logits, and what each block but the last gives, by hooks on open_clip's own modules' inputs."""
    blocks, seen = classifier.backbone.model.visual.transformer.resblocks, []
    norms = [block.ln_1.register_forward_pre_hook(lambda _, given: seen.append(given[0])) for block in blocks]
    try:
        z = classifier.scores(classifier.features(x, tokens))
    finally:
        for hook in norms:
            hook.remove()
    return z, seen


def test_it_keeps_means_and_variances_of_every_block_but_the_last_with_prompts_and_without(prompted, tiny):
    x = tiny[1][:30]
    defence = make_defence("tapt", prompted, lambda made: made.learn(torch.split(x, 7)))
    visual = prompted.backbone.model.visual
    outputs = []
    prompted.features(x, None, outputs)
    assert len(outputs) == len(visual.transformer.resblocks) - 1
    _, inputs = watched(prompted, x, None)
    # The input of a block is the output of the one before, but for the rows that a deep prompt replaces.
    for block, (output, following) in enumerate(zip(outputs, inputs[1:], strict=True)):
        torch.testing.assert_close(output[:, :-2], following[:, :-2])
        torch.testing.assert_close(defence.known["prompted.mean"][block], output.mean(0), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(defence.known["prompted.variance"][block], output.var(0), atol=1e-5, rtol=1e-3)
    _, plain = watched(prompted, x, x.new_empty(0))
    torch.testing.assert_close(defence.known["plain.mean"][0], plain[1].mean(0), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(defence.known["plain.variance"][1], plain[2].var(0), atol=1e-5, rtol=1e-3)


def test_it_is_one_step_of_torch_on_entropy_and_on_the_distance_of_the_statistics(prompted, tiny):
    x = tiny[1][:1]
    text = "tapt(views=8, share=0.4, rate=0.05, weight=3.0, blocks=2)"
    defence = make_defence(text, prompted, lambda made: made.learn([tiny[1][20:60]]))
    views = torch.cat([x, look(x, defence.drawn((1,), x))[0]])
    sure = views[entropy(prompted(views)).argsort()[:3]]
    P, outputs = nn.Parameter(prompted.visual_tokens.clone()), []
    p = prompted.scores(prompted.features(sure, P, outputs)).softmax(1).mean(0)
    loss = -p.dot(p.log())
    for block in range(2):
        mean, variance = outputs[block].mean(0), outputs[block].var(0, correction=0)
        for name in ("prompted", "plain"):
            μ, σ2 = defence.known[f"{name}.mean"][block], defence.known[f"{name}.variance"][block]
            A = nn.functional.l1_loss(mean[: len(μ)], μ) / 2 + nn.functional.l1_loss(variance[: len(μ)], σ2) / 2
            loss = loss + 3.0 * 0.5 * A
    loss.backward()
    torch.optim.AdamW([P], lr=0.05).step()
    with torch.no_grad():
        torch.testing.assert_close(defence(x, (1,)), prompted.scores(prompted.features(x, P)), atol=5e-3, rtol=0)


def test_without_a_step_it_is_the_model_and_what_it_cannot_tune_is_refused(prompted, tiny):
    defence = make_defence("tapt(views=3)", prompted, lambda made: made.learn([tiny[1][:9]]))
    defence.options["rate"] = 0.0
    with torch.no_grad():
        torch.testing.assert_close(defence(tiny[1][:3], (1,)), prompted(tiny[1][:3]), atol=1e-4, rtol=0)
    with pytest.raises(IncompatibleChoice, match="visual prompts"):
        make_defence("tapt", tiny[0], lambda made: {})
    with pytest.raises(IncompatibleChoice, match="trained on"):
        make_defence("tapt", prompted)


def test_in_a_matrix_the_statistics_are_stored_once_and_a_broken_file_is_made_anew(tmp_path):
    asked = {"methods": ("vpt", "zero_shot"), "datasets": ("food",), "attacks": ("fgsm",), "limit": 3, "shots": (1,),
             "defences": ("tapt(views=4)",), "settings": ("training.epochs=1",), "results": str(tmp_path)}  # fmt: skip
    assert any("zero_shot does not learn" in one.reason for one in plan_of(RunOptions(**asked)).impossible)
    records = apd_bench.run(**asked)
    record = next(one for one in records if one.cell.defence is not None and one.cell.attack.name == "fgsm")
    (path,) = tmp_path.glob("fits/*/known-tapt-*.safetensors")
    content = path.read_bytes()
    x = torch.rand(2, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = apd_bench.load_classifier(record, results=tmp_path)(x)
        path.write_bytes(b"broken")
        torch.testing.assert_close(apd_bench.load_classifier(record, results=tmp_path)(x), before)
    assert path.read_bytes() == content
