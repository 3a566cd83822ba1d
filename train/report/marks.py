"""What a reader looks for along time: what was predicted and what was there, right or wrong.

Enters: the scores of one stream, its label and a threshold. Leaves: stretches of time with a
verdict each. What they are depends on the label:

                    predicted                         awaited
    detection,      segments at the threshold; right  annotated bouts; found if such a
    shift           if they share time with a bout    segment shares time with them
    onset,          alarms at the threshold; right    windows before what is awaited; found
    interval        in such a window                  if an alarm is raised in them
    regression      rows with the largest             rows with the largest
                    overestimates: all wrong          underestimates: all missed

The verdicts on alarms are those that metrics count (`anticipation`). Those on segments are milder
than the collar's: a segment that begins 0.5 s early is no false alarm to a reader.
"""

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from laughstore.bouts import Frames, Times
from laughstore.index import Index
from laughstore.labels import LabelSpec, target_bouts
from laughstore.timebase import FRAME_US

from ..evaluation.events.anticipation import stream_alarms
from ..evaluation.events.candidates import candidate_scores
from ..evaluation.events.segments import SegmentRule, Segments, touches
from ..evaluation.judged import JudgedStream, anticipated
from ..evaluation.postprocess import PostProcessing
from ..losses import target_kind
from ..scoring.score import StreamScores

RIGHT: Final = 1
WRONG: Final = 0
LEFT_OUT: Final = -1
"""Neither: what it touches may or may not be such an event, or some of its rows were not scored."""
_LARGEST: Final = 20
"""Errors of a regression that are marked, to either side."""


@dataclass(frozen=True, eq=False)
class Stretches:
    """N stretches of time, each with a score and a verdict."""

    start_us: NDArray[np.int64]
    """i64[N]."""
    end_us: NDArray[np.int64]
    """i64[N]; behind the start."""
    score: NDArray[np.float32]
    """f4[N]: the highest of its rows; NaN where none was scored."""
    verdict: NDArray[np.int8]
    """i1[N]: RIGHT, WRONG or LEFT_OUT."""

    def __len__(self) -> int:
        return len(self.start_us)

    @classmethod
    def none(cls) -> Self:
        """Return no stretches."""
        empty = np.empty(0, np.int64)
        return cls(empty, empty, np.empty(0, np.float32), np.empty(0, np.int8))


@dataclass(frozen=True, eq=False)
class StreamMarks:
    """What stands along one stream."""

    predicted: Stretches
    """None without a threshold."""
    awaited: Stretches
    """None without a threshold: nobody can say what was missed."""
    events: Times
    """Annotated bouts of the class asked for."""


def stream_marks(
    index: Index,
    scores: StreamScores,
    label: LabelSpec,
    threshold: float | None,
    how: PostProcessing | None = None,
) -> StreamMarks:
    """Return the marks of one stream.

    Args:
        index: with the annotations.
        scores: with those of ignored rows, too.
        label: that they were scored for.
        threshold: of classes: the score from which on a row is an alarm; None: nobody chose one.
        how: segments are made of rows; None: joined over the label's merge gap, and no more.
    """
    stream = scores.stream
    tables = index.tables(index.recording(stream.recording_id))
    events = target_bouts(label, tables, main=stream.main, other=stream.other)
    if target_kind(label) == "numbers":
        return StreamMarks(*_largest_errors(scores, label), events)
    if threshold is None:
        return StreamMarks(Stretches.none(), Stretches.none(), events)
    if label.kind in ("onset", "interval"):
        return StreamMarks(*_alarms(index, scores, label, threshold), events)
    rule = (how or PostProcessing(label.merge_gap.us)).at(threshold)
    return StreamMarks(*_segments(index, scores, label, rule, events), events)


def _segments(
    index: Index, scores: StreamScores, label: LabelSpec, rule: SegmentRule, bouts: Times
) -> tuple[Stretches, Stretches]:
    judge = JudgedStream.of(index, scores, label)
    found = judge.segments(rule)
    right = touches(found, judge.reference)
    verdict = np.where(right, RIGHT, np.where(touches(found, judge.unknown), LEFT_OUT, WRONG))
    first, stop = bouts.frames()
    rows = Frames(first - label.lead_frames, stop - label.lead_frames)
    best = candidate_scores(scores.row, scores.score, rows)
    # A bout is met by any segment, be it in a stretch that nobody judges.
    met = touches(Segments(*bouts, best), Times(found.start_us, found.end_us))
    judged = np.isin(bouts.start_us, judge.reference.start_us)
    fate = np.where(judged, np.where(met, RIGHT, WRONG), LEFT_OUT)
    return (
        Stretches(found.start_us, found.end_us, found.score, verdict.astype(np.int8)),
        Stretches(*bouts, best, fate.astype(np.int8)),
    )


def _alarms(
    index: Index, scores: StreamScores, label: LabelSpec, threshold: float
) -> tuple[Stretches, Stretches]:
    waiting = anticipated(index, scores, label)
    rules = label.rules
    found = stream_alarms(waiting, threshold, span=rules.span, guard=rules.guard)
    start_us = scores.row[found.place] * FRAME_US
    verdict = np.where(found.is_false, WRONG, RIGHT).astype(np.int8)
    alarms = Stretches(start_us, start_us + FRAME_US, scores.score[found.place], verdict)
    counts = scores.eligible
    windows = Frames(found.begins, found.ends)
    best = candidate_scores(scores.row[counts], scores.score[counts], windows)
    fate = np.where(found.lead_us >= 0, RIGHT, np.where(found.can_be, WRONG, LEFT_OUT))
    begins_us = np.maximum(found.begins, 0) * FRAME_US
    ends_us = np.maximum(found.ends * FRAME_US, begins_us + FRAME_US)
    return alarms, Stretches(begins_us, ends_us, best, fate.astype(np.int8))


def _largest_errors(scores: StreamScores, label: LabelSpec) -> tuple[Stretches, Stretches]:
    error = np.where(scores.eligible, scores.score.astype(np.float64) - scores.y, 0.0)
    apart = max(label.rules.span, 1)
    return _peaks(scores, error, apart), _peaks(scores, -error, apart)


def _peaks(scores: StreamScores, height: NDArray[np.float64], apart: int) -> Stretches:
    """The highest rows, each further from the others than `apart`; none that is not above 0."""
    left = height.copy()
    places: list[int] = []
    while len(places) < _LARGEST and len(left):
        place = int(np.argmax(left))
        if left[place] <= 0:
            break
        places.append(place)
        low, high = np.searchsorted(
            scores.row, (scores.row[place] - apart, scores.row[place] + apart + 1)
        )
        left[low:high] = 0
    chosen = np.array(sorted(places), np.int64)
    start_us = scores.row[chosen] * FRAME_US
    verdict = np.full(len(chosen), WRONG, np.int8)
    return Stretches(start_us, start_us + FRAME_US, scores.score[chosen], verdict)
