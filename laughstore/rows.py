"""All shards of a split as one matrix: a batch of frames, wherever they are, is one gather.

No torch here. A zero-copy tensor of the same memory is
`torch.from_numpy(rows.matrix.view(np.int16)).view(torch.bfloat16)`.
"""

import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import crc32c
import numpy as np
from numpy.typing import NDArray

from .errors import ConfigError, CorruptData, IncompleteStore
from .geometry import CRC_BYTES
from .index import Index, Shard
from .mapping import MappedFiles
from .naming import block_key

_NO_ROW = -1


class MappedRows:
    """The frames of one split, mapped. Made by `open_rows`; a context manager.

    Closing drops this object's hold on the pages; arrays taken from `matrix` keep them alive.
    """

    def __init__(self, index: Index, split: str) -> None:
        self.index = index
        self.split = split
        self._shards = index.split_shards(split)
        geometry = index.geometry
        _check_files(index, self._shards)
        files = MappedFiles(
            [(_path(index, shard), shard.num_bytes) for shard in self._shards],
            geometry.map_alignment,
        )
        self._files: MappedFiles | None = files
        self._first_row = np.full(index.num_blocks, _NO_ROW, np.int64)
        self._shard_of_block = np.full(index.num_blocks, _NO_ROW, np.int32)
        for number, (shard, start) in enumerate(
            zip(self._shards, files.starts.tolist(), strict=True)
        ):
            blocks = slice(shard.first_block, shard.first_block + shard.num_blocks)
            first = start // geometry.row_bytes + geometry.header_rows
            self._first_row[blocks] = (
                first + np.arange(shard.num_blocks, dtype=np.int64) * geometry.rows_per_block
            )
            self._shard_of_block[blocks] = number
        self._verified = np.zeros(index.num_blocks, bool)
        self._lock = threading.Lock()

    @property
    def dim(self) -> int:
        """Channels of a frame."""
        return self.index.dim

    @property
    def matrix(self) -> NDArray[np.uint16]:
        """u2[R, dim]: bfloat16 bits of every row of the mapped files, read-only.

        Rows that `row_numbers` never returns are headers, or gaps that must not be touched; a row
        should be touched only after `prepare` of its block.
        """
        return self._open().bytes.view(np.uint16).reshape(-1, self.dim)

    def row_numbers(self, frames: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the row of `matrix` that holds each frame.

        Args:
            frames: i64[N] global frame ids of this split (see `laughstore.index`), any order.

        Returns:
            i64[N].
        """
        block, offset = np.divmod(frames, self.index.block_frames)
        first = self._first_row[block]
        assert (first != _NO_ROW).all(), "a frame of another split was asked for"
        return first + offset

    def prepare(self, blocks: NDArray[np.int64], *, verify: bool) -> None:
        """Read the pages of these blocks, and check their checksums if asked.

        Args:
            blocks: i64[K] global block numbers of this split.
            verify: compute each block's CRC-32C and compare it with the index and the shard.

        Raises:
            CorruptData: a file was cut or altered; the message names shard and sample.
        """
        files, geometry = self._open(), self.index.geometry
        for block in blocks.tolist():
            start = int(self._first_row[block]) * geometry.row_bytes
            try:
                files.populate(start, geometry.data_bytes + CRC_BYTES)
            except OSError as error:
                raise CorruptData(
                    f"{self._name(block)}: cannot be read ({error.strerror}); the file was cut, or"
                    " the disk failed: restore it"
                ) from error
            if verify:
                self._verify(files, block, start)

    def prepare_once(self, blocks: NDArray[np.int64]) -> None:
        """Like `prepare` with verify, but check each block only the first time in this process."""
        with self._lock:
            fresh = blocks[~self._verified[blocks]]
        self.prepare(np.unique(fresh), verify=True)
        with self._lock:
            self._verified[fresh] = True

    def close(self) -> None:
        """Let go of the mapped files."""
        self._files = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return (
            f"MappedRows(split {self.split!r}, {len(self._shards)} shards, bf16[rows, {self.dim}])"
        )

    def _open(self) -> MappedFiles:
        if self._files is None:
            raise ValueError("these rows were closed; open them again with open_rows")
        return self._files

    def _verify(self, files: MappedFiles, block: int, start: int) -> None:
        end = start + self.index.geometry.data_bytes
        found = crc32c.crc32c(files.bytes[start:end])
        in_file = int.from_bytes(files.bytes[end : end + CRC_BYTES].tobytes(), "little")
        promised = int(self.index.block_crc32c[block])
        if not found == in_file == promised:
            raise CorruptData(
                f"{self._name(block)}: crc32c is {found:08x}, the shard says {in_file:08x}, the"
                f" index {promised:08x}; the file was altered: restore it"
            )

    def _name(self, block: int) -> str:
        shard = self._shards[int(self._shard_of_block[block])]
        stream = shard.stream
        key = block_key(stream.recording_id, stream.assignment, block - stream.first_block)
        return f"{self.index.folder.describe(shard.name)}, sample {key}"


def open_rows(index: Index, split: str) -> MappedRows:
    """Map all shards of a split into one matrix.

    Args:
        index: from `laughstore.index.read_index`.
        split: one of `index.splits`.

    Raises:
        ConfigError: no such split.
        IncompleteStore: a shard that the index names is missing.
        CorruptData: a shard has another size than the index says.
    """
    return MappedRows(index, split)


def _check_files(index: Index, shards: Sequence[Shard]) -> None:
    """Check every size before anything is mapped."""
    for shard in shards:
        path = _path(index, shard)
        try:
            num_bytes = path.stat().st_size
        except FileNotFoundError as error:
            raise IncompleteStore(
                f"{path} is missing, the index names it; restore it, or copy the shards"
                " folder whole; `laughstore build` links it again if its Zarr name is left"
            ) from error
        if num_bytes != shard.num_bytes:
            raise CorruptData(
                f"{path} has {num_bytes} bytes, the index says {shard.num_bytes}; the file was cut"
                " or replaced: restore it"
            )
        expected = index.geometry.shard_bytes(shard.num_blocks)
        if num_bytes != expected:
            raise CorruptData(
                f"{path} has {num_bytes} bytes, {shard.num_blocks} blocks take {expected}; the"
                " index does not fit its shards"
            )


def _path(index: Index, shard: Shard) -> Path:
    folder = index.folder.local
    if folder is None:
        raise ConfigError(f"{index.where} is remote; copy it here to map its shards")
    return folder / shard.name
