"""Moshi and Mimi: from the files of a model to the networks that features need.

In: `ModelFiles` (model_files.py; `resolve_model` is offered here too). Out: a `FeatureModel`, the
temporal transformer of Moshi and Mimi. What plays no part in features is never read into memory:
the depth transformer and the text head, which predict tokens (0.85 B of the 7.69 B parameters of
the released model), the layers above a tap, the whole language model for a control.

Models are described by moshi's own loaders, so whatever loads there loads here; configurations
whose features would need more inputs than audio and text are refused.
"""

import logging
import re
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
from laughstore.memory import is_out_of_memory
from laughstore.spec import tap_layers
from laughstore.timebase import SAMPLE_RATE, SAMPLES_PER_FRAME

from .logmel import LOGMEL_CHANNELS
from .model_checks import NUM_CODEBOOKS, NUM_STREAMS, refuse_unsupported
from .model_files import ModelFiles, first_line, resolve_model

__all__ = [
    "NUM_CODEBOOKS",
    "NUM_STREAMS",
    "FeatureModel",
    "ModelFiles",
    "feature_dim",
    "load_model",
    "meta_lm",
    "resolve_model",
]

logger = logging.getLogger(__name__)

_FEATURE_KEYS = ("transformer.", "emb.", "text_emb.", "out_norm.")
_LAYER_KEY = re.compile(r"transformer\.layers\.(\d+)\.")


@dataclass(frozen=True)
class FeatureModel:
    """Moshi's temporal transformer and Mimi's encoder, on one device and ready for inference."""

    device: torch.device
    dtype: torch.dtype
    """Of the language model's weights and activations."""
    lm_or_none: LMModel | None = None
    mimi_or_none: MimiModel | None = None

    @property
    def lm(self) -> LMModel:
        """Its `forward_text` returns the features; the text head is an identity."""
        assert self.lm_or_none is not None, "controls have no language model"
        return self.lm_or_none

    @property
    def mimi(self) -> MimiModel:
        """float32, eight codebooks."""
        assert self.mimi_or_none is not None, "log-mel frames need no Mimi"
        return self.mimi_or_none

    @property
    def dim(self) -> int:
        """Channels of a feature frame; of a control both sides together."""
        if self.lm_or_none is not None:
            return self.lm_or_none.dim
        return 2 * (LOGMEL_CHANNELS if self.mimi_or_none is None else self.mimi_or_none.dimension)


def feature_dim(files: ModelFiles | None, tap: str) -> int:
    """Return the channels of a frame at a tap of a model; nothing is loaded.

    Raises:
        ConfigError: the model has no such layer, or its configuration lacks a size.
    """
    if tap == "logmel":
        return 2 * LOGMEL_CHANNELS
    assert files is not None, "the other taps are of a model"
    try:
        if tap == "mimi":
            config = files.checkpoint.mimi_config or loaders._mimi_config
            return 2 * int(config["seanet"]["dimension"])
        dim, num_layers = int(files.config["dim"]), int(files.config["num_layers"])
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"model {files.repo}: its configuration lacks {first_line(error)}; give one of Moshi"
        ) from error
    wanted = tap_layers(tap) or num_layers
    if wanted > num_layers:
        raise ConfigError(f"model {files.repo} has {num_layers} layers; tap {tap} is none of them")
    return dim


def load_model(
    files: ModelFiles | None,
    *,
    device: torch.device | str,
    dtype: torch.dtype,
    tap: str = "out_norm",
) -> FeatureModel:
    """Load what features need of a model.

    Args:
        files: from `resolve_model`; None for `logmel`, which needs none.
        device: where the networks stand; a GPU with a number becomes the current one of this
            thread.
        dtype: of the language model; Mimi is float32 always.
        tap: as in `FeatureSpec`.

    Raises:
        ConfigError: the model is not a Moshi with two audio streams of eight codebooks, or needs
            conditions, LoRA merging or a quantised runtime.
        CorruptData: the weights cannot be read or do not fit the configuration.
    """
    device = torch.device(device)
    feature_dim(files, tap)  # refuses what is no layer
    if device.type == "cuda" and device.index is not None:
        # Else each process of a machine would take memory of its first GPU, too.
        torch.cuda.set_device(device)
    if files is None or tap == "logmel":
        return FeatureModel(device, dtype)
    refuse_unsupported(files)
    mimi = _load_mimi(files, device)
    if tap == "mimi":
        return FeatureModel(device, dtype, None, mimi)
    lm = _load_lm(files, device, dtype, tap_layers(tap))
    if mimi.cardinality != lm.card:
        raise ConfigError(
            f"{files.mimi_path.name} has {mimi.cardinality} codes a codebook, the language model "
            f"reads {lm.card}: use the Mimi that the model was trained with"
        )
    logger.info("loaded %s at %s: %d channels on %s", files.repo, files.revision, lm.dim, device)
    return FeatureModel(device, dtype, lm, mimi)


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


def _load_lm(
    files: ModelFiles, device: torch.device, dtype: torch.dtype, num_layers: int | None
) -> LMModel:
    """Load the temporal transformer: whole, or its first layers without the norm behind them."""
    tapped = {} if num_layers is None else {"num_layers": num_layers}
    # With dep_q = 0 moshi builds no depth transformer and no audio heads.
    lm = meta_lm(
        files.config,
        dtype,
        dep_q=0,
        depformer_weights_per_step=False,
        depformer_weights_per_step_schedule=None,
        extra_heads_num_heads=0,
        **tapped,
    )
    if num_layers is not None:
        lm.out_norm = nn.Identity()  # type: ignore[assignment]  # a layer's output is not normed
    lm.text_linear = nn.Identity()  # type: ignore[assignment]  # the head of the text logits
    try:
        with safe_open(files.lm_path, framework="pt", device=str(device)) as weights:
            names = [name for name in weights.keys() if _is_needed(name, num_layers)]  # noqa: SIM118
            state = {name: weights.get_tensor(name).to(dtype) for name in names}
        lm.load_state_dict(state, assign=True)
    except (SafetensorError, RuntimeError, OSError) as error:
        if is_out_of_memory(error):
            raise
        raise CorruptData(
            f"{files.lm_path} cannot be loaded ({first_line(error)}): download it again, or "
            "correct config.json"
        ) from error
    return lm.eval().requires_grad_(False)


def _is_needed(name: str, num_layers: int | None) -> bool:
    if num_layers is None:
        return name.startswith(_FEATURE_KEYS)
    layer = _LAYER_KEY.match(name)
    if layer is not None:
        return int(layer[1]) < num_layers
    return name.startswith(_FEATURE_KEYS) and not name.startswith("out_norm.")


def _load_mimi(files: ModelFiles, device: torch.device) -> MimiModel:
    try:
        mimi = loaders.get_mimi(
            files.mimi_path,
            files.checkpoint.mimi_config,
            device=device,
            num_codebooks=NUM_CODEBOOKS,
        )
    except (SafetensorError, RuntimeError, OSError) as error:
        if is_out_of_memory(error):
            raise
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
