import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from laughstore.errors import ConfigError
from train.permutation import Permutations
from train.plan import PAD, Plan, rank_share

COUNTS = st.lists(st.integers(0, 40), min_size=0, max_size=60).map(
    lambda counts: np.array(counts, np.int64)
)


def make(counts: NDArray[np.int64], **changes) -> Plan:
    numbers: dict[str, Any] = {
        "seed": 5,
        "epoch": 0,
        "global_batch": 24,
        "lanes": 12,
        "window_blocks": 3,
    }
    return Plan(counts, **{**numbers, **changes})


@given(COUNTS, st.sampled_from([1, 4, 12]), st.integers(1, 9), st.integers(1, 9), st.integers(0, 9))
def test_every_row_comes_exactly_once_and_only_the_last_step_is_padded(
    counts, lanes, share, window_blocks, epoch
):
    plan = make(
        counts, lanes=lanes, global_batch=lanes * share, window_blocks=window_blocks, epoch=epoch
    )
    steps = list(plan.batches())
    assert len(steps) == plan.num_steps
    assert all(len(step) == lanes * share for step in steps)
    assert [int((step != PAD).sum()) for step in steps] == [
        plan.num_real(step) for step in range(plan.num_steps)
    ]
    assert all((step != PAD).all() for step in steps[:-1])
    rows = np.concatenate(steps) if steps else np.empty(0, np.int64)
    assert np.array_equal(np.sort(rows[rows != PAD]), np.arange(counts.sum()))


@given(COUNTS, st.sampled_from([1, 2, 3, 4]), st.integers(1, 40), st.data())
def test_any_number_of_ranks_resumed_at_any_step_reads_the_same_steps(counts, world, share, data):
    plan = make(counts, global_batch=12 * share)
    whole = list(plan.batches())
    start = data.draw(st.integers(0, plan.num_steps))
    ranks = [list(plan.batches(start, rank=rank, world_size=world)) for rank in range(world)]
    assert {len(steps) for steps in ranks} == {plan.num_steps - start}
    for offset in range(plan.num_steps - start):
        together = np.concatenate([steps[offset] for steps in ranks])
        assert np.array_equal(together, whole[start + offset])


@given(COUNTS, st.sampled_from([1, 2, 4]), st.data())
def test_reads_name_every_block_before_a_step_uses_it_and_none_for_nothing(counts, world, data):
    plan = make(counts)
    start = data.draw(st.integers(0, plan.num_steps))
    block_of = np.repeat(np.arange(len(counts)), counts)
    for rank in range(world):
        reads = plan.reads(start, rank=rank, world_size=world)
        assert (np.diff(reads.step) >= 0).all()
        used: set[int] = set()
        for step, batch in enumerate(plan.batches(start, rank=rank, world_size=world), start):
            ready = set(reads.block[reads.step <= step].tolist())
            blocks = set(block_of[batch[batch != PAD]].tolist())
            assert blocks <= ready
            used |= blocks
        # Blocks of an open window that earlier steps used up are prepared once more, no others.
        late = {int(b) for s, b in zip(reads.step, reads.block, strict=True) if s > start}
        assert late <= used


@given(
    COUNTS,
    st.sampled_from(["windows", "global"]),
    st.sampled_from([1, 2, 3, 4]),
    st.sampled_from([1, 2, 3]),
    st.integers(1, 40),
    st.data(),
)
def test_workers_of_ranks_make_every_step_once_and_read_what_it_needs(
    counts, mix, world, workers, share, data
):
    plan = make(counts, global_batch=12 * share, mix=mix)
    whole = list(plan.batches())
    rows = np.concatenate(whole) if whole else np.empty(0, np.int64)
    assert np.array_equal(np.sort(rows[rows != PAD]), np.arange(counts.sum()))
    block_of = np.repeat(np.arange(len(counts)), counts)
    start = data.draw(st.integers(0, plan.num_steps))
    together: list[list[NDArray[np.int64]]] = [[] for _ in whole[start:]]
    for rank in range(world):
        for worker in range(workers):
            share_of = {"rank": rank, "world_size": world, "stride": workers}
            first = start + worker
            reads = plan.reads(first, **share_of)
            assert (np.diff(reads.step) >= 0).all()
            assert (reads.step <= reads.last_step).all()
            for number, batch in enumerate(plan.batches(first, **share_of)):
                step = first + number * workers
                together[step - start].append(batch)
                open_now = (reads.step <= step) & (reads.last_step >= step)
                assert np.isin(block_of[batch[batch != PAD]], reads.block[open_now]).all()
    assert all(
        np.array_equal(np.concatenate(parts), expected)
        for parts, expected in zip(together, whole[start:], strict=True)
    )


