"""Where scores begin to count as an alarm: the threshold with the best F1, on exact points.

It is chosen on the split validation, kept in the checkpoint, and only applied elsewhere.
"""

import numpy as np
from numpy.typing import NDArray


def best_f1_threshold(positive: NDArray[np.bool_], score: NDArray[np.float32]) -> float:
    """Return the score with the best F1 among all that occur; of equal ones the higher.

    A row is an alarm if its score is at least the threshold, so equal scores are one point of the
    curve.

    Args:
        positive: bool[N], at least one true.
        score: f4[N], finite.
    """
    order = np.argsort(score)[::-1]
    falling = score[order]
    last = np.append(np.flatnonzero(falling[1:] != falling[:-1]), len(falling) - 1)
    hits = np.cumsum(positive[order])[last]
    # Below 2^25 rows, quotients that are equal are equal as f8, and others are not.
    f1 = 2 * hits / (last + 1 + hits[-1])
    return float(falling[last[np.argmax(f1)]])
