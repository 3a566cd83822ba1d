"""Rows that are fetched: prepared blocks in anonymous memory, at the places of the mapped matrix.

For remote folders, compressed shards and systems without mapped files. The matrix is reserved
whole and takes memory only where blocks are ready: a block's bytes each, and up to two pages more
when its rows are no whole pages. `release` gives the pages back.
"""

import enum
import mmap
import os
import sys
import threading
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING

import crc32c
import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, CorruptData
from ..index import Index, Shard
from .blocks import BlockReader
from .memory import available_bytes
from .row_table import NO_ROW, Numbers, RowTable, numbers, sample_name
from .rows import NoRoom, Rows

if TYPE_CHECKING:
    from .shard_cache import ShardCache

_SHARE_OF_FREE = 0.6
_MAP_NORESERVE = 0x4000 if sys.platform == "linux" else 0
"""Reserve addresses, not memory (asm-generic/mman-common.h)."""


class _State(enum.IntEnum):
    EMPTY = 0
    COMING = 1
    """Some thread fetches it."""
    READY = 2


class WindowRows(Rows):
    """Shards of a split, blocks fetched as they are prepared.

    Args:
        index: names the shards.
        split: that they are of.
        shards: some of them, in block order.
        max_bytes: that ready blocks may take; 0.6 of the free memory by default.
        cache: keeps blocks of remote shards on a disk of this machine.

    Raises:
        ConfigError: the system does not give the addresses.
    """

    releases = True

    def __init__(
        self,
        index: Index,
        split: str,
        shards: Sequence[Shard],
        *,
        max_bytes: int | None = None,
        cache: "ShardCache | None" = None,
    ) -> None:
        self.index, self.split = index, split
        self._table = RowTable(index, shards)
        self._reader = BlockReader(index, shards, cache)
        if max_bytes is None:
            free = available_bytes()
            max_bytes = sys.maxsize if free is None else int(free * _SHARE_OF_FREE)
        self._max_blocks = max_bytes // index.geometry.data_bytes
        self._memory: mmap.mmap | None = _reserve(self._table.num_bytes, index.where)
        flat = np.frombuffer(self._memory, np.uint16)
        self._rows = flat.reshape(-1, self.dim)
        self._matrix = np.frombuffer(memoryview(self._memory).toreadonly(), np.uint16).reshape(
            -1, self.dim
        )
        self._ready_row = np.full(len(self._table.first_row), NO_ROW, np.int64)
        self._state = np.zeros(len(self._table.first_row), np.uint8)
        self._holds = np.zeros(len(self._table.first_row), np.int32)
        self._num_kept = 0
        """Blocks that take memory: coming or ready."""
        self._changed = threading.Condition()
        _all.add(self)

    @property
    def matrix(self) -> NDArray[np.uint16]:
        """u2[R, dim]: see `Rows.matrix`. Rows that are not ready: zeros or old frames."""
        self._open()
        return self._matrix

    @property
    def num_ready(self) -> int:
        """Blocks that are ready now."""
        return int(np.count_nonzero(self._state == _State.READY))

    def row_numbers(self, frames: Numbers) -> NDArray[np.int64]:
        """Return the row of each frame; see `Rows`.

        Raises:
            ConfigError: a frame is of another split, or of a block that is not ready.
        """
        return self._table.row_numbers(numbers(frames), self._ready_row)

    def prepare(self, blocks: Numbers, *, verify: bool) -> None:
        """Fetch the blocks that are not ready; with `verify`, check the others in memory too."""
        blocks = numbers(blocks)
        wanted = np.unique(blocks)
        ready_before = self._state[self._table.places(wanted)] == _State.READY
        self.prepare_once(blocks)
        if verify:
            try:
                for block in wanted[ready_before].tolist():
                    self._verify(block)
            except BaseException:
                self.release(blocks)
                raise

    def prepare_once(self, blocks: Numbers) -> None:
        """Fetch the blocks that are not ready; each is checked as it comes."""
        self._open()
        blocks = numbers(blocks)
        places = self._table.places(blocks)
        with self._changed:
            np.add.at(self._holds, places, 1)
        try:
            self._fetch(np.unique(blocks))
        except BaseException:
            self.release(blocks)
            raise

    def room(self) -> int:
        """Return how many blocks there is memory for now; see `Rows.room`."""
        return max(0, self._max_blocks - self._num_kept)

    def release(self, blocks: Numbers) -> None:
        """Let go of these blocks; the memory of those that nobody holds is given back."""
        memory = self._open()
        places = self._table.places(numbers(blocks))
        with self._changed:
            np.subtract.at(self._holds, places, 1)
            places = np.unique(places)
            self._holds[places] = np.maximum(self._holds[places], 0)
            free = (self._holds[places] == 0) & (self._state[places] == _State.READY)
            places = places[free]
            # Row numbers first: who asks now learns that they are not ready.
            self._ready_row[places] = NO_ROW
            for place in places.tolist():
                self._drop_pages(memory, place)
            self._state[places] = _State.EMPTY
            self._num_kept -= len(places)

    def close(self) -> None:
        """Let go of the memory, as soon as no array of it is left."""
        self._memory = None
        self._rows = self._matrix = np.empty((0, self.dim), np.uint16)
        self._ready_row[:] = NO_ROW

    def _fetch(self, wanted: NDArray[np.int64]) -> None:
        rows, places = self._rows, self._table.places(wanted)
        while True:
            lock = self._changed
            mine = wanted[:0]
            try:
                with lock:
                    mine = self._take(wanted, places)
                    if not len(mine):
                        if not (self._state[places] == _State.COMING).any():
                            return
                        # Another thread fetches the rest. If it fails, it is our turn.
                        lock.wait()
                        continue
                self._reader.read(mine, lambda block, found: self._put(rows, block, found))
            finally:
                if len(mine):
                    self._give_up(mine, lock)

    def _give_up(self, mine: NDArray[np.int64], lock: threading.Condition) -> None:
        """Leave those of our blocks that did not come to whoever waits for them."""
        with lock:
            left = mine - self._table.low
            left = left[self._state[left] == _State.COMING]
            self._state[left] = _State.EMPTY
            self._num_kept -= len(left)
            lock.notify_all()

    def _take(self, wanted: NDArray[np.int64], places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the blocks that nobody fetches, marked as ours. Called with the lock held."""
        mine = wanted[self._state[places] == _State.EMPTY]
        num_blocks = self._num_kept + len(mine)
        if num_blocks > self._max_blocks:
            block_bytes = self.index.geometry.data_bytes
            raise NoRoom(
                f"{self.index.where}: {num_blocks} blocks of {block_bytes} bytes would be in"
                f" memory, {self._max_blocks} may be; release those that were read, or give"
                " open_rows more max_bytes; a stream takes less with fewer lanes, window_blocks or"
                " num_workers, and without mix='global'"
            )
        self._state[mine - self._table.low] = _State.COMING
        self._num_kept += len(mine)
        return mine

    def _put(self, rows: NDArray[np.uint16], block: int, found: NDArray[np.uint16]) -> None:
        place = block - self._table.low
        row = int(self._table.first_row[place])
        rows[row : row + len(found)] = found
        with self._changed:
            self._ready_row[place] = row
            self._state[place] = _State.READY

    def _verify(self, block: int) -> None:
        self._open()
        row = int(self._table.first_row[block - self._table.low])
        found = crc32c.crc32c(self._matrix[row : row + self.index.block_frames])
        promised = int(self.index.block_crc32c[block])
        if found != promised:
            name = sample_name(self.index, self._table.shard_of(block), block)
            raise CorruptData(
                f"{name}: crc32c in memory is {found:08x}, the index says {promised:08x}; check"
                " the memory of this machine"
            )

    def _drop_pages(self, memory: mmap.mmap, place: int) -> None:
        if not hasattr(mmap, "MADV_DONTNEED"):
            return
        geometry = self.index.geometry
        start = int(self._table.first_row[place]) * geometry.row_bytes
        first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE  # whole pages of this block alone
        stop = (start + geometry.data_bytes) // mmap.PAGESIZE * mmap.PAGESIZE
        if stop > first:
            memory.madvise(mmap.MADV_DONTNEED, first, stop - first)

    def _open(self) -> mmap.mmap:
        if self._memory is None:
            raise ValueError("these rows were closed; open them again with open_rows")
        return self._memory

    def _renew(self) -> None:
        """In a forked child: its own lock, and no block of which a thread of the parent was busy.

        Such a thread fetched it, or had begun to release it: its row number is gone, its memory
        perhaps. Both are fetched again.
        """
        busy = (self._state != _State.READY) | (self._ready_row == NO_ROW)
        self._state[busy] = _State.EMPTY
        self._ready_row[busy] = NO_ROW
        self._num_kept = int(np.count_nonzero(self._state))
        self._changed = threading.Condition()


_all: weakref.WeakSet[WindowRows] = weakref.WeakSet()


def _renew_all() -> None:
    for rows in list(_all):
        rows._renew()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    # In the child's first and only thread, before anybody asks which rows are ready.
    os.register_at_fork(after_in_child=_renew_all)


def _reserve(num_bytes: int, where: str) -> mmap.mmap:
    """Return private zeroed memory that is taken when it is written."""
    try:
        if os.name != "posix":
            return mmap.mmap(-1, num_bytes)
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
        memory = mmap.mmap(-1, num_bytes, flags=flags)
    except OSError as error:
        raise ConfigError(
            f"{where}: the system gives no {num_bytes} bytes of addresses ({error.strerror});"
            " raise the limit of virtual memory (ulimit -v, vm.overcommit_memory)"
        ) from error
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        # One written row would take 2 MiB, and released blocks could give nothing back.
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return memory
