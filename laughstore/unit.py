"""The record of a unit: one recording, finished or left out, and every file that belongs to it.

The record in `units/` is written last and says that every file of the recording is whole.
"""

import os
import shutil
from collections.abc import Collection
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Literal, Self

from . import layout
from .buildplan import BuildPlan, PlannedRecording
from .errors import CorruptData, NotFound
from .files import TEMPORARY_MARK, write_atomic
from .folders import LocalFolder
from .manifest import FileRecord, file_records, read_manifest
from .naming import shard_name
from .sealed import read_small, seal, unseal
from .values import MAX_INTEGER, listed, optional_text, path_part

UNIT_FORMAT = "laughstore-unit"
UNIT_VERSION = 1

Stamp = tuple[int, int]
"""Inode and time (ns) of a unit's record: each write of it makes another."""


@dataclass(frozen=True)
class UnitRecord:
    """The outcome of one recording."""

    id: str
    status: Literal["done", "quarantined"]
    reason: str | None = None
    """Why it was quarantined."""
    files: tuple[FileRecord, ...] = ()
    shard_bytes: tuple[int, ...] = ()
    """Of each shard, assignment by assignment."""
    block_crc32c: tuple[int, ...] = ()
    """Of the rows of each block, in the same order."""
    block_bytes: tuple[int, ...] | None = None
    """Of each block as stored, checksum included; None when no codec changes it."""
    device_kind: str | None = None
    """Kind of device that extracted it; None: that of the plan."""

    def to_bytes(self) -> bytes:
        """Return the sealed JSON."""
        content = asdict(self)
        if self.device_kind is None:
            del content["device_kind"]
        return seal({"format": UNIT_FORMAT, "version": UNIT_VERSION, **content})

    @classmethod
    def from_bytes(cls, data: bytes, *, where: str) -> Self:
        """Return the record that `to_bytes` wrote. Raises CorruptData when it is none."""
        content, _ = unseal(data, where=where)
        if content.get("format") != UNIT_FORMAT or content.get("version") != UNIT_VERSION:
            raise CorruptData(
                f"{where}: {content.get('format')} version {content.get('version')} is not"
                f" readable; this release reads {UNIT_FORMAT} version {UNIT_VERSION}"
            )
        status = content.get("status")
        if status not in ("done", "quarantined"):
            raise CorruptData(f"{where}: status {str(status)[:40]!r}; restore it")
        sizes = content.get("block_bytes")
        return cls(
            id=path_part(content, "id", where=where),
            status=status,
            reason=optional_text(content, "reason", where=where),
            files=file_records(content.get("files"), where=where),
            shard_bytes=_integers(content.get("shard_bytes"), "shard_bytes", where=where),
            block_crc32c=_integers(content.get("block_crc32c"), "block_crc32c", where=where),
            block_bytes=None if sizes is None else _integers(sizes, "block_bytes", where=where),
            device_kind=optional_text(content, "device_kind", where=where),
        )

    @property
    def shard_sha256(self) -> tuple[str, ...]:
        """Of each shard, assignment by assignment."""
        return tuple(item.sha256 for item in self.files if item.also is not None)


def remove_unit_files(store: Path, plan: BuildPlan, recording: PlannedRecording) -> None:
    """Delete whatever a recording's unit has written, its record first.

    For recordings that no generation names. A unit that fails late has finished shards: left in
    place they would be read by everyone who lists the folder.

    Raises:
        CorruptData: a symbolic link stands where files would be deleted; nothing was.
    """
    assert not _is_named(store, recording.id), "a finished recording is never rewritten"
    folder = LocalFolder(store)
    roots = (layout.FEATURES, layout.CODES)
    # Checked first: a folder that is a symbolic link would have us delete elsewhere.
    arrays = [folder.path(f"{root}/{recording.split}/{recording.id}") for root in roots]
    shards = folder.path(layout.CURRENT_INDEX).parent
    unit = folder.path(layout.unit(recording.id))
    # Shards are written in an array's folder first. Without one there are no temporary files to be
    # looked for in the shards folder, which may hold a hundred thousand others.
    was_begun = unit.exists() or any(array.exists() for array in arrays)
    unit.unlink(missing_ok=True)
    names = _planned_shards(plan, recording)
    if was_begun and shards.is_dir():
        with os.scandir(shards) as entries:
            for entry in entries:
                name, mark, _ = entry.name.partition(TEMPORARY_MARK)
                if mark and name in names:
                    (shards / entry.name).unlink(missing_ok=True)
    for name in names:
        (shards / name).unlink(missing_ok=True)
    for array in arrays:
        shutil.rmtree(array, ignore_errors=True)


