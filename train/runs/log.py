"""Numbers of a run as it goes: one JSON object a line, and the same as TensorBoard scalars.

TensorBoard alone gets the scores of a validation, as histograms and a precision-recall curve.
"""

import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tensorboard.compat.proto.summary_pb2 import (
    Summary,  # pyright: ignore[reportAttributeAccessIssue] (made as it is imported)
)
from torch import Tensor
from torch.utils.tensorboard import FileWriter, SummaryWriter

from laughstore.closing import ClosedAtExit
from laughstore.files import write_atomic
from laughstore.kinds import TargetArray

from ..streaming.stream import Batch
from .curve_points import NUM_POINTS, curve_points

Value = int | float | str | Mapping[str, str] | Mapping[str, float | None] | None


class RunLog(ClosedAtExit):
    """Write a run's numbers. A context manager.

    Args:
        path: the JSON-lines file; appended to.
        tensorboard: folder of the event files.
        after: (steps done, whether they are validated) of a run that is gone on with, whose log is
            cut behind them; what older event files tell of later ones is void.
    """

    def __init__(
        self, path: Path, tensorboard: Path, *, after: tuple[int, bool] | None = None
    ) -> None:
        # TensorBoard takes the first file's mark for a beginning, and only others for a restart:
        # a new run has one, too.
        purge_step = 0 if after is None else after[0] + after[1]
        self._scalars = SummaryWriter(str(tensorboard), purge_step=purge_step)
        assert self._scalars.file_writer is not None, "made with the folder"
        self._events: FileWriter = self._scalars.file_writer
        if after is not None and path.exists():
            # A validation that will be made again is void, and all else of its step with it.
            for line in map(json.loads, path.read_text("utf-8").splitlines()):
                if line["step"] == purge_step:
                    self._add_scalars(line)
        self._file = path.open("a", encoding="utf-8")

    def write(
        self, kind: str, step: int, values: Mapping[str, Value], *, probe: str | None = None
    ) -> None:
        """Write one line at once; each number is also the scalar `<kind>/<name>`.

        Args:
            kind: `train` or `validation`.
            step: steps done.
            values: by name; what is None or not finite is written as null.
            probe: that these are of, one of several; scalars are `<kind>/<probe>/<name>`.
        """
        told = {name: _json(value) for name, value in values.items()}
        of = {} if probe is None else {"probe": probe}
        line = {"kind": kind, "step": step, **of, **told}
        self._file.write(json.dumps(line, allow_nan=False) + "\n")
        self._file.flush()
        self._add_scalars(line)

    def _add_scalars(self, line: Mapping[str, Any]) -> None:  # Any: JSON values
        of = [line[name] for name in ("kind", "probe") if name in line]
        summary = Summary()
        for name, value in line.items():
            if isinstance(value, int | float) and name != "step":
                summary.value.add(tag="/".join([*of, name]), simple_value=value)
        # All of a line in one event: with many probes, an event each would be much of the work.
        self._events.add_summary(summary, line["step"])

    def write_scores(self, step: int, y: TargetArray, score: NDArray[np.float32]) -> None:
        """Show the scores of a validation.

        Args:
            step: steps done.
            y: u1[N] or f4[N], above 0 where positive.
            score: f4[N], finite.
        """
        positive = y > 0
        for name, rows in (("positives", positive), ("negatives", ~positive)):
            if rows.any():
                self._scalars.add_histogram(f"validation/scores of {name}", score[rows], step)
        if positive.any():
            self._scalars.add_pr_curve_raw(
                "validation/precision-recall",
                *curve_points(positive, score),
                global_step=step,
                num_thresholds=NUM_POINTS,
            )

    def sync(self) -> None:
        """Make the lines so far survive a power cut, and the event files a kill."""
        os.fsync(self._file.fileno())
        self._scalars.flush()

    def close(self) -> None:
        """Finish the files."""
        try:
            self._file.close()
        finally:  # a full disk is told when what is left is written
            self._scalars.close()


def cut_log(path: Path, *, step: int, validated: bool) -> None:
    """Take off a log, in one step, what will be written again: what lies behind a checkpoint.

    Args:
        path: the JSON-lines file; there may be none.
        step: steps that the checkpoint holds.
        validated: whether it holds the validation behind them, too.
    """
    if not path.exists():
        return
    kept: list[bytes] = []
    for line in path.read_bytes().splitlines(keepends=True):
        try:
            told = json.loads(line)
        except ValueError:  # cut by a kill
            break
        is_later = told["step"] == step and told["kind"] == "validation" and not validated
        if line.endswith(b"\n") and told["step"] <= step and not is_later:
            kept.append(line)
    write_atomic(path, kept)


type Losses = Sequence[float] | Sequence["Losses"]
"""Nested as tensors are."""


class Interval:
    """Loss and waiting time since the last line of the log.

    Args:
        num_rows: rows of this epoch that an earlier process trained on.
        losses: of its steps since the last line.
    """

    def __init__(self, num_rows: int = 0, losses: Losses = ()) -> None:
        self.num_rows = num_rows
        """Rows trained on in this epoch."""
        self.loss: float | None = None
        """Mean loss of the latest closed interval."""
        self._earlier = losses
        self._losses: list[Tensor] = []
        self._frames: list[Tensor] = []
        self._num_waits, self._wait_s = 0, 0.0
        self.waited_s = 0.0
        """Spent on waiting for batches in this epoch, by this process; of several, also
        on those that are made while others are waited for."""

    @property
    def losses(self) -> list[Any]:
        """Of the steps since the last line."""
        return self._all_losses().tolist()

    @property
    def is_finite(self) -> bool:
        """Whether these are."""
        return bool(self._all_losses().isfinite().all())

    def timed(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Yield the batches, adding up the time spent on waiting for them."""
        while True:
            started = time.perf_counter()
            batch = next(batches, None)
            waited_s = time.perf_counter() - started
            self._wait_s += waited_s
            self.waited_s += waited_s
            if batch is None:
                return
            yield batch
            del batch  # whoever uses it has let go: its memory is the next one's

    def add(self, loss: Tensor, batch: Batch) -> None:
        """Count a step."""
        self._losses.append(loss)
        self._num_waits += 1
        self._frames.append(batch.frame)
        self.num_rows += batch.num_real

    def _all_losses(self) -> Tensor:
        """f32[n, ...], on the CPU."""
        earlier = [torch.tensor(self._earlier)] if self._earlier else []
        ours = [torch.stack(self._losses).cpu()] if self._losses else []
        return torch.cat(earlier + ours) if earlier or ours else torch.empty(0)

    def close(self) -> tuple[float, float, Tensor]:
        """Return (mean loss, milliseconds waited a step, i64[n] frame ids), and begin anew."""
        self.loss = self._mean(self._all_losses())
        wait_ms = 1000 * self._wait_s / self._num_waits
        frames = torch.cat(self._frames)
        self._earlier, self._losses, self._frames = (), [], []
        self._num_waits, self._wait_s = 0, 0.0
        return self.loss, wait_ms, frames

    def _mean(self, losses: Tensor) -> float:
        """Mean of the losses of one or more steps."""
        return float(losses.mean())


def _json(value: Value) -> Value:
    return None if isinstance(value, float) and not math.isfinite(value) else value
