"""What the stream is held against: copies of memory, and gathers of its rows and nothing else."""

import mmap
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import cycle

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from laughstore import open_rows
from train.streaming.buffers import aligned_empty
from train.streaming.gather import RowMatrix
from train.streaming.in_order import in_order

from .consuming import UNITS, Consumer, check_once, group_of
from .data import DIM, FRAME_BYTES, SPLIT, BenchData
from .measure import Contestant
from .warmth import touch_frames

_MEMCPY_BYTES = 256 << 20
_MEMCPY_TIMES = 16
GATHER = "bare gather of the same rows"
Gather = Callable[[NDArray[np.int64], Tensor], None]
"""Copies rows of these numbers into a tensor."""


def memcpy() -> Contestant:
    """Return the limit of everything: one thread copies 256 MiB (bytes counted once)."""
    source = np.ones(_MEMCPY_BYTES, np.uint8)
    target = np.empty_like(source)

    def run() -> float:
        for _ in range(_MEMCPY_TIMES):
            np.copyto(target, source)
        return float(_MEMCPY_TIMES * _MEMCPY_BYTES)

    def check() -> None:
        _check_copied([target])

    return Contestant("limit: memcpy of 256 MiB", run, UNITS[:1], check=check, anew=True)


def memcpy_by_two() -> Contestant:
    """Return the limit of two threads: each copies 256 MiB of its own."""
    sources = [np.ones(_MEMCPY_BYTES, np.uint8) for _ in range(2)]
    targets = [np.empty_like(source) for source in sources]

    def copy(number: int) -> None:
        for _ in range(_MEMCPY_TIMES):
            np.copyto(targets[number], sources[number])

    def run() -> float:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(copy, range(2)))
        return float(2 * _MEMCPY_TIMES * _MEMCPY_BYTES)

    def check() -> None:
        _check_copied(targets)

    name = "limit: memcpy of 256 MiB by two threads"
    return Contestant(name, run, UNITS[:1], check=check, anew=True)


def _check_copied(targets: Sequence[NDArray[np.uint8]]) -> None:
    """Raise unless these hold what was copied, and put something else there."""
    for target in targets:
        if not target.all():
            raise AssertionError("memcpy left something out")
        target[:: mmap.PAGESIZE] = 0


def with_two_torch_threads(run: Callable[[], float]) -> Callable[[], float]:
    """Return a run that may use two threads for a gather."""

    def run_with_two() -> float:
        torch.set_num_threads(2)
        try:
            return run()
        finally:
            torch.set_num_threads(1)

    return run_with_two


def bare_gathers(
    data: BenchData,
    batch: int,
    ids: NDArray[np.int64],
    copy: Contestant,
    copy_by_two: Contestant,
) -> list[Contestant]:
    """Return bare copies of the same rows in the same order: by the stream's own loop, by others.

    Row numbers are known beforehand, pages are mapped, one buffer is used over and over (five in
    turn by two threads).
    """
    rows = open_rows(data.index, SPLIT)
    blocks = np.arange(data.index.num_blocks)
    matrix = torch.from_dlpack(rows.matrix.view(np.int16))
    own, by_numpy = RowMatrix(rows.matrix), RowMatrix(rows.matrix, compiled=False)
    numbers = rows.row_numbers(ids)
    parts = [numbers[start : start + batch] for start in range(0, len(numbers), batch)]
    # More than there are batches at a time, so that nothing has to look who uses them.
    buffers = [torch.from_numpy(aligned_empty((batch, DIM))) for _ in range(5)]
    consumer = Consumer()

    def select(part: NDArray[np.int64], out: Tensor) -> None:
        torch.index_select(matrix, 0, torch.from_numpy(part), out=out)

    def gather(part: NDArray[np.int64], out: Tensor) -> None:
        own.gather(part, out.numpy())

    def take(part: NDArray[np.int64], out: Tensor) -> None:
        by_numpy.gather(part, out.numpy())

    def deliver(copy_rows: Gather) -> float:
        def batches() -> Iterator[Tensor]:
            for part in parts:
                out = buffers[0][: len(part)]
                copy_rows(part, out)
                yield out

        consumer.take(batches())
        return float(len(ids) * FRAME_BYTES)

    def deliver_by_two() -> float:
        def make(item: tuple[NDArray[np.int64], Tensor]) -> Tensor:
            part, memory = item
            gather(part, memory[: len(part)])
            return memory[: len(part)]

        consumer.take(in_order(make, zip(parts, cycle(buffers), strict=False), 2))
        return float(len(ids) * FRAME_BYTES)

    def before() -> None:
        rows.prepare(blocks, verify=False)
        touch_frames(gather, np.sort(numbers))

    def check() -> None:
        check_once(consumer.ids(), data)

    group = group_of(batch)
    selecting = partial(deliver, select)
    found = {
        GATHER: (partial(deliver, gather), copy),
        f"{GATHER} by numpy, pages touched first": (partial(deliver, take), copy),
        "bare index_select of the same rows": (selecting, copy),
        "bare index_select of the same rows, two torch threads": (
            with_two_torch_threads(selecting),
            copy_by_two,
        ),
        f"{GATHER}, two threads, a batch each": (deliver_by_two, copy_by_two),
    }
    return [
        Contestant(name, run, UNITS, group, limit, before, check)
        for name, (run, limit) in found.items()
    ]
