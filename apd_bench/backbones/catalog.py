"""The backbones by name; torch-free.

Names: `tiny-clean`, `tiny-robust` (embedded); `ARCHITECTURE/TAG` of open_clip; `ARCHITECTURE/random` (seeded random
weights, for timing); `hf-hub:ORG/NAME`; `local:FILE@ARCHITECTURE` (a whole checkpoint) and
`local:FILE@ARCHITECTURE/TAG` (a TeCoA-style image tower, laid over the weights of TAG). `local-robust:` instead of
`local:` says that the weights were trained adversarially. Records add `#DIGEST`, by which the file is found again.
"""

from collections.abc import Iterable
from pathlib import Path

from apd_bench.backbones import configs
from apd_bench.backbones.configs import ALL_OFFERS, EMBEDDED, activation_of, image_size_of, model_config, offers_of
from apd_bench.core.cache import recall, remember
from apd_bench.core.errors import IncompatibleChoice, MissingPrerequisite, UsageError, unknown_name
from apd_bench.core.files import file_digest
from apd_bench.core.specs import BackboneSpec

RANDOM = "random"
HUB = "hf-hub:"
HUB_CONFIG = "open_clip_config.json"
LOCAL = {"local:": "standard", "local-robust:": "robust"}

_ZOO = (
    ("ViT-B-32-quickgelu", "openai", "MIT"),
    ("ViT-B-16-quickgelu", "openai", "MIT"),
    ("ViT-L-14-quickgelu", "openai", "MIT"),
    ("RN50-quickgelu", "openai", "MIT"),
    ("ViT-B-32", "laion2b_s34b_b79k", "MIT"),
    ("ViT-B-16", "laion2b_s34b_b88k", "MIT"),
)
# github.com/chs20/RobustVLM: image towers fine-tuned by FARE or TeCoA at eps N/255 (the digit in the name).
ROBUST_HUB = {
    "chs20/TeCoA4-ViT-B-32-laion2B-s34B-b79K": "ViT-B-32",
    "chs20/FARE4-ViT-B-32-laion2B-s34B-b79K": "ViT-B-32",
    "chs20/TeCoA4-ViT-B-16-laion2B-s34B-b88K": "ViT-B-16",
    "chs20/FARE4-ViT-B-16-laion2B-s34B-b88K": "ViT-B-16",
    "chs20/tecoa2-clip": "ViT-L-14",
    "chs20/fare2-clip": "ViT-L-14",
    "chs20/tecoa4-clip": "ViT-L-14",
    "chs20/fare4-clip": "ViT-L-14",
}


def builtin() -> Iterable[BackboneSpec]:
    """The embedded backbones, the usual CLIP weights, and the robust ones that the hub serves."""
    yield _embedded("tiny-clean", "standard", "Tiny CLIP, trained contrastively on icons and photographs")
    yield _embedded("tiny-robust", "robust", "Tiny CLIP, image tower fine-tuned adversarially (TeCoA)")
    for architecture, tag, licence in _ZOO:
        yield _tagged(architecture, tag, licence)
    for repository, architecture in ROBUST_HUB.items():
        yield _hub(repository, architecture, "robust")


def resolve(name: str) -> BackboneSpec | None:
    """The spec behind a name that the catalogue does not list; None when it is no backbone name at all."""
    if name.startswith(HUB):
        return _hub(name.removeprefix(HUB), None, "standard")
    for prefix, training in LOCAL.items():
        if name.startswith(prefix):
            return _local(name.removeprefix(prefix), training)
    architecture, _, tag = name.rpartition("/")
    if tag and model_config(architecture) is not None:
        return _tagged(architecture, tag)
    if (explained := configs.explain_name(name)) is not None:
        raise explained
    return _tagged(architecture, tag) if architecture and tag else None


def _embedded(name: str, training: str, title: str) -> BackboneSpec:
    card_path, config_path = configs.embedded_path(f"{name}.json"), configs.embedded_path("tiny.json")
    card = configs.read_json(card_path) if card_path.is_file() else {}
    config = model_config(f"{EMBEDDED}tiny") if config_path.is_file() else None
    return BackboneSpec(
        name=name,
        architecture=f"{EMBEDDED}tiny",
        weights=f"{EMBEDDED}{name}",
        activation=activation_of(config) if config else "gelu",
        training=training,
        digest=card.get("sha256"),
        image_size=image_size_of(config) if config else 40,
        offers=offers_of(config) if config else ALL_OFFERS,
        title=title,
        licence="Apache-2.0",
        source="apd_bench/embedded/CARD.md",
        aliases=(f"{EMBEDDED}{name}",),
    )


