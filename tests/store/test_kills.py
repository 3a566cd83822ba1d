"""Killed at any call that changes files, a change of a store leaves it whole, and a rerun ends it.

Each change is watched once; then, for every call or a sample of them, a copy of the store meets a
SIGKILL just before it, just after it or in the middle of a write.
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from laughstore import layout, open_shards, open_store
from laughstore.errors import NotFound
from laughstore.evolution.generations import kept_generations
from laughstore.files import sha256_file
from laughstore.unit import is_whole, read_unit
from tests.faults.harness import (
    WRITE,
    Arm,
    FaultServer,
    compile_shim,
    fresh,
    leftovers,
    read_all,
    tree,
)
from tests.store.evolutions import (
    add_more,
    annotate_both,
    annotate_one,
    begin_and_stop,
    write_first,
)

HERE = "tests.store.evolutions"
_VARYING_CALLS = 5


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultServer]:
    folder = tmp_path_factory.mktemp("kills")
    with FaultServer(compile_shim(folder), folder) as server:
        yield server


def two_generations(store: Path) -> None:
    write_first(store)
    annotate_both(store)


def full(store: Path) -> None:
    """Three generations and a killed addition."""
    two_generations(store)
    annotate_one(store)
    begin_and_stop(store)


CHANGES: dict[str, Callable[[Path], object]] = {
    "annotate_again": two_generations,
    "add_more": two_generations,
    "collect": full,
    "collect_unfinished": full,
    "export_train": two_generations,
    "export_copy": two_generations,
    "export_bare": two_generations,
}


def check_readable(store: Path, newest: set[int]) -> None:
    """Every generation that is listed is whole, and the newest is one of these."""
    kept = kept_generations(store)
    assert kept[-1] in newest
    assert read_all(store) == kept[-1]
    for number in kept:
        opened = open_store(store, generation=number)
        assert opened.manifest.generation == number
        for item in opened.manifest.all_files(opened.folder):
            assert (store / item.path).stat().st_size == item.num_bytes
        assert opened.index.all_tables is not None
    # What the shards folder alone says is a whole generation too.
    assert open_shards(store / layout.SHARDS).all_tables is not None


@pytest.mark.parametrize("change", ["annotate_again", "collect_unfinished"])
def test_killed_at_some_calls(server, tmp_path, change):
    kill_and_run_again(server, tmp_path, change, num_points=2)


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
def test_killed_at_any_call(server, tmp_path, change):
    kill_and_run_again(server, tmp_path, change, num_points=15)


def kill_and_run_again(server: FaultServer, folder: Path, change: str, num_points: int) -> None:
    before = folder / "before"
    CHANGES[change](before)
    function = f"{HERE}:{change}"
    store, out = fresh(folder, before), folder / "out"
    there = set(kept_generations(store))
    watched = server.run(function, store)
    assert watched.status == 0, watched.message
    expected, expected_out = tree(store), tree(out) if out.exists() else {}
    after = set(kept_generations(store))
    num_calls = len(watched.calls)
    num_writes = sum(call.name == "write" for call in watched.calls)
    assert num_calls > 5
    step = max(1, num_calls // num_points)
    arms = [Arm("kill before", nth) for nth in range(1 + (num_calls % step), num_calls + 1, step)]
    if num_writes:
        arms += [
            Arm("kill torn", max(1, num_writes // 2), WRITE),
            Arm("kill torn", num_writes, WRITE),
        ]
    arms.append(Arm("kill after", num_calls))
    for arm in arms:
        shutil.rmtree(out, ignore_errors=True)
        store = fresh(folder, before)
        outcome = server.run(function, store, arm=arm)
        # Threads make folders side by side: a run may have a few calls less than the one watched.
        ended = outcome.status == 0 and arm.nth > num_calls - _VARYING_CALLS
        assert outcome.killed or ended, f"{arm}: {outcome.message}"
        check_readable(store, there | after)
        if (out / layout.CURRENT_INDEX).exists():
            check_readable(out, {1})
        elif out.exists() and not (out / layout.STORE_JSON).exists():
            assert read_all(out) is None
        again = server.run(function, store)
        assert again.status == 0, f"{arm}: {again.message}"
        assert tree(store) == expected, arm
        assert (tree(out) if out.exists() else {}) == expected_out, arm
        if change.startswith("collect"):
            assert not leftovers(store)


@pytest.mark.slow
@pytest.mark.parametrize("change", ["annotate_again", "add_more", "export_train", "collect"])
def test_out_of_space_leaves_the_store_as_it_was(server, tmp_path, change):
    before = tmp_path / "before"
    CHANGES[change](before)
    function = f"{HERE}:{change}"
    store, out = fresh(tmp_path, before), tmp_path / "out"
    watched = server.run(function, store)
    expected, expected_out = tree(store), tree(out) if out.exists() else {}
    num_calls = len(watched.calls)
    there = set(kept_generations(before))
    for nth in range(1, num_calls + 1, max(1, num_calls // 6)):
        shutil.rmtree(out, ignore_errors=True)
        store = fresh(tmp_path, before)
        outcome = server.run(function, store, arm=Arm("fail", nth))
        assert outcome.status != 0 or tree(store) == expected
        check_readable(store, {*there, max(there) + 1})
        assert server.run(function, store).status == 0
        assert tree(store) == expected
        assert (tree(out) if out.exists() else {}) == expected_out


def test_deletions_come_in_the_order_that_keeps_generations_whole(server, tmp_path):
    store = tmp_path / "store"
    full(store)
    outcome = server.run(f"{HERE}:collect_unfinished", store)
    gone = [call.path for call in outcome.calls if call.name == "unlink"]
    kinds = [path.split("/")[0] for path in gone]
    order = [layout.GENERATIONS, layout.UNITS, layout.PLANS]
    first = {kind: kinds.index(kind) for kind in kinds}
    last = {kind: len(kinds) - 1 - kinds[::-1].index(kind) for kind in kinds}
    others = set(kinds) - set(order)
    assert layout.FEATURES in others
    assert layout.SHARDS in others
    assert last[layout.GENERATIONS] < first[layout.UNITS]
    assert all(last[layout.UNITS] < first[kind] for kind in others)
    assert all(last[kind] < first[layout.PLANS] for kind in others)
    # And the manifests' absence lasts before anything they name goes.
    synced = [c.begin for c in outcome.calls if c.name == "fsync" and c.path == layout.GENERATIONS]
    unlinks = {call.path: call for call in outcome.calls if call.name == "unlink"}
    next_ = min(unlinks[path].begin for path in gone if not path.startswith(layout.GENERATIONS))
    assert max(unlinks[layout.generation(2)].end, 0) < min(synced) < next_


def test_two_who_annotate_at_once_are_both_kept(server, tmp_path):
    store = tmp_path / "store"
    write_first(store)
    pids = [
        server.start(f"{HERE}:annotate_with", store, start_s=start_s) for start_s in (6.0, 6.5, 7.0)
    ]
    outcomes = [server.wait(pid) for pid in pids]
    assert [outcome.status for outcome in outcomes] == [0, 0, 0]
    assert sorted(outcome.result for outcome in outcomes) == [2, 3, 4]
    starts = {event.start_us for event in open_store(store).annotations("one").events}
    assert {6_000_000, 6_500_000, 7_000_000} < starts
    assert kept_generations(store) == (1, 2, 3, 4)


@pytest.mark.slow
def test_processes_share_an_addition(server, tmp_path):
    alone, store = tmp_path / "a" / "store", tmp_path / "b" / "store"
    for path in (alone, store):
        two_generations(path)
    add_more(alone)
    pids = [server.start(f"{HERE}:add_more", store) for _ in range(3)]
    outcomes = [server.wait(pid) for pid in pids]
    assert [(o.status, o.result) for o in outcomes] == [(0, 3)] * 3, [o.message for o in outcomes]
    assert tree(store) == tree(alone)


@pytest.mark.slow
def test_a_reader_keeps_reading_while_others_annotate_and_collect(server, tmp_path):
    store = tmp_path / "store"
    write_first(store)
    opened = open_store(store)
    frames = {item.id: opened.frames(item.id) for item in opened.recordings}
    pids = [server.start(f"{HERE}:annotate_and_collect", store, rounds=4) for _ in range(2)]
    generations = set[int]()
    for _ in range(40):
        try:
            newest = open_store(store)
            generations.add(newest.manifest.generation)
            notes = newest.annotations("one")
            assert len(notes.events) >= 2
        except NotFound:  # opened while its generation was removed: told, and the next try succeeds
            continue
        for key, expected in frames.items():
            assert (opened.frames(key) == expected).all()
    outcomes = [server.wait(pid) for pid in pids]
    assert [outcome.status for outcome in outcomes] == [0, 0], [o.message for o in outcomes]
    assert open_store(store).manifest.generation == 9
    assert generations


@pytest.mark.slow
def test_a_unit_of_a_killed_addition_is_whole_or_not_finished(server, tmp_path):
    before = tmp_path / "before"
    two_generations(before)
    function = f"{HERE}:add_more"
    num_calls = len(server.run(function, fresh(tmp_path, before)).calls)
    for nth in range(5, num_calls, max(1, num_calls // 10)):
        store = fresh(tmp_path, before)
        server.run(function, store, arm=Arm("kill before", nth))
        for path in (store / layout.UNITS).glob("*.json"):
            record = read_unit(store, path.stem)
            assert record is not None
            assert is_whole(store, record)
            for item in record.files:
                assert sha256_file(store / item.path) == item.sha256
