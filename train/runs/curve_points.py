"""A precision-recall curve as a few of its exact points, for TensorBoard.

TensorBoard's own curve takes thresholds at equal distances between 0 and 1. Where positives are
rare, most scores that are probabilities lie below the first of them, and the curve would be a line.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

NUM_POINTS: Final = 127
"""As many as TensorBoard draws."""


def curve_points(
    positive: NDArray[np.bool_], score: NDArray[np.float32], *, num: int = NUM_POINTS
) -> NDArray[np.float64]:
    """Return exact points of the precision-recall curve, recall falling from 1 in equal steps.

    Args:
        positive: bool[N], at least one true.
        score: f4[N]; equal scores are one point.
        num: K, at least 2. The last one is the first point of the curve.

    Returns:
        f8[6, K]: true positives, false positives, true negatives, false negatives, precision,
        recall. Where the curve has no point with a recall, that with the next higher one.
    """
    order = np.argsort(score)[::-1]
    falling = score[order]
    last = np.append(np.flatnonzero(falling[1:] != falling[:-1]), len(falling) - 1)
    hits = np.cumsum(positive[order])[last]
    num_positives, num_rows = hits[-1], len(score)
    # Rounded up in whole numbers: 6 * 0.5 in floats may be a little more than 3.
    wanted = -(-num_positives * np.arange(num - 1, -1, -1) // (num - 1))
    at = np.searchsorted(hits, wanted)
    true_positives, false_positives = hits[at], last[at] + 1 - hits[at]
    false_negatives = num_positives - true_positives
    counts = [
        true_positives,
        false_positives,
        num_rows - num_positives - false_positives,
        false_negatives,
    ]
    precision, recall = true_positives / (last[at] + 1), true_positives / num_positives
    return np.stack([*counts, precision, recall]).astype(np.float64)