def test_global_mixes_all_rows():
    plan = make(np.full(400, 32), mix="global", lanes=1, global_batch=1280)
    first, *others = plan.batches()
    assert len(others) == 9
    assert len(np.unique(first // 32)) > 350  # 384 expected
    assert not np.array_equal(
        first, next(make(np.full(400, 32), epoch=1, mix="global", global_batch=1248).batches())
    )


def test_seeking_to_step_a_million_takes_as_long_as_to_the_first():
    plan = make(np.full(400_000, 128), global_batch=48, lanes=48, window_blocks=8)
    assert plan.num_steps > 1_000_000

    def seconds(step: int) -> float:
        times = []
        for _ in range(5):
            started = time.perf_counter()
            next(plan.batches(step))
            times.append(time.perf_counter() - started)
        return min(times)

    assert seconds(1_000_000) < 3 * seconds(1)


def test_a_batch_mixes_rows_of_every_lane_and_a_window_shuffles_its_blocks():
    counts = np.full(400, 32)
    plan = make(counts, lanes=8, global_batch=64, window_blocks=4)
    batch = next(plan.batches())
    blocks = (batch // 32).reshape(8, 8)
    assert len(np.unique(blocks)) > 20
    assert all(len(np.unique(lane)) <= 4 for lane in blocks)


def test_seed_and_epoch_change_the_order():
    counts = np.full(50, 32)
    first = next(make(counts).batches())
    assert not np.array_equal(first, next(make(counts, epoch=1).batches()))
    assert not np.array_equal(first, next(make(counts, seed=6).batches()))
    assert np.array_equal(first, next(make(counts).batches()))


def test_a_batch_larger_than_the_data_is_one_padded_step():
    plan = make(np.array([3, 0, 2]), global_batch=4096, lanes=64)
    (only,) = plan.batches()
    assert np.array_equal(np.sort(only[only != PAD]), np.arange(5))
    assert plan.num_real(0) == 5


def test_no_rows_are_no_steps():
    assert list(make(np.zeros(4, np.int64)).batches()) == []


def test_permutations_are_those_of_the_first_release():
    # They decide the order of every stream: a change would make saved runs unresumable.
    assert Permutations((0, 0)).of(8, 0).tolist() == [0, 2, 1, 5, 4, 3, 6, 7]
    assert Permutations((3, 1)).of(8, 2, 5).tolist() == [2, 1, 6, 5, 7, 4, 3, 0]


@given(st.integers(0, 300), st.integers(0, 2**64 - 1), st.integers(0, 99), st.integers(0, 99))
def test_a_permutation_holds_every_number_once(count, seed, purpose, window):
    order = Permutations((seed, 1)).of(count, purpose, window)
    assert np.array_equal(np.sort(order), np.arange(count))


def test_first_places_of_permutations_are_uniform():
    first = [int(Permutations((seed, 0)).of(6, 0)[0]) for seed in range(3000)]
    counts = np.bincount(first, minlength=6)
    assert abs(counts - 500).max() < 100  # five standard deviations


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"global_batch": 30}, r"global_batch is 30.*lanes \(12\).*24 and 36"),
        ({"global_batch": 5}, "work are 12"),
        ({"lanes": 0}, "lanes is 0"),
        ({"window_blocks": 0}, "window_blocks is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"epoch": 2**64}, "epoch is"),
        ({"mix": "all"}, "mix is 'all'; use windows or global"),
    ],
)
def test_numbers_that_cannot_work_are_refused_with_those_that_do(changes, message):
    with pytest.raises(ConfigError, match=message):
        make(np.array([1]), **changes)


def test_lanes_that_ranks_cannot_share_are_refused_with_the_nearest_that_work():
    with pytest.raises(ConfigError, match=r"lanes is 64, which 3 ranks .* 63 and 66"):
        rank_share(64, 0, 3)
    with pytest.raises(ConfigError, match="rank is 2"):
        rank_share(64, 2, 2)
    assert list(rank_share(12, 1, 3)) == [4, 5, 6, 7]


def test_an_epoch_of_13_million_frames_is_planned_in_half_a_second():
    started = time.perf_counter()
    plan = make(np.full(102_000, 128), global_batch=4096, lanes=64, window_blocks=8)
    next(plan.batches(plan.num_steps // 2))
    assert time.perf_counter() - started < 0.5
