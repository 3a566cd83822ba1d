"""A small random Moshi checkpoint: the released files, names and streams at a few megabytes.

Out: a directory with config.json, model.safetensors, mimi.safetensors, mimi_config.json and
tokenizer.model, which moshi's own loaders read without a network. The weights are random, yet the
features are not noise: Mimi's filters and codebooks are fitted to synthetic sound (tiny_mimi.py),
so a linear head on the features can tell sounds apart.

Not a model of speech: it stands in for one in the demo and in tests.
"""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import sentencepiece
import torch
from safetensors.torch import save_file

from laughstore.errors import ConfigError
from laughstore.new_folder import new_folder

from ..model import NUM_CODEBOOKS, NUM_STREAMS, meta_lm
from .tiny_mimi import CODES_PER_BOOK, random_weight, write_tiny_mimi

Size = Literal["nano", "narrow", "wide"]

CONTEXT_FRAMES = 64
"""Attention window of the language model; the released one has 3,000."""
TEXT_PIECES = 400
"""Entries of the text vocabulary; the released one has 32,000."""


_LAYER_OUTPUTS = ("out_projs.0.weight", "linear_out.weight")
_LAYER_SHARE = 0.3
"""Size of what a layer adds, relative to what enters it: a random layer adds only a blur of the
past, and at 1 a linear head on the synthetic corpus loses a quarter of its average precision."""
_VOCABULARY = (
    "the and you know I think that was really so funny what when where because people time good "
    "great thank please welcome back to our show question answer yes no okay well hello"
)


@dataclass(frozen=True)
class _Shape:
    dim: int
    num_heads: int
    num_layers: int
    hidden: int
    kv_repeat: int
    """Query heads that share a key head; the released model has 1."""


_SHAPES: dict[Size, _Shape] = {
    "nano": _Shape(dim=64, num_heads=2, num_layers=2, hidden=96, kv_repeat=1),
    "narrow": _Shape(dim=512, num_heads=4, num_layers=2, hidden=384, kv_repeat=1),
    # Frames of the released size at the least arithmetic: one layer, one shared key head.
    "wide": _Shape(dim=4096, num_heads=32, num_layers=1, hidden=96, kv_repeat=32),
}


def write_tiny_checkpoint(out: Path, *, size: Size = "wide", seed: int = 0) -> Path:
    """Write a small random checkpoint and return its directory.

    Args:
        out: a directory that does not exist yet, or is empty.
        size: `nano` has features of 64 channels, `narrow` 512, `wide` 4096 as the released model.
        seed: at least 0; the same seed, size and machine give the same bytes.

    Raises:
        ConfigError: `out` is in use, or the size or seed is not one of those above.
    """
    if size not in get_args(Size):
        raise ConfigError(f"size {size!r} is not one of: {', '.join(get_args(Size))}")
    if seed < 0:
        raise ConfigError(f"seed is {seed}; it must be at least 0")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} exists and is not an empty directory: choose another name")
    # Two streams of numbers, so that every size has the same Mimi.
    lm_rng, mimi_rng = (
        np.random.Generator(np.random.Philox(child))
        for child in np.random.SeedSequence(seed).spawn(2)
    )
    with new_folder(out) as building:
        _write_lm(building, _SHAPES[size], lm_rng)
        write_tiny_mimi(building, mimi_rng)
        _write_tokenizer(building / "tokenizer.model")
    return out


def _lm_config(shape: _Shape) -> dict[str, Any]:  # Any: a JSON object
    """Return the released configuration with every size shrunk; streams and delays are real."""
    return {
        "dim": shape.dim,
        "text_card": TEXT_PIECES,
        "existing_text_padding_id": 3,
        "n_q": NUM_STREAMS - 1,
        "dep_q": NUM_CODEBOOKS,
        "card": CODES_PER_BOOK,
        "num_heads": shape.num_heads,
        "num_layers": shape.num_layers,
        "hidden_scale": shape.hidden / shape.dim,
        "kv_repeat": shape.kv_repeat,
        "causal": True,
        "layer_scale": None,
        "context": CONTEXT_FRAMES,
        "max_period": 10000,
        "gating": "silu",
        "norm": "rms_norm_f32",
        "positional_embedding": "rope",
        "depformer_dim": 16,
        "depformer_dim_feedforward": 48,
        "depformer_num_heads": 2,
        "depformer_num_layers": 1,
        "depformer_layer_scale": None,
        "depformer_multi_linear": True,
        "depformer_context": NUM_CODEBOOKS,
        "depformer_max_period": 10000,
        "depformer_gating": "silu",
        "depformer_kv_repeat": 1,
        "depformer_pos_emb": "none",
        "depformer_weights_per_step": True,
        # Acoustic codes enter one frame after the semantic code and the text.
        "delays": [0, *([0] + [1] * (NUM_CODEBOOKS - 1)) * 2],
    }


def _write_lm(folder: Path, shape: _Shape, rng: np.random.Generator) -> None:
    config = _lm_config(shape)
    lm = meta_lm(config, torch.bfloat16)
    state = {
        name: _lm_weight(name, tensor.shape, rng)
        for name, tensor in sorted(lm.state_dict().items())
    }
    save_file(_released_names(state), folder / "model.safetensors")
    names = {
        "model_type": "moshi",
        "moshi_name": "model.safetensors",
        "mimi_name": "mimi.safetensors",
        "mimi_config_name": "mimi_config.json",
        "tokenizer_name": "tokenizer.model",
    }
    text = json.dumps(config | names, indent=1) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")


def _lm_weight(name: str, shape: torch.Size, rng: np.random.Generator) -> torch.Tensor:
    # Embeddings of all streams are summed: each is a part of a sum of variance one.
    fan_in = NUM_STREAMS if "emb." in name else None
    weight = random_weight(name, shape, rng, fan_in=fan_in)
    if name.endswith(_LAYER_OUTPUTS):
        weight *= _LAYER_SHARE
    return weight.to(torch.bfloat16)


def _released_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename attention projections as in released files: steps joined in one `in_proj_weight`."""
    renamed: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        for projection, released in (
            ("in_projs", "in_proj_weight"),
            ("out_projs", "out_proj.weight"),
        ):
            prefix, found, step = name.partition(f"{projection}.")
            if found and step == "0.weight":
                steps = (f"{prefix}{projection}.{i}.weight" for i in range(len(state)))
                joined = [state[key] for key in steps if key in state]
                renamed[f"{prefix}{released}"] = torch.cat(joined)
            if found:
                break
        else:
            renamed[name] = tensor.contiguous()
    return renamed


def _write_tokenizer(path: Path) -> None:
    """Train a byte-pair vocabulary with the released ids: 0 unknown, 1 bos, 2 eos, 3 padding.

    Byte fallback and untouched white space make every text encodable, a line break too.
    """
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=_sentences(),
        model_writer=model,
        vocab_size=TEXT_PIECES,
        model_type="bpe",
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=3,
        byte_fallback=True,
        hard_vocab_limit=False,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    path.write_bytes(model.getvalue())


def _sentences() -> Iterator[str]:
    words = _VOCABULARY.split()
    for start in range(len(words)):
        yield " ".join(words[start:] + words[:start])
