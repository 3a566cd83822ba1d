"""How well scores order the rows of one stream, whatever streams differ by.

A head that knows only who laughs often reaches a high average precision over all streams together,
and says nothing about when.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from laughstore.labels import LabelSpec

from ..losses import target_kind
from ..scoring.metrics import frame_metrics
from ..scoring.score import StreamScores


@dataclass(frozen=True, eq=False)
class WithinStreams:
    """Metrics of each stream that holds rows of both classes."""

    lift: NDArray[np.float64]
    """f8[S]: average precision over the stream's own base rate."""
    auroc: NDArray[np.float64]
    """f8[S]."""
    num_streams: int
    """Of all streams, those of one class too."""

    @classmethod
    def of(cls, streams: Sequence[StreamScores], label: LabelSpec) -> Self | None:
        """Return the metrics of each stream, over its rows that count; None of numbers."""
        if target_kind(label) != "classes":
            return None
        lifts, aurocs = [], []
        for stream in streams:
            counts = stream.eligible
            found = frame_metrics(stream.y[counts], stream.score[counts], label)
            if found.lift is not None and found.auroc is not None:
                lifts.append(found.lift)
                aurocs.append(found.auroc)
        return cls(np.array(lifts, np.float64), np.array(aurocs, np.float64), len(streams))

    def to_json(self) -> dict[str, Any]:  # Any: JSON values
        """Return a JSON object of finite numbers and nulls: means and medians over streams."""
        return {
            "streams": len(self.lift),
            "streams_of_one_class": self.num_streams - len(self.lift),
            **_mean_and_median("lift", self.lift),
            **_mean_and_median("auroc", self.auroc),
        }


def _mean_and_median(name: str, values: NDArray[np.float64]) -> dict[str, float | None]:
    if not len(values):
        return {f"{name}_mean": None, f"{name}_median": None}
    return {f"{name}_mean": float(values.mean()), f"{name}_median": float(np.median(values))}
