"""Labels by the book: vectorised targets against the definitions read one frame at a time.

The reference is written from the text of docs/labels.md and not from the code: frames meet times
by overlap, nothing is vectorised, and of `laughstore` it knows the annotation records alone.
"""

import re
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from laughstore.annotations import Annotations, Event, Interval, Speaker
from laughstore.kinds import Targets, Until
from laughstore.labels import LabelSpec, Whose, frame_targets, target_bouts
from laughstore.tables import RecordingTables, Vocabulary, recording_tables
from laughstore.timebase import Span

NUM_FRAMES = 40
FRAME = 80_000
END_US = NUM_FRAMES * FRAME


@dataclass(frozen=True)
class Question:
    """A label with everything in frames and microseconds."""

    kind: str = "detection"
    span: int = 0
    guard: int = 0
    lead: int = 0
    edge: int = 0
    fill_gaps: bool = False
    whose: Whose = "main"
    merge_gap_us: int = 500_000
    min_confidence: float = 0.0
    limit_us: int = 10_000_000
    until: Until = "onset"


@dataclass
class Bout:
    start_us: int
    end_us: int
    events: list[Event]


def frame_of(time_us: int) -> int:
    """The frame that holds a moment; before 0 they are negative."""
    frame = int(time_us / FRAME)  # cut towards 0
    while frame * FRAME > time_us:
        frame -= 1
    while (frame + 1) * FRAME <= time_us:
        frame += 1
    return frame


def overlaps(frame: int, start_us: int, end_us: int) -> bool:
    return frame * FRAME < end_us and start_us < (frame + 1) * FRAME


def cleaned(annotations: Annotations) -> list[Event]:
    kept: list[Event] = []
    seen: set[Event] = set()
    for event in annotations.events:
        if event.end_us <= event.start_us or event.start_us >= annotations.duration_us:
            continue
        if event in seen:
            continue
        seen.add(event)
        end_us = min(event.end_us, annotations.duration_us)
        kept.append(replace(event, end_us=end_us))
    return kept


def sort_out(
    question: Question, annotations: Annotations, main: str, other: str | None
) -> tuple[list[Event], list[Event]]:
    """Return (target events, unknown events)."""
    targets, unknown = [], []
    for event in cleaned(annotations):
        if event.label != "Laughter":
            continue
        if question.whose != "any" and event.speaker is None:
            unknown.append(event)
            continue
        wanted = {
            "main": event.speaker == main,
            "other": event.speaker == other,
            "pair": event.speaker in (main, other),
            "any": True,
        }[question.whose]
        if wanted and event.confidence < question.min_confidence:
            unknown.append(event)
        elif wanted:
            targets.append(event)
    return targets, unknown


def bouts_of(question: Question, targets: list[Event]) -> list[Bout]:
    bouts: list[Bout] = []
    for event in sorted(targets, key=lambda event: event.start_us):
        if bouts and event.start_us - bouts[-1].end_us <= question.merge_gap_us:
            bouts[-1].end_us = max(bouts[-1].end_us, event.end_us)
            bouts[-1].events.append(event)
        else:
            bouts.append(Bout(event.start_us, event.end_us, [event]))
    return bouts


def asks_for(question: Question, speaker: str | None, main: str, other: str | None) -> bool:
    """Tell whether a speaker's intervals are meant."""
    who = {"main": [main], "other": [other], "pair": [main, other]}
    return question.whose == "any" or (speaker is not None and speaker in who[question.whose])


def reference_rows(
    question: Question, annotations: Annotations, main: str, other: str | None, num_frames: int
) -> list[str | Fraction]:
    """Return for each row `+` positive, `-` negative, `.` ignored, or the target as a number."""
    targets, unknown = sort_out(question, annotations, main, other)
    bouts = bouts_of(question, targets)
    intervals = [
        item
        for item in annotations.intervals or ()
        if asks_for(question, item.speaker, main, other)
    ]
    rows: list[str | Fraction] = []
    for t in range(num_frames):
        if question.kind in ("detection", "shift"):
            z = t + (question.span if question.kind == "shift" else question.lead)
            inside = 0 <= z < num_frames
            rows.append(detection_frame(question, z, bouts, unknown) if inside else ".")
        elif question.kind == "onset":
            rows.append(onset_row(question, t, bouts, unknown, num_frames))
        elif question.kind == "interval":
            rows.append(interval_row(question, t, bouts, unknown, intervals, num_frames))
        else:
            rows.append(regression_row(question, t, bouts, unknown, intervals, num_frames))
    return rows