def written_bytes(
    store: Path, plan: BuildPlan, recordings: Collection[PlannedRecording]
) -> dict[str, int]:
    """Return how many bytes of recordings are on the disk, whether they are whole or not, by id.

    Counts what `remove_unit_files` would delete, and annotations. A file with two names is one.
    """
    found: dict[str, dict[tuple[int, int], int]] = {item.id: {} for item in recordings}
    if (store / layout.SHARDS).is_dir():
        owners = {name: item.id for item in recordings for name in _planned_shards(plan, item)}
        with os.scandir(store / layout.SHARDS) as entries:
            for entry in entries:
                owner = owners.get(entry.name.partition(TEMPORARY_MARK)[0])
                if owner is not None:
                    _count(Path(entry.path), found[owner])
    for item in recordings:
        for root in (layout.FEATURES, layout.CODES):
            for folder, _, names in (store / root / item.split / item.id).walk():
                for name in names:
                    _count(folder / name, found[item.id])
        _count(store / layout.annotations(item.annotations_id, item.split, item.id), found[item.id])
    return {key: sum(sizes.values()) for key, sizes in found.items()}


def _count(path: Path, sizes: dict[tuple[int, int], int]) -> None:
    try:
        status = path.lstat()
    except FileNotFoundError:  # another process has removed or renamed it just now
        return
    sizes[status.st_dev, status.st_ino] = status.st_size


def _is_named(store: Path, recording_id: str) -> bool:
    try:
        status = (store / layout.STORE_JSON).stat()
    except FileNotFoundError:
        return False
    return layout.unit(recording_id) in _named(store, (status.st_ino, status.st_mtime_ns))


@lru_cache(maxsize=1)
def _named(store: Path, stamp: tuple[int, int]) -> frozenset[str]:
    """What store.json names; read once for all recordings of a plan: it may have megabytes.

    Args:
        store: folder of the store.
        stamp: inode and time of store.json: each generation has another.
    """
    return frozenset(item.path for item in read_manifest(store).files)


def write_unit(store: Path, record: UnitRecord) -> None:
    """Write a unit's record: from now on its files count as whole."""
    write_atomic(store / layout.unit(record.id), record.to_bytes())


def unit_stamp(store: Path, recording_id: str) -> Stamp | None:
    """Return the stamp of a unit's record, or None when there is none."""
    try:
        status = (store / layout.unit(recording_id)).stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns


def is_planned(record: UnitRecord, plan: BuildPlan, recording: PlannedRecording) -> bool:
    """Tell whether a finished unit's shards have the numbers that a plan gives them.

    Those of a plan that was finished without the recording have others.
    """
    names = {PurePosixPath(item.path).name for item in record.files if item.also is not None}
    return names == _planned_shards(plan, recording)


def _planned_shards(plan: BuildPlan, recording: PlannedRecording) -> set[str]:
    num_shards = plan.geometry.num_shards(recording.num_frames)
    return {
        shard_name(recording.split, number)
        for first in recording.first_shards
        for number in range(first, first + num_shards)
    }


def is_whole(store: Path, record: UnitRecord) -> bool:
    """Tell whether every file of a finished unit is there, under both names, in its size."""
    for item in record.files:
        for path in (item.path, item.also):
            if path is None:
                continue
            try:
                if (store / path).stat().st_size != item.num_bytes:
                    return False
            except FileNotFoundError:
                return False
    return True


def read_unit(store: Path, recording_id: str) -> UnitRecord | None:
    """Return a unit's record, or None when the unit has not been finished.

    Raises:
        CorruptData: the record was altered.
    """
    folder, path = LocalFolder(store), layout.unit(recording_id)
    try:
        data = read_small(folder, path)
    except NotFound:
        return None
    record = UnitRecord.from_bytes(data, where=folder.describe(path))
    if record.id != recording_id:
        raise CorruptData(f"{folder.describe(path)} is the record of {record.id!r}; restore it")
    return record


def _integers(items: object, name: str, *, where: str) -> tuple[int, ...]:
    numbers = listed(items, name, where=where)
    if not all(type(item) is int and 0 <= item <= MAX_INTEGER for item in numbers):
        raise CorruptData(f"{where}: {name} holds something else than sizes; restore it")
    return tuple(numbers)
