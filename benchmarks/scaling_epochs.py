"""Epochs of one stream under one setting, by whoever reads it: a loop, DataLoader workers, a rank.

Ids of frames are kept on the clock, as of all contestants of streams, and compared after it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from laughstore.index import Index
from laughstore.reading.rows import Reader
from train.streaming.batch import Batch
from train.streaming.choices import Verify
from train.streaming.selection import FrameFilter
from train.streaming.stream import FrameStream

from .consuming import UNITS, Consumer
from .data import DIM, FRAME_BYTES, SPLIT
from .measure import Contestant
from .planning import BATCH, LANES, WINDOW_BLOCKS, order_of
from .process_memory import anonymous_bytes, apart

_WORKER_TIMEOUT_S = 120


@dataclass(frozen=True)
class Setting:
    """What differs between contestants."""

    recordings: str | None = None
    """Only recordings whose id matches this shell pattern."""
    lanes: int = LANES
    window_blocks: int = WINDOW_BLOCKS
    threads: int = 1
    """That copy frames, of the stream's own."""
    workers: int = 0
    """Of a DataLoader."""
    reader: Reader = "map"
    verify: Verify = "never"
    rank: int = 0
    world_size: int = 1

    def open(self, shards: Path | Index, batch: int = BATCH) -> FrameStream:
        """Return the stream."""
        return FrameStream(
            shards,
            SPLIT,
            frames=FrameFilter(recordings=self.recordings),
            global_batch=batch,
            lanes=self.lanes,
            window_blocks=self.window_blocks,
            reader=self.reader,
            verify=self.verify,
            threads=self.threads,
            rank=self.rank,
            world_size=self.world_size,
        )


class Epochs:
    """Epochs of one stream, another order each time."""

    def __init__(self, shards: Path | Index, setting: Setting) -> None:
        self._stream = setting.open(shards)
        self._consumer = Consumer()
        self._epoch = -1
        self._said: list[Tensor] = []
        self._steps = 0
        self._batches: Iterable[Batch] = self._stream
        if setting.workers:
            self._batches = DataLoader(
                self._stream,
                batch_size=None,
                num_workers=setting.workers,
                persistent_workers=True,
                timeout=_WORKER_TIMEOUT_S,
            )

    @property
    def frames(self) -> NDArray[np.int64]:
        """i64[N], rising: ids of the frames of an epoch, over all ranks."""
        return self._stream.selection.frames

    @property
    def num_steps(self) -> int:
        """Steps of the last epoch."""
        return self._steps

    def run(self) -> float:
        """Take an epoch. Returns the bytes of its frames; pad rows count nothing."""
        self._epoch += 1
        self._stream.set_epoch(self._epoch)
        self._said, self._steps = [], 0
        self._consumer.take(self._features())
        return float(sum(int((said >= 0).sum()) for said in self._said) * FRAME_BYTES)

    def delivered(self) -> NDArray[np.int64]:
        """Return i64[n]: which frames the last epoch delivered.

        Raises:
            AssertionError: a batch held other frames than it said.
        """
        said = torch.cat(self._said).numpy()
        real = said >= 0
        if not np.array_equal(self._consumer.ids()[real], said[real]):
            raise AssertionError("FrameStream delivered other frames than it said")
        return said[real]

    def check(self) -> None:
        """Raise unless every frame of the stream came once."""
        if not np.array_equal(np.sort(self.delivered()), self.frames):
            raise AssertionError("not every frame was delivered exactly once")

    def contestant(self, name: str, group: str, limit: Contestant | None) -> Contestant:
        """Return this stream's epochs as a contestant."""
        return Contestant(name, self.run, UNITS, group, limit, check=self.check)

    def close(self) -> None:
        """Let go of workers and files."""
        self._batches = ()  # workers of a loader that is dropped end
        self._stream.close()

    def _features(self) -> Iterator[Tensor]:
        for batch in self._batches:
            self._said.append(batch.frame.clone())  # workers' memory is used again
            self._steps += 1
            yield batch.x.view(torch.int16)
            del batch


def plan_epoch(counts: NDArray[np.int64], targets: NDArray[np.generic], epoch: int = 0) -> int:
    """Plan an epoch, its reads and the rows of its first step, by the stream's defaults.

    Args:
        counts: i64[blocks], rows that take part.
        targets: [N] of these rows.
        epoch: of the plan.

    Returns:
        The rows that are planned.
    """
    order = order_of(counts, targets, epoch=epoch)
    order.plan.reads()
    next(order.plan.batches())
    return order.plan.num_rows


def memory_apart(store: Path, setting: Setting) -> int:
    """Return the anonymous memory that an epoch adds at most to a fresh process, in bytes."""
    return apart(_memory, store, setting)


def _memory(store: Path, setting: Setting) -> int:
    torch.set_num_threads(1)
    torch.empty(BATCH * DIM, dtype=torch.int16).zero_()  # what torch loads at first
    before = most = anonymous_bytes()
    num_rows = 0
    with setting.open(store) as stream:
        for batch in stream:
            num_rows += int((batch.frame >= 0).sum())
            del batch
            most = max(most, anonymous_bytes())
        if num_rows != stream.selection.num_rows:
            raise AssertionError(f"{num_rows} rows of {stream.selection.num_rows} came")
    return most - before
