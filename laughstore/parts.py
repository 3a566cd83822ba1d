"""Deal the recordings of a plan over parts, for processes that cannot see each other's locks.

A pure function of the plan: every process that is given the same I/N has the same recordings.
"""

import heapq
import re
from dataclasses import dataclass
from typing import Self

from .buildplan import BuildPlan, PlannedRecording
from .errors import ConfigError

_MAX_PARTS = 1_000_000
_TEXT = re.compile(r"([0-9]{1,7})/([0-9]{1,7})")


@dataclass(frozen=True)
class Part:
    """One of the parts of a plan.

    Raises:
        ConfigError: there is no such part.
    """

    number: int
    """From 1."""
    num_parts: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.num_parts <= _MAX_PARTS:
            raise ConfigError(
                f"part is {self}; parts are counted from 1: --part 1/4 to --part 4/4 for four parts"
            )

    def __str__(self) -> str:
        return f"{self.number}/{self.num_parts}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the part that `I/N` means. Raises ConfigError when there is none."""
        match = _TEXT.fullmatch(text)
        if match is None:
            raise ConfigError(f"part is {text!r}; use I/N: --part 1/4 to --part 4/4 for four parts")
        return cls(int(match[1]), int(match[2]))

    def choose(self, plan: BuildPlan) -> tuple[PlannedRecording, ...]:
        """Return the recordings of a plan that belong to this part, the longest first."""
        return deal(plan, self.num_parts)[self.number - 1]


def longest_first(recording: PlannedRecording) -> tuple[int, str]:
    """Return what recordings are sorted by, so that the last ones to finish finish together."""
    return -recording.num_frames, recording.id


def deal(plan: BuildPlan, num_parts: int) -> list[tuple[PlannedRecording, ...]]:
    """Return the recordings of every part: longest first, each to the part with fewest frames."""
    parts: list[list[PlannedRecording]] = [[] for _ in range(num_parts)]
    loads = [(0, part) for part in range(num_parts)]
    for item in sorted(plan.recordings, key=longest_first):
        num_frames, part = heapq.heappop(loads)
        parts[part].append(item)
        heapq.heappush(loads, (num_frames + item.num_frames, part))
    return [tuple(part) for part in parts]
