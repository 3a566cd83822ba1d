"""Frames of a split as torch tensors: the one place where rows of the matrix are read.

Blocks must be prepared (paged in, and checked if asked) before frames of them are gathered: that is
what turns a cut file or a flipped bit into an error instead of a crash or a wrong number.
"""

import sys
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from laughstore.closing import ClosedAtExit
from laughstore.errors import ConfigError, CorruptData, IncompleteStore
from laughstore.index import Index
from laughstore.reading.memory import available_bytes, memory_bytes
from laughstore.reading.rows import Reader, Rows, open_rows
from laughstore.reading.shard_cache import ShardCache

from .choices import Verify
from .gather import RowMatrix
from .loaded_rows import LoadedRows, LoadProgress, load_rows
from .readahead import BLOCKS_A_CALL
from .selection import Selection

_CHECKED_TOGETHER = 4096
"""Frames that `check_finite` copies in one go."""
_DECODED_TOGETHER = 16
"""Compressed blocks of this machine."""
_FETCHED_TOGETHER = 64
"""Remote blocks: twice what is read side by side, so that one slow answer holds up few others."""
_LOADED_TOGETHER = 4096
"""Blocks of which nothing is to be done."""
_SHARE_OF_MEMORY = 0.6
"""A larger split is not mapped: reading it would push out of memory what others need."""


