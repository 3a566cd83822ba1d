"""The JSON files of one recording: read, checked, and turned into `laughstore.annotations`.

In: paths of the per-speaker PodcastFillers layout (written by several tools, some from pandas, so
NaN, null, "None" and "" all stand for "nothing"). Out: records with integer microseconds, in file
order, uncleaned. Records whose times are null or NaN are dropped and counted in a log warning;
anything else that is not as expected is a `BadRecording` that names file and key. Never guesses.
"""

import json
import logging
import math
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from laughstore.annotations import Event, Interval, Segment, Speaker, Word
from laughstore.errors import BadRecording
from laughstore.timebase import is_finite_time, microseconds

logger = logging.getLogger(__name__)

MAX_JSON_BYTES = 256 << 20
MAX_SECONDS = 10_000_000
"""Larger numbers are no times in a recording (115 days); their microseconds always fit an i64."""
TICK_DIGITS = 7
"""Transcript times are integers in units of 10^-7 s (100 ns)."""

type Json = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Diarization:
    """Who speaks when."""

    speakers: tuple[Speaker, ...]
    """Everybody with a total time above 0, longest first; ties by name."""
    segments: tuple[Segment, ...]
    """In file order; speakers may overlap."""
    duration_us: int | None
    """Length of the recording, when the file tells it."""


def read_diarization(path: Path) -> Diarization:
    """Return the diarization of one recording.

    Raises:
        BadRecording: the file is no such diarization.
    """
    top = _Record.load(path)
    statistics = top.record("speaker_statistics")
    totals = {name: statistics.record(name).time_us("total_time") for name in statistics.data}
    speakers = [Speaker(name, total) for name, total in totals.items() if total and total > 0]
    duration_us = top.time_us("original_duration", required=False)
    return Diarization(
        speakers=tuple(sorted(speakers, key=lambda item: (-item.total_us, item.name))),
        segments=_segments(top.records("segments"), "diarization segments", path),
        duration_us=duration_us if duration_us and duration_us > 0 else None,
    )


def read_events(path: Path) -> tuple[Event, ...]:
    """Return the events of one recording, with their speakers (null stays None).

    Raises:
        BadRecording: the file is no event-speaker mapping.
    """
    found: list[Event | None] = []
    for item in _Record.load(path).records("events"):
        start_us = item.time_us("event_start_inepisode", required=False)
        end_us = item.time_us("event_end_inepisode", required=False)
        label = item.text("label_consolidated_vocab")
        full_label = item.text("label_full_vocab", required=False)
        speaker = item.text("speaker_id", required=False) or None
        confidence = item.fraction("confidence", default=1.0)
        if start_us is None or end_us is None:
            found.append(None)
        else:
            found.append(Event(start_us, end_us, label, full_label, speaker, confidence))
    return _without_gaps(found, "events", path)


def read_turns(path: Path) -> tuple[Segment, ...]:
    """Return the turns of one recording.

    Only a turn's end is sure to be there: without a start it starts at its end, without a speaker
    the speaker is the empty string.

    Raises:
        BadRecording: the file is no list of turns.
    """
    found: list[Segment | None] = []
    for item in _Record.load(path).records("turns"):
        end_us = item.time_us("end")
        start_us = item.time_us("start", required=False)
        speaker = item.text("speaker_id", required=False)
        if end_us is None:
            found.append(None)
        else:
            found.append(Segment(end_us if start_us is None else start_us, end_us, speaker))
    return _without_gaps(found, "turns", path)


def read_intervals(path: Path) -> tuple[Interval, ...]:
    """Return the prediction intervals of one recording.

    Raises:
        BadRecording: the file is no list of prediction intervals.
    """
    found: list[Interval | None] = []
    for item in _Record.load(path).records("intervals"):
        event_start_us = item.time_us("event_start_inepisode")
        turn_start_us = item.time_us("current_turn_start")
        end_us = item.time_us("prediction_interval_end")
        speaker = item.text("speaker_id")
        if event_start_us is None or turn_start_us is None or end_us is None:
            found.append(None)
        else:
            found.append(Interval(speaker, event_start_us, turn_start_us, end_us))
    return _without_gaps(found, "prediction intervals", path)


