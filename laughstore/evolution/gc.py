"""Collect garbage: remove what no kept generation of a store names.

Only names that a store's own writers give are removed, and only those that one of its plans, or a
generation, could have given; whatever else lies in the folder is told of and left alone. A kill at
any point leaves a store that is whole, and running it again finishes: manifests of dropped
generations go first, so that a generation is listed only while all of it is there; records of units
go before their files, so that a unit never counts as finished when it is not.
"""

import os
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from .. import layout
from ..buildplan import BuildPlan, read_plan
from ..commit import refresh_copies
from ..errors import ConfigError, CorruptData, LaughstoreError
from ..files import TEMPORARY_MARK, fsync_dir
from ..folders import LocalFolder
from ..locks import StoreLocks
from ..manifest import Manifest, read_manifest
from ..progress import NoProgress, Progress
from ..store import open_store
from .generations import kept_generations, read_generations, unfinished_addition

_FOLDERS = (
    layout.GENERATIONS,
    layout.PLANS,
    layout.UNITS,
    layout.ANNOTATIONS,
    layout.SHARDS,
    layout.FEATURES,
    layout.CODES,
    layout.STATS,
)
_FILES = (layout.STORE_JSON, layout.QUARANTINE_JSON)
_NUMBERED = re.compile(
    rf"(?:{layout.GENERATIONS}/|{layout.SHARDS}/index-)(\d{{6}})\.(?:json|columns)"
)
_ANNOTATIONS = re.compile(rf"{layout.ANNOTATIONS}/[0-9a-f]{{8}}/([^/]+)/([^/]+)\.json")
_STATS = re.compile(rf"{layout.STATS}/([^/]+)\.json")
_TEMPORARY = re.compile(rf".+{re.escape(TEMPORARY_MARK)}[0-9a-f]{{12}}")
_STATS_WRITE_S = 3600.0
"""Statistics are written without a lock; what is older than this is nobody's work."""


@dataclass(frozen=True)
class GcResult:
    """What was removed, or would be."""

    generation: int
    """The newest."""
    kept: tuple[int, ...]
    dropped: tuple[int, ...]
    """Generations whose manifests are removed, with what only they name."""
    removed: tuple[str, ...]
    """Paths in the store, in the order of their removal."""
    num_bytes: int
    """Freed; bytes that stay under another name do not count."""
    left_alone: tuple[str, ...]
    """Paths that no writer of this store has made."""
    unfinished: tuple[str, ...]
    """Recordings of an addition that was begun and not finished: kept, or removed if asked for."""


