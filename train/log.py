"""Numbers of a run as it goes: one JSON object a line, and the same as TensorBoard scalars."""

import json
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from .stream import Batch

Value = int | float | str | Mapping[str, str] | None


class RunLog:
    """Write a run's numbers. A context manager.

    Args:
        path: the JSON-lines file; appended to.
        tensorboard: folder of the event files.
    """

    def __init__(self, path: Path, tensorboard: Path) -> None:
        self._file = path.open("a", encoding="utf-8")
        self._scalars = SummaryWriter(str(tensorboard))

    def write(self, kind: str, step: int, values: Mapping[str, Value]) -> None:
        """Write one line at once; each number is also the scalar `<kind>/<name>`.

        Args:
            kind: `train` or `validation`.
            step: steps done.
            values: by name; what is None or not finite is written as null.
        """
        line = {name: _json(value) for name, value in values.items()}
        text = json.dumps({"kind": kind, "step": step, **line}, allow_nan=False)
        self._file.write(text + "\n")
        self._file.flush()
        for name, value in line.items():
            if isinstance(value, int | float):
                self._scalars.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        """Finish the files."""
        self._file.close()
        self._scalars.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Interval:
    """Loss and waiting time since the last line of the log."""

    def __init__(self) -> None:
        self.num_rows = 0
        """Rows trained on in this epoch."""
        self.loss: float | None = None
        """Mean loss of the latest closed interval."""
        self._losses: list[Tensor] = []
        self._frames: list[Tensor] = []
        self._wait_s = 0.0

    def timed(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Yield the batches, adding up the time spent on waiting for them."""
        while True:
            started = time.perf_counter()
            batch = next(batches, None)
            self._wait_s += time.perf_counter() - started
            if batch is None:
                return
            yield batch
            del batch  # whoever uses it has let go: its memory is the next one's

    def add(self, loss: Tensor, batch: Batch) -> None:
        """Count a step."""
        self._losses.append(loss)
        self._frames.append(batch.frame)
        self.num_rows += batch.num_real

    def close(self) -> tuple[float, float, Tensor]:
        """Return (mean loss, milliseconds waited a step, i64[n] frame ids), and begin anew."""
        self.loss = float(torch.stack(self._losses).mean())
        wait_ms = 1000 * self._wait_s / len(self._losses)
        frames = torch.cat(self._frames)
        self._losses, self._frames, self._wait_s = [], [], 0.0
        return self.loss, wait_ms, frames


def _json(value: Value) -> Value:
    return None if isinstance(value, float) and not math.isfinite(value) else value
