"""The steps of a run: train, validate, keep the best, stop when it no longer gets better.

Everything that decides the run's course (validate, stop, best) is computed once an epoch from
complete scores. The state of a checkpoint is a JSON object:

    run         identity of the run (see `train.run`)
    model       what the tensors are of (`ScoreModel.describe`)
    step        steps done
    epoch       of the last of them, from 0
    validated   the validation of that epoch is done, and counted in `best`
    stream      where the stream goes on (`FrameStream.load_state_dict`)
    best_epoch  epoch of the best validation so far, from 0
    best        its metrics; null before the first
"""

import logging
import math
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from laughstore.errors import ConfigError, LaughstoreError

from .checkpoint import Checkpoint, mark_best, prune, save_checkpoint
from .device import DeviceCopies
from .log import Interval, RunLog
from .losses import EpochRows, make_loss
from .metrics import FrameMetrics
from .model import ScoreModel
from .moments import Standardiser
from .optimiser import learning_rate, make_optimiser
from .progress import Progress, ProgressCallback
from .run import Run
from .score import metrics_of, score_streams
from .selection import Selection
from .signals import Interruptible
from .source import FrameSource
from .stream import Batch, FrameStream

logger = logging.getLogger(__name__)

_LOG_EVERY = 10
"""Steps."""
_SAVE_EVERY_S = 60.0
"""Epochs that are no better than the best are saved this often: most are only there to go on."""


@dataclass(frozen=True)
class TrainResult:
    """How a run ended."""

    run: Path
    epochs: int
    """Epochs done."""
    steps: int
    seconds: float
    stopped: Literal["patience", "epochs"]
    best_epoch: int
    """From 0."""
    best: FrameMetrics
    """Validation metrics of the best epoch."""

    def to_json(self) -> dict[str, Any]:  # Any: JSON values
        """Return a JSON object."""
        return {
            "run": str(self.run),
            "epochs": self.epochs,
            "steps": self.steps,
            "seconds": round(self.seconds, 3),
            "stopped": self.stopped,
            "best_epoch": self.best_epoch,
            "validation": self.best.to_json(),
        }


