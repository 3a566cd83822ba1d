"""From annotated events to stretches of time: cleaning, selection, bouts, and painting on frames.

Enters: one recording's `EventTable`. Leaves: stretches in integer microseconds, and boolean masks
over frames. Nothing here knows what a label is; `laughstore.kinds` does.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .tables import UNKNOWN_SPEAKER, EventTable, RecordingTables
from .timebase import ceil_frame, floor_frame


class Times(NamedTuple):
    """N stretches of time [start, end) in microseconds."""

    start_us: NDArray[np.int64]
    end_us: NDArray[np.int64]

    def frames(self) -> "Frames":
        """Return the frames each stretch touches: [F(start), C(end))."""
        return Frames(floor_frame(self.start_us), ceil_frame(self.end_us))


class Frames(NamedTuple):
    """N ranges of frames [first, stop); they may overlap, be empty, or leave the recording."""

    first: NDArray[np.int64]
    stop: NDArray[np.int64]


@dataclass(frozen=True)
class EventFaults:
    """How many events of a recording were dropped, by the first reason that holds, or mended."""

    empty: int = 0
    """Dropped: the end is not after the start."""
    past_end: int = 0
    """Dropped: the start is not before the end of the recording."""
    duplicates: int = 0
    """Dropped: an earlier event is equal in every column."""
    cut: int = 0
    """Kept: the end was past the end of the recording and now lies there."""

    @property
    def dropped(self) -> int:
        """Events that are left out."""
        return self.empty + self.past_end + self.duplicates


@lru_cache(maxsize=1)  # the streams of a recording come one after another
def clean_events(tables: RecordingTables) -> tuple[EventTable, EventFaults]:
    """Return the events that labels are made from, in file order, and what was wrong with the rest.

    Annotations keep the events as they were written, so cleaning happens each time they are read.
    """
    events, duration_us = tables.events, tables.duration_us
    empty = events.end_us <= events.start_us
    past_end = ~empty & (events.start_us >= duration_us)
    duplicate = _repeats(events) & ~empty & ~past_end
    keep = ~(empty | past_end | duplicate)
    kept = EventTable(
        start_us=events.start_us[keep],
        end_us=events.end_us[keep],
        label=events.label[keep],
        full_label=events.full_label[keep],
        speaker=events.speaker[keep],
        confidence=events.confidence[keep],
    )
    faults = EventFaults(
        empty=int(empty.sum()),
        past_end=int(past_end.sum()),
        duplicates=int(duplicate.sum()),
        cut=int((kept.end_us > duration_us).sum()),
    )
    return replace(kept, end_us=np.minimum(kept.end_us, duration_us)), faults


def _repeats(events: EventTable) -> NDArray[np.bool_]:
    """bool[K]: an earlier event has the same value in every column."""
    starts = np.sort(events.start_us)
    if (starts[1:] != starts[:-1]).all():  # nearly always, and much cheaper than what follows
        return np.zeros(len(events), np.bool_)
    columns = (
        events.start_us,
        events.end_us,
        events.label,
        events.full_label,
        events.speaker,
        events.confidence.view(np.int32),
    )
    rows = np.stack([column.astype(np.int64) for column in columns], axis=1)  # i8[K, 6]
    first_of_each = np.unique(rows, axis=0, return_index=True)[1]
    repeats = np.ones(len(events), np.bool_)
    repeats[first_of_each] = False
    return repeats


class Selection(NamedTuple):
    """The events of one class that an assignment's label is about, each in file order."""

    targets: Times
    """Events that count."""
    unknown: Times
    """Events that may count: the speaker is not known, or the confidence is too low."""


