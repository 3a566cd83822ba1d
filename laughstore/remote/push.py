"""Push a store to a bucket or the hub: data first, the manifest last, each shard once.

What the newest generation names goes up under the names it has; a shard under its tar name alone,
since the arrays of a remote store are read from its shards. The order makes every moment safe:
until `store.json` is replaced, readers see the generation that was there, or none; and the files of
that one are never touched.

    plans, index-<n>.json   first, and only where there are none: the claim of this store, and of
                            this generation, on the URL; nobody reads them yet
    shards, codes, arrays   side by side
    their Zarr names        if asked for: copied within the bucket, stored twice
    units, annotations, ... side by side
    generations/<n>.json
    store.json              the commit: only if it is still what it was when the push began
    shards/index.json

A push that was killed is run again and sends what is missing. Nothing is ever deleted there.
"""

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import layout
from ..errors import ConfigError, CorruptData, LaughstoreError
from ..folders import LocalFolder, is_url
from ..manifest import FileRecord, Manifest, parse_manifest
from ..progress import NoProgress, Progress
from ..sealed import read_small
from ..store import open_store
from .target import FileToSend, RemoteFile, Target, read_checked
from .upload import BucketTarget

DEFAULT_JOBS = 8


@dataclass(frozen=True)
class PushResult:
    """What was sent, or would be."""

    url: str
    generation: int
    num_files: int
    """Of the generation, at the URL."""
    num_bytes: int
    num_sent: int
    num_bytes_sent: int
    num_copied: int
    """Shards copied to their Zarr names within the bucket."""
    num_bytes_copied: int
    num_there: int
    """Files that were there already."""
    dry_run: bool


