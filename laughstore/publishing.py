"""Publish a generation: the index, its manifest, store.json, then what only repeats them.

Callers hold the store's exclusive lock. Hosts that do not see each other's locks may publish at
once all the same: the first counts, and the other leaves its files alone or puts them back.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from . import layout
from .arrays import group_json
from .errors import CorruptData, LaughstoreError, NotFound
from .files import create_atomic, sync_names, unlink_durably, write_atomic
from .folders import LocalFolder
from .manifest import FileRecord, Manifest, read_manifest
from .members import Member, encode_members
from .sealed import canonical_json, read_small, unseal
from .spec import FeatureSpec


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
    if create_atomic(store / layout.STORE_JSON, manifest.to_bytes()):
        return None
    return read_manifest(store)


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
