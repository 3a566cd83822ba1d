"""A process killed, or failed by the disk, at any call: readers see old or new, never a part."""

import errno
from pathlib import Path

import pytest

from .cases import Case, changes, fail_from, kill_at, make_case
from .harness import NEEDS_SPACE, SYNC, WRITE, Arm, FaultServer, fresh, leftovers

WRITERS = "tests.faults.writers"


@pytest.fixture(scope="session")
def tiny(server: FaultServer, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return make_case(server, tmp_path_factory.mktemp("tiny") / "case", f"{WRITERS}:build_tiny")


@pytest.fixture(params=["annotate", "add"])
def second(request: pytest.FixtureRequest, server: FaultServer, tmp_path: Path, tiny: Case) -> Case:
    """The commit of a second generation."""
    first = tmp_path / "first" / "store"
    first.parent.mkdir()
    assert server.run(tiny.function, first).status == 0
    return make_case(server, tmp_path / "case", f"{WRITERS}:{request.param}", first)


@pytest.mark.slow
def test_killed_at_any_call_a_small_build_goes_on_to_the_same_bytes(server, tiny):
    num_killed = kill_at(server, tiny, "kill before", range(1, 2 * len(tiny.calls)))
    # Threads may share their work in another way, so that there is a call more or less.
    assert num_killed >= len(tiny.calls) - 5


@pytest.mark.slow
def test_killed_after_any_change_a_build_of_two_splits_goes_on_to_the_same_bytes(server, tmp_path):
    case = make_case(server, tmp_path / "case", f"{WRITERS}:build_pair")
    numbers = changes(case)[::2]
    assert kill_at(server, case, "kill after", numbers) >= len(numbers) - 2


def test_killed_at_some_changes_a_small_build_goes_on_to_the_same_bytes(server, tiny):
    assert kill_at(server, tiny, "kill before", changes(tiny)[::13]) > 5


@pytest.mark.slow
def test_killed_at_any_call_of_its_commit_a_second_generation_comes_whole(server, second):
    num_killed = kill_at(server, second, "kill before", range(1, 2 * len(second.calls)))
    assert num_killed >= len(second.calls) - 5


def test_killed_at_some_changes_of_its_commit_a_second_generation_comes_whole(server, second):
    assert kill_at(server, second, "kill before", changes(second)[-20::5]) > 2


@pytest.mark.parametrize("step", [9, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_in_the_middle_of_a_write_a_build_goes_on_to_the_same_bytes(step, server, tiny):
    num_writes = sum(call.name == "write" for call in tiny.calls)
    for number in range(1, num_writes + 1, step):
        ended = tiny.end_at(server, Arm("kill torn", number, WRITE))
        assert ended is not None
        assert ended.killed


@pytest.mark.parametrize("action", ["fail", "fail torn"])
@pytest.mark.parametrize("step", [47, pytest.param(1, marks=pytest.mark.slow)])
def test_a_full_disk_is_one_error_and_leaves_no_part_of_a_file(action, step, server, tiny):
    assert fail_from(server, tiny, action, NEEDS_SPACE, errno.ENOSPC, step) > 2


@pytest.mark.slow
@pytest.mark.parametrize("action", ["fail", "fail torn"])
def test_a_full_disk_leaves_the_first_generation_whole(action, server, second):
    assert fail_from(server, second, action, NEEDS_SPACE, errno.ENOSPC, 1) > 10


@pytest.mark.parametrize("step", [19, pytest.param(1, marks=pytest.mark.slow)])
def test_a_disk_that_fails_to_sync_is_one_error_and_nothing_unsynced_gets_a_name(
    step, server, tiny
):
    assert fail_from(server, tiny, "fail", SYNC, errno.EIO, step) > 1


def test_a_kill_leaves_nothing_but_temporaries_that_nobody_names(server, tiny):
    store = fresh(tiny.folder, None)
    number = next(i for i, call in enumerate(tiny.calls, 1) if call.name == "rename")
    assert server.run(tiny.function, store, Arm("kill before", number)).killed
    assert len(leftovers(store)) == 1
