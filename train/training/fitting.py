"""The frame of a run: epochs, steps, saving, signals. What is trained is up to `Fitting`'s classes.

Everything that decides the run's course (validate, stop, best) is computed once an epoch from
complete scores, and kept in a `train.training.course.Course`, from which a checkpoint goes on.
"""

import logging
import math
import time
from abc import ABC, abstractmethod
from contextlib import closing, nullcontext
from dataclasses import dataclass

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from laughstore.errors import ConfigError, CorruptData, LaughstoreError

from ..config import TrainConfig
from ..distributed.gradients import Gradients
from ..distributed.ranks import Ranks
from ..model import RowModel
from ..runs.checkpoint import Checkpoint
from ..runs.log import Interval, Losses, Value
from ..runs.records import NoRecords, Records
from ..streaming.device import DeviceCopies
from ..streaming.selection import Selection
from ..streaming.source import FrameSource
from ..streaming.stream import Batch, FrameStream
from ..threads import threads_for
from .course import Course, Stopped
from .optimiser import learning_rate, load_optimiser, optimiser_tensors
from .progress import ProgressCallback, Reporter
from .resume import check_made_on, check_rows, made_on

logger = logging.getLogger(__name__)

_LOG_EVERY = 10
"""Steps."""


@dataclass(frozen=True, eq=False)
class Parts:
    """What a run is made of, besides what it trains."""

    config: TrainConfig
    stream: FrameStream
    """Of the training split; its batches are used one after another, so `copy=False` will do."""
    validation: Selection
    """Rows of the validation split."""
    source: FrameSource
    """Reads their frames."""
    device: torch.device
    """To compute on."""
    records: Records | NoRecords
    """The run's log and checkpoints, on the first rank."""
    ranks: Ranks
    """That train together."""
    report: ProgressCallback
    """Called as work goes on."""


