"""Numbers as the bits of the nearest bfloat16, ties to even; what is no number is found."""

from dataclasses import dataclass

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

_EXPONENT = 0x7F80
"""All ones: infinity, or no number."""


@dataclass(frozen=True)
class Rounded:
    """Rows as they are stored."""

    bits: NDArray[np.uint16]
    """u2[n, D], bits of bfloat16."""
    num_rounded: int
    """Values that no bfloat16 is equal to."""


def round_to_bfloat16(values: NDArray[np.floating]) -> Rounded:
    """Return the nearest bfloat16 of each value: f2 or f4[n, D] of any byte order.

    Values beyond the largest bfloat16 become infinite, and count as rounded.
    """
    single = np.ascontiguousarray(values, np.float32)  # exact: float16 has fewer bits
    with np.errstate(over="ignore", invalid="ignore"):
        near = single.astype(ml_dtypes.bfloat16)
        same = near.astype(np.float32) == single
    return Rounded(near.view(np.uint16), int(same.size - np.count_nonzero(same)))


def not_finite(bits: NDArray[np.uint16]) -> int | None:
    """Return the first row of u2[n, D] that has a NaN or an infinite value; None: there is none."""
    found = np.flatnonzero(((bits & _EXPONENT) == _EXPONENT).any(axis=1))
    return int(found[0]) if len(found) else None
