"""A writer under every fault: what it finds, what it leaves, and what may be seen between.

    case = make_case(server, folder, "module:function", store_to_begin_with_or_None)
    kill_at(server, case, "kill before", changes(case))
    fail_from(server, case, "fail", NEEDS_SPACE, errno.ENOSPC, step=1)

The function takes the path of a store and must go on with what an earlier try has left.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .durability import Disk
from .harness import Action, Arm, Call, FaultServer, Outcome, fresh, leftovers, read_all, tree


@dataclass(frozen=True)
class Case:
    """A writer, what it finds, and what it leaves when nothing disturbs it."""

    function: str
    folder: Path
    before: Path | None
    """A store to begin with, or None."""
    old: dict[str, str]
    new: dict[str, str]
    generation: int | None
    """What readers see before it has committed."""
    new_generation: int
    calls: tuple[Call, ...]

    def end_at(self, server: FaultServer, arm: Arm) -> Outcome | None:
        """Run it under a fault and again. Returns how it ended, None when it reached no fault."""
        store = fresh(self.folder, self.before)
        ended = server.run(self.function, store, arm)
        if ended.status == 0 and not any(call.error == arm.error for call in ended.calls):
            return None
        self.check_between(store)
        again = server.run(self.function, store)
        assert again.status == 0, again.message
        assert tree(store) == self.new
        assert read_all(store) == self.new_generation
        return ended

    def check_between(self, store: Path) -> None:
        """Between a fault and the next run: the old store or the new one, and no part of a file."""
        seen = read_all(store) if store.exists() else None
        assert seen in (self.generation, self.new_generation)
        there = tree(store)
        for path, digest in there.items():
            assert digest in (self.new.get(path), self.old.get(path)), f"{path} is not whole"
        if seen == self.new_generation:
            assert (
                there.items()
                >= {p: d for p, d in self.new.items() if "index.json" not in p}.items()
            )


def make_case(server: FaultServer, folder: Path, function: str, before: Path | None = None) -> Case:
    """Run a writer undisturbed."""
    folder.mkdir()
    store = fresh(folder, before)
    old, generation = (tree(store), read_all(store)) if before else ({}, None)
    done = server.run(function, store)
    assert done.status == 0, done.message
    new, new_generation = tree(store), read_all(store)
    assert new_generation is not None
    assert not leftovers(store)
    return Case(function, folder, before, old, new, generation, new_generation, done.calls)


def changes(case: Case) -> list[int]:
    """Numbers of the calls that leave something else behind than the call before them."""
    return [
        number
        for number, call in enumerate(case.calls, 1)
        if not call.error and call.name not in ("fsync", "chmod")
    ]


def kill_at(server: FaultServer, case: Case, action: Action, numbers: Iterable[int]) -> int:
    """Kill at these calls. Returns how many kills were tried."""
    num_killed = 0
    for number in numbers:
        ended = case.end_at(server, Arm(action, number))
        if ended is None:  # it has fewer calls
            break
        assert ended.killed
        num_killed += 1
    return num_killed


def fail_from(
    server: FaultServer, case: Case, action: Action, kinds: int, error: int, step: int
) -> int:
    """Fail from a call of these kinds on, for each in turn. Returns how many were tried."""
    for tried, number in enumerate(range(1, 2 * len(case.calls), step)):
        ended = case.end_at(server, Arm(action, number, kinds, error))
        if ended is None:
            return tried
        assert ended.status == 1, "it ends with an error"
        assert "OSError" in ended.error, ended.error
        if case.before is None:
            disk = Disk()
            for call in disk.final_names(ended.calls):
                assert disk.content_lasts(call.path), f"{call.second} is named, but not synced"
    raise AssertionError("the writer never came to its end")
