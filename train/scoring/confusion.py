"""How many rows of each class are alarms, and how many are not."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Confusion:
    """Counts of rows at one threshold."""

    tp: int
    """Positive rows that are alarms."""
    fp: int
    """Negative rows that are."""
    fn: int
    """Positive rows that are none."""
    tn: int
    """Negative rows that are none."""

    @classmethod
    def of(cls, positive: NDArray[np.bool_], score: NDArray[np.float32], threshold: float) -> Self:
        """Return the counts of N rows.

        Args:
            positive: bool[N].
            score: f4[N].
            threshold: the score from which on a row is an alarm.
        """
        alarm = score >= np.float32(threshold)
        tp, alarms = (int(np.count_nonzero(rows)) for rows in (alarm & positive, alarm))
        positives = int(np.count_nonzero(positive))
        return cls(tp, alarms - tp, positives - tp, len(score) - positives - alarms + tp)

    @property
    def precision(self) -> float | None:
        """Share of alarms in positive rows; None without alarms."""
        return self.tp / (self.tp + self.fp) if self.tp + self.fp else None

    @property
    def recall(self) -> float | None:
        """Share of positive rows that are alarms; None without positive rows."""
        return self.tp / (self.tp + self.fn) if self.tp + self.fn else None

    def to_json(self) -> dict[str, Any]:  # Any: JSON values
        """Return a JSON object."""
        return {"tp": self.tp, "fp": self.fp, "fn": self.fn, "tn": self.tn}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:  # Any: JSON values
        """Return the counts that `to_json` wrote. Raises KeyError when it did not."""
        return cls(*(int(data[name]) for name in ("tp", "fp", "fn", "tn")))
