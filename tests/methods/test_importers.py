"""Checkpoints written in the layouts of the papers' code become prompt states that classify the same way."""

import argparse
from collections import OrderedDict

import pytest
import torch

from apd_bench.classifier import PromptedModel
from apd_bench.cli import import_
from apd_bench.errors import CorruptFile, MissingPrerequisite, UsageError
from apd_bench.methods.importers import import_prompts, read_tensors
from apd_bench.methods.recipes import load_recipe
from apd_bench.methods.toy import toy_fit
from apd_bench.specs import MethodRecipe
from apd_bench.states import build_learner, load_state, restore, save_state
from apd_bench.training import fit

PHRASE = {"maple": "a photo of a", "fap": "template-literal"}
LEARNERS = {
    "coop": ("text", {"tokens": 3, "init": "random"}),
    "apt": ("text", {"tokens": 1, "init": "random"}),
    "vpt": ("visual", {"tokens": 2, "depth": 2}),
    "ivlp": ("independent", {"text_depth": 3, "visual_depth": 2}),
    "maple": ("coupled", {"tokens": 2, "depth": 3}),
    "fap": ("fap", {"tokens": 2, "depth": 3}),
}


def written(format, state, extra=True):
    """The tensors of one of our learners under the names that the paper's code gives them, in half precision."""
    tensors = OrderedDict()
    prefix = "" if format in ("coop", "apt") else "prompt_learner."
    if "context" in state:
        tensors[f"{prefix}ctx"] = state["context"]
    if format in ("vpt", "ivlp"):
        for layer, rows in enumerate(state["tokens"]):
            name = "VPT" if layer == 0 else f"transformer.resblocks.{layer}.VPT_shallow"
            tensors[f"image_encoder.{name}"] = rows
        for layer, rows in enumerate(state.get("deep", ()), start=1):
            tensors[f"text_encoder.transformer.resblocks.{layer}.VPT_shallow"] = rows
    if format in ("maple", "fap"):
        tensors["prompt_learner.proj.weight"] = state["first.weight"][0]
        tensors["prompt_learner.proj.bias"] = state["first.bias"][0]
        deep = "compound_prompts_text" if format == "maple" else "compound_prompts_vision"
        for layer, rows in enumerate(state["deep" if format == "maple" else "tokens"]):
            tensors[f"prompt_learner.{deep}.{layer}"] = rows
        for layer, (weight, bias) in enumerate(zip(state["further.weight"], state["further.bias"], strict=True)):
            tensors[f"prompt_learner.compound_prompt_projections.{layer}.weight"] = weight
            tensors[f"prompt_learner.compound_prompt_projections.{layer}.bias"] = bias
    if extra:  # what the files hold beside the prompts
        tensors[f"{prefix}token_prefix"] = torch.zeros(4, 1, 24)
        tensors[f"{prefix}token_suffix"] = torch.zeros(4, 5, 24)
        tensors["image_encoder.conv1.weight"] = torch.zeros(2, 2)
    return OrderedDict((name, value.half()) for name, value in tensors.items())


def checkpoint(path, tensors):
    """A file as Dassl's `save_checkpoint` leaves it: scheduler and optimiser objects beside the tensors."""
    parameter = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 5.0)
    warmup = {"warmup_epoch": 1, "cons_lr": 1e-5, "last_epoch": 5, "successor": scheduler}
    content = {"state_dict": tensors, "epoch": 5, "optimizer": optimizer.state_dict(), "scheduler": warmup}
    torch.save(content | {"val_result": None}, path)
    return path


