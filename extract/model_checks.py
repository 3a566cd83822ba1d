"""Which models can be used: a Moshi of two audio streams that hears no future and wants no more.

Looks at configurations only, so that a model is refused before a store is begun.
"""

from collections.abc import Mapping
from typing import Any

from moshi.models import loaders

from laughstore.errors import ConfigError

from .model_files import ModelFiles
from .text import END_OF_PADDING_ID, PADDING_ID

NUM_CODEBOOKS = 8
"""Codes of a frame of one speaker: one semantic, seven acoustic (arXiv 2410.00037)."""
NUM_STREAMS = 1 + 2 * NUM_CODEBOOKS
"""Codes of a frame of Moshi's input: text of main, audio of main, audio of other."""
MAX_CONTEXT = 1_000_000
"""Frames of attention, 22 hours; a ring of keys of this length is allocated for every row."""
MAX_DELAY = 1_000
_CONDITIONED = ("fuser", "conditioners", "condition_provider", "cross_attention")


def refuse_unsupported(files: ModelFiles) -> None:
    """Check that the features of a model would be those of its audio and text.

    Raises:
        ConfigError: it needs conditions, LoRA merging or a quantised runtime, has another number of
            streams, or would hear what comes later.
    """
    config = files.config
    where = f"model {files.repo}"
    if any(config.get(name) for name in _CONDITIONED):
        raise ConfigError(f"{where} needs conditions besides audio and text; use a plain Moshi")
    if config.get("lora") or files.checkpoint.lora_weights is not None:
        raise ConfigError(f"{where} has LoRA weights apart; merge them into the model first")
    if config.get("quantize"):
        raise ConfigError(f"{where} is quantised: its features differ; use the bf16 weights")
    if config.get("demux_second_stream") or config.get("demux_second_text_stream"):
        raise ConfigError(f"{where} has two text streams; use a plain Moshi")
    if config.get("n_q") != 2 * NUM_CODEBOOKS:
        raise ConfigError(
            f"{where} reads {config.get('n_q')!r} audio codebooks; laughstore needs "
            f"{2 * NUM_CODEBOOKS} (two speakers of {NUM_CODEBOOKS}), as Moshi has"
        )
    ids = (
        config.get("existing_text_padding_id", PADDING_ID),
        config.get("existing_text_end_padding_id", END_OF_PADDING_ID),
    )
    if ids != (PADDING_ID, END_OF_PADDING_ID):
        raise ConfigError(
            f"{where} pads its text with {ids[0]} and ends padding with {ids[1]}; laughstore feeds"
            f" {PADDING_ID} and {END_OF_PADDING_ID}, as Moshi has them"
        )
    _refuse_what_cannot_be_streamed(config, where)
    mimi = files.checkpoint.mimi_config or loaders._mimi_config
    for part in ("seanet", "transformer"):
        if not mimi.get(part, {}).get("causal", True):
            raise ConfigError(f"{where}: its Mimi hears the future ({part} is not causal)")
    for path in (files.lm_path, files.mimi_path):
        if path.suffix != ".safetensors":
            raise ConfigError(f"{where}: {path.name} is not a safetensors file; convert it first")


def _refuse_what_cannot_be_streamed(config: Mapping[str, Any], where: str) -> None:
    context, delays = config.get("context"), config.get("delays")
    if not context:
        raise ConfigError(f"{where} has no attention window (context): it cannot be streamed")
    if type(context) is not int or not 1 <= context <= MAX_CONTEXT:
        raise ConfigError(
            f"{where}: context is {context!r}; it must be a number of frames from 1 to"
            f" {MAX_CONTEXT}: correct config.json"
        )
    if not config.get("causal", True):
        raise ConfigError(f"{where} is not causal: its features would hear what comes later")
    if config.get("weights_per_step"):
        raise ConfigError(f"{where} has other weights for each step; use a plain Moshi")
    # A stream that is early, not late, would show frames before they have been heard.
    is_list = isinstance(delays, list | tuple) and len(delays) == NUM_STREAMS
    frames = list(delays) if is_list and delays else []
    if not frames or not all(type(item) is int and 0 <= item <= MAX_DELAY for item in frames):
        raise ConfigError(
            f"{where}: delays is {str(delays)[:60]}; laughstore needs {NUM_STREAMS} whole numbers"
            f" of frames, none below 0, as Moshi has: correct config.json"
        )
