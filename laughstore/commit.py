"""Turn finished units into a generation, which `publishing` writes.

Whoever finds every planned unit finished or quarantined may do it; doing it twice gives the same
bytes. A later generation adds recordings or changes annotations; what stands is never rewritten.
Of several writers one commits at a time: callers hold the store's exclusive lock (`locks`).
"""

from collections.abc import Container, Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path

from . import layout
from .annotations import Annotations, write_annotations
from .buildplan import BuildPlan, SkippedRecording
from .errors import ConfigError, CorruptData, IncompleteStore, LaughstoreError, NotFound
from .files import link_or_copy, sha256_file
from .folders import LocalFolder
from .index_file import read_index
from .manifest import Manifest, read_manifest
from .members import Member, members
from .publishing import newest_manifest, publish, refresh_copies
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
