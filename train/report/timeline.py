"""Recordings along time, as numbers that the page's script draws at any zoom.

Every score of a recording is in the page, in 16 bits: 90 kB an hour and stream, so that a reader
finds each row as it was scored however far they zoom in. The script draws the lowest and the
highest of the rows that share a column of the screen: no peak is lost from afar. Of recordings that
were not chosen there are excerpts around what is listed of them.
"""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from laughstore.bouts import Times
from laughstore.index import Index, Recording
from laughstore.labels import LabelSpec
from laughstore.timebase import FRAME_US, US_PER_SECOND

from ..losses import ScoreKind, target_kind
from ..scoring.score import StreamScores
from .marks import StreamMarks, Stretches
from .worst import Spot, WorstSpots

EXCERPT_US: Final = 60 * US_PER_SECOND
"""Before and after what is listed."""
_LEVELS: Final = 65535


@dataclass(frozen=True)
class Shown:
    """A recording of which a timeline is shown."""

    recording: Recording
    streams: tuple[int, ...]
    """Numbers of its streams among those that were scored."""
    excerpts: tuple[tuple[int, int], ...] | None
    """[start, end) of the stretches that are shown, in microseconds; None: all of it."""


def choose_recordings(
    index: Index, streams: Sequence[StreamScores], worst: WorstSpots, most: int
) -> list[Shown]:
    """Return the recordings that are shown: whole ones first, then those with excerpts.

    Whole are those with most of what is listed, of equal ones those with most positive rows; of
    others there are excerpts around what is listed of them.

    Args:
        index: of the recordings.
        streams: that were scored.
        worst: what is listed.
        most: recordings that are shown whole.
    """
    numbers: dict[str, list[int]] = {}
    positives: dict[str, int] = {}
    for number, item in enumerate(streams):
        key = item.stream.recording_id
        numbers.setdefault(key, []).append(number)
        positives[key] = positives.get(key, 0) + int(np.count_nonzero(item.y > 0))
    listed: dict[str, list[Spot]] = {key: [] for key in numbers}
    for spot in (*worst.false_alarms, *worst.misses):
        listed[streams[spot.stream].stream.recording_id].append(spot)
    ranked = sorted(numbers, key=lambda key: (-len(listed[key]), -positives[key], key))
    shown = []
    for place, key in enumerate(ranked):
        recording, spots = index.recording(key), listed[key]
        if place < most:
            shown.append(Shown(recording, tuple(numbers[key]), None))
        elif spots:
            around = stretches_around(spots, EXCERPT_US, recording.duration_us)
            shown.append(Shown(recording, tuple(numbers[key]), around))
    return shown


def stretches_around(
    spots: Sequence[Spot], margin_us: int, duration_us: int
) -> tuple[tuple[int, int], ...]:
    """Return the disjoint stretches of a recording that hold some spots and what is around them."""
    found: list[tuple[int, int]] = []
    for spot in sorted(spots, key=lambda item: item.start_us):
        start = max(spot.start_us - margin_us, 0)
        end = min(spot.end_us + margin_us, max(duration_us, spot.end_us))
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((start, end))
    return tuple(found)


def timeline_json(
    shown: Shown,
    streams: Sequence[StreamScores],
    marks: Sequence[StreamMarks],
    label: LabelSpec,
    scores: ScoreKind,
) -> dict[str, Any]:  # Any: JSON values
    """Return what the script draws of a recording, seconds from its start.

    Args:
        shown: the recording, and how much of it.
        streams: that were scored, of all recordings.
        marks: of each of them.
        label: of the scores.
        scores: what they are.
    """
    recording = shown.recording
    parts = None
    if shown.excerpts is not None:
        parts = [_seconds(start, end) for start, end in shown.excerpts]
    return {
        "id": recording.id,
        "name": recording.name,
        "group": recording.group,
        "end": recording.num_frames * FRAME_US / US_PER_SECOND,
        "excerpts": parts,
        "streams": [
            _stream_json(streams[number], marks[number], label, scores, shown.excerpts)
            for number in shown.streams
        ],
    }


