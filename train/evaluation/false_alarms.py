"""False alarms of events by threshold: which threshold keeps them rare, and the curve to recall."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

TRIED = 200
"""Thresholds that are tried before those between two of them are."""


class Operated(Protocol):
    """What events of one threshold come to."""

    @property
    def recall(self) -> float | None:
        """Share of those that were to be found; None if none were."""
        ...

    @property
    def false_alarms_per_hour(self) -> float | None:
        """None without rows that count."""
        ...


class FalseAlarms:
    """Finds the lowest thresholds that keep false alarms rare.

    The lowest means: that from which on up all have as few. Lower ones that have few again are not
    meant: a low threshold finds one segment all through, or is silent behind each alarm.

    Of many scores, those that occur are tried in some places, closer together the higher they are,
    and then between the last with few enough and the first with too many by halves.

    Args:
        score: f4[N], finite: thresholds are some of these.
        rate: false alarms an hour at a threshold; None without hours.
        tried: most that are tried before halving.
    """

    def __init__(
        self,
        score: NDArray[np.float32],
        rate: Callable[[float], float | None],
        *,
        tried: int = TRIED,
    ) -> None:
        self._distinct = np.unique(score)
        self._falling = spread_thresholds(score, tried)[::-1] if len(score) else self._distinct
        self._rate = rate
        self._known: dict[float, float | None] = {}

    def lowest(self, most: float) -> tuple[float, float] | str:
        """Return (threshold, its false alarms an hour), or why there is none.

        Args:
            most: false alarms an hour.
        """
        found, above = None, None
        for threshold in self._falling.tolist():
            rate = self._at(threshold)
            if rate is None:
                return "validation has no rows that count"
            if rate > most:
                above = threshold
                break
            found = threshold
        if found is None:
            if above is None:
                return "validation has no scores"
            return (
                f"no threshold has as few as {most:g} false alarms an hour on validation; the"
                f" highest score alone has {self._at(above):.1f}"
            )
        if above is not None:
            found = self._between(found, above, most)
        rate = self._at(found)
        assert rate is not None, "tried"
        return found, rate

    def _between(self, good: float, bad: float, most: float) -> float:
        low, high = np.searchsorted(self._distinct, np.array([bad, good], np.float32)).tolist()
        while high - low > 1:
            middle = (low + high) // 2
            rate = self._at(float(self._distinct[middle]))
            low, high = (low, middle) if rate is not None and rate <= most else (middle, high)
        return float(self._distinct[high])

    def _at(self, threshold: float) -> float | None:
        if threshold not in self._known:
            self._known[threshold] = self._rate(threshold)
        return self._known[threshold]


@dataclass(frozen=True, eq=False)
class OperatingCurve:
    """False alarms against recall of a split, at thresholds that were chosen on validation."""

    threshold: NDArray[np.float64]
    """f8[K], falling."""
    false_alarms_per_hour: NDArray[np.float64]
    """f8[K]."""
    recall: NDArray[np.float64]
    """f8[K]."""

    @classmethod
    def of(
        cls, thresholds: Sequence[float], at: Callable[[float], Operated]
    ) -> "OperatingCurve | None":
        """Return the curve; None where there is nothing to be found, or no hour of rows.

        Args:
            thresholds: falling.
            at: what events of a threshold come to.
        """
        points: list[tuple[float, float, float]] = []
        for threshold in thresholds:
            found = at(threshold)
            rate, recall = found.false_alarms_per_hour, found.recall
            if rate is None or recall is None:
                return None
            points.append((threshold, rate, recall))
        if not points:
            return None
        return cls(*np.array(points, np.float64).T)

    def to_json(self) -> dict[str, Any]:  # Any: JSON values
        """Return a JSON object of lists of K finite numbers."""
        return {
            "threshold": self.threshold.tolist(),
            "false_alarms_per_hour": self.false_alarms_per_hour.tolist(),
            "recall": self.recall.tolist(),
        }


def spread_thresholds(score: NDArray[np.float32], most: int) -> NDArray[np.float32]:
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