def detection_frame(question: Question, z: int, bouts: list[Bout], unknown: list[Event]) -> str:
    if any(overlaps(z, event.start_us, event.end_us) for event in unknown):
        return "."
    in_event = in_gap = False
    for bout in bouts:
        if any(overlaps(z, event.start_us, event.end_us) for event in bout.events):
            in_event = True
        elif overlaps(z, bout.start_us, bout.end_us):
            in_gap = True
        else:
            first = frame_of(bout.start_us)
            last = frame_of(bout.end_us - 1)
            if first - question.edge <= z < first or last < z <= last + question.edge:
                return "."
    if in_event:
        return "+"
    if in_gap:
        return "+" if question.fill_gaps else "."
    return "-"


def onset_row(
    question: Question, t: int, bouts: list[Bout], unknown: list[Event], num_frames: int
) -> str:
    n, g = question.span, question.guard
    if any(overlaps(t, bout.start_us, bout.end_us) for bout in bouts):
        return "."
    if any(overlaps(t, event.start_us, event.end_us) for event in unknown):
        return "."
    waits = [frame_of(bout.start_us) - t for bout in bouts]  # frames until each onset's frame
    if any(1 <= wait <= g for wait in waits):
        return "."
    if any(g < wait <= n for wait in waits):
        return "+"
    if any(1 <= frame_of(event.start_us) - t <= n for event in unknown):
        return "."
    if num_frames - t <= n:
        return "."
    return "-"


def interval_row(
    question: Question,
    t: int,
    bouts: list[Bout],
    unknown: list[Event],
    intervals: list[Interval],
    num_frames: int,
) -> str:
    n = question.span
    if any(overlaps(t, bout.start_us, bout.end_us) for bout in bouts):
        return "."
    if any(overlaps(t, event.start_us, event.end_us) for event in unknown):
        return "."
    around = [item for item in intervals if 1 <= frame_of(item.end_us) - t <= n]
    if any(item.event_start_us - item.turn_start_us >= question.limit_us for item in around):
        return "."
    if around:
        return "+"
    if any(1 <= frame_of(event.start_us) - t <= n for event in unknown):
        return "."
    return "." if num_frames - t <= n else "-"


def regression_row(
    question: Question,
    t: int,
    bouts: list[Bout],
    unknown: list[Event],
    intervals: list[Interval],
    num_frames: int,
) -> str | Fraction:
    if any(overlaps(t, bout.start_us, bout.end_us) for bout in bouts):
        return "."
    if any(overlaps(t, event.start_us, event.end_us) for event in unknown):
        return "."
    moments = [bout.start_us for bout in bouts]
    if question.until == "interval":
        moments = [item.end_us for item in intervals]
    waits_us = [moment - t * FRAME for moment in moments if moment >= t * FRAME]
    if waits_us and min(waits_us) <= question.span * FRAME:
        return 1 / (1 + Fraction(min(waits_us), 1_000_000))
    return "." if num_frames - t <= question.span else "-"


def recording(
    events: list[Event], duration_us: int, intervals: list[Interval] | None = None
) -> Annotations:
    speakers = (Speaker("ann", 2), Speaker("bob", 1))
    return Annotations(
        "an episode",
        duration_us,
        speakers,
        tuple(events),
        intervals=None if intervals is None else tuple(intervals),
    )


def tables_of(annotations: Annotations) -> RecordingTables:
    return recording_tables(annotations, Vocabulary.of([annotations]))


def drawn(targets: Targets) -> str:
    pairs = zip(targets.y, targets.ignored, strict=True)
    return "".join("." if ignored else "-+"[y] for y, ignored in pairs)


GAPS_US = (0, FRAME, 500_000)
LIMITS_US = (1, FRAME, 10_000_000)
nudges = st.integers(-1, 1)
# Times near frame boundaries are where mistakes live, so half of them are drawn there.
times = st.one_of(
    st.integers(-2 * FRAME, END_US + 2 * FRAME),
    st.builds(lambda frame, nudge: frame * FRAME + nudge, st.integers(-1, NUM_FRAMES + 1), nudges),
)
lengths = st.one_of(
    st.integers(-1, 2), st.integers(1, 8 * FRAME), st.integers(0, 8).map(lambda n: n * FRAME)
)


