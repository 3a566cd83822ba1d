"""Moshi and Mimi: from the files of a model to the two networks that features need.

In: `ModelFiles` (model_files.py; `resolve_model` is offered here too). Out: a `FeatureModel`, the
temporal transformer of Moshi and the encoder of Mimi. The depth transformer and the text head,
which predict tokens and play no part in features, are never read into memory (0.85 B of the 7.69 B
parameters of the released model).

Models are described by moshi's own loaders, so whatever loads there loads here; configurations
whose features would need more inputs than audio and text are refused.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from moshi.models import loaders
from moshi.models.compression import MimiModel
from moshi.models.lm import LMModel
from safetensors import SafetensorError, safe_open
from torch import nn
from torch.overrides import TorchFunctionMode

from laughstore.errors import ConfigError, CorruptData
from laughstore.timebase import SAMPLE_RATE, SAMPLES_PER_FRAME

from .model_files import ModelFiles, first_line, resolve_model

__all__ = [
    "NUM_CODEBOOKS",
    "NUM_STREAMS",
    "FeatureModel",
    "ModelFiles",
    "load_model",
    "meta_lm",
    "resolve_model",
]

logger = logging.getLogger(__name__)

NUM_CODEBOOKS = 8
"""Codes of a frame of one speaker: one semantic, seven acoustic (arXiv 2410.00037)."""
NUM_STREAMS = 1 + 2 * NUM_CODEBOOKS
"""Codes of a frame of Moshi's input: text of main, audio of main, audio of other."""

_FEATURE_KEYS = ("transformer.", "emb.", "text_emb.", "out_norm.")


@dataclass(frozen=True)
class FeatureModel:
    """Moshi's temporal transformer and Mimi's encoder, on one device and ready for inference."""

    lm: LMModel
    """Its `forward_text` returns the features; the text head is an identity."""
    mimi: MimiModel
    """float32, eight codebooks."""
    device: torch.device
    dtype: torch.dtype
    """Of the language model's weights and activations."""

    @property
    def dim(self) -> int:
        """Channels of a feature frame."""
        return self.lm.dim


def load_model(
    files: ModelFiles, *, device: torch.device | str, dtype: torch.dtype
) -> FeatureModel:
    """Load what features need of a model.

    Args:
        files: from `resolve_model`.
        device: where both networks stand.
        dtype: of the language model; Mimi is float32 always.

    Raises:
        ConfigError: the model is not a Moshi with two audio streams of eight codebooks, or needs
            conditions, LoRA merging or a quantised runtime.
        CorruptData: the weights cannot be read or do not fit the configuration.
    """
    device = torch.device(device)
    _refuse_unsupported(files)
    lm = _load_lm(files, device, dtype)
    mimi = _load_mimi(files, device)
    if mimi.cardinality != lm.card:
        raise ConfigError(
            f"{files.mimi_path.name} has {mimi.cardinality} codes a codebook, the language model "
            f"reads {lm.card}: use the Mimi that the model was trained with"
        )
    logger.info("loaded %s at %s: %d channels on %s", files.repo, files.revision, lm.dim, device)
    return FeatureModel(lm, mimi, device, dtype)


def _refuse_unsupported(files: ModelFiles) -> None:
    """Raise ConfigError for a model whose features would not be those of its audio and text."""
    config = files.config
    where = f"model {files.repo}"
    if config.get("fuser") is not None or config.get("conditioners"):
        raise ConfigError(f"{where} needs conditions besides audio and text; use a plain Moshi")
    if config.get("lora") or files.checkpoint.lora_weights is not None:
        raise ConfigError(f"{where} has LoRA weights apart; merge them into the model first")
    if config.get("quantize"):
        raise ConfigError(f"{where} is quantised: its features differ; use the bf16 weights")
    if config.get("demux_second_stream") or config.get("demux_second_text_stream"):
        raise ConfigError(f"{where} has two text streams; use a plain Moshi")
    if config.get("n_q") != 2 * NUM_CODEBOOKS:
        raise ConfigError(
            f"{where} reads {config.get('n_q')} audio codebooks; laughstore needs "
            f"{2 * NUM_CODEBOOKS} (two speakers of {NUM_CODEBOOKS}), as Moshi has"
        )
    if not config.get("context"):
        raise ConfigError(f"{where} has no attention window (context): it cannot be streamed")
    for path in (files.lm_path, files.mimi_path):
        if path.suffix != ".safetensors":
            raise ConfigError(f"{where}: {path.name} is not a safetensors file; convert it first")


