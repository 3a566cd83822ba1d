"""What the order of scores tells of classes: one sort, and sums along it. numpy only.

scikit-learn gives the same numbers to the last digits, and takes some milliseconds a call whatever
the number of rows: with many probes that would be most of a validation.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class RankedRows:
    """Rows by falling score, those of one score together."""

    scores: NDArray[np.float32]
    """f4[M]: that there are, falling."""
    hits: NDArray[np.int64]
    """i64[M]: positive rows down to each of the M scores that there are."""
    rows: NDArray[np.int64]
    """i64[M]: all rows down to each of them; the last is N."""

    @classmethod
    def of(cls, positive: NDArray[np.bool_], score: NDArray[np.float32]) -> Self:
        """Return the ranking of N rows, at least one.

        Args:
            positive: bool[N].
            score: f4[N], finite.
        """
        order = np.argsort(score)[::-1]
        falling = score[order]
        last = np.flatnonzero(np.append(falling[1:] != falling[:-1], True))
        hits = np.cumsum(positive[order], dtype=np.int64)[last]
        return cls(falling[last], hits, last + 1)

    @property
    def average_precision(self) -> float:
        """Area under the precision-recall curve by steps; of one positive row or more."""
        found = np.diff(self.hits, prepend=0) / self.hits[-1]
        return float(np.sum(found * (self.hits / self.rows)))

    @property
    def auroc(self) -> float:
        """Area under the ROC curve by trapezoids; of rows of both classes."""
        alarms = self.rows - self.hits
        heights = self.hits + np.append(0, self.hits[:-1])
        area = np.sum(np.diff(alarms, prepend=0) * heights) / 2
        return float(area / (self.hits[-1] * alarms[-1]))

    @property
    def best_f1_threshold(self) -> float:
        """The score from which on rows are best called positive by F1; of equal ones the highest.

        Of one positive row or more. A row is called positive if its score is at least this one, so
        equal scores are one point of the curve.
        """
        # Below 2^25 rows, quotients that are equal are equal as f8, and others are not.
        f1 = 2 * self.hits / (self.rows + self.hits[-1])
        return float(self.scores[np.argmax(f1)])
