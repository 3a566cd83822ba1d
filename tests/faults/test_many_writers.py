"""Any number of processes build one store: each recording once, whoever is killed, same bytes."""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from laughstore import layout, open_store
from laughstore.files import TEMPORARY_MARK

from .harness import FaultServer, Outcome, leftovers, read_all, tree
from .writers import MANY

BUILD = "tests.faults.writers:build_many"
NUM_WRITERS = 4


@pytest.fixture(scope="session")
def expected(server: FaultServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The tree that one process alone writes."""
    store = tmp_path_factory.mktemp("alone") / "store"
    assert server.run(BUILD, store).result == len(MANY)
    return tree(store)


def finished_units(outcomes: Sequence[Outcome]) -> Counter[str]:
    """How often each unit's record got its name."""
    return Counter(
        call.second
        for outcome in outcomes
        for call in outcome.calls
        if call.name == "rename" and call.second.startswith(f"{layout.UNITS}/") and not call.error
    )


def commits(outcomes: Sequence[Outcome]) -> int:
    return sum(call.second == layout.STORE_JSON for item in outcomes for call in item.calls)


def test_writers_started_at_once_write_each_recording_once_and_all_end_well(
    server, tmp_path, expected
):
    store = tmp_path / "store"
    pids = [server.start(BUILD, store, pause_s=0.02) for _ in range(NUM_WRITERS)]
    outcomes = [server.wait(pid) for pid in pids]
    assert [outcome.status for outcome in outcomes] == [0] * NUM_WRITERS, outcomes[0].message
    assert sum(outcome.result for outcome in outcomes) == len(MANY)
    assert set(finished_units(outcomes).values()) == {1}
    assert commits(outcomes) == 1
    assert tree(store) == expected
    assert not leftovers(store)


@pytest.mark.slow
def test_living_writers_take_over_what_killed_ones_had_claimed(server, tmp_path, expected):
    store = tmp_path / "store"
    pids = [server.start(BUILD, store, pause_s=0.2) for _ in range(NUM_WRITERS)]
    wait_for_units(store, 2)
    for pid in pids[:2]:
        os.kill(pid, signal.SIGKILL)
    outcomes = [server.wait(pid) for pid in pids]
    assert [outcome.killed for outcome in outcomes] == [True, True, False, False]
    assert outcomes[2].status == outcomes[3].status == 0, outcomes[2].message
    # A process may be killed after a call and before it has logged it.
    assert set(finished_units(outcomes).values()) == {1}
    assert finished_units(outcomes).total() >= len(MANY) - 2
    assert tree(store) == expected
    assert all(TEMPORARY_MARK in name for name in leftovers(store))


def wait_for_units(store: Path, number: int) -> None:
    until_s = time.monotonic() + 60
    while len(list(store.glob(f"{layout.UNITS}/*.json"))) < number:
        assert time.monotonic() < until_s, "no recording is finished"
        time.sleep(0.005)


def test_a_late_writer_finds_the_store_finished(server, tmp_path, expected):
    store = tmp_path / "store"
    assert server.run(BUILD, store).result == len(MANY)
    late = server.run(BUILD, store)
    assert (late.status, late.result) == (0, 0)
    assert tree(store) == expected


def test_a_recording_that_fails_is_tried_once_by_all_and_moves_nothing_else(
    server, tmp_path, expected
):
    store, bad = tmp_path / "store", MANY[3].name
    pids = [server.start(BUILD, store, pause_s=0.02, bad=[bad]) for _ in range(NUM_WRITERS)]
    outcomes = [server.wait(pid) for pid in pids]
    assert [outcome.status for outcome in outcomes] == [0] * NUM_WRITERS, outcomes[0].message
    assert sum(outcome.result for outcome in outcomes) == len(MANY)
    assert [item["name"] for item in open_store(store).manifest.quarantined] == [bad]
    # The same plan: all that is there has the bytes and the name it would have had anyhow.
    there = {path: digest for path, digest in tree(store).items() if "zarr/" in path}
    assert there.items() <= expected.items()
    assert len(there) < len([path for path in expected if "zarr/" in path])


def test_a_recording_that_failed_is_tried_again_by_the_next_run(server, tmp_path, expected):
    store = tmp_path / "store"
    pid = server.start(BUILD, store, pause_s=0.3, bad=[MANY[-1].name])  # the longest comes first
    wait_for_units(store, 1)
    os.kill(pid, signal.SIGKILL)
    assert server.wait(pid).killed
    again = server.run(BUILD, store)
    assert (again.status, again.result) == (0, len(MANY))
    assert tree(store) == expected


@pytest.mark.parametrize("num_kills", [4, pytest.param(100, marks=pytest.mark.slow)])
def test_killed_at_random_times_writers_come_to_the_same_bytes(
    num_kills, server, tmp_path, expected
):
    """Of four writers at a time two are killed, until the store is finished; then once more."""
    rng = random.Random(7)
    num_killed = num_stores = 0
    while num_killed < num_kills:
        store = tmp_path / f"{num_stores}" / "store"
        num_stores += 1
        store.parent.mkdir()
        while read_all(store) is None if store.exists() else True:
            pids = [server.start(BUILD, store, pause_s=0.01) for _ in range(NUM_WRITERS)]
            for pid in pids[: rng.choice((2, NUM_WRITERS))]:
                time.sleep(rng.uniform(0, 0.1))
                os.kill(pid, signal.SIGKILL)
            outcomes = [server.wait(pid) for pid in pids]
            num_killed += sum(outcome.killed for outcome in outcomes)
            assert not [item.message for item in outcomes if item.status and not item.killed]
        assert server.run(BUILD, store).status == 0
        assert tree(store) == expected
