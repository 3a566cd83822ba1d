"""Which rows take part in an epoch when negatives are many: all positives, and some negatives."""

import math
from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray

from laughstore.errors import ConfigError

from ..permutation import BALANCE_PURPOSE, Permutations
from .selection import Selection

_BALANCED_SPLIT: Final = "train"


def num_negatives(positives: int, negatives: int, ratio: float) -> int:
    """Return K = min(negatives, floor(ratio * positives)), the ratio taken as it is written.

    Raises:
        ConfigError: there is no positive row, or the ratio cannot work.
    """
    check_balance(ratio)
    if not positives:
        raise ConfigError(
            f"balance is {ratio:g}, but no row is positive: there is nothing to balance; use"
            " another label or filter, or no balance"
        )
    # 0.29 * 100 is 28.99...: whoever writes 0.29 means 29.
    return min(negatives, math.floor(Fraction(repr(float(ratio))) * positives))


def balanced_rows(
    positive: NDArray[np.bool_], ratio: float, *, seed: int, epoch: int
) -> NDArray[np.int64]:
    """Return the rows of one epoch, rising: all positives and K negatives without replacement.

    The negatives are the first K of a permutation of all N by (seed, epoch), so they are new ones
    in each epoch, and their number never changes.

    Args:
        positive: bool[rows that are eligible], of the whole split.
        ratio: negatives for each positive row.
        seed: of the stream.
        epoch: from 0.

    Returns:
        i64[P + K].

    Raises:
        ConfigError: as `num_negatives`.
    """
    positives = np.flatnonzero(positive)
    count = len(positive) - len(positives)
    num_taken = num_negatives(len(positives), count, ratio)
    chosen = Permutations((seed, epoch)).first_of(count, num_taken, BALANCE_PURPOSE)
    # The r-th negative stands behind as many positives as have at most r negatives before them.
    # All negatives are never listed: there may be 13 million.
    num_before = positives - np.arange(len(positives))
    negatives = chosen + np.searchsorted(num_before, chosen, "right")
    return np.sort(np.concatenate([positives, negatives]))


def check_can_balance(selection: Selection, ratio: float) -> None:
    """Check that the rows of a selection can be balanced.

    Raises:
        ConfigError: they are of another split than `train`, or as `num_negatives`.
    """
    if selection.split != _BALANCED_SPLIT:
        raise ConfigError(
            f"balance is {ratio:g} for split {selection.split!r}; only {_BALANCED_SPLIT!r} is"
            " balanced: other splits are scored as they are"
        )
    num_negatives(selection.counts.positives, selection.counts.negatives, ratio)


def check_balance(ratio: float) -> None:
    """Raise a ConfigError unless a ratio of negatives to positives can work."""
    if not (ratio > 0 and math.isfinite(ratio)):
        raise ConfigError(
            f"balance is {ratio}; it is the number of negatives for each positive row, above 0"
        )