def push(
    store: str | Path,
    url: str,
    *,
    jobs: int | None = None,
    zarr_keys: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> PushResult:
    """Send the newest generation of a store to a URL, and what is missing there only.

    Args:
        store: folder of a finished store on this machine.
        url: `s3://BUCKET/FOLDER`, `gs://BUCKET/FOLDER` or `hf://datasets/OWNER/NAME/FOLDER`.
        jobs: files sent at the same time, 8 by default; each of up to 64 MiB is held in memory.
        zarr_keys: give shards their Zarr names there too, for stock remote Zarr readers. The bytes
            are stored twice.
        dry_run: only tell what would be sent; nothing is written.
        progress: told how many bytes are there.

    Raises:
        ConfigError: the URL is of a kind that cannot be written, or holds another store, or a
            generation that this store does not have; nothing was written.
        NotFound, IncompleteStore: there is no finished store, or a file of it is missing.
        CorruptData: a file of the store was altered; it was not sent.
        Unreachable: the URL does not answer, after retries.
        LaughstoreError: another push was first.
    """
    if jobs is not None and jobs < 1:
        raise ConfigError(f"jobs is {jobs}; at least one file is sent at a time")
    if is_url(store):
        raise ConfigError("a store is pushed from a folder of this machine; download it first")
    target = _open_target(url)
    return _Push(Path(store), target, jobs or DEFAULT_JOBS, zarr_keys, progress).run(dry_run)


def _open_target(url: str) -> Target:
    scheme = url.partition("://")[0] if is_url(url) else ""
    if scheme in ("s3", "gs"):
        return BucketTarget(url)
    if scheme == "hf":
        from .hub_upload import HubTarget

        return HubTarget(url)
    if scheme in ("http", "https"):
        raise ConfigError(
            "a web server cannot be pushed to: give an s3://, gs:// or hf:// URL, or copy the"
            " store's folder there by the server's own means, store.json last"
        )
    raise ConfigError("give a URL to push to: s3://BUCKET/FOLDER, gs://... or hf://datasets/...")


class _Push:
    """One push: what is to be sent, what is there, and the order of it."""

    def __init__(
        self,
        store: Path,
        target: Target,
        jobs: int,
        zarr_keys: bool,
        progress: Progress | None,
    ) -> None:
        self._folder = LocalFolder(store)
        self._target = target
        self._jobs = jobs
        self._progress = progress or NoProgress()
        self._counting = threading.Lock()
        self._is_current = False
        self._manifest = open_store(store).manifest  # its index is what it says
        self._manifest_bytes = read_small(self._folder, layout.STORE_JSON)
        if parse_manifest(self._manifest_bytes, where=self._manifest.where) != self._manifest:
            raise LaughstoreError(f"{store}: a generation was published just now; push again")
        number = self._manifest.generation
        self._generation = _as_item(
            FileRecord.of_bytes(layout.generation(number), self._manifest_bytes)
        )
        records = list(self._manifest.all_files(self._folder))
        self._items = {item.path: _as_item(item) for item in records}
        self._zarr_names = {
            item.also: FileToSend(item.also, item.path, item.num_bytes, item.sha256)
            for item in records
            if zarr_keys and item.also is not None
        }

    def run(self, dry_run: bool) -> PushResult:
        """Compare, then send what is missing."""
        wanted = [*self._items.values(), *self._zarr_names.values(), self._generation]
        there = self._target.list()
        before = self._check_store()
        missing = self._compare(wanted, there)
        to_copy = [item for item in missing if item.path in self._zarr_names]
        to_send = [item for item in missing if item.path not in self._zarr_names]
        result = PushResult(
            url=self._target.describe(),
            generation=self._manifest.generation,
            num_files=len(wanted) + 2,
            num_bytes=sum(item.num_bytes for item in wanted),
            num_sent=len(to_send),
            num_bytes_sent=sum(item.num_bytes for item in to_send),
            num_copied=len(to_copy),
            num_bytes_copied=sum(item.num_bytes for item in to_copy),
            num_there=len(wanted) - len(missing),
            dry_run=dry_run,
        )
        if not dry_run:
            self._progress.begin("push", result.num_bytes_sent + result.num_bytes_copied, "B")
            try:
                self._send(to_send, to_copy, before)
            finally:
                self._progress.end()
            self._check_result(wanted)
        return result

    # ---- what is there ----------------------------------------------------------------------

    def _check_store(self) -> RemoteFile | None:
        """Refuse a URL of another store or a newer generation; returns what store.json is there."""
        found = self._target.read_version(layout.STORE_JSON)
        if found is None:
            return None
        data, version = found
        where = self._target.describe(layout.STORE_JSON)
        if data == self._manifest_bytes:
            self._is_current = True
            return version
        theirs = parse_manifest(data, where=where)
        if _plan(theirs) != _plan(self._manifest):
            raise ConfigError(f"{self._target.describe()} holds another store; give another URL")
        number = theirs.generation
        if number > self._manifest.generation:
            raise ConfigError(
                f"{self._target.describe()} holds generation {number} of this store, here is"
                f" {self._manifest.generation}; push from where that one is, or to another URL"
            )
        path = layout.generation(number)
        here = read_small(self._folder, path) if self._folder.exists(path) else None
        if number == self._manifest.generation or (here is not None and here != data):
            raise ConfigError(
                f"{self._target.describe()} holds another generation {number} than this store: the"
                " two were changed apart; push to another URL"
            )
        return version

    def _compare(
        self, wanted: Sequence[FileToSend], there: Mapping[str, RemoteFile]
    ) -> list[FileToSend]:
        """Return what is missing there, in the order given.

        Raises:
            ConfigError: a file there has the name of one of ours and holds something else.
        """
        present = [item for item in wanted if item.path in there]
        self._progress.begin("compare", len(present), "file")
        differing: list[FileToSend] = []

        def compare(item: FileToSend) -> None:
            if not self._target.is_same(self._folder, item, there[item.path]):
                differing.append(item)
            self._advance(1)

        try:
            _side_by_side(compare, present, 2 * self._jobs)
        finally:
            self._progress.end()
        if differing:
            path = min(item.path for item in differing)
            raise ConfigError(
                f"{self._target.describe(path)} is there and holds something else than this store"
                f" ({len(differing)} such files); give another URL, or delete what is no part of"
                " it; nothing was written"
            )
        return [item for item in wanted if item.path not in there]

    # ---- sending ----------------------------------------------------------------------------

    def _send(
        self,
        to_send: Sequence[FileToSend],
        to_copy: Sequence[FileToSend],
        before: RemoteFile | None,
    ) -> None:
        index_before = self._target.read_version(layout.CURRENT_INDEX)
        index = read_checked(self._folder, self._items[self._manifest.index])
        claims = [item for item in to_send if self._is_claim(item.path)]
        data = [item for item in to_send if _is_data(item.path)]
        first = {item.path for item in (*claims, *data)}
        rest = [item for item in to_send if item.path not in first and item != self._generation]
        for item in claims:
            self._claim(item, read_checked(self._folder, item))
        _side_by_side(self._put, data, self._jobs)
        _side_by_side(self._copy, to_copy, self._jobs)
        _side_by_side(self._put, rest, self._jobs)
        if self._generation in to_send:
            self._claim(self._generation, self._manifest_bytes)
        manifest = self._manifest_bytes
        if not self._is_current and not self._target.replace(layout.STORE_JSON, manifest, before):
            raise self._lost(layout.STORE_JSON)
        if index_before is None or index_before[0] != index:
            old = None if index_before is None else index_before[1]
            if not self._target.replace(layout.CURRENT_INDEX, index, old):
                raise self._lost(layout.CURRENT_INDEX)
        self._target.finish()

    def _put(self, item: FileToSend) -> None:
        self._target.put_file(self._folder, item, self._advance)

    def _copy(self, item: FileToSend) -> None:
        if self._target.copy(item, item.source):
            self._advance(item.num_bytes)
        else:
            self._put(item)

    def _is_claim(self, path: str) -> bool:
        """Tell files that differ between any two stores or generations."""
        return path.startswith(f"{layout.PLANS}/") or path == self._manifest.index

    def _claim(self, item: FileToSend, data: bytes) -> None:
        """Write a file that only one store or generation can write."""
        if not self._target.replace(item.path, data, None):
            raise self._lost(item.path)
        self._advance(item.num_bytes)

    def _advance(self, amount: int) -> None:
        with self._counting:
            self._progress.advance(amount)

    def _lost(self, path: str) -> LaughstoreError:
        return LaughstoreError(
            f"{self._target.describe(path)}: another push was first; what it has published is"
            " whole: look at it (`laughstore inspect`), then push again or to another URL"
        )

    def _check_result(self, wanted: Sequence[FileToSend]) -> None:
        """Open what was pushed as a reader does, and compare it with what is here."""
        url = self._target.describe()
        with open_store(url) as found:
            generation = found.manifest.generation
        now = self._target.read_version(layout.STORE_JSON)
        if now is None or now[0] != self._manifest_bytes:
            raise LaughstoreError(
                f"{url} holds generation {generation} now: another push came after this one"
            )
        there = self._target.list()
        for item in wanted:
            if item.path not in there or there[item.path].num_bytes != item.num_bytes:
                raise CorruptData(
                    f"{self._target.describe(item.path)} is missing or has another size after the"
                    " push; delete it there and push again"
                )


def _as_item(record: FileRecord) -> FileToSend:
    return FileToSend(record.path, record.path, record.num_bytes, record.sha256)


def _plan(manifest: Manifest) -> str | None:
    """SHA-256 of the plan that a store was begun with: what makes it this store."""
    return next((item.sha256 for item in manifest.files if item.path == layout.FIRST_PLAN), None)


def _is_data(path: str) -> bool:
    """Tell features and codes from what says what they are."""
    if path.startswith(f"{layout.SHARDS}/"):
        return path.endswith(".tar")
    return path.startswith((f"{layout.FEATURES}/", f"{layout.CODES}/"))


def _side_by_side[T](work: Callable[[T], None], items: Sequence[T], jobs: int) -> None:
    """Do something with each item in threads; after an error no further item is begun.

    What was begun is waited for, but not after Ctrl-C: the threads are daemons, and a process that
    was told to end does not wait for their uploads.
    """
    waiting: queue.SimpleQueue[T] = queue.SimpleQueue()
    for item in items:
        waiting.put(item)
    done: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
    stop = threading.Event()

    def run() -> None:
        try:
            while not stop.is_set():
                try:
                    item = waiting.get_nowait()
                except queue.Empty:
                    break
                work(item)
        except BaseException as error:
            done.put(error)
        else:
            done.put(None)

    num_threads = min(jobs, len(items))
    for _ in range(num_threads):
        threading.Thread(target=run, name="push", daemon=True).start()
    first: BaseException | None = None
    try:
        for _ in range(num_threads):
            error = done.get()
            if error is not None:
                stop.set()
                first = first or error
    finally:
        stop.set()
    if first is not None:
        raise first
