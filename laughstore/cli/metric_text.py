"""Metrics as people read them."""

from collections.abc import Collection
from typing import TYPE_CHECKING

from .text import number, percent

if TYPE_CHECKING:
    from train.scoring.metrics import FrameMetrics


def metric_texts(found: "FrameMetrics", *, without: Collection[str] = ()) -> list[str]:
    """Return each metric with its name, but for some, in the order in which they are shown."""
    from train.scoring.metrics import METRICS

    return [
        f"{metric.title} {(percent if metric.is_share else number)(found.values[name])}"
        for name, metric in METRICS.items()
        if name in found.values and name not in without
    ]


def undefined_texts(found: "FrameMetrics") -> list[str]:
    """Return a line for each reason why metrics are undefined."""
    from train.scoring.metrics import METRICS

    by_reason: dict[str, list[str]] = {}
    for name, reason in found.undefined.items():
        by_reason.setdefault(reason, []).append(METRICS[name].title)
    return [f"undefined: {', '.join(titles)} ({reason})" for reason, titles in by_reason.items()]