def read_words(path: Path, diarization: Diarization) -> tuple[Word, ...]:
    """Return the words of a transcript, each with the speaker of its largest overlap.

    The transcript's own speaker numbers are not used: they do not hold over an episode.

    Raises:
        BadRecording: the file is no such transcript.
    """
    texts: list[str] = []
    times: list[tuple[int, int]] = []
    num_dropped = 0
    for item in _words(_Record.load(path)):
        text = item.words("text")
        offset_us = item.ticks_us("offset")
        length_us = item.ticks_us("duration")
        if not text or offset_us is None or length_us is None or length_us < 0:
            num_dropped += 1
        else:
            texts.append(text)
            times.append((offset_us, offset_us + length_us))
    _warn_dropped(num_dropped, "words", path)
    spans = np.array(times, np.int64).reshape(-1, 2)
    speakers = word_speakers(spans[:, 0], spans[:, 1], diarization)
    return tuple(
        Word(start_us, end_us, text, speaker)
        for (start_us, end_us), text, speaker in zip(times, texts, speakers, strict=True)
    )


def word_speakers(
    start_us: NDArray[np.int64], end_us: NDArray[np.int64], diarization: Diarization
) -> list[str | None]:
    """Return, for each word, the speaker whose segments overlap it most.

    Args:
        start_us: i64[W].
        end_us: i64[W], none before its start.
        diarization: the recording's. Speakers who tie are taken longest total time first.

    Returns:
        W names; None where nobody speaks. A word of no length belongs to who speaks at its middle.
    """
    rank = {speaker.name: place for place, speaker in enumerate(diarization.speakers)}
    names = sorted({item.speaker for item in diarization.segments}, key=lambda n: rank.get(n, 1e9))
    if not names or not start_us.size:
        return [None] * start_us.size
    # A word of no length becomes one microsecond, so that half-open segments hold it or do not.
    stop_us = np.maximum(end_us, start_us + 1)
    overlap = np.stack(
        [
            covered(stop_us) - covered(start_us)
            for covered in (_Coverage(diarization.segments, name) for name in names)
        ]
    )
    best = overlap.argmax(axis=0)
    heard = overlap.max(axis=0) > 0
    return [names[k] if any_heard else None for k, any_heard in zip(best, heard, strict=True)]


class _Coverage:
    """How many microseconds one speaker has spoken before each of some moments."""

    def __init__(self, segments: Sequence[Segment], speaker: str) -> None:
        spans = sorted((s.start_us, s.end_us) for s in segments if s.speaker == speaker)
        merged: list[list[int]] = []
        for start_us, end_us in spans:
            if merged and start_us <= merged[-1][1]:
                merged[-1][1] = max(merged[-1][1], end_us)
            elif end_us > start_us:
                merged.append([start_us, end_us])
        edges = np.array(merged, np.int64).reshape(-1, 2)
        self._edges_us = edges.ravel()
        # Spoken time at each edge: grows between a start and its end, stands still until the next.
        lengths = edges[:, 1] - edges[:, 0]
        after = np.cumsum(lengths)
        self._spoken_us = np.stack([after - lengths, after], axis=1).ravel()

    def __call__(self, moments_us: NDArray[np.int64]) -> NDArray[np.int64]:
        if not self._edges_us.size:
            return np.zeros_like(moments_us)
        place = np.searchsorted(self._edges_us, moments_us, side="right") - 1
        edge = np.maximum(place, 0)
        inside = (place >= 0) & (place % 2 == 0)
        since = np.where(inside, moments_us - self._edges_us[edge], 0)
        return np.where(place >= 0, self._spoken_us[edge], 0) + since


def _words(transcript: "_Record") -> Iterator["_Record"]:
    for segment in transcript.records("segments"):
        for best in segment.records("nbest")[:1]:
            yield from best.records("words")


def _segments(items: Sequence["_Record"], what: str, path: Path) -> tuple[Segment, ...]:
    found: list[Segment | None] = []
    for item in items:
        start_us, end_us = item.time_us("start"), item.time_us("end")
        speaker = item.text("speaker_id")
        if start_us is None or end_us is None:
            found.append(None)
        else:
            found.append(Segment(start_us, end_us, speaker))
    return _without_gaps(found, what, path)


def _without_gaps[T](found: Sequence[T | None], what: str, path: Path) -> tuple[T, ...]:
    kept = tuple(item for item in found if item is not None)
    _warn_dropped(len(found) - len(kept), what, path)
    return kept


