"""Checkpoints written in the layouts of the papers' code become prompt states that classify the same way."""

import argparse
import copy
import dataclasses
import io
import pickle
import shlex
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy, normalize

from apd_bench.backbones.slots import TextPrompts
from apd_bench.backbones.torchfile import read_torch
from apd_bench.cli import import_, main
from apd_bench.core.errors import CorruptFile, IncompatibleChoice, MissingPrerequisite, UsageError
from apd_bench.core.specs import MethodRecipe
from apd_bench.methods.recipes import load_recipe
from apd_bench.prompts.classifier import Classifier, PromptedModel
from apd_bench.training.fit import fit
from apd_bench.training.importers import PLAIN_TEXT, import_prompts
from apd_bench.training.prompt_states import build_learner, load_state, restore, save_state
from apd_bench.training.toy import toy_fit

PHRASE = "a photo of a"
LEARNERS = {  # what was written: (the format, our learner, its options)
    "coop": ("coop", "text", {"tokens": 3, "init": "random"}),
    "apt": ("apt", "text", {"tokens": 1, "init": "random"}),
    "cocoop": ("cocoop", "conditional", {"tokens": 4, "init": "random", "hidden": 2}),
    "vpt": ("vpt", "visual", {"tokens": 2, "depth": 2, "text": PLAIN_TEXT}),
    "ivlp": ("ivlp", "independent", {"text_depth": 3, "visual_depth": 2}),
    "ivlp-language": ("ivlp", "text", {"tokens": 2, "depth": 3, "init": PHRASE}),
    "ivlp-vision": ("ivlp", "visual", {"tokens": 2, "depth": 3, "text": PLAIN_TEXT}),
    "maple": ("maple", "coupled", {"tokens": 2, "depth": 3, "init": PHRASE}),
    "fap": ("fap", "fap", {"tokens": 2, "depth": 3, "init": "template-literal"}),
}


def learner_of(kind, backbone, data):
    """A learner of ours with values that half precision can hold."""
    _, learner, options = LEARNERS[kind]
    recipe = MethodRecipe(name="original", learner=learner, objective=None, learner_options=options)
    original = build_learner(recipe, backbone, data.classes, data.template, seed=3)
    with torch.no_grad():
        for parameter in original.parameters():
            parameter.copy_(parameter.half())
    return original


def written(kind, state):
    """The tensors of one of our learners under the names that the paper's code gives them."""
    tensors = {}
    if "context" in state:
        tensors["ctx"] = state["context"]
    if kind == "cocoop":
        for theirs, ours in (("linear1", "down"), ("linear2", "up")):
            tensors |= {f"meta_net.{theirs}.{name}": state[f"{ours}.{name}"][0] for name in ("weight", "bias")}
    if kind.startswith(("vpt", "ivlp")):
        for layer, rows in enumerate(state.get("tokens", ())):
            name = f"transformer.resblocks.{layer}.VPT_shallow" if layer else "VPT"
            tensors[f"image_encoder.{name}"] = rows
        for layer, rows in enumerate(state.get("deep", ()), start=1):
            tensors[f"text_encoder.transformer.resblocks.{layer}.VPT_shallow"] = rows
    if kind in ("maple", "fap"):
        tensors |= {"proj.weight": state["first.weight"][0], "proj.bias": state["first.bias"][0]}
        name, deep = ("text", "deep") if kind == "maple" else ("vision", "tokens")
        tensors |= {f"compound_prompts_{name}.{layer}": rows for layer, rows in enumerate(state[deep])}
        for layer, (weight, bias) in enumerate(zip(state["further.weight"], state["further.bias"], strict=True)):
            tensors[f"compound_prompt_projections.{layer}.weight"] = weight
            tensors[f"compound_prompt_projections.{layer}.bias"] = bias
    return OrderedDict((name, value.half()) for name, value in tensors.items())


class WarmUp(torch.optim.lr_scheduler.LRScheduler):
    """Dassl's warm-up: its dictionary holds the scheduler behind it, and that one its optimiser, as objects."""

    def __init__(self, optimizer, successor):
        self.successor, self.cons_lr = successor, 1e-5
        super().__init__(optimizer)

    def get_lr(self):
        return [self.cons_lr for _ in self.base_lrs]

    def step(self, epoch=None):
        self.successor.step() if self.last_epoch >= 1 else super().step()


