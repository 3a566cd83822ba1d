"""Train one head: its steps, its validation, its best epoch."""

from functools import partial

import torch
from torch import Tensor

from ..distributed.gradients import Gradients
from ..losses import EpochRows, make_loss
from ..model import ScoreModel
from ..moments import Standardiser
from ..runs.checkpoint import Checkpoint
from ..scoring.metrics import FrameMetrics
from ..scoring.score import metrics_of, score_streams
from ..streaming.device import send
from ..streaming.stream import Batch
from .course import Stopped
from .ema import Average
from .fitting import Fitting, Parts
from .optimiser import l2_term, load_optimiser, make_optimiser, optimiser_tensors
from .result import TrainResult


class Trainer(Fitting[ScoreModel, TrainResult]):
    """Trains one head.

    Args:
        parts: of the run.
        standardiser: of the streams trained on; None when `resume` follows.
    """

    def __init__(self, parts: Parts, standardiser: Standardiser | None) -> None:
        super().__init__(parts)
        config, stream = self.config, self.stream
        self.loss = make_loss(config.loss, EpochRows.of(stream.selection, stream.balance))
        self.model: ScoreModel = ScoreModel.new(
            config.head,
            standardiser or Standardiser.none(stream.source.dim),
            pos_weight=self.loss.pos_weight,
            bias=self.loss.start,
            share_of_negatives=self.loss.share_of_negatives,
            scores=self.loss.scores,
            seed=config.seed,
        ).to(parts.device)
        self.optimiser: torch.optim.Optimizer = make_optimiser(self.model, config)
        self.gradients: Gradients = Gradients(self.model.parameters(), self.ranks)
        self.average = Average(self.model, config.optimiser.ema_decay)

    def _shared(self) -> None:
        if not self.course.step:
            self.average.begin()

    def _load(self, checkpoint: Checkpoint) -> None:
        self.model.load_state_dict(checkpoint.model)
        load_optimiser(self.optimiser, self.average.resume(checkpoint.optimiser))

    def _checkpoint(self) -> Checkpoint:
        model = {name: value.cpu() for name, value in self.average.model.state_dict().items()}
        return Checkpoint(model, optimiser_tensors(self.optimiser) | self.average.stepped(), {})

    def _update(self, batch: Batch) -> Tensor:
        """Make one step; return its loss, f32[] on the device."""
        x, y, weight = self.copies.copy(batch)
        how, step = self.config.optimiser, self.course.step
        model, context = self.model, self.model.context
        targets = batch.frame[..., context:]  # of sequences, whose context is not answered
        keys = model.row_keys(targets, seed=self.config.seed, step=step)
        present = send(batch.present, x.device) if context else None
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

    def _validate(self) -> None:
        metrics = self._scored()
        with self.ranks.interruptible.held():
            self._keep(metrics)

    def _scored(self) -> FrameMetrics:
        """Score the validation split and log its metrics."""
        epoch, label = self.course.epoch, self.config.label
        streams = score_streams(
            self.average.model,
            self.validation,
            self.source,
            label,
            ranks=self.ranks,
            progress=partial(self.report.validated, epoch),
        )
        doing = f"the validation of epoch {epoch + 1}"
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
        self.interval = self._new_interval()
        if not (is_best or self.records.is_due):
            return
        name = self._save()
        if is_best:
            self.course.best_checkpoint = name
            self.records.mark_best(name, self.course.about_best)

    def _result(self, stopped: Stopped) -> TrainResult:
        course = self.course
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
