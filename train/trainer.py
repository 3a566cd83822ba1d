"""The steps of a run: train, validate, keep the best, stop when it no longer gets better.

Everything that decides the run's course (validate, stop, best) is computed once an epoch from
complete scores, and kept in a `train.course.Course`, from which a checkpoint goes on.
"""

import logging
import math
import time
from contextlib import closing, nullcontext
from functools import partial

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from laughstore.errors import ConfigError, CorruptData, LaughstoreError

from .checkpoint import Checkpoint
from .config import TrainConfig
from .course import Course, Stopped
from .device import DeviceCopies
from .ema import Average
from .gradients import Gradients
from .log import Interval
from .losses import EpochRows, make_loss
from .metrics import FrameMetrics
from .model import ScoreModel
from .moments import Standardiser
from .optimiser import l2_term, learning_rate, load_optimiser, make_optimiser, optimiser_tensors
from .progress import ProgressCallback, Reporter
from .ranks import Ranks
from .records import NoRecords, Records
from .result import TrainResult
from .resume import check_made_on, check_rows, made_on
from .score import metrics_of, score_streams
from .selection import Selection
from .source import FrameSource
from .stream import Batch, FrameStream
from .threads import threads_for

logger = logging.getLogger(__name__)

_LOG_EVERY = 10
"""Steps."""


