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


def intervals_of(
    statistics: Callable[[NDArray[np.float64]], Mapping[str, float]],
    units: Units,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Interval]:
    """Return the 95 % intervals of statistics, all taken of the same draws.

    The draws depend on seed, draws and the number of units alone, so the difference of two
    statistics is a statistic like any other (paired comparison), here or in another call.

    Args:
        statistics: of how often each of U units was drawn (f8[U]), by name; NaN where these units
            have none. The names are always the same.
        units: that are drawn, as many as there are.
        draws: 1 or more.
        seed: of the draws.

    Raises:
        ConfigError: draws is below 1.
    """
    if draws < 1:
        raise ConfigError(f"draws is {draws}; it must be at least 1")
    num_units = len(units.names)
    names = tuple(statistics(np.ones(num_units)))

    def found(low: float | None, high: float | None, reason: str | None = None) -> Interval:
        return Interval(low, high, units.kind, num_units, draws, seed, reason)

    if num_units < 2:
        alone = found(None, None, f"there is only one {units.kind}: nothing to draw from")
        return dict.fromkeys(names, alone)
    rng = np.random.Generator(np.random.Philox(seed))
    values = np.empty((draws, len(names)))
    for draw in range(draws):
        chosen = rng.integers(num_units, size=num_units)
        times = np.bincount(chosen, minlength=num_units).astype(np.float64)
        drawn = statistics(times)
        values[draw] = [drawn[name] for name in names]
    intervals = {}
    for name, each in zip(names, values.T, strict=True):
        undefined = np.isnan(each)
        if undefined.mean() > _MAX_UNDEFINED:
            share = f"{undefined.mean():.0%}"
            reason = f"{share} of the draws have no value: too few units hold events"
            intervals[name] = found(None, None, reason)
        else:
            low, high = np.percentile(each[~undefined], _CENTRAL)
            intervals[name] = found(float(low), float(high))
    return intervals


def interval_of(
    statistic: Callable[[NDArray[np.float64]], float],
    units: Units,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Interval:
    """Return the interval of one statistic; as `intervals_of`."""
    return intervals_of(lambda times: {"": statistic(times)}, units, draws=draws, seed=seed)[""]
