"""All shards of a split as one matrix: a batch of frames, wherever they are, is one gather.

`open_rows` maps the files where that is possible; elsewhere, and for remote or compressed shards,
it returns a window on them: the same matrix, of which only prepared blocks are in memory. No torch
here. A zero-copy tensor of the same memory is
`torch.from_dlpack(rows.matrix.view(np.int16)).view(torch.bfloat16)`.
"""

import operator
import os
import sys
from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, SupportsIndex, get_args

import numpy as np
from numpy.typing import NDArray

from ..closing import ClosedAtExit
from ..errors import ConfigError
from ..index import Index, Shard
from .row_table import FramePlace, Numbers, RowTable, frame_range, numbers

if TYPE_CHECKING:
    from .shard_cache import ShardCache

Reader = Literal["auto", "map", "window"]
MAX_MAPPED_PIECES = 50_000
"""Linux lets a process map 65,530 pieces (vm.max_map_count); the rest is left to others."""


class NoRoom(ConfigError):
    """More blocks were to be prepared than there may be in memory."""


class Rows(ClosedAtExit):
    """The frames of one split as rows of one matrix. Made by `open_rows`; a context manager.

    First `prepare_once` the blocks, then gather rows: `rows.matrix[rows.row_numbers(frames)]`, then
    `release` the blocks. Arrays taken from `matrix` keep its memory alive. Threads may use it side
    by side, and it may be used after a fork, unless its files are remote: reading those in the
    child is refused.
    """

    index: Index
    split: str
    releases: bool
    """True when prepared blocks take memory of this process until `release`; False when the
    operating system takes pages back by itself."""

    _table: RowTable

    @property
    def dim(self) -> int:
        """Channels of a frame."""
        return self.index.dim

    @property
    @abstractmethod
    def matrix(self) -> NDArray[np.uint16]:
        """u2[R, dim]: bits of bfloat16, read-only.

        Rows that `row_numbers` never returns are headers, or gaps that must not be touched; a row
        should be touched only after `prepare` of its block.

        Limit of mapped files: one that is cut between `prepare` and the gather ends the process
        with SIGBUS, and no Python code can stop that. Do not cut files in place while they are
        read (replacing or deleting them is safe), or use `reader="window"`.

        Raises:
            ValueError: this was closed.
        """

    @abstractmethod
    def prepare(self, blocks: Numbers, *, verify: bool) -> None:
        """Make blocks ready to be read, and hold them until `release`.

        Args:
            blocks: K global block numbers of this split, an array or a list, any order. Nothing is
                held when this raises.
            verify: compute each block's CRC-32C and compare it with the index, even if that was
                done before. What is fetched is always compared.

        Raises:
            ConfigError: a block is of another split.
            NoRoom: more memory would be taken than allowed.
            CorruptData: a file was cut or altered; the message names shard and sample.
            IncompleteStore: a shard is missing.
            Unreachable: a remote store does not answer.
        """

    @abstractmethod
    def prepare_once(self, blocks: Numbers) -> None:
        """Like `prepare`, with checksums of what was not checked before in this process."""

    def are_ready(self, blocks: Numbers, *, checked: bool) -> bool:
        """Whether blocks can be read without `prepare`, as it would find nothing to do.

        Never where prepared blocks are held until `release`.

        Args:
            blocks: K global block numbers of this split.
            checked: their checksums must have been checked in this process, too.

        Raises:
            ConfigError: a block is of another split.
        """
        return False

    def room(self) -> int:
        """Return how many blocks can be prepared beside those that are held now."""
        return sys.maxsize

    @abstractmethod
    def release(self, blocks: Numbers) -> None:
        """Let go of these blocks (i64[K]): once for each time that they were prepared.

        A block that nobody holds may not be read until it is prepared again.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of files and memory; arrays taken from `matrix` stay valid."""

    def row_numbers(self, frames: Numbers) -> NDArray[np.int64]:
        """Return the row of `matrix` that holds each frame.

        Args:
            frames: N global frame ids of this split (see `laughstore.index`), any order. Ids behind
                the ragged end of a stream's last block are not looked for, as that would cost time
                in each batch: they give rows that hold NaN.

        Returns:
            i64[N].

        Raises:
            ConfigError: a frame is of another split, or (window) of a block that is not ready.
        """
        return self._table.row_numbers(numbers(frames), self._table.first_row)

    def frames_of(self, rows: Numbers) -> NDArray[np.int64]:
        """Return the global frame id of each row: the inverse of `row_numbers`, i64[N] to i64[N].

        Raises:
            ConfigError: a row holds no frame.
        """
        return self._table.frames_of(numbers(rows))

    def rows_of(
        self,
        recording: str,
        assignment: str | None = None,
        start: SupportsIndex = 0,
        stop: SupportsIndex | None = None,
    ) -> NDArray[np.int64]:
        """Return the row of each frame start to stop - 1 of a stream, i64[stop - start].

        Args:
            recording: id or original name.
            assignment: `<main>--<other>`; the first by default.
            start: first frame.
            stop: one past the last frame; the end of the stream by default.

        Raises:
            NotFound: no such stream.
            ConfigError: the range lies outside the stream, or as `row_numbers`.
        """
        return self.row_numbers(self._frames(recording, assignment, start, stop))

    def blocks_of(
        self,
        recording: str,
        assignment: str | None = None,
        start: SupportsIndex = 0,
        stop: SupportsIndex | None = None,
    ) -> NDArray[np.int64]:
        """Return the blocks to prepare for these frames, i64[K] rising. Arguments as `rows_of`."""
        return np.unique(
            self._frames(recording, assignment, start, stop) // self.index.block_frames
        )

    def locate(self, row: int) -> FramePlace:
        """Return (recording id, assignment, frame) of a row of `matrix`.

        Raises:
            ConfigError: the row holds no frame.
        """
        return self._table.locate(row)

    def _frames(
        self,
        recording: str,
        assignment: str | None,
        start: SupportsIndex,
        stop: SupportsIndex | None,
    ) -> NDArray[np.int64]:
        stream = self.index.stream(recording, assignment)
        begin, end = frame_range(stream, start, stop)
        first = stream.first_block * self.index.block_frames
        return np.arange(first + begin, first + end, dtype=np.int64)

    def __repr__(self) -> str:
        shards = self._table.shards
        return (
            f"{type(self).__name__}(split {self.split!r}, {len(shards)} shards,"
            f" bfloat16[{self._table.num_bytes // self.index.geometry.row_bytes} rows, {self.dim}]"
            " as u2, 12.5 frames a second)"
        )


