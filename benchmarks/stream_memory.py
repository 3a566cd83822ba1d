"""What a process holds while it streams: epoch after epoch the same, and never the data set.

Watched in a process of its own: anonymous memory (RssAnon), mapped pages of files (RssFile), open
file handles and shared memory, of DataLoader workers too.

The limit. A tenth of the data set is what the stream may add to the process's anonymous memory; a
watcher reads RssAnon at every batch. Linux has no limit of its own on that outside a control group:
RLIMIT_AS and RLIMIT_DATA count the addresses that the window reader reserves, as many as the data
set has bytes, touched or not. RLIMIT_DATA is set all the same once they are reserved, so that
everything else that allocates, such as the heap, fails beyond a tenth of the data set.
"""

import os
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader

from laughstore import open_shards
from laughstore.reading.rows import Reader
from train.streaming.batch import Batch
from train.streaming.order import Order
from train.streaming.stream import FrameStream

from .data import FRAME_BYTES, SPLIT, BenchData
from .measure import Result, summary
from .process_memory import apart, children, num_handles, status_bytes

LANES, WINDOW_BLOCKS, BATCH = 16, 4, 512
EPOCHS = 3
TIMES_THE_LIMIT = 10
"""The data set is so many times as large as what the stream may take."""
ADDED = "anonymous memory it adds"
_SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Held:
    """What was held during one epoch, by this process and the workers together."""

    most_anonymous_bytes: int
    most_file_bytes: int
    """Resident pages of mapped files, which are the page cache's."""
    most_handles: int
    """Open file handles."""
    most_shared_bytes: int
    """Resident shared memory."""
    shared_files: int
    """Names under /dev/shm at the end of the epoch that were not there before the first."""


@dataclass(frozen=True)
class Watched:
    """What a process held."""

    before_bytes: int
    """Anonymous memory before the stream was opened, of this process."""
    before_file_bytes: int
    """Resident pages of mapped files by then: of Python and its libraries."""
    limit_bytes: int
    """What the stream may add."""
    epochs: tuple[Held, ...]

    @property
    def added_mb(self) -> list[float]:
        """The most anonymous memory that the stream added, by epoch."""
        return [(held.most_anonymous_bytes - self.before_bytes) / 1e6 for held in self.epochs]

    @property
    def anonymous_mb(self) -> list[float]:
        """The most anonymous memory of all that was there, by epoch."""
        return [held.most_anonymous_bytes / 1e6 for held in self.epochs]


