"""The tiny CLIP: open_clip's own class, its config file, its shortened tokenizer, and a shorter text pass."""

import gzip
import json
from pathlib import Path
from typing import Any

import torch
from open_clip import CLIP, SimpleTokenizer
from open_clip.tokenizer import default_bpe
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from apd_bench.core.package_data import package_path

MODELS = package_path("embedded", "models")
CONFIG: dict[str, Any] = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 40, "patch_size": 8, "width": 128, "layers": 4, "head_width": 32},
    "text_cfg": {"context_length": 32, "vocab_size": 4096, "width": 128, "heads": 4, "layers": 3},
}
MEAN = STD = 0.5
VOCABULARY = 4096
BPE = MODELS / "bpe_4096.txt.gz"


def write_config() -> None:
    """Writes `tiny.json` and the merges file: open_clip's own merges, cut to the vocabulary."""
    MODELS.mkdir(parents=True, exist_ok=True)
    (MODELS / "tiny.json").write_text(json.dumps(CONFIG, indent=2) + "\n", encoding="utf-8")
    lines = gzip.decompress(Path(default_bpe()).read_bytes()).decode("utf-8").split("\n")
    # 512 byte symbols, the merges, start and end of text; the first line is a version comment.
    kept = lines[: 1 + VOCABULARY - 512 - 2]
    BPE.write_bytes(gzip.compress("\n".join(kept).encode("utf-8"), mtime=0))


def build_model() -> CLIP:
    """A CLIP with fresh weights."""
    return CLIP(**CONFIG)


def tokenizer() -> SimpleTokenizer:
    """The tokenizer with 4,096 symbols."""
    return SimpleTokenizer(bpe_path=str(BPE), context_length=CONFIG["text_cfg"]["context_length"])


def normalise(pictures: Tensor) -> Tensor:
    """Pixels in [0, 1] to what the image tower expects."""
    return (pictures - MEAN) / STD


def image_features(model: CLIP, pictures: Tensor, *, half: bool = False) -> Tensor:
    """[B, 128] unit vectors of pictures in [0, 1]."""
    with torch.autocast(pictures.device.type, torch.bfloat16, enabled=half):
        features = model.encode_image(normalise(pictures))
    return F.normalize(features.float(), dim=-1)


def text_features(model: CLIP, tokens: Tensor) -> Tensor:
    """[B, 128] unit vectors; the same numbers as `encode_text`, without computing the padding."""
    end = tokens.argmax(-1)
    length = int(end.max()) + 1
    x = model.token_embedding(tokens[:, :length]) + model.positional_embedding[:length]
    x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:length, :length]))
    return F.normalize(x[torch.arange(len(x), device=x.device), end] @ model.text_projection, dim=-1)


def save_half(model: CLIP, path: Path) -> None:
    """Writes the weights as fp16 safetensors, complete or not at all."""
    state = {k: v.detach().half().cpu().contiguous().clone() for k, v in model.state_dict().items()}
    partial = path.with_suffix(".partial")
    save_file(state, str(partial), metadata={"format": "pt"})
    partial.replace(path)


def load_half(path: Path) -> CLIP:
    """The model of a weight file, in single precision, in evaluation mode."""
    model = build_model()
    model.load_state_dict({k: v.float() for k, v in load_file(str(path)).items()})
    return model.eval()
