"""Turn finished units into a generation: the index, then its manifest, then the current index.

Whoever finds every planned unit finished or quarantined may do it; doing it twice gives the same
bytes. A later generation adds recordings or changes annotations; what stands is never rewritten.
Of several writers one commits at a time: callers hold the store's exclusive lock (`locks`).
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from . import layout
from .annotations import Annotations, write_annotations
from .arrays import group_json
from .buildplan import BuildPlan, SkippedRecording
from .errors import ConfigError, CorruptData, IncompleteStore, LaughstoreError
from .files import link_or_copy, sha256_file, sync_names, unlink_durably, write_atomic
from .folders import LocalFolder
from .index_file import read_index
from .manifest import FileRecord, Manifest, read_manifest
from .members import Member, encode_members, members
from .sealed import canonical_json, unseal
from .spec import FeatureSpec
from .unit import UnitRecord, read_unit


class NothingBuilt(LaughstoreError):
    """None of the recordings of a plan could be built: there is nothing to publish."""


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
        NothingBuilt: no recording at all could be built.
    """
    there = newest_manifest(store)
    names = {item.name for item in (*plan.recordings, *plan.skipped)}
    if there is not None and there.num_plans >= number:
        refresh_current_index(store, there)
        out = (SkippedRecording(**item) for item in there.quarantined)
        return tuple(item for item in out if item.name in names)
    if there is None and number != 1:
        raise IncompleteStore(f"{store} has not been finished; finish it before adding to it")
    units = _units(store, plan)
    left_out = list(plan.skipped)
    for item in plan.recordings:
        if units[item.id].status != "done":
            reason = units[item.id].reason or "unknown"
            left_out.append(SkippedRecording(item.name, item.split, reason))
    done = [Member(p, units[p.id]) for p in plan.recordings if units[p.id].status == "done"]
    if not done:
        raise NothingBuilt(
            f"{store}: none of {len(plan.recordings) + len(plan.skipped)} recordings could be"
            f" built; the first: {left_out[0].name!r}: {left_out[0].reason}"
        )
    before = () if there is None else there.quarantined
    still_out = [item for item in before if item["name"] not in names]
    publish(
        store,
        generation=1 if there is None else there.generation + 1,
        spec=plan.spec,
        members=[*([] if there is None else members(store, there)), *done],
        quarantined=[*still_out, *(asdict(item) for item in left_out)],
        num_plans=number,
        before=there,
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
        CorruptData: a file of the store was altered.
    """
    folder = LocalFolder(store)
    index = read_index(folder.child(layout.SHARDS), Path(read_manifest(store).index).name)
    splits = {item.id: item.split for item in index.recordings}
    _refuse_unknown(store, changed, splits)
    written = {
        key: write_annotations(store, item, splits[key], key) for key, item in changed.items()
    }
    return commit_annotation_ids(store, written)


def commit_annotation_ids(store: Path, changed: Mapping[str, str]) -> Manifest:
    """Publish a generation with other annotations, which have been written.

    Args:
        store: folder of a finished store.
        changed: ids of the new annotations by recording id.

    Returns:
        The newest manifest: the one there was, if nothing changes.

    Raises:
        ConfigError: no such recording.
        CorruptData: a file of the store was altered.
    """
    there = read_manifest(store)
    before = members(store, there)
    _refuse_unknown(store, changed, {item.planned.id for item in before})
    after = [
        replace(item, planned=replace(item.planned, annotations_id=changed[item.planned.id]))
        if item.planned.id in changed
        else item
        for item in before
    ]
    if after == before:
        refresh_current_index(store, there)
        return there
    return publish(
        store,
        generation=there.generation + 1,
        spec=there.spec,
        members=after,
        quarantined=there.quarantined,
        num_plans=there.num_plans,
        before=there,
    )


def _refuse_unknown(store: Path, changed: Iterable[str], known: Container[str]) -> None:
    for key in changed:
        if key not in known:
            raise ConfigError(f"{store} has no recording {key!r}; annotate those it has")


def publish(
    store: Path,
    *,
    generation: int,
    spec: FeatureSpec,
    members: Sequence[Member],
    quarantined: Sequence[Mapping[str, str]],
    num_plans: int,
    before: Manifest | None = None,
) -> Manifest:
    """Write a generation: index and columns, its manifest, store.json, then the current index.

    Args:
        store: folder of the store.
        generation: its number, one more than the newest.
        spec: of the features.
        members: its recordings, in block order.
        quarantined: recordings left out.
        num_plans: plans that were carried out.
        before: the newest generation until now; files that both name are the same bytes.

    Raises:
        CorruptData: a file that is named again is not what it was.
    """
    # A commit that was killed may have left the manifest of this number: it names the bytes of an
    # index that is about to be replaced.
    unlink_durably(store / layout.generation(generation))
    known = {} if before is None else {item.path: item for item in before.files}
    index, columns = encode_members(store, generation, spec, members)
    files = [
        FileRecord.write(store, layout.columns(generation), columns),
        FileRecord.write(store, layout.index(generation), index),
    ]
    paths = [layout.plan(i + 1) for i in range(num_plans)]
    for item in members:
        planned = item.planned
        paths.append(layout.unit(planned.id))
        paths.append(layout.annotations(planned.annotations_id, planned.split, planned.id))
    files.extend(_same_file(store, path, known) for path in paths)
    roots = (layout.FEATURES, layout.CODES)
    splits = {item.planned.split for item in members}
    groups = sorted({*roots, *(f"{root}/{split}" for root in roots for split in splits)})
    files.extend(_group(store, layout.zarr_json(node)) for node in groups)
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
        unlink_durably(store / layout.QUARANTINE_JSON)
    sync_names(store, (item.path for item in files if item.path not in known))
    write_atomic(store / layout.STORE_JSON, data)
    write_atomic(store / layout.CURRENT_INDEX, index)
    return manifest


def quarantine_json(quarantined: Sequence[Mapping[str, str]]) -> bytes:
    """Return the list of recordings left out, for people; the manifest holds it too."""
    return canonical_json({"recordings": [dict(item) for item in quarantined]}) + b"\n"


def newest_manifest(store: Path) -> Manifest | None:
    """Return the newest generation of a store, or None when it has none yet."""
    return read_manifest(store) if (store / layout.STORE_JSON).exists() else None


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
    return num_restored + refresh_current_index(store, manifest)


def refresh_current_index(store: Path, manifest: Manifest) -> int:
    """Make index.json the copy of the newest index; returns how many files that changed."""
    # Whoever renamed store.json, or this one, may have been killed before the sync.
    sync_names(store, (layout.STORE_JSON, layout.CURRENT_INDEX))
    current, newest = store / layout.CURRENT_INDEX, (store / manifest.index).read_bytes()
    if current.is_file() and current.read_bytes() == newest:
        return 0
    write_atomic(current, newest)
    return 1


def _same_file(store: Path, path: str, known: Mapping[str, FileRecord]) -> FileRecord:
    """Return the record of an immutable file. What an earlier generation named is as it was."""
    found = FileRecord.of(store, path)
    if known.get(path, found) != found:
        raise CorruptData(
            f"{store / path}: its sha256 is not what {layout.STORE_JSON} says; restore it"
        )
    return found


def _group(store: Path, path: str) -> FileRecord:
    """Return the record of a Zarr group's metadata, written unless it is there."""
    data = group_json()
    if (store / path).is_file() and (store / path).read_bytes() == data:
        return FileRecord.of_bytes(path, data)
    return FileRecord.write(store, path, data)


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
