"""First weights: a function of the seed alone, for ever and on every machine. numpy only."""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

_WEIGHTS: Final = 2**64 - 1
"""Second word of the key, whose other values are epochs of the stream (`train.permutation`)."""


def uniform(shape: tuple[int, ...], bound: float, seed: int) -> NDArray[np.float32]:
    """Return f4[shape] between -bound and bound.

    From raw 64-bit draws of Philox, which NumPy keeps for ever; it may change what
    `Generator.uniform` makes of them. No generator that others draw from is touched.

    Args:
        shape: of the weights.
        bound: of their size.
        seed: of the run.
    """
    draws = np.random.Philox(key=np.array([seed, _WEIGHTS], np.uint64)).random_raw(math.prod(shape))
    unit = (draws >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)
    return ((2 * unit - 1) * np.float32(bound)).reshape(shape)
