"""Measure contestants side by side: interleaved rounds, so that all see the same noise.

A round runs every contestant once, a limit beside those it bounds; each round begins with another
one. What a contestant did is checked after its clock has stopped.
"""

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

MIN_REPEATS = 5
_WARM_UPS = 1


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
    """Do what most contestants need before and after they are timed."""


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
    check: Callable[[], None] = _nothing
    """Not timed: raises when the run did not do what it should have done."""


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
        repeats: MIN_REPEATS or more.
        say: called with one line a round.
    """
    assert repeats >= MIN_REPEATS, f"a median of fewer than {MIN_REPEATS} runs tells little"
    runs = {contestant: _Runs() for contestant in contestants}
    for number in range(-_WARM_UPS, repeats):
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


def summary(name: str, unit: str, values: Sequence[float]) -> Result:
    """Return the result of values that no clock gave, such as bytes."""
    return Result(
        name, "", unit, statistics.median(values), min(values), max(values), None, None, None
    )


def _run(contestant: Contestant) -> tuple[float, float, float]:
    contestant.before()
    gc.collect()
    cpu_began, began = time.process_time(), time.perf_counter()
    amount = contestant.run()
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
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
    )


def _rounded(value: object) -> object:
    return float(f"{value:.4g}") if isinstance(value, float) else value
