"""What a run writes as it goes: its log and its checkpoints, on the first rank alone."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from ..scoring.score import StreamScores, counted_rows
from .checkpoint import Checkpoint, mark_best, prune, save_checkpoint
from .log import RunLog, Value, cut_log
from .run import Run


class NoRecords:
    """What the other ranks have in the place of `Records`: writes nothing."""

    is_due = False

    def write(
        self, kind: str, step: int, values: Mapping[str, Value], *, probe: str | None = None
    ) -> None:
        """Write nothing."""

    def write_scores(self, step: int, streams: Sequence[StreamScores]) -> None:
        """Write nothing."""

    def save(self, step: int, checkpoint: Checkpoint) -> str:
        """Write nothing; return no name."""
        return ""

    def mark_best(self, name: str, metrics: Mapping[str, Any]) -> None:  # Any: JSON values
        """Write nothing."""

    def close(self) -> None:
        """Nothing is open."""


class Records:
    """The log and the checkpoints of a run.

    Args:
        run: whose folder they are in.
        after: (steps done, whether they are validated) of a run that is gone on with: its log is
            cut behind them.
        save_every_s: seconds after which a checkpoint is due.
    """

    def __init__(
        self,
        run: Run,
        after: tuple[int, bool] | None = None,
        *,
        save_every_s: float = 60.0,
    ) -> None:
        self._run, self._save_every_s = run, save_every_s
        self._saved_s = time.monotonic()
        self._best: str | None = None
        """Name of the best checkpoint."""
        if after is not None:
            cut_log(run.metrics_log, step=after[0], validated=after[1])
        self._log = RunLog(run.metrics_log, run.tensorboard, after=after)

    def write(
        self, kind: str, step: int, values: Mapping[str, Value], *, probe: str | None = None
    ) -> None:
        """Write a line of the log; see `RunLog.write`."""
        self._log.write(kind, step, values, probe=probe)

    def write_scores(self, step: int, streams: Sequence[StreamScores]) -> None:
        """Show the scores of a validation, of the rows that count."""
        self._log.write_scores(step, *counted_rows(streams))

    @property
    def is_due(self) -> bool:
        """Whether it is time for a checkpoint: most are only there to go on from."""
        return time.monotonic() - self._saved_s >= self._save_every_s

    def save(self, step: int, checkpoint: Checkpoint) -> str:
        """Write a checkpoint once the log of its steps is durable; return its name.

        Args:
            step: steps done.
            checkpoint: what is saved, but for the run that it is of.
        """
        self._log.sync()
        state = {"run": self._run.identity, **checkpoint.state}
        whole = Checkpoint(checkpoint.model, checkpoint.optimiser, state)
        path = save_checkpoint(self._run.checkpoints, step, whole)
        prune(self._run.checkpoints, best=self._best)
        self._saved_s = time.monotonic()
        return path.name

    def mark_best(self, name: str, metrics: Mapping[str, Any]) -> None:  # Any: JSON values
        """Make a checkpoint the best one."""
        mark_best(self._run.checkpoints, self._run.checkpoints / name, metrics)
        self._best = name

    def close(self) -> None:
        """Finish the log."""
        self._log.close()
