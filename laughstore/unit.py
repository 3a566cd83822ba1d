"""Write one recording into a store: the shards, arrays and codes of all its streams.

A unit is idempotent: written again from frame 0 it gives the same bytes under the same names. Its
record in `units/` is written last and says that every file of it is whole.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from . import layout
from .buildplan import BuildPlan, PlannedRecording
from .errors import CorruptData
from .files import TEMPORARY_MARK, write_atomic
from .manifest import FileRecord
from .sealed import seal, unseal

UNIT_FORMAT = "laughstore-unit"
UNIT_VERSION = 1


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
    """Of each block, in the same order."""


def remove_unit_files(store: Path, plan: BuildPlan, recording: PlannedRecording) -> None:
    """Delete whatever a recording's unit has written, its record first.

    For stores that have not been finished. A unit that fails late has finished shards: left in
    place they would be read by everyone who lists the folder.
    """
    assert not (store / layout.STORE_JSON).exists(), "a finished store is never rewritten"
    (store / layout.unit(recording.id)).unlink(missing_ok=True)
    num_shards = plan.geometry.num_shards(recording.num_frames)
    for first in recording.first_shards:
        for number in range(first, first + num_shards):
            shard = store / layout.shard(recording.split, number)
            for path in (shard, *shard.parent.glob(f"{shard.name}{TEMPORARY_MARK}*")):
                path.unlink(missing_ok=True)
    for root in (layout.FEATURES, layout.CODES):
        shutil.rmtree(store / root / recording.split / recording.id, ignore_errors=True)


def write_unit(store: Path, record: UnitRecord) -> None:
    """Write a unit's record: from now on its files count as whole."""
    data = {"format": UNIT_FORMAT, "version": UNIT_VERSION, **asdict(record)}
    write_atomic(store / layout.unit(record.id), seal(data))


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
    path = store / layout.unit(recording_id)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    content: dict[str, Any] = unseal(data, where=str(path))[0]  # Any: JSON values
    if content.get("format") != UNIT_FORMAT or content.get("version") != UNIT_VERSION:
        raise CorruptData(f"{path}: not a unit record of version {UNIT_VERSION}; remove the file")
    return UnitRecord(
        id=content["id"],
        status=content["status"],
        reason=content["reason"],
        files=_files(content["files"]),
        shard_bytes=tuple(content["shard_bytes"]),
        block_crc32c=tuple(content["block_crc32c"]),
    )


def _files(items: Sequence[Mapping[str, Any]]) -> tuple[FileRecord, ...]:
    return tuple(FileRecord(**item) for item in items)
