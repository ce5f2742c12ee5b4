"""Where the words and the placeholders of a prompt stand in the token sequence."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from apd_bench.core.errors import UsageError
from apd_bench.core.specs import one_of
from apd_bench.core.text import spoken

POSITIONS = ("end", "middle", "front")
PLACEHOLDER = "X"


@dataclass(frozen=True)
class PromptLayout:
    """Token ids [C, L] with room for n context vectors at `rows` [C, n] (None: rows 1 .. n)."""

    tokens: Tensor
    rows: Tensor | None


def encode_words(tokenizer: Any, text: str) -> list[int]:
    """The ids of `text` without start and end token."""
    ids: list[int] = tokenizer.encode(text) if text else []
    return ids


def check_length(tokenizer: Any, texts: Sequence[str], limit: int) -> None:
    """Raises UsageError for the first text that the context length would cut in silence."""
    for text in texts:
        length = len(encode_words(tokenizer, text)) + 2
        if length > limit:
            raise UsageError(
                f"The text '{text}' takes {length} tokens; the backbone reads {limit}.",
                hint="Shorten the class name or the template, or learn fewer context tokens.",
            )


def arrange(
    tokenizer: Any, tokens: Tensor, class_names: Sequence[str], length: int, position: str, head: str
) -> PromptLayout:
    """Moves the class name of `[SOS] head name suffix [EOS]` to `position` among the `length` context rows.

    As in CoOp: "middle" puts half of the vectors before the name and the rest behind it, "front" the name first.
    """
    one_of("Class position", position, POSITIONS)
    if position == "end" or length == 0:
        return PromptLayout(tokens, None)
    if len(encode_words(tokenizer, head)) != length:
        raise UsageError(
            f"With the class at the {position} the phrase '{head}' must have as many words as there are "
            f"context tokens ({length}).",
            hint="Change the phrase or the number of tokens, or put the class at the end.",
        )
    before = length // 2 if position == "middle" else 0
    source, rows = tokens.cpu(), torch.empty(len(tokens), length, dtype=torch.int64)
    arranged = source.clone()
    for index, name in enumerate(class_names):
        words = len(encode_words(tokenizer, spoken(name)))
        order = [*range(1, 1 + before), *range(1 + length, 1 + length + words), *range(1 + before, 1 + length)]
        arranged[index, 1 : 1 + length + words] = source[index, order]
        rows[index] = torch.tensor([*range(1, 1 + before), *range(1 + before + words, 1 + length + words)])
    return PromptLayout(arranged.to(tokens.device), rows.to(tokens.device))
