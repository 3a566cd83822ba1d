"""What one line of a manifest may hold: keys, kinds and units, checked strictly.

A typo must lose no events: keys that are not known, names that are not listed, NaN and values of
other kinds are each an error that names line and key. null stands for "not there" where a key may
be left out. Times are seconds (`_s`) and become integer microseconds here.
"""

import unicodedata
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from laughstore.annotations import Event, Interval, Segment, Speaker, Word
from laughstore.errors import BadRecording
from laughstore.naming import MIX, is_path_part

from ..json_records import Record, read_json, records_of
from ..sound.tracks import AudioFile
from ..word_speakers import spoken_us, with_speakers

LINE_KEYS = frozenset(
    [
        "name",
        "split",
        "group",
        "audio",
        "speakers",
        "events",
        "segments",
        "turns",
        "intervals",
        "words",
    ]
)
AUDIO_KEYS = frozenset(["path", "channel"])
SPEAKER_KEYS = frozenset(["name", "audio", "total_s"])
EVENT_KEYS = frozenset(["start_s", "end_s", "label", "full_label", "speaker", "confidence"])
SEGMENT_KEYS = frozenset(["start_s", "end_s", "speaker"])
INTERVAL_KEYS = frozenset(["speaker", "event_start_s", "turn_start_s", "end_s"])
WORD_KEYS = frozenset(["start_s", "end_s", "text", "speaker"])
_CONTROL = frozenset(["Cc", "Zl", "Zp"])


@dataclass(frozen=True, slots=True)
class ListedSpeaker:
    """An entry of `speakers`."""

    name: str
    audio: AudioFile | None
    total_us: int | None


@dataclass(frozen=True, slots=True)
class Head:
    """What a line says besides its annotations."""

    group: str | None
    audio: AudioFile | None
    speakers: tuple[ListedSpeaker, ...] | None


def read_name(line: Record, key: str) -> str:
    """Return a name in form NFC, as it is written; not empty, on one line. Raises BadRecording."""
    value = line.value(key)
    text = line.words(key)  # checks the kind
    if not isinstance(value, str) or not text:
        raise line.fault(key, "is no name")
    if any(unicodedata.category(letter) in _CONTROL for letter in value):
        raise line.fault(key, "holds line ends or control characters")
    return unicodedata.normalize("NFC", value)


def read_split(line: Record) -> str:
    """Return the split. Raises BadRecording."""
    split = read_name(line, "split")
    if not is_path_part(split):
        raise line.fault("split", "cannot be a split (letters, digits, - and _, at most 64)")
    return split


def read_head(line: Record, folder: Path) -> Head:
    """Return what a line says besides its annotations, and check that it has no unknown keys.

    Args:
        line: of the manifest.
        folder: that paths are relative to.

    Raises:
        BadRecording: something is not as it should be.
    """
    line.refuse_unknown(LINE_KEYS)
    group = read_name(line, "group") if _has(line, "group") else None
    audio = _audio(line, folder) if _has(line, "audio") else None
    speakers = None
    if _has(line, "speakers"):
        speakers = tuple(_speaker(item, folder) for item in line.records("speakers"))
        names = [item.name for item in speakers]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise line.fault("speakers", f"lists {twice[0]!r} twice")
    return Head(group, audio, speakers)


@dataclass(frozen=True)
class LineReader:
    """Reads the annotations of one line."""

    line: Record
    folder: Path
    """Paths are relative to it."""
    names: Collection[str] | None
    """Of the listed speakers; None when none are listed, then any name will do."""

    def events(self) -> tuple[Event, ...]:
        """Return the events. Raises BadRecording, also when there is no key."""
        return tuple(self._event(item) for item in self._items("events", EVENT_KEYS))

    def segments(self) -> tuple[Segment, ...]:
        """Return the diarization; () when there is none. Raises BadRecording."""
        if not _has(self.line, "segments"):
            return ()
        return self._spans("segments", needs_speaker=True)

    def turns(self) -> tuple[Segment, ...] | None:
        """Return the turns, if there are any. Raises BadRecording."""
        return self._spans("turns", needs_speaker=False) if _has(self.line, "turns") else None

    def intervals(self) -> tuple[Interval, ...] | None:
        """Return the prediction intervals, if there are any. Raises BadRecording."""
        if not _has(self.line, "intervals"):
            return None
        return tuple(
            Interval(
                self._needed_name(item),
                _time_us(item, "event_start_s"),
                _time_us(item, "turn_start_s"),
                _time_us(item, "end_s"),
            )
            for item in self._items("intervals", INTERVAL_KEYS)
        )

    def words(
        self, speakers: Sequence[Speaker], segments: Sequence[Segment]
    ) -> tuple[Word, ...] | None:
        """Return the transcript, if there is one.

        Words without a speaker get the one whose segments overlap them most. Raises BadRecording.
        """
        if not _has(self.line, "words"):
            return None
        seen: dict[str, str] = {}
        words: list[Word] = []
        for item in self._items("words", WORD_KEYS):
            start_us, end_us = _span_us(item)
            text = _needed_text(item, "text")
            # Of thousands of words few differ: equal ones are kept once.
            words.append(Word(start_us, end_us, seen.setdefault(text, text), self._name(item)))
        return with_speakers(words, speakers, segments)

    def _event(self, item: Record) -> Event:
        # An event that ends before it begins is told of when labels are made, as in other layouts.
        return Event(
            _time_us(item, "start_s"),
            _time_us(item, "end_s"),
            _class(item, "label"),
            _class(item, "full_label", required=False),
            self._name(item),
            _confidence(item),
        )

    def _spans(self, key: str, *, needs_speaker: bool) -> tuple[Segment, ...]:
        found = []
        for item in self._items(key, SEGMENT_KEYS):
            speaker = self._needed_name(item) if needs_speaker else self._name(item) or ""
            found.append(Segment(*_span_us(item), speaker))
        return tuple(found)

    def _items(self, key: str, known: Collection[str]) -> Iterator[Record]:
        """Return the objects of a list, which may stand in a file of its own; only once."""
        value = self.line.value(key)
        if isinstance(value, str):
            path = resolve(self.line, key, self.folder)
            values = read_json(path, strict=True)
            if not isinstance(values, list):
                raise BadRecording(f"{path}: holds no list of {key}; write it again")
            where = str(path)
        else:
            values, where = value, self.line.where
            if not isinstance(values, list):
                raise self.line.fault(key, "is no list")
        for item in records_of(values, where, key):
            item.refuse_unknown(known)
        return records_of(values, where, key, once=True)

    def _name(self, item: Record) -> str | None:
        """Return the speaker of an item, None for nobody."""
        if not _has(item, "speaker"):
            return None
        name = _speaker_name(item, "speaker")
        if self.names is not None and name not in self.names:
            listed = ", ".join(sorted(self.names)) or "nobody"
            raise item.fault("speaker", f"is not one of the listed speakers, {listed}")
        return name

    def _needed_name(self, item: Record) -> str:
        name = self._name(item)
        if name is None:
            item.value("speaker")  # tells that there is no key
            raise item.fault("speaker", "is nobody")
        return name


