"""Checkpoints: folders of safetensors and JSON that are whole or absent, and checked when read.

    step-000000123/          model.safetensors, optimiser.safetensors, state.json,
                             MANIFEST.json: sealed; names every file with its size and SHA-256
    step-000000123.1/        the same step, saved again with another state
    step-000000120.broken/   one that could not be gone on from
    best.json                sealed; names the checkpoint that is best so far

A checkpoint is written to a temporary sibling, synced and renamed to a name that is free: none is
ever replaced. The last one is the one with the most steps. safetensors finds no flipped bit by
itself, so every file is hashed before it is parsed, and nothing is ever unpickled.
"""

import errno
import hashlib
import json
import logging
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from laughstore.errors import CorruptData, LaughstoreError, NotFound
from laughstore.files import (
    TEMPORARY_MARK,
    fsync_dir,
    write_atomic,
)
from laughstore.new_folder import write_folder
from laughstore.sealed import canonical_json, seal, unseal

logger = logging.getLogger(__name__)

CHECKPOINT_FORMAT = "laughstore-checkpoint"
CHECKPOINT_VERSION = 1
KEPT = 3
"""Checkpoints that are kept besides the best: what goes on when the newest is damaged."""
_MANIFEST = "MANIFEST.json"
_BEST = "best.json"
_STATE = "state.json"
_BROKEN = ".broken"
_NAME = re.compile(r"step-(\d{9,})(?:\.(\d{1,4}))?")
_ADVICE = "restore the file, or choose another checkpoint"
_DAMAGED = frozenset({errno.EIO, errno.EBADMSG, errno.EUCLEAN, errno.EISDIR})
"""What a disk or a file system says of a file that it cannot give back, as others do not."""

Which = Literal["best", "last"]


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a checkpoint holds."""

    model: dict[str, Tensor]
    optimiser: dict[str, Tensor]
    state: dict[str, Any]  # Any: JSON values
    """Where training stood, as a JSON object; `train.training.course` says what it holds."""

    def to_bytes(self) -> bytes:
        """Return all of it as one safetensors file, for another process."""
        tensors = {f"model/{name}": value for name, value in self.model.items()}
        tensors |= {f"optimiser/{name}": value for name, value in self.optimiser.items()}
        return safetensors.torch.save(tensors, {"state": canonical_json(self.state).decode()})

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return what `to_bytes` was called of."""
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "optimiser": {}}
        for key, value in safetensors.torch.load(data).items():
            part, _, name = key.partition("/")
            parts[part][name] = value
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        return cls(**parts, state=json.loads(header["__metadata__"]["state"]))


