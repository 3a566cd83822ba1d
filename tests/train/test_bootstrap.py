import json
import tracemalloc

import numpy as np
import pytest

from laughstore.errors import ConfigError
from train.evaluation.bootstrap import Draws, Units, interval_of


def units(count: int) -> Units:
    return Units("recording", tuple(f"r{i:03d}" for i in range(count)))


def test_groups_are_drawn_if_there_are_ten_else_recordings():
    recordings = [f"r{i}" for i in range(30)]
    nine = [f"show {i % 9}" for i in range(30)]
    ten = [f"show {i % 10}" for i in range(30)]
    assert Units.of(recordings, nine) == Units("recording", tuple(sorted(recordings)))
    assert Units.of(recordings, ten) == Units("group", tuple(sorted(set(ten))))


def test_the_interval_of_a_mean_is_that_of_the_normal_theory():
    rng = np.random.default_rng(3)
    values = rng.normal(5, 2, 400)
    found = interval_of(lambda times: float(times @ values / times.sum()), units(400))
    half = 1.96 * values.std() / 20
    assert found.low == pytest.approx(values.mean() - half, abs=0.03)
    assert found.high == pytest.approx(values.mean() + half, abs=0.03)
    assert not found.is_rough


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(200):
        # Recordings of 50 rows each that share a level: rows alone would promise too much.
        levels = rng.normal(0, 1, 40)
        means = levels + rng.normal(0, 1, (40, 50)).mean(axis=1)
        found = interval_of(
            lambda times, means=means: float(times @ means / times.sum()), units(40), draws=300
        )
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 0 <= found.high
    assert 0.88 <= covered / 200 <= 0.985


def test_draws_depend_on_the_seed_and_are_the_same_for_all_statistics():
    drawn: dict[int, list[list[float]]] = {0: [], 1: []}

    def keep(seed: int, kept: list[list[float]]) -> None:
        def statistic(times):
            kept.append(times.tolist())
            return float(times[0])

        interval_of(statistic, units(7), draws=20, seed=seed)

    keep(0, drawn[0])
    keep(1, drawn[1])
    again: list[list[float]] = []
    keep(0, again)
    assert again == drawn[0] != drawn[1]
    assert all(sum(times) == 7 for times in again)


def test_without_two_units_or_with_too_few_events_there_is_no_interval():
    alone = interval_of(lambda times: 1.0, units(1))
    assert (alone.low, alone.high) == (None, None)
    assert alone.reason == "there is only one recording: nothing to draw from"
    rare = interval_of(lambda times: 1.0 if times[0] else float("nan"), units(5))
    assert rare.low is None
    assert "of the draws have no value" in str(rare.reason)
    assert rare.is_rough
    json.dumps(rare.to_json(), allow_nan=False)
    with pytest.raises(ConfigError, match="draws is 0"):
        interval_of(lambda times: 1.0, units(5), draws=0)


def test_draws_that_are_kept_hold_no_matrix():
    tracemalloc.start()
    kept = [Draws(units(1000), draws=100) for _ in range(20)]
    sums = [item.times().sum(axis=1) for item in kept]
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    matrix_bytes = 100 * 1000 * 8
    assert held < 2 * matrix_bytes
    assert peak < 4 * matrix_bytes
    np.testing.assert_array_equal(kept[0].times(), kept[-1].times())
    np.testing.assert_array_equal(sums[0], np.full(100, 1000))
