"""An epoch from the disk: the stream, and plain reads of the same blocks in the same order.

Files are put out of the page cache before every run. Pages that a process maps stay, so streams are
opened for their run alone, and `num_bytes_from_disk` tells afterwards whether all came from there.
"""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from laughstore.geometry import HUGE_PAGE_BYTES
from laughstore.index import Index
from train.plan import Plan
from train.streaming.stream import FrameStream

from .consuming import Consumer, check_once
from .data import FRAME_BYTES, SPLIT, BenchData
from .limits import memcpy
from .measure import Contestant, Unit

_UNITS = (Unit("GB/s", 1e-9),)
_LEAST_FROM_DISK = 0.95
_WRITTEN_BYTES = 16 * HUGE_PAGE_BYTES
LATER = "later epochs of FrameStream, of files that were read from the disk"
_SEQUENTIAL_BYTES = 8 << 20


def drop_from_cache(data: BenchData) -> None:
    """Put the shards out of the page cache; nothing may map them."""
    for path in data.shards:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def num_bytes_from_disk() -> int:
    """Return how many bytes this process has had read from storage."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))


def can_forget(data: BenchData) -> bool:
    """Tell whether files that were dropped come from a disk; a tmpfs keeps them."""
    drop_from_cache(data)
    began_bytes = num_bytes_from_disk()
    first = data.shards[0].read_bytes()
    return num_bytes_from_disk() - began_bytes >= _LEAST_FROM_DISK * len(first)


class ColdEpoch:
    """First epochs of new streams over files that are not in memory."""

    def __init__(self, data: BenchData, batch: int) -> None:
        self._data, self._batch = data, batch
        self._stack = ExitStack()
        self._consumer = Consumer()
        self._frames: list[NDArray[np.int64]] = []
        """Ids of each batch; -1 in pad rows."""
        self._began_bytes = 0

    def before(self) -> None:
        """Forget the files, open the stream."""
        drop_from_cache(self._data)
        self._stream = self._stack.enter_context(self._open())
        self._began_bytes = num_bytes_from_disk()

    def run(self) -> float:
        """Deliver an epoch. Returns its bytes."""
        self._frames = []
        self._consumer.take(self._batches())
        return float(self._data.num_frames * FRAME_BYTES)

    def read(self) -> None:
        """Forget the files, open the stream, deliver an epoch: what comes next is in memory."""
        self.before()
        self.run()
        _check_disk(self._data, self._began_bytes)

    def check(self) -> None:
        """All frames came once, and from the disk."""
        self.check_ids()
        _check_disk(self._data, self._began_bytes)

    def check_ids(self) -> None:
        """All frames came once."""
        self._stack.close()
        ids = np.concatenate(
            [
                ids[frame >= 0]
                for ids, frame in zip(self._consumer.ids_of_batches(), self._frames, strict=True)
            ]
        )
        check_once(ids, self._data)

    def _batches(self) -> Iterator[Tensor]:
        for batch in self._stream:
            self._frames.append(batch.frame.numpy())
            yield batch.x.view(torch.int16)
            del batch

    def blocks(self) -> NDArray[np.int64]:
        """Return i64[R]: blocks in the order in which the stream reads them."""
        with self._open() as stream:
            plan = Plan(
                stream.selection.block_counts,
                seed=stream.seed,
                epoch=0,
                global_batch=stream.global_batch,
                lanes=stream.lanes,
                window_blocks=stream.window_blocks,
            )
            return stream.selection.blocks[plan.reads(0).block]

    def _open(self) -> FrameStream:
        return FrameStream(
            self._data.index, SPLIT, global_batch=self._batch, verify="never", copy=False
        )


def write_anew(data: BenchData) -> None:
    """Write shards and flat file over themselves in large pieces, as a writer of shards does.

    What was read from a disk lies in small pages. Nothing may map the files.
    """
    for path in (*data.shards, data.flat):
        mode = path.stat().st_mode
        path.chmod(mode | stat.S_IWUSR)
        with path.open("r+b", buffering=0) as file:
            path.chmod(mode)  # as soon as it is open: this may be interrupted
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            start = 0
            while piece := os.pread(file.fileno(), _WRITTEN_BYTES, start):
                os.posix_fadvise(file.fileno(), start, len(piece), os.POSIX_FADV_DONTNEED)
                if os.pwrite(file.fileno(), piece, start) != len(piece):
                    raise AssertionError(f"{path} takes parts of what is written")
                start += len(piece)
            os.fsync(file.fileno())


def sequential_reads(data: BenchData) -> Contestant:
    """Return the limit of the disk: one thread reads the shards from beginning to end."""
    began_bytes = 0

    def before() -> None:
        nonlocal began_bytes
        drop_from_cache(data)
        began_bytes = num_bytes_from_disk()

    def run() -> float:
        buffer = bytearray(_SEQUENTIAL_BYTES)
        total = 0
        for path in data.shards:
            with path.open("rb", buffering=0) as file:
                while got := file.readinto(buffer):
                    total += got
        return float(total)

    def check() -> None:
        _check_disk(data, began_bytes)

    return Contestant(
        "limit: shards from beginning to end, one thread", run, _UNITS, "cold", None, before, check
    )


def plain_reads(
    data: BenchData, order: Callable[[], NDArray[np.int64]], limit: Contestant
) -> Contestant:
    """Return the limit of the stream: one thread preads whole blocks into one buffer."""
    began_bytes = 0

    def before() -> None:
        nonlocal began_bytes
        drop_from_cache(data)
        began_bytes = num_bytes_from_disk()

    def run() -> float:
        buffer = bytearray(data.index.geometry.data_bytes)
        view = memoryview(buffer)
        total = 0
        with ExitStack() as stack:
            files = [stack.enter_context(path.open("rb", buffering=0)) for path in data.shards]
            for shard, offset, num_bytes in _places(data.index, order()):
                got = os.preadv(files[shard].fileno(), [view[:num_bytes]], offset)
                if got != num_bytes:
                    raise AssertionError(f"{got} bytes were read, {num_bytes} asked for")
                total += got
        return float(total)

    def check() -> None:
        _check_disk(data, began_bytes)

    return Contestant(
        "limit: pread of the same blocks, one thread", run, _UNITS, "cold", limit, before, check
    )


def cold_contestants(data: BenchData, batch: int = 4096) -> list[Contestant]:
    """Return the stream and its limits."""
    ours = ColdEpoch(data, batch)
    order = ours.blocks()
    disk = sequential_reads(data)
    limit = plain_reads(data, lambda: order, disk)
    name = f"FrameStream, verify never, batch {batch}"
    cold = Contestant(name, ours.run, _UNITS, "cold", limit, ours.before, ours.check)
    later, copy = ColdEpoch(data, batch), memcpy()
    after = Contestant(LATER, later.run, _UNITS, "cold", copy, later.read, later.check_ids)
    return [disk, limit, cold, copy, after]


def _places(index: Index, blocks: NDArray[np.int64]) -> Iterator[tuple[int, int, int]]:
    """Yield (shard of the split, offset, bytes of its frames) of blocks."""
    first_blocks = np.array([shard.first_block for shard in index.split_shards(SPLIT)])
    shard_of = np.searchsorted(first_blocks, blocks, "right") - 1
    for block, shard in zip(blocks.tolist(), shard_of.tolist(), strict=True):
        slot = block - int(first_blocks[shard])
        yield shard, index.geometry.data_offset(slot), index.geometry.data_bytes


def _check_disk(data: BenchData, began_bytes: int) -> None:
    expected = data.num_frames * FRAME_BYTES
    if num_bytes_from_disk() - began_bytes < _LEAST_FROM_DISK * expected:
        raise AssertionError("frames came from memory: something still maps the shards")