@st.composite
def any_recording(draw: st.DrawFn) -> Annotations:
    events: list[Event] = []
    for _ in range(draw(st.integers(0, 10))):
        start_us = draw(times)
        if events and draw(st.booleans()):  # as far from the last one as merge gaps are long
            start_us = events[-1].end_us + draw(st.sampled_from(GAPS_US)) + draw(nudges)
        label = draw(st.sampled_from(["Laughter", "Laughter", "Laughter", "Breath"]))
        speaker = draw(st.sampled_from(["ann", "ann", "ann", "bob", "cyd", None]))
        sure = draw(st.sampled_from([1.0, 1.0, 0.7, 0.33]))
        events.append(Event(start_us, start_us + draw(lengths), label, label, speaker, sure))
    again = events[: draw(st.integers(0, 2))]
    intervals: list[Interval] = []
    for _ in range(draw(st.integers(0, 4))):
        onset_us, end_us = draw(times), draw(times)
        turn_us = onset_us - draw(st.sampled_from(LIMITS_US)) + draw(nudges)
        speaker = draw(st.sampled_from(["ann", "ann", "bob", "cyd"]))
        intervals.append(Interval(speaker, onset_us, turn_us, end_us))
    duration_us = END_US + draw(st.integers(-3 * FRAME, 3 * FRAME))
    return recording(events + again, duration_us, intervals)


whoses = st.sampled_from(get_args(Whose))
gaps_us = st.one_of(st.sampled_from(GAPS_US), st.integers(0, 800_000))
floors = st.sampled_from([0.0, 0.33, 0.7, 0.71])
detections = st.builds(
    Question,
    kind=st.just("detection"),
    lead=st.one_of(st.integers(-4, 4), st.sampled_from([-45, 45])),
    edge=st.integers(0, 4),
    fill_gaps=st.booleans(),
    whose=whoses,
    merge_gap_us=gaps_us,
    min_confidence=floors,
)


@st.composite
def onsets(draw: st.DrawFn) -> Question:
    span = draw(st.one_of(st.integers(1, 12), st.just(NUM_FRAMES + 5)))
    return Question(
        kind="onset",
        span=span,
        guard=draw(st.integers(0, min(span - 1, 4))),
        whose=draw(whoses),
        merge_gap_us=draw(gaps_us),
        min_confidence=draw(floors),
    )


spans = st.one_of(st.integers(1, 12), st.just(NUM_FRAMES + 5))
shifts = st.builds(
    Question,
    kind=st.just("shift"),
    span=spans,
    edge=st.integers(0, 4),
    fill_gaps=st.booleans(),
    whose=whoses,
    merge_gap_us=gaps_us,
    min_confidence=floors,
)
intervals = st.builds(
    Question,
    kind=st.just("interval"),
    span=spans,
    whose=whoses,
    merge_gap_us=gaps_us,
    min_confidence=floors,
    limit_us=st.sampled_from(LIMITS_US),
)
regressions = st.builds(
    Question,
    kind=st.just("regression"),
    span=spans,
    whose=whoses,
    merge_gap_us=gaps_us,
    min_confidence=floors,
    until=st.sampled_from(get_args(Until)),
)
questions = st.one_of(detections, onsets(), shifts, intervals, regressions)


def in_seconds(time_us: int) -> Span:
    return Span(f"{time_us // 10**6}.{time_us % 10**6:06d}s")


def spec_of(question: Question) -> LabelSpec:
    return LabelSpec(
        label=f"{question.kind}:{question.span}f" if question.span else question.kind,
        whose=question.whose,
        merge_gap=in_seconds(question.merge_gap_us),
        guard=Span.of_frames(question.guard),
        lead=Span.of_frames(question.lead),
        min_confidence=question.min_confidence,
        edge=Span.of_frames(question.edge),
        fill_gaps=question.fill_gaps,
        limit=in_seconds(question.limit_us),
        until=question.until,
    )


asked = given(
    question=questions,
    annotations=any_recording(),
    other=st.sampled_from(["bob", "nobody", None]),
    num_frames=st.one_of(st.just(NUM_FRAMES), st.integers(0, NUM_FRAMES + 2)),
)


