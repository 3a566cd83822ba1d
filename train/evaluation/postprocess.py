"""How scores become segments: the settings, and the choice among a few by collar F1 on validation.

The threshold comes first, by its rule; all else of a segment is chosen here, at the threshold of
the best F1 of rows, and then holds at any threshold.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, Final, Self

from laughstore.errors import ConfigError
from laughstore.timebase import US_PER_SECOND

from .events.collar import EventCounts
from .events.segments import SegmentRule

MEDIAN_ROWS: Final = (1, 3, 5, 9)
LOW_SHARES: Final = (1.0, 0.75, 0.5)
MIN_DURATIONS_US: Final = (0, 200_000, 400_000)
GAP_FACTORS: Final = (1, 2)
"""Of the label's merge gap: bouts are never closer."""


@dataclass(frozen=True)
class PostProcessing:
    """What makes segments of scores, the threshold aside.

    Raises:
        ConfigError: a number cannot work.
    """

    merge_gap_us: int = 0
    """Segments no further apart than this are one."""
    median_rows: int = 1
    """Scores are smoothed by the median of so many rows; 1: they are not."""
    low_share: float = 1.0
    """A segment goes on while scores reach this share of the threshold; 1: the threshold itself."""
    min_duration_us: int = 0
    """Shorter segments are dropped, after they were joined."""

    def __post_init__(self) -> None:
        if not 0 < self.low_share <= 1:
            raise ConfigError(f"low_share is {self.low_share}; it must be above 0, at most 1")
        self.at(0.5)  # the rest is checked there

    def at(self, threshold: float) -> SegmentRule:
        """Return the rule of segments at a threshold of 0 or more."""
        return SegmentRule(
            threshold,
            low=None if self.low_share == 1 else self.low_share * threshold,
            median_rows=self.median_rows,
            merge_gap_us=self.merge_gap_us,
            min_duration_us=self.min_duration_us,
        )

    def to_json(self) -> dict[str, Any]:  # Any: JSON values
        """Return a JSON object; durations in seconds."""
        return {
            "median_rows": self.median_rows,
            "low_share": self.low_share,
            "min_duration_s": self.min_duration_us / US_PER_SECOND,
            "merge_gap_s": self.merge_gap_us / US_PER_SECOND,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:  # Any: JSON values
        """Return what `to_json` wrote. Raises KeyError when it did not."""
        return cls(
            merge_gap_us=round(data["merge_gap_s"] * US_PER_SECOND),
            median_rows=data["median_rows"],
            low_share=data["low_share"],
            min_duration_us=round(data["min_duration_s"] * US_PER_SECOND),
        )


def candidates(merge_gap_us: int) -> list[PostProcessing]:
    """Return all that are tried, the plainest first; scores are smoothed least often changed."""
    gaps = sorted({factor * merge_gap_us for factor in GAP_FACTORS})
    return [
        PostProcessing(gap, median, low, shortest)
        for median, gap, low, shortest in product(MEDIAN_ROWS, gaps, LOW_SHARES, MIN_DURATIONS_US)
    ]


def choose_post_processing(
    counts: Callable[[SegmentRule], EventCounts], threshold: float, merge_gap_us: int
) -> PostProcessing:
    """Return the candidate with the best collar F1; of equal ones the plainest.

    Args:
        counts: of validation's segments by a rule.
        threshold: of the segments.
        merge_gap_us: the label's.
    """
    best, best_f1 = PostProcessing(merge_gap_us), -1.0
    for candidate in candidates(merge_gap_us):
        f1 = counts(candidate.at(threshold)).f1
        if f1 is not None and f1 > best_f1:
            best, best_f1 = candidate, f1
    return best
