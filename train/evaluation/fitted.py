"""What is fitted, and on what: thresholds, segments and temperature, on scores of validation.

`ValidationScores` can be made of nothing else, and all fitting here takes it: no number is ever
chosen on the split that is judged with it, unless that is validation itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from laughstore.errors import ConfigError
from laughstore.index import Index
from laughstore.labels import LabelSpec

from ..losses import ScoreKind, target_kind
from ..runs.folds import VALIDATION_SPLIT
from ..scoring.confusion import Confusion
from ..scoring.score import StreamScores, counted_rows
from .false_alarms import FalseAlarms, spread_thresholds
from .judged import FORESEEN, SEGMENTED, JudgedAlarms, JudgedSegments
from .operating import Bound, Operating
from .postprocess import PostProcessing, choose_post_processing
from .temperature import Temperature
from .thresholds import ChosenThreshold, ThresholdRule, choose_threshold

RATE_RULES: Final = tuple(ThresholdRule("fa-per-hour", at) for at in (1.0, 5.0, 10.0, 30.0, 60.0))
"""At which alarms are reported."""
_ROW_RULES: Final = (
    ThresholdRule("f1"),
    ThresholdRule("youden"),
    *(ThresholdRule("precision", at) for at in (0.5, 0.8, 0.9)),
    *(ThresholdRule("recall", at) for at in (0.5, 0.8, 0.9)),
)
RULES: Final = _ROW_RULES + RATE_RULES
"""Fitted of every run; others when they are asked for."""
_CURVE_POINTS: Final = 50


@dataclass(frozen=True, eq=False)
class ValidationScores:
    """The scored streams of the validation split, and of no other.

    Raises:
        ConfigError: a stream is of another split.
    """

    index: Index
    """In which the split of a recording is that of the run: with its fold."""
    streams: Sequence[StreamScores]
    """With the scores of ignored rows, too."""
    label: LabelSpec
    """Of classes."""

    def __post_init__(self) -> None:
        assert target_kind(self.label) == "classes", "numbers have no thresholds"
        for item in self.streams:
            split = self.index.recording(item.stream.recording_id).split
            if split != VALIDATION_SPLIT:
                raise ConfigError(
                    f"recording {item.stream.recording_id} is of split {split!r}: thresholds are"
                    f" fitted on {VALIDATION_SPLIT} alone"
                )

    @cached_property
    def rows(self) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """(positive bool[N], score f4[N]) of the rows that count."""
        if not self.streams:
            return np.empty(0, np.bool_), np.empty(0, np.float32)
        y, score = counted_rows(self.streams)
        return y > 0, score

    @cached_property
    def all_scores(self) -> NDArray[np.float32]:
        """f4[N]: those that events are made of; of segments, of ignored rows too."""
        if self.label.kind not in SEGMENTED or not self.streams:
            return self.rows[1]
        return np.concatenate([item.score for item in self.streams])

    @cached_property
    def segments(self) -> JudgedSegments | None:
        """Held against bouts; None of labels that have no segments."""
        if self.label.kind not in SEGMENTED:
            return None
        return JudgedSegments.of(self.index, self.streams, self.label)

    @cached_property
    def alarms(self) -> JudgedAlarms | None:
        """Held against onsets; None of labels that foresee nothing."""
        if self.label.kind not in FORESEEN:
            return None
        return JudgedAlarms.of(self.index, self.streams, self.label)


def fit(validation: ValidationScores, bound: Bound, scores: ScoreKind) -> Operating:
    """Return all that is fitted of every run.

    Args:
        validation: the scores that it is fitted on.
        bound: of what they are.
        scores: what they are.
    """
    positive, score = validation.rows
    thresholds = {str(rule): choose_threshold(rule, positive, score) for rule in _ROW_RULES}
    how = None
    if validation.segments is not None:
        gap_us = validation.label.merge_gap.us
        best = thresholds["f1"].threshold
        how = PostProcessing(gap_us)
        if best is not None:
            how = choose_post_processing(validation.segments.counts, best, gap_us)
    every = validation.all_scores
    curve = spread_thresholds(every, _CURVE_POINTS)[::-1] if len(every) else every
    fitted = Operating(
        bound=bound,
        scores=scores,
        num_rows=len(positive),
        num_positives=int(np.count_nonzero(positive)),
        thresholds=thresholds,
        temperature=Temperature.fit(positive, score),
        post_processing=how,
        curve=tuple(curve.tolist()),
    )
    return _with_rules(fitted, validation, RATE_RULES)


def with_rule(operating: Operating, validation: ValidationScores, rule: ThresholdRule) -> Operating:
    """Return the same with the threshold of one more rule."""
    return _with_rules(operating, validation, [rule])


def _with_rules(
    operating: Operating, validation: ValidationScores, rules: Sequence[ThresholdRule]
) -> Operating:
    positive, score = validation.rows
    few = FalseAlarms(
        validation.all_scores, lambda at: _rate(validation, operating.post_processing, at)
    )
    for rule in rules:
        if rule.at is None or rule.name != "fa-per-hour":
            chosen = choose_threshold(rule, positive, score)
        else:
            found = few.lowest(rule.at)
            if not (validation.segments or validation.alarms):
                found = f"label {validation.label.label} comes to no events"
            if isinstance(found, str):
                chosen = ChosenThreshold(rule, None, found)
            else:
                counts = Confusion.of(positive, score, found[0])
                chosen = ChosenThreshold(
                    rule, found[0], confusion=counts, false_alarms_per_hour=found[1]
                )
        operating = operating.with_threshold(chosen)
    return operating


def _rate(
    validation: ValidationScores, how: PostProcessing | None, threshold: float
) -> float | None:
    """False alarms an hour of events at a threshold."""
    if validation.segments is not None:
        assert how is not None, "segments are made somehow"
        return validation.segments.at(threshold, how).false_alarms_per_hour
    if validation.alarms is not None:
        return validation.alarms.at(threshold).false_alarms_per_hour
    return None
