"""Measure contestants side by side: interleaved rounds, so that all see the same noise.

A round runs every contestant once; each begins one contestant further on. Neighbours stay
neighbours, and where there are many, a limit may run minutes from those it bounds. What a
contestant did is checked after its clock has stopped.
"""

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

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

    def __post_init__(self) -> None:
        if (self.check is None) != bool(self.unchecked):
            raise ValueError(f"{self.name}: give a check, or say why there is none")


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
    """Median over rounds of its speed as a part of its limit's in the same round."""
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


@dataclass
class _Runs:
    amounts: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)


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
    runs = {contestant: _Runs() for contestant in contestants}
    for number in range(-1 if repeats >= MIN_REPEATS else 0, repeats):
        say("warm-up" if number < 0 else f"round {number + 1} of {repeats}")
        first = number % len(contestants)
        for contestant in (*contestants[first:], *contestants[:first]):
            amount, seconds, cpu_seconds = _run(contestant)
            if number >= 0:
                runs[contestant].amounts.append(amount)
                runs[contestant].seconds.append(seconds)
                runs[contestant].cpu_seconds.append(cpu_seconds)
    return [
        _result(contestant, unit, runs) for contestant in contestants for unit in contestant.units
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


def _run(contestant: Contestant) -> tuple[float, float, float]:
    contestant.before()
    gc.collect()
    cpu_began, began = time.process_time(), time.perf_counter()
    amount = contestant.run()
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
    if contestant.check is not None:
        contestant.check()
    return amount, seconds, cpu_seconds


def _result(contestant: Contestant, unit: Unit, runs: dict[Contestant, _Runs]) -> Result:
    mine = runs[contestant]
    values = [unit.value(*run) for run in zip(mine.amounts, mine.seconds, strict=True)]
    of_limit = None
    if contestant.limit is not None:
        theirs = runs[contestant.limit]
        of_limit = statistics.median(
            (amount / seconds) / (limit_amount / limit_seconds)
            for amount, seconds, limit_amount, limit_seconds in zip(
                mine.amounts, mine.seconds, theirs.amounts, theirs.seconds, strict=True
            )
        )
    cores = statistics.median(
        cpu / seconds for cpu, seconds in zip(mine.cpu_seconds, mine.seconds, strict=True)
    )
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
