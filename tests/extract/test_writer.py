"""Writing behind the model: whatever fails, no thread goes on writing and nothing is half there."""

import threading
from pathlib import Path

import numpy as np
import pytest

from extract.features import FeatureChunk, Source
from extract.writer import StoreWriter
from laughstore import layout
from laughstore.annotations import write_annotations
from laughstore.buildplan import BuildPlan, begin_plan
from laughstore.files import TEMPORARY_MARK
from laughstore.unitwriter import UnitWriter
from tests.stores import Episode, plan_for, spec_for

DIM, NUM_FRAMES, CHUNK_FRAMES = 64, 700, 100
EPISODES = [Episode(name, num_frames=NUM_FRAMES) for name in ("one", "two", "three")]


@pytest.fixture
def plan() -> BuildPlan:
    return plan_for(EPISODES, spec_for(DIM, shard_frames=256))


@pytest.fixture
def store(tmp_path: Path, plan: BuildPlan) -> Path:
    """A store that was begun."""
    begin_plan(tmp_path / "store", plan)
    for planned, episode in zip(plan.recordings, EPISODES, strict=True):
        write_annotations(tmp_path / "store", episode.annotations, planned.split, planned.id)
    return tmp_path / "store"


def write(writer: StoreWriter, plan: BuildPlan, names: dict[str, int]) -> None:
    """Put the first frames of some recordings, by name, side by side."""
    chosen = [item for item in plan.recordings if item.name in names]
    for start in range(0, NUM_FRAMES, CHUNK_FRAMES):
        for item in chosen:
            if start < names[item.name]:
                features = np.full((2, CHUNK_FRAMES, DIM), start, np.uint16)
                codes = np.zeros((2, CHUNK_FRAMES, 17), np.int16)
                source = Source(item.id, NUM_FRAMES, list)
                writer.put(FeatureChunk(source, start, features, codes))


def assert_nothing_goes_on(store: Path) -> None:
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name.startswith(("close-shard", "store-writer"))]
    assert not list(store.rglob(f"*{TEMPORARY_MARK}*"))


def put_in_the_way(store: Path, plan: BuildPlan, name: str, shard: int) -> None:
    """Make the last shard of a stream impossible to name."""
    (item,) = (item for item in plan.recordings if item.name == name)
    (store / layout.shard(item.split, item.first_shards[shard] + 2)).mkdir(parents=True)


@pytest.mark.parametrize("stream", [0, 1])
def test_when_a_recording_cannot_be_finished_nobody_goes_on_writing(stream, store, plan):
    put_in_the_way(store, plan, "one", stream)
    counts = {"one": NUM_FRAMES, "two": 300, "three": NUM_FRAMES - CHUNK_FRAMES}
    with pytest.raises(IsADirectoryError), StoreWriter(store, plan) as writer:
        write(writer, plan, counts)
    assert_nothing_goes_on(store)
    assert not list((store / layout.UNITS).glob("*"))


def test_a_unit_that_cannot_be_finished_cleans_up_by_itself(store, plan):
    put_in_the_way(store, plan, "one", 0)
    (item,) = (item for item in plan.recordings if item.name == "one")
    unit = UnitWriter(store, plan, item, EPISODES[0].annotations)
    unit.write(np.zeros((2, NUM_FRAMES, DIM), np.uint16), np.zeros((2, NUM_FRAMES, 17), np.int16))
    with pytest.raises(IsADirectoryError):
        unit.finish()
    assert_nothing_goes_on(store)


def test_one_unit_that_cannot_be_cleaned_up_does_not_keep_the_others(store, plan, monkeypatch):
    leave, failed = UnitWriter.__exit__, []

    def fail_first(unit: UnitWriter, *exception: object) -> None:
        leave(unit, None, None, None)
        if not failed:
            failed.append(unit)
            raise OSError("the first of them")

    def interrupted() -> None:
        with StoreWriter(store, plan) as writer:
            write(writer, plan, {"one": 300, "two": 300})
            raise KeyboardInterrupt

    monkeypatch.setattr(UnitWriter, "__exit__", fail_first)
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert failed
    assert_nothing_goes_on(store)


def test_ctrl_c_while_the_rest_is_written_ends_the_thread(store, plan, monkeypatch):
    join, joins = threading.Thread.join, []

    def interrupted(thread: threading.Thread, timeout: float | None = None) -> None:
        if thread.name == "store-writer" and not joins:
            joins.append(thread)
            raise KeyboardInterrupt
        join(thread, timeout)

    def leave() -> None:
        with StoreWriter(store, plan) as writer:
            write(writer, plan, {"one": 300, "two": 300})
            monkeypatch.setattr(threading.Thread, "join", interrupted)

    with pytest.raises(KeyboardInterrupt):
        leave()
    assert joins
    assert_nothing_goes_on(store)