def _warn_dropped(num_dropped: int, what: str, path: Path) -> None:
    if num_dropped:
        logger.warning("%s: %d %s dropped: no usable time or text", path, num_dropped, what)


@dataclass(frozen=True, slots=True)
class _Record:
    """A JSON object that knows where it stands, so that every fault names file and key."""

    data: Json
    path: Path
    place: str = ""

    @classmethod
    def load(cls, path: Path) -> "_Record":
        try:
            num_bytes = path.stat().st_size
            if num_bytes > MAX_JSON_BYTES:
                raise BadRecording(
                    f"{path}: {num_bytes >> 20} MiB, JSON files of at most {MAX_JSON_BYTES >> 20}"
                    " MiB are read; this is no annotation of one recording"
                )
            data = json.loads(path.read_bytes())
        # ValueError: broken JSON or UTF-8, an integer of thousands of digits.
        except (OSError, ValueError, RecursionError) as error:
            raise BadRecording(f"{path}: not readable as JSON ({error}); write it again") from error
        if not isinstance(data, dict):
            raise BadRecording(f"{path}: holds no JSON object; write it again")
        return cls(data, path)

    def record(self, key: str) -> "_Record":
        """Return the object under a key."""
        value = self._value(key)
        if not isinstance(value, dict):
            raise self._fault(key, "is no object", value)
        return _Record(value, self.path, self._name(key))

    def records(self, key: str) -> list["_Record"]:
        """Return the objects of the list under a key."""
        values = self._value(key)
        if not isinstance(values, list):
            raise self._fault(key, "is no list", values)
        for value in values:
            if not isinstance(value, dict):
                raise self._fault(key, "holds something else than objects", value)
        name = self._name(key)
        return [_Record(value, self.path, f"{name}[{k}]") for k, value in enumerate(values)]

    def text(self, key: str, *, required: bool = True) -> str:
        """Return a stripped name; the empty string for null, NaN, "None", "" or an optional gap."""
        stripped = self.words(key, required=required)
        return "" if stripped == "None" else stripped

    def words(self, key: str, *, required: bool = True) -> str:
        """Return stripped text, in which "None" is a word; else as `text`."""
        value = self._value(key) if required else self.data.get(key)
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return ""
        if not isinstance(value, str):
            raise self._fault(key, "is no text", value)
        return value.strip()

    def number(self, key: str, *, required: bool = True) -> int | float | None:
        """Return a finite number; None for null, NaN, infinity or an optional gap."""
        value = self._value(key) if required else self.data.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._fault(key, "is no number", value)
        # An integer is finite, however long; asking math.isfinite would overflow.
        return value if isinstance(value, int) or is_finite_time(value) else None

    def fraction(self, key: str, *, default: float) -> float:
        """Return a number from 0 to 1; the default for null, NaN or a gap."""
        value = self.number(key, required=False)
        if value is None:
            return default
        if not 0 <= value <= 1:
            raise self._fault(key, "is not between 0 and 1", value)
        return float(value)

    def time_us(self, key: str, *, required: bool = True) -> int | None:
        """Return seconds as microseconds; None for null, NaN, infinity or an optional gap."""
        seconds = self.number(key, required=required)
        return None if seconds is None else self._checked_us(key, Decimal(str(seconds)))

    def ticks_us(self, key: str) -> int | None:
        """Return transcript ticks (100 ns) as microseconds; None for null or NaN."""
        ticks = self.number(key)
        return None if ticks is None else self._checked_us(key, Decimal(ticks).scaleb(-TICK_DIGITS))

    def _checked_us(self, key: str, seconds: Decimal) -> int:
        if abs(seconds) > MAX_SECONDS:
            raise self._fault(key, "is no time in a recording", self.data[key])
        return microseconds(seconds)

    def _value(self, key: str) -> object:
        if key not in self.data:
            raise BadRecording(f"{self.path}: no key {self._name(key)!r}; add it")
        return self.data[key]

    def _name(self, key: str) -> str:
        return f"{self.place}.{key}" if self.place else key

    def _fault(self, key: str, what: str, value: object) -> BadRecording:
        shown = reprlib.repr(value)
        return BadRecording(f"{self.path}: key {self._name(key)!r} {what} ({shown}); correct it")