def save_checkpoint(folder: Path, step: int, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint durably under `folder` and return its path; nothing is replaced."""
    there = [path for path in _named(folder) if _order(path)[0] == step]
    name = _name(step) + (f".{_order(there[-1])[1] + 1}" if there else "")
    write_folder(folder / name, _files(checkpoint))
    return folder / name


def first_checkpoint(
    step: int, checkpoint: Checkpoint, metrics: Mapping[str, Any]
) -> dict[str, bytes]:  # Any: JSON values
    """Return the files of a folder of checkpoints in which this is the only one, and the best."""
    name = _name(step)
    files = {f"{name}/{file}": data for file, data in _files(checkpoint).items()}
    return {**files, _BEST: _best(name, metrics)}


def _name(step: int) -> str:
    return f"step-{step:09d}"


def _files(checkpoint: Checkpoint) -> dict[str, bytes]:
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
    return {**files, _MANIFEST: seal(manifest)}


def newest_sound(folder: Path) -> tuple[Path, Checkpoint] | None:
    """Return the last checkpoint of which every byte is as it was written, or None without any.

    For the one process that goes on with a run: those that are broken are kept under another name
    and told in a warning, and what a killed process was writing is removed.
    """
    if not folder.is_dir():
        return None
    for path in folder.glob(f"*{TEMPORARY_MARK}*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in reversed(_named(folder)):
        try:
            return path, load_checkpoint(path)
        except (NotFound, CorruptData) as error:
            set_aside(path, error)
    return None


def set_aside(path: Path, error: LaughstoreError) -> None:
    """Give a broken checkpoint a name that nothing looks for, and say so in a warning."""
    if not path.exists():
        logger.warning("a checkpoint is not used: %s", error)
        return
    aside = path.with_name(path.name + _BROKEN)
    while aside.exists():
        aside = aside.with_name(aside.name + _BROKEN)
    path.rename(aside)
    fsync_dir(path.parent)
    logger.warning("a checkpoint is not used, and kept as %s: %s", aside.name, error)


def mark_best(folder: Path, path: Path, metrics: Mapping[str, Any]) -> None:  # Any: JSON values
    """Make a finished checkpoint the best one, in one step."""
    write_atomic(folder / _BEST, _best(path.name, metrics))


def _best(name: str, metrics: Mapping[str, Any]) -> bytes:  # Any: JSON values
    return seal({"checkpoint": name, "metrics": dict(metrics)})


def prune(folder: Path, *, best: str | None) -> None:
    """Delete all checkpoints but the best and the last few, once the last is seen to be sound.

    Args:
        folder: of a run's checkpoints.
        best: name of the best one, if there is one. The file that says so is for others, and may be
            damaged.

    Raises:
        CorruptData: the last one is not sound; nothing was deleted.
    """
    finished = _finished(folder)
    keep = set(finished[-KEPT:])
    if best is not None:
        keep.add(folder / best)
    old = [path for path in finished if path not in keep]
    if old:
        load_checkpoint(finished[-1])
    for path in old:
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
        content, _ = unseal(_read(path), where=str(path))
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
    manifest, _ = _manifest(path)
    if (manifest.get("format"), manifest.get("version")) != (CHECKPOINT_FORMAT, CHECKPOINT_VERSION):
        raise CorruptData(
            f"{path}: {manifest.get('format')} version {manifest.get('version')} is not readable;"
            f" this release reads {CHECKPOINT_FORMAT} version {CHECKPOINT_VERSION}"
        )
    model = _read_listed(path / "model.safetensors", manifest)
    optimiser = _read_listed(path / "optimiser.safetensors", manifest)
    state = _read_listed(path / _STATE, manifest)
    try:
        return Checkpoint(
            safetensors.torch.load(model), safetensors.torch.load(optimiser), json.loads(state)
        )
    except SafetensorError as error:
        raise CorruptData(f"{path}: no safetensors file ({error}); {_ADVICE}") from error


def checkpoint_sha256(path: Path) -> str:
    """Return the digest of a checkpoint: of its manifest, which holds those of all its files.

    Raises:
        NotFound: there is no checkpoint at this path.
        CorruptData: its manifest was altered or cut.
    """
    return _manifest(path)[1]


def _manifest(path: Path) -> tuple[dict[str, Any], str]:  # Any: JSON values
    """(object, SHA-256) of a checkpoint's manifest."""
    try:
        return unseal(_read(path / _MANIFEST), where=str(path / _MANIFEST))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(f"{path} holds no {_MANIFEST}: it is no finished checkpoint") from error


def _read(path: Path) -> bytes:
    """Bytes of a file; one that cannot be given back is damaged, like one with other bytes."""
    try:
        return path.read_bytes()
    except OSError as error:
        if error.errno not in _DAMAGED:
            raise
        raise CorruptData(f"{path} cannot be read ({error.strerror}); {_ADVICE}") from error


def _read_listed(path: Path, manifest: Mapping[str, Any]) -> bytes:  # Any: JSON values
    """Bytes of a file, checked against the manifest before anyone parses them."""
    promised = manifest["files"][path.name]
    try:
        data = _read(path)
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
    return [path for path in _named(folder) if (path / _MANIFEST).exists()]


def _named(folder: Path) -> list[Path]:
    """What has the name of a checkpoint, fewest steps first."""
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if _NAME.fullmatch(path.name)), key=_order)


def _order(path: Path) -> tuple[int, int]:
    """(steps, how often they were saved before) of the name of a checkpoint."""
    match = _NAME.fullmatch(path.name)
    assert match is not None, "only of what has such a name"
    return int(match[1]), int(match[2] or 0)
