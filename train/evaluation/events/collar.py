"""Collar-based event F1: a segment is right if it begins and ends near where a bout does.

As `sed_eval` (Mesaros et al. 2016) counts with its optimal matching: within each stream as many
pairs of a segment and a bout as there can be, each in one pair at most.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from laughstore.bouts import Times
from laughstore.errors import ConfigError

from .segments import Segments


@dataclass(frozen=True)
class Collar:
    """How near is near."""

    onset_us: int = 200_000
    """Onsets lie no further apart."""
    offset_us: int = 200_000
    """Nor do offsets,"""
    offset_share: float = 0.2
    """or no further than this share of the bout's duration, if that is more."""

    def __post_init__(self) -> None:
        for name in ("onset_us", "offset_us", "offset_share"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be 0 or more")


@dataclass(frozen=True)
class EventCounts:
    """Segments and bouts of one stream, or of many."""

    hits: int = 0
    """Pairs of a segment and a bout."""
    false_alarms: int = 0
    """Segments without a bout."""
    misses: int = 0
    """Bouts without a segment."""

    def __add__(self, other: "EventCounts") -> "EventCounts":
        return EventCounts(
            self.hits + other.hits,
            self.false_alarms + other.false_alarms,
            self.misses + other.misses,
        )

    @property
    def precision(self) -> float | None:
        """Share of segments that are right; None without segments."""
        num_segments = self.hits + self.false_alarms
        return self.hits / num_segments if num_segments else None

    @property
    def recall(self) -> float | None:
        """Share of bouts that are found; None without bouts."""
        num_bouts = self.hits + self.misses
        return self.hits / num_bouts if num_bouts else None

    @property
    def f1(self) -> float | None:
        """Their harmonic mean; None without bouts."""
        if not self.hits + self.misses:
            return None
        return 2 * self.hits / (2 * self.hits + self.false_alarms + self.misses)

    def to_json(self) -> dict[str, Any]:  # Any: JSON values
        """Return a JSON object of finite numbers and nulls."""
        return {
            "hits": self.hits,
            "false_alarms": self.false_alarms,
            "misses": self.misses,
            "precision": self.precision,
            "recall": self.recall,
            "f1": self.f1,
        }

    @classmethod
    def of(cls, segments: Segments, reference: Times, collar: Collar) -> Self:
        """Return the counts of one stream.

        Args:
            segments: that can be right or wrong (`segments.judged`).
            reference: bouts.
            collar: how near is near.
        """
        return cls.of_bouts(len(segments), bouts_found(segments, reference, collar))

    @classmethod
    def of_bouts(cls, num_segments: int, found: NDArray[np.bool_]) -> Self:
        """Return the counts of one stream whose bouts are found or not (bool[K], `bouts_found`)."""
        hits = int(np.count_nonzero(found))
        return cls(hits, num_segments - hits, len(found) - hits)


def bouts_found(segments: Segments, reference: Times, collar: Collar) -> NDArray[np.bool_]:
    """Return bool[K]: the bout is in a pair, when there are as many pairs as there can be.

    Where a bout could be left for another one, which of them is left is not defined.
    """
    found = np.zeros(len(reference.start_us), np.bool_)
    segment, bout = _near(segments, reference, collar)
    if len(np.unique(segment)) == len(segment) == len(np.unique(bout)):
        found[bout] = True  # nothing to choose, as nearly always
        return found
    shape = len(segments), len(reference.start_us)
    graph = csr_array((np.ones(len(segment), np.bool_), (segment, bout)), shape)
    pair = maximum_bipartite_matching(graph, perm_type="column")
    found[pair[pair >= 0]] = True
    return found


def _near(
    segments: Segments, reference: Times, collar: Collar
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return i64[p] segments and i64[p] bouts of all pairs that are near enough."""
    order = np.argsort(reference.start_us, kind="stable")
    starts, ends = reference.start_us[order], reference.end_us[order]
    low = np.searchsorted(starts, segments.start_us - collar.onset_us, "left")
    high = np.searchsorted(starts, segments.start_us + collar.onset_us, "right")
    counts = high - low
    segment = np.repeat(np.arange(len(segments)), counts)
    place = np.arange(len(segment)) - np.repeat(np.cumsum(counts) - counts - low, counts)
    allowed = np.maximum(collar.offset_us, collar.offset_share * (ends - starts)[place])
    is_near = np.abs(segments.end_us[segment] - ends[place]) <= allowed
    return segment[is_near], order[place[is_near]]
