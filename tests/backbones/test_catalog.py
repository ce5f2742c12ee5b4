from dataclasses import replace

import pytest
import torch

from apd_bench.backbones.catalog import builtin, resolve
from apd_bench.core.errors import IncompatibleChoice, MissingPrerequisite, UnknownName, UsageError
from apd_bench.core.identity import counted, digest
from apd_bench.core.registry import BACKBONES


def test_weights_go_with_the_activation_that_they_were_trained_with():
    with pytest.raises(IncompatibleChoice, match=r"trained with quick_gelu.* Use ViT-B-32-quickgelu/openai"):
        resolve("ViT-B-32/openai")
    assert resolve("ViT-B-32-quickgelu/openai").activation == "quick_gelu"
    assert resolve("ViT-B-16/datacomp_xl_s13b_b90k").activation == "gelu"
    with pytest.raises(IncompatibleChoice, match="Use ViT-B-16-quickgelu/dfn2b"):
        resolve("ViT-B-16/dfn2b")


def test_unknown_architectures_and_tags_get_the_nearest_name():
    with pytest.raises(UnknownName, match="Did you mean 'ViT-B-32'"):
        resolve("ViT-B-23/openai")
    with pytest.raises(UnknownName, match="Did you mean 'laion2b_s34b_b79k'"):
        resolve("ViT-B-32/laion2b_s34b_b97k")
    assert resolve("nothing") is None


@pytest.mark.parametrize(("name", "said"), [
    ("ViT-B/32", "Did you mean 'ViT-B-32-quickgelu/openai'?"),
    ("ViT-L/14@336px", "Did you mean 'ViT-L-14-336-quickgelu/openai'?"),
    ("vit-b-16", "Did you mean 'ViT-B-16-quickgelu/openai'?"),
    ("RN50/", "'RN50/' is an architecture without weights. Did you mean 'RN50-quickgelu/openai'?"),
    ("ViT-H-14", "is an architecture without weights. Write ViT-H-14/TAG with a tag of open_clip"),
    ("./file.pt", "such as local:./file.pt@ViT-B-16-quickgelu"),
    ("weights.safetensors", "such as local:weights.safetensors@"),
    ("~/clip", "is a file and no backbone's name"),
    (f"local:{__file__}@ViT-B/16", "Unknown architecture 'ViT-B/16'. Did you mean 'ViT-B-16'?"),
])  # fmt: skip
def test_a_file_openais_names_and_missing_weights_get_the_right_match(name, said):
    with pytest.raises(UnknownName) as caught:
        resolve(name)
    assert said in str(caught.value)


def test_robust_weights_are_marked_and_embedded_ones_have_both_names():
    trainings = {spec.name: spec.training for spec in builtin()}
    assert trainings["tiny-robust"] == trainings["hf-hub:chs20/FARE4-ViT-B-32-laion2B-s34B-b79K"] == "robust"
    assert trainings["tiny-clean"] == trainings["ViT-B-32-quickgelu/openai"] == "standard"
    assert BACKBONES.get("embedded:tiny-clean") is BACKBONES.get("tiny-clean")
    assert BACKBONES.get("tiny-clean").image_size == 40


def test_a_hub_name_or_local_name_that_is_incomplete_or_missing_is_explained(tmp_path):
    assert resolve("hf-hub:someone/clip").source == "https://huggingface.co/someone/clip"
    with pytest.raises(UsageError, match="hf-hub:ORGANISATION/NAME"):
        resolve("hf-hub:clip")
    with pytest.raises(UsageError, match="local:FILE@ARCHITECTURE"):
        resolve("local:clip.pt")
    with pytest.raises(MissingPrerequisite, match="does not exist"):
        resolve(f"local:{tmp_path}/none.pt@ViT-S-32")


def test_a_local_file_is_named_by_its_content_and_not_by_its_place(tmp_path):
    first, second = tmp_path / "a" / "clip.pt", tmp_path / "b" / "clip.pt"
    for path, value in ((first, 1), (second, 2)):
        path.parent.mkdir()
        torch.save({"value": torch.tensor(value)}, path)
    one, two = (resolve(f"local:{path}@ViT-S-32") for path in (first, second))
    moved = tmp_path / "clip.pt"
    moved.write_bytes(first.read_bytes())
    assert one.name.startswith("local:clip.pt@ViT-S-32#")
    assert digest(one) != digest(two)
    assert digest(one) == digest(resolve(f"local:{moved}@ViT-S-32"))
    assert str(tmp_path) not in repr(counted(one))
    assert resolve(f"local-robust:{first}@ViT-S-32").training == "robust"


def test_the_name_that_a_record_carries_can_be_typed_again(tmp_path, monkeypatch):
    monkeypatch.setenv("APD_BENCH_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "somewhere" / "clip.pt"
    path.parent.mkdir()
    path.write_bytes(b"weights")
    for kind in ("local", "local-robust"):
        spec = resolve(f"{kind}:{path}@ViT-S-32")
        assert spec.name.startswith(f"{kind}:clip.pt@ViT-S-32#") and resolve(spec.name) == replace(spec)
    path.write_bytes(b"other weights")
    with pytest.raises(MissingPrerequisite, match=r"No checkpoint clip.pt with a digest that begins with"):
        resolve(spec.name)
    renamed = tmp_path / "renamed.pt"
    renamed.write_bytes(b"weights")
    again = resolve(f"local-robust:{renamed}@ViT-S-32")
    assert resolve(spec.name).options["path"] == str(renamed) and digest(again) == digest(spec)
    monkeypatch.setenv("APD_BENCH_CACHE", "none")
    with pytest.raises(MissingPrerequisite, match="No checkpoint"):
        resolve(spec.name)
