import dataclasses
import json
import socket

import pytest
import torch
from huggingface_hub import constants
from open_clip import SimpleTokenizer
from safetensors.torch import save_file

from apd_bench.backbones import catalog, configs, load
from apd_bench.backbones.towers import has_quick_gelu
from apd_bench.core.errors import CorruptFile, IncompatibleChoice, MissingPrerequisite
from apd_bench.core.files import file_digest
from apd_bench.core.specs import BackboneSpec

SMALL = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 16, "patch_size": 8, "width": 32, "layers": 2, "head_width": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}


@pytest.fixture
def small(tmp_path, monkeypatch):
    """An architecture `Small` (and `Small-quickgelu`) in a configuration folder of its own, with a model of it."""
    folder = tmp_path / "model_configs"
    folder.mkdir()
    (folder / "Small.json").write_text(json.dumps(SMALL))
    (folder / "Small-quickgelu.json").write_text(json.dumps(SMALL | {"quick_gelu": True}))
    configs.architectures()  # the real ones are cached before the folder is another
    monkeypatch.setattr(configs, "config_folder", lambda: folder)
    monkeypatch.setattr(configs, "architectures", lambda: ("Small", "Small-quickgelu"))
    monkeypatch.setattr(load, "tokenizer_of", lambda *_: SimpleTokenizer())
    return load.instantiate(SMALL, seed=5)


def opened(name):
    return load.load_backbone(catalog.resolve(name))


@pytest.mark.parametrize("form", ["state", "wrapped", "data_parallel", "safetensors", "half"])
def test_a_whole_checkpoint_loads_in_float32_whatever_its_form(form, small, tmp_path):
    state = {key: value.clone() for key, value in small.state_dict().items()}
    path = tmp_path / ("clip.safetensors" if form == "safetensors" else "clip.pt")
    content = {
        "state": state,
        "wrapped": {"epoch": 3, "state_dict": state},
        "data_parallel": {"state_dict": {f"module.{key}": value for key, value in state.items()}},
        "half": {key: value.half() for key, value in state.items()},
        "safetensors": state,
    }[form]
    (save_file if form == "safetensors" else torch.save)(content, path)
    backbone = opened(f"local:{path}@Small")
    assert backbone.digest == file_digest(path)
    for key, value in backbone.model.visual.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.allclose(value, small.visual.state_dict()[key], atol=1e-3 if form == "half" else 0)


@pytest.mark.parametrize("prefix", ["", "module.", "module.visual."])
def test_a_tecoa_image_tower_is_laid_over_its_base(prefix, small, tmp_path):
    path = tmp_path / "vitb32_eps4.pth.tar"
    tower = {prefix + key: value for key, value in small.visual.state_dict().items()}
    torch.save({"epoch": 10, "best_acc1": 0.3, "vision_encoder_state_dict": tower}, path)
    base = opened("Small/random")
    backbone = opened(f"local-robust:{path}@Small/random")
    assert backbone.spec.training == "robust"
    assert torch.equal(backbone.model.visual.proj, small.visual.proj)
    assert torch.equal(backbone.model.token_embedding.weight, base.model.token_embedding.weight)
    with pytest.raises(IncompatibleChoice, match="holds an image tower only"):
        opened(f"local:{path}@Small")


def test_weights_of_another_architecture_are_refused_by_name(small, tmp_path):
    path = tmp_path / "other.pt"
    other = load.instantiate({**SMALL, "embed_dim": 24})
    torch.save(other.state_dict(), path)
    with pytest.raises(IncompatibleChoice, match=r"other.pt does not fit the architecture"):
        opened(f"local:{path}@Small")
    torch.save({"vision_encoder_state_dict": {"nothing": torch.zeros(1)}}, path)
    with pytest.raises(IncompatibleChoice, match=r"other.pt does not fit the architecture"):
        opened(f"local:{path}@Small/random")


def test_pickled_code_is_never_run(small, tmp_path):
    path = tmp_path / "evil.pt"
    marker = tmp_path / "ran"
    torch.save(_Evil(str(marker)), path)
    with pytest.raises(CorruptFile, match="cannot be read as weights"):
        opened(f"local:{path}@Small")
    assert not marker.exists()


class _Evil:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (open, (self.marker, "w"))


def test_a_torn_file_and_a_changed_file_are_named(small, tmp_path):
    path = tmp_path / "clip.safetensors"
    save_file({key: value.clone() for key, value in small.state_dict().items()}, path)
    spec = catalog.resolve(f"local:{path}@Small")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CorruptFile, match=r"clip.safetensors are damaged: SHA-256 .* expected"):
        load.load_backbone(spec)
    with pytest.raises(CorruptFile, match="cannot be read as weights"):
        opened(f"local:{path}@Small")


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_an_openai_archive_loads_and_needs_quick_gelu(small, tmp_path):
    path = tmp_path / "ViT-S.pt"
    torch.jit.save(torch.jit.script(load.instantiate(SMALL | {"quick_gelu": True}, seed=5)), path)
    backbone = opened(f"local:{path}@Small-quickgelu")
    assert torch.equal(backbone.model.visual.proj, small.visual.proj)
    with pytest.raises(IncompatibleChoice, match=r"weights of OpenAI, trained with quick_gelu.*-quickgelu"):
        opened(f"local:{path}@Small")
    state = load.instantiate(SMALL | {"quick_gelu": True}, seed=5).state_dict()
    sizes = dict.fromkeys(("input_resolution", "context_length", "vocab_size"), torch.tensor(9))
    torch.save({**state, **sizes}, path)
    assert torch.equal(opened(f"local:{path}@Small-quickgelu").model.visual.proj, small.visual.proj)
    with pytest.raises(IncompatibleChoice, match=r"weights of OpenAI, trained with quick_gelu.*-quickgelu"):
        opened(f"local:{path}@Small")


