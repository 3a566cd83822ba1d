"""Blocks of shards that are not mapped: ranged reads, decoded and checked.

Works for every folder and codec. Neighbouring blocks of a shard are one read; several reads of a
remote folder run side by side, and a cache on this machine may answer instead of it.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..codec import decode_block
from ..daemon_threads import DaemonThreads
from ..errors import CorruptData, IncompleteStore, NotFound
from ..index import Index, Shard
from ..process_lock import ProcessLock
from .row_table import sample_name

if TYPE_CHECKING:
    from .shard_cache import ShardCache

_READ_BYTES = 8 << 20
"""Most bytes of one read, unless one block has more."""
_REMOTE_READS = 32
"""Reads of a remote folder side by side: at 50 ms each, 32 of 1 MiB are 640 MB/s at most."""
_REMOTE_READ_BYTES = 4 << 20
"""Most bytes of one of them: longer ones save no more time, and leave fewer to go side by side."""
_DECODERS = 4
"""Threads that decode compressed blocks of this machine, if it has as many cores."""
_CACHE_BYTES = 64 << 20

Sink = Callable[[int, NDArray[np.uint16]], None]
"""Takes (global block number, u2[block_frames, dim]); called from several threads."""


class _Run(NamedTuple):
    """Neighbouring blocks of one shard, read together."""

    shard: Shard
    slots: range
    """Blocks of the shard, from 0."""


class BlockReader:
    """Read and check blocks of some shards of an index. Safe to use from several threads.

    Args:
        index: names the shards.
        shards: in block order.
        cache: keeps blocks of remote shards; not used for those of this machine.
    """

    def __init__(
        self, index: Index, shards: Sequence[Shard], cache: "ShardCache | None" = None
    ) -> None:
        self._index, self._shards = index, shards
        self._cache = cache if index.folder.local is None else None
        self._first_blocks = np.array([shard.first_block for shard in shards], np.int64)
        self._sizes_checked: set[int] = set()
        self._remote = index.folder.local is None
        self._digests: dict[int, str] = {}
        """SHA-256 of each shard file of the index, by its first block."""
        if self._cache is not None:
            # Read now, with the checksums and sizes: after a fork the cache can be read, the remote
            # index cannot.
            firsts = [shard.first_block for shard in index.shards]
            self._digests = dict(zip(firsts, index.shard_sha256, strict=True))
            _ = index.block_crc32c, index.block_bytes
        most_bytes = _REMOTE_READ_BYTES if self._remote else _READ_BYTES
        self.blocks_of_a_read = max(1, most_bytes // index.geometry.data_bytes)
        """Most neighbours that are read together."""
        if self._remote:
            self.num_threads = _REMOTE_READS
        else:
            self.num_threads = (
                1 if index.spec.codec == "none" else min(_DECODERS, os.cpu_count() or 1)
            )

    def read(self, blocks: NDArray[np.int64], sink: Sink) -> None:
        """Hand each of these blocks to `sink`, in any order.

        Reads held in memory: of a remote folder at most 32 of 4 MiB or one block (twice that while
        an answer is put together), of a local one as many of 8 MiB as there are threads. Arrays
        share the memory of their read.

        Args:
            blocks: i64[K] global block numbers of these shards, rising.
            sink: what it raises ends the reading.

        Raises:
            CorruptData: a shard has another size than the index says, or a block was altered.
            IncompleteStore: a shard is missing.
            Unreachable: a remote store does not answer.
        """
        runs = self._runs(blocks)
        if len(runs) <= 1 or self.num_threads == 1:
            for run in runs:
                self._read_run(run, sink)
            return
        gate = _Gate()

        def deliver(block: int, rows: NDArray[np.uint16]) -> None:
            with gate.passing():
                sink(block, rows)

        # Threads of this call only: none is missed after a fork. Those that still read when it
        # ends, by an error or Ctrl-C, are left to themselves and deliver nothing.
        try:
            with DaemonThreads(min(self.num_threads, len(runs)), "laughstore") as threads:
                for future in [threads.submit(self._read_run, run, deliver) for run in runs]:
                    future.result()
        finally:
            gate.close()

    def _runs(self, blocks: NDArray[np.int64]) -> list[_Run]:
        most = self.blocks_of_a_read
        shards = np.searchsorted(self._first_blocks, blocks, "right") - 1
        runs: list[_Run] = []
        for number, block in zip(shards.tolist(), blocks.tolist(), strict=True):
            shard = self._shards[number]
            slot = block - shard.first_block
            assert 0 <= slot < shard.num_blocks, "a block of another split"
            if runs:
                last = runs[-1]
                if last.shard is shard and last.slots.stop == slot and len(last.slots) < most:
                    runs[-1] = _Run(shard, range(last.slots.start, slot + 1))
                    continue
            runs.append(_Run(shard, range(slot, slot + 1)))
        return runs

    def _read_run(self, run: _Run, sink: Sink) -> None:
        sizes = encoded_sizes(self._index, run.shard)
        if self._cache is None:
            self._fetch(run, sizes, sink)
            return
        missing = range(run.slots.start, run.slots.start)
        for slot in run.slots:
            rows = self._cached(self._cache, run.shard, slot, int(sizes[slot]))
            if rows is None:
                missing = range(missing.start, slot + 1)
                continue
            if missing:
                self._fetch(_Run(run.shard, missing), sizes, sink)
            missing = range(slot + 1, slot + 1)
            sink(run.shard.first_block + slot, rows)
        if missing:
            self._fetch(_Run(run.shard, missing), sizes, sink)

    def _cached(
        self, cache: "ShardCache", shard: Shard, slot: int, num_bytes: int
    ) -> NDArray[np.uint16] | None:
        """Return a block that is kept here, checked; a damaged one is dropped."""
        digest = self._digests[shard.first_block]
        data = cache.get(digest, slot, num_bytes)
        if data is None:
            return None
        try:
            return self._decode(shard, slot, data)
        except CorruptData:
            cache.discard(digest, slot)
            return None

    def _fetch(self, run: _Run, sizes: NDArray[np.int64], sink: Sink) -> None:
        index, shard = self._index, run.shard
        offsets = index.geometry.block_offsets(sizes)
        first, last = run.slots.start, run.slots.stop - 1
        start = int(offsets[first])
        try:
            if not self._remote:
                self._check_file(shard)
            num_bytes = int(offsets[last] + sizes[last]) - start
            data = memoryview(index.folder.read_range(shard.name, start, num_bytes))
            if self._remote:  # whose answer told the size: no request of its own
                self._check_file(shard)
        except NotFound as error:
            raise IncompleteStore(
                f"{index.folder.describe(shard.name)} is missing, the index names it; restore it,"
                " or copy the shards folder whole"
            ) from error
        for slot in run.slots:
            begin = int(offsets[slot]) - start
            encoded = data[begin : begin + int(sizes[slot])]
            rows = self._decode(shard, slot, encoded)
            sink(shard.first_block + slot, rows)
            if self._cache is not None:
                self._cache.put(self._digests[shard.first_block], slot, encoded)

    def _decode(self, shard: Shard, slot: int, data: bytes | memoryview) -> NDArray[np.uint16]:
        index, block = self._index, shard.first_block + slot
        return decode_block(
            data,
            index.spec.codec,
            index.geometry,
            where=sample_name(index, shard, block),
            expected_crc32c=int(index.block_crc32c[block]),
        )

    def _check_file(self, shard: Shard) -> None:
        if shard.first_block in self._sizes_checked:
            return
        found = self._index.folder.size(shard.name)
        if found != shard.num_bytes:
            raise CorruptData(
                f"{self._index.folder.describe(shard.name)} has {found} bytes, the index says"
                f" {shard.num_bytes}; the file was cut or replaced: restore it"
            )
        self._sizes_checked.add(shard.first_block)


class _Gate:
    """Lets work through until it is closed; closing waits for what is inside, in memory only."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._num_inside, self._closed = 0, False

    @contextmanager
    def passing(self) -> Iterator[None]:
        with self._changed:
            if self._closed:
                raise _Closed
            self._num_inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._num_inside -= 1
                self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: self._num_inside == 0)


