import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laughstore.annotations import Annotations, Event, Speaker
from laughstore.bouts import Frames, Times
from laughstore.labels import CandidateEvents, LabelSpec, candidate_events
from laughstore.tables import RecordingTables, Vocabulary, recording_tables
from laughstore.timebase import FRAME_US, Span
from train.evaluation.events.candidates import candidate_metrics, candidate_rows, candidate_scores


@given(data=st.data())
@settings(max_examples=80, deadline=None)
def test_the_score_of_a_candidate_is_the_highest_of_its_rows(data):
    row = sorted(data.draw(st.sets(st.integers(0, 40), max_size=30)))
    score = [data.draw(st.integers(0, 9)) / 9 for _ in row]
    asked = [
        (first, first + data.draw(st.integers(0, 8)))
        for first in data.draw(st.lists(st.integers(-5, 45), max_size=6))
    ]
    first, stop = np.array(asked, np.int64).reshape(-1, 2).T
    found = candidate_scores(
        np.array(row, np.int64), np.array(score, np.float32), Frames(first, stop)
    )
    for value, (low, high) in zip(found, asked, strict=True):
        inside = [s for t, s in zip(row, score, strict=True) if low <= t < high]
        assert np.isnan(value) if not inside else value == np.float32(max(inside))


def test_rows_are_those_about_the_event_or_before_its_onset():
    events = CandidateEvents(
        Times(np.array([10 * FRAME_US + 5]), np.array([12 * FRAME_US + 1])),
        np.array([True]),
        np.array([0], np.int32),
    )

    def rows(spec: LabelSpec) -> tuple[int, int]:
        found = candidate_rows(spec, events)
        return int(found.first[0]), int(found.stop[0])

    assert rows(LabelSpec()) == (10, 13)
    assert rows(LabelSpec(lead=Span("2f"))) == (8, 11)
    assert rows(LabelSpec("shift:4f")) == (6, 9)
    assert rows(LabelSpec("onset:5f", guard=Span("1f"))) == (5, 9)


def event(start: int, stop: int, label: str, speaker: str | None, confidence: float = 1) -> Event:
    return Event(start * FRAME_US, stop * FRAME_US, label, label, speaker, confidence)


def tables(*events: Event) -> RecordingTables:
    annotations = Annotations(
        "r",
        duration_us=100 * FRAME_US,
        speakers=(Speaker("A", 2 * FRAME_US), Speaker("B", FRAME_US)),
        events=events,
    )
    return recording_tables(annotations, Vocabulary.of([annotations]))


def test_candidates_are_the_sure_events_of_the_speakers_asked_for():
    found = tables(
        event(5, 8, "Laughter", "A"),
        event(10, 12, "Breath", "A"),
        event(20, 22, "Breath", "B"),
        event(30, 31, "Laughter", None),
        event(40, 41, "Laughter", "A", 0.4),
        event(50, 50, "Breath", "A"),  # empty: dropped as in labels
    )

    def starts(**changes) -> list[tuple[int, bool]]:
        spec = LabelSpec(min_confidence=0.5, **changes)
        events = candidate_events(spec, found, main="A", other="B")
        return list(
            zip(
                (events.times.start_us // FRAME_US).tolist(),
                events.is_target.tolist(),
                strict=True,
            )
        )

    assert starts() == [(5, True), (10, False)]
    assert starts(whose="other") == [(20, False)]
    assert starts(whose="pair") == [(5, True), (10, False), (20, False)]
    assert starts(whose="any") == [(5, True), (10, False), (20, False), (30, True)]


def test_the_target_class_is_held_against_the_others_with_counts_by_class():
    names = ("", "Breath", "Laughter", "Music")
    one = CandidateEvents(
        Times(np.arange(4), np.arange(4) + 1),
        np.array([True, False, False, True]),
        np.array([2, 1, 0, 2], np.int32),
    )
    two = CandidateEvents(
        Times(np.arange(2), np.arange(2) + 1),
        np.array([False, True]),
        np.array([1, 2], np.int32),
    )
    scores = [np.array([0.9, 0.2, 0.8, np.nan], np.float32), np.array([0.1, 0.3], np.float32)]
    found = candidate_metrics(scores, [one, two], names)
    assert found.to_json() == {
        "targets": 2,
        "others": 3,
        "unscored": 1,
        "average_precision": pytest.approx((1 + 2 / 3) / 2),
        "auroc": pytest.approx(5 / 6),
        "by_class": {"(none)": 1, "Breath": 2, "Laughter": 2},
    }
    nothing = candidate_metrics([], [], names)
    assert (nothing.average_precision, nothing.auroc, nothing.num_targets) == (None, None, 0)
