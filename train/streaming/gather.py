"""Copy rows that lie all over a large matrix: the inner loop of the stream.

`row_copy.c` does it nearly at the speed of one large memcpy, and says why a plain loop does not. It
is compiled when laughstore is installed; where it was not, numpy copies.

A row of 8 KiB is copied in half a microsecond, and finding it takes numpy as long again: each of
its pages costs a walk through the page tables and a first wait for memory, one after the other,
because a copy fills all that the processor looks ahead. So the pages of some rows are touched
first, one word each. Such loads are independent and short, the processor waits for many of them at
a time, and the copies that follow find their pages known: 1.1 to 1.2 times as fast.
"""

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

_TOUCHED_TOGETHER: Final = 256
"""Rows. Of 8 KiB they have 512 pages: the TLBs of processors since 2015 hold 1,500 or more."""
_PAGE_BYTES: Final = 4096
_LIBRARY: Final = Path(__file__).with_name("librow_copy.so")


def _load() -> Callable[..., int] | None:
    """Return the function of row_copy.c; None if there is none for this machine and version."""
    try:
        function = ctypes.CDLL(str(_LIBRARY)).copy_rows_1
    except (OSError, AttributeError):
        return None
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    function.argtypes = [pointer, number, number, pointer, number, pointer]
    function.restype = number
    return function


_copy_rows: Final = _load()
IS_COMPILED: Final = _copy_rows is not None
"""Whether rows are copied by compiled code."""


class RowMatrix:
    """A matrix of which rows are copied. Threads may use it side by side.

    Args:
        bits: u2[R, D], of bfloat16, row after row; read-only memory will do.
        compiled: False: copy by numpy.
    """

    def __init__(self, bits: NDArray[np.uint16], *, compiled: bool = IS_COMPILED) -> None:
        assert bits.flags.c_contiguous, "rows are found by their number"
        self._rows = bits.view(np.int16)
        self._words = bits.reshape(-1)
        self._dim = bits.shape[1]
        self._page_words = np.arange(0, self._dim, _PAGE_BYTES // bits.itemsize)
        self._copy_rows = _copy_rows if compiled else None
        # Reading an address takes a microsecond; `_rows` keeps the memory there.
        self._matrix = bits.ctypes.data, len(bits), self._dim * bits.itemsize

    def gather(self, rows: NDArray[np.int64], out: NDArray[np.int16]) -> None:
        """Copy rows into an array, in this thread; other threads of Python run meanwhile.

        Args:
            rows: i64[N], 0 to R - 1; `row_numbers` gives no others.
            out: i2[N, D]. What is there is lost if this raises.

        Raises:
            IndexError: there is no such row.
            ValueError: the arrays are no such arrays, or `out` is read-only.
        """
        if rows.shape != out.shape[:1] or out.shape[1:] != (self._dim,):
            raise ValueError(f"{rows.shape} rows of {self._dim} channels do not fill {out.shape}")
        if rows.dtype != np.int64 or out.dtype != np.int16:
            raise ValueError(f"rows are {rows.dtype}, not int64, or bits {out.dtype}, not int16")
        if not out.flags.writeable:
            raise ValueError("rows cannot be copied to read-only memory")
        copy_rows = self._copy_rows
        if copy_rows is None or not out.flags.c_contiguous:
            self._gather_by_numpy(rows, out)
            return
        rows = np.ascontiguousarray(rows)
        bad = copy_rows(*self._matrix, rows.ctypes.data, len(rows), out.ctypes.data)
        if bad >= 0:
            raise IndexError(f"row {rows[bad]} of a matrix of {len(self._rows)}")

    def _gather_by_numpy(self, rows: NDArray[np.int64], out: NDArray[np.int16]) -> None:
        if len(rows) and (rows.min() < 0 or rows.max() >= len(self._rows)):
            raise IndexError(f"rows {rows.min()} to {rows.max()} of a matrix of {len(self._rows)}")
        words = (rows * self._dim)[:, None] + self._page_words
        for start in range(0, len(rows), _TOUCHED_TOGETHER):
            part = slice(start, start + _TOUCHED_TOGETHER)
            self._words.take(words[part])
            # With `clip` numpy gathers straight into `out`; the default copies twice.
            np.take(self._rows, rows[part], axis=0, out=out[part], mode="clip")
