"""What scores come to as events: segments against bouts, alarms before onsets, candidates.

Which kind of label gets what: detection and shift segments, onset and interval alarms, both
candidates; numbers none of them. Nothing is fitted here: thresholds come from validation.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from laughstore.bouts import Times
from laughstore.index import Index
from laughstore.labels import (
    LabelSpec,
    awaited_us,
    candidate_events,
    target_bouts,
    unknown_events,
)
from laughstore.timebase import FRAME_US, US_PER_SECOND

from ..scoring.score import StreamScores
from .events.anticipation import AnticipatedStream, Foreseen, foresee
from .events.candidates import (
    CandidateMetrics,
    candidate_metrics,
    candidate_rows,
    candidate_scores,
)
from .events.collar import Collar, EventCounts, bouts_found
from .events.outcomes import Outcomes
from .events.psds import FindSegments, Tolerance, detection_curves
from .events.segments import SegmentRule, Segments, find_segments, judged

_SEGMENTED: Final = ("detection", "shift")
_FORESEEN: Final = ("onset", "interval")
PSDS_TOLERANCES: Final = (0.5, 0.1)
"""Of detection and of ground truth alike: half of a segment, or a tenth."""
_PSDS_THRESHOLDS: Final = 200
_US_PER_HOUR: Final = 3600 * US_PER_SECOND


@dataclass(frozen=True)
class SegmentMetrics:
    """Segments of one threshold against bouts, and of all thresholds."""

    counts: EventCounts | None
    """At the threshold; None without one."""
    collar: Collar
    psds: dict[str, float | None]
    """By tolerance; None without bouts."""
    num_bouts: int
    outcomes: tuple[Outcomes, ...] | None
    """Of each stream at the threshold; None without one."""

    def to_json(self) -> dict[str, Any]:  # Any: JSON values
        """Return a JSON object of finite numbers and nulls."""
        return {
            "collar_s": {
                "onset": self.collar.onset_us / US_PER_SECOND,
                "offset": self.collar.offset_us / US_PER_SECOND,
                "offset_share": self.collar.offset_share,
            },
            "at_threshold": None if self.counts is None else self.counts.to_json(),
            "bouts": self.num_bouts,
            "psds": self.psds,
        }


@dataclass(frozen=True)
class EventMetrics:
    """What a label's scores come to as events; None where its kind has no such thing."""

    segments: SegmentMetrics | None
    foreseen: Foreseen | None
    """Alarms of the threshold."""
    candidates: CandidateMetrics | None

    @property
    def outcomes(self) -> tuple[Outcomes, ...] | None:
        """Which events of each stream were found at the threshold; None where that is not asked."""
        for found in (self.segments, self.foreseen):
            if found is not None:
                return found.outcomes
        return None

    def to_json(self) -> dict[str, Any]:  # Any: JSON values
        """Return a JSON object of finite numbers and nulls."""
        return {
            "segments": None if self.segments is None else self.segments.to_json(),
            "anticipation": None if self.foreseen is None else self.foreseen.to_json(),
            "candidates": None if self.candidates is None else self.candidates.to_json(),
        }


def event_metrics(
    index: Index,
    streams: Sequence[StreamScores],
    label: LabelSpec,
    *,
    threshold: float | None,
    collar: Collar | None = None,
) -> EventMetrics:
    """Return the metrics of events of all streams together.

    Args:
        index: of the streams, whose annotations they are held against.
        streams: with the scores of ignored rows, too.
        label: that they were scored for.
        threshold: chosen on validation; None: by nobody.
        collar: how near a segment must be; as usual if None.
    """
    segments = foreseen = candidates = None
    if label.kind in _SEGMENTED:
        segments = _segment_metrics(index, streams, label, threshold, collar or Collar())
    if label.kind in _FORESEEN and threshold is not None:
        foreseen = _foreseen(index, streams, label, threshold)
    if label.kind in _SEGMENTED + _FORESEEN and not label.legacy:
        candidates = _candidates(index, streams, label)
    return EventMetrics(segments, foreseen, candidates)


