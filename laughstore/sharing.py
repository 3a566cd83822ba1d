"""Share the recordings of a plan between all processes that build one store at the same time.

Each process takes recordings one by one, claims them, writes them and looks for more; what a killed
process had claimed is free again. When nothing is left, one process commits and the others find the
store finished. A recording is tried once by a process: one that was left out is tried again by the
next run, not in a circle by those that run now.

Hosts that do not see each other's locks each take a part of the plan (`parts`). Recordings that a
process may have died of are suspects: taken last, and alone.
"""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from .buildplan import BuildPlan, PlannedRecording, SkippedRecording
from .commit import commit_plan, newest_manifest
from .locks import POLL_S, StoreLocks, claim_number
from .parts import Part, longest_first
from .progress import Progress
from .unit import Stamp, is_planned, is_whole, read_unit, remove_unit_files, unit_stamp

LOOK_AGAIN_S = 1.0
"""Between two looks for recordings, once there was none to take."""


def _say_nothing(recording: PlannedRecording) -> None:
    pass


@dataclass(frozen=True)
class Worker:
    """What a process was told by whoever started it together with others."""

    part: Part | None = None
    """Recordings of other parts are left to others. None: all are shared."""
    suspects: Collection[str] = ()
    """Ids of recordings that may have killed a process; may change at any time."""
    left_out: Collection[str] = ()
    """Ids of recordings that were tried and left out by others that were started with it."""
    taken: Callable[[PlannedRecording], None] = _say_nothing
    """Called with each recording when it is taken."""
    settled: Callable[[PlannedRecording], None] = _say_nothing
    """Called with each recording that another process is found to have finished or left out."""
    tells_waiting: bool = True
    """Whether it says that it waits for others; among many of one parent that is no news."""


ALONE = Worker()
"""A process that nobody told anything."""


class Share:
    """The recordings of a plan that are not finished, and those of them that this process takes.

    Args:
        store: folder of a store whose plan has been written.
        plan: the plan.
        locks: of the store; recordings are taken only while its shared lock is held.
        number: of the plan: 1 for the store's own, more for additions.
        worker: what this process was told.
    """

    def __init__(
        self,
        store: Path,
        plan: BuildPlan,
        locks: StoreLocks,
        number: int = 1,
        worker: Worker = ALONE,
    ) -> None:
        self._store = store
        self._plan = plan
        self._locks = locks
        self._worker = worker
        self._numbers = {item.id: claim_number(number, i) for i, item in enumerate(plan.recordings)}
        # What was left out before is tried again, unless those started together have done so.
        self._first_stamps = {
            item.id: None if item.id in worker.left_out else self._stamp(item)
            for item in plan.recordings
        }
        chosen = plan.recordings if worker.part is None else worker.part.choose(plan)
        own = {item.id for item in chosen}
        # Longest first: the last ones to finish then finish close together.
        pending = sorted(unfinished(store, plan), key=longest_first)
        self._left = [item for item in pending if item.id in own]
        self._elsewhere = [item for item in pending if item.id not in own]
        self._taken: list[PlannedRecording] = []
        self._idle_until_s = 0.0

    @property
    def left(self) -> tuple[PlannedRecording, ...]:
        """Recordings that nobody had finished at the last look, without those taken here."""
        return tuple(self._left)

    def take(self) -> PlannedRecording | None:
        """Claim the next recording, and remove what an earlier try of it has left behind.

        Returns:
            None when there is none now. There may be one later: when another process dies, or when
            nothing is in work here any more and a suspect waits.
        """
        if time.monotonic() < self._idle_until_s:
            return None
        suspects = self._worker.suspects
        in_work = [item.id for item in self._taken if self._stamp(item) is None] if suspects else []
        if any(key in suspects for key in in_work):
            return None
        for item in sorted(self._left, key=lambda item: item.id in suspects):
            if self._was_settled(item):
                self._drop(item)
            elif item.id in suspects and in_work:
                break
            elif self._locks.claim(self._numbers[item.id]):
                # Another process may have finished it between the look and the claim.
                if self._was_settled(item):
                    self._locks.release(self._numbers[item.id])
                    self._drop(item)
                    continue
                self._left.remove(item)
                self._taken.append(item)
                self._worker.taken(item)
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
        for item in [item for item in self._left if self._was_settled(item)]:
            self._drop(item)
        return not self._left

    def is_settled_elsewhere(self) -> bool:
        """Tell whether the other parts are finished too, as far as their records go."""
        # Only as far as the first that is not: this is asked again and again, for hours.
        while self._elsewhere and is_settled(self._store, self._plan, self._elsewhere[-1]):
            self._elsewhere.pop()
        return not self._elsewhere

    def _drop(self, item: PlannedRecording) -> None:
        self._left.remove(item)
        self._worker.settled(item)

    def _was_settled(self, item: PlannedRecording) -> bool:
        """Whether a process has finished or left out a recording since this one began."""
        if self._stamp(item) in (None, self._first_stamps[item.id]):
            return False
        return is_settled(self._store, self._plan, item)

    def _stamp(self, item: PlannedRecording) -> Stamp | None:
        return unit_stamp(self._store, item.id)


