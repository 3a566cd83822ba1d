"""The rows of a split that take part, loaded once; batches are gathered from there.

In memory of this machine, or as a tensor on a device, from which a batch is one `index_select`
there and no frame crosses the bus again. Rows stand in the order of their frame ids, and a row of
zeros behind them is what pad rows copy, so batches are those of the stream without it, bit for bit.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from laughstore.errors import ConfigError
from laughstore.memory import is_out_of_memory

from .buffers import aligned_empty
from .device import send
from .gather import RowMatrix
from .readahead import ReadAhead
from .selection import Selection

if TYPE_CHECKING:
    from .source import FrameSource

LoadProgress = Callable[[int, int], None]
"""Called with (rows loaded, rows to load)."""

_BLOCKS_A_CHUNK: Final = 8
_NO_ROW: Final = -1


class LoadedRows(ABC):
    """The N rows of a selection in memory.

    Args:
        selection: whose rows are loaded.
    """

    def __init__(self, selection: Selection) -> None:
        self._where, self._block_frames = selection.index.where, selection.index.block_frames
        self.num_rows = selection.num_rows
        blocks = selection.blocks
        self._first = int(blocks[0]) * self._block_frames
        span = (int(blocks[-1]) + 1) * self._block_frames - self._first
        # The last item is for pad rows.
        self._row: NDArray[np.signedinteger] = np.full(span + 1, _NO_ROW, _row_dtype(selection))
        self._row[-1] = self.num_rows
        for start in range(0, self.num_rows, 1 << 20):
            rows = np.arange(start, min(start + (1 << 20), self.num_rows))
            self._row[selection.frames_of(rows) - self._first] = rows

    def rows_of(self, frames: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return i64[...], the row of each frame; of pad rows (negative ids) that of zeros.

        Raises:
            ConfigError: a frame is none of the rows that were loaded.
        """
        places, last = frames - self._first, len(self._row) - 1
        inside = (places >= 0) & (places < last)
        rows = self._row[np.where(inside, places, last)].astype(np.int64)
        bad = (rows < 0) | (~inside & (frames >= 0))
        if bad.any():
            raise ConfigError(
                f"{self._where}: frame {frames[bad][0]} was not loaded; preload holds the rows that"
                " take part, and no others"
            )
        return rows

    @abstractmethod
    def gather(self, rows: NDArray[np.int64], out: Tensor) -> None:
        """Copy rows (i64[B], of `rows_of`) to int16[B, D]; as `FrameSource.gather`."""

    @abstractmethod
    def _put(self, start: int, frames: NDArray[np.int64], source: "FrameSource") -> None:
        """Load prepared frames as the rows from `start` on."""

    @abstractmethod
    def _finish(self) -> None:
        """Wait until all rows are there."""

    def load(
        self, selection: Selection, source: "FrameSource", progress: LoadProgress | None = None
    ) -> None:
        """Read all rows once, block by block in the order of files, checksums checked.

        Raises:
            CorruptData: a block was altered or cut.
        """
        used = np.flatnonzero(selection.block_counts)
        ends = np.cumsum(selection.block_counts[used])
        chunk = np.arange(len(used)) // _BLOCKS_A_CHUNK
        start = 0
        with ReadAhead(
            source.prepare_checked,
            chunk,
            selection.blocks[used],
            max_ahead=4 * max(_BLOCKS_A_CHUNK, source.blocks_a_call),
            release=source.release,
            blocks_a_call=source.blocks_a_call,
            room=source.room,
        ) as ahead:
            for number in range(-(-len(used) // _BLOCKS_A_CHUNK)):
                ahead.wait(number)
                stop = int(ends[min((number + 1) * _BLOCKS_A_CHUNK, len(used)) - 1])
                self._put(start, selection.frames_of(np.arange(start, stop)), source)
                start = stop
                if progress is not None:
                    progress(stop, self.num_rows)
        self._finish()


class HostRows(LoadedRows):
    """In memory of this machine, in huge pages where the system has them.

    Raises:
        ConfigError: there is not so much memory.
    """

    def __init__(self, selection: Selection) -> None:
        super().__init__(selection)
        shape = (self.num_rows + 1, selection.index.dim)
        num_bytes = shape[0] * shape[1] * np.dtype(np.uint16).itemsize
        try:
            self._matrix = aligned_empty(shape).view(np.uint16)
        except MemoryError as error:
            raise _no_memory("cpu", num_bytes) from error
        self._matrix[-1] = 0
        self._rows = RowMatrix(self._matrix)

    def gather(self, rows: NDArray[np.int64], out: Tensor) -> None:
        """Copy rows, in this thread."""
        self._rows.gather(rows, out.numpy())

    def _put(self, start: int, frames: NDArray[np.int64], source: "FrameSource") -> None:
        part = self._matrix[start : start + len(frames)].view(np.int16)
        source.gather(frames, torch.from_numpy(part))

    def _finish(self) -> None:
        pass  # copied by this thread


class DeviceRows(LoadedRows):
    """A tensor on a device.

    Args:
        selection: whose rows are loaded.
        device: a GPU; any other device of torch does the same.

    Raises:
        ConfigError: there is not so much memory.
    """

    def __init__(self, selection: Selection, device: torch.device) -> None:
        super().__init__(selection)
        self.device = device
        shape = (self.num_rows + 1, selection.index.dim)
        self._is_cuda = device.type == "cuda"
        most = min(_BLOCKS_A_CHUNK * self._block_frames, self.num_rows)
        try:
            self._matrix = torch.empty(shape, dtype=torch.int16, device=device)
            # One is filled while the other is copied.
            self._staged = [
                torch.empty((most, shape[1]), dtype=torch.int16, pin_memory=self._is_cuda)
                for _ in range(2)
            ]
        except (MemoryError, RuntimeError) as error:  # torch's own are RuntimeErrors
            if not is_out_of_memory(error):
                raise
            raise _no_memory("gpu", 2 * shape[0] * shape[1]) from error
        self._matrix[-1] = 0
        self._copied: list[torch.cuda.Event] = []
        """At most one for each staged buffer, in the order of copies."""

    def gather(self, rows: NDArray[np.int64], out: Tensor) -> None:
        """Copy rows to a tensor, of this device or another; by one call in any case."""
        index = send(torch.from_numpy(rows), self.device)
        if out.device == self._matrix.device:
            torch.index_select(self._matrix, 0, index, out=out)
        else:
            out.copy_(torch.index_select(self._matrix, 0, index))

    def _put(self, start: int, frames: NDArray[np.int64], source: "FrameSource") -> None:
        if len(self._copied) == len(self._staged):
            self._copied.pop(0).synchronize()
        buffer = self._staged[0]
        self._staged.append(self._staged.pop(0))
        rows = buffer[: len(frames)]
        source.gather(frames, rows)
        self._matrix[start : start + len(frames)].copy_(rows, non_blocking=True)
        if self._is_cuda:
            event = torch.cuda.Event()
            event.record(torch.cuda.current_stream(self.device))
            self._copied.append(event)

    def _finish(self) -> None:
        for event in self._copied:
            event.synchronize()
        self._copied, self._staged = [], []


def load_rows(
    selection: Selection,
    source: "FrameSource",
    device: torch.device | None,
    progress: LoadProgress | None = None,
) -> LoadedRows:
    """Return the rows of a selection, read once.

    Args:
        selection: of the split that `source` reads.
        source: reads their frames, checksums checked.
        device: that shall hold them; None: memory of this machine.
        progress: called as rows are loaded.

    Raises:
        ConfigError: there is not so much memory.
        CorruptData: a block was altered or cut.
    """
    rows = HostRows(selection) if device is None else DeviceRows(selection, device)
    rows.load(selection, source, progress)
    return rows


def _row_dtype(selection: Selection) -> type[np.int32] | type[np.int64]:
    return np.int32 if selection.num_rows < 2**31 - 1 else np.int64


def _no_memory(preload: str, num_bytes: int) -> ConfigError:
    return ConfigError(
        f"preload {preload} needs {num_bytes / 1e9:,.3g} GB, and the system does not give them; use"
        " --preload none, or a stricter filter"
    )
