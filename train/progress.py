"""What a run reports while it works."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from .metrics import FrameMetrics

Phase = Literal["statistics", "train", "validate"]


@dataclass(frozen=True)
class Progress:
    """Where a run stands."""

    phase: Phase
    done: int
    """Of `total` in this phase: streams, steps of the epoch, or rows."""
    total: int
    epoch: int
    """From 0."""
    loss: float | None = None
    """Mean of the last steps (train)."""
    validation: FrameMetrics | None = None
    """Of the latest finished epoch."""
    probes: str | None = None
    """The same of many probes, in words."""


ProgressCallback = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """Report nothing."""
