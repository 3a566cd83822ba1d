"""How sure a number is: whole shows, or recordings, are drawn again with replacement.

Rows of a recording are anything but independent, so that drawing rows would promise far too narrow
an interval (cluster bootstrap: Davison and Hinkley 1997, 3.8). Percentile intervals; numpy only.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from laughstore.errors import ConfigError

Unit = Literal["group", "recording"]
"""What is drawn."""

DRAWS: Final = 2000
FEW_UNITS: Final = 10
"""Fewer groups than that: recordings are drawn; fewer of what is drawn: the interval is rough."""
_CENTRAL: Final = (2.5, 97.5)
_MAX_UNDEFINED: Final = 0.05
"""Share of draws without a value from which on there is no interval."""


@dataclass(frozen=True)
class Units:
    """What is drawn: U groups or recordings."""

    kind: Unit
    names: tuple[str, ...]
    """U, sorted."""

    @classmethod
    def of(cls, recordings: Sequence[str], groups: Sequence[str]) -> "Units":
        """Choose: groups if there are ten, else recordings.

        Args:
            recordings: ids.
            groups: of each of them.
        """
        by_group = sorted(set(groups))
        if len(by_group) >= FEW_UNITS:
            return cls("group", tuple(by_group))
        return cls("recording", tuple(sorted(set(recordings))))


@dataclass(frozen=True)
class Interval:
    """Where a number lies in 95 % of the draws; None where it cannot be said."""

    low: float | None
    high: float | None
    unit: Unit
    num_units: int
    draws: int
    seed: int
    reason: str | None = None
    """Why there is none."""

    @property
    def is_rough(self) -> bool:
        """So few units that the interval itself is uncertain, and rather too narrow."""
        return self.num_units < FEW_UNITS

    def to_json(self) -> dict[str, Any]:  # Any: JSON values
        """Return a JSON object of finite numbers and nulls."""
        return {
            "low": self.low,
            "high": self.high,
            "unit": self.unit,
            "units": self.num_units,
            "draws": self.draws,
            "seed": self.seed,
            "rough": self.is_rough,
            "reason": self.reason,
        }


class Draws:
    """Units drawn again and again, with replacement.

    The draws depend on seed, draws and the number of units alone, so numbers that are taken of the
    same draws can be compared draw by draw (paired comparison), here or in another process.

    Args:
        units: that are drawn, as many as there are.
        draws: D, 1 or more.
        seed: of the draws.

    Raises:
        ConfigError: draws is below 1.
    """

    def __init__(self, units: Units, *, draws: int = DRAWS, seed: int = 0) -> None:
        if draws < 1:
            raise ConfigError(f"draws is {draws}; it must be at least 1")
        self.units, self.draws, self.seed = units, draws, seed

    def times(self) -> NDArray[np.float64]:
        """Return f8[D, U]: how often each unit is drawn. Of one unit nothing is drawn: f8[1, 1].

        Made anew by each call, and the same: whoever keeps draws to make intervals with keeps no
        matrix of them.
        """
        num_units = len(self.units.names)
        if num_units < 2:
            return np.ones((1, num_units))
        rng = np.random.Generator(np.random.Philox(self.seed))
        times = np.empty((self.draws, num_units))
        for draw in times:
            draw[:] = np.bincount(rng.integers(num_units, size=num_units), minlength=num_units)
        return times

    def interval(self, values: NDArray[np.float64]) -> Interval:
        """Return the 95 % interval of a statistic.

        Args:
            values: its value of each of `times`; NaN where these units have none.
        """
        reason = self.why_none(values)
        if reason is not None:
            return self.without(reason)
        low, high = np.percentile(values[~np.isnan(values)], _CENTRAL)
        return self._interval(float(low), float(high), None)

    def why_none(self, values: NDArray[np.float64]) -> str | None:
        """Return why a statistic has no interval, or None: it has one."""
        if len(self.units.names) < 2:
            return f"there is only one {self.units.kind}: nothing to draw from"
        undefined = np.isnan(values).mean()
        if undefined > _MAX_UNDEFINED:
            return f"{undefined:.0%} of the draws have no value: too few units hold events"
        return None

    def without(self, reason: str) -> Interval:
        """Return what says that there is no interval, and why."""
        return self._interval(None, None, reason)

    def _interval(self, low: float | None, high: float | None, reason: str | None) -> Interval:
        units = self.units
        return Interval(low, high, units.kind, len(units.names), self.draws, self.seed, reason)


def intervals_of(
    statistics: Callable[[NDArray[np.float64]], Mapping[str, NDArray[np.float64]]],
    units: Units,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Interval]:
    """Return the 95 % intervals of statistics, all taken of the same draws.

    Args:
        statistics: f8[D] of how often each of U units was drawn in each of D draws (f8[D, U]), by
            name; NaN where these units have none. The names are always the same.
        units: as `Draws`.
        draws: as `Draws`.
        seed: as `Draws`.

    Raises:
        ConfigError: draws is below 1.
    """
    drawn = Draws(units, draws=draws, seed=seed)
    return {name: drawn.interval(each) for name, each in statistics(drawn.times()).items()}


def interval_of(
    statistic: Callable[[NDArray[np.float64]], float],
    units: Units,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Interval:
    """Return the interval of a statistic of one draw (f8[U]); else as `intervals_of`."""

    def all_draws(times: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        return {"": np.array([statistic(draw) for draw in times])}

    return intervals_of(all_draws, units, draws=draws, seed=seed)[""]