def _tagged(architecture: str, tag: str, licence: str = "") -> BackboneSpec:
    config = model_config(architecture)
    name = f"{architecture}/{tag}"
    if config is None:
        raise configs.unknown_architecture(architecture, tag)
    activation = activation_of(config)
    if tag != RANDOM and not licence:
        _check_activation(name, architecture, activation, tag)
    return BackboneSpec(
        name=name,
        architecture=architecture,
        weights=tag,
        activation=activation,
        image_size=image_size_of(config),
        offers=offers_of(config),
        title=f"open_clip {architecture}, " + ("random weights" if tag == RANDOM else f"weights {tag}"),
        licence=licence,
        source="https://github.com/mlfoundations/open_clip",
    )


def _check_activation(name: str, architecture: str, activation: str, tag: str) -> None:
    """Raises IncompatibleChoice when the weights of `tag` were trained with another activation.

    Reads open_clip's own table of weights (which imports torch), except for the tags whose answer is known here.
    """
    needed = "quick_gelu"
    if tag != "openai":
        from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

        entry = get_pretrained_cfg(architecture, tag)
        if not entry:
            known = list_pretrained_tags_by_model(architecture)
            raise unknown_name(f"weights of {architecture}", tag, [*known, RANDOM], command="apd-bench list backbones")
        needed = activation_of(entry)
    if needed != activation:
        right = architecture.removesuffix("-quickgelu") + ("-quickgelu" if needed == "quick_gelu" else "")
        raise IncompatibleChoice(
            f"'{name}': the weights '{tag}' were trained with {needed}, the architecture has {activation}.",
            hint=f"Use {right}/{tag}.",
        )


def _hub(repository: str, architecture: str | None, training: str) -> BackboneSpec:
    if repository.count("/") != 1 or repository.startswith("/") or repository.endswith("/"):
        raise UsageError(f"'{HUB}{repository}' is not a hub name.", hint=f"Write {HUB}ORGANISATION/NAME.")
    if architecture:
        config = model_config(architecture)
    else:  # that of a repository which was downloaded before; no network
        from huggingface_hub import try_to_load_from_cache

        path = try_to_load_from_cache(repository, HUB_CONFIG)
        config = configs.read_json(Path(path), repository).get("model_cfg") if isinstance(path, str) else None
    config = config or {"vision_cfg": {}, "text_cfg": {}}  # what most models have, until the weights are here
    return BackboneSpec(
        name=f"{HUB}{repository}",
        architecture=f"{HUB}{repository}",
        weights="hub",
        activation="as in the repository",
        training=training,
        image_size=image_size_of(config),
        offers=offers_of(config),
        title=f"Hub repository {repository}",
        source=f"https://huggingface.co/{repository}",
    )


def _local(text: str, training: str) -> BackboneSpec:
    file, at, architecture = text.rpartition("@")
    if not at or not file or not architecture:
        raise UsageError(
            f"'local:{text}' does not say what the file is.",
            hint="Write local:FILE@ARCHITECTURE or local:FILE@ARCHITECTURE/TAG.",
        )
    architecture, _, mark = architecture.partition("#")
    path, digest = _checkpoint(Path(file).expanduser(), mark)
    architecture, _, base = architecture.partition("/")
    spec = _tagged(architecture, base or RANDOM)
    over = f"/{base}" if base else ""
    prefix = next(prefix for prefix, kind in LOCAL.items() if kind == training)
    return BackboneSpec(
        name=f"{prefix}{path.name}@{architecture}{over}#{digest[:8]}",
        architecture=architecture,
        weights=f"image tower over {base}" if base else "file",
        activation=spec.activation,
        training=training,
        digest=digest,
        image_size=spec.image_size,
        offers=spec.offers,
        options={"path": str(path.resolve()), "base": base},
        title=f"{path.name} as {architecture}{over}",
        source=str(path),
    )


def _checkpoint(path: Path, mark: str) -> tuple[Path, str]:
    """The file and its digest, which begins with `mark`; what a record names is found where it was last named."""
    known = Path(recall(mark) or "") if mark else path
    for candidate in dict.fromkeys((path, known)):
        if candidate.is_file() and (digest := file_digest(candidate)).startswith(mark):
            remember(digest, str(candidate.resolve()))
            return candidate, digest
    if mark:
        raise MissingPrerequisite(
            f"No checkpoint {path.name} with a digest that begins with {mark} is known here.",
            hint="Say where it lies: local:PATH/FILE@ARCHITECTURE.",
        )
    raise MissingPrerequisite(
        f"The checkpoint {path} does not exist.", hint="Give the path of an open_clip checkpoint."
    )