def checkpoint(path, tensors, **how):
    """A file as Dassl's `save_checkpoint` leaves it after steps with momentum in and behind the warm-up."""
    parameter = torch.nn.Parameter(next(iter(tensors.values())).float())
    optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9, weight_decay=5e-4)
    scheduler = WarmUp(optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 5.0))
    for _ in range(3):
        optimizer.zero_grad()
        parameter.square().sum().backward()
        optimizer.step()
        scheduler.step()
    assert optimizer.state[parameter]["momentum_buffer"].any()
    content = {"state_dict": tensors, "epoch": 5, "optimizer": optimizer.state_dict()}
    torch.save(content | {"scheduler": scheduler.state_dict(), "val_result": np.float64(81.2)}, path, **how)
    return path


@pytest.fixture
def file(tmp_path):
    return tmp_path / "model.pth.tar-5"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", LEARNERS)
def test_imported_prompts_classify_like_the_ones_that_were_written(kind, backbone, data, file, tmp_path):
    original = learner_of(kind, backbone, data)
    tensors = written(kind, original.state())
    whole = {f"prompt_learner.{name}" if "encoder" not in name else name: value for name, value in tensors.items()}
    for name, value in backbone.model.visual.state_dict().items():  # the trainers of both towers save all of CLIP
        whole[f"image_encoder.{name}"] = value.half()
        whole[f"prompt_learner.ZS_image_encoder.{name}"] = value.half()  # PromptSRC's teacher
    whole |= {"prompt_learner.token_prefix": torch.zeros(4, 1, 24), "logit_scale": torch.tensor(4.6)}
    checkpoint(file, whole)
    state = import_prompts(file, LEARNERS[kind][0], backbone)
    save_state(tmp_path / "imported", state)
    carried = restore(load_state(tmp_path / "imported"), backbone, data.classes, data.template)
    pixels = data.test.pixels(range(4))
    ours, theirs = (Classifier.from_learner(backbone, learner)(pixels) for learner in (carried, original))
    assert torch.equal(ours, theirs)


META = ("meta_net.linear1.weight", "meta_net.linear1.bias")
FORMS = {
    "settings": lambda ctx: {"ctx": ctx, "args": argparse.Namespace(lr=0.1), "best": np.float64(1)},
    "bare": lambda ctx: {"ctx": ctx, "token_suffix": torch.zeros(4, 70, 24)},
    "tensor": lambda ctx: ctx,
    "parameter": lambda ctx: {"state_dict": {"ctx": torch.nn.Parameter(ctx)}},
    "compiled": lambda ctx: {"_orig_mod.prompt_learner.ctx": ctx, "opt": {"state": {0: {"exp_avg": ctx + 1}}}},
    "KgCoOp": lambda ctx: {
        "state_dict": {"ctx": ctx, "bias_vectors": ctx[:1], **dict.fromkeys(META, ctx)},
    },
    "data_parallel": lambda ctx: {"state_dict": {"module.prompt_learner.ctx": ctx}},
    "nested": lambda ctx: {"model": {"prompt_learner": {"ctx": ctx}}, "optimizer": {"state": {0: ctx + 1}}},
    "half": lambda ctx: {"state_dict": {"ctx": ctx.half()}},
    "bfloat16": lambda ctx: {"state_dict": {"ctx": ctx.bfloat16()}},
    "double": lambda ctx: {"state_dict": {"ctx": ctx.double()}},
    "view": lambda ctx: {"ctx": torch.cat([ctx, ctx + 1], dim=1)[:, :24]},
}


@pytest.mark.parametrize("form", FORMS)
def test_a_context_is_read_in_every_form_that_it_is_saved_in(form, backbone, file):
    context = torch.randn(2, 24, generator=torch.Generator().manual_seed(1)).bfloat16().half().float()
    torch.save(FORMS[form](context), file)
    assert torch.equal(import_prompts(file, "coop", backbone).state["context"], context)


def test_safetensors_are_read_and_what_a_torch_before_1_6_wrote_is_refused(backbone, tmp_path, file):
    context = torch.randn(2, 24)
    save_file({"prompt_learner.ctx": context}, tmp_path / "prompt.safetensors")
    assert torch.equal(import_prompts(tmp_path / "prompt.safetensors", "coop", backbone).state["context"], context)
    torch.save({"prompt_learner.ctx": torch.zeros(2, 24)}, file, _use_new_zipfile_serialization=False)
    with pytest.raises(CorruptFile, match=r"a torch before 1\.6 .* save it again"):
        import_prompts(file, "coop", backbone)