def collect_garbage(
    store: Path,
    *,
    keep: int = 1,
    unfinished: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> GcResult:
    """Remove what no kept generation names.

    Args:
        store: folder of a finished store.
        keep: generations to keep, the newest ones.
        unfinished: remove an addition that was begun and not finished too.
        dry_run: only tell what would be removed.
        progress: told of each file.

    Raises:
        ConfigError: `keep` is less than 1.
        NotFound, IncompleteStore: there is no finished store.
        CorruptData: a file of a kept generation is missing or altered: nothing was removed.
        LaughstoreError: another process is writing or exporting the store.
    """
    if keep < 1:
        raise ConfigError(f"keep is {keep}; the newest generation always stays: give 1 or more")
    progress = progress or NoProgress()
    read_manifest(store)
    with ExitStack() as stack:
        if not dry_run or (store / layout.LOCK).exists():
            locks = stack.enter_context(StoreLocks(store, progress))
            if not stack.enter_context(locks.exclusive(wait=False)):
                raise LaughstoreError(
                    f"{store}: another process is writing or exporting it; collect garbage when it"
                    " has ended"
                )
        newest = open_store(store).manifest
        found = _Survey(store, newest, keep=keep, drop_unfinished=unfinished)
        if not dry_run:
            # Otherwise the shards folder alone could name columns that are about to go.
            refresh_copies(store, newest)
            _remove(store, found.garbage, progress)
    return GcResult(
        generation=newest.generation,
        kept=found.kept,
        dropped=found.dropped,
        removed=tuple(found.garbage),
        num_bytes=found.num_bytes,
        left_alone=tuple(found.left_alone),
        unfinished=found.unfinished,
    )


class _Survey:
    """What is in a store's folder: kept, garbage, not ours."""

    def __init__(self, store: Path, newest: Manifest, *, keep: int, drop_unfinished: bool) -> None:
        self._store = store
        self._newest = newest.generation
        numbers = kept_generations(store)
        self.kept = numbers[-keep:]
        self.dropped = numbers[:-keep]
        generations = read_generations(store, self.kept)
        begun = unfinished_addition(store, newest)
        self.unfinished = () if begun is None else tuple(item.name for item in begun.recordings)
        self._named = self._needed(generations)
        self._plans = [read_plan(store, i + 1) for i in range(newest.num_plans)]
        if begun is not None:
            self._plans.append(begun)
        if begun is not None and not drop_unfinished:
            self._named.add(layout.plan(newest.num_plans + 1))
            self._named.update(_planned_files(begun))
            for item in begun.recordings:
                self._named.add(layout.annotations(item.annotations_id, item.split, item.id))
        units = [path for path in self._named if path.startswith(f"{layout.UNITS}/")]
        self._named.update(layout.stats(PurePosixPath(path).stem) for path in units)
        self._recordings = {(r.split, r.id) for plan in self._plans for r in plan.recordings}
        self._ids = {recording_id for _, recording_id in self._recordings}
        self._written = {path for plan in self._plans for path in _planned_files(plan)}
        if begun is not None:
            self._written.add(layout.plan(newest.num_plans + 1))
        if not newest.quarantined:
            self._written.add(layout.QUARANTINE_JSON)
        for split in {split for split, _ in self._recordings}:
            for root in (layout.FEATURES, layout.CODES):
                self._written.add(layout.zarr_json(f"{root}/{split}"))
        self.left_alone: list[str] = []
        garbage: list[str] = []
        for path in self._files():
            if path not in self._named and not self._is_in_use(path):
                (garbage if self._is_ours(path) else self.left_alone).append(path)
        self.garbage = sorted(garbage, key=lambda path: (_phase(path), path))
        self.num_bytes = self._freed_bytes()

    def _needed(self, generations: Sequence[Manifest]) -> set[str]:
        """Names of kept generations, each checked to be there in its size."""
        named = {layout.STORE_JSON, layout.CURRENT_INDEX}
        if generations[-1].quarantined:
            named.add(layout.QUARANTINE_JSON)
        folder = LocalFolder(self._store)
        for generation in generations:
            named.add(layout.generation(generation.generation))
            for item in generation.all_files(folder):
                for path in (item.path, item.also):
                    if path is None or path in named:
                        continue
                    if not folder.exists(path) or folder.size(path) != item.num_bytes:
                        raise CorruptData(
                            f"{self._store / path} is missing or was cut, and generation"
                            f" {generation.generation} needs it; restore it before anything is"
                            " removed"
                        )
                    named.add(path)
        return named

    def _files(self) -> Iterator[str]:
        """Every file of the folder, and folders that are not ours as a whole."""
        for entry in sorted(os.scandir(self._store), key=lambda item: item.name):
            if entry.name == layout.LOCK:
                continue
            if entry.is_symlink() or not entry.is_dir() or entry.name not in _FOLDERS:
                yield entry.name + ("/" if entry.is_dir(follow_symlinks=False) else "")
                continue
            for parent, folders, names in os.walk(entry.path):
                folders.sort()
                links = [name for name in folders if Path(parent, name).is_symlink()]
                for name in sorted([*names, *links]):
                    yield Path(parent, name).relative_to(self._store).as_posix()

    def _is_in_use(self, path: str) -> bool:
        full = self._store / path
        if not path.startswith(f"{layout.STATS}/") or not _TEMPORARY.fullmatch(full.name):
            return False
        return time.time() - full.lstat().st_mtime < _STATS_WRITE_S

    def _is_ours(self, path: str) -> bool:
        """Whether a writer of this store may have made a file that nobody names."""
        full = self._store / path
        if path.endswith("/") or full.is_symlink() or not full.is_file():
            return False
        folder, _, name = path.rpartition("/")
        if _TEMPORARY.fullmatch(name):
            return bool(folder) or name.partition(TEMPORARY_MARK)[0] in _FILES
        if match := _NUMBERED.fullmatch(path):
            # One behind the newest is what a commit has left that was killed.
            return 1 <= int(match[1]) <= self._newest + 1
        if match := _ANNOTATIONS.fullmatch(path):
            return (match[1], match[2]) in self._recordings
        if match := _STATS.fullmatch(path):
            return match[1] in self._ids
        return path in self._written

    def _freed_bytes(self) -> int:
        inodes: Counter[tuple[int, int]] = Counter()
        status: dict[tuple[int, int], os.stat_result] = {}
        for path in self.garbage:
            found = (self._store / path).stat()
            key = found.st_dev, found.st_ino
            inodes[key] += 1
            status[key] = found
        return sum(
            status[key].st_size for key, names in inodes.items() if names == status[key].st_nlink
        )


def _planned_files(plan: BuildPlan) -> Iterator[str]:
    """Every file that the units of a plan are made of."""
    for item in plan.recordings:
        num_shards = plan.geometry.num_shards(item.num_frames)
        yield layout.unit(item.id)
        for root in (layout.FEATURES, layout.CODES):
            yield layout.zarr_json(f"{root}/{item.split}/{item.id}")
            for assignment in item.assignments:
                array = layout.array(root, item.split, item.id, assignment.name)
                yield layout.zarr_json(array)
                yield from (layout.chunk(array, number) for number in range(num_shards))
        for first in item.first_shards:
            yield from (layout.shard(item.split, first + i) for i in range(num_shards))


def _phase(path: str) -> int:
    """Order of removal: manifests, records of units, files, and a plan when its files are gone."""
    return {layout.GENERATIONS: 0, layout.UNITS: 1, layout.PLANS: 3}.get(path.split("/")[0], 2)


def _remove(store: Path, garbage: Sequence[str], progress: Progress) -> None:
    progress.begin("gc", len(garbage), "file")
    phase, folders = 0, set[PurePosixPath]()
    try:
        for path in garbage:
            if _phase(path) != phase:
                _sync(store, folders)
                phase, folders = _phase(path), set[PurePosixPath]()
            (store / path).unlink(missing_ok=True)
            folders.add(PurePosixPath(path).parent)
            progress.advance(1)
        _sync(store, folders)
    finally:
        progress.end()


def _sync(store: Path, folders: set[PurePosixPath]) -> None:
    """Make removals last, and take away folders that they left empty."""
    for folder in sorted(folders, key=lambda item: len(item.parts), reverse=True):
        fsync_dir(store / folder)
    for folder in sorted(folders, key=lambda item: len(item.parts), reverse=True):
        inner = folder
        while len(inner.parts) > 1:
            try:
                (store / inner).rmdir()
            except OSError:  # not empty, or taken away before
                if (store / inner).exists():
                    break
            inner = inner.parent
