"""Permutations that depend on a few integers alone, for ever and on every machine. numpy only."""

import numpy as np
from numpy.typing import NDArray

GLOBAL_PURPOSE = 2**64 - 1
"""Of the permutation of all rows."""
BALANCE_PURPOSE = 2**64 - 2
"""Of the choice of negatives."""
_DRAWN_TOGETHER = 1 << 18


class Permutations:
    """Permutations keyed by one pair of integers. Not for several threads.

    Philox (Salmon et al., SC 2011) is keyed by `key`; purpose and window are the high words of its
    counter, so two of them never share a number. The order is that of raw 64-bit draws with the
    index in the low bits: NumPy keeps raw draws for ever, but may change how
    `Generator.permutation` uses them.

    Args:
        key: (seed, epoch).
    """

    def __init__(self, key: tuple[int, int]) -> None:
        # One generator whose counter is set: making one for each window takes longer than drawing.
        self._philox = np.random.Philox(key=np.array(key, np.uint64))
        self._state = self._philox.state

    def of(self, count: int, purpose: int, window: int = 0) -> NDArray[np.int64]:
        """Return a permutation of range(count) that depends on key, count and these alone.

        Args:
            count: 0 or more.
            purpose: 0 for the order of blocks, l + 1 for lane l, or GLOBAL_PURPOSE,
                BALANCE_PURPOSE.
            window: of that lane.
        """
        self._begin(purpose, window)
        mask = _index_mask(count)
        draws = self._draws(0, count, mask)
        draws.sort()  # no two are equal: any sort gives the same order
        draws &= mask
        return draws.view(np.int64)

    def first_of(self, count: int, size: int, purpose: int) -> NDArray[np.int64]:
        """Return the first `size` numbers of `of(count, purpose)`, rising, in little memory."""
        self._begin(purpose, 0)
        mask = _index_mask(count)
        # Room for some more than wanted, so that they are sifted a few times only.
        kept = np.empty(min(count, size + max(size, _DRAWN_TOGETHER)), np.uint64)
        num_kept, limit = 0, np.uint64(2**64 - 1)
        for start in range(0, count, _DRAWN_TOGETHER):
            draws = self._draws(start, min(start + _DRAWN_TOGETHER, count), mask)
            draws = draws[draws <= limit]
            if num_kept + len(draws) > len(kept):
                num_kept, limit = _sifted(kept[:num_kept], size)
                draws = draws[draws <= limit]
            kept[num_kept : num_kept + len(draws)] = draws
            num_kept += len(draws)
        num_kept, _ = _sifted(kept[:num_kept], size)
        found = kept[:num_kept]
        found &= mask
        found.sort()
        return found.copy().view(np.int64)  # the room is not kept

    def _begin(self, purpose: int, window: int) -> None:
        self._state["state"]["counter"] = np.array([0, 0, window, purpose], np.uint64)
        self._philox.state = self._state

    def _draws(self, start: int, stop: int, mask: np.uint64) -> NDArray[np.uint64]:
        """Return u64[stop - start]: the next draws, those of the indices from start to stop."""
        draws = self._philox.random_raw(stop - start)
        # In place: windows are small and many, and a permutation of all rows is large.
        draws &= ~mask
        draws |= np.arange(start, stop, dtype=np.uint64)
        return draws


def _sifted(values: NDArray[np.uint64], size: int) -> tuple[int, np.uint64]:
    """Put the `size` least values first, in place; return (how many those are, the largest)."""
    size = min(size, len(values))
    if size == 0:
        return 0, np.uint64(0)
    values.partition(size - 1)
    return size, values[size - 1]


def _index_mask(count: int) -> np.uint64:
    """The low bits of a draw that hold its index."""
    return np.uint64((1 << max(1, (count - 1).bit_length())) - 1)
