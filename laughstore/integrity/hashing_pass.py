"""Read every file that a store names once, and say of each what is wrong with it.

Files are hashed in several threads; nothing else is computed for one that is sound. A shard whose
SHA-256 differs is taken apart (`shard_check`). Two names of one file are one file: it is read once.
"""

import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import PurePosixPath

from .. import layout
from ..annotations import Annotations, read_annotations
from ..daemon_threads import DaemonThreads
from ..errors import CorruptData, LaughstoreError
from ..folders import Folder
from ..index import Stream
from ..progress import Progress
from .claims import Claim, Survey
from .file_check import IS_LINK, FileFacts, Listing, look_at
from .index_check import RESTORE
from .report import Fault
from .shard_check import ShardView, take_apart

_ALONE_BYTES = 8 << 20
"""Less than this is read by the caller: starting threads would take longer."""
_QUEUED = 64
"""Files handed to each thread ahead."""


class FileVerification:
    """Looks at every file that something names, then says what is wrong with each."""

    def __init__(
        self,
        folder: Folder,
        survey: Survey,
        listing: Listing | None,
        quick: bool,
        progress: Progress,
    ) -> None:
        self._folder = folder
        self._survey = survey
        self._quick = quick
        self._progress = progress
        self._links = frozenset(() if listing is None else listing.links)
        self._facts: dict[str, FileFacts] = {}
        self._stop = threading.Event()
        self._sizes = {claim.num_bytes for claim in survey.claims.values()}
        self._by_hash = {claim.sha256: claim.path for claim in survey.claims.values()}
        self._annotations: tuple[str, Annotations | None] = ("", None)
        self.sound: set[str] = set()
        """Files that are what was written, by path."""
        self.num_files = 0
        self.num_bytes = 0
        self.bad_blocks: list[str] = []

    def look_at_files(self, jobs: int) -> None:
        """Size every file, and hash it unless the verification is quick."""
        claims = list(self._survey.claims.values())
        total = sum(claim.num_bytes for claim in claims)
        self._progress.begin("verify", total, "B")
        try:
            if jobs == 1 or total < _ALONE_BYTES:
                for claim in claims:
                    self._take(claim, self._look(claim))
            else:
                self._look_in_threads(claims, jobs)
        finally:
            self._progress.end()

    def judge(self) -> None:
        """Say what is wrong with each file, in the order of their names."""
        for path in sorted(self._survey.claims):
            claim = self._survey.claims[path]
            first = self._facts[path]
            second = None if claim.also is None else self._facts.get(claim.also)
            self._judge(claim, path, first, second)
            if claim.also is None or second is None:
                continue
            if second.identity is None or second.identity != first.identity:
                self._judge(claim, claim.also, second, first)

    def suspicions(self) -> None:
        """Take up what no altered file explains."""
        told = {fault.path for fault in self._survey.faults}
        for files, fault in self._survey.suspicions:
            if told.isdisjoint(files):
                self._survey.faults.append(fault)

    def _look_in_threads(self, claims: Sequence[Claim], jobs: int) -> None:
        running: deque[tuple[Claim, Future[tuple[FileFacts, FileFacts | None]]]] = deque()
        with DaemonThreads(jobs, "verify") as threads:
            try:
                for claim in claims:
                    running.append((claim, threads.submit(self._look, claim)))
                    if len(running) >= _QUEUED * jobs:
                        self._take_oldest(running)
                while running:
                    self._take_oldest(running)
            except BaseException:
                self._stop.set()
                raise

    def _take_oldest(
        self, running: deque[tuple[Claim, Future[tuple[FileFacts, FileFacts | None]]]]
    ) -> None:
        claim, future = running.popleft()
        self._take(claim, future.result())

    def _look(self, claim: Claim) -> tuple[FileFacts, FileFacts | None]:
        """Look at both names of a file. Runs in threads."""

        def wants_hash(num_bytes: int) -> bool:
            # A file of another size is hashed only if it may be another file of the store.
            if num_bytes != claim.num_bytes and num_bytes not in self._sizes:
                return False
            return not self._quick or _is_metadata(claim.path)

        first = look_at(self._folder, claim.path, wants_hash, self._stop, self._links)
        if claim.also is None:
            return first, None
        return first, look_at(self._folder, claim.also, wants_hash, self._stop, self._links, first)

    def _take(self, claim: Claim, facts: tuple[FileFacts, FileFacts | None]) -> None:
        first, second = facts
        self._facts[claim.path] = first
        self._count(first)
        if claim.also is not None and second is not None:
            self._facts[claim.also] = second
            if second is first:
                self.num_files += 1
            else:
                self._count(second)
        self._progress.advance(claim.num_bytes)

    def _count(self, facts: FileFacts) -> None:
        self.num_files += 1
        if facts.sha256 is not None:
            self.num_bytes += facts.num_bytes or 0

    def _judge(self, claim: Claim, path: str, facts: FileFacts, other: FileFacts | None) -> None:
        """Say what is wrong under one name of a file, if anything is."""
        view = self._survey.views.get(claim.path)
        tail_is_bad = False
        if self._is_sound(claim, facts):
            if not self._quick or view is None or self._tail(path, view):
                self.sound.add(path)
                return
            tail_is_bad = True
        is_tar = path == claim.path
        if facts.problem is not None and facts.num_bytes is None:
            if facts.problem == "is missing" and not is_tar and self._folder.local is None:
                return  # a remote store serves its arrays from the shards
            if is_tar and view is not None:
                self.bad_blocks.extend(view.keys())
            if not self._stands_behind_a_link(path, facts):
                self._fault(path, facts.problem, claim, other)
            return
        swapped = None if facts.sha256 is None else self._by_hash.get(facts.sha256)
        if swapped is not None and swapped != claim.path:
            if is_tar and view is not None:
                self.bad_blocks.extend(view.keys())
            self._fault(path, f"holds the bytes of {swapped}", claim, other)
        elif view is None or facts.num_bytes is None:
            self._fault(path, facts.problem or _difference(claim, facts), claim, other)
        elif tail_is_bad:
            self._fault(path, "the Zarr index at its end was altered", claim, other)
        else:
            self._take_apart(claim, path, facts, view, other)

    def _take_apart(
        self, claim: Claim, path: str, facts: FileFacts, view: ShardView, other: FileFacts | None
    ) -> None:
        advice, also = self._advice(path, claim, other), self._second_name(path, claim)
        num_bytes, found = facts.num_bytes or 0, False
        notes = self._annotations_of_build(view.shard.stream)
        for damage in take_apart(self._folder, path, num_bytes, view, notes):
            found = True
            if damage.in_rows and damage.sample is not None and path == claim.path:
                self.bad_blocks.append(damage.sample)
            place = damage.sample, damage.start, damage.stop
            self._survey.faults.append(Fault(path, damage.what, advice, *place, also))
        if not found:
            what = (
                f"{facts.problem or _difference(claim, facts)}; rows, headers and Zarr index are"
                " sound: what was altered is read by nobody, or is an event in a sample's JSON"
            )
            self._survey.fault(path, what, advice, also)

    def _tail(self, path: str, view: ShardView) -> bool:
        """Whether a shard ends with the Zarr index that it should have."""
        tail = view.tail
        try:
            return self._folder.read_range(path, view.num_bytes - len(tail), len(tail)) == tail
        except (CorruptData, OSError):
            return False

    def _fault(self, path: str, what: str, claim: Claim, other: FileFacts | None) -> None:
        advice, also = self._advice(path, claim, other), self._second_name(path, claim)
        self._survey.fault(path, what, advice, also)

    def _second_name(self, path: str, claim: Claim) -> str | None:
        """The other name of a file, where both are one file and have the same fault."""
        if claim.also is None or path != claim.path:
            return None
        first, second = self._facts[path], self._facts[claim.also]
        same = first.identity is not None and first.identity == second.identity
        return claim.also if same else None

    def _advice(self, path: str, claim: Claim, other: FileFacts | None) -> str:
        name = claim.also if path == claim.path else claim.path
        if other is not None and self._is_sound(claim, other):
            how = "has the right size" if self._quick else "is intact"
            return f"its other name {how}: link or copy {name} to {path}"
        view = self._survey.views.get(claim.path)
        if view is None:
            return RESTORE
        recording = view.index.recording(view.shard.stream.recording_id).name
        return (
            f"{RESTORE}, or build recording {recording!r} into another store and copy the file"
            " from there"
        )

    def _is_sound(self, claim: Claim, facts: FileFacts) -> bool:
        if facts.problem is not None or facts.num_bytes != claim.num_bytes:
            return False
        return facts.sha256 == claim.sha256 or (
            facts.sha256 is None and self._quick and not _is_metadata(claim.path)
        )

    def _stands_behind_a_link(self, path: str, facts: FileFacts) -> bool:
        """Whether a link to a folder explains the fault: it is told once, for the link."""
        return facts.problem == IS_LINK and any(path.startswith(f"{x}/") for x in self._links)

    def _annotations_of_build(self, stream: Stream) -> Annotations | None:
        """What was annotated when a stream was built; None where that is not at hand."""
        recording_id = stream.recording_id
        if self._annotations[0] != recording_id:
            found, annotations_id = None, self._survey.plan_annotations.get(recording_id)
            if annotations_id is not None:
                with suppress(LaughstoreError, OSError):
                    found = read_annotations(
                        self._folder, annotations_id, stream.split, recording_id
                    )
            self._annotations = recording_id, found
        return self._annotations[1]


def _difference(claim: Claim, facts: FileFacts) -> str:
    source = claim.source
    if facts.num_bytes != claim.num_bytes:
        return f"has {facts.num_bytes} bytes, {source} says {claim.num_bytes}: cut or replaced"
    found = (facts.sha256 or "unknown")[:12]
    return f"was altered: its sha256 is {found}..., {source} says {claim.sha256[:12]}..."


def _is_metadata(path: str) -> bool:
    """Whether a file is small and says what others hold: it is hashed even when in a hurry."""
    return PurePosixPath(path).name.startswith("index-") or path.startswith(
        (f"{layout.PLANS}/", f"{layout.UNITS}/")
    )