class _WithoutInitialisation(TorchFunctionMode):
    """Skip random initialisation of parameters on the meta device, which have no values.

    There it would only import torch's compiler, which takes longer than the model itself.
    """

    _SKIPPED = (
        torch.Tensor.uniform_,
        torch.Tensor.erfinv_,
        torch.Tensor.mul_,
        torch.Tensor.add_,
        torch.Tensor.clamp_,
    )

    def __torch_function__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN204
        """Return the first argument of an initialiser unchanged; call anything else."""
        kwargs = kwargs or {}
        if func in self._SKIPPED or getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def meta_lm(config: Mapping[str, Any], dtype: torch.dtype, **overrides: object) -> LMModel:
    """Return a language model on the meta device: names, shapes and no weights.

    Raises:
        ConfigError: these are not the keyword arguments of a Moshi language model.
    """
    try:
        with _WithoutInitialisation():
            return loaders.get_moshi_lm(
                None,
                lm_kwargs=dict(config),
                device="meta",
                dtype=dtype,
                lm_kwargs_overrides=overrides,
            )
    except (TypeError, AssertionError, KeyError, ValueError) as error:
        raise ConfigError(
            f"config.json does not describe a Moshi language model: {first_line(error)}"
        ) from error


def _load_lm(files: ModelFiles, device: torch.device, dtype: torch.dtype) -> LMModel:
    # With dep_q = 0 moshi builds no depth transformer and no audio heads.
    lm = meta_lm(
        files.config,
        dtype,
        dep_q=0,
        depformer_weights_per_step=False,
        depformer_weights_per_step_schedule=None,
        extra_heads_num_heads=0,
    )
    lm.text_linear = nn.Identity()  # type: ignore[assignment]  # the head of the text logits
    try:
        with safe_open(files.lm_path, framework="pt", device=str(device)) as weights:
            names = [name for name in weights.keys() if name.startswith(_FEATURE_KEYS)]  # noqa: SIM118
            state = {name: weights.get_tensor(name).to(dtype) for name in names}
        lm.load_state_dict(state, assign=True)
    except (SafetensorError, RuntimeError, OSError) as error:
        raise CorruptData(
            f"{files.lm_path} cannot be loaded ({first_line(error)}): download it again, or "
            "correct config.json"
        ) from error
    return lm.eval().requires_grad_(False)


def _load_mimi(files: ModelFiles, device: torch.device) -> MimiModel:
    try:
        mimi = loaders.get_mimi(
            files.mimi_path,
            files.checkpoint.mimi_config,
            device=device,
            num_codebooks=NUM_CODEBOOKS,
        )
    except (SafetensorError, RuntimeError, OSError) as error:
        raise CorruptData(
            f"{files.mimi_path} cannot be loaded ({first_line(error)}): download it again, or "
            "correct its configuration"
        ) from error
    except (TypeError, AssertionError, KeyError, ValueError) as error:
        raise ConfigError(f"the Mimi configuration is wrong: {first_line(error)}") from error
    if (mimi.sample_rate, mimi.frame_size) != (SAMPLE_RATE, SAMPLES_PER_FRAME):
        raise ConfigError(
            f"{files.mimi_path.name} has frames of {mimi.frame_size} audio samples at "
            f"{mimi.sample_rate} Hz; laughstore needs {SAMPLES_PER_FRAME} at {SAMPLE_RATE} Hz"
        )
    return mimi.requires_grad_(False)