def limit_for(shards: Path, num_frames: int) -> int:
    """Return how many bytes a stream may add: a tenth of the data set.

    Of a data set that is too small for that (a quick run), what windows, the next ones, and a half
    more take.
    """
    window_bytes = LANES * WINDOW_BLOCKS * open_shards(shards).geometry.data_bytes
    return max(num_frames * FRAME_BYTES // TIMES_THE_LIMIT, 3 * window_bytes)


def planned_bytes(stream: FrameStream) -> int:
    """Return the most bytes of blocks that a step of the epoch needs, and as many read ahead."""
    order = Order.of(
        stream.selection.block_counts,
        stream.selection.targets,
        balance=stream.balance,
        seed=stream.seed,
        epoch=stream.epoch,
        global_batch=stream.global_batch,
        lanes=stream.lanes,
        window_blocks=stream.window_blocks,
        mix=stream.mix,
    )
    reads = order.plan.reads()
    steps = np.arange(order.plan.num_steps)
    begun = np.searchsorted(reads.step, steps, "right")
    over = np.searchsorted(np.sort(reads.last_step), steps, "left")
    ahead = stream.lanes * stream.window_blocks
    num_blocks = np.minimum(begun + ahead, len(reads.step)) - over
    return int(num_blocks.max()) * stream.selection.index.geometry.data_bytes


def watch_apart(
    shards: Path, num_frames: int, num_workers: int, batch: int = BATCH, reader: Reader = "window"
) -> Watched:
    """Return what a fresh process holds over EPOCHS epochs; see `watch`."""
    return apart(watch, shards, num_frames, num_workers, batch, reader)


def watch(shards: Path, num_frames: int, num_workers: int, batch: int, reader: Reader) -> Watched:
    """Stream EPOCHS epochs and return what this process and its workers held.

    Args:
        shards: a store.
        num_frames: that an epoch must deliver.
        num_workers: of a DataLoader; 0 for none.
        batch: rows of one.
        reader: of the stream.

    Raises:
        AssertionError: memory passes the limit, or frames are missing.
    """
    torch.set_num_threads(1)
    names_before = _shared_files()
    torch.empty(batch * FRAME_BYTES // 2, dtype=torch.int16).zero_()  # what torch loads at first
    before_bytes = status_bytes(os.getpid(), "RssAnon")
    before_file_bytes = status_bytes(os.getpid(), "RssFile")
    limit_bytes = limit_for(shards, num_frames)
    epochs: list[Held] = []
    with _opened(shards, batch, reader) as stream:
        if num_workers == 0:
            _limit_data(limit_bytes)
            batches = stream
        else:
            batches = DataLoader(
                stream,
                batch_size=None,
                num_workers=num_workers,
                persistent_workers=True,
                timeout=120,
            )
        for epoch in range(EPOCHS):
            stream.set_epoch(epoch)
            held = _epoch(iter(batches), num_frames, names_before)
            if num_workers == 0 and held.most_anonymous_bytes - before_bytes > limit_bytes:
                raise AssertionError(
                    f"epoch {epoch} added {held.most_anonymous_bytes - before_bytes} bytes of"
                    f" anonymous memory, {limit_bytes} are allowed"
                )
            epochs.append(held)
    return Watched(before_bytes, before_file_bytes, limit_bytes, tuple(epochs))


def stream_memory(data: BenchData) -> list[Result]:
    """Return what streams hold over these frames, epoch by epoch, beside what they may hold."""
    with _opened(data.store, BATCH, "window") as stream:
        windows_mb = planned_bytes(stream) / 1e6
    allowed_mb = limit_for(data.store, data.num_frames) / 1e6
    frames_mb = data.num_frames * FRAME_BYTES / 1e6
    share = f"{allowed_mb / frames_mb:.1f} of the frames"
    windows = summary(
        "limit: blocks of the open windows, and of those read ahead", "MB", [windows_mb]
    )
    allowed = summary(f"limit: what a stream may add, {share}", "MB", [allowed_mb])
    everything = summary("limit: all frames", "MB", [frames_mb])

    mine = watch_apart(data.store, data.num_frames, 0)
    found = [windows, allowed, everything]
    found.append(summary(f"window reader: {ADDED}", "MB", mine.added_mb, windows))
    found.append(summary("window reader: anonymous memory", "MB", mine.anonymous_mb))
    found += _others("window reader", mine)

    workers = watch_apart(data.store, data.num_frames, 2)
    name = "window reader, 2 DataLoader workers"
    found.append(summary(f"{name}: anonymous memory of all three", "MB", workers.anonymous_mb))
    found += _others(name, workers)

    mapped = watch_apart(data.store, data.num_frames, 0, reader="map")
    pages = [(held.most_file_bytes - mapped.before_file_bytes) / 1e6 for held in mapped.epochs]
    found.append(summary(f"files mapped: {ADDED}", "MB", mapped.added_mb, allowed))
    name = "files mapped: pages of the page cache that it maps"
    found.append(summary(name, "MB", pages, everything))
    return found


def _others(name: str, watched: Watched) -> list[Result]:
    """Return what is not anonymous memory."""
    rows: list[tuple[str, str, list[float]]] = [
        ("file handles", "", [float(held.most_handles) for held in watched.epochs]),
        ("shared memory", "MB", [held.most_shared_bytes / 1e6 for held in watched.epochs]),
        ("files left in /dev/shm", "", [float(held.shared_files) for held in watched.epochs]),
    ]
    return [summary(f"{name}: {what}", unit, values) for what, unit, values in rows]


def _opened(shards: Path, batch: int, reader: Reader) -> FrameStream:
    return FrameStream(
        shards,
        SPLIT,
        global_batch=batch,
        lanes=LANES,
        window_blocks=WINDOW_BLOCKS,
        reader=reader,
        verify="first",
    )


def _epoch(batches: Iterator[Batch], num_frames: int, names_before: set[str]) -> Held:
    anonymous = mapped = handles = shared = delivered = 0
    for batch in batches:
        delivered += int(batch.weight.sum())
        del batch
        processes = [os.getpid(), *children()]
        anonymous = max(anonymous, sum(status_bytes(process, "RssAnon") for process in processes))
        mapped = max(mapped, sum(status_bytes(process, "RssFile") for process in processes))
        shared = max(shared, sum(status_bytes(process, "RssShmem") for process in processes))
        handles = max(handles, sum(num_handles(process) for process in processes))
    if delivered != num_frames:
        raise AssertionError(f"{delivered} frames of {num_frames} were delivered")
    return Held(anonymous, mapped, handles, shared, len(_shared_files() - names_before))


def _limit_data(more_bytes: int) -> None:
    """Let this process allocate so much beyond what it has reserved now."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    vm_data = status_bytes(os.getpid(), "VmData")
    resource.setrlimit(resource.RLIMIT_DATA, (vm_data + more_bytes, hard))


def _shared_files() -> set[str]:
    """Return what torch has under /dev/shm."""
    return {path.name for path in _SHARED_MEMORY.glob("torch_*")}
