"""Flags of the commands that score with runs, and what they hand to the functions behind them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .annotation_source import with_source
from .progress import TerminalProgress


@dataclass(frozen=True)
class FrameFlags:
    """What is scored, and how it is read."""

    shards: Path | str | None = None
    """Store or shards folder, a path or a URL (default: the run's own)."""
    device: str = "auto"
    """cpu, cuda, cuda:N, or auto (cuda if there is one)."""
    annotations: Path | None = None
    """Make labels from these annotations (default: what the run was trained with); all that
    `laughstore annotate --from` takes."""
    cache: Path | None = None
    """Folder of this machine that keeps blocks of a remote store: an empty or a new one, or one
    that was used so before."""
    cache_gb: float = 50.0
    """Bound of that folder, in units of 10^9 bytes."""

    def arguments(self, bar: TerminalProgress) -> dict[str, Any]:  # Any: arguments of any kind
        """Return the arguments of a function that scores, which shows rows on this bar."""
        return vars(self) | {"annotate": with_source, "progress": ScoringProgress(bar)}


@dataclass(frozen=True)
class SplitFlags:
    """Which split is judged, and how sure its numbers are."""

    split: str = "validation"
    """Split to score. Look at test last, and once."""
    bootstrap: int = 2000
    """Draws of groups (shows), or of recordings if there are fewer than ten, for intervals; 0: no
    intervals."""


@dataclass(frozen=True)
class DecisionFlags:
    """Of one run: what scores, and by what rows are called positive."""

    checkpoint: str = "best"
    """best, last, or the path of a checkpoint."""
    threshold_by: str | None = None
    """Choose the threshold on validation by f1 (default), youden, precision@X, recall@X (X is 0 to
    1), or fa-per-hour@X: the lowest with at most X false alarms of events an hour."""
    threshold: float | None = None
    """Use this threshold, 0 to 1: a row is an alarm if its score is at least this."""
    null: int = 200
    """Rotations of labels against scores, which tell average precision by chance; 0: none."""


class ScoringProgress:
    """Shows the rows scored so far."""

    def __init__(self, bar: TerminalProgress) -> None:
        self._bar = bar
        self._done = 0

    def __call__(self, done: int, total: int) -> None:
        """Take one report of `train.evaluate`."""
        if self._done == 0:
            self._bar.begin("score", total, "row")
        self._bar.advance(done - self._done)
        self._done = done
        if done == total:
            self._bar.end()
            self._done = 0  # the next split begins
