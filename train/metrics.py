"""How good scores are. What cannot be computed is None with the reason, never 0 and never NaN."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from laughstore.kinds import TargetArray


@dataclass(frozen=True)
class FrameMetrics:
    """Scores of N rows against their targets."""

    num_rows: int
    num_positives: int
    base_rate: float | None
    """Share of positive rows: the average precision of a constant score."""
    average_precision: float | None
    """Area under the precision-recall curve by steps, ties grouped (scikit-learn)."""
    lift: float | None
    """average_precision / base_rate."""
    auroc: float | None
    """Area under the ROC curve."""
    undefined: str | None
    """Why some of these are None."""

    def to_json(self) -> dict[str, Any]:  # Any: JSON values
        """Return a JSON object of finite numbers and nulls."""
        return {
            "rows": self.num_rows,
            "positives": self.num_positives,
            "base_rate": self.base_rate,
            "average_precision": self.average_precision,
            "lift": self.lift,
            "auroc": self.auroc,
            "undefined": self.undefined,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:  # Any: JSON values
        """Return the metrics that `to_json` wrote. Raises KeyError when it did not."""
        return cls(
            num_rows=data["rows"],
            num_positives=data["positives"],
            base_rate=data["base_rate"],
            average_precision=data["average_precision"],
            lift=data["lift"],
            auroc=data["auroc"],
            undefined=data["undefined"],
        )


def frame_metrics(y: TargetArray, score: NDArray[np.float32]) -> FrameMetrics:
    """Return the metrics of N rows.

    Args:
        y: u1[N], 1 positive.
        score: f4[N], higher means more likely positive; finite.
    """
    num_rows, num_positives = len(y), int(np.count_nonzero(y))
    base_rate = num_positives / num_rows if num_rows else None
    average_precision = lift = auroc = undefined = None
    if not num_rows:
        undefined = "no rows"
    elif not num_positives:
        undefined = "no positive rows"
    else:
        average_precision = float(average_precision_score(y, score))
        lift = average_precision * num_rows / num_positives
        if num_positives == num_rows:
            undefined = "no negative rows"
        else:
            auroc = float(roc_auc_score(y, score))
    return FrameMetrics(
        num_rows, num_positives, base_rate, average_precision, lift, auroc, undefined
    )