class Trainer:
    """The parts of a run that change as it goes.

    Args:
        run: whose folder checkpoints go to.
        stream: of the training split; its batches are used one after another, so `copy=False` will
            do.
        standardiser: of the streams trained on.
        validation: rows of the validation split.
        source: reads their frames.
        device: to compute on.
        log: of the run.
        report: called as work goes on.
    """

    def __init__(
        self,
        run: Run,
        stream: FrameStream,
        standardiser: Standardiser,
        validation: Selection,
        source: FrameSource,
        device: torch.device,
        log: RunLog,
        report: ProgressCallback,
    ) -> None:
        self.run, self.stream, self.log, self.report = run, stream, log, report
        self.validation, self.source = validation, source
        config = run.config
        self.loss = make_loss(config.loss, EpochRows.of(stream.selection, stream.balance))
        self.model = ScoreModel.new(
            config.head,
            standardiser,
            pos_weight=self.loss.pos_weight,
            bias=self.loss.start,
            share_of_negatives=self.loss.share_of_negatives,
            scores=self.loss.scores,
            seed=config.seed,
        ).to(device)
        self.optimiser = make_optimiser(self.model, config)
        self.copies = DeviceCopies(device)
        self.step = self.epoch = 0
        self.validated = False
        self.position = stream.state_dict()
        self.started = self.saved = time.monotonic()
        self.best: FrameMetrics | None = None
        self.best_epoch = 0
        self.latest: FrameMetrics | None = None

    def fit(self, interruptible: Interruptible) -> TrainResult:
        """Train until patience or epochs are used up.

        Raises:
            ConfigError: the loss or a score is not finite.
            CorruptData: a block was altered or cut, or holds values that are not finite.
            KeyboardInterrupt, SystemExit: a signal came.
        """
        try:
            epoch, stopped = self._epochs(interruptible)
            with interruptible.held():
                self._save()
                prune(self.run.checkpoints)
        except (KeyboardInterrupt, SystemExit, LaughstoreError):
            with interruptible.held():
                self._rescue()
            raise
        assert self.best is not None, "the first epoch is the best so far"
        return TrainResult(
            run=self.run.path,
            epochs=epoch + 1,
            steps=self.step,
            seconds=time.monotonic() - self.started,
            stopped=stopped,
            best_epoch=self.best_epoch,
            best=self.best,
        )

    def _epochs(self, interruptible: Interruptible) -> tuple[int, Literal["patience", "epochs"]]:
        """Return (last epoch, why there is no other)."""
        config = self.run.config
        for epoch in range(config.epochs):
            self.stream.set_epoch(epoch)
            self._train(epoch, interruptible)
            metrics = self._validate(epoch)
            with interruptible.held():
                self._keep(epoch, metrics)
            if epoch - self.best_epoch >= config.patience:
                return epoch, "patience"
        return config.epochs - 1, "epochs"

    def _train(self, epoch: int, interruptible: Interruptible) -> None:
        """Make the steps of one epoch."""
        interval = Interval()
        with closing(iter(self.stream)) as batches:
            for batch in interval.timed(batches):
                with interruptible.held():
                    interval.add(self._update(batch), batch)
                    self.step += 1
                    self.epoch, self.validated = batch.epoch, False
                    self.position = self.stream.state_dict(after=batch)
                done = batch.step + 1
                if self.step % _LOG_EVERY == 0 or done == self.stream.num_steps:
                    self._log_interval(epoch, interval)
                self.report(
                    Progress(
                        "train", done, self.stream.num_steps, epoch, interval.loss, self.latest
                    )
                )
                self.copies.make_room()
                del batch  # before the next is asked for, which takes its memory

    def _update(self, batch: Batch) -> Tensor:
        """Make one step; return its loss, f32[] on the device, before the step."""
        x, y, weight = self.copies.copy(batch)
        for group in self.optimiser.param_groups:
            group["lr"] = self._learning_rate()
        self.optimiser.zero_grad(set_to_none=True)
        keys = self.model.row_keys(batch.frame, seed=self.run.config.seed, step=self.step)
        loss = self.loss(
            self.model(x, keys),
            y,
            weight,
            num_real=batch.num_real,
            world_size=self.stream.world_size,
        )
        loss.backward()
        self.optimiser.step()
        return loss.detach()

    def _learning_rate(self) -> float:
        config = self.run.config
        return learning_rate(self.step, self.stream.num_steps * config.epochs, peak=config.lr)

    def _log_interval(self, epoch: int, interval: "Interval") -> None:
        """Write the means since the last line.

        Raises:
            ConfigError: the loss is not finite.
            CorruptData: because features are not.
        """
        loss, wait_ms, frames = interval.close()
        if not math.isfinite(loss):
            self.stream.source.check_finite(frames.numpy())
            raise ConfigError(
                f"the loss is {loss} at step {self.step}; lower --lr (it is {self.run.config.lr})"
            )
        values = {
            "epoch": epoch,
            "frames": interval.num_rows,
            "seconds": round(time.monotonic() - self.started, 3),
            "loss": loss,
            "lr": self.optimiser.param_groups[0]["lr"],
            "wait_ms": round(wait_ms, 3),
        }
        self.log.write("train", self.step, values)

    def _validate(self, epoch: int) -> FrameMetrics:
        """Score the validation split and log its metrics."""

        def report(done: int, total: int) -> None:
            self.report(Progress("validate", done, total, epoch, None, self.latest))

        streams = score_streams(
            self.model, self.validation, self.source, self.run.config.label, progress=report
        )
        metrics = metrics_of(streams, self.run.config.label)
        self.latest = metrics
        seconds = round(time.monotonic() - self.started, 3)
        values = {"epoch": epoch, "seconds": seconds, **metrics.to_json()}
        self.log.write("validation", self.step, values)
        return metrics

    def _keep(self, epoch: int, metrics: FrameMetrics) -> None:
        """Save this epoch; it is the best if it beats the best before."""
        self.validated = True
        is_best = metrics.beats(self.best, self.run.config.select_by)
        if is_best:
            self.best, self.best_epoch = metrics, epoch
        elif time.monotonic() - self.saved < _SAVE_EVERY_S:
            return
        path = self._save()
        if is_best:
            mark_best(self.run.checkpoints, path, {"epoch": epoch, **metrics.to_json()})
        prune(self.run.checkpoints)

    def _rescue(self) -> None:
        """Save the last step, if it is worth going on from."""
        if all(bool(value.isfinite().all()) for value in self.model.parameters()):
            self._save()
            logger.warning("stopped at step %d, saved in %s", self.step, self.run.checkpoints)
        else:
            logger.warning("stopped at step %d, whose weights are not finite: not saved", self.step)

    def _save(self) -> Path:
        state = {
            "run": self.run.identity,
            "model": self.model.describe(),
            "step": self.step,
            "epoch": self.epoch,
            "validated": self.validated,
            "stream": self.position,
            "best_epoch": self.best_epoch,
            "best": None if self.best is None else self.best.to_json(),
        }
        moments = {
            f"{number}.{name}": value.cpu()
            for number, values in self.optimiser.state_dict()["state"].items()
            for name, value in values.items()
        }
        model = {name: value.cpu() for name, value in self.model.state_dict().items()}
        self.saved = time.monotonic()
        return save_checkpoint(self.run.checkpoints, self.step, Checkpoint(model, moments, state))
