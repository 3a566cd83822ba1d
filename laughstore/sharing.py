"""Share the recordings of a plan between all processes that build one store at the same time.

Each process takes recordings one by one, claims them, writes them and looks for more; what a killed
process had claimed is free again. When nothing is left, one process commits and the others find the
store finished. A recording is tried once by a process: one that was left out is tried again by the
next run, not in a circle by those that run now.
"""

import time
from collections.abc import Callable
from pathlib import Path

from . import layout
from .buildplan import BuildPlan, PlannedRecording, SkippedRecording
from .commit import commit_plan, newest_manifest
from .locks import POLL_S, StoreLocks, claim_number
from .progress import Progress
from .unit import is_whole, read_unit, remove_unit_files

LOOK_AGAIN_S = 1.0
"""Between two looks for recordings, once there was none to take."""

_Stamp = tuple[int, int] | None
"""Inode and time of a unit's record: each write of it makes another."""


class Share:
    """The recordings of a plan that are not finished, and those of them that this process takes.

    Args:
        store: folder of a store whose plan has been written.
        plan: the plan.
        locks: of the store; recordings are taken only while its shared lock is held.
        number: of the plan: 1 for the store's own, more for additions.
    """

    def __init__(self, store: Path, plan: BuildPlan, locks: StoreLocks, number: int = 1) -> None:
        self._store = store
        self._plan = plan
        self._locks = locks
        self._numbers = {item.id: claim_number(number, i) for i, item in enumerate(plan.recordings)}
        self._first_stamps = {item.id: self._stamp(item) for item in plan.recordings}
        # Longest first: the last ones to finish then finish close together.
        self._left = sorted(unfinished(store, plan), key=lambda item: (-item.num_frames, item.id))
        self._taken: list[PlannedRecording] = []
        self._idle_until_s = 0.0

    @property
    def left(self) -> tuple[PlannedRecording, ...]:
        """Recordings that nobody had finished at the last look, without those taken here."""
        return tuple(self._left)

    def take(self) -> PlannedRecording | None:
        """Claim the next recording, and remove what an earlier try of it has left behind.

        Returns:
            None when there is none now. There may be one later, when another process dies.
        """
        if time.monotonic() < self._idle_until_s:
            return None
        for item in tuple(self._left):
            if self._was_settled(item):
                self._left.remove(item)
            elif self._locks.claim(self._numbers[item.id]):
                # Another process may have finished it between the look and the claim.
                self._left.remove(item)
                if self._was_settled(item):
                    self._locks.release(self._numbers[item.id])
                    continue
                self._taken.append(item)
                remove_unit_files(self._store, self._plan, item)
                return item
        self._idle_until_s = time.monotonic() + LOOK_AGAIN_S
        return None

    def release(self) -> None:
        """Give up the claims of what was taken: all of it is finished, or left to others."""
        for item in self._taken:
            self._locks.release(self._numbers[item.id])
        self._taken.clear()

    def is_settled(self) -> bool:
        """Tell whether nothing is left that this process could still take."""
        self._idle_until_s = 0.0
        self._left = [item for item in self._left if not self._was_settled(item)]
        return not self._left

    def _was_settled(self, item: PlannedRecording) -> bool:
        """Whether a process has finished or left out a recording since this one began."""
        if self._stamp(item) in (None, self._first_stamps[item.id]):
            return False
        record = read_unit(self._store, item.id)
        if record is None:
            return False
        return record.status == "quarantined" or is_whole(self._store, record)

    def _stamp(self, item: PlannedRecording) -> _Stamp:
        try:
            status = (self._store / layout.unit(item.id)).stat()
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_mtime_ns


def unfinished(store: Path, plan: BuildPlan) -> list[PlannedRecording]:
    """Return the recordings of a plan that are not whole; those left out are tried again."""
    pending = []
    for item in plan.recordings:
        record = read_unit(store, item.id)
        if record is None or record.status == "quarantined" or not is_whole(store, record):
            pending.append(item)
    return pending


def build_together(
    store: Path,
    plan: BuildPlan,
    locks: StoreLocks,
    write: Callable[[Share], None],
    *,
    number: int = 1,
    progress: Progress,
) -> tuple[SkippedRecording, ...]:
    """Write the recordings of a plan together with other processes, and see the store finished.

    Args:
        store: folder of a store whose plan has been written.
        plan: the plan.
        locks: of the store, held by nobody in this process.
        write: takes recordings from the share until there is none now, and finishes each; called
            again when a process that died has left some.
        number: of the plan: 1 for the store's own, more for additions.
        progress: told once when this process waits for others.

    Returns:
        The recordings of the plan that were left out, with their reasons.

    Raises:
        Exception: what `write` or `laughstore.commit.commit_plan` raised.
    """
    share = Share(store, plan, locks, number)
    told = False
    while True:
        with locks.shared():
            # Under this lock nobody commits, so what is unfinished now stays so until we let go.
            if not _is_committed(store, number):
                try:
                    write(share)
                finally:
                    share.release()
        look_again_s = time.monotonic() + LOOK_AGAIN_S
        alone = False
        while not alone and time.monotonic() < look_again_s:
            with locks.exclusive(wait=False) as alone:
                if alone and (_is_committed(store, number) or share.is_settled()):
                    return commit_plan(store, plan, number)
            if not alone:
                if not told:
                    told = True
                    progress.message("waiting for the other processes that build this store")
                time.sleep(POLL_S)


def _is_committed(store: Path, number: int) -> bool:
    manifest = newest_manifest(store)
    return manifest is not None and manifest.num_plans >= number
