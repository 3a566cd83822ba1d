"""How many rows a label makes positive and ignores."""

from dataclasses import dataclass

import numpy as np

from .kinds import Targets


@dataclass(frozen=True)
class LabelCounts:
    """How many rows of a stream, or of many, are positive and ignored; the rest is negative."""

    rows: int = 0
    positives: int = 0
    ignored: int = 0

    @property
    def negatives(self) -> int:
        """Rows that are neither positive nor ignored."""
        return self.rows - self.positives - self.ignored

    @property
    def base_rate(self) -> float | None:
        """P / (P + N); None when every row is ignored."""
        eligible = self.rows - self.ignored
        return self.positives / eligible if eligible else None

    def __add__(self, other: "LabelCounts") -> "LabelCounts":
        return LabelCounts(
            self.rows + other.rows, self.positives + other.positives, self.ignored + other.ignored
        )


def count(targets: Targets) -> LabelCounts:
    """Return how many rows are positive and ignored."""
    return LabelCounts(
        rows=len(targets.y),
        positives=int(np.count_nonzero(targets.y)),
        ignored=int(np.count_nonzero(targets.ignored)),
    )
