"""From the scores of a stream to segments of time, and what of them can be judged at all."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from laughstore.bouts import Times
from laughstore.errors import ConfigError
from laughstore.timebase import FRAME_US


@dataclass(frozen=True)
class SegmentRule:
    """How scores become segments; fitted on validation, never on what is judged.

    Raises:
        ConfigError: a number cannot work.
    """

    threshold: float
    """A segment holds a row with this score, or a higher one."""
    low: float | None = None
    """All its rows have this score or a higher one; None: the threshold (no hysteresis)."""
    median_rows: int = 1
    """Scores are smoothed by the median of so many rows, centred; 1: they are not."""
    merge_gap_us: int = 0
    """Segments no further apart than this are one."""
    min_duration_us: int = 0
    """Shorter ones are dropped, after that."""

    def __post_init__(self) -> None:
        if np.isnan(self.threshold):
            raise ConfigError("threshold is not a number")
        if self.low is not None and not self.low <= self.threshold:
            raise ConfigError(
                f"low is {self.low}; it must be at most the threshold ({self.threshold})"
            )
        if self.median_rows < 1 or self.median_rows % 2 == 0:
            raise ConfigError(f"median_rows is {self.median_rows}; it must be odd: 1, 3, 5, ...")
        for name in ("merge_gap_us", "min_duration_us"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be 0 or more")


@dataclass(frozen=True, eq=False)
class Segments:
    """N stretches of time, disjoint and in order, each with the highest of its scores."""

    start_us: NDArray[np.int64]
    """i64[N], microseconds of the recording."""
    end_us: NDArray[np.int64]
    """i64[N]; behind the start."""
    score: NDArray[np.float32]
    """f4[N]."""

    def __len__(self) -> int:
        return len(self.start_us)

    def only(self, chosen: NDArray[np.bool_]) -> Self:
        """Return those that are chosen (bool[N])."""
        return type(self)(self.start_us[chosen], self.end_us[chosen], self.score[chosen])


def find_segments(
    row: NDArray[np.int64], score: NDArray[np.float32], rule: SegmentRule, *, lead: int = 0
) -> Segments:
    """Return the segments of one stream.

    Rows that are missing (left out as corrupt) end a segment; what lies beyond is joined to it if
    the gap is no longer than the rule says.

    Args:
        row: i64[n], rising: t, rows from the start of the recording.
        score: f4[n], finite.
        rule: how scores become segments.
        lead: frames; a score of row t is about frame t + lead.

    Returns:
        Segments from the start of their first row's frame to the end of the last one's. They may
        begin before the recording (negative lead) or end behind it.
    """
    if not len(row):
        none = np.empty(0, np.int64)
        return Segments(none, none, np.empty(0, np.float32))
    breaks = _breaks(row)
    smooth = smoothed(row, score, rule.median_rows)
    inside = smooth >= (rule.threshold if rule.low is None else rule.low)
    begins = inside.copy()
    begins[1:] &= ~inside[:-1]
    begins[breaks] = inside[breaks]
    first = np.flatnonzero(begins)
    ends = inside.copy()
    ends[:-1] &= ~inside[1:]
    ends[breaks - 1] = inside[breaks - 1]
    last = np.flatnonzero(ends)
    peak = _peaks(smooth, first, last)
    reaches = peak >= rule.threshold
    first, last, peak = first[reaches], last[reaches], peak[reaches]
    start_us = (row[first] + lead) * FRAME_US
    end_us = (row[last] + 1 + lead) * FRAME_US
    opens = np.ones(len(first), np.bool_)
    opens[1:] = start_us[1:] - end_us[:-1] > rule.merge_gap_us
    heads = np.flatnonzero(opens)
    tails = np.append(heads[1:], len(first)) - 1 if len(heads) else heads
    found = Segments(start_us[heads], end_us[tails], _peaks(peak, heads, tails))
    return found.only(found.end_us - found.start_us >= rule.min_duration_us)


def judged(segments: Segments, reference: Times, unknown: Times) -> Segments:
    """Return the segments that are right or wrong: not those that touch unknown events alone.

    Args:
        segments: of a stream.
        reference: its bouts, disjoint and in order.
        unknown: events that may be of the class, or of the speaker, asked for.
    """
    return segments.only(~(touches(segments, unknown) & ~touches(segments, reference)))


def touches(segments: Segments, times: Times) -> NDArray[np.bool_]:
    """Return bool[N]: the segment shares time with one of these, which may overlap."""
    order = np.argsort(times.start_us, kind="stable")
    starts = times.start_us[order]
    latest_end = np.concatenate(
        [[np.iinfo(np.int64).min], np.maximum.accumulate(times.end_us[order])]
    )
    # Of all that begin before a segment's end, does one end behind its start?
    return latest_end[np.searchsorted(starts, segments.end_us, "left")] > segments.start_us


def smoothed(row: NDArray[np.int64], score: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    """Return f4[n]: medians of so many rows, centred, within stretches of rows.

    At the ends of a stretch its last row is repeated.

    Args:
        row: i64[n], rising.
        score: f4[n].
        width: odd; 1: the scores as they are.
    """
    if width == 1 or not len(row):
        return score
    parts = []
    for part in np.split(score, _breaks(row)):
        padded = np.pad(part, width // 2, mode="edge")
        parts.append(np.median(sliding_window_view(padded, width), axis=1).astype(np.float32))
    return np.concatenate(parts)


def _breaks(row: NDArray[np.int64]) -> NDArray[np.int64]:
    """Places of rows before which one is missing."""
    return np.flatnonzero(np.diff(row) != 1) + 1


def _peaks(
    values: NDArray[np.float32], first: NDArray[np.int64], last: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return f4[k]: the largest of values[first : last + 1] of each range; they are disjoint."""
    if not len(first):
        return np.empty(0, np.float32)
    edges = np.stack([first, last + 1], axis=1).reshape(-1)
    # reduceat takes no place behind the end; a sentinel there is the least of all.
    padded = np.append(values, np.float32(-np.inf))
    return np.maximum.reduceat(padded, edges)[::2]
