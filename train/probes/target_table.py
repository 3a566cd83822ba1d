"""Targets of many labels for the rows of a split, looked up by frame.

A class takes two bits a row and label, a number four bytes; the labels of a row lie beside each
other, so that a row of a batch costs one wait for memory, not one for each label.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from laughstore.kinds import TargetArray

from ..streaming.selection import Selection


class TargetTable:
    """Targets of L labels.

    Args:
        rows: all rows that may be asked about.
        num_classes: labels whose targets are classes.
        num_numbers: labels whose targets are numbers.
    """

    def __init__(self, rows: Selection, num_classes: int, num_numbers: int) -> None:
        width = rows.index.block_frames
        num_rows = len(rows.blocks) * width
        self._width = width
        # By global block: where its rows begin here.
        self._starts = np.full(rows.index.num_blocks, -1, np.int64)
        self._starts[rows.blocks] = np.arange(len(rows.blocks)) * width
        num_bytes = -(-num_classes // 8)
        self._num_classes, self._num_numbers = num_classes, num_numbers
        self._positive = np.zeros((num_rows, num_bytes), np.uint8)
        self._counted = np.zeros((num_rows, num_bytes), np.uint8)
        self._number = np.full((num_rows, num_numbers), np.nan, np.float32)
        self._columns: list[tuple[bool, int]] = []
        """Of each label: whether it is one of numbers, and which of those of its kind."""
        self._blocks = rows.blocks

    def add(self, selection: Selection) -> None:
        """Add the next label: its targets of the same streams' rows."""
        assert np.array_equal(selection.blocks, self._blocks), "rows of the same filter"
        eligible, y = selection.eligible.reshape(-1), selection.y.reshape(-1)
        is_number = y.dtype == np.float32
        column = sum(kind == is_number for kind, _ in self._columns)
        if is_number:
            self._number[eligible, column] = y[eligible]
        else:
            place, bit = column // 8, np.uint8(128 >> column % 8)
            self._positive[:, place] |= np.where(y > 0, bit, np.uint8(0))
            self._counted[:, place] |= np.where(eligible, bit, np.uint8(0))
        self._columns.append((is_number, column))

    def of(
        self, frames: NDArray[np.int64], labels: Sequence[int]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return targets of rows, and whether the labels count them.

        Args:
            frames: i64[B] global frame ids of rows; negative ones are pad rows.
            labels: of each of K columns, which label it is, in the order in which they were added.

        Returns:
            f4[B, K], 0 where not counted; bool[B, K].
        """
        places = self._places(np.maximum(frames, 0))
        # All classes, then all numbers; then as they are asked for.
        y = np.empty((len(frames), len(self._columns)), np.float32)
        counted = np.empty(y.shape, np.bool_)
        classes = slice(self._num_classes)
        y[:, classes] = self._bits(self._positive[places])
        counted[:, classes] = self._bits(self._counted[places])
        numbers = self._number[places]
        known = ~np.isnan(numbers)
        y[:, self._num_classes :] = np.where(known, numbers, 0)
        counted[:, self._num_classes :] = known
        counted[frames < 0] = False
        picked = [self._place_of(label) for label in labels]
        if picked == list(range(len(self._columns))):
            return y, counted
        return y[:, picked], counted[:, picked]

    def column(
        self, frames: NDArray[np.int64], label: int
    ) -> tuple[TargetArray, NDArray[np.bool_]]:
        """Return one label's targets of rows as the label gives them, u1[N] or f4[N]; bool[N]."""
        places = self._places(frames)
        is_number, column = self._columns[label]
        if is_number:
            y = self._number[places, column]
            known = ~np.isnan(y)
            return np.where(known, y, np.float32(0)), known
        place, bit = column // 8, np.uint8(128 >> column % 8)
        positive = (self._positive[places, place] & bit) > 0
        return positive.view(np.uint8), (self._counted[places, place] & bit) > 0

    def _places(self, frames: NDArray[np.int64]) -> NDArray[np.int64]:
        return self._starts[frames // self._width] + frames % self._width

    def _place_of(self, label: int) -> int:
        is_number, column = self._columns[label]
        return self._num_classes + column if is_number else column

    def _bits(self, packed: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.unpackbits(packed, axis=1, count=self._num_classes)
