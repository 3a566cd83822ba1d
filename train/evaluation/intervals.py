"""Intervals of an evaluation's numbers, by drawing groups or recordings again.

All numbers are taken of the same draws. Thresholds stay what they are: they were chosen before.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from laughstore.index import Index
from laughstore.labels import LabelSpec

from ..losses import target_kind
from ..scoring.metrics import rows_of
from ..scoring.ranking import DrawnRanking
from ..scoring.score import StreamScores, counted_rows
from ..scoring.scored_rows import ScoredRows
from .bootstrap import DRAWS, Draws, Interval, Units

_Drawn = dict[str, NDArray[np.float64]]


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
    drawn = Draws(units_of(index, streams), draws=draws, seed=seed)
    values = metric_draws(index, streams, label, drawn, threshold=threshold)
    return {name: drawn.interval(each) for name, each in values.items()}


def units_of(index: Index, streams: Sequence[StreamScores]) -> Units:
    """Return what is drawn of scored streams; `index` tells of groups."""
    recordings = [stream.stream.recording_id for stream in streams]
    return Units.of(recordings, [index.recording(key).group for key in recordings])


def metric_draws(
    index: Index,
    streams: Sequence[StreamScores],
    label: LabelSpec,
    drawn: Draws,
    *,
    threshold: float | None = None,
) -> dict[str, NDArray[np.float64]]:
    """Return f8[D], metrics of each draw, by their names in METRICS; NaN where there is none.

    Spearman is not among them: it takes a pass over all rows for each draw (`spearman_draws`).

    Args:
        index: tells of groups.
        streams: that were scored.
        label: of their targets.
        drawn: the draws, of the units of these streams.
        threshold: of precision, recall and F1; none of these if None.
    """
    rows = rows_of(*counted_rows(streams), label, threshold)
    unit = _unit_of_rows(index, streams, drawn.units)
    times = drawn.times()
    values = _of_ranks(rows, unit, times)
    if target_kind(label) == "numbers":
        return _of_errors(rows, unit, times) | values
    return values | ({} if threshold is None else _of_alarms(rows, unit, times))


def spearman_draws(
    index: Index, streams: Sequence[StreamScores], drawn: Draws
) -> NDArray[np.float64]:
    """Return f8[D]: rank correlation of targets and scores, of each draw.

    Args:
        index: tells of groups.
        streams: that were scored.
        drawn: the draws, of the units of these streams.
    """
    unit = _unit_of_rows(index, streams, drawn.units)
    places = [_Places(values) for values in counted_rows(streams)]
    drawn_times = drawn.times()
    found = np.full(len(drawn_times), np.nan)
    for number, times in enumerate(drawn_times):
        weight = times[unit]
        mean = weight.sum() / 2  # of the ranks below, whatever the ties
        y, score = (place.ranks(weight) - mean for place in places)
        spread = np.sqrt((weight @ np.square(y)) * (weight @ np.square(score)))
        if spread > 0:
            found[number] = weight @ (y * score) / spread
    return found


class _Places:
    """Values in their order, of which ranks are made of many weights: they are sorted once."""

    def __init__(self, values: NDArray[np.number]) -> None:
        _, self._place = np.unique(values, return_inverse=True)

    def ranks(self, weight: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return f8[N]: the weight of lower values, and half of that of equal ones."""
        equal = np.bincount(self._place, weight)
        return (np.cumsum(equal) - equal / 2)[self._place]


def _unit_of_rows(index: Index, streams: Sequence[StreamScores], units: Units) -> NDArray[np.int64]:
    """Return i64[N]: number of the unit of each row that counts."""
    number = {name: place for place, name in enumerate(units.names)}
    recordings = [stream.stream.recording_id for stream in streams]
    by_group = units.kind == "group"
    names = [index.recording(key).group if by_group else key for key in recordings]
    sizes = [int(np.count_nonzero(stream.eligible)) for stream in streams]
    return np.repeat([number[name] for name in names], sizes)


def _of_ranks(rows: ScoredRows, unit: NDArray[np.int64], times: NDArray[np.float64]) -> _Drawn:
    num_units = times.shape[1]
    p = times @ np.bincount(unit, rows.positive, num_units)
    n = times @ np.bincount(unit, minlength=num_units)
    ap, auroc = DrawnRanking(rows.score, rows.positive, unit, num_units).of(times)
    return {
        "average_precision": ap,
        "base_rate": _ratio(p, n),
        "lift": _ratio(ap * n, p),
        "auroc": auroc,
    }


def _of_alarms(rows: ScoredRows, unit: NDArray[np.int64], times: NDArray[np.float64]) -> _Drawn:
    num_units = times.shape[1]
    p = times @ np.bincount(unit, rows.positive, num_units)
    alarms = times @ np.bincount(unit, rows.alarm, num_units)
    hits = times @ np.bincount(unit, rows.alarm & rows.positive, num_units)
    return {
        "f1": np.where(p > 0, _ratio(2 * hits, alarms + p), np.nan),
        "precision": _ratio(hits, alarms),
        "recall": _ratio(hits, p),
    }


def _of_errors(rows: ScoredRows, unit: NDArray[np.int64], times: NDArray[np.float64]) -> _Drawn:
    num_units = times.shape[1]
    n = times @ np.bincount(unit, minlength=num_units)
    p = times @ np.bincount(unit, rows.positive, num_units)
    squares = times @ np.bincount(unit, np.square(rows.error), num_units)
    sizes = times @ np.bincount(unit, np.abs(rows.error), num_units)
    waits = times @ np.bincount(unit[rows.positive], np.abs(rows.wait_error_s), num_units)
    return {
        "rmse": np.sqrt(_ratio(squares, n)),
        "mae": _ratio(sizes, n),
        "wait_mae_s": _ratio(waits, p),
    }


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
