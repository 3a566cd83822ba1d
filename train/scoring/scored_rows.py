"""Rows with their targets and scores, as metrics see them: what several metrics need of them."""

from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from laughstore.kinds import TargetArray

from .ranking import RankedRows

FIT: Final = "fit"
"""In the place of a threshold: the best one of these very rows."""
NOBODY_CHOSE: Final = "no threshold was chosen on validation"


class UndefinedError(Exception):
    """Raised by a metric that these rows have no value of; its text is the reason."""


@dataclass(frozen=True, eq=False)
class ScoredRows:
    """N rows with what was asked of them and what was answered."""

    y: TargetArray
    """u1[N] classes, or f4[N] numbers; above 0 where positive."""
    score: NDArray[np.float32]
    """f4[N], finite; of classes, higher means more likely positive."""
    reach_s: float | None = None
    """Of numbers: the longest wait, in seconds, that they tell of."""
    chosen_threshold: float | Literal["fit"] | None = FIT
    """Of classes: the score from which on a row is an alarm; None where nobody has chosen one."""
    no_threshold: str = NOBODY_CHOSE
    """Why there is none, where there is none."""

    @cached_property
    def positive(self) -> NDArray[np.bool_]:
        """bool[N]."""
        return self.y > 0

    @cached_property
    def num_positives(self) -> int:
        """P."""
        return int(np.count_nonzero(self.positive))

    @cached_property
    def error(self) -> NDArray[np.float64]:
        """f8[N]: score - y."""
        return self.score.astype(np.float64) - self.y

    @cached_property
    def wait_error_s(self) -> NDArray[np.float64]:
        """X rows of numbers, seconds that the score tells of less the truth."""
        assert self.reach_s is not None, "of numbers"
        score = self.score[self.positive].astype(np.float64)
        waits = 1 / np.clip(score, 1 / (1 + self.reach_s), 1.0) - 1
        return waits - (1 / self.y[self.positive].astype(np.float64) - 1)

    @cached_property
    def ranking(self) -> RankedRows:
        """Rows by falling score."""
        return RankedRows.of(self.positive, self.score)

    @cached_property
    def average_precision(self) -> float:
        """Area under the precision-recall curve by steps, ties grouped."""
        self.need_positives()
        return self.ranking.average_precision

    @cached_property
    def threshold(self) -> float:
        """The score from which on a row is an alarm."""
        if self.chosen_threshold is None:
            raise UndefinedError(self.no_threshold)
        if self.chosen_threshold != FIT:
            return self.chosen_threshold
        self.need_positives()
        return self.ranking.best_f1_threshold

    @cached_property
    def alarm(self) -> NDArray[np.bool_]:
        """bool[N]."""
        return self.score >= np.float32(self.threshold)

    @cached_property
    def num_hits(self) -> int:
        """Alarms in positive rows."""
        return int(np.count_nonzero(self.alarm & self.positive))

    @cached_property
    def num_alarms(self) -> int:
        """Alarms in all rows."""
        return int(np.count_nonzero(self.alarm))

    def need_positives(self) -> None:
        """Raise where there are none."""
        if not self.num_positives:
            raise UndefinedError("no positive rows")
