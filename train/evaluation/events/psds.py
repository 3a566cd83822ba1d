"""Polyphonic sound detection score of one class: how well segments cover bouts, at all thresholds.

Bilen et al., ICASSP 2020 (arXiv 1910.08440), with one class: no cross-triggers, no spread over
classes. A segment counts if bouts cover enough of it (detection tolerance), else it is a false
alarm; a bout is found if the segments that count cover enough of it (ground truth tolerance). The
score is the area under the share of bouts that are found over false alarms per hour, up to a most
of those, divided by that most.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from laughstore.bouts import Times
from laughstore.errors import ConfigError

from .segments import Segments

FindSegments = Callable[[float], Segments]
"""Segments of a stream that can be right or wrong, at a threshold."""


@dataclass(frozen=True)
class Tolerance:
    """What counts as covered."""

    detection: float = 0.5
    """Share of a segment that bouts must cover."""
    ground_truth: float = 0.5
    """Share of a bout that segments must cover."""
    max_false_alarms_per_hour: float = 100.0

    def __post_init__(self) -> None:
        for name in ("detection", "ground_truth"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be above 0, at most 1")
        if not self.max_false_alarms_per_hour > 0:
            raise ConfigError("max_false_alarms_per_hour must be above 0")


@dataclass(frozen=True, eq=False)
class DetectionCurve:
    """Bouts that are found against false alarms, one point a threshold."""

    recall: NDArray[np.float64]
    """f8[thresholds]: share of all bouts."""
    false_alarms_per_hour: NDArray[np.float64]
    """f8[thresholds]."""

    def score(self, max_false_alarms_per_hour: float) -> float:
        """Return the area up to so many false alarms, from 0 to 1.

        At each rate of false alarms the best recall counts that comes with no more of them; none
        does where no threshold has so few.
        """
        order = np.argsort(self.false_alarms_per_hour, kind="stable")
        rate = self.false_alarms_per_hour[order]
        best = np.maximum.accumulate(self.recall[order])
        inside = rate <= max_false_alarms_per_hour
        edges = np.append(rate[inside], max_false_alarms_per_hour)
        return float((np.diff(edges) * best[inside]).sum() / max_false_alarms_per_hour)


def detection_curves(
    streams: Sequence[tuple[FindSegments, Times]],
    thresholds: NDArray[np.float32],
    *,
    hours: float,
    tolerances: Sequence[Tolerance],
) -> list[DetectionCurve]:
    """Return the curve of many streams together, for each tolerance.

    Args:
        streams: of each, how its segments are found, and its bouts (disjoint, in order).
        thresholds: f4[K].
        hours: of all streams.
        tolerances: what counts as covered.

    Raises:
        ConfigError: there are no bouts, or no hours.
    """
    num_bouts = sum(len(reference.start_us) for _, reference in streams)
    if not num_bouts or not hours > 0:
        raise ConfigError("there are no bouts to find: choose another split or event")
    found, false = np.zeros((2, len(tolerances), len(thresholds)))
    for find, reference in streams:
        for number, threshold in enumerate(thresholds.tolist()):
            segments = find(threshold)
            for each, tolerance in enumerate(tolerances):
                hits, alarms = covered(segments, reference, tolerance)
                found[each, number] += hits
                false[each, number] += alarms
    pairs = zip(found / num_bouts, false / hours, strict=True)
    return [DetectionCurve(*pair) for pair in pairs]


def covered(segments: Segments, reference: Times, tolerance: Tolerance) -> tuple[int, int]:
    """Return how many bouts are found, and how many segments are false alarms.

    Args:
        segments: of a stream, disjoint and in order.
        reference: its bouts, disjoint and in order.
        tolerance: what counts as covered.
    """
    ours = Times(segments.start_us, segments.end_us)
    counts = _shared_us(ours, reference) >= tolerance.detection * (ours.end_us - ours.start_us)
    kept = Times(ours.start_us[counts], ours.end_us[counts])
    least = tolerance.ground_truth * (reference.end_us - reference.start_us)
    found = _shared_us(reference, kept) >= least
    return int(np.count_nonzero(found)), int(np.count_nonzero(~counts))


def _shared_us(times: Times, others: Times) -> NDArray[np.int64]:
    """Return i64[N]: microseconds of each stretch that others, disjoint and in order, share."""

    def before(moment_us: NDArray[np.int64]) -> NDArray[np.int64]:
        """Microseconds of the others before a moment."""
        lengths = others.end_us - others.start_us
        total = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        number = np.searchsorted(others.start_us, moment_us, "right") - 1
        begun = np.maximum(number, 0)
        inside = np.minimum(moment_us - others.start_us[begun], lengths[begun])
        return np.where(number < 0, 0, total[begun] + inside)

    if not len(others.start_us):
        return np.zeros(len(times.start_us), np.int64)
    return before(times.end_us) - before(times.start_us)
