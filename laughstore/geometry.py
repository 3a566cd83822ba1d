"""Where every byte of a shard stands: one file that is a tar, a Zarr shard and a matrix of rows.

A row is one frame's bytes. Every block takes exactly `rows_per_block = block_frames + header_rows`
rows of the file: first header_rows rows that hold tar headers and JSON, then the frames.

    block b, from byte b * rows_per_block * row_bytes:
      512   checksum and padding of block b - 1, or (b = 0) the preamble, a zero-length tar member
      512   tar header of <key>.json
      ...   json_bytes: JSON padded with spaces
      512   tar header of <key>.bf16
      rows  block_frames rows of bfloat16, little-endian
    after the last block:
      512   its checksum (4 bytes, little-endian CRC-32C) and padding
      1024  tar end of archive
      ...   zeros up to a whole number of rows
      index (offset, bytes) as two u64 a slot, then their CRC-32C: Zarr's `sharding_indexed`, last

Frame i of block b is row `b * rows_per_block + header_rows + i`, in every file, for every dim.

Compressed blocks have sizes of their own: the same members in the same order, each content padded
to a multiple of 512 bytes, so that all offsets follow from the blocks' encoded sizes
(`block_offsets`, `encoded_shard_bytes`). Such a file is no matrix.
"""

import math
import mmap
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import ConfigError

TAR_BLOCK = 512
ITEM_BYTES = 2
"""bfloat16."""
CRC_BYTES = 4
HUGE_PAGE_BYTES = 2 << 20
"""Of x86 and, where pages have 4 KiB, of ARM."""
_MAX_GAP_BYTES = 16 << 20
"""Of addresses behind a file that is mapped."""
_MIN_HEADER_BYTES = 2048
"""Three tar headers or tails of 512 bytes and at least 512 bytes of JSON."""
_END_OF_ARCHIVE = 2 * TAR_BLOCK
MIN_DIM, MAX_DIM = 2, 65_536
MAX_BLOCK_BYTES = 64 << 20
"""What a reader may have to allocate for one block, whatever a store says."""
MAX_SHARD_FRAMES = 1 << 20
"""23 hours. A chunk of codes has as many frames and is read whole."""


