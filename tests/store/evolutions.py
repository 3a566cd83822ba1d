"""Changes of small real stores, by the store's own writers and without a model.

Functions that take a store alone are also run by children under the shim of `tests.faults`.
"""

import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from laughstore import layout, open_store
from laughstore.annotations import Annotations, write_annotations
from laughstore.buildplan import BuildPlan, PlannedRecording, RecordingToPlan, begin_plan, make_plan
from laughstore.commit import refresh_copies
from laughstore.errors import LaughstoreError
from laughstore.evolution.annotate import Revised, annotate, merge_events
from laughstore.evolution.export import export
from laughstore.evolution.gc import collect_garbage
from laughstore.evolution.generations import next_shards
from laughstore.locks import StoreLocks
from laughstore.manifest import Manifest, read_manifest
from laughstore.naming import recording_id
from laughstore.progress import NoProgress
from laughstore.sharing import Share, build_together
from laughstore.unit import UnitRecord, remove_unit_files, write_unit
from laughstore.unitwriter import UnitWriter
from tests.stores import (
    DEVICE_KIND,
    Episode,
    laugh,
    numbered_codes,
    random_features,
    write_store,
)

DIM, BLOCK, SHARD = 16, 32, 64
FEATURES = random_features(DIM)
FIRST = (
    Episode("one", num_frames=100, events=(laugh(1, 2), laugh(4, 5))),
    Episode("two", "validation", num_frames=70, events=(laugh(3, 4),), speakers=("A",)),
)
MORE = (
    Episode("three", num_frames=70, events=(laugh(2, 3),), speakers=("B",)),
    Episode("four", "test", num_frames=40, speakers=("C",)),
)


def write_first(store: Path) -> Path:
    """Two recordings of two splits."""
    return write_store(
        store, FIRST, FEATURES, dim=DIM, block_frames=BLOCK, shard_frames=SHARD, chunk_frames=50
    )


def copy_store(store: Path, target: Path) -> Path:
    """A copy with hard links kept, faster than writing it again."""
    subprocess.run(["cp", "-a", str(store), str(target)], check=True)
    return target


def begin_addition(
    store: Path, episodes: Sequence[Episode], manifest: Manifest | None = None
) -> tuple[BuildPlan, int]:
    """Write the plan of an addition, or find it. Returns it and its number.

    The manifest is the one by which the episodes were chosen: another process may have added them
    since, under the number that follows in it.
    """
    manifest = manifest or read_manifest(store)
    plan = make_plan(
        manifest.spec,
        DEVICE_KIND,
        [
            RecordingToPlan(
                id=recording_id(item.name),
                name=item.name,
                split=item.split,
                group=item.name,
                num_frames=item.num_frames,
                assignments=item.assignments,
                annotations_id=item.annotations.content_id(),
            )
            for item in episodes
        ],
        first_shards=next_shards(store, manifest.num_plans),
    )
    number = manifest.num_plans + 1
    return begin_plan(store, plan, number), number


def write_unit_of(store: Path, plan: BuildPlan, planned: PlannedRecording, item: Episode) -> None:
    """Write one recording of an addition."""
    write_annotations(store, item.annotations, planned.split, planned.id)
    rows = np.stack(
        [FEATURES(item.name, i, item.num_frames) for i in range(len(planned.assignments))]
    )
    with UnitWriter(store, plan, planned, item.annotations) as writer:
        writer.write(rows, numbered_codes(len(rows), item.num_frames))
        writer.finish()


def add_episodes(store: Path, episodes: Sequence[Episode], failing: Sequence[str] = ()) -> int:
    """Append recordings; those named as failing are quarantined. Returns the generation.

    As `laughstore add`, it passes over what the store has.
    """
    opened = open_store(store)
    there = {item.id for item in opened.recordings}
    episodes = [item for item in episodes if recording_id(item.name) not in there]
    if not episodes:
        manifest = read_manifest(store)
        refresh_copies(store, manifest)
        return manifest.generation
    plan, number = begin_addition(store, episodes, opened.manifest)
    by_id = {recording_id(item.name): item for item in episodes}

    def write(share: Share) -> None:
        while (planned := share.take()) is not None:
            if planned.name in failing:
                remove_unit_files(store, plan, planned)
                write_unit(store, UnitRecord(planned.id, "quarantined", "no good"))
            else:
                write_unit_of(store, plan, planned, by_id[planned.id])

    with StoreLocks(store) as locks:
        build_together(store, plan, locks, write, number=number, progress=NoProgress())
    return read_manifest(store).generation


def begin_and_stop(store: Path) -> None:
    """An addition of which one recording is finished and another one is not."""
    plan, _ = begin_addition(store, MORE)
    write_unit_of(store, plan, plan.recordings[0], MORE[0])
    write_annotations(store, MORE[1].annotations, MORE[1].split, recording_id(MORE[1].name))
    array = layout.array(layout.FEATURES, "test", recording_id("four"), "c--silence")
    left = store / f"{layout.chunk(array, 0)}.partial-0123456789ab"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")


def revise(name: str, old: Annotations) -> Revised:
    """One laugh more."""
    return Revised(replace(old, events=(*old.events, laugh(6, 7)), turns=()))


def annotate_one(store: Path) -> int:
    """Another generation, in which one recording differs."""
    return annotate(store, ["one"], revise).generation


def annotate_again(store: Path) -> int:
    """Another generation; run a second time, nothing changes."""

    def more(name: str, old: Annotations) -> Revised:
        return Revised(replace(old, events=merge_events(old.events, [laugh(9, 10)]), words=()))

    return annotate(store, ["one"], more).generation


def annotate_both(store: Path) -> int:
    """Another generation, in which both first recordings differ."""
    return annotate(store, ["one", "two"], revise).generation


def add_more(store: Path) -> int:
    """Append two recordings."""
    return add_episodes(store, MORE)


def collect(store: Path) -> list[str]:
    """Remove all that the newest generation does not name."""
    return list(collect_garbage(store).removed)


def collect_unfinished(store: Path) -> list[str]:
    """Remove an unfinished addition too."""
    return list(collect_garbage(store, unfinished=True).removed)


def export_train(store: Path) -> int:
    """Export a split, with links."""
    return export(open_store(store), store.parent / "out", split="train").num_linked


def export_copy(store: Path) -> int:
    """Export all, with copies."""
    return export(open_store(store), store.parent / "out", copy=True).num_copied


def export_bare(store: Path) -> int:
    """Export all, without annotations."""
    return export(open_store(store), store.parent / "out", with_annotations=False).num_copied


def annotate_with(store: Path, start_s: float) -> int:
    """One laugh more, at a time of its own."""

    def more(name: str, old: Annotations) -> Revised:
        return Revised(replace(old, events=(*old.events, laugh(start_s, start_s + 1))))

    return annotate(store, ["one"], more).generation


def annotate_and_collect(store: Path, rounds: int) -> None:
    """Again and again another generation, and the one before it removed."""
    for number in range(rounds):
        annotate_with(store, 20.0 + number)
        with suppress(LaughstoreError):  # the other one is writing
            collect_garbage(store)
