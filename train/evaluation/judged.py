"""A split's scores beside the events that they are held against: what a threshold comes to.

Of detection and shift, segments against bouts; of onset and interval, alarms before moments. The
same for validation, where thresholds are chosen, and for what is judged with them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from laughstore.bouts import Times
from laughstore.index import Index
from laughstore.labels import LabelSpec, awaited_us, target_bouts, unknown_events
from laughstore.timebase import FRAME_US, US_PER_SECOND

from ..scoring.score import StreamScores
from .events.anticipation import AnticipatedStream, Foreseen, foresee
from .events.collar import Collar, EventCounts, bouts_found
from .events.outcomes import Outcomes
from .events.segments import SegmentRule, Segments, find_segments, judged, smoothed
from .postprocess import PostProcessing

SEGMENTED: Final = ("detection", "shift")
"""Kinds of label whose scores come to segments."""
FORESEEN: Final = ("onset", "interval")
"""Kinds of label whose scores come to alarms."""
_US_PER_HOUR: Final = 3600 * US_PER_SECOND


@dataclass(frozen=True)
class FoundSegments:
    """What segments of one threshold come to."""

    counts: EventCounts
    hours: float
    """Of rows that count."""
    outcomes: tuple[Outcomes, ...]
    """Of each stream."""

    @property
    def recall(self) -> float | None:
        """Share of bouts that are found; None without bouts."""
        return self.counts.recall

    @property
    def false_alarms_per_hour(self) -> float | None:
        """Segments without a bout; None without rows that count."""
        return self.counts.false_alarms / self.hours if self.hours else None


@dataclass(frozen=True, eq=False)
class JudgedStream:
    """One stream's scores, and what its segments are held against."""

    scores: StreamScores
    reference: Times
    """Bouts all of whose rows were scored."""
    unknown: Times
    """What a segment may touch and be neither right nor wrong, these bouts aside."""
    label: LabelSpec
    _smooth: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    """Scores by the rows of the median: the same are asked for again and again."""

    @classmethod
    def of(cls, index: Index, scores: StreamScores, label: LabelSpec) -> "JudgedStream":
        """Return a stream with its bouts.

        Args:
            index: of its annotations.
            scores: with those of ignored rows.
            label: that they were scored for.
        """
        stream = scores.stream
        tables = index.tables(index.recording(stream.recording_id))
        roles = {"main": stream.main, "other": stream.other}
        bouts, unknown = (
            target_bouts(label, tables, **roles),
            unknown_events(label, tables, **roles),
        )
        seen = _are_scored(scores, bouts, label.lead_frames)
        unseen = Times(
            np.concatenate([unknown.start_us, bouts.start_us[~seen]]),
            np.concatenate([unknown.end_us, bouts.end_us[~seen]]),
        )
        return cls(scores, Times(bouts.start_us[seen], bouts.end_us[seen]), unseen, label)

    def segments(self, rule: SegmentRule) -> Segments:
        """Return all segments, those too that nobody judges."""
        width = rule.median_rows
        if width not in self._smooth:
            self._smooth[width] = smoothed(self.scores.row, self.scores.score, width)
        return find_segments(
            self.scores.row,
            self._smooth[width],
            replace(rule, median_rows=1),
            lead=self.label.lead_frames,
        )

    def find(self, rule: SegmentRule) -> Segments:
        """Return the segments that can be right or wrong."""
        return judged(self.segments(rule), self.reference, self.unknown)


@dataclass(frozen=True, eq=False)
class JudgedSegments:
    """Streams of which segments are held against bouts."""

    streams: tuple[JudgedStream, ...]
    hours: float
    """Of rows that count."""
    collar: Collar

    @classmethod
    def of(
        cls,
        index: Index,
        streams: Sequence[StreamScores],
        label: LabelSpec,
        collar: Collar | None = None,
    ) -> "JudgedSegments":
        """Return the streams of a split, with scores of ignored rows; the usual collar if None."""
        num_rows = sum(int(np.count_nonzero(item.eligible)) for item in streams)
        each = tuple(JudgedStream.of(index, scores, label) for scores in streams)
        return cls(each, num_rows * FRAME_US / _US_PER_HOUR, collar or Collar())

    @property
    def num_bouts(self) -> int:
        """That can be found."""
        return sum(len(one.reference.start_us) for one in self.streams)

    def counts(self, rule: SegmentRule) -> EventCounts:
        """Return what segments of a rule come to."""
        each = (EventCounts.of(one.find(rule), one.reference, self.collar) for one in self.streams)
        return sum(each, EventCounts())

    def at(self, threshold: float, how: PostProcessing) -> FoundSegments:
        """Return what segments of a threshold come to."""
        rule, total, outcomes = how.at(threshold), EventCounts(), []
        for one in self.streams:
            segments = one.find(rule)
            found = bouts_found(segments, one.reference, self.collar)
            total += EventCounts.of_bouts(len(segments), found)
            outcomes.append(Outcomes(one.reference.start_us, found))
        return FoundSegments(total, self.hours, tuple(outcomes))


@dataclass(frozen=True, eq=False)
class JudgedAlarms:
    """Streams of which alarms are held against the moments that follow."""

    streams: tuple[AnticipatedStream, ...]
    span: int
    """Rows of the label's window."""
    guard: int

    @classmethod
    def of(cls, index: Index, streams: Sequence[StreamScores], label: LabelSpec) -> "JudgedAlarms":
        """Return the streams of a split."""
        waiting = tuple(anticipated(index, scores, label) for scores in streams)
        return cls(waiting, label.rules.span, label.rules.guard)

    def at(self, threshold: float) -> Foreseen:
        """Return what alarms of a threshold come to."""
        return foresee(self.streams, threshold, span=self.span, guard=self.guard)


def anticipated(index: Index, scores: StreamScores, label: LabelSpec) -> AnticipatedStream:
    """Return a stream's scores beside the moments that its label waits for."""
    stream = scores.stream
    tables = index.tables(index.recording(stream.recording_id))
    moments = awaited_us(label, tables, main=stream.main, other=stream.other)
    return AnticipatedStream(scores.row, scores.score, scores.eligible, moments)


def _are_scored(scores: StreamScores, bouts: Times, lead: int) -> NDArray[np.bool_]:
    """Return bool[K]: no row of the bout is missing, as those are that the filter leaves out.

    Nothing could be found in those. Frames before the first row and behind the last are not missed.
    """
    first, stop = (np.clip(item - lead, 0, scores.stream.num_frames) for item in bouts.frames())
    num_scored = np.searchsorted(scores.row, stop) - np.searchsorted(scores.row, first)
    return (num_scored > 0) & (num_scored == stop - first)