@pytest.mark.parametrize(
    "content", [b"", b"no header", (10**12).to_bytes(8, "little") + b"{}", b"\2" + bytes(7) + b"{]"]
)
def test_what_is_no_safetensors_file_gets_one_sentence(content, backbone, tmp_path):
    path = tmp_path / "prompt.safetensors"
    path.write_bytes(content)
    with pytest.raises(CorruptFile, match="cannot be read as weights"):
        import_prompts(path, "coop", backbone)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("claimed", ["coop", "cocoop", "vpt", "ivlp", "maple", "fap"])
@pytest.mark.parametrize("kind", ["coop", "cocoop", "vpt", "ivlp", "maple", "fap"])
def test_no_learned_tensor_is_left_out_in_silence(kind, claimed, backbone, data, file):
    if claimed == kind or (kind, claimed) in (("coop", "ivlp"), ("vpt", "ivlp")):  # one tower is an IVLP too
        return
    torch.save(written(kind, learner_of(kind, backbone, data).state()), file)
    with pytest.raises(CorruptFile, match=f"It looks like {kind}: import it with --format {kind}"):
        import_prompts(file, claimed, backbone)


@pytest.mark.parametrize(("tensors", "message"), [
    ({"text_prompt": (24, 24), "img_prompt": (24, 32)}, "RPO, whose read-only prompts"),
    ({"ctx": (2, 24), "bias": (24,)}, "learned tensors that 'coop' does not read: bias"),
    ({"ctx": (2, 32)}, "vectors of 32 numbers; the text tower of 'toy' has 24"),
    ({"ctx": (2,)}, r"has the shape \[2\]"),
    ({"ctx": (0, 24)}, r"has the shape \[0, 24\]"),
    ({"ctx": (3, 2, 24), "token_prefix": (12, 1, 24)}, "3 contexts for 12 class texts.*PLOT"),
    ({"ctx": (80, 24)}, "takes 8[0-9] tokens"),
    ({"ctx": (3, 2, 24)}, "for 3 classes, and whose they are does not stand in it"),
    ({"ctx": (2, 24), "image_encoder.conv1.weight": (32, 3, 4, 4)}, r"another backbone: .*\[32, 3, 4, 4\]"),
    ({"ctx": (2, 24), "image_encoder.conv1.weight": (32, 3, 8, 8)}, "trained on another backbone: .* other values"),
])  # fmt: skip
def test_what_does_not_fit_is_named_in_one_sentence(tensors, message, backbone, file):
    torch.save({name: torch.ones(shape) for name, shape in tensors.items()}, file)
    with pytest.raises((CorruptFile, IncompatibleChoice, UsageError), match=message):
        import_prompts(file, "coop", backbone)


def test_prompts_of_more_blocks_than_the_tower_has_are_refused(backbone, file):
    names = ["image_encoder.VPT", *(f"image_encoder.transformer.resblocks.{layer}.VPT_shallow" for layer in (1, 2, 3))]
    torch.save({name: torch.ones(2, 32) for name in names}, file)
    with pytest.raises(IncompatibleChoice, match="prompts for 4 blocks; the image tower of 'toy' has 3"):
        import_prompts(file, "vpt", backbone)
    torch.save({name: torch.ones(2 + ("1.VPT" in name), 32) for name in names}, file)
    with pytest.raises(CorruptFile, match=r"has the shape \[3, 32\]; those before it have \[2, 32\]"):
        import_prompts(file, "vpt", backbone)
    torch.save({name: torch.ones(2, 32) for name in names if "1.VPT" not in name}, file)
    with pytest.raises(CorruptFile, match=r"blocks \[2, 3\], with a gap"):
        import_prompts(file, "vpt", backbone)


class Evil:
    """Runs a command when it is unpickled."""

    def __reduce__(self):
        return (print, ("code ran",))


class Linear(torch.nn.Linear):
    pass


