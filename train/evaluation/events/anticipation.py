"""Alarms before onsets: how many are foreseen, how early, at what price in false alarms.

An alarm is raised at a row that counts if its score reaches the threshold and no alarm was raised
in the n rows before, n being the label's span. Of the bout whose first frame is s, an alarm in rows
s - n to s - guard - 1 is a hit, and its lead time is that from the row's moment to the onset. An
alarm in no such window is false. Ignored rows raise none: onsets whose window holds no row that
counts cannot be foreseen, and are left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from laughstore.timebase import FRAME_US, US_PER_SECOND, floor_frame

from .outcomes import Outcomes

_US_PER_HOUR = 3600 * US_PER_SECOND


@dataclass(frozen=True, eq=False)
class AnticipatedStream:
    """The n rows of a stream that were scored, and the moments that were to be foreseen."""

    row: NDArray[np.int64]
    """i64[n], rising."""
    score: NDArray[np.float32]
    """f4[n]."""
    eligible: NDArray[np.bool_]
    """bool[n]: the row counts."""
    onset_us: NDArray[np.int64]
    """i64[K], rising."""

    @property
    def hours(self) -> float:
        """Of rows that count."""
        return int(np.count_nonzero(self.eligible)) * FRAME_US / _US_PER_HOUR


@dataclass(frozen=True, eq=False)
class Foreseen:
    """What alarms of one threshold come to."""

    num_onsets: int
    """That could be foreseen."""
    lead_s: NDArray[np.float64]
    """f8[hits]: seconds from the first alarm of an onset to the onset."""
    false_alarms: int
    hours: float
    outcomes: tuple[Outcomes, ...] = ()
    """Of each stream."""

    @property
    def recall(self) -> float | None:
        """Share of onsets that are foreseen; None if none could be."""
        return len(self.lead_s) / self.num_onsets if self.num_onsets else None

    @property
    def false_alarms_per_hour(self) -> float | None:
        """None without rows that count."""
        return self.false_alarms / self.hours if self.hours else None

    def to_json(self) -> dict[str, Any]:  # Any: JSON values
        """Return a JSON object of finite numbers and nulls; quartiles of the lead in seconds."""
        quartiles = None
        if len(self.lead_s):
            quartiles = [round(float(x), 4) for x in np.percentile(self.lead_s, (25, 50, 75))]
        return {
            "onsets": self.num_onsets,
            "hits": len(self.lead_s),
            "recall": self.recall,
            "lead_s_quartiles": quartiles,
            "false_alarms": self.false_alarms,
            "false_alarms_per_hour": self.false_alarms_per_hour,
        }


def raise_alarms(
    row: NDArray[np.int64], reaches: NDArray[np.bool_], quiet_rows: int
) -> NDArray[np.int64]:
    """Return i64[A]: places among n rows at which an alarm is raised.

    Args:
        row: i64[n], rising.
        reaches: bool[n]: the row counts and its score reaches the threshold.
        quiet_rows: rows after an alarm that raise none.
    """
    places = np.flatnonzero(reaches)
    rows = row[places]
    alarms: list[int] = []
    next_place = 0
    while next_place < len(rows):
        alarms.append(next_place)
        next_place = int(np.searchsorted(rows, rows[next_place] + quiet_rows, "right"))
    return places[np.array(alarms, np.int64)]


@dataclass(frozen=True, eq=False)
class StreamAlarms:
    """Alarms of one stream, and what became of its K moments."""

    place: NDArray[np.int64]
    """i64[A]: of each alarm among the rows that were scored."""
    is_false: NDArray[np.bool_]
    """bool[A]: in no window."""
    begins: NDArray[np.int64]
    """i64[K]: first row of each moment's window."""
    ends: NDArray[np.int64]
    """i64[K]: the row behind its last."""
    can_be: NDArray[np.bool_]
    """bool[K]: a row of the window counts, so that the moment can be foreseen."""
    lead_us: NDArray[np.int64]
    """i64[K]: from the first alarm of the window to the moment; -1 without one."""


def stream_alarms(
    stream: AnticipatedStream, threshold: float, *, span: int, guard: int = 0
) -> StreamAlarms:
    """Return the alarms of one stream; the arguments are those of `foresee`."""
    onset = floor_frame(stream.onset_us)
    begins, ends = onset - span, onset - guard
    counting = np.concatenate([[0], np.cumsum(stream.eligible)])
    inside = counting[np.searchsorted(stream.row, ends)]
    can_be = inside > counting[np.searchsorted(stream.row, begins)]
    reaches = stream.eligible & (stream.score >= threshold)
    place = raise_alarms(stream.row, reaches, span)
    alarm = stream.row[place]
    first = np.searchsorted(alarm, begins)
    is_hit = first < np.searchsorted(alarm, ends)
    lead_us = np.full(len(onset), -1, np.int64)
    lead_us[is_hit] = stream.onset_us[is_hit] - alarm[first[is_hit]] * FRAME_US
    return StreamAlarms(place, ~_is_inside(alarm, begins, ends), begins, ends, can_be, lead_us)


def foresee(
    streams: Sequence[AnticipatedStream], threshold: float, *, span: int, guard: int = 0
) -> Foreseen:
    """Return what alarms come to, all streams together.

    Args:
        streams: to be judged.
        threshold: from which score on a row raises an alarm.
        span: n, the label's, in rows: 1 or more.
        guard: the label's, in rows, below span.
    """
    each = [stream_alarms(item, threshold, span=span, guard=guard) for item in streams]
    leads = [found.lead_us[found.lead_us >= 0] / US_PER_SECOND for found in each]
    outcomes = [
        Outcomes(item.onset_us[found.can_be], found.lead_us[found.can_be] >= 0)
        for item, found in zip(streams, each, strict=True)
    ]
    return Foreseen(
        sum(int(np.count_nonzero(found.can_be)) for found in each),
        np.concatenate(leads) if leads else np.empty(0),
        sum(int(np.count_nonzero(found.is_false)) for found in each),
        sum(stream.hours for stream in streams),
        tuple(outcomes),
    )


def _is_inside(
    alarm: NDArray[np.int64], begins: NDArray[np.int64], ends: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return bool[A]: the alarm lies in a window; windows may overlap, all are equally long."""
    if not len(ends):
        return np.zeros(len(alarm), np.bool_)
    window = np.searchsorted(begins, alarm, "right") - 1  # the last that has begun ends last
    return (window >= 0) & (alarm < ends[window])
