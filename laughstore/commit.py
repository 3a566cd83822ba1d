"""Turn finished units into a generation: the index, its manifest, then what only repeats them.

Whoever finds every planned unit finished or quarantined may do it; doing it twice gives the same
bytes. A later generation adds recordings or changes annotations; what stands is never rewritten.
Of several writers one commits at a time: callers hold the store's exclusive lock (`locks`).
"""

import os
from collections.abc import Container, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

from . import layout
from .annotations import Annotations, write_annotations
from .arrays import group_json
from .buildplan import BuildPlan, SkippedRecording
from .errors import ConfigError, CorruptData, IncompleteStore, LaughstoreError, NotFound
from .files import (
    create_atomic,
    link_or_copy,
    sha256_file,
    sync_names,
    unlink_durably,
    write_atomic,
)
from .folders import LocalFolder
from .index_file import read_index
from .manifest import FileRecord, Manifest, read_manifest
from .members import Member, encode_members, members
from .sealed import canonical_json, read_small, unseal
from .spec import FeatureSpec
from .unit import read_unit

NOT_BUILT = "not built when the store was committed with --partial"
"""Why a recording is left out of a partial commit."""


class NothingBuilt(LaughstoreError):
    """None of the recordings of a plan could be built: there is nothing to publish."""


def commit_plan(
    store: Path, plan: BuildPlan, number: int = 1, *, partial: bool = False
) -> tuple[SkippedRecording, ...]:
    """Publish the generation that a plan makes, once its units are all finished or quarantined.

    Args:
        store: folder of the store.
        plan: the plan; the annotations it names have been written.
        number: 1 for the plan that the store was begun with, more for additions.
        partial: leave out what has not been finished. Recordings that were begun have no files:
            `laughstore.finishing` removes them.

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
        refresh_copies(store, there)
        return _left_out(there, names)
    if there is None and number != 1:
        raise IncompleteStore(f"{store} has not been finished; finish it before adding to it")
    left_out = list(plan.skipped)
    done: list[Member] = []
    for item in plan.recordings:
        record = read_unit(store, item.id)
        if record is not None and record.status == "done":
            done.append(Member(item, record))
        elif record is not None:
            left_out.append(SkippedRecording(item.name, item.split, record.reason or "unknown"))
        elif partial:
            left_out.append(SkippedRecording(item.name, item.split, NOT_BUILT))
        else:
            raise IncompleteStore(
                f"{store}: recording {item.name!r} has not been extracted; run the same"
                " `laughstore build` again to go on"
            )
    if not done:
        raise NothingBuilt(
            f"{store}: none of {len(plan.recordings) + len(plan.skipped)} recordings could be"
            f" built; the first: {left_out[0].name!r}: {left_out[0].reason}"
        )
    before = () if there is None else there.quarantined
    still_out = [item for item in before if item["name"] not in names]
    published = publish(
        store,
        generation=1 if there is None else there.generation + 1,
        spec=plan.spec,
        members=[*([] if there is None else members(store, there)), *done],
        quarantined=[*still_out, *(asdict(item) for item in left_out)],
        num_plans=number,
        before=there,
    )
    return _left_out(published, names)


def _left_out(manifest: Manifest, names: Container[str]) -> tuple[SkippedRecording, ...]:
    out = (SkippedRecording(**item) for item in manifest.quarantined)
    return tuple(item for item in out if item.name in names)


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
        refresh_copies(store, there)
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
    """Write a generation: index and columns, its manifest, store.json, then `refresh_copies`.

    Args:
        store: folder of the store.
        generation: its number, one more than the newest.
        spec: of the features.
        members: its recordings, in block order.
        quarantined: recordings left out.
        num_plans: plans that were carried out.
        before: the newest generation until now; files that both name are the same bytes.

    Returns:
        What was published: by another host meanwhile, if that was generation 1.

    Raises:
        CorruptData: a file that is named again is not what it was.
        LaughstoreError: another host has published a later generation meanwhile.
    """
    known = {} if before is None else {item.path: item for item in before.files}
    index, columns = encode_members(store, generation, spec, members)
    paths = [layout.plan(i + 1) for i in range(num_plans)]
    for item in members:
        planned = item.planned
        paths.append(layout.unit(planned.id))
        paths.append(layout.annotations(planned.annotations_id, planned.split, planned.id))
    roots = (layout.FEATURES, layout.CODES)
    splits = {item.planned.split for item in members}
    groups = sorted({*roots, *(f"{root}/{split}" for root in roots for split in splits)})
    written = {layout.columns(generation): columns, layout.index(generation): index}
    files = [FileRecord.of_bytes(path, data) for path, data in written.items()]
    files.extend(_same_file(store, path, known) for path in paths)
    files.extend(FileRecord.of_bytes(layout.zarr_json(node), group_json()) for node in groups)
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
    written[layout.generation(generation)] = manifest.to_bytes()
    replaced: dict[str, bytes] = {}
    other = _published_meanwhile(store, before)
    if other is None:
        _write_files(store, written, groups, replaced)
        sync_names(store, (item.path for item in files if item.path not in known))
        other = _count(store, before, manifest)
    if other is not None:
        return _give_way(store, manifest, before, other, replaced)
    # A host that sees no locks may have written its own under these names before we counted.
    for path, data in written.items():
        if not _is_file_of(store, path, data):
            write_atomic(store / path, data)
    refresh_copies(store, manifest)
    return manifest


def _write_files(
    store: Path, written: Mapping[str, bytes], groups: Iterable[str], replaced: dict[str, bytes]
) -> None:
    """Write the files of a generation, its manifest last; keep what had their names until now."""
    *others, generation = written
    for path in written:
        with suppress(FileNotFoundError):
            replaced[path] = (store / path).read_bytes()
    # A commit that was killed may have left the manifest of this number: it names the bytes of an
    # index that is about to be replaced.
    unlink_durably(store / generation)
    for path in others:
        write_atomic(store / path, written[path])
    for node in groups:
        _write_group(store, layout.zarr_json(node))
    write_atomic(store / generation, written[generation])


def _count(store: Path, before: Manifest | None, manifest: Manifest) -> Manifest | None:
    """Write store.json. Returns that of another host instead, if one was faster."""
    other = _published_meanwhile(store, before)
    if other is not None:
        return other
    if before is not None:
        write_atomic(store / layout.STORE_JSON, manifest.to_bytes())
        return None
    # Of several that finish a store without seeing each other's locks, the first one counts.
    return None if create_atomic(store / layout.STORE_JSON, manifest.to_bytes()) else (
        read_manifest(store)
    )


def _published_meanwhile(store: Path, before: Manifest | None) -> Manifest | None:
    """Return the newest generation if it is no longer the one that ours is built on."""
    if before is None:
        return newest_manifest(store)
    newest = read_manifest(store)
    is_same = (newest.generation, newest.index_id) == (before.generation, before.index_id)
    return None if is_same else newest


def _give_way(
    store: Path,
    manifest: Manifest,
    before: Manifest | None,
    other: Manifest,
    replaced: Mapping[str, bytes],
) -> Manifest:
    """Put back what another host has published under our names. Returns its manifest.

    Raises:
        LaughstoreError: it stands in the place of a generation that was to change others.
    """
    data, mine = other.to_bytes(), manifest.to_bytes()
    for path, old in replaced.items():
        if FileRecord.of_bytes(path, old) in other.files and not _is_file_of(store, path, old):
            write_atomic(store / path, old)
    numbered = layout.generation(other.generation)
    if other.generation == manifest.generation and not _is_file_of(store, numbered, data):
        write_atomic(store / numbered, data)
    refresh_copies(store, other)
    if before is None or data == mine:
        return other
    raise LaughstoreError(
        f"{store}: another process has published generation {other.generation} meanwhile, on a"
        " host whose locks are not seen here; run the same command again, alone"
    )


def _is_file_of(store: Path, path: str, data: bytes) -> bool:
    try:
        return FileRecord.of(store, path) == FileRecord.of_bytes(path, data)
    except FileNotFoundError:
        return False


def quarantine_json(quarantined: Sequence[Mapping[str, str]]) -> bytes | None:
    """Return the list of recordings left out, for people; the manifest holds it too.

    None when nothing was left out: then there is no such file.
    """
    if not quarantined:
        return None
    return canonical_json({"recordings": [dict(item) for item in quarantined]}) + b"\n"


def newest_manifest(store: Path) -> Manifest | None:
    """Return the newest generation of a store, or None when it has none yet."""
    return read_manifest(store) if (store / layout.STORE_JSON).exists() else None


def restore_names(store: Path, manifest: Manifest) -> int:
    """Give back names that a finished store has lost, as far as its other names go.

    A shard is linked from its other name, once its SHA-256 is what the manifest says; then
    `refresh_copies`. No file that the manifest names is changed. Every name is looked at, and what
    stands there has to have its size; only `laughstore verify` reads it.

    Returns:
        How many names were given back.

    Raises:
        IncompleteStore: a file is gone under all its names.
        CorruptData: a file was cut, what is left of a lost one was altered, or a symbolic link
            stands in a file's place.
    """
    folder = LocalFolder(store)
    num_restored = 0
    for item in manifest.all_files(folder):
        names = [name for name in (item.path, item.also) if name is not None]
        there = [name for name in names if _is_there(folder, name, item.num_bytes)]
        missing = [name for name in names if name not in there]
        if missing and not there:
            raise IncompleteStore(
                f"{store / missing[0]} is missing; a finished store is never rewritten: restore the"
                " file, or build into another --store"
            )
        for name in missing:
            source, target = folder.path(there[0]), folder.path(name)
            if sha256_file(source) != item.sha256:
                raise CorruptData(f"{source}: its sha256 is not what store.json says; restore it")
            link_or_copy(source, target)
            num_restored += 1
    return num_restored + refresh_copies(store, manifest)


def refresh_copies(store: Path, manifest: Manifest) -> int:
    """Make index.json the copy of the newest index, and quarantine.json that of its list.

    Both come after store.json: whoever was killed in between has left those of a generation before.

    Returns:
        How many files that changed.

    Raises:
        CorruptData: the newest index is missing, is behind a symbolic link, or is not the one that
            the manifest names; then nothing was changed.
    """
    folder = LocalFolder(store)
    wanted = {
        layout.CURRENT_INDEX: _newest_index(folder, manifest),
        layout.QUARANTINE_JSON: quarantine_json(manifest.quarantined),
    }
    # Whoever renamed store.json, or these, may have been killed before the sync.
    sync_names(store, (layout.STORE_JSON, layout.CURRENT_INDEX))
    num_changed = 0
    for name, data in wanted.items():
        # The names themselves are replaced or removed, not what a link in their place leads to.
        if data is None:
            if os.path.lexists(store / name):
                num_changed += unlink_durably(store / name)
        elif not _holds(folder, name, data):
            write_atomic(store / name, data)
            num_changed += 1
    return num_changed


def _newest_index(folder: LocalFolder, manifest: Manifest) -> bytes:
    """Return the bytes of a generation's index, once they are what the manifest names."""
    where = folder.describe(manifest.index)
    try:
        data = read_small(folder, manifest.index)
        if unseal(data, where=where)[1] == manifest.index_id:
            return data
        what = f"{where} is not the index that store.json names; restore it"
    except (CorruptData, NotFound) as error:
        what = str(error)
    try:
        copy = read_small(folder, layout.CURRENT_INDEX)
        is_intact = unseal(copy, where=where)[1] == manifest.index_id
    except (CorruptData, NotFound):
        is_intact = False
    if is_intact:
        what += f" ({layout.CURRENT_INDEX} is intact: copy it to {manifest.index})"
    raise CorruptData(what)


def _is_there(folder: LocalFolder, name: str, num_bytes: int) -> bool:
    """Whether a file has this name. Raises CorruptData when it has another size."""
    try:
        found = folder.size(name)
    except NotFound:
        return False
    if found != num_bytes:
        raise CorruptData(
            f"{folder.describe(name)} has {found} bytes, {num_bytes} were written; a finished store"
            " is never rewritten: restore the file (`laughstore verify` tells of all)"
        )
    return True


def _holds(folder: LocalFolder, name: str, data: bytes) -> bool:
    try:
        return read_small(folder, name) == data
    except (CorruptData, NotFound):
        return False


def _same_file(store: Path, path: str, known: Mapping[str, FileRecord]) -> FileRecord:
    """Return the record of an immutable file. What an earlier generation named is as it was."""
    found = FileRecord.of(store, path)
    if known.get(path, found) != found:
        raise CorruptData(
            f"{store / path}: its sha256 is not what {layout.STORE_JSON} says; restore it"
        )
    return found


def _write_group(store: Path, path: str) -> None:
    """Write a Zarr group's metadata unless it is there."""
    data = group_json()
    if not ((store / path).is_file() and (store / path).read_bytes() == data):
        write_atomic(store / path, data)