ZEROS = torch.zeros(2, 24)
BROKEN = {
    "it is empty": b"",
    "web page": b"\n<!DOCTYPE html><html></html>",
    "no file of torch.save": b"\x80\x04K\x01.",
    "torn, or no file": b"PK\x03\x04 torn",
    "whole pickled object": Linear(2, 2),
    "whole pickled object ": Evil(),
    "holds no tensors": [1, 2],
    "holds no tensors ": {"state_dict": {}},
    "an object of numpy, not a plain tensor": {"ctx": np.zeros((2, 24), np.float32)},
    "an object of __builtin__": {"ctx": Evil()},
    "'extra' in .* of torch, not a plain tensor": {"ctx": ZEROS, "extra": torch.ones(2, dtype=torch.complex64)},
    "'model' in .* of torch": {"ctx": ZEROS, "model": torch.nn.Linear(2, 2)},
    "'args' in .* of argparse": {"state_dict": {"ctx": ZEROS, "args": argparse.Namespace()}},
    "3 of 48 numbers of 'ctx'": {"ctx": torch.tensor([np.nan, np.inf, -np.inf, *[0.0] * 45]).view(2, 24)},
    "'scale' in .* is a single number": {"ctx": ZEROS, "scale": torch.tensor(1.0)},
    "whole numbers": {"ctx": torch.ones(2, 24, dtype=torch.int64)},
    "two tensors 'a.ctx'": {"a": {"ctx": ZEROS}, "a.ctx": ZEROS},
    "two tensors 'ctx'": {"ctx": ZEROS, "prompt_learner.ctx": ZEROS},
}


@pytest.mark.parametrize("message", BROKEN)
def test_what_is_no_checkpoint_gets_one_sentence_and_runs_nothing(message, backbone, file, capsys):
    content = BROKEN[message]
    file.write_bytes(content) if isinstance(content, bytes) else torch.save(content, file)
    with pytest.raises(CorruptFile, match=message.strip()) as refused:
        import_prompts(file, "coop", backbone)
    assert "weights_only" not in str(refused.value)
    assert "code ran" not in capsys.readouterr().out


def archive(file, pickled, size):
    """An archive of `torch.save` with this pickle and one storage of `size` bytes."""
    with zipfile.ZipFile(file, "w") as members:
        members.writestr("a/data.pkl", pickled)
        members.writestr("a/data/0", bytes(size))


def tensor_pickle(count, offset, shape, strides):
    """The pickle of {"ctx": tensor} over a storage that claims `count` numbers."""

    class Stand:
        def __reduce__(self):
            return (torch._utils._rebuild_tensor_v2, (Stored(), offset, shape, strides, False, OrderedDict()))

    class Stored:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return ("storage", torch.FloatStorage, "0", "cpu", count) if isinstance(value, Stored) else None

    stream = io.BytesIO()
    Pickler(stream, 2).dump({"ctx": Stand()})
    return stream.getvalue()


@pytest.mark.parametrize(("count", "offset", "shape", "strides"), [
    (10**9, 0, (2, 24), (24, 1)),
    (48, 0, (10**5, 10**5), (0, 0)),
    (48, 1, (2, 24), (24, 1)),
    (48, 0, (2, 24), (48, 1)),
    (48, -8, (2, 24), (24, 1)),
    (48, 0, (2, 24), (24,)),
    (-1, 0, (2, 24), (24, 1)),
])  # fmt: skip
def test_no_tensor_is_larger_than_its_bytes(count, offset, shape, strides, file):
    archive(file, tensor_pickle(48, 0, (2, 24), (24, 1)), 192)
    assert read_torch(file)["ctx"].read().shape == (2, 24)
    archive(file, tensor_pickle(count, offset, shape, strides), 192)
    with pytest.raises(CorruptFile, match="cannot be read as weights"):
        read_torch(file)


def test_damaged_files_end_in_one_sentence(backbone, file):
    checkpoint(file, {"ctx": torch.randn(2, 24)})
    sound, draw, refused = file.read_bytes(), np.random.default_rng(0), 0
    for _ in range(200):
        content = bytearray(sound)
        for place in draw.integers(0, len(content), draw.integers(1, 8)):
            content[place] = draw.integers(0, 256)
        file.write_bytes(content[: len(content) if draw.random() < 0.8 else draw.integers(0, len(content))])
        try:
            import_prompts(file, "coop", backbone)
        except (CorruptFile, IncompatibleChoice, UsageError) as error:
            refused += 1
            assert "\n" not in error.message and "Traceback" not in error.message and str(file) in error.message
    assert 50 < refused < 200  # in the others a number of the prompt changed, which no reader can know


def test_a_pickle_cannot_change_what_reads_it(file):
    state = b"c__main__\nx\n"  # BUILD on the rebuild function with slots to set: defaults, code, anything
    pickled = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nN}X\x0c\x00\x00\x00__defaults__" + state + b"s\x86b."
    archive(file, pickled, 4)
    read_torch(file)
    archive(file, tensor_pickle(1, 0, (1,), (1,)), 4)
    assert read_torch(file)["ctx"].read().tolist() == [0.0]


