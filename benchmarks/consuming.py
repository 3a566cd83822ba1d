"""What all contestants of the stream's benchmark are measured with: one consumer, one check."""

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .data import FRAME_BYTES, ID_CHANNELS, BenchStore, ids_of
from .measure import Unit

UNITS = (Unit("GB/s", 1e-9), Unit("frames/s", 1 / FRAME_BYTES))
"""Every run returns the bytes that it delivered, so that all can be held against memcpy."""


class Consumer:
    """Keeps the ids that frames carry: the first channels of every row.

    Args:
        drops: let go of a batch before the next is asked for, as the trainer does, so that a loader
            may use its memory again; else after that, as a plain `for` loop does.
    """

    def __init__(self, *, drops: bool = True) -> None:
        self._drops = drops
        self._ids: list[Tensor] = []

    def take(self, batches: Iterable[Tensor]) -> None:
        """Consume i2[B, DIM] batches."""
        self._ids = []
        for bits in batches:
            self._ids.append(bits[:, :ID_CHANNELS].clone())
            if self._drops:
                del bits

    @property
    def num_rows(self) -> int:
        """Rows of the last epoch."""
        return sum(map(len, self._ids))

    def ids(self) -> NDArray[np.int64]:
        """Return i64[N]: the ids that the frames of the last epoch carried."""
        return ids_of(torch.cat(self._ids).numpy())

    def ids_of_batches(self) -> list[NDArray[np.int64]]:
        """Return the same, batch by batch."""
        return [ids_of(bits.numpy()) for bits in self._ids]


def check_once(ids: NDArray[np.int64], data: BenchStore) -> None:
    """Raise unless these are the ids of all frames, each once."""
    check_claimed(ids, data.frame_ids)


def check_claimed(ids: NDArray[np.int64], claimed: NDArray[np.int64]) -> None:
    """Raise unless these are the ids of the frames that were claimed, each once; in any order."""
    if not np.array_equal(np.sort(ids), np.sort(claimed)):
        raise AssertionError("not every frame was delivered exactly once")


def group_of(batch: int) -> str:
    """Return the column of the table for this batch size."""
    return f"batch {batch}"
