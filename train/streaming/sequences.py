"""Sequences: runs of rows of one stream, for heads that read the rows before a row. numpy only.

A sequence is a part of a block, S target rows, behind C context rows of the same stream. Parts with
an eligible row are the units that the plan orders, so each row is a target once an epoch; context
is read again by every sequence that it stands before, and weighs nothing. Rows that do not exist
(before a recording's start, behind its end) or cannot be read are absent: frame id -1.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from ..plan import PAD, Reads
from .order import Order
from .selection import Selection
from .sequence_shape import SequenceShape
from .steps import FixedRows, Step

ABSENT: Final = -1
"""Frame id of a row that does not exist, or cannot be read."""


class StreamRows:
    """Which frames of a selection's streams exist and can be read.

    Args:
        selection: whose blocks are numbered from 0 here.
    """

    def __init__(self, selection: Selection) -> None:
        width, streams = selection.index.block_frames, selection.streams
        num_blocks = np.array([stream.num_blocks for stream in streams], np.int64)
        num_frames = np.array([stream.num_frames for stream in streams], np.int64)
        first_block = np.cumsum(num_blocks) - num_blocks
        self._width, self._blocks = width, selection.blocks
        self.first_block = np.repeat(first_block, num_blocks)
        """i64[blocks]: number of the first block of each block's stream."""
        self.first_row = self.first_block * width
        """i64[blocks]: where that stream's rows begin, blocks being laid end to end."""
        self.last_row = np.repeat(first_block * width + num_frames, num_blocks)
        """i64[blocks]: and where they end."""
        self._left_out = selection.left_out

    def frames(self, block: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return global frame ids of rows that stand before or in blocks; ABSENT if there is none.

        Args:
            block: i64[n], numbers of blocks in the selection.
            rows: i64[n, w], counted from the beginning of each block; may be negative.

        Returns:
            i64[n, w].
        """
        block = block[:, None]
        # Rows of the selection: its blocks one after another, those of a stream together.
        place = block * self._width + rows
        there = (place >= self.first_row[block]) & (place < self.last_row[block])
        place = np.where(there, place, 0)
        owner = place // self._width
        if self._left_out is not None:
            there &= ~self._left_out[owner]
        return np.where(there, self._blocks[owner] * self._width + place % self._width, ABSENT)


class Sequences:
    """The sequences of a selection, numbered from 0 in their natural order.

    Args:
        selection: of which each eligible row is a target of one sequence.
        shape: of blocks of the selection's index.
    """

    def __init__(self, selection: Selection, shape: SequenceShape) -> None:
        self.selection = selection
        self.rows, self.context = shape.target_rows, shape.context
        self.length = shape.length
        """C + S, rows of a sequence."""
        self._streams = StreamRows(selection)
        num_blocks, width = selection.eligible.shape
        self._width = width
        self._num_parts = width // self.rows
        counts = selection.eligible.reshape(-1, self.rows).sum(axis=1)
        self._part = np.flatnonzero(counts)
        self._num_targets = counts[self._part]
        used = (counts > 0).reshape(num_blocks, self._num_parts)
        self.block_counts: NDArray[np.int64] = used.sum(axis=1)
        """i64[blocks]: sequences of each block of the selection."""
        # Rows of earlier blocks that the first sequence of a block reads.
        before = np.maximum(0, self.context - used.argmax(axis=1) * self.rows)
        self._blocks_before = np.minimum(
            -(-before // width), np.arange(num_blocks) - self._streams.first_block
        )

    def num_targets(self, units: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many rows of weight 1 these sequences have, i64[...]; 0 where they are PAD."""
        return np.where(units == PAD, 0, self._num_targets[units])

    def frames(self, units: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return i64[n, C + S] global frame ids of these sequences (i64[n]); ABSENT in PAD."""
        block, part = np.divmod(self._part[units], self._num_parts)
        rows = part[:, None] * self.rows + np.arange(-self.context, self.rows)
        frames = self._streams.frames(block, rows)
        frames[units == PAD] = ABSENT
        return frames

    def targets(self, units: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return (y, weight), f4[n, C + S] each, of these sequences (i64[n]).

        Both are 0 in context, in rows that do not take part, and in PAD.
        """
        y, weight = np.zeros((2, len(units), self.length), np.float32)
        part = self._part[units]
        takes_part = self._eligible[part] & (units != PAD)[:, None]
        weight[:, self.context :] = takes_part
        y[:, self.context :] = np.where(takes_part, self._y[part], 0)
        return y, weight

    @cached_property
    def _eligible(self) -> NDArray[np.bool_]:
        return self.selection.eligible.reshape(-1, self.rows)

    @cached_property
    def _y(self) -> NDArray[np.float32 | np.uint8]:
        return self.selection.y.reshape(-1, self.rows)

    def rows_read(self) -> Selection:
        """Return the selection of all rows that sequences read, those of context, too."""
        selection, num_rows = self.selection, self.selection.eligible.size
        first = self._part * self.rows
        start = np.maximum(first - self.context, self._streams.first_row[first // self._width])
        stop = np.minimum(first + self.rows, self._streams.last_row[first // self._width])
        # How many sequences are open at each row.
        begun, ended = (np.bincount(rows, minlength=num_rows + 1) for rows in (start, stop))
        read = (np.cumsum(begun - ended)[:num_rows] > 0).reshape(selection.eligible.shape)
        if selection.left_out is not None:
            read[selection.left_out] = False
        return replace(selection, eligible=read)

    def reads(self, reads: Reads) -> Reads:
        """Return the reads of a plan of these sequences with those of their context added."""
        num_before = self._blocks_before[reads.block]
        return reads_with_blocks_before(reads, num_before, self.selection)


def reads_with_blocks_before(
    reads: Reads, num_before: NDArray[np.int64], selection: Selection
) -> Reads:
    """Return reads with so many blocks before each block (i64[R]) added, those that can be read.

    Args:
        reads: R of them; blocks are numbered as in the selection.
        num_before: i64[R], of the same stream.
        selection: whose blocks they are.
    """
    each = num_before + 1
    owner = np.repeat(np.arange(len(each)), each)
    back = np.repeat(np.cumsum(each), each) - 1 - np.arange(len(owner))
    block = reads.block[owner] - back
    if selection.left_out is not None:
        kept = ~selection.left_out[block]
        owner, block = owner[kept], block[kept]
    return Reads(reads.step[owner], block, reads.last_step[owner])


def sequence_steps_of(
    order: Order,
    sequences: Sequences,
    fixed_rows: FixedRows,
    start: int,
    *,
    rank: int,
    world_size: int,
    stride: int,
) -> Iterator[Step]:
    """Yield a rank's steps start, start + stride, ..., of b sequences each.

    Every rank goes through the sequences of all: it must know how many rows of the step count.
    """
    number = start
    for units in order.plan.runs(start, stride=stride):
        num_real = sequences.num_targets(units).sum(axis=1).tolist()
        share = units.shape[1] // world_size
        mine = units[:, rank * share : (rank + 1) * share]
        for each, total in zip(mine, num_real, strict=True):
            frames = sequences.frames(each)
            y, weight = sequences.targets(each)
            rows = fixed_rows(frames.reshape(-1)) if frames.min() >= 0 else None
            yield Step(
                number,
                torch.from_numpy(frames),
                torch.from_numpy(y),
                torch.from_numpy(weight),
                rows,
                total,
            )
            number += stride