def test_class_wise_context_goes_with_its_class_names(backbone, data, file):
    checkpoint(file, {"ctx": torch.randn(4, 2, 24)})
    state = import_prompts(file, "coop", backbone, classes=data.classes)
    assert restore(state, backbone, data.classes[1:3]).class_names == data.classes[1:3]
    with pytest.raises(UsageError, match=r"8 class names were given.*one half of a base-to-new split"):
        import_prompts(file, "coop", backbone, classes=[f"class {number}" for number in range(8)])


def test_names_are_held_against_the_word_embeddings_in_the_file(backbone, data, file):
    texts = backbone.tokenize([f"X X {name.replace('_', ' ')}." for name in data.classes])
    words = backbone.embed_tokens(texts).half()
    tensors = {"ctx": torch.randn(4, 2, 24), "token_prefix": words[:, :1], "token_suffix": words[:, 3:]}
    checkpoint(file, tensors)
    assert import_prompts(file, "coop", backbone, classes=data.classes).card["warnings"] == []
    with pytest.raises(UsageError, match=f"another name in the place of '{data.classes[3]}'"):
        import_prompts(file, "coop", backbone, classes=data.classes[::-1])
    checkpoint(file, tensors | {"token_prefix": words[:, :1] + 1})
    (remark,) = import_prompts(file, "coop", backbone, classes=data.classes[::-1]).card["warnings"]
    assert "start token in the file is not that of 'toy'" in remark


def test_prompts_on_another_backbone_are_said_to_be_carried_there(backbone, data, file, tmp_path):
    checkpoint(file, {"ctx": torch.randn(2, 24)})
    save_state(tmp_path / "a", import_prompts(file, "coop", backbone))
    asked = toy_fit(load_recipe(str(tmp_path / "a")), backbone, data)
    assert "carried_from" not in fit(asked, backbone, data).card
    other = copy.copy(backbone)
    other.spec = dataclasses.replace(backbone.spec, name="another", digest="another")
    assert fit(asked, other, data).card["carried_from"] == "toy"


def test_vpt_reads_its_own_text_whatever_the_set(backbone, data, file):
    torch.save(written("vpt", learner_of("vpt", backbone, data).state()), file)
    own, of_the_set = (restore(import_prompts(file, "vpt", backbone, text=text), backbone) for text in (None, ""))
    for learner in (own, of_the_set):
        learner.rebind(data.classes, "texture of a {}.")
    plain = backbone.tokenize([f"a photo of a {name.replace('_', ' ')}." for name in data.classes])
    assert torch.equal(own.texts(), plain)
    for option in ({"init": "a photo of a"}, {"position": "front"}):
        with pytest.raises(UsageError, match=f"--{next(iter(option))} means nothing .* learned no text"):
            import_prompts(file, "vpt", backbone, **option)
    assert not torch.equal(of_the_set.texts(), plain)


class TestCoCoOp:
    def learner(self, backbone, data):
        learner = learner_of("cocoop", backbone, data)
        with torch.no_grad():
            learner.up.weight.mul_(20)  # so that the image matters, through units that are not all off
            learner.down.bias.fill_(0.5)
        return learner

    def official(self, backbone, learner, pixels, *, through_text=True):
        """The loop over the images of CoCoOp's code; without `through_text` its text is cut off from the pixels."""
        down, up, logits = learner.down, learner.up, []
        for z in normalize(backbone.encode_image(pixels), dim=-1):
            seen = z if through_text else z.detach()
            bias = up.weight[0] @ (down.weight[0] @ seen + down.bias[0]).relu() + up.bias[0]
            text = backbone.encode_text(learner.texts(), TextPrompts(context=learner.context + bias))
            logits.append(backbone.logit_scale * z @ normalize(text, dim=-1).T)
        return torch.stack(logits)

    def test_logits_and_the_attacks_gradient_are_those_of_the_official_loop(self, backbone, data):
        learner = self.learner(backbone, data)
        pixels, labels = data.test.pixels(range(3)).requires_grad_(True), data.test.labels[:3]
        model = Classifier.from_learner(backbone, learner)
        logits = [model(pixels), *(self.official(backbone, learner, pixels, through_text=on) for on in (True, False))]
        ours, official, cut = (torch.autograd.grad(cross_entropy(value, labels), pixels)[0] for value in logits)
        assert torch.allclose(logits[0], logits[1], atol=1e-4)
        assert torch.allclose(ours, official, atol=1e-6 + 1e-4 * official.abs().max())
        assert (official - cut).abs().max() > 1000 * (ours - official).abs().max()

    def test_it_is_not_trained_here(self, backbone, data):
        with pytest.raises(IncompatibleChoice, match="evaluated here, not trained"):
            PromptedModel(backbone, self.learner(backbone, data)).bind()


