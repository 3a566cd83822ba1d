"""Train a head: stream, step, validate, keep the best, stop when it no longer gets better.

Everything that decides the run's course (validate, stop, best) is computed once an epoch from
complete scores.
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

from laughstore.errors import ConfigError
from laughstore.index import Index
from laughstore.store import open_shards

from .checkpoint import Checkpoint, mark_best, prune, save_checkpoint
from .config import TrainConfig
from .device import DeviceCopies, choose_device
from .log import Interval, RunLog
from .losses import bce_loss, pos_weight, prior_bias
from .metrics import FrameMetrics
from .model import ScoreModel
from .moments import Standardiser, merged, stream_moments
from .optimiser import learning_rate, make_optimiser
from .progress import Progress, ProgressCallback, silent
from .run import Run, check_absent
from .score import metrics_of, score_streams
from .selection import Selection, select
from .signals import Interruptible
from .source import FrameSource
from .stream import Batch, FrameStream

logger = logging.getLogger(__name__)

TRAIN_SPLIT = "train"
VALIDATION_SPLIT = "validation"
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


def train(config: TrainConfig, *, progress: ProgressCallback | None = None) -> TrainResult:
    """Train a head on the split `train`, choosing by the average precision on `validation`.

    The run folder always holds what is known so far; Ctrl-C and SIGTERM save the last step before
    they are raised.

    Args:
        config: what to train, on what, and how.
        progress: called as work goes on, several times a second at most a step.

    Raises:
        ConfigError: the run exists, a split is missing or holds nothing to learn from, a setting
            cannot work, or the loss is no longer finite.
        CorruptData: a shard was altered or cut.
    """
    check_absent(config.out)
    device = choose_device(config.device)
    index = open_shards(config.shards)
    _check_splits(index)
    validation = select(index, VALIDATION_SPLIT, config.label, config.filter)
    _check_both_classes(validation)
    with (
        FrameStream(
            index,
            TRAIN_SPLIT,
            label=config.label,
            frames=config.filter,
            global_batch=config.global_batch,
            lanes=config.lanes,
            window_blocks=config.window_blocks,
            seed=config.seed,
            verify=config.verify,
            pin_memory=device.type == "cuda",
        ) as stream,
        FrameSource(index, VALIDATION_SPLIT, verify=config.verify) as source,
    ):
        _check_both_classes(stream.selection)
        report = progress or silent
        standardiser = _standardiser(stream, report)
        run = Run.create(config, index, _counts(stream.selection, validation))
        logger.info("%r on %s", stream, device)
        interruptible = Interruptible()
        with RunLog(run.metrics_log, run.tensorboard) as log, interruptible.installed():
            trainer = _Trainer(run, stream, standardiser, validation, source, device, log, report)
            return trainer.fit(interruptible)


class _Trainer:
    """The parts of a run that change as it goes."""

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
        config, counts = run.config, stream.selection.counts
        classes = {"positives": counts.positives, "negatives": counts.negatives}
        self.pos_weight = pos_weight(config.loss, **classes)
        self.model = ScoreModel.new(
            config.head,
            standardiser,
            pos_weight=self.pos_weight,
            bias=prior_bias(self.pos_weight, **classes),
        ).to(device)
        self.optimiser = make_optimiser(self.model, config)
        self.copies = DeviceCopies(device)
        self.step = 0
        self.position = stream.state_dict()
        self.started = self.saved = time.monotonic()
        self.best: FrameMetrics | None = None
        self.best_epoch = 0
        self.latest: FrameMetrics | None = None

    def fit(self, interruptible: Interruptible) -> TrainResult:
        """Train until patience or epochs are used up."""
        try:
            epoch, stopped = self._epochs(interruptible)
            with interruptible.held():
                self._save()
                prune(self.run.checkpoints)
        except (KeyboardInterrupt, SystemExit):
            with interruptible.held():
                self._save()
            logger.warning("stopped at step %d, saved in %s", self.step, self.run.checkpoints)
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
                    interval.add(self._update(batch), batch.num_real)
                    self.step += 1
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

    def _update(self, batch: Batch) -> Tensor:
        """Make one step; return its loss, f32[] on the device, before the step."""
        x, y, weight = self.copies.copy(batch)
        for group in self.optimiser.param_groups:
            group["lr"] = self._learning_rate()
        self.optimiser.zero_grad(set_to_none=True)
        loss = bce_loss(
            self.model(x),
            y,
            weight,
            pos_weight=self.pos_weight,
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
        """
        loss, wait_ms = interval.close()
        if not math.isfinite(loss):
            raise ConfigError(
                f"the loss is {loss} at step {self.step}; lower --lr (it is {self.run.config.lr})"
            )
        values = {
            "epoch": epoch,
            "frames": interval.frames,
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
        metrics = metrics_of(streams)
        self.latest = metrics
        seconds = round(time.monotonic() - self.started, 3)
        values = {"epoch": epoch, "seconds": seconds, **metrics.to_json()}
        self.log.write("validation", self.step, values)
        return metrics

    def _keep(self, epoch: int, metrics: FrameMetrics) -> None:
        """Save this epoch; it is the best if its average precision is above all before."""
        ap = metrics.average_precision
        assert ap is not None, "validation has positive rows: checked before the run began"
        is_best = self.best is None or ap > (self.best.average_precision or 0.0)
        if is_best:
            self.best, self.best_epoch = metrics, epoch
        elif time.monotonic() - self.saved < _SAVE_EVERY_S:
            return
        path = self._save()
        if is_best:
            mark_best(self.run.checkpoints, path, {"epoch": epoch, **metrics.to_json()})
        prune(self.run.checkpoints)

    def _save(self) -> Path:
        state = {
            "step": self.step,
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


def _standardiser(stream: FrameStream, report: ProgressCallback) -> Standardiser:
    """Statistics of exactly the streams trained on."""
    selection = stream.selection

    def progress(done: int, total: int) -> None:
        report(Progress("statistics", done, total, 0))

    parts = stream_moments(selection.index, selection.streams, stream.source, progress=progress)
    return Standardiser.of(merged(parts, selection.index.dim))


def _check_splits(index: Index) -> None:
    index.check_split(TRAIN_SPLIT)
    if VALIDATION_SPLIT not in index.splits:
        raise ConfigError(
            f"{index.folder} has no split {VALIDATION_SPLIT!r} (it has {', '.join(index.splits)}),"
            " and the best epoch is never chosen on training data; add recordings with this split"
            " to the data set and build them into the store"
        )


def _check_both_classes(selection: Selection) -> None:
    counts = selection.counts
    for name, number in (("positive", counts.positives), ("negative", counts.negatives)):
        if not number:
            raise ConfigError(
                f"split {selection.split!r} has no {name} row among {selection.num_rows}:"
                " nothing can be learned or chosen from it; use another label, filter or data set"
            )


def _counts(*selections: Selection) -> dict[str, Any]:  # Any: JSON values
    return {
        item.split: {
            "recordings": len({stream.recording_id for stream in item.streams}),
            "streams": len(item.streams),
            "rows": item.num_rows,
            "positives": item.counts.positives,
            "ignored": item.counts.ignored,
        }
        for item in selections
    }