class FrameSource(ClosedAtExit):
    """The frames of one split, mapped or fetched. A context manager.

    Blocks that were prepared are held until they are released: where files are not mapped, they
    take memory so long.

    Args:
        index: of the shards.
        split: one of the index's.
        verify: when checksums are computed.
        reader: as `open_rows`; `auto` is a window, too, when the split is larger than 0.6 of the
            memory that can be had.
        damaged: files may be cut or missing, as their blocks are never prepared; `auto` is a window
            when such a file cannot be mapped.
        num_workers: processes that share the memory for windows.
        cache: keeps what is fetched of remote shards.

    Raises:
        ConfigError, IncompleteStore, CorruptData: as `laughstore.reading.rows.open_rows`.
    """

    def __init__(
        self,
        index: Index,
        split: str,
        *,
        verify: Verify = "first",
        reader: Reader = "auto",
        damaged: bool = False,
        num_workers: int = 1,
        cache: ShardCache | None = None,
    ) -> None:
        if verify not in get_args(Verify):
            raise ConfigError(f"verify is {verify!r}; use always, first or never")
        self._index, self._split, self._cache = index, split, cache
        self._verify: Verify = verify
        self._reader: Reader = reader
        self._damaged = damaged
        self._closed = False
        self.dim = index.dim
        self.block_frames = index.block_frames
        self._open_rows: Rows | None = self._open(num_workers)
        self._matrix: RowMatrix | None = RowMatrix(self._rows.matrix)
        self._loaded: LoadedRows | None = None

    @property
    def _rows(self) -> Rows:
        if self._open_rows is None:
            raise _closed()
        return self._open_rows

    def _open(self, num_workers: int) -> Rows:
        index, split, reader = self._index, self._split, self._reader
        if reader == "auto" and _is_larger_than_memory(index, split):
            reader = "window"
        max_bytes = None
        if num_workers > 1 and (free := available_bytes()) is not None:
            share = int(free * _SHARE_OF_MEMORY / num_workers)
            max_bytes = max(share, index.geometry.data_bytes)
        try:
            return open_rows(index, split, reader, max_bytes=max_bytes, cache=self._cache)
        except (CorruptData, IncompleteStore):
            if not (self._damaged and reader == "auto"):
                raise
        return open_rows(index, split, "window", max_bytes=max_bytes, cache=self._cache)

    def load(
        self,
        selection: Selection,
        device: torch.device | None = None,
        progress: LoadProgress | None = None,
    ) -> None:
        """Read rows into memory once, and let go of the files: all else comes from there.

        Frames of other rows can no longer be gathered. Checksums are checked, whatever `verify`
        says, and never again.

        Args:
            selection: of this split.
            device: that shall hold the rows; None: memory of this machine.
            progress: called as rows are loaded.

        Raises:
            ConfigError: there is not so much memory.
            CorruptData: a block was altered or cut.
            ValueError: this was closed.
        """
        rows = self._rows
        self._loaded = load_rows(selection, self, device, progress)
        self._open_rows = self._matrix = None
        rows.close()

    @property
    def is_loaded(self) -> bool:
        """Whether rows were loaded."""
        return self._loaded is not None

    def for_worker(self, num_workers: int) -> "FrameSource":
        """Return a source for a worker process, of which this is the copy.

        Mapped files that a fork handed down are used as they are; memory for windows is the
        worker's own, and a spawned worker has nothing open yet.
        """
        if self._closed:
            raise _closed()
        if self._open_rows is not None and not self._open_rows.releases:
            return self
        return FrameSource(
            self._index,
            self._split,
            verify=self._verify,
            reader=self._reader,
            damaged=self._damaged,
            num_workers=num_workers,
            cache=self._cache,
        )

    def __getstate__(self) -> dict[str, Any]:  # Any: attributes
        # For spawned workers: what is open here is not open there.
        return vars(self) | {"_open_rows": None, "_matrix": None, "_loaded": None}

    @property
    def blocks_a_call(self) -> int:
        """Blocks that `prepare` is best given together."""
        if self._loaded is not None:
            return _LOADED_TOGETHER
        if not self._rows.releases:
            return BLOCKS_A_CALL
        return _DECODED_TOGETHER if self._index.folder.local is not None else _FETCHED_TOGETHER

    @property
    def releases(self) -> bool:
        """Whether prepared blocks take memory until they are released."""
        return self._loaded is None and self._rows.releases

    def are_ready(self, blocks: NDArray[np.int64]) -> bool:
        """Whether `prepare` of blocks (i64[K], global numbers) would do nothing. Thread safe.

        Only where prepared blocks need not be released.

        Raises:
            ValueError: this was closed.
        """
        if self._closed:
            raise _closed()
        if self._loaded is not None:
            return True
        return self._verify != "always" and self._rows.are_ready(
            blocks, checked=self._verify == "first"
        )

    def room(self) -> int:
        """Return how many blocks can be prepared beside those that are held now."""
        rows = self._open_rows  # another thread may close this meanwhile
        return sys.maxsize if rows is None else rows.room()

    def prepare(self, blocks: NDArray[np.int64]) -> None:
        """Make frames of these blocks (i64[K], global numbers) ready to be gathered. Thread safe.

        Raises:
            CorruptData: a block was altered or cut; the message names shard and sample.
            NoRoom: more memory would be taken than allowed.
            ValueError: this was closed.
        """
        if self._closed:
            raise _closed()
        if self._loaded is not None:
            return
        if self._verify == "first":
            self._rows.prepare_once(blocks)
        else:
            self._rows.prepare(blocks, verify=self._verify == "always")

    def prepare_checked(self, blocks: NDArray[np.int64]) -> None:
        """Like `prepare`, and check these blocks even when `verify` is never.

        For what is computed once and kept: an answer from damaged bytes would outlive the damage.

        Raises:
            CorruptData: as `prepare`.
        """
        if self._verify == "never" and self._loaded is None:
            self._rows.prepare_once(blocks)
        else:
            self.prepare(blocks)

    def release(self, blocks: NDArray[np.int64]) -> None:
        """Let go of blocks, once for each time that they were prepared. Thread safe."""
        if self._matrix is not None and self._rows.releases:
            self._rows.release(blocks)

    def fixed_rows(self, frames: NDArray[np.int64]) -> NDArray[np.int64] | None:
        """Return the rows in which frames always stand; None if they are fetched.

        Args:
            frames: i64[...] global frame ids, none negative.

        Raises:
            ConfigError: a frame is of another split.
            ValueError: this was closed.
        """
        if self._loaded is not None:
            return self._loaded.rows_of(frames)
        if self._rows.releases:
            return None
        return self._rows.row_numbers(frames.reshape(-1)).reshape(frames.shape)

    def gather(
        self, frames: NDArray[np.int64], out: Tensor, rows: NDArray[np.int64] | None = None
    ) -> None:
        """Copy frames into rows of a tensor, in this thread. Thread safe.

        Args:
            frames: i64[N] global frame ids of prepared blocks; negative ids are pad rows.
            out: int16[N, D], the bits of bfloat16; pad rows become zeros. On the CPU, or on the
                device that the rows were loaded to.
            rows: i64[N] `fixed_rows` of these frames, if they are known and none is a pad row.

        Raises:
            ValueError: this was closed.
        """
        matrix, loaded = self._matrix, self._loaded  # another thread may close this meanwhile
        if loaded is not None:
            rows = loaded.rows_of(frames) if rows is None else rows
            loaded.gather(rows, out)
            return
        if matrix is None:
            raise _closed()
        into = out.numpy()
        if rows is not None:
            matrix.gather(rows, into)
            return
        pads = np.flatnonzero(frames < 0)
        if len(pads) == len(frames):
            into[:] = 0
            return
        if len(pads):
            # One gather for all rows is quicker than a gather of some: pads copy any real row.
            frames = frames.copy()
            frames[pads] = frames.max()
        try:
            rows = self._rows.row_numbers(frames)
        except ValueError as error:
            if self._closed:  # just now, by another thread
                raise _closed() from error
            raise
        matrix.gather(rows, into)
        into[pads] = 0

    def check_finite(self, frames: NDArray[np.int64]) -> None:
        """Find out whether features are to blame for a result that is not finite.

        Args:
            frames: i64[N] global frame ids; negative ids are pad rows.

        Raises:
            CorruptData: a feature is NaN or infinite (the message names recording and frame), or
                as `prepare`.
        """
        real = np.unique(frames[frames >= 0])
        for start in range(0, len(real), _CHECKED_TOGETHER):
            part = real[start : start + _CHECKED_TOGETHER]
            blocks = np.unique(part // self.block_frames)
            self.prepare(blocks)
            bits = torch.empty(len(part), self.dim, dtype=torch.int16)
            self.gather(part, bits)
            self.release(blocks)
            bad = ~bits.view(torch.bfloat16).isfinite().all(dim=1).numpy()
            if bad.any():
                raise CorruptData(
                    f"{self._index.where}: {self._name(int(part[bad][0]))} holds a value that is"
                    " not finite; restore the shard if it was altered: if it was not, the features"
                    " were made so, and the recording must be built again or left out"
                )

    def _name(self, frame: int) -> str:
        """A frame in words."""
        block = frame // self.block_frames
        stream = next(
            item
            for item in self._index.streams(self._split)
            if item.first_block <= block < item.first_block + item.num_blocks
        )
        row = frame - stream.first_block * self.block_frames
        return f"frame {row} of {stream.recording_id}/{stream.assignment}"

    def close(self) -> None:
        """Let go of files and memory."""
        self._closed = True
        self._matrix = self._loaded = None
        if self._open_rows is not None:
            self._open_rows.close()


def _closed() -> ValueError:
    return ValueError("this stream was closed; open it again to read its frames")


def _is_larger_than_memory(index: Index, split: str) -> bool:
    """Whether a split takes more than 0.6 of what memory there can be for it."""
    memory = memory_bytes()
    num_bytes = sum(shard.num_bytes for shard in index.split_shards(split))
    return memory is not None and num_bytes > _SHARE_OF_MEMORY * memory
