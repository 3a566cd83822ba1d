"""Intervals of an evaluation's numbers, by drawing groups or recordings again.

All numbers are taken of the same draws. Thresholds stay what they are: they were chosen before.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from laughstore.index import Index
from laughstore.labels import LabelSpec

from ..losses import target_kind
from ..scoring.ranking import DrawnRanking
from ..scoring.score import StreamScores, counted_rows
from .bootstrap import DRAWS, Interval, Units, intervals_of

_Statistics = Callable[[NDArray[np.float64]], dict[str, NDArray[np.float64]]]


def metric_intervals(
    index: Index,
    streams: Sequence[StreamScores],
    label: LabelSpec,
    *,
    threshold: float | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Interval]:
    """Return the 95 % intervals of metrics, by their names in `train.scoring.metrics.METRICS`.

    Args:
        index: tells of groups.
        streams: that were scored.
        label: of their targets.
        threshold: of precision, recall and F1; none of these if None.
        draws: 0: no intervals.
        seed: of the draws.
    """
    if draws == 0:
        return {}
    recordings = [stream.stream.recording_id for stream in streams]
    groups = [index.recording(key).group for key in recordings]
    units = Units.of(recordings, groups)
    names = groups if units.kind == "group" else recordings
    number = {name: place for place, name in enumerate(units.names)}
    sizes = [int(np.count_nonzero(stream.eligible)) for stream in streams]
    unit = np.repeat([number[name] for name in names], sizes)
    y, score = counted_rows(streams)
    if target_kind(label) == "classes":
        statistics = _of_classes(y > 0, score, unit, len(units.names), threshold)
    else:
        statistics = _of_numbers(score.astype(np.float64) - y, unit, len(units.names))
    return intervals_of(statistics, units, draws=draws, seed=seed)


def _of_classes(
    positive: NDArray[np.bool_],
    score: NDArray[np.float32],
    unit: NDArray[np.int64],
    num_units: int,
    threshold: float | None,
) -> _Statistics:
    ranking = DrawnRanking(score, positive, unit, num_units)
    rows = np.bincount(unit, minlength=num_units)
    positives = np.bincount(unit, positive, num_units)
    alarm = score >= np.float32(np.inf if threshold is None else threshold)
    alarms = np.bincount(unit, alarm, num_units)
    hits = np.bincount(unit, alarm & positive, num_units)

    def statistics(times: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        p, n = times @ positives, times @ rows
        ap, auroc = ranking.of(times)
        found = {
            "average_precision": ap,
            "base_rate": _ratio(p, n),
            "lift": _ratio(ap * n, p),
            "auroc": auroc,
        }
        if threshold is not None:
            tp, called = times @ hits, times @ alarms
            found["f1"] = np.where(p > 0, _ratio(2 * tp, called + p), np.nan)
            found["precision"] = _ratio(tp, called)
            found["recall"] = _ratio(tp, p)
        return found

    return statistics


def _of_numbers(error: NDArray[np.float64], unit: NDArray[np.int64], num_units: int) -> _Statistics:
    rows = np.bincount(unit, minlength=num_units)
    squares = np.bincount(unit, np.square(error), num_units)
    sizes = np.bincount(unit, np.abs(error), num_units)

    def statistics(times: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        n = times @ rows
        return {
            "rmse": np.sqrt(_ratio(times @ squares, n)),
            "mae": _ratio(times @ sizes, n),
        }

    return statistics


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
