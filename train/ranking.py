"""Average precision of the same scores under many labels or weights: they are sorted once."""

import numpy as np
from numpy.typing import NDArray


class Ranking:
    """Rows in the order of their scores, the highest first.

    Args:
        score: f4[N], finite.
    """

    def __init__(self, score: NDArray[np.float32]) -> None:
        self._order = np.argsort(-score, kind="stable")
        ranked = score[self._order]
        self._is_last = np.append(ranked[1:] != ranked[:-1], True)
        """bool[N]: of rows that share a score, the last."""

    def average_precision(
        self, positive: NDArray[np.bool_], weight: NDArray[np.number] | NDArray[np.bool_]
    ) -> float:
        """Return the area under the precision-recall curve by steps, ties grouped.

        What scikit-learn's `average_precision_score` returns, with these sample weights.

        Args:
            positive: bool[N], in the order of the scores that were given.
            weight: [N], 0 or more; 0 or False leaves a row out.

        Returns:
            NaN where no positive row has any weight.
        """
        weighed = weight[self._order].astype(np.float64)
        hits = np.cumsum(weighed * positive[self._order])[self._is_last]
        rows = np.cumsum(weighed)[self._is_last]
        if not len(hits) or hits[-1] <= 0:
            return float("nan")
        precision = np.divide(hits, rows, out=np.zeros_like(hits), where=rows > 0)
        return float(np.diff(hits, prepend=0.0) @ precision / hits[-1])

    def auroc(
        self, positive: NDArray[np.bool_], weight: NDArray[np.number] | NDArray[np.bool_]
    ) -> float:
        """Return the area under the ROC curve, ties counted half.

        What scikit-learn's `roc_auc_score` returns, with these sample weights.

        Args:
            positive: as `average_precision`.
            weight: as `average_precision`.

        Returns:
            NaN where one class has no weight.
        """
        weighed = weight[self._order].astype(np.float64)
        hits = np.cumsum(weighed * positive[self._order])[self._is_last]
        alarms = np.cumsum(weighed)[self._is_last] - hits
        if not len(hits) or hits[-1] <= 0 or alarms[-1] <= 0:
            return float("nan")
        heights = hits + np.append(0.0, hits[:-1])
        return float(np.diff(alarms, prepend=0.0) @ heights / 2 / (hits[-1] * alarms[-1]))
