"""What a process holds while it streams through windows of memory: epoch after epoch the same.

Watched in a process of its own: anonymous memory (RssAnon), open file handles and shared memory, of
DataLoader workers too.

The limit. A tenth of the data set is what the stream may add to the process's anonymous memory; a
watcher reads RssAnon at every batch. Linux has no limit of its own on that outside a control group:
RLIMIT_AS and RLIMIT_DATA count the addresses that the window reader reserves, as many as the data
set has bytes, touched or not. RLIMIT_DATA is set all the same once they are reserved, so that
everything else that allocates, such as the heap, fails beyond a tenth of the data set.
"""

import multiprocessing
import os
import resource
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from laughstore import open_shards
from train.streaming.batch import Batch
from train.streaming.stream import FrameStream

from .data import FRAME_BYTES, SPLIT, BenchData
from .measure import Result, summary

LANES, WINDOW_BLOCKS, BATCH = 16, 4, 512
EPOCHS = 3
TIMES_THE_LIMIT = 10
"""The data set is so many times as large as what the stream may take."""
_SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Held:
    """What was held during one epoch, by this process and the workers together."""

    most_anonymous_bytes: int
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
    limit_bytes: int
    """What the stream may add."""
    epochs: tuple[Held, ...]


def limit_for(shards: Path, num_frames: int) -> int:
    """Return how many bytes a stream may add: a tenth of the data set.

    Of a data set that is too small for that (a quick run), what windows, the next ones, and a half
    more take.
    """
    window_bytes = LANES * WINDOW_BLOCKS * open_shards(shards).geometry.data_bytes
    return max(num_frames * FRAME_BYTES // TIMES_THE_LIMIT, 3 * window_bytes)


def watch_apart(shards: Path, num_frames: int, num_workers: int, batch: int = BATCH) -> Watched:
    """Return what a fresh process holds over EPOCHS epochs; see `watch`."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(watch, shards, num_frames, num_workers, batch).result()


def watch(shards: Path, num_frames: int, num_workers: int, batch: int) -> Watched:
    """Stream EPOCHS epochs and return what this process and its workers held.

    Args:
        shards: a store.
        num_frames: that an epoch must deliver.
        num_workers: of a DataLoader; 0 for none.
        batch: rows of one.

    Raises:
        AssertionError: memory passes the limit, or frames are missing.
    """
    torch.set_num_threads(1)
    names_before = _shared_files()
    torch.empty(batch * FRAME_BYTES // 2, dtype=torch.int16).zero_()  # what torch loads at first
    before_bytes = _status(os.getpid(), "RssAnon")
    limit_bytes = limit_for(shards, num_frames)
    stream = FrameStream(
        shards,
        SPLIT,
        global_batch=batch,
        lanes=LANES,
        window_blocks=WINDOW_BLOCKS,
        reader="window",
        verify="first",
    )
    epochs: list[Held] = []
    with stream:
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
    return Watched(before_bytes, limit_bytes, tuple(epochs))


def window_memory(data: BenchData, num_workers: int) -> list[Result]:
    """Return what the window reader holds over these frames, epoch by epoch."""
    watched = watch_apart(data.store, data.num_frames, num_workers)
    name = "window reader" + (f", {num_workers} DataLoader workers" if num_workers else "")
    anonymous = [held.most_anonymous_bytes for held in watched.epochs]
    rows: list[tuple[str, str, list[float]]] = [
        ("anonymous memory, most in each epoch", "MB", [size / 1e6 for size in anonymous]),
        ("the same, of the first epoch's", "of it", [size / anonymous[0] for size in anonymous]),
        ("file handles", "", [float(held.most_handles) for held in watched.epochs]),
        ("shared memory", "MB", [held.most_shared_bytes / 1e6 for held in watched.epochs]),
        ("files left in /dev/shm", "", [float(held.shared_files) for held in watched.epochs]),
    ]
    if num_workers == 0:
        added = [(size - watched.before_bytes) / watched.limit_bytes for size in anonymous]
        limit = f"{watched.limit_bytes / data.num_frames / FRAME_BYTES:.1f} of the data set"
        rows.append((f"memory it adds; allowed are {limit}", "of it", added))
    return [summary(f"{name}: {what}", unit, values) for what, unit, values in rows]


def _epoch(batches: Iterator[Batch], num_frames: int, names_before: set[str]) -> Held:
    anonymous = handles = shared = delivered = 0
    for batch in batches:
        delivered += int(batch.weight.sum())
        del batch
        processes = [os.getpid(), *_children()]
        anonymous = max(anonymous, sum(_status(process, "RssAnon") for process in processes))
        shared = max(shared, sum(_status(process, "RssShmem") for process in processes))
        handles = max(handles, sum(_num_handles(process) for process in processes))
    if delivered != num_frames:
        raise AssertionError(f"{delivered} frames of {num_frames} were delivered")
    return Held(anonymous, handles, shared, len(_shared_files() - names_before))


def _limit_data(more_bytes: int) -> None:
    """Let this process allocate so much beyond what it has reserved now."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (_status(os.getpid(), "VmData") + more_bytes, hard))


def _children() -> list[int]:
    """Return the process ids of this process's children: workers, of whichever thread."""
    found: list[int] = []
    for path in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):
            found += map(int, path.read_text().split())
    return found


def _status(process: int, field: str) -> int:
    """Return a size in bytes out of /proc/<process>/status; 0 once it has ended."""
    with suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    return 0


def _shared_files() -> set[str]:
    """Return what torch has under /dev/shm."""
    return {path.name for path in _SHARED_MEMORY.glob("torch_*")}


def _num_handles(process: int) -> int:
    with suppress(OSError):
        return sum(1 for _ in Path(f"/proc/{process}/fd").iterdir())
    return 0
