"""Memory of batches: used again once nobody refers to it, or shared with another process."""

import os
import sys
import threading
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from laughstore.errors import ConfigError
from laughstore.geometry import HUGE_PAGE_BYTES

RING_BUFFERS: Final = 3
"""Page-locked memory is used again at the earliest for the third batch after, plus those that are
made ahead."""
_LINE_BYTES: Final = 64
_SHARED_MEMORY: Final = Path("/dev/shm")
_ROW_EXTRAS: Final = 16
"""Bytes of target, weight and frame id."""
_PREFETCHED: Final = 2
"""Batches that a DataLoader has in the making for each worker, by default."""


class BufferRing:
    """Buffers that are used again; one that is still referred to is left to whoever does.

    So a batch that is dropped costs no fresh memory, and one that is kept stays as it is. The
    buffer that was used last comes first, as the processor's caches hold most of it. Page-locked
    ones come in turn: they rest for RING_BUFFERS - 1 batches or more, as copies to a GPU may still
    run. Threads may ask side by side.

    Args:
        shape: of a buffer, int16.
        pin_memory: page-locked, for asynchronous copies to a GPU.
        reuse: False: each buffer is fresh.
        num_ahead: batches that are in the making while one is used; threads may make them.
    """

    def __init__(
        self, shape: tuple[int, int], *, pin_memory: bool, reuse: bool = True, num_ahead: int = 0
    ) -> None:
        self._shape, self._pin_memory, self._reuse = shape, pin_memory, reuse
        # Threads take buffers in another order than steps have, by less than num_ahead.
        self._most = RING_BUFFERS + 2 * num_ahead
        self._lock = threading.Lock()
        # Tensors over a numpy array hold it as long as any tensor shares their memory, so that its
        # reference count tells of views, too.
        self._arrays: list[NDArray] = []
        """In the order of use."""

    def next(self) -> Tensor:
        """Return int16[shape] with any content."""
        if not self._reuse:
            return self._fresh()
        with self._lock:
            array = self._take()
            if array is None:
                array = self._fresh().numpy()
            self._arrays.append(array)
            return torch.from_numpy(array)

    def _take(self) -> NDArray | None:
        """Take out a buffer that nobody refers to, if there is one."""
        arrays = self._arrays
        is_full = len(arrays) == self._most
        places = range(int(is_full)) if self._pin_memory else reversed(range(len(arrays)))
        for place in places:
            if _num_references(arrays, place) == _ONLY_THE_LIST:
                return arrays.pop(place)
        if is_full:
            del arrays[0]  # left to whoever refers to it
        return None

    def _fresh(self) -> Tensor:
        if self._pin_memory:
            return torch.empty(self._shape, dtype=torch.int16, pin_memory=True)
        return torch.from_numpy(aligned_empty(self._shape))


def aligned_empty(shape: tuple[int, int]) -> NDArray[np.int16]:
    """Return i2[shape] with any content, beginning at a cache line; a large one at a huge page.

    NumPy asks for huge pages: the first touch of 32 MiB takes half of the time. But its arrays
    begin 16 bytes behind a line, and every word of a copy from a page would then lie across two
    lines: 1.2 to 1.3 times as slow. And a huge page begins at a multiple of its size: of 4 MiB
    that begin elsewhere half is in small pages.
    """
    num_bytes = shape[0] * shape[1] * np.dtype(np.int16).itemsize
    alignment = HUGE_PAGE_BYTES if num_bytes >= HUGE_PAGE_BYTES else _LINE_BYTES
    memory = np.empty(num_bytes + alignment, np.uint8)
    start = -memory.ctypes.data % alignment
    return memory[start : start + num_bytes].view(np.int16).reshape(shape)


def _num_references(arrays: list[NDArray], place: int) -> int:
    return sys.getrefcount(arrays[place])


# Counted, not known: whether an argument counts is up to the interpreter. One too few, and a batch
# that somebody holds would be overwritten.
_ONLY_THE_LIST: Final = _num_references([np.empty(0)], 0)


class SharedBuffers:
    """Buffers in shared memory, for a DataLoader worker: a batch crosses without a copy.

    Args:
        shape: of a buffer, int16.
        num_workers: of the loader.
    """

    def __init__(self, shape: tuple[int, int], num_workers: int) -> None:
        self._shape, self._num_workers = shape, num_workers
        self._batch_bytes = shape[0] * (2 * shape[1] + _ROW_EXTRAS)

    def next(self) -> Tensor:
        """Return int16[shape] of zeros.

        Raises:
            ConfigError: shared memory is too small; writing to it would end the process.
        """
        check_shared_memory(self._batch_bytes, self._num_workers)
        # As torch's own collate function does: a tensor that is moved there later is copied.
        storage = torch.UntypedStorage._new_shared(2 * self._shape[0] * self._shape[1])
        return torch.empty(0, dtype=torch.int16).set_(storage, 0, self._shape, (self._shape[1], 1))


def check_shared_memory(batch_bytes: int, num_workers: int) -> None:
    """Make sure that each worker can write a batch to shared memory now.

    Args:
        batch_bytes: of one batch.
        num_workers: of the loader; each may be about to write one.

    Raises:
        ConfigError: /dev/shm is too small; the message says how much is needed and the fix.
    """
    found = shared_memory_bytes()
    if found is None:
        return
    total, free = found
    # Every worker's finished batches, one that each is making, and one that the consumer holds.
    needed = batch_bytes * (num_workers * (_PREFETCHED + 1) + 1)
    if total >= needed and free >= batch_bytes * num_workers:
        return
    raise ConfigError(
        f"{_SHARED_MEMORY} is too small for batches of {num_workers} DataLoader workers: they need"
        f" {_mib(needed)}, it has {_mib(total)}, {_mib(free)} of them free; use num_workers=0,"
        " which is as fast, or make it larger (docker run --shm-size)"
    )


def shared_memory_bytes() -> tuple[int, int] | None:
    """Return (size, free bytes) of the shared memory; None where it has no size of its own."""
    try:
        found = os.statvfs(_SHARED_MEMORY)
    except (OSError, AttributeError):
        return None
    return found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:.1f} MiB"