class TestVerb:
    @pytest.fixture
    def call(self, backbone, monkeypatch):
        monkeypatch.setattr("apd_bench.backbones.load.load_backbone", lambda spec: backbone)
        parser = argparse.ArgumentParser()
        import_.add_arguments(parser)
        return lambda *words: import_.execute(parser.parse_args([*map(str, words), "--backbone", "tiny-clean"]))

    def test_class_names_come_from_a_file_or_the_card_of_a_set(self, call, file, tmp_path, capsys):
        checkpoint(file, {"ctx": torch.randn(4, 2, 24)})
        names = tmp_path / "names.txt"
        names.write_bytes("\ufeffone\r\ntwo\r\n\r\nthree\r\ncafé\r\n".encode())
        out = tmp_path / "a folder"
        assert call("--format", "apt", file, "--classes", names, "--output", out) == 0
        assert f"--methods {shlex.quote(str(out))} --datasets SET" in capsys.readouterr().out
        assert load_state(out).card["classes"] == ["one", "two", "three", "café"]
        checkpoint(file, {"ctx": torch.randn(1000, 2, 24)})  # ImageNet's names need no image of it
        with pytest.raises(UsageError, match="another prompt state"):
            call("--format", "apt", file, "--dataset", "imagenet", "--output", out)
        out = tmp_path / "imagenet"
        assert call("--format", "apt", file, "--dataset", "imagenet", "--output", out) == 0
        assert load_state(out).card["classes"][:2] == ["tench", "goldfish"]
        assert "--datasets imagenet" in capsys.readouterr().out

    def test_what_is_missing_or_unreadable_is_named(self, call, file, tmp_path):
        with pytest.raises(MissingPrerequisite, match="no file"):
            call("--format", "coop", "nothing.pth.tar")
        checkpoint(file, {"ctx": torch.randn(2, 24)})
        with pytest.raises(MissingPrerequisite, match=f"In that folder lies '{file}'"):
            call("--format", "coop", tmp_path)
        names = tmp_path / "names.txt"
        names.write_bytes("café\n".encode("latin1"))
        with pytest.raises(CorruptFile, match=r"not UTF-8 text: line"):
            call("--format", "coop", file, "--classes", names)
        names.write_text("\n")
        with pytest.raises(CorruptFile, match="no class name"):
            call("--format", "coop", file, "--classes", names)
        with pytest.raises(UsageError, match="both name the classes"):
            call("--format", "coop", file, "--classes", names, "--dataset", "imagenet")

    @pytest.mark.filterwarnings("ignore")
    @pytest.mark.parametrize(("format", "shape"), [("vpt", (4, 128)), ("coop", (10, 4, 128)), ("cocoop", (4, 128))])
    def test_the_command_that_it_prints_measures_the_checkpoint(
        self, format, shape, file, tmp_path, monkeypatch, capsys
    ):
        tensors = {"image_encoder.VPT" if format == "vpt" else "ctx": torch.randn(shape) * 0.02}
        if format == "cocoop":
            sizes = {"linear1.weight": (8, 128), "linear1.bias": 8, "linear2.weight": (128, 8), "linear2.bias": 128}
            tensors |= {f"meta_net.{name}": torch.randn(size) * 0.1 for name, size in sizes.items()}
        checkpoint(file, tensors)
        monkeypatch.chdir(tmp_path)
        words = ["import", "--format", format, str(file), "--backbone", "tiny-clean", "--dataset", "fashion"]
        words += ["--output", f"my prompts, ({format})"]  # a path that a list of methods must not cut
        assert main(words) == 0
        line = capsys.readouterr().out.splitlines()[-1]
        command = shlex.split(line.removeprefix("Evaluate them: "))
        assert main(["plan", *command[2:]]) == 0
        assert ("runs the text tower for every image" in capsys.readouterr().err) == (format == "cocoop")
        quick = ["--limit", "2", "--attacks", "pgd(steps=2)", "--no-reference", "--display", "none"]
        assert main([*command[1:], *quick]) == 0
        board = (tmp_path / "leaderboards" / "embedded.csv").read_text()
        assert f"imported-{format}@" in board
