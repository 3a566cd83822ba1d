"""Room on the disk: what a store takes, what of it is there already, and what is free.

What killed processes have left of a recording, and what others are writing of it just now, is on
the disk and no longer free: it counts as written.
"""

import shutil
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from laughstore.buildplan import Assignment, BuildPlan, read_plan
from laughstore.errors import IncompleteStore, LaughstoreError
from laughstore.files import can_link
from laughstore.geometry import ShardGeometry
from laughstore.publishing import newest_manifest
from laughstore.sharing import unfinished
from laughstore.unit import written_bytes

_SMALL_FILE_BYTES = 64 << 10
"""Allowed beside the shards for each recording's other files, whatever its length."""
_CODE_BYTES_PER_FRAME = 34
_ANNOTATION_BYTES_PER_FRAME = 40
"""Twice what two speakers' words take (about 3 words of 100 bytes a second)."""


class Planned(Protocol):
    """A recording whose length and streams are known."""

    @property
    def num_frames(self) -> int:
        """Of each stream."""
        ...

    @property
    def assignments(self) -> tuple[Assignment, ...]:
        """One for each stream."""
        ...


@dataclass(frozen=True)
class Room:
    """What a store takes and what the disk has."""

    num_bytes: int
    """Of all its recordings, about."""
    missing_bytes: int
    """Of these, what has not been written yet."""
    free_bytes: int
    has_links: bool
    """Whether a file can have two names there; where it cannot, shards are stored twice."""

    @property
    def is_enough(self) -> bool:
        """Whether a build can begin, or go on."""
        return self.missing_bytes <= self.free_bytes


def room_for(
    store: Path, recordings: Iterable[Planned], geometry: ShardGeometry, number: int = 1
) -> Room:
    """Look whether the disk has room for a plan, be it begun or not.

    Args:
        store: folder of the store; it need not exist.
        recordings: that are planned.
        geometry: of all shards.
        number: of the plan: 1 for the store's own, more for additions.
    """
    has_links = can_link(_existing(store))
    num_bytes = store_bytes(recordings, geometry, has_links=has_links)
    free = free_disk_bytes(store)
    manifest = newest_manifest(store)
    missing = num_bytes
    if manifest is not None and manifest.num_plans >= number:
        missing = 0
    else:
        with suppress(IncompleteStore):  # nobody has begun
            missing = _missing_bytes(store, read_plan(store, number), has_links=has_links)
    return Room(num_bytes, missing, free, has_links)


def check_disk(store: Path, plan: BuildPlan) -> None:
    """Refuse to begin, or to go on with, what the disk cannot hold.

    Raises:
        LaughstoreError: there is too little room.
    """
    has_links = can_link(_existing(store))
    # First: what others write between the two looks is then counted for this build, not against it.
    free = free_disk_bytes(store)
    needed = _missing_bytes(store, plan, has_links=has_links)
    if needed > free:
        twice = "" if has_links else " (shards twice: files cannot have two names there)"
        raise LaughstoreError(
            f"{store}: {needed / 1e9:.3g} GB are needed{twice} and {free / 1e9:.3g} GB are free;"
            " free some space, give another --store, or build a part with --split or --recordings"
        )


def store_bytes(
    recordings: Iterable[Planned], geometry: ShardGeometry, *, has_links: bool = True
) -> int:
    """Return about how many bytes a store of these takes; the shards are counted exactly.

    Args:
        recordings: of the store.
        geometry: of all shards.
        has_links: whether files can have two names; else shards, which have two, are copied.
    """
    frame_bytes = _CODE_BYTES_PER_FRAME + _ANNOTATION_BYTES_PER_FRAME
    num_copies = 1 if has_links else 2
    return sum(
        _SMALL_FILE_BYTES
        + len(item.assignments)
        * (num_copies * geometry.stream_bytes(item.num_frames) + frame_bytes * item.num_frames)
        for item in recordings
    )


def free_disk_bytes(path: Path) -> int:
    """Return the bytes free on the file system that a path is, or will be, on."""
    return shutil.disk_usage(_existing(path)).free


def _missing_bytes(store: Path, plan: BuildPlan, *, has_links: bool) -> int:
    """Return about how many bytes have to be written until a plan is finished."""
    pending = unfinished(store, plan)
    written = written_bytes(store, plan, pending)
    return sum(
        max(0, store_bytes([item], plan.geometry, has_links=has_links) - written[item.id])
        for item in pending
    )


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.absolute().parents) if folder.exists())
