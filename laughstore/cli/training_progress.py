"""How a training run shows: a bar or plain lines for each phase, and a line for every epoch.

A note tells the loss, frames a second over all processes, and the share of time in which this one
has waited for frames: near 0 %, reading is not what limits it. Rates are means since the phase
began.
"""

import time
from typing import TYPE_CHECKING

from .metric_text import metric_texts
from .progress import TerminalProgress, clock_text

if TYPE_CHECKING:
    from train.training.progress import Progress

_TASKS = {
    "statistics": "channel statistics",
    "preload": "rows into memory",
    "train": "epoch",
    "validate": "validate",
}
_OF_ROWS = ("preload", "validate")
_LEAST_S = 0.5
"""A rate over less time than this is noise."""


class TrainingProgress:
    """Shows the phases of a run.

    Args:
        bar: to show them with.
        epochs: most there will be.
    """

    def __init__(self, bar: TerminalProgress, *, epochs: int) -> None:
        self._bar, self._epochs = bar, epochs
        self._first: Progress | None = None
        """Report of the phase."""
        self._done = 0
        self._told_epoch = -1
        self._began_s = self._epoch_began_s = time.monotonic()

    def __call__(self, progress: "Progress") -> None:
        """Take one report of `train.train`."""
        first = self._first
        if first is None or (progress.phase, progress.epoch) != (first.phase, first.epoch):
            self.close()
            self._begin(progress)
        self._bar.advance(progress.done - self._done, self._note(progress))
        self._done = progress.done

    def close(self) -> None:
        """Take the bar away."""
        if self._first is not None:
            self._bar.end()

    def _begin(self, progress: "Progress") -> None:
        task = _TASKS[progress.phase]
        named = f"{task} {progress.epoch + 1}" if progress.phase == "train" else task
        self._bar.begin(named, progress.total, "row" if progress.phase in _OF_ROWS else "step")
        self._first, self._done, self._began_s = progress, 0, time.monotonic()
        if progress.phase == "train":
            self._tell(progress)
            self._epoch_began_s = self._began_s

    def _note(self, progress: "Progress") -> str:
        texts = [] if progress.loss is None else [f"loss {progress.loss:.4f}"]
        first, elapsed_s = self._first, time.monotonic() - self._began_s
        assert first is not None, "of a phase"
        num_rows = progress.num_rows - first.num_rows
        if num_rows and elapsed_s > _LEAST_S:
            texts.append(f"{num_rows / elapsed_s:,.0f} frames/s")
            if progress.waited_s is not None and first.waited_s is not None:
                share = (progress.waited_s - first.waited_s) / elapsed_s
                texts.append(f"{100 * share:.0f} % waiting for frames")
        return ", ".join(texts)

    def _tell(self, progress: "Progress") -> None:
        """One line for the epoch before this one, once its validation is known."""
        found, told = progress.validation, progress.probes
        if found is not None:
            told = f"validation {', '.join(metric_texts(found))}"
        if told is None or progress.epoch == self._told_epoch:
            return
        self._told_epoch = progress.epoch
        left_s = (self._epochs - progress.epoch) * (self._began_s - self._epoch_began_s)
        self._bar.message(f"epoch {progress.epoch}: {told} (at most {clock_text(left_s)} left)")
