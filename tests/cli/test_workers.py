"""`--nproc`: workers are shown as one, replaced when they die, and never outlive their parent."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from laughstore import open_store
from laughstore.cli.deaths import MAX_DEATHS, Deaths
from laughstore.commit import commit_plan
from laughstore.errors import ConfigError, LaughstoreError
from laughstore.naming import recording_id
from tests.faults.harness import leftovers, tree
from tests.stores import random_features, write_recording

from .stand_in import EPISODES, SPEC, START, arguments, plan, workers

NUM_FRAMES = sum(episode.num_frames for episode in EPISODES)


class Heard:
    """A progress that remembers."""

    def __init__(self) -> None:
        self.tasks: list[tuple[str, int, str]] = []
        self.done: list[int] = []
        self.messages: list[str] = []

    def begin(self, task: str, total: int, unit: str) -> None:
        self.tasks.append((task, total, unit))
        self.done.append(0)

    def advance(self, amount: int, note: str = "") -> None:
        self.done[-1] += amount

    def message(self, text: str) -> None:
        self.messages.append(text)

    def end(self) -> None:
        pass

    @property
    def deaths(self) -> list[str]:
        return [text for text in self.messages if "was killed by" in text]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What one process writes."""
    from laughstore.buildplan import begin_plan

    store = tmp_path_factory.mktemp("alone") / "store"
    begin_plan(store, plan())
    for planned, episode in zip(plan().recordings, EPISODES, strict=True):
        write_recording(store, plan(), planned, episode, random_features(SPEC.dim))
    commit_plan(store, plan())
    return tree(store)


@pytest.mark.parametrize(
    "num_workers", [2, *(pytest.param(i, marks=pytest.mark.slow) for i in (1, 3))]
)
def test_workers_come_to_the_bytes_of_one_process_and_are_shown_as_one(
    num_workers, tmp_path, expected
):
    heard = Heard()
    result = workers(tmp_path / "store", heard, slots=2, pause_s=0.02).run(num_workers)
    assert tree(tmp_path / "store") == expected
    assert (result.num_built, result.left_out, result.notes) == (8, (), ("a note",))
    # Which worker comes first is not said; the others' survey is not shown.
    assert [task for task in heard.tasks if task[0] == "extract"] == [
        ("extract", NUM_FRAMES, "frame")
    ]
    assert heard.done[-1] == NUM_FRAMES
    assert heard.messages == ["left out: one that nobody can read"]


@pytest.mark.parametrize("slots", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_what_a_killed_worker_had_in_work_is_done_again(slots, tmp_path, expected):
    heard = Heard()
    orders = {"kills": ["episode 4"], "once": str(tmp_path / "once"), "slots": slots}
    result = workers(tmp_path / "store", heard, **orders).run(2)
    assert result.left_out == ()
    assert tree(tmp_path / "store") == expected
    assert len(heard.deaths) == 1
    assert "SIGKILL (out of memory" in heard.deaths[0]
    assert heard.done[-1] == NUM_FRAMES, "what was lost is not counted twice"


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [1, 3])
def test_what_kills_every_worker_is_left_out_and_nothing_else_is(num_workers, tmp_path, expected):
    heard = Heard()
    poison = EPISODES[5].name
    result = workers(tmp_path / "store", heard, kills=[poison], slots=3).run(num_workers)
    assert [item.name for item in result.left_out] == [poison]
    assert f"SIGKILL (out of memory, if you did not send it) {MAX_DEATHS} times, the last time" in (
        result.left_out[0].reason
    )
    store = open_store(tmp_path / "store")
    assert {item.name for item in store.recordings} == {e.name for e in EPISODES} - {poison}
    assert [dict(item) for item in store.manifest.quarantined] == [
        {"name": poison, "split": "train", "reason": result.left_out[0].reason}
    ]
    assert MAX_DEATHS - 1 <= len(heard.deaths) <= 2 * MAX_DEATHS
    there = {path: digest for path, digest in tree(tmp_path / "store").items() if "zarr/" in path}
    assert there.items() <= expected.items()
    assert heard.done[-1] == NUM_FRAMES - EPISODES[5].num_frames


@pytest.mark.slow
def test_two_of_them_are_both_found(tmp_path):
    kills = [EPISODES[7].name, EPISODES[6].name]
    result = workers(tmp_path / "store", kills=kills, slots=4).run(2)
    assert {item.name for item in result.left_out} == set(kills)
    assert len(open_store(tmp_path / "store").recordings) == 6


@pytest.mark.slow
def test_a_worker_that_is_started_again_does_not_try_again_what_was_left_out(tmp_path):
    """Only the next run does."""
    heard = Heard()
    orders = {"bad": ["episode 7"], "kills": ["episode 3"], "once": str(tmp_path / "once")}
    result = workers(tmp_path / "store", heard, **orders).run(1)
    assert len(heard.deaths) == 1
    # Of the first worker, which died with the fifth, no result came; the second built the others
    # and counts one that was left out.
    assert result.num_built == 3
    (tmp_path / "store/store.json").unlink()
    again = workers(tmp_path / "store").run(1)
    assert again.left_out == ()


@pytest.mark.slow
def test_what_an_earlier_run_left_out_is_tried_again(tmp_path):
    workers(tmp_path / "store", bad=["episode 7", "episode 2"]).run(1)
    (tmp_path / "store/store.json").unlink()
    result = workers(tmp_path / "store", bad=["episode 2"]).run(2)
    assert [item.name for item in result.left_out] == ["episode 2"]