class _Closed(Exception):
    """Nobody waits for this block any more."""


def encoded_sizes(index: Index, shard: Shard) -> NDArray[np.int64]:
    """Return i64[num_blocks], the encoded size of each block of a shard, as the index has it.

    Raises:
        CorruptData: they cannot be those of this shard; nothing is allocated by what they say.
    """
    geometry = index.geometry
    last = shard.first_block + shard.num_blocks
    sizes = index.block_bytes[shard.first_block : last].astype(np.int64)
    fits = 1 <= sizes.min() <= sizes.max() <= geometry.max_encoded_bytes
    if not fits or geometry.encoded_shard_bytes(sizes) != shard.num_bytes:
        raise CorruptData(
            f"{index.folder.describe(shard.name)}: the sizes of its blocks do not add up to the"
            f" {shard.num_bytes} bytes that the index says; restore the index"
        )
    return sizes


class CachedBlocks:
    """Consecutive frames out of blocks, the last 64 MiB of which are kept decoded.

    Args:
        index: names the shards.
        shards: in block order.
    """

    def __init__(self, index: Index, shards: Sequence[Shard]) -> None:
        self._index = index
        self._reader = BlockReader(index, shards)
        self._cache: OrderedDict[int, NDArray[np.uint16]] = OrderedDict()
        self._max_blocks = max(2, _CACHE_BYTES // index.geometry.data_bytes)
        self._lock = ProcessLock()
        self.blocks_at_once = self._reader.blocks_of_a_read * min(4, self._reader.num_threads)
        """Blocks that are best read together when all are read in order."""

    def read(self, first_frame: int, num_frames: int) -> NDArray[np.uint16]:
        """Return a fresh u2[num_frames, dim] of consecutive frames of one stream, checked.

        Args:
            first_frame: global frame id.
            num_frames: 0 or more; a block is fetched whole if one frame of it is asked for.

        Raises:
            CorruptData, IncompleteStore, Unreachable: as `BlockReader.read`.
        """
        block_frames = self._index.block_frames
        out = np.empty((num_frames, self._index.dim), np.uint16)

        def copy(block: int, rows: NDArray[np.uint16]) -> None:
            begin = block * block_frames - first_frame  # may be negative in the first block
            part = rows[max(0, -begin) : num_frames - begin]
            out[max(0, begin) : max(0, begin) + len(part)] = part

        def copy_and_keep(block: int, rows: NDArray[np.uint16]) -> None:
            copy(block, rows)
            kept = rows.copy()  # not a view that would keep a whole read alive
            with self._lock:
                self._cache[block] = kept
                while len(self._cache) > self._max_blocks:
                    self._cache.popitem(last=False)

        blocks = range(first_frame // block_frames, -(-(first_frame + num_frames) // block_frames))
        if num_frames == 0:
            return out
        missing: list[int] = []
        for block in blocks:
            with self._lock:
                rows = self._cache.get(block)
                if rows is not None:
                    self._cache.move_to_end(block)
            if rows is None:
                missing.append(block)
            else:
                copy(block, rows)
        # A long read passes by, so that it does not push out what short ones come back to.
        few = len(missing) <= max(2, self._max_blocks // 4)
        self._reader.read(np.array(missing, np.int64), copy_and_keep if few else copy)
        return out

    def close(self) -> None:
        """Drop what is kept."""
        with self._lock:
            self._cache.clear()