def is_settled(store: Path, plan: BuildPlan, recording: PlannedRecording) -> bool:
    """Tell whether a recording of a plan is whole, or was left out with a reason."""
    record = read_unit(store, recording.id)
    if record is None:
        return False
    if record.status == "quarantined":
        return True
    return is_planned(record, plan, recording) and is_whole(store, record)


def unfinished(store: Path, plan: BuildPlan) -> list[PlannedRecording]:
    """Return the recordings of a plan that are not whole; those left out are tried again."""
    pending = []
    for item in plan.recordings:
        record = read_unit(store, item.id)
        if (
            record is None
            or record.status == "quarantined"
            or not is_planned(record, plan, item)
            or not is_whole(store, record)
        ):
            pending.append(item)
    return pending


def build_together(
    store: Path,
    plan: BuildPlan,
    locks: StoreLocks,
    write: Callable[[Share], None],
    *,
    number: int = 1,
    worker: Worker = ALONE,
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
        worker: what this process was told; with a part, the other parts are waited for.
        progress: told once when this process waits for others.

    Returns:
        The recordings of the plan that were left out, with their reasons.

    Raises:
        Exception: what `write` or `laughstore.commit.commit_plan` raised.
    """
    share = Share(store, plan, locks, number, worker)
    told = False
    while True:
        _write_share(share, store, locks, write, number)
        look_again_s = time.monotonic() + LOOK_AGAIN_S
        while True:
            with locks.exclusive(wait=False) as alone:
                if alone and (_is_committed(store, number) or _is_complete(share)):
                    return commit_plan(store, plan, number)
            # Left by one that died: to be taken now.
            if (alone and not share.is_settled()) or time.monotonic() >= look_again_s:
                break
            if not told:
                told = True
                progress.message("waiting for the other processes that build this store")
            time.sleep(POLL_S)


def build_part(
    store: Path,
    plan: BuildPlan,
    locks: StoreLocks,
    write: Callable[[Share], None],
    *,
    worker: Worker,
    progress: Progress,
) -> tuple[SkippedRecording, ...] | None:
    """Write one part of a store's plan; commit when that was the last one.

    Processes of the same part share it, and each waits until it is finished; nobody waits for other
    parts. Arguments and errors are those of `build_together`.

    Returns:
        The recordings that were left out, or None when other parts have not been finished.
    """
    share = Share(store, plan, locks, 1, worker)
    told = False
    while True:
        _write_share(share, store, locks, write, 1)
        look_again_s = time.monotonic() + LOOK_AGAIN_S
        while time.monotonic() < look_again_s:
            is_committed = _is_committed(store, 1)
            if not is_committed and share.is_settled() and not share.is_settled_elsewhere():
                return None
            with locks.exclusive(wait=False) as alone:
                if alone and (_is_committed(store, 1) or _is_complete(share)):
                    return commit_plan(store, plan)
            if alone and not is_committed and not share.is_settled():
                break
            if not told:
                told = True
                progress.message("waiting for the other processes that build this part")
            time.sleep(POLL_S)


def _write_share(
    share: Share, store: Path, locks: StoreLocks, write: Callable[[Share], None], number: int
) -> None:
    with locks.shared():
        # Under this lock nobody commits, so what is unfinished now stays so until we let go.
        if not _is_committed(store, number):
            try:
                write(share)
            finally:
                share.release()


def _is_complete(share: Share) -> bool:
    return share.is_settled() and share.is_settled_elsewhere()


def _is_committed(store: Path, number: int) -> bool:
    manifest = newest_manifest(store)
    return manifest is not None and manifest.num_plans >= number
