"""Finishing a store without building: what is missing is told, or left out and added later."""

import os
import signal
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from laughstore import layout, open_store
from laughstore.buildplan import BuildPlan, begin_plan
from laughstore.commit import NOT_BUILT, NothingBuilt, commit_annotations, commit_plan
from laughstore.errors import IncompleteStore, LaughstoreError, SpecMismatch
from laughstore.evolution.export import export
from laughstore.files import sync_names
from laughstore.finishing import finish_store, leave_out, not_built, quarantined
from laughstore.inspection import other_devices
from laughstore.integrity.verify import verify
from laughstore.locks import StoreLocks, claim_number
from laughstore.parts import Part
from laughstore.progress import NoProgress
from laughstore.sharing import Worker, build_part
from laughstore.unit import UnitRecord, read_unit, write_unit
from tests.faults.harness import tree
from tests.stores import Episode, plan_for, spec_for, write_recording

from .evolutions import BLOCK, DIM, FEATURES, FIRST, SHARD, add_episodes, collect

SPEC = spec_for(DIM, block_frames=BLOCK, shard_frames=SHARD)
EPISODES = (*FIRST, Episode("three", num_frames=50, speakers=("B",)))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store that was begun."""
    begin_plan(tmp_path / "store", plan())
    return tmp_path / "store"


def plan() -> BuildPlan:
    return plan_for(EPISODES, SPEC)


def write(store: Path, numbers: Sequence[int] = range(3)) -> None:
    for number in numbers:
        write_recording(store, plan(), plan().recordings[number], EPISODES[number], FEATURES)


def finish(store: Path, *, partial: bool = False) -> list[tuple[str, str]]:
    left_out = finish_store(store, partial=partial, progress=NoProgress())
    return [(item.name, item.reason) for item in left_out]


@pytest.mark.parametrize("partial", [False, True])
def test_a_store_whose_recordings_are_all_built_is_finished(partial, store, tmp_path):
    write(store)
    assert finish(store, partial=partial) == []
    begin_plan(tmp_path / "whole", plan())
    write(tmp_path / "whole")
    commit_plan(tmp_path / "whole", plan())
    assert tree(store) == tree(tmp_path / "whole")
    before = tree(store)
    (store / layout.CURRENT_INDEX).unlink()
    assert finish(store, partial=partial) == []
    assert tree(store) == before, "what repeats the manifest is given back"


def test_what_is_missing_is_counted_and_the_first_named(store):
    write(store, [1])
    before = tree(store)
    with pytest.raises(IncompleteStore, match=r"2 of 3 recordings .* 'one'; build .*--partial"):
        finish(store)
    assert tree(store) == before
    assert [item.name for item in not_built(store)] == ["one", "three"]


def test_where_nothing_was_begun_there_is_nothing_to_finish(tmp_path):
    with pytest.raises(IncompleteStore, match="begin it with"):
        finish(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_a_partial_store_lacks_what_was_not_built_and_gets_it_by_an_addition(store):
    write(store, [1])
    write(store, [0])
    shard = next(store.glob("features.zarr/train/*/*/c/0/0"))
    shard.unlink()  # of the one that is not whole
    write_unit(store, UnitRecord(plan().recordings[2].id, "quarantined", "bad"))
    assert finish(store, partial=True) == [("one", NOT_BUILT), ("three", "bad")]
    assert verify(store).faults == ()
    opened = open_store(store)
    assert [item.name for item in opened.recordings] == ["two"]
    assert not list(store.glob("features.zarr/train/*"))
    assert {path.name for path in (store / "shards").glob("*.tar")} == {"validation-000000.tar"} | {
        "validation-000001.tar"
    }
    assert finish(store, partial=True) == [("one", NOT_BUILT), ("three", "bad")], "nothing changes"
    assert add_episodes(store, EPISODES) == 2
    opened = open_store(store)
    assert {item.name for item in opened.recordings} == {"one", "two", "three"}
    assert opened.manifest.quarantined == ()
    assert verify(store).faults == ()
    stream = opened.index.recording("one").streams[0]
    assert stream.first_shard == 5, "behind the numbers that the first plan has given"
    frames = opened.frames("one", stream.assignment)
    assert frames.view("u2").tolist() == FEATURES("one", 0, 100).tolist()


def test_a_unit_that_came_after_the_partial_commit_is_built_again_by_an_addition(store):
    """A host that saw no locks went on."""
    write(store, [1, 2])
    finish(store, partial=True)
    write(store, [0])
    assert add_episodes(store, EPISODES) == 2
    collect(store)  # its shards under the numbers of the first plan
    assert verify(store).faults == ()
    assert open_store(store).index.recording("one").streams[0].first_shard == 5


def test_of_nothing_no_store_can_be_made(store):
    with pytest.raises(NothingBuilt):
        finish(store, partial=True)
    assert not (store / layout.STORE_JSON).exists()


def in_child(work) -> int:
    """Run something in a forked child. Returns its pid."""
    pid = os.fork()
    if pid:
        return pid
    signal.alarm(60)
    try:
        work()
    except BaseException:  # the child must not go on with the tests
        os._exit(1)
    os._exit(0)


@pytest.mark.parametrize(("partial", "said"), [(False, "wait until"), (True, "stop them first")])
def test_while_others_write_nothing_is_left_out(partial, said, store):
    write(store, [1])
    reader, writer = os.pipe()

    def hold() -> None:
        with StoreLocks(store) as locks, locks.shared():
            os.write(writer, b"x")
            signal.pause()

    pid = in_child(hold)
    try:
        assert os.read(reader, 1) == b"x"
        with pytest.raises(LaughstoreError, match=said) as caught:
            finish(store, partial=partial)
        assert "build them" not in str(caught.value), "they are being built"
        assert ("--partial" in str(caught.value)) == partial
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(reader)
        os.close(writer)
    assert not (store / layout.STORE_JSON).exists()


@pytest.mark.slow
def test_several_that_finish_at_once_without_locks_come_to_the_same_bytes(
    store, tmp_path, monkeypatch
):
    write(store)
    finish(store)
    expected = tree(store)
    monkeypatch.setattr(StoreLocks, "_lock", lambda *_: True)
    for number in range(6):
        other = tmp_path / f"other-{number}"
        begin_plan(other, plan())
        write(other)
        pids = [in_child(lambda where=other, i=i: build(where, Part(i + 1, 4))) for i in range(4)]
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        assert codes == [0] * 4
        assert tree(other) == expected


def build(store: Path, part: Part) -> None:
    with StoreLocks(store) as locks:
        build_part(store, plan(), locks, lambda _: None, worker=Worker(part), progress=NoProgress())


def before_it_counts(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], object]) -> None:
    """Have something happen when the next commit has written all but store.json."""

    def sync(root: Path, paths: Iterable[str]) -> None:
        monkeypatch.undo()
        sync_names(root, paths)
        happens()

    monkeypatch.setattr("laughstore.publishing.sync_names", sync)


def test_of_two_hosts_that_finish_a_store_the_first_counts(store, monkeypatch):
    """They see no locks of each other; the second left out what the first one has."""
    write(store, [1, 2])
    published: list[dict[str, str]] = []

    def finish_elsewhere() -> None:
        write(store, [0])
        assert commit_plan(store, plan()) == ()
        published.append(tree(store))

    before_it_counts(monkeypatch, finish_elsewhere)
    assert commit_plan(store, plan(), partial=True) == ()
    assert tree(store) == published[0]
    assert verify(store).faults == ()
    assert len(open_store(store).recordings) == 3


def test_a_host_that_comes_later_touches_nothing_that_was_published(store, monkeypatch):
    write(store)
    expected: dict[str, str] = {}

    def nobody(store: Path) -> None:
        """Has not seen the store finished yet, when it looks for the first time."""
        monkeypatch.undo()
        commit_plan(store, plan())
        expected.update(tree(store))
        (store / layout.unit(plan().recordings[0].id)).rename(store / "away")

    monkeypatch.setattr("laughstore.commit.newest_manifest", nobody)
    assert commit_plan(store, plan(), partial=True) == ()
    (store / "away").rename(store / layout.unit(plan().recordings[0].id))
    assert tree(store) == expected


def test_what_another_host_writes_over_a_commit_that_counts_is_put_right(store, monkeypatch):
    """It died before it counted itself."""
    write(store)
    record = store / layout.unit(plan().recordings[0].id)

    class Killed(Exception):
        pass

    def killed() -> None:
        raise Killed

    def overwrite() -> None:
        record.rename(store / "away")
        before_it_counts(monkeypatch, killed)
        with pytest.raises(Killed):
            commit_plan(store, plan(), partial=True)
        (store / "away").rename(record)

    before_it_counts(monkeypatch, overwrite)
    assert commit_plan(store, plan()) == ()
    assert verify(store).faults == ()
    assert len(open_store(store).recordings) == 3


def test_a_later_generation_is_not_published_over_that_of_another_host(store, monkeypatch):
    write(store)
    finish(store)
    one, two = (item.id for item in plan().recordings[:2])
    silent = replace(EPISODES[0].annotations, events=())
    published: list[dict[str, str]] = []

    def annotate_elsewhere() -> None:
        commit_annotations(store, {two: replace(EPISODES[1].annotations, events=())})
        published.append(tree(store))

    before_it_counts(monkeypatch, annotate_elsewhere)
    with pytest.raises(LaughstoreError, match=r"published generation 2 meanwhile.*again, alone"):
        commit_annotations(store, {one: silent})
    assert tree(store) == published[0]
    assert verify(store).faults == ()
    assert commit_annotations(store, {one: silent}).generation == 3


def test_a_recording_is_left_out_unless_somebody_has_it_in_work(store):
    write(store, [0, 1])
    first = plan().recordings[0]
    with StoreLocks(store) as locks:
        assert locks.claim(claim_number(1, 0))
        assert not leave_out(store, first.id, "it kills", NoProgress())
    assert leave_out(store, first.id, "it kills", NoProgress())
    assert [(item.name, item.reason) for item in quarantined(store, plan(), None)] == [
        ("one", "one: it kills")
    ]
    assert not list(store.glob("shards/train-*"))
    numbers = [n for n in (1, 2) if quarantined(store, plan(), f"{n}/2")]
    assert len(numbers) == 1


def test_units_of_other_devices_say_so_and_those_of_the_plans_do_not(store):
    write(store, [0, 2])
    assert b"device_kind" not in (store / layout.unit(plan().recordings[0].id)).read_bytes()
    write(store, [1])
    record = read_unit(store, plan().recordings[1].id)
    assert record is not None
    moved = UnitRecord(**{**vars(record), "device_kind": "cpu/other"})
    write_unit(store, moved)
    assert read_unit(store, record.id) == moved
    finish(store)
    assert other_devices(store, open_store(store).index) == {"cpu/other": 1}
    for number, bare in enumerate((False, True)):
        out = store.parent / f"out-{number}"
        export(open_store(store), out, with_annotations=not bare)
        assert other_devices(out, open_store(out).index) == {"cpu/other": 1}


def test_a_plan_of_another_device_is_taken_only_when_that_is_allowed(store):
    other = BuildPlan(**{**vars(plan()), "device_kind": "cuda/other"})
    with pytest.raises(SpecMismatch, match="--allow-mixed-devices"):
        begin_plan(store, other)
    assert begin_plan(store, other, allow_mixed_devices=True) == plan()
