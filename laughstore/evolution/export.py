"""Write recordings of a store as a store of its own, with the same bytes of features.

The new store has a plan of its own (shards are numbered from 0 again), the units of the chosen
recordings and one generation; nothing in it knows of the old store. Files are hard links where the
file system can make them: both stores only ever add and remove names, so neither can change the
other. The bytes of a linked file are not read, only its size: that makes an export of any size
quick, and `laughstore verify` of the new store compares them. It is begun and committed as a build
is: unfinished until its `store.json` stands, and the same call goes on with what a killed one has
left. While it goes on, nobody collects garbage in a local store that it reads.

Without annotations nothing that people have annotated goes along: shards are written again from
checked blocks, because their JSON members tell of events.
"""

import errno
import fnmatch
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from .. import layout
from ..buildplan import (
    Assignment,
    BuildPlan,
    PlannedRecording,
    RecordingToPlan,
    begin_plan,
    check_store_folder,
    make_plan,
)
from ..commit import commit_plan
from ..errors import ConfigError, LaughstoreError, SpecMismatch
from ..files import make_dirs
from ..index import Index, Recording
from ..locks import StoreLocks
from ..manifest import read_manifest
from ..progress import NoProgress, Progress
from ..sealed import read_sealed
from ..store import Store
from ..unit import remove_unit_files
from .export_writer import ExportWriter, bare_annotations


@dataclass(frozen=True)
class ExportResult:
    """What an export wrote."""

    out: Path
    num_recordings: int
    num_shards: int
    num_shard_bytes: int
    num_linked: int
    """Files that are hard links to those of the old store, by this run."""
    num_copied: int
    """Files that were copied or written by this run."""


def export(
    source: Store,
    out: Path,
    *,
    split: str | None = None,
    recordings: str | None = None,
    with_annotations: bool = True,
    copy: bool = False,
    progress: Progress | None = None,
) -> ExportResult:
    """Write recordings of a store as a store of its own, or go on with such an export.

    What is copied or written again is checked on the way. What is linked is not read: faults that
    the store has are in the new one too, until `laughstore verify` tells of them.

    Args:
        source: the store, local or remote.
        out: folder of the new store; must not exist, or hold the same export, unfinished.
        split: take this split only.
        recordings: shell pattern; take only recordings whose name or id matches.
        with_annotations: False leaves out all events, segments, turns, intervals and words. Names
            of recordings and of the speakers of assignments stay, and so do the codes.
        copy: copy files even where links could be made.
        progress: told of shard bytes.

    Raises:
        ConfigError: no such split, nothing matches, or `out` holds something else.
        NotFound: the generation has been collected since the store was opened.
        CorruptData: a file of the store is missing or of another size, or bytes that were read are
            not what the store says.
        LaughstoreError: another process is writing `out`.
    """
    progress = progress or NoProgress()
    chosen = _chosen(source.index, split, recordings)
    plan = _plan(source, chosen, with_annotations=with_annotations)
    _check_out(source, out)
    with ExitStack() as stack:
        stack.enter_context(_kept(source, progress))
        make_dirs(out)
        locks = stack.enter_context(StoreLocks(out, progress))
        if not stack.enter_context(locks.exclusive(wait=False)):
            raise LaughstoreError(f"{out}: another process is writing it; run again when it ended")
        _begin(out, plan)
        writer = ExportWriter(source, out, plan, copy=copy)
        progress.begin("export", sum(writer.shard_bytes(item) for item in chosen), "byte")
        try:
            for item, planned in zip(chosen, plan.recordings, strict=True):
                if not writer.is_there(item, planned):
                    if _was_begun(out, planned):
                        remove_unit_files(out, plan, planned)
                    if with_annotations:
                        writer.link_unit(item, planned)
                    else:
                        writer.write_bare_unit(item, planned)
                progress.advance(writer.shard_bytes(item))
        finally:
            progress.end()
        commit_plan(out, plan)
    return ExportResult(
        out=out,
        num_recordings=len(chosen),
        num_shards=sum(stream.num_shards for item in chosen for stream in item.streams),
        num_shard_bytes=sum(writer.shard_bytes(item) for item in chosen),
        num_linked=writer.num_linked,
        num_copied=writer.num_copied,
    )


@contextmanager
def _kept(source: Store, progress: Progress) -> Iterator[None]:
    """Keep others from collecting what is exported. Raises NotFound if it was collected already."""
    root = source.folder.local
    if root is None:
        yield
        return
    with ExitStack() as stack:
        try:
            locks = stack.enter_context(StoreLocks(root, progress))
        except OSError as error:
            # A store that may only be read: whoever may write it has to wait with `gc`.
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
        else:
            stack.enter_context(locks.shared())
        read_manifest(root, source.manifest.generation)
        yield


def _was_begun(out: Path, planned: PlannedRecording) -> bool:
    """Whether an earlier run may have left files of a unit: its arrays come before its shards."""
    arrays = layout.FEATURES, layout.CODES
    paths = [f"{root}/{planned.split}/{planned.id}" for root in arrays]
    return any((out / path).exists() for path in (layout.unit(planned.id), *paths))


def _chosen(index: Index, split: str | None, pattern: str | None) -> list[Recording]:
    if split is not None:
        index.check_split(split)
    of_split = [item for item in index.recordings if split in (None, item.split)]
    chosen = [
        item
        for item in of_split
        if pattern is None
        or fnmatch.fnmatchcase(item.name, pattern)
        or fnmatch.fnmatchcase(item.id, pattern)
    ]
    if not chosen:
        raise ConfigError(
            f"no recording of {index.where} (split: {split or 'all'}) matches {pattern!r}; there"
            f" are {len(of_split)}, the first is {of_split[0].name!r}"
        )
    return chosen


def _plan(source: Store, chosen: Sequence[Recording], *, with_annotations: bool) -> BuildPlan:
    first, _ = read_sealed(source.folder, layout.FIRST_PLAN)
    begun = BuildPlan.from_json(first, where=source.folder.describe(layout.FIRST_PLAN))
    return make_plan(
        source.index.spec,
        begun.device_kind,
        [
            RecordingToPlan(
                id=item.id,
                name=item.name,
                split=item.split,
                group=item.group,
                num_frames=item.num_frames,
                assignments=tuple(Assignment(s.assignment, s.main, s.other) for s in item.streams),
                annotations_id=(
                    item.annotations_id if with_annotations else bare_annotations(item).content_id()
                ),
            )
            for item in chosen
        ],
    )


def _check_out(source: Store, out: Path) -> None:
    root = source.folder.local
    if root is not None:
        store, target = root.resolve(), out.resolve()
        if target.is_relative_to(store) or store.is_relative_to(target):
            raise ConfigError(f"{out} and {root} lie in one another; give another --out")
    try:
        check_store_folder(out)
    except ConfigError as error:
        raise ConfigError(
            f"{out} exists and is no unfinished export; give another --out"
        ) from error


def _begin(out: Path, plan: BuildPlan) -> None:
    """Write the plan, or find it there."""
    if (out / layout.STORE_JSON).exists() and read_manifest(out).generation != 1:
        raise ConfigError(f"{out} is a store that was changed since; give another --out")
    try:
        begin_plan(out, plan)
    except (ConfigError, SpecMismatch) as error:
        raise ConfigError(f"{out} holds another store or export; give another --out") from error
