"""From what a build asks for to the spec of what it writes: device, model, numerics."""

from dataclasses import replace
from pathlib import Path

import torch

from laughstore.buildplan import read_plan
from laughstore.errors import ConfigError, IncompleteStore
from laughstore.spec import FeatureSpec, Numerics

from .config import (
    DEFAULT_CHUNK_FRAMES,
    DEFAULT_ROWS,
    BuildConfig,
)
from .logmel import LOGMEL_SHA256
from .model import ModelFiles, feature_dim, resolve_model
from .model_checks import refuse_unsupported


def choose_device(name: str, local_rank: int | None = None) -> torch.device:
    """Return the device a name stands for; `auto` is cuda if there is one.

    Args:
        name: cpu, cuda, cuda:N or auto.
        local_rank: number of this process on its machine: `auto` and `cuda` are then the GPU of
            that number, counted in a circle.

    Raises:
        ConfigError: there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and local_rank is not None and torch.cuda.is_available():
        name = f"cuda:{local_rank % torch.cuda.device_count()}"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device is {name!r}; use cpu, cuda, cuda:N or auto") from error
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ConfigError(f"device is {name!r}, but torch finds no CUDA device; use cpu")
        if (device.index or 0) >= torch.cuda.device_count():
            raise ConfigError(f"device is {name!r}; there are {torch.cuda.device_count()}")
    elif device.type != "cpu":
        raise ConfigError(f"device is {name!r}; use cpu, cuda, cuda:N or auto")
    return device


def device_kind(device: torch.device) -> str:
    """Return what tells apart devices whose low bits differ: the GPU's model, the CPU's vectors."""
    if device.type == "cuda":
        return f"cuda/{torch.cuda.get_device_name(device)}"
    return f"cpu/{torch.backends.cpu.get_cpu_capability()}"


def find_model(config: BuildConfig) -> ModelFiles | None:
    """Return the files of the model that a build needs; None when it needs none.

    Without a revision it is the commit that the store was begun with, if it is of that repository.

    Raises:
        NotFound: there is no such model, or it cannot be fetched.
        ConfigError: it cannot be used.
    """
    if config.tap == "logmel":
        return None
    there = _spec_there(config.store)
    revision = config.revision
    # The repository may have a newer commit since.
    if revision is None and there is not None and there.model == config.model:
        revision = there.revision
    files = resolve_model(config.model, revision)
    refuse_unsupported(files)
    return files


def spec_of(config: BuildConfig, files: ModelFiles | None, device: torch.device) -> FeatureSpec:
    """Return the spec of what a build writes; what no flag sets is as in the store, if begun.

    Args:
        config: of the build.
        files: of its model; None for `logmel`, which needs none.
        device: that extracts.
    """
    there = _spec_there(config.store)
    auto = (None if there is None else there.numerics) or Numerics(
        slots=DEFAULT_ROWS[device.type] // config.rows_per_slot,
        chunk_frames=DEFAULT_CHUNK_FRAMES[device.type],
        # Whatever the machine or its launcher offers: all processes of a build have to agree.
        threads=1,
        compute_dtype="bfloat16" if device.type == "cuda" else "float32",
        allow_tf32=config.allow_tf32,
    )
    numerics = replace(
        auto,
        slots=config.rows // config.rows_per_slot if config.rows else auto.slots,
        chunk_frames=config.chunk_frames or auto.chunk_frames,
        threads=config.threads or auto.threads,
        allow_tf32=config.allow_tf32 or auto.allow_tf32,
        compute_dtype=auto.compute_dtype if config.dtype == "auto" else config.dtype,
    )
    has_text = config.text != "none"
    return FeatureSpec(
        model="logmel" if files is None else files.repo,
        revision=None if files is None else files.revision,
        weights_sha256=(
            LOGMEL_SHA256 if files is None else files.weights_sha256(config.tap, text=has_text)
        ),
        dim=feature_dim(files, config.tap),
        numerics=numerics,
        tap=config.tap,
        # Without text both orders feed the same codes.
        stream_order=config.stream_order if has_text else "main-other",
        text=config.text,
        context=config.context,
        speakers=config.speakers,
        codec=config.codec,
    )


def _spec_there(store: Path) -> FeatureSpec | None:
    """Spec of a store that was begun: what no flag sets goes on as it was."""
    try:
        return read_plan(store).spec
    except IncompleteStore:
        return None
