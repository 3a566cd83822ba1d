"""TensorStore over the store's own Zarr arrays: blocks in permuted order, several in flight."""

import importlib
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from laughstore import layout
from train.streaming.buffers import aligned_empty

from .data import DIM, SPLIT, BenchData
from .rivals import POOL_FRAMES, Pool

_IN_FLIGHT = 4
"""Blocks that are asked for before the one that is dealt out next."""
_CONTEXT = {
    "cache_pool": {"total_bytes_limit": 1 << 20},
    "file_io_concurrency": {"limit": 1},
    "data_copy_concurrency": {"limit": 1},
}
"""A cache that holds the indexes of shards, no blocks; a thread that reads, one that copies."""


class TensorStoreBlocks:
    """Stock TensorStore over the same arrays: inner chunks of 128 frames in permuted order.

    It reads bfloat16 as such, into buffers that are used in turn, and checks the CRC-32C of every
    chunk, because the arrays' codec says so; a missing chunk is an error, as for us, and not zeros.
    """

    name: ClassVar[str] = "TensorStore"
    package: ClassVar[str] = "tensorstore"
    modules: ClassVar[tuple[str, ...]] = ("tensorstore",)

    def __init__(self, data: BenchData, batch: int) -> None:
        tensorstore: Any = importlib.import_module("tensorstore")  # Any: installed or not
        context = tensorstore.Context(_CONTEXT)
        self._pool = Pool(batch)
        self._blocks: list[Any] = []
        counts: list[int] = []
        for stream in data.index.streams(SPLIT):
            path = layout.array(
                layout.FEATURES, stream.split, stream.recording_id, stream.assignment
            )
            spec = {
                "driver": "zarr3",
                "kvstore": {"driver": "file", "path": str(data.store / path)},
                "fill_missing_data_reads": False,
            }
            array = tensorstore.open(spec, read=True, context=context).result()
            for start in range(0, stream.num_frames, data.index.block_frames):
                stop = min(start + data.index.block_frames, stream.num_frames)
                self._blocks.append(array[start:stop].translate_to[0])
                counts.append(stop - start)
        # As many as the pool can hold at a time, one that fills it up, those in flight, and the one
        # that is handed over.
        num_buffers = int(np.searchsorted(np.cumsum(np.sort(counts)), POOL_FRAMES, "right"))
        num_buffers += _IN_FLIGHT + 3
        frames = data.index.block_frames
        self._buffers = aligned_empty((num_buffers * frames, DIM)).reshape(-1, frames, DIM)
        self._targets = [
            tensorstore.array(buffer.view(ml_dtypes.bfloat16), context=context, copy=False)
            for buffer in self._buffers
        ]

    def epoch(self, number: int) -> Iterator[Tensor]:
        """Yield the batches of one epoch."""
        order = np.random.default_rng(number).permutation(len(self._blocks)).tolist()
        return self._pool.shuffled(self._read(order), number)

    def _read(self, order: Iterable[int]) -> Iterator[NDArray[np.int16]]:
        """Yield blocks i2[n, D] in this order."""
        asked: deque[tuple[Any, NDArray[np.int16]]] = deque()

        def oldest() -> NDArray[np.int16]:
            written, rows = asked.popleft()
            written.result()
            return rows

        for turn, number in enumerate(order):
            block, buffer = self._blocks[number], turn % len(self._buffers)
            count = block.shape[0]
            written = self._targets[buffer][:count].write(block)
            asked.append((written, self._buffers[buffer, :count]))
            if len(asked) > _IN_FLIGHT:
                yield oldest()
        while asked:
            yield oldest()
