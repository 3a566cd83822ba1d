"""Change points and the rows behind them, against the definition read one row at a time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laughstore.annotations import Annotations, Segment, Speaker
from laughstore.errors import ConfigError
from laughstore.tables import RecordingTables, Vocabulary, recording_tables
from laughstore.turns import change_points, rows_after_change

FRAME = 80_000


def tables_of(segments: list[Segment], turns: list[Segment] | None) -> RecordingTables:
    annotations = Annotations(
        "an episode",
        100 * FRAME,
        (Speaker("ann", 2), Speaker("bob", 1)),
        segments=tuple(segments),
        turns=None if turns is None else tuple(turns),
    )
    return recording_tables(annotations, Vocabulary.of([annotations]))


def changes(segments: list[Segment], turns: list[Segment] | None) -> list[int]:
    return change_points(tables_of(segments, turns), where="an episode").tolist()


def reference_changes(segments: list[Segment], turns: list[Segment] | None) -> list[int]:
    if turns is not None:
        ends_us = sorted(turn.end_us for turn in turns)[:-1]
    else:
        runs: list[tuple[str, int]] = []
        for segment in sorted(segments, key=lambda segment: segment.start_us):
            if runs and runs[-1][0] == segment.speaker:
                runs[-1] = (segment.speaker, max(runs[-1][1], segment.end_us))
            else:
                runs.append((segment.speaker, segment.end_us))
        ends_us = sorted(end_us for _, end_us in runs[:-1])
    return [end_us // FRAME for end_us in ends_us]


times = st.one_of(
    st.integers(0, 50 * FRAME),
    st.builds(lambda frame, nudge: frame * FRAME + nudge, st.integers(1, 50), st.integers(-1, 1)),
)
segments = st.lists(
    st.builds(
        lambda start_us, long_us, speaker: Segment(start_us, start_us + long_us, speaker),
        times,
        st.integers(0, 12 * FRAME),
        st.sampled_from(["ann", "bob", "cyd"]),
    ),
    max_size=8,
)


@settings(max_examples=200, deadline=None)
@given(
    spoken=segments,
    turns=st.one_of(st.none(), segments),
    within=st.integers(1, 60),
    num_frames=st.sampled_from([0, 1, 40]),
)
def test_rows_behind_a_change_are_those_of_the_definition(spoken, turns, within, num_frames):
    if turns is None and not spoken:
        return
    expected = reference_changes(spoken, turns)
    found = change_points(tables_of(spoken, turns), where="an episode")
    assert found.dtype == np.int64
    assert found.tolist() == expected
    rows = rows_after_change(num_frames, found, within)
    assert rows.tolist() == [any(t - within <= c < t for c in expected) for t in range(num_frames)]


def test_a_turn_that_ends_on_a_frame_boundary_changes_in_the_frame_that_begins_there():
    turns = [Segment(0, 10 * FRAME, "ann"), Segment(10 * FRAME, 20 * FRAME, "bob")]
    assert changes([], turns) == [10]
    rows = rows_after_change(30, np.array([10]), 3)
    assert np.flatnonzero(rows).tolist() == [11, 12, 13]


def test_turns_out_of_order_are_sorted_by_end_and_the_last_to_end_changes_nothing():
    turns = [Segment(0, 30 * FRAME, "ann"), Segment(5 * FRAME, 9 * FRAME - 1, "bob")]
    assert changes([], turns) == [8]


def test_without_turns_a_run_of_one_speaker_ends_in_a_change():
    spoken = [
        Segment(20 * FRAME, 25 * FRAME, "ann"),
        Segment(0, 6 * FRAME, "ann"),
        Segment(7 * FRAME, 9 * FRAME, "ann"),  # still her run
        Segment(9 * FRAME, 14 * FRAME, "bob"),
    ]
    assert changes(spoken, None) == [9, 14]
    assert changes(spoken[1:3], None) == []


def test_the_last_run_is_the_last_to_start_though_another_may_end_later():
    spoken = [Segment(0, 30 * FRAME, "ann"), Segment(5 * FRAME, 9 * FRAME, "bob")]
    assert changes(spoken, None) == [30]


def test_a_recording_annotated_with_no_turns_at_all_has_no_changes():
    assert changes([Segment(0, 1, "ann"), Segment(1, 2, "bob")], []) == []


def test_with_neither_turns_nor_a_diarization_the_recording_is_named():
    with pytest.raises(ConfigError, match=r"^an episode has neither turns nor a diarization"):
        changes([], None)
