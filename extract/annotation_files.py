"""The JSON files of one recording: read, checked, and turned into `laughstore.annotations`.

In: paths of the PodcastFillers layouts (written by several tools, some from pandas, so NaN, null,
"None" and "" all stand for "nothing", in the place of numbers, too). Out: records with integer
microseconds, in file order, uncleaned. Records without times are dropped and counted in a log
warning; anything else that is not as expected is a `BadRecording` that names file and key. Never
guesses.
"""

import logging
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Literal

from laughstore.annotations import Event, Interval, Segment, Speaker, Word
from laughstore.errors import BadRecording
from laughstore.timebase import US_PER_SECOND
from laughstore.values import is_text

from .json_records import TICK_DIGITS, Record
from .word_speakers import spoken_us

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Diarization:
    """Who speaks when."""

    speakers: tuple[Speaker, ...]
    """Everybody with a total time above 0, longest first; ties by name.

    A total that is null is that of the segments."""
    segments: tuple[Segment, ...]
    """In file order; speakers may overlap."""
    duration_us: int | None
    """Length of the recording, when the file tells it."""


def read_diarization(path: Path) -> Diarization:
    """Return the diarization of one recording.

    Raises:
        BadRecording: the file is no such diarization.
    """
    top = Record.load(path)
    statistics = top.record("speaker_statistics")
    if not is_text("".join(statistics.data)):
        raise BadRecording(f"{path}: the name of a speaker is no text; write it again")
    totals: dict[str, int | None] = {}
    for written in statistics.data:
        name = unicodedata.normalize("NFC", written)  # as segments, events and tracks have it
        if name in totals:
            raise BadRecording(
                f"{path}: speaker {name!r} stands twice in 'speaker_statistics', in two Unicode"
                " forms; join them"
            )
        totals[name] = statistics.record(written).time_us("total_time")
    segments = _segments(top.records("segments"), "diarization segments", path)
    speakers = [
        Speaker(name, spoken_us(segments, name) if total is None else total)
        for name, total in totals.items()
    ]
    speakers = [speaker for speaker in speakers if speaker.total_us > 0]
    duration_us = top.time_us("original_duration", required=False)
    return Diarization(
        speakers=tuple(sorted(speakers, key=lambda item: (-item.total_us, item.name))),
        segments=segments,
        duration_us=duration_us if duration_us and duration_us > 0 else None,
    )


def read_events(path: Path) -> tuple[Event, ...]:
    """Return the events of one recording, with their speakers (null stays None).

    Raises:
        BadRecording: the file is no event-speaker mapping.
    """
    found: list[Event | None] = []
    for item in Record.load(path).records("events"):
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
    for item in Record.load(path).records("turns"):
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
    for item in Record.load(path).records("intervals"):
        event_start_us = item.time_us("event_start_inepisode")
        turn_start_us = item.time_us("current_turn_start")
        end_us = item.time_us("prediction_interval_end")
        speaker = item.text("speaker_id")
        if event_start_us is None or turn_start_us is None or end_us is None:
            found.append(None)
        else:
            found.append(Interval(speaker, event_start_us, turn_start_us, end_us))
    return _without_gaps(found, "prediction intervals", path)


def read_words(path: Path) -> tuple[Word, ...]:
    """Return the words of a transcript; who says them is for `with_speakers` to find.

    The transcript's own speaker numbers are not used: they do not hold over an episode.

    Raises:
        BadRecording: the file is no such transcript.
    """
    found: list[Word | None] = []
    seen: dict[str, str] = {}  # of thousands of words few differ: equal ones are kept once
    for item in _words(Record.load(path)):
        text = item.words("text")
        offset_us = item.ticks_us("offset")
        length_us = item.ticks_us("duration")
        if not text or offset_us is None or length_us is None or length_us < 0:
            found.append(None)
        else:
            found.append(Word(offset_us, offset_us + length_us, seen.setdefault(text, text), None))
    return _without_gaps(found, "words", path)


TranscriptUnit = Literal["100 ns", "us", "ms", "s"]
_UNIT_DIGITS: dict[TranscriptUnit, int] = {"100 ns": TICK_DIGITS, "us": 6, "ms": 3, "s": 0}
_STATED_SHARES = (0.9, 1.1)
"""Of the audio's length, where a stated length may lie; units differ by ten times or more."""
_SPOKEN_SHARES = (0.2, 1.1)
"""Of the audio's length, where the last word of a transcript may end."""


@dataclass(frozen=True, slots=True)
class TranscriptLength:
    """How long a transcript says that its recording is, and in which unit that fits the audio."""

    length: int
    """The transcript's `duration`, or where its last word ends, in its own unit."""
    is_stated: bool
    """Whether `length` is its `duration`."""
    unit: TranscriptUnit | None
    """The unit in which the length fits the audio; None when it fits in none of them.

    Anything but 100 ns means that words are read at wrong times."""


def transcript_lengths(path: Path, audio_us: int) -> tuple[TranscriptLength, ...]:
    """Return in which unit of time a transcript is, as told by the audio's length.

    Its `duration` and the times of its words are judged apart: tools have converted one of them.

    The website of PodcastFillers says microseconds, its files are in units of 100 ns.

    Args:
        path: of the transcript.
        audio_us: length of the recording's audio.

    Returns:
        Of its `duration`, where that is a number above 0, and of the end of its last word, where
        it has words: none, one or two.

    Raises:
        BadRecording: the file is no transcript.
    """
    transcript = Record.load(path)
    # Some write "PT10S" there. Nothing else reads it, so it may be anything.
    stated = transcript.data.get("duration")
    if isinstance(stated, bool) or not isinstance(stated, int | float):
        stated = None
    else:
        stated = transcript.number("duration")
    ends = [
        offset + duration
        for item in _words(transcript)
        if (offset := item.number("offset")) is not None
        and (duration := item.number("duration")) is not None
    ]
    found = []
    if stated is not None and stated > 0:
        found.append(_length(stated, audio_us, _STATED_SHARES, is_stated=True))
    if max(ends, default=0) > 0:
        found.append(_length(max(ends), audio_us, _SPOKEN_SHARES, is_stated=False))
    return tuple(found)


def _length(
    length: float, audio_us: int, shares: tuple[float, float], *, is_stated: bool
) -> TranscriptLength:
    least, most = map(Decimal, shares)
    audio_s = Decimal(audio_us) / US_PER_SECOND
    fits: list[TranscriptUnit] = [
        unit
        for unit, digits in _UNIT_DIGITS.items()
        if least * audio_s <= Decimal(length).scaleb(-digits) <= most * audio_s
    ]
    return TranscriptLength(int(length), is_stated, fits[0] if fits else None)


def _words(transcript: Record) -> Iterator[Record]:
    for segment in transcript.records("segments", once=True):
        for best in islice(segment.records("nbest"), 1):
            yield from best.records("words")


def _segments(items: Iterable[Record], what: str, path: Path) -> tuple[Segment, ...]:
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