@pytest.mark.parametrize("format", LEARNERS)
def test_imported_prompts_classify_like_the_ones_that_were_written(format, backbone, data, tmp_path):
    kind, options = LEARNERS[format]
    if format in PHRASE:
        options = options | {"init": PHRASE[format]}
    recipe = MethodRecipe(name="original", learner=kind, objective=None, learner_options=options)
    original = build_learner(recipe, backbone, data.classes, data.template, seed=3)
    with torch.no_grad():
        for parameter in original.parameters():
            parameter.copy_(parameter.half())
    path = checkpoint(tmp_path / "model.pth.tar-5", written(format, original.state()))
    state = import_prompts(path, format, backbone, template=data.template)
    save_state(tmp_path / "imported", state)
    carried = restore(load_state(tmp_path / "imported"), backbone, data.classes, data.template)
    pixels = data.test.pixels(range(4))
    with torch.no_grad():
        ours, theirs = (PromptedModel(backbone, learner).bind()(pixels).logits for learner in (carried, original))
    assert torch.equal(ours, theirs)


def test_an_imported_state_is_evaluated_like_a_method(backbone, data, tmp_path):
    context = torch.randn(4, 24).half()
    path = checkpoint(tmp_path / "model.pth.tar-5", {"ctx": context})
    save_state(tmp_path / "imported", import_prompts(path, "coop", backbone))
    recipe = load_recipe(str(tmp_path / "imported"))
    state = fit(toy_fit(recipe, backbone, data), backbone, data)
    assert torch.equal(state.state["context"], context.float())
    assert state.card["classes"] == list(data.classes)


def test_class_wise_context_needs_its_class_names(backbone, data, tmp_path):
    path = checkpoint(tmp_path / "model.pth.tar-5", {"ctx": torch.randn(4, 2, 24)})
    with pytest.raises(UsageError, match="4 classes"):
        import_prompts(path, "coop", backbone)
    state = import_prompts(path, "coop", backbone, classes=data.classes)
    assert restore(state, backbone, data.classes[1:3]).class_names == data.classes[1:3]


@pytest.mark.parametrize(
    ("format", "claimed"), [("maple", "fap"), ("fap", "maple"), ("coop", "maple"), ("vpt", "coop")]
)
def test_the_wrong_format_is_noticed(format, claimed, backbone, data, tmp_path):
    kind, options = LEARNERS[format]
    recipe = MethodRecipe(name="original", learner=kind, objective=None, learner_options=options)
    state = build_learner(recipe, backbone, data.classes, data.template).state()
    path = checkpoint(tmp_path / "model.pth.tar-5", written(format, state))
    with pytest.raises(CorruptFile):
        import_prompts(path, claimed, backbone)


class Evil:
    def __reduce__(self):
        return (print, ("code ran",))


@pytest.mark.parametrize("content", [{"state_dict": Evil()}, {"state_dict": {}}, [1, 2]])
def test_a_file_that_is_no_checkpoint_of_tensors_is_refused_and_runs_nothing(content, tmp_path, capsys):
    torch.save(content, tmp_path / "file.pth.tar")
    with pytest.raises(CorruptFile):
        read_tensors(tmp_path / "file.pth.tar")
    assert "code ran" not in capsys.readouterr().out


def test_a_torn_file_is_refused(tmp_path):
    (tmp_path / "file.pth.tar").write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(CorruptFile, match="cannot be read"):
        read_tensors(tmp_path / "file.pth.tar")


def test_the_verb_writes_a_state_and_says_how_to_evaluate_it(backbone, tmp_path, monkeypatch, capsys):
    path = checkpoint(tmp_path / "model.pth.tar-5", {"ctx": torch.randn(4, 2, 24)})
    names = tmp_path / "names.txt"
    names.write_text("one\ntwo\n\nthree\nfour\n")
    monkeypatch.setattr("apd_bench.backbones.load.load", lambda spec: backbone)
    parser = argparse.ArgumentParser()
    import_.add_arguments(parser)
    words = [str(path), "--format", "apt", "--backbone", "tiny-clean", "--classes", str(names)]
    assert import_.execute(parser.parse_args([*words, "--output", str(tmp_path / "out")])) == 0
    assert "--methods" in capsys.readouterr().out
    assert load_state(tmp_path / "out").card["classes"] == ["one", "two", "three", "four"]
    with pytest.raises(MissingPrerequisite, match="no file"):
        import_.execute(parser.parse_args(["nothing.pth.tar", *words[1:]]))