@pytest.mark.parametrize(
    ("order", "kind", "exit_code"),
    [
        ("fails", LaughstoreError, 1),
        pytest.param("is_wrong", ConfigError, 2, marks=pytest.mark.slow),
    ],
)
def test_an_ordinary_error_of_all_workers_is_told_once_and_ends_the_build(
    order, kind, exit_code, tmp_path
):
    heard = Heard()
    with pytest.raises(kind, match=r"^nothing goes$") as caught:
        workers(tmp_path / "store", heard, **{order: "nothing goes"}).run(2)
    assert getattr(caught.value, "exit_code", 1) == exit_code
    assert heard.messages == []


@pytest.mark.slow
def test_an_error_that_nobody_expected_ends_the_build_with_its_last_line(tmp_path):
    heard = Heard()
    with pytest.raises(LaughstoreError, match=r"exit code 1: RuntimeError: 17 is odd"):
        workers(tmp_path / "store", heard, breaks="17 is odd").run(2)
    assert any(text.startswith("Traceback") for text in heard.messages)


@pytest.mark.slow
def test_workers_that_die_before_they_begin_are_given_up(tmp_path):
    heard = Heard()
    with pytest.raises(LaughstoreError, match="the last worker was killed by SIGSEGV"):
        workers(tmp_path / "store", heard, killed_ranks=[0, 1]).run(2)
    assert len(heard.deaths) == 2 * MAX_DEATHS - 1


@pytest.mark.slow
def test_those_that_live_go_on_without_those_that_die_before_they_begin(tmp_path, expected):
    heard = Heard()
    result = workers(tmp_path / "store", heard, killed_ranks=[1], pause_s=1).run(2)
    assert result.left_out == ()
    assert tree(tmp_path / "store") == expected
    assert "going on with 1" in heard.deaths[-1]


@contextmanager
def running(store: Path, **orders: object) -> Iterator[subprocess.Popen[str]]:
    """A parent of two workers, in a process of its own, once one recording is finished."""
    words = [str(store), "2", json.dumps({"pause_s": 0.3, **orders})]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.cli.stand_in", *words],
        cwd=Path(__file__).parents[2],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        start_new_session=True,
    )
    try:
        until_s = time.monotonic() + 60
        while not list(store.glob("units/*.json")):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < until_s
            time.sleep(0.01)
        yield process
    finally:
        process.kill()
        process.communicate()


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def ended(pid: int) -> bool:
    """Whether a process is gone, or a zombie that nobody has waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def assert_ended(pids: list[int]) -> None:
    until_s = time.monotonic() + 20
    while not all(ended(pid) for pid in pids):
        assert time.monotonic() < until_s, "a worker outlives its parent"
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="children are looked for in /proc")
@pytest.mark.parametrize("to_group", [False, True])
@pytest.mark.parametrize(
    ("number", "exit_code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)],
)
def test_workers_end_with_their_parent_and_a_rerun_goes_on(
    number, exit_code, to_group, tmp_path, expected
):
    """Sent to the parent alone, and to all, as a terminal or a scheduler does."""
    store = tmp_path / "store"
    with running(store) as process:
        pids = children(process.pid)
        assert len(pids) == 2
        os.killpg(process.pid, number) if to_group else process.send_signal(number)
        assert process.wait(timeout=30) == exit_code
        assert_ended(pids)
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
    # On a busy machine the workers may be done before the parent has seen to the signal.
    was_finished = (store / "store.json").exists()
    if number != signal.SIGKILL:
        assert not leftovers(store)
    result = workers(store).run(2)
    assert was_finished or 0 < result.num_built < 8
    assert {path: digest for path, digest in tree(store).items() if "partial" not in path} == (
        expected
    )


@pytest.mark.slow
def test_a_worker_that_is_told_to_stop_ends_the_build(tmp_path):
    with running(tmp_path / "store") as process:
        os.kill(children(process.pid)[0], signal.SIGTERM)
        assert process.wait(timeout=30) == 143


def test_a_worker_without_its_parent_ends_by_itself(tmp_path):
    """Also where no kernel does it: its stdin has ended."""
    words = [sys.executable, "-c", START, json.dumps(sys.path), str(os.getpid()), "1", "0"]
    done = subprocess.run(
        [*words, *arguments(tmp_path / "store")],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (143, "", "")
    assert not (tmp_path / "store").exists()


@given(st.integers(2, 6), st.data())
def test_whoever_dies_only_in_company_is_never_given_up(num_items, data):
    """The innocent die with the guilty; alone they are finished."""
    guilty = data.draw(st.sets(st.integers(0, num_items - 1), max_size=3))
    deaths, left, given_up = Deaths(), set(range(num_items)), set()
    for _ in range(200):
        suspects = [i for i in left if str(i) in deaths.suspects]
        fresh = sorted(left - set(suspects))
        if not left:
            break
        if fresh:
            size = data.draw(st.integers(1, len(fresh)))
            batch = fresh[:size]
        else:
            batch = suspects[:1]
        if not guilty & set(batch):
            left -= set(batch)
            continue
        out = deaths.add([str(i) for i in batch])
        if out is not None:
            given_up.add(int(out))
            left.remove(int(out))
    assert not left
    assert given_up == guilty


def test_ids_are_those_of_the_plan():
    assert [item.id for item in plan().recordings] == [recording_id(e.name) for e in EPISODES]