def test_a_checkpoint_under_a_wrong_architecture_gets_the_right_one(tmp_path):
    path = tmp_path / "clip.pt"
    torch.save(load.instantiate(configs.model_config("ViT-S-16")).state_dict(), path)
    for architecture in ("RN50", "coca_ViT-B-32", "ViT-B-16-SigLIP", "ViT-S-32"):
        with pytest.raises(IncompatibleChoice, match=r"It looks like ViT-S-16.* local:.*clip.pt@ViT-S-16"):
            opened(f"local:{path}@{architecture}")


def test_an_activation_that_the_architecture_lacks_is_refused(small):
    spec = dataclasses.replace(catalog.resolve("Small/random"), activation="quick_gelu")
    with pytest.raises(IncompatibleChoice, match="asks for quick_gelu; Small has gelu"):
        load.load_backbone(spec)


def test_random_weights_are_the_same_every_time_and_leave_the_seed_alone(small):
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    one, two = (opened("Small/random") for _ in range(2))
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(one.model.visual.proj, two.model.visual.proj)


def test_a_hub_repository_brings_its_own_configuration_and_statistics(small, tmp_path, monkeypatch):
    content = {"model_cfg": SMALL | {"quick_gelu": True}, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(content))
    torch.save(small.state_dict(), tmp_path / "open_clip_pytorch_model.bin")
    monkeypatch.setattr(load, "hub_file", lambda repository, names: tmp_path / names[-1])
    backbone = opened("hf-hub:someone/clip")
    assert has_quick_gelu(backbone.model)
    assert backbone.shapes.image_size == 16
    assert backbone.scale.flatten().tolist() == [2.0] * 3
    assert backbone.digest == file_digest(tmp_path / "open_clip_pytorch_model.bin")
    (tmp_path / "open_clip_config.json").write_text("{}")
    with pytest.raises(CorruptFile, match=r"open_clip_config.json of someone/clip has no model_cfg"):
        opened("hf-hub:someone/clip")


@pytest.fixture
def no_socket(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "APD_BENCH_OFFLINE"])
@pytest.mark.parametrize(
    "name", ["ViT-B-16/laion2b_s34b_b88k", "hf-hub:chs20/FARE4-ViT-B-32-laion2B-s34B-b79K", "RN50-quickgelu/cc12m"]
)
def test_offline_no_socket_is_opened_and_the_message_says_what_to_do(name, variable, no_socket, monkeypatch, tmp_path):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv(variable, "1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(load, "instantiate", lambda *_: pytest.fail("the weights come first"))
    with pytest.raises(MissingPrerequisite, match=r"the network is switched off.*(hf download|Download https)"):
        opened(name)


class TestEmbedded:
    @pytest.fixture
    def models(self, tmp_path, monkeypatch):
        """A folder of embedded models with one weight file and its card."""
        monkeypatch.setattr(configs, "embedded_path", lambda name: tmp_path / name)
        monkeypatch.setattr(load, "embedded_path", lambda name: tmp_path / name)
        monkeypatch.setattr(load, "tokenizer_of", lambda *_: SimpleTokenizer())
        (tmp_path / "tiny.json").write_text(json.dumps(SMALL))
        state = {key: value.half() for key, value in load.instantiate(SMALL, seed=9).state_dict().items()}
        save_file(state, tmp_path / "one.safetensors")
        card = {
            "sha256": file_digest(tmp_path / "one.safetensors"),
            "preprocess_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.25, 0.5, 1.0]},
        }
        (tmp_path / "one.json").write_text(json.dumps(card))
        return tmp_path

    SPEC = BackboneSpec(
        name="one", architecture="embedded:tiny", weights="embedded:one", activation="gelu", image_size=16
    )

    def test_half_precision_weights_become_float32_with_the_statistics_of_the_card(self, models):
        backbone = load.load_backbone(self.SPEC)
        assert {value.dtype for value in backbone.model.parameters()} == {torch.float32}
        assert backbone.scale.flatten().tolist() == [4.0, 2.0, 1.0]
        assert torch.allclose(backbone.shift.flatten(), torch.tensor([-2.0, -0.8, -0.3]))

    @pytest.mark.parametrize(("name", "content", "error", "message"), [
        ("one.safetensors", b"x", CorruptFile, "are damaged: SHA-256 .*Install it again: pip install"),
        ("one.safetensors", None, MissingPrerequisite, "are missing"),
        ("one.json", b"{", CorruptFile, "is not valid JSON"),
        ("one.json", b'{"sha256": "0"}', CorruptFile, "lacks 'preprocess_cfg'"),
        ("one.json", None, MissingPrerequisite, "is missing"),
    ])  # fmt: skip
    def test_damaged_and_missing_files_are_named_with_what_mends_them(self, models, name, content, error, message):
        (models / name).unlink()
        if content is not None:
            (models / name).write_bytes(content)
        with pytest.raises(error, match=f"{name} {message}"):
            load.load_backbone(self.SPEC)


@pytest.mark.parametrize("name", ["tiny-clean", "tiny-robust"])
def test_the_shipped_models_are_what_their_cards_say(name):
    spec = next(spec for spec in catalog.builtin() if spec.name == name)
    backbone = load.load_backbone(spec)
    assert backbone.digest == spec.digest is not None
    assert backbone.shapes.offers == set(spec.offers)
    assert (backbone.shapes.image_size, backbone.shapes.context_length) == (spec.image_size, 32) == (40, 32)
