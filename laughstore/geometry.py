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
"""

import math
import mmap
from dataclasses import dataclass

from .errors import ConfigError

TAR_BLOCK = 512
ITEM_BYTES = 2
"""bfloat16."""
CRC_BYTES = 4
_MIN_HEADER_BYTES = 2048
"""Three tar headers or tails of 512 bytes and at least 512 bytes of JSON."""
_END_OF_ARCHIVE = 2 * TAR_BLOCK
MIN_DIM, MAX_DIM = 2, 65_536


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
        if self.shard_frames < 1 or self.shard_frames % self.block_frames:
            raise ConfigError(
                f"shard_frames is {self.shard_frames}; it must be a multiple of"
                f" block_frames ({self.block_frames})"
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
    def index_bytes(self) -> int:
        """Bytes of the Zarr shard index."""
        return 16 * self.blocks_per_shard + CRC_BYTES

    @property
    def map_alignment(self) -> int:
        """Files mapped in a row start at multiples of this many bytes: whole rows, whole pages."""
        return math.lcm(self.row_bytes, mmap.PAGESIZE)

    def data_offset(self, block: int) -> int:
        """Return the byte at which the frames of block `block` of a shard begin."""
        return (block * self.rows_per_block + self.header_rows) * self.row_bytes

    def shard_bytes(self, num_blocks: int) -> int:
        """Return the size of a shard of this many blocks: a whole number of rows."""
        end = num_blocks * self.rows_per_block * self.row_bytes + TAR_BLOCK + _END_OF_ARCHIVE
        return -(-(end + self.index_bytes) // self.row_bytes) * self.row_bytes

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
