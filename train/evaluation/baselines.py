"""Scores that nobody trained, beside those of a model: what is there to be had for nothing.

- `train_base_rate`: a constant for each stream, the rate of positive rows (of numbers the mean
  target) of the nearest that was trained on: the stream itself, its show, or all of train.
- `time_since_laughter`: how long ago laughter that the label asks about last ended, heard wholly
  before the row.
- `row_energy`: the length of the row's standardised features.

All are judged on the very rows that a model is judged on. Which way the last two point is chosen on
the split train, never on what is evaluated.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from laughstore.index import Index, Stream
from laughstore.labels import LabelSpec, target_bouts
from laughstore.timebase import FRAME_US, US_PER_SECOND

from ..scoring.metrics import FrameMetrics
from ..scoring.score import StreamScores, metrics_of
from .train_side import ONE_CLASS, KnownOf, Points, Rates, TrainSide, direction
from .within import WithinStreams

BASELINES: Final = {
    "train_base_rate": "rate of positive rows in train",
    "time_since_laughter": "time since laughter ended",
    "row_energy": "length of a row's features",
}
"""Titles, by name."""
_POINTS: Final = {
    "time_since_laughter": {1: "longer", -1: "shorter"},
    "row_energy": {1: "larger", -1: "smaller"},
}
"""What is more likely positive."""
_NEVER_S: Final = 1e9
"""Seconds since laughter, where there was none: longer than any recording."""
_METRICS: Final = ("base_rate", "average_precision", "lift", "auroc")
_ERRORS: Final = ("rmse", "mae")
"""Of numbers, and of a baseline that is one, too."""


@dataclass(frozen=True)
class Baseline:
    """What a score that nobody trained comes to; without metrics there is a reason."""

    metrics: FrameMetrics | None
    within: WithinStreams | None
    """None for labels that are numbers, too."""
    higher: str | None = None
    """Which values are taken for more likely positive, as train says; None of a constant."""
    known_of: Mapping[KnownOf, int] | None = None
    """Of the base rate: how many streams have their own, their show's, that of all of train."""
    reason: str | None = None
    """Why there is none."""

    def to_json(self) -> dict[str, Any]:  # Any: JSON values
        """Return a JSON object of finite numbers and nulls."""
        found = self.metrics
        return {
            **(dict.fromkeys(_METRICS) if found is None else dict(found.values)),
            "undefined": {} if found is None else dict(found.undefined),
            "within_streams": None if self.within is None else self.within.to_json(),
            "higher": self.higher,
            "known_of": None if self.known_of is None else dict(self.known_of),
            "reason": self.reason,
        }


def baselines_of(
    index: Index,
    streams: Sequence[StreamScores],
    label: LabelSpec,
    train: TrainSide | str,
) -> dict[str, Baseline]:
    """Return the baselines of scored streams, by the names in BASELINES.

    Args:
        index: of the streams.
        streams: with the energies of their rows.
        label: of their targets.
        train: rows that were trained on, or why there are none.
    """
    if isinstance(train, str):
        return dict.fromkeys(BASELINES, Baseline(None, None, reason=train))
    return {
        "train_base_rate": _base_rate(index, streams, label, Rates.of(train)),
        "time_since_laughter": _pointed(
            "time_since_laughter",
            streams,
            [_since_laughter(index, item.stream, item.row, label) for item in streams],
            label,
            _time_points(train),
        ),
        "row_energy": _pointed(
            "row_energy",
            streams,
            [_energy(item) for item in streams],
            label,
            train.energy_points,
        ),
    }


def baseline_title(name: str, label: LabelSpec) -> str:
    """Return what a baseline is called where people read it."""
    if name == "train_base_rate" and label.kind == "regression":
        return "mean target in train"
    return BASELINES[name]


def seconds_since(ends_us: NDArray[np.int64], row: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return f4[n]: seconds from the last of these ends before each row's moment to that moment.

    An end at the moment itself does not count: the row has heard nothing from there on, and cannot
    know whether it goes on.

    Args:
        ends_us: i64[K], rising.
        row: i64[n].

    Returns:
        1e9 where nothing has ended.
    """
    now_us = row * FRAME_US
    number = np.searchsorted(ends_us, now_us, "left") - 1
    behind_us = now_us - np.append(ends_us, 0)[number]
    found = np.where(number < 0, _NEVER_S, behind_us / US_PER_SECOND)
    return found.astype(np.float32)


def _since_laughter(
    index: Index, stream: Stream, row: NDArray[np.int64], label: LabelSpec
) -> NDArray[np.float32]:
    # Not of bouts: that one has ended is only known when its merge gap has passed, and before that
    # the label would tell whether the laughter comes back.
    tables = index.tables(index.recording(stream.recording_id))
    heard = target_bouts(label, tables, main=stream.main, other=stream.other, merge_gap_us=0)
    return seconds_since(heard.end_us, row)


def _time_points(train: TrainSide) -> Points | str:
    seconds, positive = [], []
    for stream, y, counts in train.questions():
        row = np.flatnonzero(counts)
        seconds.append(_since_laughter(train.index, stream, row, train.label))
        positive.append(y[row] > 0)
    return direction(np.concatenate(positive), np.concatenate(seconds)) or ONE_CLASS


def _energy(scores: StreamScores) -> NDArray[np.float32]:
    assert scores.energy is not None, "scored with energies"
    return scores.energy


def _base_rate(
    index: Index, streams: Sequence[StreamScores], label: LabelSpec, rates: Rates
) -> Baseline:
    known_of: dict[KnownOf, int] = {"stream": 0, "show": 0, "train": 0}
    values = []
    for item in streams:
        show = index.recording(item.stream.recording_id).group
        known, rate = rates.known_of(item.stream, show, label)
        known_of[known] += 1
        values.append(np.full(len(item.row), rate, np.float32))
    return replace(_judged(streams, values, label, more=_ERRORS), known_of=known_of)


def _pointed(
    name: str,
    streams: Sequence[StreamScores],
    values: Sequence[NDArray[np.float32]],
    label: LabelSpec,
    points: Points | str,
) -> Baseline:
    if isinstance(points, str):
        return Baseline(None, None, reason=points)
    found = _judged(streams, [points * each for each in values], label)
    return replace(found, higher=_POINTS[name][points])


def _judged(
    streams: Sequence[StreamScores],
    values: Sequence[NDArray[np.float32]],
    label: LabelSpec,
    *,
    more: tuple[str, ...] = (),
) -> Baseline:
    scored = [replace(item, score=value) for item, value in zip(streams, values, strict=True)]
    metrics = metrics_of(scored, label, threshold=None).only(_METRICS + more)
    return Baseline(metrics, WithinStreams.of(scored, label))