def _segment_metrics(
    index: Index,
    streams: Sequence[StreamScores],
    label: LabelSpec,
    threshold: float | None,
    collar: Collar,
) -> SegmentMetrics:
    judges = [_Judge.of(index, scores, label) for scores in streams]
    counts = outcomes = None
    if threshold is not None:
        counts, outcomes = EventCounts(), ()
        for one in judges:
            segments = one.find(threshold)
            is_found = bouts_found(segments, one.reference, collar)
            counts += EventCounts.of_bouts(len(segments), is_found)
            outcomes += (Outcomes(one.reference.start_us, is_found),)
    num_bouts = sum(len(one.reference.start_us) for one in judges)
    psds: dict[str, float | None] = {f"{share:g}": None for share in PSDS_TOLERANCES}
    hours = sum(int(np.count_nonzero(item.eligible)) for item in streams) * FRAME_US / _US_PER_HOUR
    if num_bouts and hours:
        thresholds = spread_thresholds(np.concatenate([item.score for item in streams]))
        found: list[tuple[FindSegments, Times]] = [(one.find, one.reference) for one in judges]
        tolerances = [Tolerance(share, share) for share in PSDS_TOLERANCES]
        curves = detection_curves(found, thresholds, hours=hours, tolerances=tolerances)
        for share, tolerance, curve in zip(PSDS_TOLERANCES, tolerances, curves, strict=True):
            psds[f"{share:g}"] = curve.score(tolerance.max_false_alarms_per_hour)
    return SegmentMetrics(counts, collar, psds, num_bouts, outcomes)


@dataclass(frozen=True, eq=False)
class _Judge:
    """One stream's scores, and what its segments are held against."""

    scores: StreamScores
    reference: Times
    """Bouts all of whose rows were scored."""
    unknown: Times
    """What a segment may touch and be neither right nor wrong, these bouts aside."""
    label: LabelSpec

    @classmethod
    def of(cls, index: Index, scores: StreamScores, label: LabelSpec) -> "_Judge":
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

    def find(self, threshold: float) -> Segments:
        """Segments that can be right or wrong; those within the label's merge gap are one."""
        rule = SegmentRule(threshold, merge_gap_us=self.label.merge_gap.us)
        lead = self.label.lead_frames
        found = find_segments(self.scores.row, self.scores.score, rule, lead=lead)
        return judged(found, self.reference, self.unknown)


def _are_scored(scores: StreamScores, bouts: Times, lead: int) -> NDArray[np.bool_]:
    """Return bool[K]: no row of the bout is missing, as those are that the filter leaves out.

    Nothing could be found in those. Frames before the first row and behind the last are not missed.
    """
    first, stop = (np.clip(item - lead, 0, scores.stream.num_frames) for item in bouts.frames())
    num_scored = np.searchsorted(scores.row, stop) - np.searchsorted(scores.row, first)
    return (num_scored > 0) & (num_scored == stop - first)


def spread_thresholds(
    score: NDArray[np.float32], most: int = _PSDS_THRESHOLDS
) -> NDArray[np.float32]:
    """Return f4[K], rising: some of the scores that occur, closer together the higher they are.

    Args:
        score: f4[N], one or more.
        most: K at most; all that occur if they are no more.
    """
    distinct = np.unique(score)
    if len(distinct) <= most:
        return distinct
    # Places from the top: 1, 2, 3, ... and then in steps of a constant ratio.
    places = np.unique(np.geomspace(1, len(score), most).astype(np.int64))
    falling = np.sort(score)[::-1]
    return np.unique(falling[places - 1])


def _foreseen(
    index: Index, streams: Sequence[StreamScores], label: LabelSpec, threshold: float
) -> Foreseen:
    waiting = []
    for scores in streams:
        stream = scores.stream
        tables = index.tables(index.recording(stream.recording_id))
        moments = awaited_us(label, tables, main=stream.main, other=stream.other)
        waiting.append(AnticipatedStream(scores.row, scores.score, scores.eligible, moments))
    rules = label.rules
    return foresee(waiting, threshold, span=rules.span, guard=rules.guard)


def _candidates(
    index: Index, streams: Sequence[StreamScores], label: LabelSpec
) -> CandidateMetrics:
    events, scored, names = [], [], ()
    for scores in streams:
        stream = scores.stream
        tables = index.tables(index.recording(stream.recording_id))
        found = candidate_events(label, tables, main=stream.main, other=stream.other)
        names = tables.vocabulary.labels
        events.append(found)
        scored.append(candidate_scores(scores.row, scores.score, candidate_rows(label, found)))
    return candidate_metrics(scored, events, names)
