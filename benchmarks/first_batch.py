"""From a path to the first batch, and where the time goes."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import crc32c
import numpy as np
import torch
from numpy.typing import NDArray

from laughstore import open_shards
from laughstore.labels import LabelSpec
from laughstore.reading.rows import Reader, Rows, open_rows
from train.streaming.choices import Verify
from train.streaming.selection import select
from train.streaming.source import FrameSource
from train.streaming.stream import FrameStream

from .data import SPLIT
from .measure import Contestant, Result, Unit, summary
from .planning import BATCH, order_of

_MS = (Unit("ms", 1e3, is_rate=False),)


def first_batches(store: Path) -> list[Contestant]:
    """Return first batches of all readers, beside the checksums of their windows' blocks.

    Those are of the blocks where they lie in memory, mapped: of one block that the caches hold they
    would take half as long.
    """
    group = f"first batch of {BATCH}"
    with FrameStream(store, SPLIT, global_batch=BATCH) as stream:
        selection = stream.selection
        plan = order_of(selection.block_counts, selection.targets).plan
        reads = plan.reads()
        blocks = selection.blocks[reads.block[reads.step == 0]]
        frames = selection.frames_of(next(plan.batches()))
        index = selection.index
        written = index.block_crc32c[blocks]
    opened: list[Rows] = []
    found_crcs: list[int] = []

    def mapped() -> None:
        opened[:] = [open_rows(index, SPLIT, "map")]
        opened[0].prepare(blocks, verify=False)

    def checksums() -> float:
        matrix, count = opened[0].matrix, index.block_frames
        rows = opened[0].row_numbers(blocks * count).tolist()
        found_crcs[:] = [crc32c.crc32c(matrix[row : row + count]) for row in rows]
        return 1.0

    def check() -> None:
        opened.pop().close()  # else who comes next shares its pages with it
        if not np.array_equal(found_crcs, written):
            raise AssertionError("blocks have other checksums than the index says")

    name = f"CRC-32C of {len(blocks)} blocks, those of the first windows"
    found = [Contestant(name, checksums, _MS, group, before=mapped, check=check)]
    kinds: list[tuple[str, Reader, Verify]] = [
        ("FrameStream(...) to first batch, files mapped, verify never", "map", "never"),
        ("FrameStream(...) to first batch, files mapped, verify first", "map", "first"),
        ("FrameStream(...) to first batch, window reader", "window", "first"),
    ]
    for name, reader, verify in kinds:
        found.append(FirstBatch(store, reader, verify, frames).contestant(name, group))
    return found


class FirstBatch:
    """A new stream's first batch, which must have these frames, i64[BATCH]."""

    def __init__(
        self, store: Path, reader: Reader, verify: Verify, frames: NDArray[np.int64]
    ) -> None:
        self._store, self._frames = store, frames
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
        if not np.array_equal(self._batch.frame.numpy(), self._frames):
            raise AssertionError("the first batch has other frames than the plan says")
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
        order = order_of(selection.block_counts, targets)
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
