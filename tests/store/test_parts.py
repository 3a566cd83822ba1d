"""Parts of a plan: every recording in exactly one, even loads, the same for whoever asks."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from laughstore import open_store
from laughstore.buildplan import BuildPlan, begin_plan
from laughstore.errors import ConfigError
from laughstore.locks import StoreLocks
from laughstore.parts import Part, deal
from laughstore.progress import NoProgress
from laughstore.sharing import Share, Worker, build_part
from tests.faults.harness import tree
from tests.stores import Episode, plan_for, random_features, spec_for, write_recording

SPEC = spec_for(8, block_frames=32, shard_frames=64)
EPISODES = [Episode(f"episode {i}", num_frames=20 + 15 * i, speakers=("A",)) for i in range(7)]


def plan() -> BuildPlan:
    return plan_for(EPISODES, SPEC)


def write(store: Path, share: Share) -> None:
    episodes = {item.id: e for item, e in zip(plan().recordings, EPISODES, strict=True)}
    while (planned := share.take()) is not None:
        write_recording(store, plan(), planned, episodes[planned.id], random_features(SPEC.dim))


def build(store: Path, part: Part) -> tuple[list[str], object]:
    """Build a part. Returns the names it took, and what `build_part` returned."""
    begin_plan(store, plan())
    names: list[str] = []
    with StoreLocks(store) as locks:
        worker = Worker(part, taken=lambda item: names.append(item.name))
        result = build_part(
            store,
            plan(),
            locks,
            lambda share: write(store, share),
            worker=worker,
            progress=NoProgress(),
        )
    return names, result


@given(st.lists(st.integers(1, 500), min_size=1, max_size=30), st.integers(1, 12))
def test_every_recording_is_in_one_part_and_no_part_is_overloaded(lengths, num_parts):
    planned = plan_for([Episode(f"e{i}", num_frames=n) for i, n in enumerate(lengths)], SPEC)
    parts = deal(planned, num_parts)
    assert len(parts) == num_parts
    dealt = [item for part in parts for item in part]
    assert sorted(item.id for item in dealt) == sorted(item.id for item in planned.recordings)
    loads = [sum(item.num_frames for item in part) for part in parts]
    # The last one that the fullest part took came when that part had the least.
    assert max(loads) - min(loads) <= max(lengths)
    for number, part in enumerate(parts, 1):
        assert Part(number, num_parts).choose(planned) == part
        assert list(part) == sorted(part, key=lambda item: -item.num_frames)


def test_the_order_of_a_plan_does_not_matter_to_its_parts():
    backwards = plan_for(EPISODES[::-1], SPEC)
    names = [[item.name for item in part] for part in deal(plan(), 3)]
    assert names == [[item.name for item in part] for part in deal(backwards, 3)]


@pytest.mark.parametrize("text", ["0/4", "5/4", "x", "", "1", "1/", "/4", "-1/4", "1/4/2", "1/ 4"])
def test_what_is_no_part_is_refused_with_an_example(text):
    with pytest.raises(ConfigError, match=r"part is .*--part 1/4"):
        Part.parse(text)


def test_a_part_is_read_as_it_is_written():
    assert str(Part.parse("3/12")) == "3/12"
    assert Part.parse("4/4") == Part(4, 4)


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2), (2, 3, 1)])
def test_parts_in_any_order_come_to_the_bytes_of_one_process(order, tmp_path):
    names, result = build(tmp_path / "whole", Part(1, 1))
    assert (len(names), result) == (7, ())
    taken = []
    for number in order:
        assert not (tmp_path / "parts/store.json").exists()
        names, result = build(tmp_path / "parts", Part(number, 3))
        assert names == [item.name for item in deal(plan(), 3)[number - 1]]
        assert result == (() if number == order[-1] else None)
        taken += names
    assert len(taken) == len(set(taken)) == 7
    assert tree(tmp_path / "parts") == tree(tmp_path / "whole")
    open_store(tmp_path / "parts")


def test_a_part_that_is_run_again_takes_nothing(tmp_path):
    build(tmp_path / "store", Part(1, 2))
    assert build(tmp_path / "store", Part(1, 2)) == ([], None)
    build(tmp_path / "store", Part(2, 2))
    assert build(tmp_path / "store", Part(1, 2)) == ([], ())


def test_more_parts_than_recordings_leave_some_with_nothing(tmp_path):
    for number in range(9, 1, -1):
        assert build(tmp_path / "store", Part(number, 9))[1] is None
    assert build(tmp_path / "store", Part(1, 9))[1] == ()
