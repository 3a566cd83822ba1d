"""The worst false alarms and misses of a split: what a reader wants to hear first."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from laughstore.labels import LabelSpec
from laughstore.timebase import FRAME_US, US_PER_SECOND

from ..losses import target_kind
from ..scoring.score import StreamScores
from .marks import WRONG, StreamMarks, Stretches

LISTED: Final = 20
"""Of either kind, at most."""


type SpotKind = Literal["false alarm", "miss"]


@dataclass(frozen=True)
class Spot:
    """A false alarm or a miss."""

    kind: SpotKind
    stream: int
    """Number among the streams that were scored."""
    start_us: int
    end_us: int
    score: float
    """The highest of its rows."""
    target: float | None = None
    """Of numbers: what the score should have been."""

    @property
    def start_s(self) -> float:
        """Seconds from the start of the recording."""
        return self.start_us / US_PER_SECOND

    @property
    def end_s(self) -> float:
        """Seconds from the start of the recording."""
        return self.end_us / US_PER_SECOND


@dataclass(frozen=True)
class WorstSpots:
    """What is listed, the worst first, and how much there is."""

    false_alarms: tuple[Spot, ...]
    misses: tuple[Spot, ...]
    num_false_alarms: int
    num_misses: int


def worst_spots(
    streams: Sequence[StreamScores],
    marks: Sequence[StreamMarks],
    label: LabelSpec,
    *,
    most: int = LISTED,
) -> WorstSpots:
    """Return the false alarms with the highest scores and the misses with the lowest ones.

    Of labels that are numbers: the largest errors to either side.

    Args:
        streams: that were scored.
        marks: of each.
        label: of their scores.
        most: of either kind.
    """
    false_alarms: list[Spot] = []
    misses: list[Spot] = []
    for number, (scores, found) in enumerate(zip(streams, marks, strict=True)):
        false_alarms += _spots("false alarm", number, scores, found.predicted, label)
        misses += _spots("miss", number, scores, found.awaited, label)
    false_alarms.sort(key=lambda spot: (-_excess(spot), spot.stream, spot.start_us))
    misses.sort(key=lambda spot: (_excess(spot), spot.stream, spot.start_us))
    return WorstSpots(
        tuple(false_alarms[:most]), tuple(misses[:most]), len(false_alarms), len(misses)
    )


def _excess(spot: Spot) -> float:
    """How much too high a score is, or how high, where there is no number that it should be."""
    return spot.score - (spot.target or 0.0)


def _spots(
    kind: SpotKind, number: int, scores: StreamScores, stretches: Stretches, label: LabelSpec
) -> Iterator[Spot]:
    """What is wrong among the stretches of one stream."""
    is_number = target_kind(label) == "numbers"
    for place in np.flatnonzero(stretches.verdict == WRONG).tolist():
        start_us = int(stretches.start_us[place])
        target = None
        if is_number:
            target = float(scores.y[np.searchsorted(scores.row, start_us // FRAME_US)])
        end_us, score = int(stretches.end_us[place]), float(stretches.score[place])
        yield Spot(kind, number, start_us, end_us, score, target)
