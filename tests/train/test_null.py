from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from laughstore.errors import ConfigError
from laughstore.index import Stream
from train.evaluation.null import MIN_SHIFT, shift_null
from train.scoring.ranking import Ranking
from train.scoring.score import StreamScores


def some_stream(rng: np.random.Generator, num_rows: int = 1500, *, signal: float = 0.0):
    """Slowly changing scores, laughs of 10 rows, and rows behind each that are ignored."""
    y, eligible = np.zeros(num_rows, np.uint8), np.ones(num_rows, bool)
    for start in rng.integers(0, num_rows - 15, 12).tolist():
        y[start : start + 10] = 1
        eligible[start + 10 : start + 15] = False
    noise = np.convolve(rng.standard_normal(num_rows + 19), np.ones(20) / 20, "valid")
    # Each stream has a level of its own, as recordings do.
    score = (noise + rng.normal(0, 0.3) + signal * y).astype(np.float32)
    stream = Stream(
        recording_id="r", assignment="a--b", main="a", other="b", split="test",
        num_frames=num_rows, first_block=0, first_shard=0, num_blocks=12, num_shards=1,
    )  # fmt: skip
    return StreamScores(stream, "a", np.arange(num_rows), score, y, eligible)


@pytest.mark.parametrize("digits", [1, 6])
def test_average_precision_is_scikit_learn_s_with_ties_and_weights(digits):
    rng = np.random.default_rng(digits)
    score = rng.standard_normal(700).round(digits).astype(np.float32)
    positive, weight = rng.random(700) < 0.1, rng.integers(0, 4, 700)
    found = Ranking(score).average_precision(positive, weight)
    assert found == pytest.approx(average_precision_score(positive, score, sample_weight=weight))
    assert np.isnan(Ranking(score).average_precision(positive & False, weight))


def test_scores_that_tell_nothing_lie_inside_and_those_that_do_above():
    rng = np.random.default_rng(1)
    blind = shift_null([some_stream(rng) for _ in range(20)])
    low, high = blind.central
    assert low < blind.average_precision < high
    assert 0.025 < blind.p < 0.975
    seeing = shift_null([some_stream(rng, signal=0.3) for _ in range(20)])
    assert seeing.average_precision > seeing.null.max()
    assert seeing.p == 1 / 201


def test_a_score_that_only_knows_its_recording_is_not_taken_for_foresight():
    """Its lift is far above 1, because rates of recordings differ."""
    rng = np.random.default_rng(2)
    streams = []
    for number in range(20):
        stream = some_stream(rng)
        rarely = stream.y * (rng.random(len(stream.y)) < (number + 1) / 20)
        streams.append(
            replace(stream, y=rarely.astype(np.uint8), score=np.full(1500, number, np.float32))
        )
    found = shift_null(streams)
    rate = np.concatenate([item.y[item.eligible] for item in streams]).mean()
    assert found.average_precision > 1.2 * rate
    assert found.null == pytest.approx(found.average_precision)
    assert found.p == 1


@pytest.mark.slow
def test_about_one_in_twenty_of_blind_scores_has_p_below_a_twentieth():
    rng = np.random.default_rng(3)
    p = [
        shift_null([some_stream(rng, 600) for _ in range(4)], draws=60, seed=seed).p
        for seed in range(200)
    ]
    assert 0.01 <= np.mean(np.array(p) <= 0.05) <= 0.1
    assert 0.4 < np.median(p) < 0.6


def test_a_rotation_moves_labels_and_ignored_rows_together_and_far_enough():
    """A single row is positive and a single one counts, so each draw's value tells the shift."""
    num_rows = 2 * MIN_SHIFT + 599
    y, eligible = np.zeros(num_rows, np.uint8), np.zeros(num_rows, bool)
    y[0], eligible[:2] = 1, True
    # The score says where the row stands: the two rows that count are neighbours wherever they are.
    stream = replace(
        some_stream(np.random.default_rng(0), num_rows),
        y=y,
        eligible=eligible,
        score=-np.arange(num_rows, dtype=np.float32),
    )
    assert shift_null([stream]).null.tolist() == [1.0] * 200
    near = np.zeros(num_rows, np.float32)
    near[list(range(-MIN_SHIFT + 1, MIN_SHIFT))] = 1  # nearer than MIN_SHIFT to the positive row
    everything = replace(stream, eligible=np.ones(num_rows, bool), score=near)
    assert shift_null([everything], draws=500).null.max() < 1 / (2 * MIN_SHIFT - 1)


def test_the_same_seed_gives_the_same_null_and_short_streams_are_left_out_and_counted():
    rng = np.random.default_rng(4)
    streams = [some_stream(rng, 400), some_stream(rng, 2 * MIN_SHIFT - 1)]
    once, again, other = (shift_null(streams, draws=20, seed=seed) for seed in (5, 5, 6))
    assert once.null.tolist() == again.null.tolist() != other.null.tolist()
    assert (once.num_streams, once.num_short) == (1, 1)
    with pytest.raises(ConfigError, match="no stream has 250 rows"):
        shift_null(streams[1:])
    with pytest.raises(ConfigError, match="no row is positive"):
        shift_null([replace(streams[0], y=np.zeros(400, np.uint8))])
    with pytest.raises(ConfigError, match="draws is 0"):
        shift_null(streams, draws=0)


def test_more_draws_than_rotations_are_refused():
    """Of blind scores of 250 rows, which have one rotation, half would have p = 1 / 201."""
    rng = np.random.default_rng(5)
    few = [some_stream(rng, 2 * MIN_SHIFT + 9), some_stream(rng, 2 * MIN_SHIFT + 9)]
    with pytest.raises(
        ConfigError, match="2 streams can be rotated in 100 ways, fewer than the 200"
    ):
        shift_null(few)
    assert len(shift_null(few, draws=100).null) == 100
