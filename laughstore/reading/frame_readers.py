"""Readers of single streams, opened when they are first asked for and kept.

By stream and not by split: a stream opens in a millisecond, and a lost shard of one recording does
not close the others.
"""

from collections import OrderedDict
from contextlib import suppress
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..index import Index, Shard, Stream
from ..process_lock import ProcessLock
from .blocks import CachedBlocks
from .mapped_rows import MappedRows, NoMappings
from .rows import MAX_MAPPED_PIECES, why_not_mapped

_MAX_OPEN_SHARDS = MAX_MAPPED_PIECES // 4
"""Of at most two pieces each, the ends of a stream's range among them: half for streams, half for
whole splits."""


class FrameReader(Protocol):
    """Reads consecutive frames of a stream."""

    @property
    def blocks_at_once(self) -> int:
        """Blocks that are best read together when all are read in order."""
        ...

    def read(self, first_frame: int, num_frames: int) -> NDArray[np.uint16]:
        """Return fresh u2[num_frames, dim] from a global frame id on."""
        ...

    def close(self) -> None:
        """Let go of files and memory."""
        ...


class FrameReaders:
    """The readers of an index's streams. Those used longest ago are closed when there are many.

    Args:
        index: names the shards.
    """

    def __init__(self, index: Index) -> None:
        self._index = index
        self._open: OrderedDict[Stream, FrameReader] = OrderedDict()
        self._num_shards = 0
        self._lock = ProcessLock()
        self._closed = False

    def of(self, stream: Stream) -> FrameReader:
        """Return the reader of a stream.

        Raises:
            IncompleteStore, CorruptData: as `open_rows`.
            ValueError: this was closed.
        """
        with self._lock:
            self._check_open()
            reader = self._open.get(stream)
            if reader is not None:
                self._open.move_to_end(stream)
                return reader
        reader = self._reader(stream)
        with self._lock:
            self._check_open()
            # Another thread may have opened it meanwhile: then ours is dropped.
            if stream not in self._open:
                self._open[stream] = reader
                self._num_shards += stream.num_shards
                while self._num_shards > _MAX_OPEN_SHARDS and len(self._open) > 1:
                    oldest, _ = self._open.popitem(last=False)  # whoever reads it now goes on
                    self._num_shards -= oldest.num_shards
            return self._open[stream]

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError("this store was closed; open it again with open_store")

    def close(self) -> None:
        """Close all readers."""
        with self._lock:
            self._closed = True
            for reader in self._open.values():
                reader.close()
            self._open.clear()

    def shards(self, stream: Stream) -> tuple[Shard, ...]:
        """Return the shards of a stream, in their order; cheap for large stores."""
        geometry = self._index.geometry
        first_blocks, first_shards = self._starts
        low = int(first_shards[np.searchsorted(first_blocks, stream.first_block)])
        sizes = self._index.shard_bytes[low : low + stream.num_shards].tolist()
        return tuple(
            Shard(
                number=stream.first_shard + i,
                num_bytes=num_bytes,
                stream=stream,
                first_block=stream.first_block + i * geometry.blocks_per_shard,
                num_blocks=geometry.blocks_in_shard(stream.num_frames, i),
            )
            for i, num_bytes in enumerate(sizes)
        )

    def _reader(self, stream: Stream) -> FrameReader:
        shards = self.shards(stream)
        if why_not_mapped(self._index, shards) is None:
            with suppress(NoMappings):
                return MappedRows(self._index, stream.split, shards)
        return CachedBlocks(self._index, shards)

    @cached_property
    def _starts(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """i64[streams] first block of each stream, and how many shards stand before it."""
        streams = [stream for item in self._index.recordings for stream in item.streams]
        counts = np.array([stream.num_shards for stream in streams], np.int64)
        first_blocks = np.array([stream.first_block for stream in streams], np.int64)
        return first_blocks, np.cumsum(counts) - counts
