"""Train many probes in one pass: frames are read once, each head learns from its own rows."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from ..distributed.gradients import Gradients
from ..heads.dropout import row_keys
from ..heads.linear import LinearHead
from ..model import ScoreModel
from ..moments import Standardiser
from ..runs.checkpoint import Checkpoint
from ..runs.log import Interval, Losses, Value
from ..scoring.metrics import FrameMetrics
from ..scoring.score import by_stream, metrics_of, score_rows
from ..streaming.device import send
from ..streaming.stream import Batch
from ..threads import one_thread
from ..training.course import Stopped
from ..training.fitting import Fitting, Parts
from ..training.optimiser import make_optimiser
from ..training.result import ProbeResult, ProbesResult
from .linear_step import linear_step
from .probe_rows import ProbeRows
from .probe_runs import BestHead, ProbeRuns
from .stacked import ProbeModel, Tensors, keep_moments
from .stacked_loss import StackedLoss

_BEST = "best"


@dataclass
class Standing:
    """Where one probe stands; changes as training goes."""

    epochs: int = 0
    """Done, until it stopped."""
    has_stopped: bool = False
    best: FrameMetrics | None = None
    best_epoch: int = 0
    head: Tensors | None = None
    """Of the best epoch, on the CPU."""

    def to_json(self) -> dict[str, Any]:  # Any: JSON values
        """Return all but the tensors."""
        return {
            "epochs": self.epochs,
            "has_stopped": self.has_stopped,
            "best": None if self.best is None else self.best.to_json(),
            "best_epoch": self.best_epoch,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:  # Any: JSON values
        """Return what `to_json` was called of, without tensors."""
        best = data["best"]
        return cls(
            epochs=data["epochs"],
            has_stopped=data["has_stopped"],
            best=None if best is None else FrameMetrics.from_json(best),
            best_epoch=data["best_epoch"],
        )


class ProbeInterval(Interval):
    """Losses of K probes since the last line of the log.

    A step's are f32[2, K]: the sum over its rows, and how many the label counts.
    """

    by_probe: Sequence[float] = ()
    """Mean loss of each in the latest closed interval; 0 where its label counted no row."""

    def _mean(self, losses: Tensor) -> float:
        sums, counts = losses.sum(dim=0)
        means = sums / counts.clamp(min=1)
        self.by_probe = means.tolist()
        return float(means.mean())


class ProbeTrainer(Fitting[ProbeModel, ProbesResult]):
    """Trains many probes.

    Args:
        parts: of the run; the stream and the validation rows are all that the filter lets pass.
        standardiser: of the streams trained on; None when `resume` follows.
        rows: what the probes' labels make of these rows.
        runs: where the probes are written to, on the first rank.
    """

    def __init__(
        self,
        parts: Parts,
        standardiser: Standardiser | None,
        rows: ProbeRows,
        runs: ProbeRuns | None,
    ) -> None:
        super().__init__(parts)
        self.rows, self.runs = rows, runs
        self.standings = [Standing() for _ in rows.probes]
        numbers = range(len(rows.probes))
        # Losses of one kind are computed together.
        self.stack = tuple(sorted(numbers, key=lambda number: rows.losses[number].targets))
        """Numbers of the probes that are trained: those that have stopped cost nothing more."""
        known = standardiser or Standardiser.none(self.stream.source.dim)
        model = ProbeModel.of([self._untrained(number, known) for number in self.stack])
        self.model: ProbeModel = model.to(parts.device)
        self._prepare()

    def _untrained(self, number: int, standardiser: Standardiser) -> ScoreModel:
        """One probe alone."""
        loss, probe = self.rows.losses[number], self.rows.probes[number]
        model = ScoreModel.new(
            self.config.head,
            standardiser,
            pos_weight=loss.pos_weight,
            bias=loss.start,
            scores=loss.scores,
            seed=probe.seed,
        )
        if self.config.seeds > 1 and isinstance(model.head, LinearHead):
            model.head.begin_near_zero(probe.seed)
        return model

    def _prepare(self) -> None:
        """Make all that follows from which probes are in the model."""
        device = self.model.mean.device
        self.optimiser: torch.optim.Optimizer = make_optimiser(self.model, self.config)
        numbers = 2 * len(self.stack)
        self.gradients: Gradients = Gradients(self.model.parameters(), self.ranks, numbers)
        self.loss = StackedLoss([self.rows.losses[number] for number in self.stack], device)
        self._labels = [self.rows.label_of[number] for number in self.stack]

    def _shrink(self, stack: Sequence[int]) -> None:
        """Train these alone from now on."""
        kept = [self.stack.index(number) for number in stack]
        old_model, old_optimiser = self.model, self.optimiser
        self.model, self.stack = old_model.keeping(kept), tuple(stack)
        self._prepare()
        keep_moments(old_optimiser, old_model.heads, self.optimiser, self.model.heads, kept)

    def _new_interval(self, num_rows: int = 0, losses: Losses = ()) -> ProbeInterval:
        return ProbeInterval(num_rows, losses)

    def _stopped(self) -> Stopped | None:
        if not self.course.validated:
            return None
        if all(standing.has_stopped for standing in self.standings):
            return "patience"
        return "epochs" if self.course.epoch + 1 >= self.config.epochs else None

    def _update(self, batch: Batch) -> Tensor:
        """Make one step; return sums of losses and counts of rows, f32[2, K] on the device."""
        x, _, _ = self.copies.copy(batch)
        # Pad rows count for no label.
        y, counted = self.rows.training.of(batch.frame.numpy(), self._labels)
        targets, weight = (send(torch.from_numpy(item), x.device) for item in (y, counted))
        self.gradients.clear()
        if self.model.heads.are_first_layers and x.device.type == "cpu":
            with one_thread():  # torch's others would still wait for work when ours have some
                sums = linear_step(self.model, self.loss, x, targets, weight)
                return self._go(sums, weight)
        losses = self.loss.of_rows(self.model(x, self._row_keys(batch)), targets) * weight
        sums = losses.sum(dim=0)
        sums.sum().backward()
        return self._go(sums.detach(), weight)

    def _go(self, sums: Tensor, weight: Tensor) -> Tensor:
        """Make the step of the gradients of this rank's sums f32[K]; return as `_update`."""
        numbers = torch.cat([sums, weight.sum(dim=0)])
        found = self.gradients.summed(numbers, self.course.step + 1).view(2, len(self.stack))
        # Over the rows of all ranks that the label counts: their number is known only now.
        share = 1 / found[1].clamp(min=1)
        self.model.heads.scale_gradients(torch.where(self.loss.is_sum, 1.0, share))
        self.optimiser.step()
        return found

    def _row_keys(self, batch: Batch) -> Tensor | None:
        """What dropout of each probe goes by, i64[K, B]; None without dropout."""
        if not self.model.heads.drops_out:
            return None
        seeds = [self.rows.probes[number].seed for number in self.stack]
        step = self.course.step
        keys = {seed: row_keys(batch.frame, seed=seed, step=step) for seed in set(seeds)}
        return send(torch.stack([keys[seed] for seed in seeds]), self.model.mean.device)

    def _losses_text(self) -> dict[str, Value]:
        interval = self.interval
        assert isinstance(interval, ProbeInterval), "ours"
        names = [self.rows.probes[number].name for number in self.stack]
        told = (loss if math.isfinite(loss) else None for loss in interval.by_probe)
        losses = dict(zip(names, told, strict=True))
        return {"loss": interval.loss, "losses": losses}

    def _validate(self) -> None:
        found = self._scored()
        with self.ranks.interruptible.held():
            self._keep(found)

    def _scored(self) -> dict[int, FrameMetrics]:
        """Score the validation split once for all probes; return metrics by number."""
        scores = score_rows(
            self.model,
            self.validation,
            self.source,
            ranks=self.ranks,
            progress=partial(self.report.validated, self.course.epoch),
        )
        frames = self.validation.frames
        # All ranks have all scores: each computes the metrics of some probes.
        mine: dict[int, dict[str, Any]] = {}
        for column in range(self.ranks.rank, len(self.stack), self.ranks.world_size):
            number = self.stack[column]
            label = self.rows.probes[number].label
            y, counted = self.rows.validated(frames, number)
            own = np.ascontiguousarray(scores[:, column])
            streams = by_stream(self.validation, own, y, counted, label)
            mine[number] = metrics_of(streams, label).to_json()
        doing = f"the validation of epoch {self.course.epoch + 1}"
        told: dict[int, FrameMetrics] = {}
        for data in self.ranks.gather(json.dumps(mine).encode(), doing):
            for number, item in json.loads(data).items():
                told[int(number)] = FrameMetrics.from_json(item)
        return told

    def _keep(self, found: Mapping[int, FrameMetrics]) -> None:
        """Count this epoch: log it, keep the best heads, let go of the probes that stop."""
        course, patience = self.course, self.config.patience
        course.validated = True
        better: list[int] = []
        for column, number in enumerate(self.stack):
            metrics = found[number]
            probe, standing = self.rows.probes[number], self.standings[number]
            values = {
                "epoch": course.epoch,
                "seconds": round(self._seconds, 3),
                **metrics.to_json(),
            }
            self.records.write("validation", course.step, values, probe=probe.name)
            standing.epochs = course.epoch + 1
            if metrics.beats(standing.best, self.rows.configs[number].select_by):
                better.append(column)
                standing.best, standing.best_epoch = metrics, course.epoch
            standing.has_stopped = course.epoch - standing.best_epoch >= patience
        for column, head in zip(better, self.model.alone(better), strict=True):
            self.standings[self.stack[column]].head = head
        left = [number for number in self.stack if not self.standings[number].has_stopped]
        ends = len(self.stack) - len(left)
        told = f"{len(better)} of {len(self.stack)} probes better than before"
        if ends:
            told += f", {ends} stopped for want of patience"
        self.report.probes = told
        if 0 < len(left) < len(self.stack):
            self._shrink(left)
        self.interval = self._new_interval()
        if self.records.is_due:
            self._save()

    def resume(self, checkpoint: Checkpoint, name: str) -> None:
        """Go on from a checkpoint; as `Fitting.resume`."""
        self.rows.check_same(checkpoint.state["probe_rows"])
        super().resume(checkpoint, name)

    def _load(self, checkpoint: Checkpoint) -> None:
        state, prefix = checkpoint.state, f"{_BEST}/"
        if state["stack"] != list(self.stack):
            self._shrink(state["stack"])
        self.standings = [Standing.from_json(item) for item in state["probes"]]
        model: Tensors = {}
        for name, value in checkpoint.model.items():
            if not name.startswith(prefix):
                model[name] = value
                continue
            _, number, inner = name.split("/")
            standing = self.standings[int(number)]
            standing.head = {**(standing.head or {}), inner: value}
        super()._load(Checkpoint(model, checkpoint.optimiser, {}))

    def _checkpoint(self) -> Checkpoint:
        found = super()._checkpoint()
        best: Tensors = {}
        for number, standing in enumerate(self.standings):
            for name, value in (standing.head or {}).items():
                best[f"{_BEST}/{number}/{name}"] = value
        state = {
            "stack": list(self.stack),
            "probes": [standing.to_json() for standing in self.standings],
            "probe_rows": self.rows.digests,
        }
        return Checkpoint(found.model | best, found.optimiser, state)

    def _rescue(self) -> None:
        super()._rescue()
        self._write_runs()

    def _end(self) -> None:
        super()._end()
        self._write_runs()

    def _write_runs(self) -> None:
        """Write a run for every probe that was validated, on the first rank."""
        if self.runs is None:
            return
        statistics = {"mean": self.model.mean.cpu(), "inverse_std": self.model.inverse_std.cpu()}
        steps_an_epoch = self.stream.num_steps
        heads: dict[int, BestHead] = {}
        for number, standing in enumerate(self.standings):
            if standing.best is None or standing.head is None:
                continue
            loss = self.rows.losses[number]
            tensors = {**statistics, **standing.head, "log_balance": torch.zeros(())}
            tensors["log_pos_weight"] = torch.tensor(math.log(loss.pos_weight))
            step = (standing.best_epoch + 1) * steps_an_epoch
            heads[number] = BestHead(tensors, step, standing.best_epoch, standing.best, loss.scores)
        self.runs.write(heads)

    def _result(self, stopped: Stopped) -> ProbesResult:
        results: list[ProbeResult] = []
        zipped = zip(self.rows.probes, self.rows.configs, self.standings, strict=True)
        for probe, config, standing in zipped:
            assert standing.best is not None, "the first epoch is the best so far"
            results.append(
                ProbeResult(
                    probe=probe,
                    run=config.out,
                    epochs=standing.epochs,
                    best_epoch=standing.best_epoch,
                    best=standing.best,
                )
            )
        return ProbesResult(
            run=self.config.out,
            epochs=self.course.epoch + 1,
            steps=self.course.step,
            seconds=self._seconds,
            stopped=stopped,
            probes=tuple(results),
        )
