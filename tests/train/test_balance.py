import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from laughstore.errors import ConfigError
from train import FrameStream
from train.balance import balanced_rows
from train.permutation import BALANCE_PURPOSE, first_of_permutation, permutation

RATIOS = st.sampled_from([0.1, 0.29, 0.5, 1, 1.5, 3, 7.25, 1e9])


def slow_rows(positive: list[bool], ratio: float, seed: int, epoch: int) -> list[int]:
    """Balance as it is written down: a permutation of the negatives, and its first K."""
    negatives = [i for i, is_positive in enumerate(positive) if not is_positive]
    count = min(len(negatives), math.floor(Fraction(str(ratio)) * sum(positive)))
    order = permutation(len(negatives), (seed, epoch), BALANCE_PURPOSE).tolist()
    chosen = {negatives[i] for i in order[:count]}
    return [i for i, is_positive in enumerate(positive) if is_positive or i in chosen]


@given(
    st.lists(st.booleans(), min_size=1, max_size=200).filter(any),
    RATIOS,
    st.integers(0, 2**64 - 1),
    st.integers(0, 9),
)
def test_rows_are_those_of_a_slow_reference(positive, ratio, seed, epoch):
    rows = balanced_rows(np.array(positive), ratio, seed=seed, epoch=epoch)
    assert rows.tolist() == slow_rows(positive, ratio, seed, epoch)


@given(st.integers(0, 300), st.integers(0, 300), st.integers(0, 99))
def test_the_first_of_a_permutation_are_found_without_making_it(count, size, seed):
    whole = permutation(count, (seed, 1), 5)
    found = first_of_permutation(count, min(size, count), (seed, 1), 5)
    assert found.tolist() == sorted(whole[:size].tolist())


def test_a_ratio_is_taken_as_it_is_written():
    positive = np.arange(1000) < 100
    assert 0.29 * 100 < 29
    assert len(balanced_rows(positive, 0.29, seed=0, epoch=0)) == 100 + 29


def test_every_negative_comes_equally_often():
    positive = np.arange(50) < 10
    times = np.zeros(50, int)
    for epoch in range(400):
        times[balanced_rows(positive, 1, seed=3, epoch=epoch)] += 1
    assert (times[:10] == 400).all()
    assert abs(times[10:] - 100).max() < 45  # five standard deviations


@pytest.mark.parametrize("ratio", [0, -1, math.inf, math.nan])
def test_ratios_that_cannot_work_are_refused(ratio):
    with pytest.raises(ConfigError, match="balance is"):
        balanced_rows(np.array([True, False]), ratio, seed=0, epoch=0)


def test_no_positive_row_is_an_error():
    with pytest.raises(ConfigError, match="no row is positive"):
        balanced_rows(np.zeros(5, bool), 1, seed=0, epoch=0)


@pytest.mark.parametrize("mix", ["windows", "global"])
def test_a_balanced_stream_yields_all_positives_and_other_negatives_each_epoch(planted_shards, mix):
    settings: dict[str, Any] = {"global_batch": 96, "lanes": 12, "balance": 1.5, "mix": mix}
    with FrameStream(planted_shards, "train", **settings) as frames:
        selection = frames.selection
        positive = selection.targets > 0
        num_rows = int(positive.sum()) + math.floor(1.5 * positive.sum())
        negatives, steps = [], frames.num_steps
        for epoch in range(3):
            frames.set_epoch(epoch)
            assert frames.num_steps == len(frames) == steps
            batches = list(frames)
            assert len(batches) == steps
            assert sum(batch.num_real for batch in batches) == num_rows
            ids = np.concatenate([batch.frame.numpy() for batch in batches])
            y = np.concatenate([batch.y.numpy() for batch in batches])
            assert np.array_equal(np.sort(ids[y > 0]), selection.frames[positive])
            others = np.sort(ids[(ids >= 0) & (y == 0)])
            assert len(np.unique(others)) == len(others) == num_rows - positive.sum()
            assert np.isin(others, selection.frames[~positive]).all()
            negatives.append(others.tolist())
        assert negatives[0] != negatives[1] != negatives[2]


def test_only_the_training_split_is_balanced(planted_shards):
    with pytest.raises(ConfigError, match="only 'train' is balanced"):
        FrameStream(planted_shards, "validation", balance=1.0)
