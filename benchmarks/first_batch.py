"""From a path to the first batch, where the time goes, and what planning an epoch takes."""

import multiprocessing
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import crc32c
import numpy as np
import torch
from numpy.typing import NDArray

from laughstore import open_shards
from laughstore.labels import LabelSpec
from laughstore.reading.rows import Reader
from train.streaming.choices import Verify
from train.streaming.order import Order
from train.streaming.selection import select
from train.streaming.source import FrameSource
from train.streaming.stream import FrameStream

from .data import SPLIT
from .measure import Contestant, Result, Unit, summary

BATCH, LANES, WINDOW_BLOCKS = 4096, 64, 8
"""The stream's defaults."""
_BLOCK_FRAMES = 128
_EVERY_POSITIVE = 25
_MS = (Unit("ms", 1e3, is_rate=False),)


def first_batches(store: Path) -> list[Contestant]:
    """Return first batches of all readers, beside the checksums of their windows' blocks."""
    group = f"first batch of {BATCH}"
    with FrameStream(store, SPLIT, global_batch=BATCH) as stream:
        num_blocks = len(_first_blocks(stream))
        block = np.zeros(stream.selection.index.geometry.data_bytes, np.uint8)

    def checksums() -> float:
        for _ in range(num_blocks):
            crc32c.crc32c(block)
        return 1.0

    name = f"CRC-32C of {num_blocks} blocks, those of the first windows"
    found = [Contestant(name, checksums, _MS, group)]
    kinds: list[tuple[str, Reader, Verify]] = [
        ("FrameStream(...) to first batch, files mapped, verify never", "map", "never"),
        ("FrameStream(...) to first batch, files mapped, verify first", "map", "first"),
        ("FrameStream(...) to first batch, window reader", "window", "first"),
    ]
    for name, reader, verify in kinds:
        found.append(FirstBatch(store, reader, verify).contestant(name, group))
    return found


class FirstBatch:
    """A new stream's first batch."""

    def __init__(self, store: Path, reader: Reader, verify: Verify) -> None:
        self._store = store
        self._reader: Reader = reader
        self._verify: Verify = verify
        self._stop: list[Callable[[], None]] = []

    def contestant(self, name: str, group: str) -> Contestant:
        """Return it; closing the stream is not on the clock."""
        return Contestant(name, self._run, _MS, group, check=self._check)

    def _run(self) -> float:
        stream = FrameStream(
            self._store, SPLIT, global_batch=BATCH, reader=self._reader, verify=self._verify
        )
        batches = iter(stream)
        self._batch = next(batches)
        self._stop = [batches.close, stream.close]
        return 1.0

    def _check(self) -> None:
        if self._batch.num_real != BATCH or self._batch.x.any():
            raise AssertionError("the first batch is not one of zeros")
        for stop in self._stop:
            stop()


def stages(store: Path, repeats: int) -> list[Result]:
    """Return how long each part of making the first batch takes, done one after the other.

    FrameStream does some of them at the same time.
    """
    rounds = [_stages(store) for _ in range(1 + repeats)][1:]
    return [
        summary(f"part of it: {name}", "ms", [1e3 * found[name] for found in rounds])
        for name in rounds[0]
    ]


def _stages(store: Path) -> dict[str, float]:
    """Return seconds of each part."""
    seconds: dict[str, float] = {}

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        seconds[name] = time.perf_counter() - began

    with stage("open the store"):
        index = open_shards(store)
    with stage("select rows and make targets"):
        selection = select(index, SPLIT, LabelSpec())
    with stage("count rows, put their targets together"):
        _, targets = selection.block_counts, selection.targets
    with stage("plan the epoch"):
        order = _order(selection.block_counts, targets)
        reads = order.plan.reads()
        positions = next(order.plan.batches())
    with stage("map the files"):
        source = FrameSource(index, SPLIT, verify="never", reader="map")
    with closing(source):
        with stage("prepare the blocks of the first windows"):
            blocks = selection.blocks[reads.block[reads.step == 0]]
            for start in range(0, len(blocks), source.blocks_a_call):
                source.prepare(blocks[start : start + source.blocks_a_call])
        with stage("frame ids of all rows"):
            frames = selection.frames_of(positions)
        with stage("gather the batch into fresh memory"):
            out = torch.empty((BATCH, source.dim), dtype=torch.int16)
            source.gather(frames, out)
    return seconds


def planning(num_frames: int, repeats: int) -> list[Result]:
    """Return time and memory of planning an epoch, in a process of its own; also with balance."""
    results: list[Result] = []
    for balance in (None, 5.0):
        what = "" if balance is None else f", balance {balance:g}"
        name = f"planning an epoch of {num_frames:,} frames{what}"
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            runs = [pool.submit(plan_epoch, num_frames, balance) for _ in range(repeats)]
            found = [run.result() for run in runs]
        results.append(summary(name, "ms", [1e3 * seconds for seconds, _ in found]))
        results.append(summary(f"{name}: peak memory", "MB", [size / 1e6 for _, size in found]))
    return results


def plan_epoch(num_frames: int, balance: float | None) -> tuple[float, int]:
    """Return (seconds, most bytes allocated at a time) of an epoch's plan, reads and first step."""
    counts = np.full(-(-num_frames // _BLOCK_FRAMES), _BLOCK_FRAMES, np.int64)
    counts[-1] -= counts.sum() - num_frames
    targets = np.zeros(num_frames, np.uint8)
    targets[::_EVERY_POSITIVE] = 1

    def plan() -> None:
        order = _order(counts, targets, balance)
        order.plan.reads()
        next(order.plan.batches())

    began = time.perf_counter()
    plan()
    seconds = time.perf_counter() - began
    tracemalloc.start()  # numpy tells it of its arrays; not on the clock
    plan()
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return seconds, peak_bytes


def _order(
    counts: NDArray[np.int64], targets: NDArray[np.generic], balance: float | None = None
) -> Order:
    return Order.of(
        counts,
        targets,
        balance=balance,
        seed=0,
        epoch=0,
        global_batch=BATCH,
        lanes=LANES,
        window_blocks=WINDOW_BLOCKS,
        mix="windows",
    )


def _first_blocks(stream: FrameStream) -> NDArray[np.int64]:
    """Return i64[K]: the blocks that the first step needs."""
    plan = _order(stream.selection.block_counts, stream.selection.targets).plan
    reads = plan.reads()
    return reads.block[reads.step == 0]
