"""Whether a method and a backbone go together, decided before torch is imported."""

from collections.abc import Iterable
from typing import Any

from apd_bench.core.errors import IncompatibleChoice
from apd_bench.core.specs import BackboneSpec

VISUAL_TOKENS, TEXT_TOKENS, DEEP_TEXT, FRAME = "visual_tokens", "text_tokens", "deep_text", "frame"
ALL_OFFERS = (TEXT_TOKENS, DEEP_TEXT, VISUAL_TOKENS, FRAME)


def require(spec: BackboneSpec, needs: Iterable[str], *, by: str) -> None:
    """Raises IncompatibleChoice, with both lists, when `by` needs something that the backbone does not offer."""
    needed = sorted(needs)
    missing = [need for need in needed if need not in spec.offers]
    if missing:
        raise IncompatibleChoice(
            f"'{by}' needs {', '.join(needed)}; the backbone '{spec.name}' offers "
            f"{', '.join(sorted(spec.offers)) or 'no prompts'} and lacks {', '.join(missing)}.",
            hint="Choose a backbone with a plain vision transformer, such as tiny-clean or ViT-B-32-quickgelu/openai.",
        )


def offers_of(config: dict[str, Any]) -> tuple[str, ...]:
    """What an open_clip model configuration offers, read from the configuration alone.

    Visual tokens need open_clip's own vision transformer with class-token or mean pooling; text tokens need its own
    text transformer and byte-pair tokenizer, because the rows of the context must be known.
    """
    vision, text = config["vision_cfg"], config["text_cfg"]
    offers = [FRAME]
    plain_pool = not vision.get("attentional_pool") and vision.get("pool_type", "tok") in ("tok", "avg")
    if not vision.get("timm_model_name") and isinstance(vision.get("layers", 12), int) and plain_pool:
        offers.append(VISUAL_TOKENS)
    if not (text.get("hf_model_name") or text.get("hf_tokenizer_name") or text.get("embed_cls")):
        offers += [TEXT_TOKENS, DEEP_TEXT]
    return tuple(name for name in ALL_OFFERS if name in offers)
