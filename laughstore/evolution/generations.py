"""The generations of a store: which are kept, and what an addition that goes on has to know.

Each generation keeps its manifest under its number; `store.json` is the newest, and one behind it
never counted. Plans are numbered on their own: a plan behind those of the newest generation is an
addition that was begun and not finished.
"""

import re
from contextlib import suppress
from pathlib import Path

from .. import layout
from ..buildplan import BuildPlan, read_plan
from ..files import unlink_durably
from ..folders import LocalFolder
from ..manifest import Manifest, read_manifest
from ..unit import remove_unit_files

_GENERATION = re.compile(r"(\d{6})\.json")


def kept_generations(store: Path) -> tuple[int, ...]:
    """Return the numbers of the generations that can be opened, the newest last.

    Args:
        store: folder of a finished store.

    Raises:
        IncompleteStore: the build has not finished.
        CorruptData: store.json was altered.
    """
    newest = read_manifest(store).generation
    folder = store / layout.GENERATIONS
    entries = list(folder.iterdir()) if folder.is_dir() else []
    found = [_GENERATION.fullmatch(entry.name) for entry in entries if entry.is_file()]
    numbers = {int(match[1]) for match in found if match is not None}
    return tuple(sorted({newest, *(number for number in numbers if 0 < number < newest)}))


def read_generations(store: Path, numbers: tuple[int, ...]) -> tuple[Manifest, ...]:
    """Return manifests by number. Raises CorruptData for an altered one."""
    return tuple(read_manifest(store, number) for number in numbers)


def unfinished_addition(store: Path, manifest: Manifest) -> BuildPlan | None:
    """Return the plan of an addition that was begun and not finished.

    Args:
        store: folder of the store.
        manifest: its newest generation.

    Raises:
        CorruptData: the plan was altered.
    """
    number = manifest.num_plans + 1
    if not LocalFolder(store).exists(layout.plan(number)):
        return None
    return read_plan(store, number)


def next_shards(store: Path, num_plans: int) -> dict[str, int]:
    """Return, for each split, one more than the last shard number that any plan has given.

    Numbers of recordings that were left out are holes for ever: a number never means two shards.

    Args:
        store: folder of the store.
        num_plans: plans to look into, from the first.
    """
    following: dict[str, int] = {}
    for number in range(1, num_plans + 1):
        plan = read_plan(store, number)
        for item in plan.recordings:
            num_shards = plan.geometry.num_shards(item.num_frames)
            end = max(item.first_shards, default=0) + num_shards
            following[item.split] = max(following.get(item.split, 0), end)
    return following


def withdraw_addition(store: Path, manifest: Manifest) -> None:
    """Take back an addition that was begun; its plan goes last, so that a rerun can go on.

    Callers hold the store's exclusive lock.

    Args:
        store: folder of the store.
        manifest: its newest generation.
    """
    plan = unfinished_addition(store, manifest)
    if plan is None:
        return
    for item in plan.recordings:
        remove_unit_files(store, plan, item)
        notes = store / layout.annotations(item.annotations_id, item.split, item.id)
        notes.unlink(missing_ok=True)
        for folder in (notes.parent, notes.parent.parent):
            with suppress(OSError):  # not empty, or never made
                folder.rmdir()
    unlink_durably(store / layout.plan(manifest.num_plans + 1))