class Fitting[Model: RowModel, Result](ABC):
    """The parts of a run that change as it goes.

    Args:
        parts: of the run.
    """

    model: Model
    optimiser: torch.optim.Optimizer
    gradients: Gradients

    def __init__(self, parts: Parts) -> None:
        self.config, self.stream, self.records = parts.config, parts.stream, parts.records
        self.validation, self.source = parts.validation, parts.source
        self.ranks = parts.ranks
        self.copies = DeviceCopies(parts.device)
        self.course = Course(self.stream.state_dict())
        self.interval = self._new_interval()
        self.report = Reporter(parts.report, self.ranks.world_size)
        self._made_on = made_on(parts.device, self.stream.world_size)
        self._started_s = time.monotonic()
        self._saved = (-1, False, "")
        """Steps, whether they were validated, and name of the latest checkpoint."""

    @abstractmethod
    def _update(self, batch: Batch) -> Tensor:
        """Make one step; return what the interval adds up, over all ranks before the step."""

    @abstractmethod
    def _validate(self) -> None:
        """Score the validation split, log its metrics, and count this epoch; save what is due."""

    @abstractmethod
    def _result(self, stopped: Stopped) -> Result:
        """Return how the run ended, once all of it is saved."""

    def _new_interval(self, num_rows: int = 0, losses: Losses = ()) -> Interval:
        return Interval(num_rows, losses)

    def _stopped(self) -> Stopped | None:
        """Return why there is no other epoch, or None when there is one."""
        return self.course.stopped(patience=self.config.patience, epochs=self.config.epochs)

    def _load(self, checkpoint: Checkpoint) -> None:
        """Take over tensors and state of a checkpoint. Raises RuntimeError or ValueError."""
        self.model.load_state_dict(checkpoint.model)
        load_optimiser(self.optimiser, checkpoint.optimiser)

    def _checkpoint(self) -> Checkpoint:
        """Return what is saved, but for what all runs save."""
        model = {name: value.cpu() for name, value in self.model.state_dict().items()}
        return Checkpoint(model, optimiser_tensors(self.optimiser), {})

    def _losses_text(self) -> dict[str, Value]:
        """Return the losses of a line of the log, the interval being closed."""
        return {"loss": self.interval.loss}

    def resume(self, checkpoint: Checkpoint, name: str) -> None:
        """Go on from a checkpoint.

        Args:
            checkpoint: of this run.
            name: of it, on the first rank: the same state is not saved again.

        Raises:
            ConfigError: the rows are others than when it was saved.
            CorruptData: it is no checkpoint of this model.
        """
        course = Course.from_json(checkpoint.state, where="the checkpoint")
        self.stream.load_state_dict(course.stream)
        check_rows(checkpoint.state, self.validation.digests)
        check_made_on(checkpoint.state["made_on"], self._made_on)
        try:
            self._load(checkpoint)
        except (RuntimeError, ValueError) as error:
            raise CorruptData(
                f"the checkpoint of step {course.step} does not fit the run's model"
                f" ({' '.join(str(error).split())})"
            ) from error
        self.course = course
        self._saved = course.step, course.validated, name
        self.interval = self._new_interval(course.num_rows, course.losses)
        self._started_s -= course.seconds
        if course.best is not None and course.best_checkpoint is not None:
            self.records.mark_best(course.best_checkpoint, self.course.about_best)

    def fit(self) -> Result:
        """Train until patience or epochs are used up.

        Raises:
            ConfigError: the loss or a score is not finite.
            CorruptData: a block was altered or cut, or holds values that are not finite.
            KeyboardInterrupt, SystemExit: a signal came, to whichever rank.
            RankLost: another rank died or hangs.
        """
        held = self.ranks.interruptible.held
        # Of several ranks one alone must not leave.
        deferred = self.ranks.interruptible.deferred if self.ranks.world_size > 1 else nullcontext
        with deferred():
            try:
                self._share_model()
                stopped = self._epochs()
                with held():
                    self._end()
                self.ranks.agree("the end")
            except (KeyboardInterrupt, SystemExit, LaughstoreError):
                with held():
                    self._rescue()
                raise
        return self._result(stopped)

    def _epochs(self) -> Stopped:
        """Make epochs until there is no other, and return why."""
        while not (stopped := self._stopped()):
            self._train(self.course.next_epoch)
            self._validate()
        return stopped

    def _share_model(self) -> None:
        """Begin on all ranks with what the first one has."""
        ours = self.model.state_dict()
        tensors = {name: value.cpu() for name, value in ours.items()}
        data = self.ranks.share(lambda: safetensors.torch.save(tensors), "the start")
        self.model.load_state_dict(safetensors.torch.load(data))
        self._shared()

    def _shared(self) -> None:  # noqa: B027 (some have nothing to do)
        """Go on from the first rank's model."""

    def _train(self, epoch: int) -> None:
        """Make the steps that are left of one epoch."""
        self.stream.set_epoch(epoch)
        if not len(self.stream):
            return  # saved behind its last step
        course, interval, num_steps = self.course, self.interval, self.stream.num_steps
        held = self.ranks.interruptible.held
        with (
            closing(iter(self.stream)) as stream,
            self.ranks.made_meanwhile(interval.timed(stream)) as batches,
        ):
            for batch in batches:
                with held(), threads_for(self.model.num_outputs):
                    for group in self.optimiser.param_groups:
                        group["lr"] = self._learning_rate()
                    interval.add(self._update(batch), batch)
                    course.step += 1
                    course.epoch, course.validated = batch.epoch, False
                    course.stream = self.stream.state_dict(after=batch)
                    done = batch.step + 1
                    # A step that is saved has its line: a resume goes on behind it.
                    if course.step % _LOG_EVERY == 0 or done == num_steps:
                        self._log_interval()
                    if self.records.is_due and self._is_finite:
                        self._save()
                self.report.step(epoch, done, num_steps, interval)
                self.ranks.end_if_told()
                del batch  # before the next is asked for, which takes its memory

    def _learning_rate(self) -> float:
        config, course = self.config, self.course
        num_steps, how = self.stream.num_steps * config.epochs, config.optimiser
        drops = course.plateau.drops
        return learning_rate(course.step, num_steps, peak=config.lr, config=how, drops=drops)

    def _log_interval(self) -> None:
        """Write the means since the last line.

        Raises:
            ConfigError: the loss is not finite.
            CorruptData: because features are not.
        """
        step = self.course.step
        loss, wait_ms, frames = self.interval.close()
        values = {
            "epoch": self.course.epoch,
            "frames": self.interval.num_rows,
            "seconds": round(self._seconds, 3),
            **self._losses_text(),
            "lr": self.optimiser.param_groups[0]["lr"],
            "wait_ms": round(wait_ms, 3),
        }
        self.records.write("train", step, values)
        if not math.isfinite(loss):
            self._check_frames(frames.numpy())
            raise ConfigError(
                f"the loss is {loss} at step {step}; lower --lr (it is {self.config.lr})"
            )

    def _check_frames(self, frames: NDArray[np.int64]) -> None:
        """Raise CorruptData on all ranks when frames of one of them hold what is not finite."""
        said = b""
        try:
            self.stream.source.check_finite(frames)
        except CorruptData as error:
            said = str(error).encode()
        for text in self.ranks.gather(said, f"step {self.course.step}"):
            if text:
                raise CorruptData(text.decode())

    def _end(self) -> None:
        """Write what the run leaves behind."""
        self._save()

    def _rescue(self) -> None:
        """Save the last step, if it is worth going on from."""
        step = self.course.step
        if not step:
            return
        if self._is_finite:
            name = self._save()
            if name:
                logger.warning("stopped at step %d, saved in %s", step, name)
        else:
            logger.warning("stopped at step %d, whose weights are not finite: not saved", step)

    @property
    def _is_finite(self) -> bool:
        """Whether weights and losses are; what is not is told in the log's next line."""
        return self.interval.is_finite and all(
            bool(value.isfinite().all()) for value in self.model.parameters()
        )

    def _save(self) -> str:
        """Write a checkpoint, on the first rank; return its name there."""
        course, interval = self.course, self.interval
        if self._saved[:2] == (course.step, course.validated):
            return self._saved[2]
        course.num_rows, course.losses = interval.num_rows, interval.losses
        course.seconds = self._seconds
        found = self._checkpoint()
        state = {
            **course.to_json(),
            "model": self.model.describe(),
            "validation": self.validation.digests,
            "made_on": self._made_on,
            **found.state,
        }
        checkpoint = Checkpoint(found.model, found.optimiser, state)
        name = self.records.save(course.step, checkpoint)
        self._saved = course.step, course.validated, name
        return name

    @property
    def _seconds(self) -> float:
        """Spent so far, before a resume, too."""
        return time.monotonic() - self._started_s
