"""Which row of a matrix holds which frame, and back: arithmetic only, the same for every reader.

Shards stand in the matrix one behind the other, each at a multiple of
`ShardGeometry.map_alignment`, raw or as if they were raw, so that a row number means the same
whether files are mapped or fetched.
"""

import operator
from collections.abc import Sequence
from typing import Any, NamedTuple, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..index import Index, Shard, Stream
from ..naming import block_key

NO_ROW = -1

Numbers = Sequence[int] | NDArray[np.integer[Any]]  # Any: of any width
"""Whole numbers as callers have them; `numbers` makes i64[N] of them."""


class FramePlace(NamedTuple):
    """One frame in words."""

    recording_id: str
    assignment: str
    frame: int
    """Of the stream, from 0; its row has heard audio strictly before frame * 80 ms."""


class RowTable:
    """Rows of some shards of an index.

    Args:
        index: names the shards.
        shards: at least one, in block order.

    Attributes:
        starts: i64[shards] bytes from the beginning of the matrix to each shard.
        num_bytes: of the whole matrix.
        low: the least block; `first_row` begins there.
        first_row: i64[high - low] row of the first frame of each block; NO_ROW for blocks between
            that are of no shard here.
    """

    def __init__(self, index: Index, shards: Sequence[Shard]) -> None:
        assert shards, "a matrix of no shards"
        geometry = index.geometry
        self.index, self.shards = index, shards
        counts = np.array([shard.num_blocks for shard in shards], np.int64)
        firsts = np.array([shard.first_block for shard in shards], np.int64)
        raw_bytes = np.zeros(int(counts.max()) + 1, np.int64)
        for count in np.unique(counts).tolist():
            raw_bytes[count] = geometry.shard_bytes(count)
        alignment = geometry.map_alignment
        ends = np.cumsum(-(-raw_bytes[counts] // alignment) * alignment)
        self.starts: NDArray[np.int64] = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
        self.num_bytes = int(ends[-1])
        self._counts, self._first_blocks = counts, firsts
        self._start_rows = self.starts // geometry.row_bytes
        self.low = int(firsts.min())
        self.first_row: NDArray[np.int64] = np.full(
            int((firsts + counts).max()) - self.low, NO_ROW, np.int64
        )
        shard = np.repeat(np.arange(len(shards)), counts)
        slot = np.arange(len(shard)) - np.repeat(np.cumsum(counts) - counts, counts)
        self.first_row[firsts[shard] + slot - self.low] = (
            self._start_rows[shard] + geometry.header_rows + slot * geometry.rows_per_block
        )

    def row_numbers(
        self, frames: NDArray[np.int64], first_row: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Return the row that holds each frame.

        Args:
            frames: i64[N] global frame ids.
            first_row: this table's, or one with NO_ROW for more blocks.

        Raises:
            ConfigError: a frame's block has no row.
        """
        # NumPy divides many by one quickly, and finds remainders slowly.
        block = frames // self.index.block_frames
        offset = frames - block * self.index.block_frames
        block -= self.low
        if len(block) and not 0 <= block.min() <= block.max() < len(first_row):
            raise self._foreign(frames)
        first = first_row[block]
        if len(first) and first.min() < 0:
            raise self._foreign(frames)
        first += offset
        return first

    def places(self, blocks: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return where blocks stand in `first_row`. Raises ConfigError as `row_numbers`."""
        places = blocks - self.low
        inside = len(blocks) == 0 or 0 <= places.min() <= places.max() < len(self.first_row)
        if not inside or (self.first_row[places] == NO_ROW).any():
            raise self._foreign(blocks * self.index.block_frames)
        return places

    def frames_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the global frame id that each row holds (i64[N] from i64[N]).

        Raises:
            ConfigError: a row holds no frame: a header, padding, or behind the end of a stream.
        """
        geometry = self.index.geometry
        shard = np.searchsorted(self._start_rows, rows, "right") - 1
        slot, row = np.divmod(rows - self._start_rows[shard], geometry.rows_per_block)
        row -= geometry.header_rows
        block = self._first_blocks[shard] + slot
        frames = block * geometry.block_frames + row
        used = np.unique(shard)
        ends = np.zeros(len(self.shards), np.int64)
        ends[used] = [self._end_frame(self.shards[i].stream) for i in used.tolist()]
        good = (rows >= 0) & (slot < self._counts[shard]) & (row >= 0) & (frames < ends[shard])
        if not good.all():
            raise ConfigError(
                f"row {rows[~good][0]} of {self.index.where} holds no frame; headers and padding"
                " stand between blocks"
            )
        return frames

    def locate(self, row: int) -> FramePlace:
        """Return whose frame a row is. Raises ConfigError as `frames_of`."""
        frame = int(self.frames_of(np.array([row]))[0])
        stream = self.shard_of(frame // self.index.block_frames).stream
        first = stream.first_block * self.index.block_frames
        return FramePlace(stream.recording_id, stream.assignment, frame - first)

    def shard_of(self, block: int) -> Shard:
        """Return the shard that holds a block."""
        return self.shards[int(np.searchsorted(self._first_blocks, block, "right")) - 1]

    def _end_frame(self, stream: Stream) -> int:
        return stream.first_block * self.index.block_frames + stream.num_frames

    def _foreign(self, frames: NDArray[np.int64]) -> ConfigError:
        here = (frames // self.index.block_frames) - self.low
        inside = (here >= 0) & (here < len(self.first_row))
        known = inside & (self.first_row[np.where(inside, here, 0)] != NO_ROW)
        if known.all():
            return ConfigError(
                f"{self.index.where}: frames were asked for that are not ready; prepare their"
                " blocks first"
            )
        return ConfigError(
            f"{self.index.where}: frame {frames[~known][0]} is of another split, or of none"
        )


def numbers(values: Numbers) -> NDArray[np.int64]:
    """Return whole numbers as i64[N]: sums of narrower types would wrap round.

    Raises:
        ConfigError: they are no list of whole numbers.
    """
    found = np.asarray(values)
    if found.ndim != 1 or (found.dtype.kind not in "iu" and len(found)):
        raise ConfigError(
            f"frames and blocks are a list of whole numbers; this is {found.dtype} of shape"
            f" {found.shape}"
        )
    return found.astype(np.int64, copy=False)


def frame_range(
    stream: Stream, start: SupportsIndex, stop: SupportsIndex | None
) -> tuple[int, int]:
    """Return (start, stop) as plain integers; None as the end of the stream.

    Raises:
        ConfigError: they are no whole numbers, or lie outside the stream.
    """
    try:
        first = operator.index(start)
        end = stream.num_frames if stop is None else operator.index(stop)
    except TypeError as error:
        raise ConfigError(
            f"frames {start!r} to {stop!r}: start and stop are whole numbers of frames (12.5 a"
            " second)"
        ) from error
    if not 0 <= first <= end <= stream.num_frames:
        raise ConfigError(
            f"frames {first} to {end} lie outside {stream.recording_id!r}, which has"
            f" {stream.num_frames} frames"
        )
    return first, end


def sample_name(index: Index, shard: Shard, block: int) -> str:
    """Return shard and sample of a block, for messages."""
    stream = shard.stream
    key = block_key(stream.recording_id, stream.assignment, block - stream.first_block)
    return f"{index.folder.describe(shard.name)}, sample {key}"
