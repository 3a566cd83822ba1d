"""Which of a stream's events were found: what counts are made from, and strata."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Outcomes(NamedTuple):
    """K events of one stream that could be found, in order of time."""

    moment_us: NDArray[np.int64]
    """i64[K]: when a bout begins; of intervals, when they end."""
    found: NDArray[np.bool_]
    """bool[K]."""
