"""What a run reports while it works."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from .metrics import FrameMetrics


@dataclass(frozen=True)
class Progress:
    """Where a run stands."""

    phase: Literal["statistics", "preload", "train", "validate"]
    done: int
    """Of `total` in this phase: streams, rows, steps of the epoch, or rows."""
    total: int
    epoch: int
    """From 0."""
    loss: float | None = None
    """Mean of the last steps (train)."""
    validation: FrameMetrics | None = None
    """Of the latest finished epoch."""


ProgressCallback = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """Report nothing."""
