"""Permutations that depend on a few integers alone, for ever and on every machine. numpy only."""

import numpy as np
from numpy.typing import NDArray

GLOBAL_PURPOSE = 2**64 - 1
"""Of the permutation of all rows."""
BALANCE_PURPOSE = 2**64 - 2
"""Of the choice of negatives."""


def permutation(
    count: int, key: tuple[int, int], purpose: int, window: int = 0
) -> NDArray[np.int64]:
    """Return a permutation of range(count) that depends on these integers alone.

    Philox (Salmon et al., SC 2011) is keyed by `key`; purpose and window are the high words of its
    counter, so two of them never share a number. The order is that of raw 64-bit draws with the
    index in the low bits: NumPy keeps raw draws for ever, but may change how
    `Generator.permutation` uses them.

    Args:
        count: 0 or more.
        key: (seed, epoch).
        purpose: 0 for the order of blocks, l + 1 for lane l, or GLOBAL_PURPOSE, BALANCE_PURPOSE.
        window: of that lane.
    """
    draws, mask = _draws(count, key, purpose, window)
    draws.sort()  # no two are equal: any sort gives the same order
    draws &= mask
    return draws.view(np.int64)


def first_of_permutation(
    count: int, size: int, key: tuple[int, int], purpose: int
) -> NDArray[np.int64]:
    """Return the first `size` numbers of `permutation(count, key, purpose)`, rising."""
    draws, mask = _draws(count, key, purpose, 0)
    if size < count:
        draws = np.partition(draws, size)[:size]
    return np.sort(draws & mask).astype(np.int64)


def _draws(
    count: int, key: tuple[int, int], purpose: int, window: int
) -> tuple[NDArray[np.uint64], np.uint64]:
    """Return (u64[count] different draws, the mask of their index)."""
    counter = np.array([0, 0, window, purpose], np.uint64)
    bits = np.uint64(max(1, (count - 1).bit_length()))
    draws = np.random.Philox(key=np.array(key, np.uint64), counter=counter).random_raw(count)
    mask = (np.uint64(1) << bits) - np.uint64(1)
    # In place: windows are small and many, and a permutation of all rows is large.
    draws &= ~mask
    draws |= np.arange(count, dtype=np.uint64)
    return draws, mask
