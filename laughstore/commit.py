"""Turn finished units into a generation: the index, then its manifest, then the current index.

Whoever finds every planned unit finished or quarantined may do it; doing it twice gives the same
bytes. A later generation adds recordings or changes annotations; what stands is never rewritten.
Of several writers one commits at a time: callers hold the store's exclusive lock (`locks`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from . import layout
from .annotations import Annotations, read_annotations, write_annotations
from .arrays import group_json
from .buildplan import Assignment, BuildPlan, PlannedRecording, SkippedRecording
from .errors import ConfigError, CorruptData, IncompleteStore, LaughstoreError
from .files import link_or_copy, sha256_file, write_atomic
from .folders import LocalFolder
from .geometry import ShardGeometry
from .index import Recording, Stream, encode_index, read_index
from .manifest import FileRecord, Manifest, read_manifest
from .sealed import canonical_json, unseal
from .spec import FeatureSpec
from .tables import Vocabulary, recording_tables
from .unit import UnitRecord, read_unit


@dataclass(frozen=True)
class Member:
    """A recording of a generation."""

    planned: PlannedRecording
    unit: UnitRecord


def commit_plan(store: Path, plan: BuildPlan, number: int = 1) -> tuple[SkippedRecording, ...]:
    """Publish the generation that a plan makes, once its units are all finished or quarantined.

    Args:
        store: folder of the store.
        plan: the plan; the annotations it names have been written.
        number: 1 for the plan that the store was begun with, more for additions.

    Returns:
        The recordings of the plan that were left out, with their reasons.

    Raises:
        IncompleteStore: a unit has not been finished.
        CorruptData: a unit's record or annotations were altered.
        LaughstoreError: no recording at all could be built.
    """
    there = newest_manifest(store)
    units = _units(store, plan)
    left_out = list(plan.skipped)
    for item in plan.recordings:
        if units[item.id].status != "done":
            reason = units[item.id].reason or "unknown"
            left_out.append(SkippedRecording(item.name, item.split, reason))
    if there is not None and there.num_plans >= number:
        _refresh_current_index(store, there)
        return tuple(left_out)
    if there is None and number != 1:
        raise IncompleteStore(f"{store} has not been finished; finish it before adding to it")
    done = [Member(p, units[p.id]) for p in plan.recordings if units[p.id].status == "done"]
    if not done:
        raise LaughstoreError(
            f"{store}: none of {len(plan.recordings) + len(plan.skipped)} recordings could be"
            f" built; the first: {left_out[0].name!r}: {left_out[0].reason}"
        )
    names = {item.planned.name for item in done}
    before = () if there is None else there.quarantined
    still_out = [item for item in before if item["name"] not in names]
    publish(
        store,
        generation=1 if there is None else there.generation + 1,
        spec=plan.spec,
        members=[*([] if there is None else members(store, there)), *done],
        quarantined=[*still_out, *(asdict(item) for item in left_out)],
        num_plans=number,
    )
    return tuple(left_out)


def commit_annotations(store: Path, changed: Mapping[str, Annotations]) -> Manifest:
    """Publish a generation with other annotations of some recordings; features stay as they are.

    Args:
        store: folder of a finished store.
        changed: new annotations by recording id; those equal to what stands change nothing.

    Returns:
        The newest manifest: the one there was, if nothing changes.

    Raises:
        ConfigError: no such recording.
        CorruptData: a unit's record or annotations were altered.
    """
    there = read_manifest(store)
    before = members(store, there)
    unknown = sorted(set(changed) - {item.planned.id for item in before})
    if unknown:
        raise ConfigError(f"{store} has no recording {unknown[0]!r}; annotate those it has")
    after: list[Member] = []
    for item in before:
        annotations = changed.get(item.planned.id)
        if annotations is None or annotations.content_id() == item.planned.annotations_id:
            after.append(item)
            continue
        new_id = write_annotations(store, annotations, item.planned.split, item.planned.id)
        after.append(replace(item, planned=replace(item.planned, annotations_id=new_id)))
    if after == before:
        return there
    return publish(
        store,
        generation=there.generation + 1,
        spec=there.spec,
        members=after,
        quarantined=there.quarantined,
        num_plans=there.num_plans,
    )


def publish(
    store: Path,
    *,
    generation: int,
    spec: FeatureSpec,
    members: Sequence[Member],
    quarantined: Sequence[Mapping[str, str]],
    num_plans: int,
) -> Manifest:
    """Write a generation: index and columns, its manifest, store.json, then the current index."""
    index, columns = _index(store, generation, spec, members)
    files = [
        FileRecord.write(store, layout.columns(generation), columns),
        FileRecord.write(store, layout.index(generation), index),
    ]
    files.extend(FileRecord.of(store, layout.plan(i + 1)) for i in range(num_plans))
    for item in members:
        planned = item.planned
        files.append(FileRecord.of(store, layout.unit(planned.id)))
        path = layout.annotations(planned.annotations_id, planned.split, planned.id)
        files.append(FileRecord.of(store, path))
    roots = (layout.FEATURES, layout.CODES)
    splits = {item.planned.split for item in members}
    groups = sorted({*roots, *(f"{root}/{split}" for root in roots for split in splits)})
    files.extend(FileRecord.write(store, layout.zarr_json(node), group_json()) for node in groups)
    files.sort(key=lambda item: item.path)
    manifest = Manifest(
        generation=generation,
        spec=spec,
        index=layout.index(generation),
        index_id=unseal(index, where=layout.index(generation))[1],
        num_plans=num_plans,
        quarantined=tuple(dict(item) for item in quarantined),
        files_json=[asdict(item) for item in files],
    )
    data = manifest.to_bytes()
    write_atomic(store / layout.generation(generation), data)
    if quarantined:
        write_atomic(store / layout.QUARANTINE_JSON, quarantine_json(quarantined))
    else:
        (store / layout.QUARANTINE_JSON).unlink(missing_ok=True)
    write_atomic(store / layout.STORE_JSON, data)
    write_atomic(store / layout.CURRENT_INDEX, index)
    return manifest


def quarantine_json(quarantined: Sequence[Mapping[str, str]]) -> bytes:
    """Return the list of recordings left out, for people; the manifest holds it too."""
    return canonical_json({"recordings": [dict(item) for item in quarantined]}) + b"\n"


def newest_manifest(store: Path) -> Manifest | None:
    """Return the newest generation of a store, or None when it has none yet."""
    return read_manifest(store) if (store / layout.STORE_JSON).exists() else None


def members(store: Path, manifest: Manifest) -> list[Member]:
    """Return the recordings of a generation with their units, in block order."""
    folder = LocalFolder(store)
    index = read_index(folder.child(layout.SHARDS), Path(manifest.index).name)
    found: list[Member] = []
    for item in index.recordings:
        unit = read_unit(store, item.id)
        if unit is None or unit.status != "done":
            raise CorruptData(f"{store / layout.unit(item.id)} is missing; restore it")
        planned = PlannedRecording(
            id=item.id,
            name=item.name,
            split=item.split,
            group=item.group,
            num_frames=item.num_frames,
            annotations_id=item.annotations_id,
            assignments=tuple(Assignment(s.assignment, s.main, s.other) for s in item.streams),
            first_shards=tuple(stream.first_shard for stream in item.streams),
        )
        found.append(Member(planned, unit))
    return found


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
    for item in manifest.all_files(LocalFolder(store)):
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
    return num_restored + _refresh_current_index(store, manifest)


def _refresh_current_index(store: Path, manifest: Manifest) -> int:
    """Make index.json the copy of the newest index; returns how many files that changed."""
    current, newest = store / layout.CURRENT_INDEX, (store / manifest.index).read_bytes()
    if current.is_file() and current.read_bytes() == newest:
        return 0
    write_atomic(current, newest)
    return 1


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


def _index(
    store: Path, generation: int, spec: FeatureSpec, members: Sequence[Member]
) -> tuple[bytes, bytes]:
    geometry = ShardGeometry(spec.dim, spec.block_frames, spec.shard_frames)
    notes = [_annotations(store, item.planned) for item in members]
    vocabulary = Vocabulary.of(notes)
    tables = [recording_tables(note, vocabulary) for note in notes]
    recordings: list[Recording] = []
    block = 0
    for item, table in zip([member.planned for member in members], tables, strict=True):
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
    units = [item.unit for item in members]
    sizes = [unit.block_bytes for unit in units if unit.block_bytes is not None]
    assert len(sizes) in (0, len(units)), "one codec a store"
    return encode_index(
        generation=generation,
        spec=spec,
        recordings=recordings,
        tables=tables,
        vocabulary=vocabulary,
        shard_bytes=[size for unit in units for size in unit.shard_bytes],
        shard_sha256=[digest for unit in units for digest in unit.shard_sha256],
        block_crc32c=[crc for unit in units for crc in unit.block_crc32c],
        block_bytes=[size for unit in sizes for size in unit] if sizes else None,
    )


def _annotations(store: Path, item: PlannedRecording) -> Annotations:
    """Annotations of a recording without its words, which no index holds."""
    return replace(
        read_annotations(LocalFolder(store), item.annotations_id, item.split, item.id), words=None
    )
