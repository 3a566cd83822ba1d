"""How much better one run is than another, over the same draws of groups or recordings.

Recordings are hard or easy for all runs alike, so a difference is far surer than two intervals side
by side tell. It is taken draw by draw: of each draw, the metric of one run less that of the other.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..evaluation.bootstrap import Draws, Interval


@dataclass(frozen=True)
class Drawn:
    """A number of a run (or of several: their mean), and what it comes to in each draw."""

    value: float | None
    """Of all rows; None: there is none."""
    reason: str | None
    """Why there is none."""
    values: NDArray[np.float64] | None
    """f8[D], of each draw, NaN where there is none; None: nothing was drawn."""


@dataclass(frozen=True)
class Difference:
    """Of a metric: that of a run less that of the baseline. None where it cannot be said."""

    value: float | None
    interval: Interval | None
    """Where it lies in 95 % of the draws; None: nothing was drawn, or nothing can be compared."""
    p: float | None
    """Chance of a difference as far from 0 if there is none, to either side: twice the share of
    draws on the rarer side of 0, counting 0 and one draw more."""
    reason: str | None
    """Why there is no difference."""

    @classmethod
    def of(cls, ours: Drawn, theirs: Drawn, drawn: Draws | None) -> Self:
        """Return the difference of numbers of the same rows.

        Args:
            ours: of the run.
            theirs: of the baseline, drawn in the same way.
            drawn: the draws; None: nothing was drawn.
        """
        if ours.value is None or theirs.value is None:
            who = "this run" if ours.value is None else "the baseline"
            why = ours.reason if ours.value is None else theirs.reason
            return cls.undefined(f"undefined of {who}: {why}")
        value = ours.value - theirs.value
        if drawn is None:
            return cls(value, None, None, None)
        if ours.values is None or theirs.values is None:
            return cls(value, drawn.without("no draws are made of this metric"), None, None)
        values = ours.values - theirs.values
        interval = drawn.interval(values)
        return cls(value, interval, None if interval.low is None else two_sided_p(values), None)

    @classmethod
    def undefined(cls, reason: str) -> Self:
        """Return what says that nothing can be compared, and why."""
        return cls(None, None, None, reason)

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of 0."""
        low, high = (self.interval.low, self.interval.high) if self.interval else (None, None)
        return low is not None and high is not None and (low > 0 or high < 0)

    def to_json(self) -> dict[str, Any]:  # Any: JSON values
        """Return a JSON object of finite numbers and nulls."""
        return {
            "difference": self.value,
            "interval": None if self.interval is None else self.interval.to_json(),
            "p": self.p,
            "reason": self.reason,
        }


def two_sided_p(values: NDArray[np.float64]) -> float:
    """Return the chance, by draws, of a difference as far from 0 if there is none.

    Args:
        values: f8[D] of the difference in each draw; NaN where there is none.
    """
    known = values[~np.isnan(values)]
    rarer = min(np.count_nonzero(known <= 0), np.count_nonzero(known >= 0))
    return min(1.0, 2 * (1 + int(rarer)) / (1 + len(known)))


def mean_of(several: Mapping[str, Drawn]) -> Drawn:
    """Return the mean of the same number of several runs, by their names."""
    values, each = [], []
    for name, item in several.items():
        if item.value is None:
            return Drawn(None, f"undefined of {name}: {item.reason}", None)
        values.append(item.value)
        each.append(item.values)
    known = [item for item in each if item is not None]
    mean = np.mean(known, axis=0) if len(known) == len(each) else None
    return Drawn(float(np.mean(values)), None, mean)
