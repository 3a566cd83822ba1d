"""Finish a store from what its parts have built, without extracting and without the data set."""

from pathlib import Path

from . import layout
from .buildplan import BuildPlan, PlannedRecording, SkippedRecording, read_plan
from .commit import commit_plan
from .errors import IncompleteStore, LaughstoreError
from .locks import StoreLocks, claim_number
from .parts import Part
from .progress import Progress
from .sharing import is_settled
from .unit import (
    Stamp,
    UnitRecord,
    read_unit,
    remove_unit_files,
    unit_stamp,
    write_unit,
)


def not_built(store: Path) -> list[PlannedRecording]:
    """Return the recordings of a store's plan that are neither finished nor left out.

    Raises:
        IncompleteStore: no store was begun there.
        CorruptData: its plan or a unit's record was altered.
    """
    plan = read_plan(store)
    return [item for item in plan.recordings if not is_settled(store, plan, item)]


def quarantined(store: Path, plan: BuildPlan, part: str | None) -> tuple[SkippedRecording, ...]:
    """Return the recordings of a part of a plan that were left out when they were built.

    Args:
        store: folder of the store.
        plan: its plan.
        part: as I/N; None for all.
    """
    chosen = plan.recordings if part is None else Part.parse(part).choose(plan)
    found = []
    for item in chosen:
        record = read_unit(store, item.id)
        if record is not None and record.status == "quarantined":
            reason = record.reason or "unknown"
            found.append(SkippedRecording(item.name, item.split, reason))
    return tuple(found)


def quarantine_stamps(store: Path) -> dict[str, Stamp | None]:
    """Return the stamp of the record of each recording that was left out when it was built, by id.

    Nothing where no store was begun.
    """
    if not (store / layout.FIRST_PLAN).exists():
        return {}
    stamps = {}
    for item in read_plan(store).recordings:
        stamp, record = unit_stamp(store, item.id), read_unit(store, item.id)
        if record is not None and record.status == "quarantined":
            stamps[item.id] = stamp
    return stamps


def leave_out(store: Path, recording_id: str, why: str, progress: Progress) -> bool:
    """Leave a recording out of a store that is being built, and remove what was written of it.

    Args:
        store: folder of the store.
        recording_id: of a recording of its plan.
        why: one line.
        progress: told of the recording.

    Returns:
        False when another process has the recording in work just now; then nothing was done.
    """
    plan = read_plan(store)
    (number,) = (i for i, item in enumerate(plan.recordings) if item.id == recording_id)
    with StoreLocks(store, progress) as locks, locks.shared():
        if not locks.claim(claim_number(1, number)):
            return False
        remove_unit_files(store, plan, plan.recordings[number])
        reason = f"{plan.recordings[number].name}: {why}"
        write_unit(store, UnitRecord(recording_id, "quarantined", reason))
    progress.message(f"left out: {reason}")
    return True


def finish_store(
    store: Path, *, partial: bool = False, progress: Progress
) -> tuple[SkippedRecording, ...]:
    """Commit a store whose recordings were built by others.

    Args:
        store: folder of a store that was begun; one that was finished stays as it is.
        partial: leave out what has not been built. Its files are removed, so that it can be added
            later.
        progress: told when another process has to be waited for.

    Returns:
        The recordings that were left out, with their reasons.

    Raises:
        IncompleteStore: no store was begun there; or recordings are missing, and not `partial`.
        LaughstoreError: other processes are still writing, and `partial`.
        NothingBuilt: no recording at all was built.
        CorruptData: a file of the store was altered.
    """
    plan = read_plan(store)
    with StoreLocks(store, progress) as locks:
        if not (store / layout.STORE_JSON).exists():
            missing = not_built(store)
            with locks.exclusive(wait=False) as alone:
                if missing and not (partial and alone):
                    raise _incomplete(store, missing, len(plan.recordings), partial, alone)
                for item in missing:
                    remove_unit_files(store, plan, item)
                if alone:
                    return commit_plan(store, plan, partial=partial)
        # Finished before, or all is built and somebody is about to finish it.
        with locks.exclusive():
            return commit_plan(store, plan)


def _incomplete(
    store: Path, missing: list[PlannedRecording], num_planned: int, partial: bool, alone: bool
) -> LaughstoreError:
    what = (
        f"{store}: {len(missing)} of {num_planned} recordings have not been built, the first is"
        f" {missing[0].name!r}"
    )
    busy = "other processes are writing this store"
    if partial:
        return LaughstoreError(
            f"{what}; {busy}, and --partial would leave out what they are working on: stop them"
            " first"
        )
    if not alone:
        return IncompleteStore(f"{what}; {busy}: wait until they have ended")
    return IncompleteStore(
        f"{what}; build them with the same `laughstore build` without --commit (or the --part that"
        " was not finished), or add --partial to leave them out"
    )
