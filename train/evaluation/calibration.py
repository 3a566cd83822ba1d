"""Whether probabilities mean what they say: Brier score, log-loss, expected calibration error."""

from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

_CLIP: Final = 1e-7
"""Probabilities are taken to be no closer to 0 and 1: one sure error is not the end of all."""
NUM_BINS: Final = 15


def brier_score(positive: NDArray[np.bool_], probability: NDArray[np.float32]) -> float:
    """Return the mean squared difference of N outcomes and their probabilities."""
    return float(np.square(probability.astype(np.float64) - positive).mean())


def log_loss(positive: NDArray[np.bool_], probability: NDArray[np.float32]) -> float:
    """Return the mean of -log of the probability of what came, in nats."""
    p = np.clip(probability.astype(np.float64), _CLIP, 1 - _CLIP)
    return float(-np.log(np.where(positive, p, 1 - p)).mean())


@dataclass(frozen=True, eq=False)
class ReliabilityBins:
    """Rows in bins of equal size by their probability."""

    count: NDArray[np.int64]
    """i64[K] rows."""
    said: NDArray[np.float64]
    """f8[K]: mean probability."""
    came: NDArray[np.float64]
    """f8[K]: share of positive rows."""

    @classmethod
    def of(
        cls,
        positive: NDArray[np.bool_],
        probability: NDArray[np.float32],
        num_bins: int = NUM_BINS,
    ) -> "ReliabilityBins":
        """Return the bins of N rows, one or more.

        Bins are of equal mass: with few positive rows nearly all rows would lie in the first of
        equally wide ones, and a constant would look calibrated. Rows of one probability share
        their outcomes, so that it does not matter which bin takes which of them.

        Args:
            positive: bool[N].
            probability: f4[N].
            num_bins: there are fewer if there are fewer rows.
        """
        order = np.argsort(probability, kind="stable")
        said = probability[order].astype(np.float64)
        _, tie, counts = np.unique(said, return_inverse=True, return_counts=True)
        came = (np.bincount(tie, positive[order]) / counts)[tie]
        num_bins = min(num_bins, len(said))
        edges = np.arange(num_bins + 1) * len(said) // num_bins
        size = np.diff(edges)
        return cls(
            size,
            np.add.reduceat(said, edges[:-1]) / size,
            np.add.reduceat(came, edges[:-1]) / size,
        )

    @property
    def expected_error(self) -> float:
        """Mean over rows of the difference of what their bin said and what came."""
        return float(np.abs(self.said - self.came) @ self.count / self.count.sum())


@dataclass(frozen=True, eq=False)
class Calibration:
    """What probabilities of N rows come to."""

    brier: float
    log_loss: float
    """In nats."""
    bins: ReliabilityBins

    @classmethod
    def of(cls, positive: NDArray[np.bool_], probability: NDArray[np.float32]) -> Self | None:
        """Return the calibration of N rows (bool[N], f4[N]); None of none."""
        if not len(positive):
            return None
        return cls(
            brier_score(positive, probability),
            log_loss(positive, probability),
            ReliabilityBins.of(positive, probability),
        )

    def to_json(self) -> dict[str, Any]:  # Any: JSON values
        """Return a JSON object of finite numbers."""
        return {
            "brier": self.brier,
            "log_loss": self.log_loss,
            "expected_calibration_error": self.bins.expected_error,
            "bins": {
                "rows": self.bins.count.tolist(),
                "said": self.bins.said.tolist(),
                "came": self.bins.came.tolist(),
            },
        }
