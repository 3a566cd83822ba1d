"""The folders of the probes of a run: each is a run that every command takes.

    RUN/probes/<name>/config.json        its own label and seed, and which run it is a probe of
                      metrics.jsonl      its validations
                      checkpoints/       its best epoch

They are written when the run ends or is stopped. Until then all that they hold is in the checkpoint
of the run itself, so that an epoch costs one checkpoint, not one for each probe.
"""

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from laughstore.errors import CorruptData, NotFound
from laughstore.files import write_atomic
from laughstore.index import Index

from ..config import TrainConfig
from ..losses import ScoreKind
from ..runs.checkpoint import (
    Checkpoint,
    checkpoint_path,
    first_checkpoint,
    load_checkpoint,
    mark_best,
    prune,
    save_checkpoint,
)
from ..runs.folds import Fold
from ..runs.run import Run, is_run
from ..scoring.metrics import FrameMetrics
from .probe_rows import ProbeRows

_THREADS: Final = 32
"""A folder waits for the disk a dozen times, and computes next to nothing."""


@dataclass(frozen=True, eq=False)
class BestHead:
    """The best epoch of one probe."""

    tensors: dict[str, Tensor]
    """Of a `ScoreModel`."""
    step: int
    """Steps done by then."""
    epoch: int
    """From 0."""
    metrics: FrameMetrics
    scores: ScoreKind
    """What its scores are."""


class ProbeRuns:
    """Writes the folders of probes.

    Args:
        run: that they are probes of.
        config: of it, with paths as they were given.
        index: of the shards.
        rows: of all probes.
        fold: of a run on one of several folds.
        skip: keys of the blocks that are left out as corrupt.
    """

    def __init__(
        self,
        run: Run,
        config: TrainConfig,
        index: Index,
        rows: ProbeRows,
        *,
        fold: Fold | None,
        skip: Sequence[str],
    ) -> None:
        self._run, self._config, self._index, self._rows = run, config, index, rows
        self._fold, self._skip = fold, skip

    def write(self, heads: Mapping[int, BestHead]) -> None:
        """Write the folders of these probes, by number; those that are there already are left."""
        if not heads:
            return
        lines = self._validations()

        def write(number: int) -> None:
            self._write(number, heads[number], lines)

        with ThreadPoolExecutor(_THREADS, "laughstore-probes") as pool:
            list(pool.map(write, heads))

    def _write(self, number: int, head: BestHead, lines: Mapping[str, bytes]) -> None:
        probe = self._rows.probes[number]
        config = self._rows.configs[number]
        log = lines.get(probe.name, b"")
        told = {"epoch": head.epoch, **head.metrics.to_json()}

        def first(run: Run) -> dict[str, bytes]:
            best = first_checkpoint(head.step, self._checkpoint(run, head), told)
            inner = {f"{run.checkpoints.name}/{name}": data for name, data in best.items()}
            return {**inner, run.metrics_log.name: log}

        if not is_run(config.out):
            counts = self._rows.counts[self._rows.label_of[number]]
            about = {"probe_of": str(self._config.out.absolute()), "order_seed": self._config.seed}
            Run.create(
                config,
                self._index,
                counts,
                fold=self._fold,
                skip=self._skip,
                more=about,
                holding=first,
            )
            return
        run = Run.open(config.out)
        checkpoint = self._checkpoint(run, head)
        if not _is_there(run, checkpoint):
            path = save_checkpoint(run.checkpoints, head.step, checkpoint)
            mark_best(run.checkpoints, path, told)
            prune(run.checkpoints, best=path.name)
        write_atomic(run.metrics_log, log)

    def _checkpoint(self, run: Run, head: BestHead) -> Checkpoint:
        model = {"head": run.config.head.to_json(), "dim": self._index.dim, "scores": head.scores}
        state = {
            "run": run.identity,
            "model": model,
            "step": head.step,
            "epoch": head.epoch,
            "best": head.metrics.to_json(),
            "threshold": head.metrics.threshold,
        }
        return Checkpoint(head.tensors, {}, state)

    def _validations(self) -> dict[str, bytes]:
        """The lines of the run's log that are of one probe, by its name."""
        found: dict[str, list[bytes]] = {}
        for line in self._run.metrics_log.read_bytes().splitlines(keepends=True):
            name = json.loads(line).get("probe")
            if name is not None:
                found.setdefault(name, []).append(line)
        return {name: b"".join(lines) for name, lines in found.items()}


def _is_there(run: Run, checkpoint: Checkpoint) -> bool:
    """Whether the best checkpoint of a probe's folder is this one."""
    try:
        known = load_checkpoint(checkpoint_path(run.checkpoints, "best"))
    except (NotFound, CorruptData):
        return False
    return known.state == checkpoint.state and all(
        torch.equal(known.model[name], value) for name, value in checkpoint.model.items()
    )
