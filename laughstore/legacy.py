"""The rules of the scripts before laughstore, to the last rounding: for comparisons with them.

Enters: times as annotated, in file order, of the speakers asked for. Leaves: targets of T rows.
Here alone seconds are floats and are multiplied by 12.5. Events are not cleaned, make no bouts and
ignore nothing; ends are rounded down; a later interval overwrites an earlier one.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from .bouts import Frames, Times, expand, paint
from .tables import IntervalTable
from .timebase import FRAMES_PER_SECOND, US_PER_SECOND

SPAN_S: Final = 10.0
"""Seconds before the end of an interval that are marked."""
LIMIT_S: Final = 10.0
"""Intervals whose turn began this long before the event, or longer, make no row positive."""


def frame_of(time_s: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return f(x) = int(x * 12.5) of each time, i64[N]: cut towards zero."""
    return np.trunc(time_s * FRAMES_PER_SECOND).astype(np.int64)


def seconds(time_us: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the floats that these times were, when they were written with 6 decimals."""
    return time_us / US_PER_SECOND


def detection(num_frames: int, events: Times, shift: int) -> NDArray[np.uint8]:
    """Return u1[T]: rows from f(start) to f(end), both moved `shift` rows earlier."""
    first, stop = frame_of(seconds(events.start_us)), frame_of(seconds(events.end_us))
    return paint(num_frames, Frames(first - shift, stop - shift)).astype(np.uint8)


def onset(num_frames: int, events: Times, span: int) -> NDArray[np.uint8]:
    """Return u1[T]: the `span` rows before f(start) of every event, those in other events too."""
    first = frame_of(seconds(events.start_us))
    return paint(num_frames, Frames(first - span, first)).astype(np.uint8)


def interval(num_frames: int, intervals: IntervalTable) -> NDArray[np.uint8]:
    """Return u1[T]: rows f(end - 10) to f(end), the last included, of intervals in the limit."""
    waited_s = seconds(intervals.event_start_us) - seconds(intervals.turn_start_us)
    end_s = seconds(intervals.end_us[waited_s < LIMIT_S])
    return paint(num_frames, Frames(frame_of(end_s - SPAN_S), frame_of(end_s) + 1)).astype(np.uint8)


def regression(num_frames: int, intervals: IntervalTable) -> NDArray[np.float32]:
    """Return f4[T]: 1 / (1 + seconds to the end) on the same rows, of the last one in the file."""
    end_s = seconds(intervals.end_us)
    first = frame_of(np.maximum(end_s - SPAN_S, 0))
    rows, owner = expand(num_frames, Frames(first, frame_of(end_s) + 1))
    left_s = end_s[owner] - rows / FRAMES_PER_SECOND
    ahead = left_s >= 0
    y = np.zeros(num_frames, np.float32)
    # Of a row assigned several times the last value stays: that of the last interval.
    y[rows[ahead]] = (1 / (left_s[ahead] + 1)).astype(np.float32)
    return y
