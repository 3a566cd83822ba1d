"""How the rows of a split are cut into parts that are scored one after another. numpy only.

The cut is the same on any number of ranks, and no part needs what another one computed: scores are
the same, bit for bit, whoever makes them.
"""

from abc import ABC, abstractmethod
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..plan import Reads
from ..streaming.selection import Selection
from ..streaming.sequences import StreamRows, reads_with_blocks_before

_BLOCKS: Final = 32
"""Of a part, at most: 4,096 frames of the default block."""


class ScoreParts(ABC):
    """The parts of a selection's N rows.

    Args:
        selection: of rows.
        begins: bool[K], of the blocks that have rows: a part begins with it.
    """

    reads: Reads
    """Which blocks (global numbers) the parts need; their numbers are the steps."""
    max_frames: int
    """That a part reads at most."""

    def __init__(self, selection: Selection, begins: NDArray[np.bool_]) -> None:
        self._used = np.flatnonzero(selection.block_counts)  # blocks without rows are not read
        self._part = np.cumsum(begins) - 1
        self._first = np.flatnonzero(begins)
        self._last = np.append(self._first[1:], len(self._used)) - 1
        ends = np.cumsum(selection.block_counts[self._used])[self._last]
        self.bounds: NDArray[np.int64] = np.concatenate([np.zeros(1, np.int64), ends])
        """i64[parts + 1]: where each part's rows begin among the N, and N."""

    @property
    def max_blocks(self) -> int:
        """Blocks of a part at most, but for those of its context."""
        return _BLOCKS

    @abstractmethod
    def frames(self, number: int) -> NDArray[np.int64]:
        """Return the global frame ids that a part reads, i64[n]; negative ones are absent."""

    @abstractmethod
    def scored(self, number: int) -> NDArray[np.bool_] | None:
        """Return which of them are rows of the selection, bool[n]; None: all are."""


class RowParts(ScoreParts):
    """Parts of single rows, across streams."""

    def __init__(self, selection: Selection) -> None:
        num_used = np.count_nonzero(selection.block_counts)
        super().__init__(selection, np.arange(num_used) % _BLOCKS == 0)
        self.reads = Reads(self._part, selection.blocks[self._used], self._part)
        self.max_frames = int(np.diff(self.bounds).max())
        self._frames = selection.frames

    def frames(self, number: int) -> NDArray[np.int64]:
        """Return the rows of a part."""
        start, stop = self.bounds[number : number + 2].tolist()
        return self._frames[start:stop]

    def scored(self, number: int) -> None:
        """Return None: all frames are scored."""
        return


class StretchParts(ScoreParts):
    """Parts of neighbouring blocks of one stream, each behind its context.

    Args:
        selection: of rows.
        context: C, rows before the first block of a part.
    """

    def __init__(self, selection: Selection, context: int) -> None:
        used = np.flatnonzero(selection.block_counts)
        self._selection, self._context = selection, context
        self._streams = StreamRows(selection)
        stream = self._streams.first_block[used]
        goes_on = (np.diff(used, prepend=-2) == 1) & (np.diff(stream, prepend=-1) == 0)
        number = np.arange(len(used))
        stretch = np.maximum.accumulate(np.where(goes_on, 0, number))
        begins = (number - stretch) % _BLOCKS == 0
        super().__init__(selection, begins)
        self._width = selection.index.block_frames
        num_before = np.where(begins, -(-context // self._width), 0)
        reads = reads_with_blocks_before(
            Reads(self._part, used, self._part), np.minimum(num_before, used - stream), selection
        )
        self.reads = Reads(reads.step, selection.blocks[reads.block], reads.last_step)
        self.max_frames = context + int((self._last - self._first + 1).max()) * self._width

    def _blocks(self, number: int) -> range:
        first, last = self._used[self._first[number]], self._used[self._last[number]]
        return range(first, last + 1)

    def frames(self, number: int) -> NDArray[np.int64]:
        """Return the context, then all rows of the part's blocks."""
        blocks = self._blocks(number)
        rows = np.arange(-self._context, len(blocks) * self._width)
        return self._streams.frames(np.array([blocks.start]), rows[None])[0]

    def scored(self, number: int) -> NDArray[np.bool_]:
        """Return which of those are rows of the selection."""
        blocks = self._blocks(number)
        eligible = self._selection.eligible[blocks.start : blocks.stop].reshape(-1)
        return np.concatenate([np.zeros(self._context, np.bool_), eligible])


def score_parts(selection: Selection, context: int) -> ScoreParts:
    """Return the parts in which a model that reads so many rows before a row scores a selection."""
    return StretchParts(selection, context) if context else RowParts(selection)
