import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laughstore.timebase import FRAME_US
from train.evaluation.events.anticipation import (
    AnticipatedStream,
    Foreseen,
    foresee,
    raise_alarms,
)
from train.evaluation.false_alarms import FalseAlarms


def slow_alarms(row: list[int], reaches: list[bool], quiet: int) -> list[int]:
    alarms: list[int] = []
    for place, t in enumerate(row):
        if reaches[place] and not any(t - quiet <= row[a] < t for a in alarms):
            alarms.append(place)
    return alarms


def slow(streams: list[AnticipatedStream], threshold: float, span: int, guard: int):
    """The definition, row by row and onset by onset."""
    onsets, leads, false = 0, [], 0
    for stream in streams:
        row, eligible = stream.row.tolist(), stream.eligible.tolist()
        reaches = [bool(e) and s >= threshold for e, s in zip(eligible, stream.score, strict=True)]
        alarms = [row[a] for a in slow_alarms(row, reaches, span)]
        counting = {t for t, e in zip(row, eligible, strict=True) if e}
        windows = [
            range(onset // FRAME_US - span, onset // FRAME_US - guard)
            for onset in stream.onset_us.tolist()
        ]
        false += sum(not any(t in window for window in windows) for t in alarms)
        for onset, window in zip(stream.onset_us.tolist(), windows, strict=True):
            if not counting & set(window):
                continue
            onsets += 1
            hits = [t for t in alarms if t in window]
            if hits:
                leads.append((onset - hits[0] * FRAME_US) / 1e6)
    return onsets, leads, false


@st.composite
def stream(draw) -> AnticipatedStream:
    row = sorted(draw(st.sets(st.integers(0, 50), max_size=45)))
    score = [draw(st.sampled_from([0.0, 0.3, 0.6, 0.9])) for _ in row]
    eligible = [draw(st.booleans()) for _ in row]
    onset = sorted(draw(st.sets(st.integers(0, 55 * FRAME_US), max_size=5)))
    return AnticipatedStream(
        np.array(row, np.int64),
        np.array(score, np.float32),
        np.array(eligible, np.bool_),
        np.array(onset, np.int64),
    )


@given(
    streams=st.lists(stream(), min_size=1, max_size=3),
    threshold=st.sampled_from([0.0, 0.3, 0.5, 0.9, 1.0]),
    span=st.integers(1, 12),
    data=st.data(),
)
@settings(max_examples=120, deadline=None)
def test_alarms_come_to_what_the_definition_says(streams, threshold, span, data):
    guard = data.draw(st.integers(0, span - 1))
    found = foresee(streams, threshold, span=span, guard=guard)
    onsets, leads, false = slow(streams, threshold, span, guard)
    assert (found.num_onsets, found.false_alarms) == (onsets, false)
    np.testing.assert_allclose(found.lead_s, leads)
    assert found.hours == pytest.approx(sum(s.eligible.sum() for s in streams) * 0.08 / 3600)


@given(
    row=st.sets(st.integers(0, 60), max_size=50),
    quiet=st.integers(1, 15),
    seed=st.integers(0, 99),
)
@settings(max_examples=80, deadline=None)
def test_an_alarm_silences_the_rows_behind_it(row, quiet, seed):
    rows = np.array(sorted(row), np.int64)
    reaches = np.random.default_rng(seed).random(len(rows)) < 0.5
    expected = slow_alarms(rows.tolist(), reaches.tolist(), quiet)
    assert raise_alarms(rows, reaches, quiet).tolist() == expected


def test_the_threshold_is_the_lowest_that_keeps_false_alarms_rare():
    rows = np.arange(45_000)  # an hour
    score = np.zeros(len(rows), np.float32)
    score[[100, 5_000, 10_000]] = 0.9, 0.8, 0.7
    score[20_000:20_005] = 0.5
    eligible = np.ones(len(rows), np.bool_)
    onset = np.array([5_003 * FRAME_US])
    hour = [AnticipatedStream(rows, score, eligible, onset)]

    def rate(threshold: float) -> float | None:
        return foresee(hour, threshold, span=10).false_alarms_per_hour

    few = FalseAlarms(np.array([0.5, 0.9, 0.7, 0.8], np.float32), rate)
    assert "no threshold has as few as 0.5" in few.lowest(0.5)
    assert few.lowest(1) == (np.float32(0.8), 1)
    assert few.lowest(2) == (np.float32(0.7), 2)
    assert few.lowest(3) == (np.float32(0.5), 3)
    # A lower threshold may raise fewer alarms; it is not trusted when a higher one raises too many.
    assert few.lowest(2.5) == (np.float32(0.7), 2)


def test_what_is_undefined_is_none():
    nothing = Foreseen(0, np.empty(0), 0, 0.0)
    assert nothing.to_json() == {
        "onsets": 0,
        "hits": 0,
        "recall": None,
        "lead_s_quartiles": None,
        "false_alarms": 0,
        "false_alarms_per_hour": None,
    }
