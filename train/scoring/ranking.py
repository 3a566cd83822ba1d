"""What the order of scores tells of classes: one sort, and sums along it. numpy only.

scikit-learn gives the same numbers to the last digits, and takes some milliseconds a call whatever
the number of rows: with many probes that would be most of a validation. Nor does it sort once for
many labels, or for many weights.
"""

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

_MAX_NUMBERS: Final = 2**21
"""In a matrix: 16 MiB."""


@dataclass(frozen=True, eq=False)
class RankedRows:
    """Rows by falling score, those of one score together."""

    scores: NDArray[np.float32]
    """f4[M]: that there are, falling."""
    hits: NDArray[np.int64]
    """i64[M]: positive rows down to each of the M scores that there are."""
    rows: NDArray[np.int64]
    """i64[M]: all rows down to each of them; the last is N."""
    order: NDArray[np.int64]
    """i64[N]: which row stands in each place."""

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
        return cls(falling[last], hits, last + 1, order)

    @property
    def ranks(self) -> NDArray[np.float64]:
        """f8[N]: rank of each row by rising score, from 1, equal ones sharing their mean rank."""
        return _shared_ranks(self.order[::-1], (len(self.order) - self.rows)[::-1])

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


def ranks_of(values: NDArray[np.uint8 | np.float32]) -> NDArray[np.float64]:
    """Return f8[N]: ranks of values among which many are equal, as `RankedRows.ranks`."""
    order = np.argsort(values, kind="stable")  # a sixth of the default's time for such
    rising = values[order]
    return _shared_ranks(order, np.flatnonzero(np.append(True, rising[1:] != rising[:-1])))


def _shared_ranks(order: NDArray[np.int64], first: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return f8[N]: mean ranks of groups of equals.

    Args:
        order: i64[N]: which row stands in each place.
        first: i64[M], rising: place in which each group begins.
    """
    counts = np.diff(first, append=len(order))
    ranks = np.empty(len(order))
    ranks[order] = np.repeat(first + (counts + 1) / 2, counts)
    return ranks


class Ranking:
    """The same scores under many labels or weights: they are sorted once.

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


class DrawnRanking:
    """Average precision and AUROC of N rows, each drawn as often as the unit that it is of.

    Both are sums over the scores that positive rows have, and of the rows above each of these only
    how many are of which unit matters: many draws are a product of two small matrices, not a pass
    over all rows each.

    Args:
        score: f4[N], finite.
        positive: bool[N].
        unit: i64[N]: number of the unit, from 0.
        num_units: U.
    """

    def __init__(
        self,
        score: NDArray[np.float32],
        positive: NDArray[np.bool_],
        unit: NDArray[np.int64],
        num_units: int,
    ) -> None:
        order = np.argsort(score)[::-1]
        falling = score[order]
        tie = np.cumsum(np.append(False, falling[1:] != falling[:-1])[: len(falling)])
        self._positive, self._unit = positive[order], unit[order]
        ties = np.unique(tie[self._positive])
        self._num_places = len(ties)
        """Scores that positive rows have."""
        self._place = np.searchsorted(ties, tie)
        """i64[N], rising: the first of these that is no higher than the row's."""
        self._is_beside = np.append(ties, -1)[self._place] == tie
        """bool[N]: a positive row has this very score."""
        self._num_units = num_units

    def of(self, times: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return f8[D] average precisions and f8[D] AUROCs, of ties as `Ranking` and scikit-learn.

        Args:
            times: f8[D, U]: how often each unit is drawn, D times over.

        Returns:
            NaN where no positive row is drawn, the second also where no negative row is.
        """
        precisions, area, hits = (np.zeros(len(times)) for _ in range(3))
        above = np.zeros(self._num_units)
        width = max(1, _MAX_NUMBERS // max(len(times), self._num_units))
        for begin in range(0, self._num_places, width):
            width = min(width, self._num_places - begin)
            start, stop = np.searchsorted(self._place, (begin, begin + width))
            positive, beside = self._positive[start:stop], self._is_beside[start:stop]
            cell = self._unit[start:stop] * width + self._place[start:stop] - begin
            rows = np.cumsum(self._counted(cell, width), axis=1) + above[:, None]
            above = rows[:, -1]
            found = times @ self._counted(cell[positive], width)
            hits_to = np.cumsum(found, axis=1) + hits[:, None]
            hits = hits_to[:, -1]
            rows_to = times @ rows
            share = np.divide(hits_to, rows_to, out=np.zeros_like(found), where=rows_to > 0)
            precisions += (found * share).sum(axis=1)
            equal = times @ self._counted(cell[beside & ~positive], width)
            area += (found * (rows_to - hits_to - equal / 2)).sum(axis=1)
        rows = times @ np.bincount(self._unit, minlength=self._num_units)
        none = np.full(len(times), np.nan)
        pairs = hits * (rows - hits)
        return (
            np.divide(precisions, hits, out=none.copy(), where=hits > 0),
            1 - np.divide(area, pairs, out=none, where=pairs > 0),
        )

    def _counted(self, cell: NDArray[np.int64], width: int) -> NDArray[np.float64]:
        """Return f8[U, width]: how many rows each cell has."""
        counts = np.bincount(cell, minlength=self._num_units * width)
        return counts.reshape(self._num_units, width).astype(np.float64)