@dataclass(frozen=True)
class ShardGeometry:
    """Sizes and offsets of shards of `dim`-channel bfloat16 frames."""

    dim: int
    block_frames: int = 128
    shard_frames: int = 4096

    def __post_init__(self) -> None:
        if not MIN_DIM <= self.dim <= MAX_DIM or self.dim % 2:
            raise ConfigError(
                f"dim is {self.dim}; frames need an even number of channels, {MIN_DIM} to {MAX_DIM}"
            )
        if self.block_frames < 1 or self.block_frames * self.row_bytes % TAR_BLOCK:
            raise ConfigError(
                f"block_frames is {self.block_frames}; {self.block_frames} rows of"
                f" {self.row_bytes} bytes must be a multiple of {TAR_BLOCK} bytes"
            )
        if self.data_bytes > MAX_BLOCK_BYTES:
            raise ConfigError(
                f"block_frames is {self.block_frames}; a block of {self.data_bytes} bytes is more"
                f" than {MAX_BLOCK_BYTES}"
            )
        if self.shard_frames < 1 or self.shard_frames % self.block_frames:
            raise ConfigError(
                f"shard_frames is {self.shard_frames}; it must be a multiple of"
                f" block_frames ({self.block_frames})"
            )
        if self.shard_frames > MAX_SHARD_FRAMES:
            raise ConfigError(
                f"shard_frames is {self.shard_frames}; a shard has at most {MAX_SHARD_FRAMES}"
            )

    @property
    def row_bytes(self) -> int:
        """Bytes of one frame."""
        return self.dim * ITEM_BYTES

    @property
    def header_rows(self) -> int:
        """Rows before a block's frames: fewest whose bytes are a multiple of 512 and >= 2048."""
        step = TAR_BLOCK // math.gcd(TAR_BLOCK, self.row_bytes)
        rows = -(-_MIN_HEADER_BYTES // self.row_bytes)
        return -(-rows // step) * step

    @property
    def rows_per_block(self) -> int:
        """Rows of the file that a block takes, headers included."""
        return self.block_frames + self.header_rows

    @property
    def blocks_per_shard(self) -> int:
        """Slots of the Zarr index."""
        return self.shard_frames // self.block_frames

    @property
    def json_bytes(self) -> int:
        """Bytes of the JSON member, padding included."""
        return self.header_rows * self.row_bytes - 3 * TAR_BLOCK

    @property
    def data_bytes(self) -> int:
        """Bytes of a block's frames."""
        return self.block_frames * self.row_bytes

    @property
    def content_bytes(self) -> int:
        """Bytes of a block's frames and their checksum: a `.bf16` member, an encoded raw block."""
        return self.data_bytes + CRC_BYTES

    @property
    def max_encoded_bytes(self) -> int:
        """Bytes that no encoded block passes: `ZSTD_compressBound` of the content (RFC 8878)."""
        return self.content_bytes + self.content_bytes // 256 + 64

    @property
    def index_bytes(self) -> int:
        """Bytes of the Zarr shard index."""
        return 16 * self.blocks_per_shard + CRC_BYTES

    @property
    def map_alignment(self) -> int:
        """Files mapped in a row start at multiples of this many bytes: whole rows, whole pages.

        And whole huge pages, as only there a file's can be mapped, where that leaves small gaps.
        """
        huge = math.lcm(self.row_bytes, mmap.PAGESIZE, HUGE_PAGE_BYTES)
        if huge <= min(_MAX_GAP_BYTES, self.shard_bytes(self.blocks_per_shard) // 4):
            return huge
        return math.lcm(self.row_bytes, mmap.PAGESIZE)

    def data_offset(self, block: int) -> int:
        """Return the byte at which the frames of block `block` of a shard begin."""
        return (block * self.rows_per_block + self.header_rows) * self.row_bytes

    def shard_bytes(self, num_blocks: int) -> int:
        """Return the size of a shard of this many raw blocks: a whole number of rows."""
        return self._file_bytes(num_blocks * self.rows_per_block * self.row_bytes + TAR_BLOCK)

    def block_offsets(self, block_bytes: ArrayLike) -> NDArray[np.int64]:
        """Return where the content of each block of one shard begins.

        Args:
            block_bytes: i8[n] encoded size of each block, checksum included, in file order; 1 to
                `max_encoded_bytes`. Sizes of raw blocks are `content_bytes`.

        Returns:
            i8[n] bytes from the beginning of the file.
        """
        steps = _padded(np.asarray(block_bytes, np.int64)) + self._between_bytes
        return self._first_offset + np.concatenate([[0], np.cumsum(steps[:-1])])[: len(steps)]

    def encoded_shard_bytes(self, block_bytes: ArrayLike) -> int:
        """Return the size of a shard of blocks of these encoded sizes: a whole number of rows.

        Args:
            block_bytes: as of `block_offsets`.
        """
        padded = _padded(np.asarray(block_bytes, np.int64))
        members = int(padded.sum()) + len(padded) * self._between_bytes
        return self._file_bytes(TAR_BLOCK + members)

    @property
    def _first_offset(self) -> int:
        return self.header_rows * self.row_bytes

    @property
    def _between_bytes(self) -> int:
        """From the padded end of one content to the next: two tar headers and the JSON."""
        return 2 * TAR_BLOCK + self.json_bytes

    def _file_bytes(self, members_end: int) -> int:
        end = members_end + _END_OF_ARCHIVE + self.index_bytes
        return -(-end // self.row_bytes) * self.row_bytes

    def stream_bytes(self, num_frames: int) -> int:
        """Return the bytes of all shards of a stream of this many frames."""
        return sum(
            self.shard_bytes(self.blocks_in_shard(num_frames, shard))
            for shard in range(self.num_shards(num_frames))
        )

    def num_blocks(self, num_frames: int) -> int:
        """Return how many blocks hold this many frames of one stream."""
        return -(-num_frames // self.block_frames)

    def num_shards(self, num_frames: int) -> int:
        """Return how many shards hold this many frames of one stream."""
        return -(-num_frames // self.shard_frames)

    def blocks_in_shard(self, num_frames: int, shard: int) -> int:
        """Return the blocks in shard `shard` (0-based) of a stream of `num_frames` frames."""
        left = self.num_blocks(num_frames) - shard * self.blocks_per_shard
        return max(0, min(left, self.blocks_per_shard))


def _padded(num_bytes: NDArray[np.int64]) -> NDArray[np.int64]:
    return -(-num_bytes // TAR_BLOCK) * TAR_BLOCK
