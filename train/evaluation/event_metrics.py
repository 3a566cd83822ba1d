"""What scores come to as events: segments against bouts, alarms before onsets, candidates.

Which kind of label gets what: detection and shift segments, onset and interval alarms, both
candidates; numbers none of them. Nothing is fitted here: what was comes from validation.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from laughstore.bouts import Times
from laughstore.index import Index
from laughstore.labels import LabelSpec, candidate_events
from laughstore.timebase import US_PER_SECOND

from ..runs.drawing import draw_false_alarms
from ..scoring.score import StreamScores
from .events.anticipation import Foreseen
from .events.candidates import (
    CandidateMetrics,
    candidate_metrics,
    candidate_rows,
    candidate_scores,
)
from .events.collar import Collar, EventCounts
from .events.outcomes import Outcomes
from .events.psds import FindSegments, Tolerance, detection_curves
from .events.segments import SegmentRule, Segments
from .false_alarms import Operated, OperatingCurve, spread_thresholds
from .fitted import RATE_RULES
from .judged import (
    FORESEEN,
    SEGMENTED,
    FoundSegments,
    JudgedAlarms,
    JudgedSegments,
    JudgedStream,
)
from .operating import Operating
from .postprocess import PostProcessing
from .thresholds import ChosenThreshold

PSDS_TOLERANCES: Final = (0.5, 0.1)
"""Of detection and of ground truth alike: half of a segment, or a tenth."""
_PSDS_THRESHOLDS: Final = 200
_NOTHING: Final = dict.fromkeys(Foreseen(0, np.empty(0), 0, 0.0).to_json())
"""In the place of what alarms come to, where there is no threshold."""


@dataclass(frozen=True)
class SegmentMetrics:
    """Segments of one threshold against bouts, and of all thresholds."""

    found: FoundSegments | None
    """At the threshold; None without one."""
    how: PostProcessing
    """Made those."""
    how_is_chosen: bool
    """On validation; else they are joined within the label's merge gap, and that is all."""
    collar: Collar
    curve: OperatingCurve | None
    """False alarms against recall, at thresholds of validation; None where none were kept."""
    psds: dict[str, float | None]
    """By tolerance, of segments without post-processing; None without bouts."""
    num_bouts: int

    @property
    def counts(self) -> EventCounts | None:
        """At the threshold; None without one."""
        return None if self.found is None else self.found.counts

    def to_json(self) -> dict[str, Any]:  # Any: JSON values
        """Return a JSON object of finite numbers and nulls."""
        found = self.found
        return {
            "collar_s": {
                "onset": self.collar.onset_us / US_PER_SECOND,
                "offset": self.collar.offset_us / US_PER_SECOND,
                "offset_share": self.collar.offset_share,
            },
            "post_processing": {
                **self.how.to_json(),
                "chosen_on": "validation" if self.how_is_chosen else None,
            },
            "at_threshold": None
            if found is None
            else {
                **found.counts.to_json(),
                "false_alarms_per_hour": found.false_alarms_per_hour,
            },
            "curve": None if self.curve is None else self.curve.to_json(),
            "bouts": self.num_bouts,
            "psds": self.psds,
        }


@dataclass(frozen=True)
class AlarmsAtRate:
    """Alarms of the threshold that keeps false ones as rare on validation."""

    most_per_hour: float
    chosen: ChosenThreshold
    found: Foreseen | None
    """None without such a threshold."""

    def to_json(self) -> dict[str, Any]:  # Any: JSON values
        """Return a JSON object of finite numbers and nulls."""
        return {
            "most_false_alarms_per_hour": self.most_per_hour,
            "threshold": self.chosen.threshold,
            "reason": self.chosen.reason,
            "chosen_on": "validation",
            "validation_false_alarms_per_hour": self.chosen.false_alarms_per_hour,
            "found": None if self.found is None else self.found.to_json(),
        }


@dataclass(frozen=True)
class AlarmMetrics:
    """Alarms of one threshold, of all, and of given rates of false ones on validation."""

    found: Foreseen | None
    """At the threshold; None without one."""
    at_rates: tuple[AlarmsAtRate, ...]
    curve: OperatingCurve | None
    """False alarms against recall, at thresholds of validation; None where none were kept."""

    def to_json(self) -> dict[str, Any]:  # Any: JSON values
        """Return a JSON object of finite numbers and nulls."""
        return {
            **(_NOTHING if self.found is None else self.found.to_json()),
            "at_false_alarms_per_hour": [item.to_json() for item in self.at_rates],
            "curve": None if self.curve is None else self.curve.to_json(),
        }


