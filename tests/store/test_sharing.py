"""Who takes a recording, and when it counts as finished."""

from pathlib import Path

import pytest

from laughstore import layout
from laughstore.buildplan import BuildPlan, RecordingToPlan, begin_plan, make_plan, read_plan
from laughstore.errors import ConfigError, CorruptData
from laughstore.locks import StoreLocks, claim_number
from laughstore.sealed import seal, unseal
from laughstore.sharing import Share, Worker, unfinished
from laughstore.unit import UnitRecord, is_whole, read_unit, write_unit
from tests.stores import Episode, plan_for, random_features, spec_for, write_recording

SPEC = spec_for(8, block_frames=32, shard_frames=64)
EPISODES = (
    Episode("long", num_frames=100, speakers=("A",)),
    Episode("short", num_frames=40, speakers=("A",)),
)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store that was begun."""
    begin_plan(tmp_path / "store", plan())
    return tmp_path / "store"


def plan() -> BuildPlan:
    return plan_for(EPISODES, SPEC)


def write(store: Path, number: int) -> None:
    planned = plan().recordings[number]
    write_recording(store, plan(), planned, EPISODES[number], random_features(SPEC.dim))


class _Overtaken(StoreLocks):
    """Locks of a process that another one overtakes between its look and its claim."""

    def claim(self, number: int) -> bool:
        if number == claim_number(1, 0):
            write(self._store, 0)
        return super().claim(number)


def test_a_recording_finished_between_the_look_and_the_claim_is_left_as_it_is(store):
    with _Overtaken(store) as locks, locks.shared():
        share = Share(store, plan(), locks)
        taken = share.take()
        assert taken is not None
        assert taken.name == "short"
        record = read_unit(store, plan().recordings[0].id)
        assert record is not None
        assert is_whole(store, record)
        assert StoreLocks.claim(locks, claim_number(1, 0)), "its claim was given back"
        assert share.take() is None


def test_claims_of_what_was_taken_are_given_up_by_release(store):
    with StoreLocks(store) as locks, locks.shared():
        share = Share(store, plan(), locks)
        assert share.take() is not None
        assert share.take() is not None
        numbers = [claim_number(1, position) for position in range(2)]
        assert not any(locks.claim(number) for number in numbers)
        share.release()
        assert all(locks.claim(number) for number in numbers)


@pytest.mark.parametrize("which", ["path", "also"])
@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_unit_is_whole_only_under_both_names(store, which, damage):
    write(store, 0)
    planned = plan().recordings[0]
    record = read_unit(store, planned.id)
    assert record is not None
    assert is_whole(store, record)
    item = next(item for item in record.files if item.also is not None)
    name = store / str(getattr(item, which))
    data = name.read_bytes()
    name.unlink()
    if damage == "cut":
        name.write_bytes(data[:-1])
    assert not is_whole(store, record)
    assert planned in unfinished(store, plan())
    assert (store / layout.unit(planned.id)).exists()


def test_a_recording_without_assignments_is_no_plan(store):
    nobody = RecordingToPlan("nobody", "nobody", "train", "nobody", 40, (), "00000000")
    with pytest.raises(ConfigError, match="'nobody' has no assignment"):
        make_plan(SPEC, "test", [nobody])
    path = store / layout.plan(1)
    content, _ = unseal(path.read_bytes(), where="plan")
    content["recordings"][1].update(assignments=[], first_shards=[])
    path.write_bytes(seal(content))
    with pytest.raises(CorruptData, match="0 assignments"):
        read_plan(store)


def test_splits_that_differ_in_case_only_are_no_plan():
    lower, upper = (Episode(name, name, num_frames=40) for name in ("test", "Test"))
    with pytest.raises(ConfigError, match="'test' and 'Test' differ in case only"):
        plan_for([lower, upper], SPEC)
    with pytest.raises(ConfigError, match="'test' and 'Test' differ in case only"):
        plan_for([upper], SPEC, first_shards={"test": 3})
    # A store that has both, from a file system that tells them apart, can be added to.
    both = plan_for([lower, upper], SPEC, first_shards={"Test": 1, "test": 3})
    assert [item.first_shards for item in both.recordings] == [(3, 4), (1, 2)]


def test_suspects_are_taken_last_and_alone(tmp_path):
    episodes = [Episode(f"e{i}", num_frames=100 - 10 * i, speakers=("A",)) for i in range(4)]
    many = plan_for(episodes, SPEC)
    ids = [item.id for item in many.recordings]
    begin_plan(tmp_path / "store", many)
    suspects = {ids[0], ids[2]}

    def finish(number: int) -> None:
        path = tmp_path / "store"
        item = many.recordings[number]
        write_recording(path, many, item, episodes[number], random_features(SPEC.dim))

    with StoreLocks(tmp_path / "store") as locks, locks.shared():
        share = Share(tmp_path / "store", many, locks, worker=Worker(suspects=suspects))

        def take() -> str | None:
            share.is_settled()  # looks at once, without the pause after a look that found nothing
            item = share.take()
            return None if item is None else item.name

        assert [take(), take()] == ["e1", "e3"]
        assert take() is None, "two are in work"
        finish(1)
        assert take() is None, "one is in work"
        finish(3)
        assert take() == "e0"
        assert take() is None, "a suspect is in work"
        suspects.clear()
        assert take() == "e2", "it was told that nobody is suspected any more"


def test_what_was_left_out_by_those_started_together_is_not_tried_again(store):
    planned = plan().recordings[0]
    write_unit(store, UnitRecord(planned.id, "quarantined", "broken"))
    for worker, names in (
        (Worker(), ["long", "short"]),
        (Worker(left_out=[planned.id]), ["short"]),
    ):
        write_unit(store, UnitRecord(planned.id, "quarantined", "broken"))
        taken = []
        with StoreLocks(store) as locks, locks.shared():
            share = Share(store, plan(), locks, worker=worker)
            while (item := share.take()) is not None:
                taken.append(item.name)
            share.release()
        assert taken == names


def test_a_unit_of_other_shards_than_the_plans_is_not_finished(store):
    """A store was finished without it; somebody wrote it all the same, and now it is added."""
    write(store, 0)
    planned = plan().recordings[0]
    assert planned not in unfinished(store, plan())
    moved = plan_for(EPISODES, SPEC, first_shards={"train": 5})
    assert moved.recordings[0] in unfinished(store, moved)


def test_what_others_have_finished_is_told_once(store):
    settled = []
    with StoreLocks(store) as locks, locks.shared():
        worker = Worker(settled=lambda item: settled.append(item.name))
        share = Share(store, plan(), locks, worker=worker)
        write(store, 0)
        item = share.take()
        assert item is not None
        assert (item.name, settled) == ("short", ["long"])
        assert share.is_settled()
        assert settled == ["long"], "what was taken here is counted here"
