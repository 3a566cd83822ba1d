"""Networks of any size with random weights, and what their arithmetic comes to."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from moshi.models import loaders
from moshi.models.compression import MimiModel
from moshi.models.lm import LMModel
from moshi.quantization.core_vq import EuclideanCodebook
from torch import nn

from extract.model import NUM_CODEBOOKS, NUM_STREAMS, FeatureModel, meta_lm

Config = Mapping[str, Any]  # Any: JSON values
_LAYER_SHARE = 0.3
"""Size of what a random layer adds, relative to what enters it: deep stacks stay finite."""


@dataclass(frozen=True)
class LmShape:
    """Sizes of a language model that its arithmetic depends on."""

    dim: int
    num_layers: int
    hidden: int
    """Inputs of a feed-forward block's second matrix."""
    kv_repeat: int
    window: int

    @classmethod
    def of(cls, config: Config) -> "LmShape":
        """Return the sizes of a configuration; moshi gates its feed-forward blocks."""
        dim, wanted = int(config["dim"]), int(config["hidden_scale"] * config["dim"])
        hidden = 21 * dim // 8 if wanted == 4 * dim else 2 * wanted // 3
        return cls(
            dim,
            int(config["num_layers"]),
            hidden,
            int(config.get("kv_repeat", 1)),
            int(config["context"]),
        )

    @property
    def matrices(self) -> tuple[tuple[int, int], ...]:
        """(inputs, outputs) of each matrix of a layer."""
        dim = self.dim
        qkv = dim + 2 * dim // self.kv_repeat
        return (dim, qkv), (dim, dim), (dim, 2 * self.hidden), (self.hidden, dim)

    def flops_per_frame(self, num_frames: int) -> float:
        """Return operations of a row-frame, the mean over a recording of this many frames.

        A multiplication and an addition count as two. Matrices: 2 * inputs * outputs. Attention:
        4 * dim for each key that the frame sees (query by key, weight by value): itself and those
        before it, `window` at most. What masked keys cost is not counted, nor embeddings and norms.
        """
        matrices = 2 * sum(inputs * outputs for inputs, outputs in self.matrices)
        full = min(num_frames, self.window)
        num_keys = (full * (full + 1) / 2 + (num_frames - full) * self.window) / num_frames
        return self.num_layers * (matrices + 4 * self.dim * num_keys)


@torch.no_grad()  # not inference mode, whose tensors cannot be moved to a device
def random_model(
    lm_config: Config, mimi_config: Config, *, device: torch.device, dtype: torch.dtype
) -> FeatureModel:
    """Return networks of these configurations with random weights, drawn on the device itself."""
    generator = torch.Generator(device).manual_seed(0)
    lm = _random_lm(lm_config, generator, dtype)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        mimi = loaders.get_mimi(None, dict(mimi_config), device=device, num_codebooks=NUM_CODEBOOKS)
    _fill_codebooks(mimi, generator)
    return FeatureModel(device, dtype, lm, mimi.eval().requires_grad_(False))


def _random_lm(config: Config, generator: torch.Generator, dtype: torch.dtype) -> LMModel:
    lm = meta_lm(
        config,
        dtype,
        dep_q=0,
        depformer_weights_per_step=False,
        depformer_weights_per_step_schedule=None,
        extra_heads_num_heads=0,
    )
    lm.text_linear = nn.Identity()  # type: ignore[assignment]  # the head of the text logits
    state = {
        name: _weight(name, tensor.shape, generator, dtype)
        for name, tensor in sorted(lm.state_dict().items())
    }
    lm.load_state_dict(state, assign=True)
    return lm.eval().requires_grad_(False)


def _weight(
    name: str, shape: torch.Size, generator: torch.Generator, dtype: torch.dtype
) -> torch.Tensor:
    if name.endswith(".alpha") or ".norm" in name:
        return torch.ones(shape, device=generator.device, dtype=dtype)
    spread = (NUM_STREAMS if "emb." in name else shape[-1]) ** -0.5
    if name.endswith(("out_projs.0.weight", "linear_out.weight")):
        spread *= _LAYER_SHARE
    weight = torch.randn(shape, generator=generator, device=generator.device, dtype=dtype)
    return weight.mul_(spread)


def _fill_codebooks(mimi: MimiModel, generator: torch.Generator) -> None:
    """Fill what moshi makes of zeros, and would make of its first input in training."""
    for book in mimi.modules():
        if isinstance(book, EuclideanCodebook):
            book.embedding_sum.normal_(generator=generator)
            book.cluster_usage.fill_(1.0)
            book._initialized.fill_(1.0)