def open_rows(
    index: Index,
    split: str,
    reader: Reader = "auto",
    *,
    max_bytes: int | None = None,
    cache: "ShardCache | None" = None,
) -> Rows:
    """Open all shards of a split as one matrix.

    Args:
        index: from `laughstore.open_shards`, or `Store.index`.
        split: one of `index.splits`.
        reader: `map` maps the files; `window` fetches what is prepared into memory, until it is
            released; `auto` maps local, uncompressed shards on POSIX systems as long as a process
            can map so many (50,000), and is a window otherwise.
        max_bytes: memory that prepared blocks of a window may take, at least one block's; 0.6 of
            what is free now by default. Not used by a map.
        cache: keeps what is fetched of remote shards on a disk of this machine; local ones are
            read where they are.

    Raises:
        ConfigError: no index, no such split, its shards cannot be mapped, or max_bytes is too
            little.
        IncompleteStore: a shard that the index names is missing (a window finds out when it reads).
        CorruptData: a shard has another size than the index says (likewise).
    """
    if not isinstance(index, Index):
        raise ConfigError(
            f"open_rows takes an index, this is a {type(index).__name__}; give open_shards(path),"
            " or the index of a store: store.index"
        )
    if reader not in get_args(Reader):
        raise ConfigError(f"reader is {reader!r}; use auto, map or window")
    if max_bytes is not None:
        _check_max_bytes(index, max_bytes)
    index.check_split(split)
    shards = index.split_shards(split)
    if not shards:
        raise ConfigError(f"split {split!r} of {index.where} has no frames")
    if reader != "window":
        from .mapped_rows import MappedRows, NoMappings

        reason = why_not_mapped(index, shards)
        if reason is None:
            try:
                return MappedRows(index, split, shards)
            except NoMappings:
                if reader == "map":
                    raise
        elif reader == "map":
            raise ConfigError(f"{index.where}: {reason}; use reader='window'")
    from .window_rows import WindowRows

    return WindowRows(index, split, shards, max_bytes=max_bytes, cache=cache)


def why_not_mapped(index: Index, shards: Sequence[Shard]) -> str | None:
    """Return why these shards of an index cannot be mapped; None when they can."""
    if index.folder.local is None:
        return "it is remote, files of other machines cannot be mapped"
    if index.spec.codec != "none":
        return f"its shards are compressed ({index.spec.codec})"
    if os.name != "posix":
        return "files are mapped on POSIX systems only"
    if len(shards) > MAX_MAPPED_PIECES:
        return f"{len(shards)} shards are more than a process can map"
    return None


def _check_max_bytes(index: Index, max_bytes: SupportsIndex) -> None:
    least = index.geometry.data_bytes
    try:
        enough = operator.index(max_bytes) >= least
    except TypeError:
        enough = False
    if not enough:
        raise ConfigError(
            f"max_bytes is {max_bytes!r}; give a whole number of bytes, at least the {least} of"
            " one block"
        )