def check_targets(
    question: Question, annotations: Annotations, other: str | None, num_frames: int
) -> None:
    targets = frame_targets(
        spec_of(question), tables_of(annotations), main="ann", other=other, num_frames=num_frames
    )
    assert targets.y.dtype == (np.float32 if question.kind == "regression" else np.uint8)
    assert targets.ignored.dtype == np.bool_
    assert targets.y.shape == targets.ignored.shape == (num_frames,)
    assert not np.any(targets.y[targets.ignored])
    expected = reference_rows(question, annotations, "ann", other, num_frames)
    if question.kind != "regression":
        assert drawn(targets) == "".join(map(str, expected))
        return
    for y, ignored, row in zip(targets.y.tolist(), targets.ignored, expected, strict=True):
        assert ignored == (row == ".")
        if isinstance(row, Fraction):
            assert 0 < y <= 1
            assert abs(Fraction(y) - row) <= Fraction(1, 2**24)  # half a step of float32 below 1
        else:
            assert y == 0


@settings(max_examples=150, deadline=None)
@asked
@example(question=Question(), annotations=recording([], END_US), other=None, num_frames=0)
@example(question=Question("onset", 3), annotations=recording([], END_US), other=None, num_frames=0)
def test_targets_are_those_of_the_definition_read_frame_by_frame(
    question, annotations, other, num_frames
):
    check_targets(question, annotations, other, num_frames)


@pytest.mark.slow
@settings(max_examples=600, deadline=None)
@asked
def test_targets_are_those_of_the_definition_in_more_cases(
    question, annotations, other, num_frames
):
    check_targets(question, annotations, other, num_frames)


@settings(max_examples=200, deadline=None)
@given(question=onsets(), annotations=any_recording())
def test_no_positive_row_of_onset_has_heard_the_laugh_it_waits_for(question, annotations):
    tables = tables_of(annotations)
    spec = spec_of(question)
    targets = frame_targets(spec, tables, main="ann", other="bob", num_frames=NUM_FRAMES)
    bouts = target_bouts(spec, tables, main="ann", other="bob")
    for row in np.flatnonzero(targets.y):
        now_us = int(row) * FRAME
        waits_us = bouts.start_us - now_us
        # Some bout begins in [80 ms (g + 1), 80 ms (n + 1)) from now ...
        least_us, most_us = (question.guard + 1) * FRAME, (spec.rules.span + 1) * FRAME
        assert np.any((waits_us >= least_us) & (waits_us < most_us))
        # ... and none is going on now, or in the frame that the row is asked about.
        assert not np.any((bouts.start_us < now_us + FRAME) & (bouts.end_us > now_us))


@settings(max_examples=200, deadline=None)
@given(question=onsets(), annotations=any_recording())
def test_bouts_are_those_of_the_definition_and_lie_further_apart_than_the_merge_gap(
    question, annotations
):
    spec = spec_of(question)
    bouts = target_bouts(spec, tables_of(annotations), main="ann", other="bob")
    expected = bouts_of(question, sort_out(question, annotations, "ann", "bob")[0])
    assert bouts.start_us.dtype == bouts.end_us.dtype == np.int64
    assert bouts.start_us.tolist() == [bout.start_us for bout in expected]
    assert bouts.end_us.tolist() == [bout.end_us for bout in expected]
    assert np.all(bouts.start_us[1:] - bouts.end_us[:-1] > question.merge_gap_us)


@settings(deadline=None)
@given(question=questions)
def test_a_spec_built_again_from_its_identity_is_the_same_label(question):
    spec = spec_of(question)
    again = LabelSpec.from_identity(spec.identity())
    assert again.identity() == spec.identity()
    assert again.rules == spec.rules


def test_the_reference_finds_the_frame_of_a_time_before_zero():
    assert [frame_of(time_us) for time_us in (-80_001, -1, 0, 79_999)] == [-2, -1, 0, 0]


def test_the_drawing_in_the_documentation_is_what_the_definitions_give():
    page = (Path(__file__).parents[2] / "docs" / "labels.md").read_text(encoding="utf-8")
    drawing = dict(re.findall(r"^(\S+) +\|(.+)\|$", page, re.MULTILINE))
    marks = drawing["annotated"]
    events = [
        Event(
            run.start() * FRAME,
            run.end() * FRAME,
            "Laughter",
            "Laughter",
            "ann" if run[0][0] == "#" else None,
        )
        for run in re.finditer(r"#+|\?+", marks)
    ]
    annotations = recording(events, len(marks) * FRAME)
    for name, question in (("detection", Question()), ("onset:8f", Question("onset", 8, guard=2))):
        targets = frame_targets(
            spec_of(question), tables_of(annotations), main="ann", other=None, num_frames=len(marks)
        )
        assert drawing[name] == drawn(targets)
