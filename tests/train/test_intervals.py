import time
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from laughstore.index_file import read_index
from laughstore.labels import LabelSpec
from train.evaluation.bootstrap import Draws, Units, interval_of
from train.evaluation.intervals import (
    metric_draws,
    metric_intervals,
    spearman_draws,
    units_of,
)
from train.scoring.ranking import DrawnRanking
from train.scoring.score import StreamScores, metrics_of
from train.streaming.selection import select


@pytest.mark.parametrize("chunk", [1, 2**21])
def test_rankings_of_drawn_units_are_those_of_scikit_learn_with_weights(chunk, monkeypatch):
    monkeypatch.setattr("train.scoring.ranking._MAX_NUMBERS", chunk)
    rng = np.random.default_rng(2)
    for _ in range(50):
        count, num_units = int(rng.integers(2, 60)), int(rng.integers(1, 6))
        score = (rng.integers(0, 8, count) / 8).astype(np.float32)
        positive = rng.random(count) < 0.4
        unit = rng.integers(0, num_units, count)
        times = rng.integers(0, 4, (5, num_units)).astype(np.float64)
        found = DrawnRanking(score, positive, unit, num_units).of(times)
        for drawn, ap, auroc in zip(times, *found, strict=True):
            weight = drawn[unit]
            if weight @ positive > 0:
                expected = average_precision_score(positive, score, sample_weight=weight)
                assert ap == pytest.approx(expected)
            else:
                assert np.isnan(ap)
            if weight @ positive > 0 and weight @ ~positive > 0:
                assert auroc == pytest.approx(roc_auc_score(positive, score, sample_weight=weight))
            else:
                assert np.isnan(auroc)


def test_intervals_of_many_rows_take_seconds():
    rng = np.random.default_rng(4)
    score, positive = rng.random(300_000, np.float32), rng.random(300_000) < 0.02
    ranking = DrawnRanking(score, positive, np.repeat(np.arange(20), 15_000), 20)
    times = rng.integers(0, 4, (2000, 20)).astype(np.float64)
    begin_s = time.process_time()
    ranking.of(times)
    # A pass over all rows for each draw takes a minute and more.
    assert time.process_time() - begin_s < 10


def scored(index, label: LabelSpec, seed: int) -> list[StreamScores]:
    rng = np.random.default_rng(seed)
    selection, streams = select(index, "train", label), []
    for number, stream in enumerate(selection.streams):
        y, counts = selection.stream_targets(number)
        score = (y + rng.normal(0, 1, len(y))).astype(np.float32)
        streams.append(StreamScores(stream, "", np.arange(len(y)), score, y, counts))
    return streams


def test_intervals_are_of_rows_drawn_by_whole_recordings(planted_shards):
    index, label = read_index(planted_shards), LabelSpec()
    streams = scored(index, label, 1)
    found = metric_intervals(index, streams, label, threshold=0.8, draws=40, seed=3)
    recordings = sorted({stream.stream.recording_id for stream in streams})
    groups = [index.recording(key).group for key in recordings]
    units = Units.of(recordings, groups)
    assert found["average_precision"].unit == units.kind

    def of(item: StreamScores) -> str:
        key = item.stream.recording_id
        return index.recording(key).group if units.kind == "group" else key

    def slow(measure):
        """The same draws, with the rows of what is drawn put together again and again."""

        def statistic(times):
            parts = [
                item
                for name, count in zip(units.names, times.astype(int), strict=True)
                for item in streams * count
                if of(item) == name
            ]
            y = np.concatenate([item.y[item.eligible] for item in parts])
            score = np.concatenate([item.score[item.eligible] for item in parts])
            return float(measure(y > 0, score))

        return interval_of(statistic, units, draws=40, seed=3)

    for name, measure in {
        "average_precision": average_precision_score,
        "auroc": roc_auc_score,
        "lift": lambda y, s: average_precision_score(y, s) / y.mean(),
        "base_rate": lambda y, s: y.mean(),
        "f1": lambda y, s: f1_score(y, s >= np.float32(0.8)),
        "precision": lambda y, s: y[s >= np.float32(0.8)].mean(),
        "recall": lambda y, s: (s[y] >= np.float32(0.8)).mean(),
    }.items():
        expected = slow(measure)
        assert found[name].low == pytest.approx(expected.low), name
        assert found[name].high == pytest.approx(expected.high), name
    assert set(metric_intervals(index, streams, label, draws=5)).isdisjoint({"f1", "recall"})
    assert metric_intervals(index, streams, label, draws=0) == {}


def test_intervals_of_numbers_are_of_their_errors(planted_shards):
    index, label = read_index(planted_shards), LabelSpec("regression:2s")
    streams = scored(index, label, 2)
    found = metric_intervals(index, streams, label, draws=200)
    all_rows = metrics_of(streams, label).values
    assert set(found) == set(all_rows) - {"spearman"}
    for name, interval in found.items():
        assert (interval.low or 1) < (all_rows[name] or 0) < (interval.high or 0), name


def test_numbers_of_each_draw_are_those_of_the_rows_drawn(planted_shards):
    index, label = read_index(planted_shards), LabelSpec("regression:2s")
    streams = scored(index, label, 2)
    drawn = Draws(units_of(index, streams), draws=12, seed=1)
    values = metric_draws(index, streams, label, drawn)
    values["spearman"] = spearman_draws(index, streams, drawn)
    assert drawn.units.kind == "recording"
    for number, times in enumerate(drawn.times().astype(int)):
        counts = dict(zip(drawn.units.names, times, strict=True))
        rows = [item for item in streams for _ in range(counts[item.stream.recording_id])]
        expected = metrics_of(rows, label).values
        assert set(expected) == set(values)
        for name, value in expected.items():
            assert values[name][number] == pytest.approx(value, rel=1e-9), name


def test_ranks_of_constant_scores_have_no_correlation(planted_shards):
    index, label = read_index(planted_shards), LabelSpec("regression:2s")
    streams = [
        replace(item, score=np.full_like(item.score, 0.25)) for item in scored(index, label, 2)
    ]
    drawn = Draws(units_of(index, streams), draws=5)
    assert np.isnan(spearman_draws(index, streams, drawn)).all()
