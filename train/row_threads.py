"""Threads that share rows, each with all that is to be done of its own: they meet once.

Torch's own threads meet after every operation. So either each operation reads all rows from memory
again, or they meet for each few rows that the cache holds; and where something else wants a core,
as the stream does, each meeting may take milliseconds.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Final

import torch

from .threads import one_thread

_LEAST_ROWS: Final = 256
"""Of a share: fewer are done before another thread has begun."""
_ROUND: Final = 16
"""Rows: the last ones of a product are computed as all others are only of a multiple of it."""


class RowThreads:
    """As many threads as torch may use where this is made.

    Between the calls they wait, and end with this object.
    """

    def __init__(self) -> None:
        self.num = torch.get_num_threads()
        """T."""
        # Begins threads when they are first needed. The caller is one of them.
        self._others = ThreadPoolExecutor(max(1, self.num - 1), "laughstore-rows")

    def each[T](self, num_rows: int, work: Callable[[slice], T]) -> list[T]:
        """Call `work` with shares of the rows, side by side; return what it does, in their order.

        The shares depend on the numbers of rows and threads alone.

        Args:
            num_rows: to be shared.
            work: called in a thread in which torch does all by itself.
        """
        first, *others = self._shares(num_rows)
        with one_thread():
            begun = [self._others.submit(_alone, work, rows) for rows in others]
            try:
                found = [work(first)]
            finally:
                wait(begun)
        return found + [item.result() for item in begun]

    def _shares(self, num_rows: int) -> list[slice]:
        num = max(1, min(self.num, num_rows // _LEAST_ROWS))
        size = -(-num_rows // (num * _ROUND)) * _ROUND
        return [slice(start, min(start + size, num_rows)) for start in range(0, num_rows, size)]


def _alone[T](work: Callable[[slice], T], rows: slice) -> T:
    torch.set_num_threads(1)  # of this thread
    return work(rows)
