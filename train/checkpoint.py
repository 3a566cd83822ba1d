"""Checkpoints: folders of safetensors and JSON that are whole or absent, and checked when read.

    step-000000123/   model.safetensors, optimiser.safetensors, state.json,
                      MANIFEST.json: sealed; names every file with its size and SHA-256
    best.json         sealed; names the checkpoint that is best so far

A checkpoint is written to a temporary sibling, synced and renamed. The last one is the one with the
most steps. safetensors finds no flipped bit by itself, so every file is hashed before it is parsed,
and nothing is ever unpickled.
"""

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from laughstore.errors import CorruptData, NotFound
from laughstore.files import fsync_dir, make_dirs, temporary_sibling, write_atomic
from laughstore.sealed import canonical_json, seal, unseal

logger = logging.getLogger(__name__)

CHECKPOINT_FORMAT = "laughstore-checkpoint"
CHECKPOINT_VERSION = 1
_MANIFEST = "MANIFEST.json"
_BEST = "best.json"
_STATE = "state.json"
_NAME = re.compile(r"step-\d{9}")
_ADVICE = "restore the file, or choose another checkpoint"

Which = Literal["best", "last"]


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a checkpoint holds."""

    model: dict[str, Tensor]
    optimiser: dict[str, Tensor]
    state: dict[str, Any]  # Any: JSON values
    """Where training stood, as a JSON object; `train.trainer` says what it holds."""


def save_checkpoint(folder: Path, step: int, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint durably under `folder` and return its path.

    A sound checkpoint of the same step is left as it is if it has the same state, too.
    """
    path = folder / f"step-{step:09d}"
    if path.exists() and _holds(path, checkpoint.state):
        return path
    files = {
        "model.safetensors": safetensors.torch.save(checkpoint.model),
        "optimiser.safetensors": safetensors.torch.save(checkpoint.optimiser),
        _STATE: canonical_json(checkpoint.state),
    }
    manifest = {
        "format": CHECKPOINT_FORMAT,
        "version": CHECKPOINT_VERSION,
        "files": {
            name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in files.items()
        },
    }
    make_dirs(folder)
    temporary = temporary_sibling(path)
    temporary.mkdir()
    try:
        for name, data in {**files, _MANIFEST: seal(manifest)}.items():
            with (temporary / name).open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        fsync_dir(temporary)
        with _out_of_the_way(path):
            temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    fsync_dir(folder)
    return path


def mark_best(folder: Path, path: Path, metrics: Mapping[str, Any]) -> None:  # Any: JSON values
    """Make a finished checkpoint the best one, in one step."""
    write_atomic(folder / _BEST, seal({"checkpoint": path.name, "metrics": dict(metrics)}))


def prune(folder: Path) -> None:
    """Delete all checkpoints but the best and the last."""
    keep = {checkpoint_path(folder, "last")}
    if (folder / _BEST).exists():
        keep.add(checkpoint_path(folder, "best"))
    for path in _finished(folder):
        if path not in keep:
            shutil.rmtree(path)


def checkpoint_path(folder: Path, which: Which) -> Path:
    """Return the path of the best or the last checkpoint under `folder`.

    Raises:
        NotFound: there is none.
        CorruptData: the file that names the best was altered.
    """
    if which == "last":
        finished = _finished(folder)
        if not finished:
            raise NotFound(f"{folder} holds no finished checkpoint; train for longer")
        return finished[-1]
    path = folder / _BEST
    try:
        content, _ = unseal(path.read_bytes(), where=str(path))
    except FileNotFoundError as error:
        raise NotFound(
            f"{folder} names no best checkpoint: no epoch was finished; train for longer, or use"
            " --checkpoint last"
        ) from error
    name = content.get("checkpoint")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise CorruptData(f"{path}: {name!r} is no name of a checkpoint; {_ADVICE}")
    return folder / name


def load_checkpoint(path: Path) -> Checkpoint:
    """Return a checkpoint, every byte checked.

    Raises:
        NotFound: there is no checkpoint at this path.
        CorruptData: a file was altered, cut or removed; the message names it.
    """
    try:
        manifest, _ = unseal((path / _MANIFEST).read_bytes(), where=str(path / _MANIFEST))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(f"{path} holds no {_MANIFEST}: it is no finished checkpoint") from error
    if (manifest.get("format"), manifest.get("version")) != (CHECKPOINT_FORMAT, CHECKPOINT_VERSION):
        raise CorruptData(
            f"{path}: {manifest.get('format')} version {manifest.get('version')} is not readable;"
            f" this release reads {CHECKPOINT_FORMAT} version {CHECKPOINT_VERSION}"
        )
    model = _read(path / "model.safetensors", manifest)
    optimiser = _read(path / "optimiser.safetensors", manifest)
    state = _read(path / _STATE, manifest)
    try:
        return Checkpoint(
            safetensors.torch.load(model), safetensors.torch.load(optimiser), json.loads(state)
        )
    except SafetensorError as error:
        raise CorruptData(f"{path}: no safetensors file ({error}); {_ADVICE}") from error


def _holds(path: Path, state: Mapping[str, Any]) -> bool:  # Any: JSON values
    """Whether the checkpoint at this path is sound and has this state."""
    try:
        return canonical_json(load_checkpoint(path).state) == canonical_json(state)
    except (NotFound, CorruptData) as error:
        logger.warning("written again: %s", error)
        return False


@contextmanager
def _out_of_the_way(path: Path) -> Iterator[None]:
    """Move a folder aside while another takes its name; it comes back if that fails."""
    if not path.exists():
        yield
        return
    aside = temporary_sibling(path)
    path.rename(aside)
    try:
        yield
    except BaseException:
        aside.rename(path)
        raise
    shutil.rmtree(aside)


def _read(path: Path, manifest: Mapping[str, Any]) -> bytes:  # Any: JSON values
    """Bytes of a file, checked against the manifest before anyone parses them."""
    promised = manifest["files"][path.name]
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise CorruptData(f"{path} is missing, the manifest names it; {_ADVICE}") from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != promised["sha256"]:
        raise CorruptData(
            f"{path}: sha256 is {digest[:8]} ({len(data)} bytes), the manifest says"
            f" {promised['sha256'][:8]} ({promised['bytes']} bytes); {_ADVICE}"
        )
    return data


def _finished(folder: Path) -> list[Path]:
    """Finished checkpoints, fewest steps first."""
    if not folder.is_dir():
        return []
    return sorted(
        path
        for path in folder.iterdir()
        if _NAME.fullmatch(path.name) and (path / _MANIFEST).exists()
    )
