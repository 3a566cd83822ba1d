"""What a run reports while it works."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ..scoring.metrics import FrameMetrics

if TYPE_CHECKING:
    from ..runs.log import Interval

Phase = Literal["statistics", "preload", "train", "validate"]


@dataclass(frozen=True)
class Progress:
    """Where a run stands."""

    phase: Phase
    done: int
    """Of `total` in this phase: streams, rows, steps of the epoch, or rows."""
    total: int
    epoch: int
    """From 0."""
    loss: float | None = None
    """Mean of the last steps (train)."""
    validation: FrameMetrics | None = None
    """Of the latest finished epoch."""
    num_rows: int = 0
    """Of all ranks, done in this phase (train, validate)."""
    waited_s: float | None = None
    """Seconds in this phase that this process has waited for batches (train)."""
    probes: str | None = None
    """The same of many probes, in words."""


ProgressCallback = Callable[[Progress], None]


class Reporter:
    """Tells how far one epoch is.

    Args:
        report: is told.
        world_size: ranks that share each phase equally.
    """

    def __init__(self, report: ProgressCallback, world_size: int) -> None:
        self._report, self._world_size = report, world_size
        self.latest: FrameMetrics | None = None
        """Of the latest finished epoch."""
        self.probes: str | None = None
        """The same of many probes, in words."""

    def step(self, epoch: int, done: int, total: int, interval: "Interval") -> None:
        """Tell of a step of an epoch, whose rows and waiting time the interval has counted."""
        self._report(
            Progress(
                "train",
                done,
                total,
                epoch,
                interval.loss,
                self.latest,
                interval.num_rows,
                interval.waited_s,
                self.probes,
            )
        )

    def validated(self, epoch: int, done: int, total: int) -> None:
        """Tell of rows that are validated on this rank."""
        num_rows = done * self._world_size
        self._report(
            Progress("validate", done, total, epoch, None, self.latest, num_rows, None, self.probes)
        )


def silent(progress: Progress) -> None:
    """Report nothing."""
