"""What people use today, as well as we know how to use it, over the same frames.

All of them run in one process without DataLoader workers: sending finished batches between
processes costs more than making them. Each yields every frame once an epoch, in shuffled batches
i2[B, D] that may be overwritten by the next one. Buffers that are used again begin at cache lines,
as ours do.
"""

import json
from collections.abc import Iterable, Iterator
from typing import cast

import numpy as np
import torch
import zarr
from numpy.typing import NDArray
from torch import Tensor
from webdataset.compat import WebDataset

from laughstore import layout
from train.streaming.buffers import aligned_empty

from .data import DIM, SPLIT, BenchData
from .warmth import touch_pages

POOL_FRAMES = 8192
"""Frames among which webdataset's and zarr's batches are shuffled: 64 MiB, 64 blocks."""
_SHUFFLE_BLOCKS = 64


class Memmap:
    """One giant file of rows, a batch is one gather of globally permuted rows.

    Args:
        data: its flat file.
        batch: B.
        reuse: gather into one buffer; otherwise every batch is a fresh array, as `rows[numbers]`.
    """

    def __init__(self, data: BenchData, batch: int, *, reuse: bool) -> None:
        self._rows = flat_rows(data)
        self._batch = batch
        self._buffer = aligned_empty((batch, DIM)) if reuse else None

    def warm(self) -> None:
        """Put its pages in memory. Not timed."""
        touch_pages(self._rows)

    def epoch(self, number: int) -> Iterator[Tensor]:
        """Yield the batches of one epoch."""
        order = np.random.default_rng(number).permutation(len(self._rows))
        for start in range(0, len(order), self._batch):
            rows = order[start : start + self._batch]
            if self._buffer is None:
                yield torch.from_numpy(self._rows[rows])
            else:
                out = self._buffer[: len(rows)]
                # With `clip` numpy gathers straight into `out`; the default copies it twice.
                np.take(self._rows, rows, axis=0, out=out, mode="clip")
                yield torch.from_numpy(out)


def flat_rows(data: BenchData) -> NDArray[np.int16]:
    """Return i2[N, DIM]: the rows of the flat file, mapped."""
    return np.asarray(np.memmap(data.flat, np.int16, "r").reshape(-1, DIM))


class Pool:
    """Shuffle rows of blocks: hold blocks, deal their rows out in batches, take the next ones.

    Rows are dealt once there are `POOL_FRAMES` or more, so that all but fewer than a block's are,
    whatever lengths blocks have: a pool that stopped short of a whole batch would copy what is left
    of it again and again. One copy of nearly every row, straight from the blocks that a loader gave
    into the batch: a pool of rows that blocks are copied into took up to twice as long. One gather
    a block and batch, no Python per frame. A batch's rows come in the order of their blocks; which
    rows it has is a permutation of all that the pool holds.
    """

    def __init__(self, batch: int) -> None:
        self._batch = aligned_empty((batch, DIM))
        self._blocks: list[NDArray[np.int16]] = []
        self._num_rows = 0

    def shuffled(self, blocks: Iterable[NDArray[np.int16]], seed: int) -> Iterator[Tensor]:
        """Yield batches i2[B, D] of the blocks' rows; the last one may be smaller."""
        rng = np.random.default_rng(seed)
        self._blocks, self._num_rows = [], 0
        for block in blocks:
            self._blocks.append(block)
            self._num_rows += len(block)
            if self._num_rows >= POOL_FRAMES:
                yield from self._deal(rng)
        yield from self._deal(rng)
        if self._num_rows:
            yield torch.from_numpy(self._gathered(np.arange(self._num_rows)))
        self._blocks = []

    def _deal(self, rng: np.random.Generator) -> Iterator[Tensor]:
        order = rng.permutation(self._num_rows)
        whole = self._num_rows // len(self._batch) * len(self._batch)
        for start in range(0, whole, len(self._batch)):
            rows = order[start : start + len(self._batch)]
            yield torch.from_numpy(self._gathered(np.sort(rows)))
        left = self._gathered(np.sort(order[whole:])).copy()
        self._blocks, self._num_rows = ([left] if len(left) else []), len(left)

    def _gathered(self, rows: NDArray[np.int64]) -> NDArray[np.int16]:
        """Return i2[len(rows), D]: rising rows of the pool, in the batch's memory."""
        starts = np.cumsum([0, *map(len, self._blocks)])
        edges = np.searchsorted(rows, starts).tolist()
        for i, block in enumerate(self._blocks):
            numbers, out = rows[edges[i] : edges[i + 1]] - starts[i], slice(*edges[i : i + 2])
            # As for the memmap: with `clip` numpy gathers straight into `out`.
            np.take(block, numbers, axis=0, out=self._batch[out], mode="clip")
        return self._batch[: len(rows)]


class WebDatasetBlocks:
    """Stock webdataset over the same shards: a sample is a block of 128 frames.

    Shards are shuffled, blocks in a buffer of 64 of them, rows in a pool of 64 blocks.
    """

    name = "webdataset"

    def __init__(self, data: BenchData, batch: int) -> None:
        self._urls = [str(path) for path in data.shards]
        self._pool = Pool(batch)

    def epoch(self, number: int) -> Iterator[Tensor]:
        """Yield the batches of one epoch."""
        samples = WebDataset(
            self._urls, shardshuffle=len(self._urls), empty_check=False, seed=number
        )
        shuffled = cast("Iterable[dict[str, bytes]]", samples.shuffle(_SHUFFLE_BLOCKS))
        return self._pool.shuffled((_decode(sample) for sample in shuffled), number)


class ZarrBlocks:
    """Stock zarr-python over the same arrays: inner chunks of 128 frames in permuted order.

    zarr-python checks the CRC-32C of every chunk, because the arrays' codec says so.
    """

    name = "zarr-python"

    def __init__(self, data: BenchData, batch: int) -> None:
        self._block_frames = data.index.block_frames
        self._pool = Pool(batch)
        self._arrays: list[zarr.Array] = []
        for stream in data.index.streams(SPLIT):
            path = layout.array(
                layout.FEATURES, stream.split, stream.recording_id, stream.assignment
            )
            self._arrays.append(zarr.open_array(data.store / path, mode="r"))
        self._blocks = [
            (array, start)
            for array in self._arrays
            for start in range(0, array.shape[0], self._block_frames)
        ]

    def epoch(self, number: int) -> Iterator[Tensor]:
        """Yield the batches of one epoch."""
        order = np.random.default_rng(number).permutation(len(self._blocks)).tolist()
        return self._pool.shuffled((self._read(*self._blocks[i]) for i in order), number)

    def _read(self, array: zarr.Array, start: int) -> NDArray[np.int16]:
        return np.asarray(array[start : start + self._block_frames]).view(np.int16)


def _decode(sample: dict[str, bytes]) -> NDArray[np.int16]:
    num_frames = json.loads(sample["json"])["num_frames"]
    bits = np.frombuffer(sample["bf16"], np.int16, num_frames * DIM)
    return bits.reshape(num_frames, DIM)