@dataclass(frozen=True)
class EventMetrics:
    """What a label's scores come to as events; None where its kind has no such thing."""

    segments: SegmentMetrics | None
    alarms: AlarmMetrics | None
    candidates: CandidateMetrics | None

    def to_json(self) -> dict[str, Any]:  # Any: JSON values
        """Return a JSON object of finite numbers and nulls."""
        return {
            "segments": None if self.segments is None else self.segments.to_json(),
            "anticipation": None if self.alarms is None else self.alarms.to_json(),
            "candidates": None if self.candidates is None else self.candidates.to_json(),
        }

    @property
    def foreseen(self) -> Foreseen | None:
        """Alarms of the threshold."""
        return None if self.alarms is None else self.alarms.found

    @property
    def outcomes(self) -> tuple[Outcomes, ...] | None:
        """Which events of each stream the threshold finds; None where that is not asked."""
        found = self.foreseen if self.segments is None else self.segments.found
        return None if found is None else found.outcomes

    @property
    def point(self) -> Operated | None:
        """What segments, or alarms, of the threshold come to."""
        return self.foreseen if self.segments is None else self.segments.found

    @property
    def curve(self) -> OperatingCurve | None:
        """False alarms against recall, of segments or of alarms."""
        found = self.segments or self.alarms
        return None if found is None else found.curve


def event_metrics(
    index: Index,
    streams: Sequence[StreamScores],
    label: LabelSpec,
    *,
    threshold: float | None,
    operating: Operating | None = None,
    collar: Collar | None = None,
) -> EventMetrics:
    """Return the metrics of events of all streams together.

    Args:
        index: of the streams, whose annotations they are held against.
        streams: with the scores of ignored rows, too.
        label: that they were scored for.
        threshold: to decide by; None: nobody has chosen one.
        operating: what else was fitted on validation; None: segments are joined, and no more.
        collar: how near a segment must be; as usual if None.
    """
    segments = alarms = candidates = None
    if label.kind in SEGMENTED:
        judged = JudgedSegments.of(index, streams, label, collar)
        segments = _segment_metrics(judged, label, threshold, operating)
    if label.kind in FORESEEN:
        alarms = _alarm_metrics(JudgedAlarms.of(index, streams, label), threshold, operating)
    if label.kind in SEGMENTED + FORESEEN and not label.legacy:
        candidates = _candidates(index, streams, label)
    return EventMetrics(segments, alarms, candidates)


def draw_trade_off(folder: Path, events: EventMetrics, title: str) -> list[Path]:
    """Draw false alarms against recall, if there is such a curve; return the paths."""
    curve, point = events.curve, events.point
    if curve is None:
        return []
    at = None
    if point is not None and point.false_alarms_per_hour is not None and point.recall is not None:
        at = point.false_alarms_per_hour, point.recall
    return draw_false_alarms(folder, curve.false_alarms_per_hour, curve.recall, at, title)


def _segment_metrics(
    judged: JudgedSegments, label: LabelSpec, threshold: float | None, operating: Operating | None
) -> SegmentMetrics:
    how = PostProcessing(label.merge_gap.us)
    curve = None
    if operating is not None:
        how = operating.post_processing or how
        curve = OperatingCurve.of(operating.curve, partial(judged.at, how=how))
    psds: dict[str, float | None] = {f"{share:g}": None for share in PSDS_TOLERANCES}
    num_bouts = judged.num_bouts
    if num_bouts and judged.hours:
        scores = np.concatenate([one.scores.score for one in judged.streams])
        plain: list[tuple[FindSegments, Times]] = [
            (partial(_joined, one, label.merge_gap.us), one.reference) for one in judged.streams
        ]
        tolerances = [Tolerance(share, share) for share in PSDS_TOLERANCES]
        curves = detection_curves(
            plain,
            spread_thresholds(scores, _PSDS_THRESHOLDS),
            hours=judged.hours,
            tolerances=tolerances,
        )
        for share, tolerance, one in zip(PSDS_TOLERANCES, tolerances, curves, strict=True):
            psds[f"{share:g}"] = one.score(tolerance.max_false_alarms_per_hour)
    found = None if threshold is None else judged.at(threshold, how)
    is_chosen = operating is not None and operating.has_chosen_segments
    return SegmentMetrics(found, how, is_chosen, judged.collar, curve, psds, num_bouts)


def _joined(stream: JudgedStream, merge_gap_us: int, threshold: float) -> Segments:
    """Segments of a threshold; those within the label's merge gap are one, and that is all."""
    return stream.find(SegmentRule(threshold, merge_gap_us=merge_gap_us))


def _alarm_metrics(
    judged: JudgedAlarms, threshold: float | None, operating: Operating | None
) -> AlarmMetrics:
    at_rates: list[AlarmsAtRate] = []
    curve = None
    if operating is not None:
        for rule in RATE_RULES:
            chosen = operating.chosen(rule)
            assert chosen is not None, "fitted of every run"
            assert rule.at is not None, "a rate"
            found = None if chosen.threshold is None else judged.at(chosen.threshold)
            at_rates.append(AlarmsAtRate(rule.at, chosen, found))
        curve = OperatingCurve.of(operating.curve, judged.at)
    found = None if threshold is None else judged.at(threshold)
    return AlarmMetrics(found, tuple(at_rates), curve)


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