def all_speakers(
    listed: Sequence[ListedSpeaker] | None, segments: Sequence[Segment]
) -> tuple[Speaker, ...]:
    """Return everybody, longest total time first, ties by name.

    A total that is not given is that of the segments. Listed speakers of whom nothing tells how
    long they speak keep their order, with totals of 0.
    """
    if listed is None:
        names = sorted({item.speaker for item in segments})
        found = [Speaker(name, spoken_us(segments, name)) for name in names]
        found = [speaker for speaker in found if speaker.total_us]
    else:
        found = [
            Speaker(
                item.name,
                spoken_us(segments, item.name) if item.total_us is None else item.total_us,
            )
            for item in listed
        ]
        if not any(speaker.total_us for speaker in found):
            return tuple(found)
    return tuple(sorted(found, key=lambda speaker: (-speaker.total_us, speaker.name)))


def resolve(item: Record, key: str, folder: Path) -> Path:
    """Return the path under a key; relative ones start at `folder`. Raises BadRecording."""
    text = item.value(key)
    if not isinstance(text, str) or not item.words(key):
        raise item.fault(key, "is no path")
    if "://" in text:
        raise item.fault(key, "is a URL; fetch the file and give its path")
    if "\0" in text:
        raise item.fault(key, "holds a NUL character")
    return folder / text


def _audio(item: Record, folder: Path) -> AudioFile:
    value = item.value("audio")
    if isinstance(value, str):
        return AudioFile(resolve(item, "audio", folder))
    audio = item.record("audio")
    audio.refuse_unknown(AUDIO_KEYS)
    channel = audio.data.get("channel")
    if channel is not None and (type(channel) is not int or channel < 0):
        raise audio.fault("channel", "is no channel; they count from 0")
    return AudioFile(resolve(audio, "path", folder), channel)


def _speaker(item: Record, folder: Path) -> ListedSpeaker:
    item.refuse_unknown(SPEAKER_KEYS)
    total_us = _time_us(item, "total_s") if _has(item, "total_s") else None
    if total_us is not None and total_us < 0:
        raise item.fault("total_s", "is less than 0")
    audio = _audio(item, folder) if _has(item, "audio") else None
    return ListedSpeaker(_speaker_name(item, "name"), audio, total_us)


def _speaker_name(item: Record, key: str) -> str:
    name = read_name(item, key)
    if name == MIX:
        raise item.fault(key, "stands for a mix; rename the speaker")
    return name


def _class(item: Record, key: str, *, required: bool = True) -> str:
    """Return a class, which may be empty; "None" is one, too. In form NFC, as flags name it."""
    return unicodedata.normalize("NFC", item.words(key, required=required))


def _has(item: Record, key: str) -> bool:
    return item.data.get(key) is not None


def _time_us(item: Record, key: str) -> int:
    time_us = item.time_us(key)
    if time_us is None:
        raise item.fault(key, "is no number")
    return time_us


def _span_us(item: Record) -> tuple[int, int]:
    start_us, end_us = _time_us(item, "start_s"), _time_us(item, "end_s")
    if end_us < start_us:
        raise item.fault("end_s", "is before start_s")
    return start_us, end_us


def _confidence(item: Record) -> float:
    if isinstance(item.data.get("confidence"), str):  # only null stands for nothing here
        raise item.fault("confidence", "is no number")
    return item.fraction("confidence", default=1.0)


def _needed_text(item: Record, key: str) -> str:
    text = item.words(key)
    if not text:
        raise item.fault(key, "is empty")
    return text
