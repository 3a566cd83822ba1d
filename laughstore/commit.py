"""Turn finished units into a generation: the index, then store.json, then the current index.

Whoever finds every planned unit finished or quarantined may do it; doing it twice gives the same
bytes.
"""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

from . import layout
from .annotations import Annotations, read_annotations
from .arrays import group_json
from .buildplan import BuildPlan, PlannedRecording, SkippedRecording
from .errors import CorruptData, IncompleteStore, LaughstoreError
from .files import link_or_copy, sha256_file, write_atomic
from .index import Recording, Stream, encode_index
from .manifest import FileRecord, Manifest
from .sealed import canonical_json
from .tables import Vocabulary, recording_tables
from .unit import UnitRecord, read_unit

FIRST_GENERATION = 1


def commit_store(store: Path, plan: BuildPlan) -> tuple[SkippedRecording, ...]:
    """Write the first generation of a store whose units are all finished or quarantined.

    Args:
        store: folder of the store.
        plan: its plan; the annotations it names have been written.

    Returns:
        The recordings that were left out, with their reasons.

    Raises:
        IncompleteStore: a unit has not been finished.
        CorruptData: a unit's record or annotations were altered.
        LaughstoreError: no recording at all could be built.
    """
    units = _units(store, plan)
    done = [item for item in plan.recordings if units[item.id].status == "done"]
    left_out = list(plan.skipped)
    for item in plan.recordings:
        if item not in done:
            reason = units[item.id].reason or "unknown"
            left_out.append(SkippedRecording(item.name, item.split, reason))
    if not done:
        raise LaughstoreError(
            f"{store}: none of {len(plan.recordings) + len(plan.skipped)} recordings could be"
            f" built; the first: {left_out[0].name!r}: {left_out[0].reason}"
        )
    index = _index(plan, done, units, _annotations(store, done))
    files = [
        FileRecord.write(store, layout.index(FIRST_GENERATION), index),
        FileRecord.of(store, layout.PLAN_JSON),
    ]
    for item in done:
        files.extend(units[item.id].files)
        files.append(FileRecord.of(store, layout.unit(item.id)))
        path = layout.annotations(item.annotations_id, item.split, item.id)
        files.append(FileRecord.of(store, path))
    roots = (layout.FEATURES, layout.CODES)
    groups = sorted({*roots, *(f"{root}/{item.split}" for root in roots for item in done)})
    files.extend(FileRecord.write(store, layout.zarr_json(node), group_json()) for node in groups)
    manifest = Manifest(
        generation=FIRST_GENERATION,
        spec=plan.spec,
        index=layout.index(FIRST_GENERATION),
        files=tuple(sorted(files, key=lambda item: item.path)),
        quarantined=tuple(asdict(item) for item in left_out),
    )
    if left_out:
        report = {"recordings": [asdict(item) for item in left_out]}
        write_atomic(store / layout.QUARANTINE_JSON, canonical_json(report) + b"\n")
    write_atomic(store / layout.STORE_JSON, manifest.to_bytes())
    write_atomic(store / layout.CURRENT_INDEX, index)
    return tuple(left_out)


def restore_names(store: Path, manifest: Manifest) -> int:
    """Give back names that a finished store has lost, as far as its other names go.

    The current index is copied from the generation's; a shard is linked from its other name, once
    its SHA-256 is what the manifest says. Nothing that is there is changed.

    Returns:
        How many names were given back.

    Raises:
        IncompleteStore: a file is gone under all its names.
        CorruptData: what is left of it was altered.
    """
    num_restored = 0
    for item in manifest.files:
        names = [store / name for name in (item.path, item.also) if name is not None]
        missing = [path for path in names if not path.is_file()]
        there = [path for path in names if path.is_file()]
        if missing and not there:
            raise IncompleteStore(
                f"{missing[0]} is missing; a finished store is never rewritten: restore the file,"
                " or build into another --store"
            )
        for path in missing:
            if sha256_file(there[0]) != item.sha256:
                raise CorruptData(f"{there[0]}: its sha256 is not what store.json says; restore it")
            link_or_copy(there[0], path)
            num_restored += 1
    current, newest = store / layout.CURRENT_INDEX, (store / manifest.index).read_bytes()
    if not current.is_file() or current.read_bytes() != newest:
        write_atomic(current, newest)
        num_restored += 1
    return num_restored


def _units(store: Path, plan: BuildPlan) -> dict[str, UnitRecord]:
    units: dict[str, UnitRecord] = {}
    for item in plan.recordings:
        record = read_unit(store, item.id)
        if record is None:
            raise IncompleteStore(
                f"{store}: recording {item.name!r} has not been extracted; run the same"
                " `laughstore build` again to go on"
            )
        units[item.id] = record
    return units


def _annotations(store: Path, done: list[PlannedRecording]) -> dict[str, Annotations]:
    """Annotations of these recordings without their words, which no index holds."""
    return {
        item.id: replace(
            read_annotations(store, item.annotations_id, item.split, item.id), words=None
        )
        for item in done
    }


def _index(
    plan: BuildPlan,
    done: list[PlannedRecording],
    units: Mapping[str, UnitRecord],
    annotations: Mapping[str, Annotations],
) -> bytes:
    geometry = plan.geometry
    vocabulary = Vocabulary.of([annotations[item.id] for item in done])
    tables = [recording_tables(annotations[item.id], vocabulary) for item in done]
    recordings: list[Recording] = []
    block = 0
    for item, table in zip(done, tables, strict=True):
        streams: list[Stream] = []
        for assignment, first_shard in zip(item.assignments, item.first_shards, strict=True):
            stream = Stream(
                recording_id=item.id,
                split=item.split,
                assignment=assignment.name,
                main=assignment.main,
                other=assignment.other,
                num_frames=item.num_frames,
                first_block=block,
                num_blocks=geometry.num_blocks(item.num_frames),
                first_shard=first_shard,
                num_shards=geometry.num_shards(item.num_frames),
            )
            block += stream.num_blocks
            streams.append(stream)
        recordings.append(
            Recording(
                id=item.id,
                name=item.name,
                split=item.split,
                group=item.group,
                duration_us=table.duration_us,
                num_frames=item.num_frames,
                annotations_id=item.annotations_id,
                speakers=table.speakers,
                streams=tuple(streams),
            )
        )
    return encode_index(
        generation=FIRST_GENERATION,
        spec=plan.spec,
        recordings=recordings,
        tables=tables,
        vocabulary=vocabulary,
        shard_bytes=[size for item in done for size in units[item.id].shard_bytes],
        block_crc32c=[crc for item in done for crc in units[item.id].block_crc32c],
    )