def _stream_json(
    item: StreamScores,
    marks: StreamMarks,
    label: LabelSpec,
    scores: ScoreKind,
    excerpts: tuple[tuple[int, int], ...] | None,
) -> dict[str, Any]:  # Any: JSON values
    frame = item.row + label.lead_frames
    keep = np.ones(len(frame), np.bool_)
    if excerpts is not None:
        start_us = frame * FRAME_US
        keep = np.any([(start_us >= a) & (start_us < b) for a, b in excerpts], axis=0)
    frame, score = frame[keep], item.score[keep]
    eligible, y = item.eligible[keep], item.y[keep]
    bounds = (0.0, 1.0)
    if scores != "probability" and len(score):
        bounds = (min(0.0, float(score.min())), max(1.0, float(score.max())))
    is_number = target_kind(label) == "numbers"
    return {
        "title": item.title,
        "scores": packed(frame, score, *bounds),
        "targets": packed(frame[eligible], y[eligible], *bounds) if is_number else None,
        "bounds": list(bounds),
        "ignored": _runs(frame[~eligible]),
        "positive": _runs(frame[eligible & (y > 0)]),
        "events": _times(marks.events, excerpts),
        "predicted": _stretches(marks.predicted, excerpts),
        "awaited": _stretches(marks.awaited, excerpts),
    }


def packed(
    frame: NDArray[np.int64], values: NDArray[Any], low: float, high: float
) -> list[list[Any]]:  # Any: of either width; JSON values
    """Return runs of neighbouring frames as [first frame, base64 of their values].

    Args:
        frame: i64[n], rising.
        values: f4[n] or f8[n], from low to high.
        low: is 0 as u2.
        high: is 65535 as u2, little-endian.
    """
    if not len(frame):
        return []
    levels = np.rint((values.astype(np.float64) - low) / (high - low) * _LEVELS)
    bits = np.clip(levels, 0, _LEVELS).astype("<u2")
    breaks = np.flatnonzero(np.diff(frame) != 1) + 1
    return [
        [int(frame[first]), b64encode(bits[first:stop].tobytes()).decode()]
        for first, stop in zip([0, *breaks], [*breaks, len(frame)], strict=True)
    ]


def _runs(frame: NDArray[np.int64]) -> list[list[float]]:
    """Stretches of neighbouring frames."""
    if not len(frame):
        return []
    breaks = np.flatnonzero(np.diff(frame) != 1)
    first = frame[np.append(0, breaks + 1)]
    stop = frame[np.append(breaks, len(frame) - 1)] + 1
    return [
        _seconds(a * FRAME_US, b * FRAME_US)
        for a, b in zip(first.tolist(), stop.tolist(), strict=True)
    ]


def _times(times: Times, excerpts: tuple[tuple[int, int], ...] | None) -> list[list[float]]:
    keep = _are_inside(*times, excerpts)
    pairs = zip(times.start_us[keep].tolist(), times.end_us[keep].tolist(), strict=True)
    return [_seconds(start, end) for start, end in pairs]


def _stretches(
    found: Stretches, excerpts: tuple[tuple[int, int], ...] | None
) -> list[list[float | int | None]]:
    """Rows of [start, end, score, verdict]."""
    keep = _are_inside(found.start_us, found.end_us, excerpts)
    return [
        [*_seconds(start, end), None if np.isnan(score) else round(score, 5), verdict]
        for start, end, score, verdict in zip(
            found.start_us[keep].tolist(),
            found.end_us[keep].tolist(),
            found.score[keep].tolist(),
            found.verdict[keep].tolist(),
            strict=True,
        )
    ]


def _are_inside(
    start_us: NDArray[np.int64],
    end_us: NDArray[np.int64],
    excerpts: tuple[tuple[int, int], ...] | None,
) -> NDArray[np.bool_]:
    """Return bool[N]: some of it is shown."""
    if excerpts is None:
        return np.ones(len(start_us), np.bool_)
    return np.any([(end_us > a) & (start_us < b) for a, b in excerpts], axis=0)


def _seconds(start_us: int, end_us: int) -> list[float]:
    return [start_us / US_PER_SECOND, end_us / US_PER_SECOND]