def select_events(
    events: EventTable,
    *,
    of_class: NDArray[np.bool_],
    speakers: Collection[int] | None,
    min_confidence: float,
) -> Selection:
    """Return the target events and the unknown events among K cleaned events.

    An event of a speaker that was not asked for is neither, however low its confidence: that
    somebody else laughs is a cue, and cues are never ignored.

    Args:
        events: K events, cleaned.
        of_class: bool[K], the event's class is the one asked for.
        speakers: codes of the speakers asked for; None takes every event, a null speaker too.
        min_confidence: the least confidence of a target event.
    """
    if speakers is None:
        ours = np.ones(len(events), np.bool_)
        nameless = np.zeros(len(events), np.bool_)
    else:
        # They are one or two, for which isin takes many times as long.
        ours = np.zeros(len(events), np.bool_)
        for speaker in speakers:
            ours |= events.speaker == speaker
        nameless = events.speaker == UNKNOWN_SPEAKER
    # In float32, as stored: an event of confidence 0.7 must pass a minimum of 0.7.
    sure = events.confidence >= np.float32(min_confidence)
    targets = of_class & ours & sure
    unknown = of_class & (nameless | (ours & ~sure))
    return Selection(
        targets=Times(events.start_us[targets], events.end_us[targets]),
        unknown=Times(events.start_us[unknown], events.end_us[unknown]),
    )


def merge_bouts(times: Times, merge_gap_us: int) -> Times:
    """Return bouts: events joined while the next start - largest end so far <= merge gap.

    Args:
        times: N events in any order, each with end > start.
        merge_gap_us: zero or more.

    Returns:
        Bouts in order of time, more than the merge gap apart.
    """
    if len(times.start_us) == 0:
        return times
    order = np.argsort(times.start_us, kind="stable")
    start_us = times.start_us[order]
    # The running maximum may span all events: a bout starts after every earlier end.
    end_us = np.maximum.accumulate(times.end_us[order])
    opens = np.ones(len(start_us), np.bool_)
    opens[1:] = start_us[1:] - end_us[:-1] > merge_gap_us
    closes = np.ones(len(start_us), np.bool_)
    closes[:-1] = opens[1:]  # an event closes a bout when the next one opens one
    return Times(start_us[opens], end_us[closes])


def paint(num_frames: int, *ranges: Frames) -> NDArray[np.bool_]:
    """Return bool[num_frames]: the frame lies in at least one range, all cut to [0, num_frames).

    The work grows with the ranges, but for writing the mask: there are far fewer of them than
    frames.
    """
    begin = np.concatenate([item.first for item in ranges])
    begin = np.minimum(np.maximum(begin, 0), num_frames)
    end = np.concatenate([item.stop for item in ranges])
    end = np.minimum(np.maximum(end, begin), num_frames)  # an empty range stays empty
    if not (end > begin).any():  # often: edges of no width, no unknown event
        return np.zeros(num_frames, np.bool_)
    order = np.argsort(begin, kind="stable")
    begin, end = begin[order], np.maximum.accumulate(end[order])
    # A merged range opens where a range begins behind the ends of all before it.
    opens = np.ones(len(begin) + 1, np.bool_)
    opens[1:-1] = begin[1:] > end[:-1]
    edges = np.zeros(2 * np.count_nonzero(opens[:-1]) + 2, np.int64)
    edges[1:-1:2], edges[2:-1:2] = begin[opens[:-1]], end[opens[1:]]
    edges[-1] = num_frames
    runs = np.arange(len(edges) - 1) % 2 == 1  # outside, inside, outside, ...
    return np.repeat(runs, edges[1:] - edges[:-1])


def expand(num_frames: int, ranges: Frames) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return every row of every range, one range after the other, cut to [0, num_frames).

    Returns:
        i64[R] rows, and i64[R] the number of the range that each is of.
    """
    begin = np.clip(ranges.first, 0, num_frames)
    lengths = np.clip(ranges.stop, begin, num_frames) - begin
    owner = np.repeat(np.arange(len(lengths)), lengths)
    row_zero = begin - (np.cumsum(lengths) - lengths)  # added to a place among the R
    return np.arange(len(owner)) + row_zero[owner], owner