class Trainer:
    """The parts of a run that change as it goes.

    Args:
        config: of the run.
        stream: of the training split; its batches are used one after another, so `copy=False` will
            do.
        standardiser: of the streams trained on; None when `resume` follows.
        validation: rows of the validation split.
        source: reads their frames.
        device: to compute on.
        records: the run's log and checkpoints, on the first rank.
        ranks: that train together.
        report: called as work goes on.
    """

    def __init__(
        self,
        config: TrainConfig,
        stream: FrameStream,
        standardiser: Standardiser | None,
        validation: Selection,
        source: FrameSource,
        device: torch.device,
        records: Records | NoRecords,
        ranks: Ranks,
        report: ProgressCallback,
    ) -> None:
        self.config, self.stream, self.records = config, stream, records
        self.validation, self.source, self.ranks = validation, source, ranks
        self.loss = make_loss(config.loss, EpochRows.of(stream.selection, stream.balance))
        self.model = ScoreModel.new(
            config.head,
            standardiser or Standardiser.none(stream.source.dim),
            pos_weight=self.loss.pos_weight,
            bias=self.loss.start,
            share_of_negatives=self.loss.share_of_negatives,
            scores=self.loss.scores,
            seed=config.seed,
        ).to(device)
        self.optimiser = make_optimiser(self.model, config)
        self.gradients = Gradients(self.model.parameters(), ranks)
        self.average = Average(self.model, config.optimiser.ema_decay)
        self.copies = DeviceCopies(device)
        self.course = Course(stream.state_dict())
        self.interval = Interval()
        self.report = Reporter(report, ranks.world_size)
        self._made_on = made_on(device, stream.world_size)
        self._started_s = time.monotonic()
        self._saved = (-1, False, "")
        """Steps, whether they were validated, and name of the latest checkpoint."""

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
            self.model.load_state_dict(checkpoint.model)
            load_optimiser(self.optimiser, self.average.resume(checkpoint.optimiser))
        except (RuntimeError, ValueError) as error:
            raise CorruptData(
                f"the checkpoint of step {course.step} does not fit the run's model"
                f" ({' '.join(str(error).split())})"
            ) from error
        self.course = course
        self._saved = course.step, course.validated, name
        self.interval = Interval(course.num_rows, course.losses)
        self._started_s -= course.seconds
        if course.best is not None and course.best_checkpoint is not None:
            self.records.mark_best(course.best_checkpoint, self.course.about_best)

    def fit(self) -> TrainResult:
        """Train until patience or epochs are used up.

        Raises:
            ConfigError: the loss or a score is not finite.
            CorruptData: a block was altered or cut, or holds values that are not finite.
            KeyboardInterrupt, SystemExit: a signal came, to whichever rank.
            RankLost: another rank died or hangs.
        """
        course, held = self.course, self.ranks.interruptible.held
        # Of several ranks one alone must not leave.
        deferred = self.ranks.interruptible.deferred if self.ranks.world_size > 1 else nullcontext
        with deferred():
            try:
                self._share_model()
                stopped = self._epochs()
                with held():
                    self._save()
                self.ranks.agree("the end")
            except (KeyboardInterrupt, SystemExit, LaughstoreError):
                with held():
                    self._rescue()
                raise
        assert course.best is not None, "the first epoch is the best so far"
        return TrainResult(
            run=self.config.out,
            epochs=course.epoch + 1,
            steps=course.step,
            seconds=self._seconds,
            stopped=stopped,
            best_epoch=course.best_epoch,
            best=course.best,
        )

    def _epochs(self) -> Stopped:
        """Make epochs until there is no other, and return why."""
        course, config = self.course, self.config
        while not (stopped := course.stopped(patience=config.patience, epochs=config.epochs)):
            self._train(course.next_epoch)
            metrics = self._validate()
            with self.ranks.interruptible.held():
                self._keep(metrics)
        return stopped

    def _share_model(self) -> None:
        """Begin on all ranks with what the first one has."""
        tensors = {name: value.cpu() for name, value in self.model.state_dict().items()}
        data = self.ranks.share(lambda: safetensors.torch.save(tensors), "the start")
        self.model.load_state_dict(safetensors.torch.load(data))
        if not self.course.step:
            self.average.begin()

    def _train(self, epoch: int) -> None:
        """Make the steps that are left of one epoch."""
        self.stream.set_epoch(epoch)
        if not len(self.stream):
            return  # saved behind its last step
        course, interval, num_steps = self.course, self.interval, self.stream.num_steps
        held = self.ranks.interruptible.held
        with closing(iter(self.stream)) as batches:
            for batch in interval.timed(batches):
                with held(), threads_for(self.model.num_outputs):
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
                self.copies.make_room()
                del batch  # before the next is asked for, which takes its memory

    def _update(self, batch: Batch) -> Tensor:
        """Make one step; return its loss, f32[] on the device, over all ranks before the step."""
        x, y, weight = self.copies.copy(batch)
        how, step = self.config.optimiser, self.course.step
        for group in self.optimiser.param_groups:
            group["lr"] = self._learning_rate()
        model, context = self.model, self.model.context
        targets = batch.frame[..., context:]  # of sequences, whose context is not answered
        keys = model.row_keys(targets, seed=self.config.seed, step=step)
        present = batch.present.to(x.device) if context else None
        loss = self.loss(
            model(x, keys, present, bf16=how.autocast == "bf16"),
            y[..., context:],
            weight[..., context:],
            num_real=batch.num_real,
            world_size=self.stream.world_size,
        )
        if how.l2:
            loss = loss + l2_term(self.model, how.l2)
        mean = self.gradients.of(loss, step + 1)
        if how.clip_norm is not None:
            self.gradients.clip(how.clip_norm)
        self.optimiser.step()
        self.average.update(step + 1)
        return mean

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
            "loss": loss,
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

    def _validate(self) -> FrameMetrics:
        """Score the validation split and log its metrics."""
        epoch = self.course.epoch
        streams = score_streams(
            self.average.model,
            self.validation,
            self.source,
            self.config.label,
            ranks=self.ranks,
            progress=partial(self.report.validated, epoch),
        )
        doing = f"the validation of epoch {epoch + 1}"
        label = self.config.label
        found = self.ranks.decide(lambda: metrics_of(streams, label).to_json(), doing)
        metrics = FrameMetrics.from_json(found)
        self.report.latest = metrics
        values = {"epoch": epoch, "seconds": round(self._seconds, 3), **metrics.to_json()}
        self.records.write("validation", self.course.step, values)
        self.records.write_scores(self.course.step, streams)
        return metrics

    def _keep(self, metrics: FrameMetrics) -> None:
        """Count this epoch, and save it if it is the best, or if that is due."""
        is_best = self.course.count(metrics, self.config.select_by)
        self.course.plateau.count(is_best=is_best, epochs=self.config.optimiser.plateau_epochs)
        self.interval = Interval()
        if not (is_best or self.records.is_due):
            return
        name = self._save()
        if is_best:
            self.course.best_checkpoint = name
            self.records.mark_best(name, self.course.about_best)

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
        return all(map(math.isfinite, self.interval.losses)) and all(
            bool(value.isfinite().all()) for value in self.model.parameters()
        )

    def _save(self) -> str:
        """Write a checkpoint, on the first rank; return its name there."""
        course, interval = self.course, self.interval
        if self._saved[:2] == (course.step, course.validated):
            return self._saved[2]
        course.num_rows, course.losses = interval.num_rows, interval.losses
        course.seconds = self._seconds
        state = {
            **course.to_json(),
            "model": self.model.describe(),
            "validation": self.validation.digests,
            "made_on": self._made_on,
        }
        model = {name: value.cpu() for name, value in self.average.model.state_dict().items()}
        moments = optimiser_tensors(self.optimiser) | self.average.stepped()
        name = self.records.save(course.step, Checkpoint(model, moments, state))
        self._saved = course.step, course.validated, name
        return name

    @property
    def _seconds(self) -> float:
        """Spent so far, before a resume, too."""
        return time.monotonic() - self._started_s
