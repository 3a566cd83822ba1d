"""Measure contestants side by side: interleaved rounds, so that all see the same noise.

A round runs every contestant once; each begins one contestant further on. Where there are many, a
limit would run minutes from those it bounds, and a machine that others use may be twice as fast by
then: so a short one is run anew before each of them. What a contestant did is checked after its
clock has stopped.
"""

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

MIN_REPEATS = 5
"""Rounds of numbers that anybody is shown; a quick run, whose numbers nobody is, has fewer."""


@dataclass(frozen=True)
class Unit:
    """How the clock becomes a value."""

    name: str
    scale: float
    is_rate: bool = True
    """True: amount * scale / seconds, more is better. False: seconds * scale, less is better."""

    def value(self, amount: float, seconds: float) -> float:
        """Return the value of one run."""
        return amount * self.scale / seconds if self.is_rate else seconds * self.scale


def _nothing() -> None:
    """Do what most contestants need before they are timed."""


@dataclass(frozen=True, eq=False)
class Contestant:
    """One thing that is timed."""

    name: str
    run: Callable[[], float]
    """The timed part. Returns how much it did, in what the units count (frames, bytes)."""
    units: Sequence[Unit]
    group: str = ""
    """Contestants of one name under other settings differ in this: a column of the table."""
    limit: "Contestant | None" = None
    """What no contestant of this kind can beat by much; among those measured with it."""
    before: Callable[[], None] = _nothing
    """Not timed: make ready for one run."""
    check: Callable[[], None] | None = None
    """Not timed: raises when the run did not do what it should have done."""
    unchecked: str = ""
    """Why there is no check."""
    anew: bool = False
    """Of a limit that takes little time: it is run before each contestant that it bounds, too.

    They are held against that run, and all of a round are one value of its own.
    """

    def __post_init__(self) -> None:
        if (self.check is None) != bool(self.unchecked):
            raise ValueError(f"{self.name}: give a check, or say why there is none")
        assert not self.anew or all(unit.is_rate for unit in self.units), "runs are added up"


@dataclass(frozen=True)
class Result:
    """One contestant in one unit."""

    name: str
    group: str
    unit: str
    median: float
    low: float
    high: float
    of_limit: float | None
    """Median over rounds of its speed as a part of its limit's, just before or in that round."""
    limit: str | None
    cores: float | None
    """Median of CPU seconds per second, over all threads of the process."""
    values: tuple[float, ...] = ()
    """Of each round, in their order."""
    unchecked: str = ""
    """Why what it did was not checked."""

    def to_json(self) -> dict[str, Any]:  # Any: a JSON object
        """Return the result, numbers rounded to four digits."""
        return {key: _rounded(value) for key, value in asdict(self).items()}


class _Run(NamedTuple):
    amount: float
    seconds: float
    cpu_seconds: float


def measure(
    contestants: Sequence[Contestant],
    *,
    repeats: int = MIN_REPEATS,
    say: Callable[[str], None] = lambda _: None,
) -> list[Result]:
    """Run all contestants for one round of warm-up and `repeats` rounds that count.

    Args:
        contestants: each one's limit is among them.
        repeats: 1 or more; fewer than MIN_REPEATS, whose numbers nobody is shown, have no warm-up.
        say: called with one line a round.
    """
    assert repeats >= 1, "without a round there is nothing to tell"
    runs: dict[Contestant, list[_Run]] = {contestant: [] for contestant in contestants}
    limits: dict[Contestant, list[_Run]] = {contestant: [] for contestant in contestants}
    for number in range(-1 if repeats >= MIN_REPEATS else 0, repeats):
        say("warm-up" if number < 0 else f"round {number + 1} of {repeats}")
        first = number % len(contestants)
        of_round: dict[Contestant, list[_Run]] = {contestant: [] for contestant in contestants}
        beside: dict[Contestant, _Run] = {}
        for contestant in (*contestants[first:], *contestants[:first]):
            limit = contestant.limit
            if limit is not None and limit.anew:
                beside[contestant] = _run(limit)
                of_round[limit].append(beside[contestant])
            of_round[contestant].append(_run(contestant))
        if number < 0:
            continue
        for contestant in contestants:
            runs[contestant].append(_together(of_round[contestant]))
        for contestant in contestants:
            if contestant.limit is not None:
                here = beside.get(contestant) or runs[contestant.limit][-1]
                limits[contestant].append(here)
    return [
        _result(contestant, unit, runs[contestant], limits[contestant])
        for contestant in contestants
        for unit in contestant.units
    ]


def summary(
    name: str, unit: str, values: Sequence[float], limit: Result | None = None, group: str = ""
) -> Result:
    """Return the result of values that were not measured in rounds, such as bytes.

    Args:
        name: of the result.
        unit: of the values.
        values: one or more.
        limit: in the same unit; the median is told as a part of its median.
        group: as of a contestant.
    """
    median = statistics.median(values)
    return Result(
        name=name,
        group=group,
        unit=unit,
        median=median,
        low=min(values),
        high=max(values),
        of_limit=None if limit is None else median / limit.median,
        limit=None if limit is None else limit.name,
        cores=None,
        values=tuple(values),
    )


def _run(contestant: Contestant) -> _Run:
    contestant.before()
    gc.collect()
    cpu_began, began = time.process_time(), time.perf_counter()
    amount = contestant.run()
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
    if contestant.check is not None:
        contestant.check()
    return _Run(amount, seconds, cpu_seconds)


def _together(runs: Sequence[_Run]) -> _Run:
    return _Run(*(sum(values) for values in zip(*runs, strict=True)))


def _result(
    contestant: Contestant, unit: Unit, runs: Sequence[_Run], limits: Sequence[_Run]
) -> Result:
    values = [unit.value(run.amount, run.seconds) for run in runs]
    of_limit = None
    if contestant.limit is not None:
        of_limit = statistics.median(
            (mine.amount / mine.seconds) / (limit.amount / limit.seconds)
            for mine, limit in zip(runs, limits, strict=True)
        )
    cores = statistics.median(run.cpu_seconds / run.seconds for run in runs)
    return Result(
        name=contestant.name,
        group=contestant.group,
        unit=unit.name,
        median=statistics.median(values),
        low=min(values),
        high=max(values),
        of_limit=of_limit,
        limit=None if contestant.limit is None else contestant.limit.name,
        cores=cores,
        values=tuple(values),
        unchecked=contestant.unchecked,
    )


def _rounded(value: object) -> object:
    if isinstance(value, tuple):
        return [_rounded(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value
