"""Any other corpus, by a manifest: a JSON-lines file with one recording a line.

docs/datasets.md has its keys. Lines are read once when the manifest is opened, for names, splits,
sound and speakers; annotations, be they in the line or in files that it names, are read when asked
for and not kept. A line that is no recording stops everything with its number; one that can be
named and has a fault is a recording with a problem.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from laughstore.annotations import Annotations, Event, Speaker
from laughstore.errors import BadRecording, ConfigError
from laughstore.files import is_passing, named_in_errors

from ..json_records import MAX_JSON_BYTES, Record, parse_json
from ..sound.tracks import AudioFile
from .folders import split_rank, visible
from .manifest_lines import (
    Head,
    LineReader,
    ListedSpeaker,
    all_speakers,
    read_head,
    read_name,
    read_split,
)
from .recording import (
    NO_EVENTS,
    NO_INTERVALS,
    NO_TRANSCRIPT,
    NO_TURNS,
    DatasetRecording,
    longest_us,
    show_of,
)

SUFFIX = ".jsonl"
NAME = "manifest.jsonl"
_OPTIONAL = {"words": NO_TRANSCRIPT, "turns": NO_TURNS, "intervals": NO_INTERVALS}
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Line:
    """Where a line of a manifest is, so that it can be read again."""

    path: Path
    number: int
    offset: int
    num_bytes: int
    crc32: int

    @property
    def where(self) -> str:
        """The line, for messages."""
        return f"{self.path}, line {self.number}"

    def read(self) -> Record:
        """Return the line's object. Raises BadRecording when the file has changed."""
        try:
            with named_in_errors(self.path), self.path.open("rb") as file:
                file.seek(self.offset)
                data = file.read(self.num_bytes)
        except OSError as error:
            if is_passing(error):
                raise
            raise BadRecording(f"{self.where}: cannot be read ({error}); check it") from error
        if zlib.crc32(data) != self.crc32:
            raise BadRecording(
                f"{self.where}: changed since the manifest was opened; start again when it is done"
            )
        return self.record(data)

    def record(self, data: bytes) -> Record:
        """Return the object in the line's bytes. Raises BadRecording."""
        value = parse_json(data, where=self.where, strict=True)
        if not isinstance(value, dict):
            raise BadRecording(f"{self.where}: is no JSON object; write one recording a line")
        return Record(value, self.where)


@dataclass(frozen=True, kw_only=True)
class ManifestRecording(DatasetRecording):
    """A line of a manifest."""

    line: Line = field(repr=False)
    keys: frozenset[str] = field(repr=False)
    """Keys of the line that hold something."""
    listed: tuple[ListedSpeaker, ...] | None = field(repr=False)
    """Entries of `speakers`; None when there is no such key."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What is not there and does not stop a build, one line each."""
        return tuple(text for key, text in _OPTIONAL.items() if key not in self.keys)

    @property
    def has_segments(self) -> bool:
        """Whether there is a diarization."""
        return "segments" in self.keys

    @property
    def has_words(self) -> bool:
        """Whether there is a transcript."""
        return "words" in self.keys

    def events(self) -> tuple[Event, ...]:
        """Return the events, uncleaned and in file order. Raises BadRecording."""
        return self._reader().events()

    def annotations(self) -> Annotations:
        """Return everything annotated; see `DatasetRecording.annotations`.

        Without audio, the recording is taken to end with the last thing annotated.
        """
        reader = self._reader()
        events, segments, turns = reader.events(), reader.segments(), reader.turns()
        speakers = all_speakers(self.listed, segments)
        words = reader.words(speakers, segments)
        files = [*self.tracks.values(), *([] if self.mix is None else [self.mix])]
        duration_us = longest_us(files)
        if not duration_us:
            spans = (*events, *segments, *(turns or ()), *(words or ()))
            duration_us = max([item.end_us for item in spans], default=0)
        return Annotations(
            recording=self.name,
            duration_us=duration_us,
            speakers=speakers,
            events=events,
            segments=segments,
            turns=turns,
            intervals=reader.intervals(),
            words=words,
        )

    def _find_speakers(self) -> tuple[Speaker, ...]:
        listed = self.listed
        if listed is not None and all(item.total_us is not None for item in listed):
            return all_speakers(listed, ())
        return all_speakers(listed, self._reader().segments())

    def _find_problem(self) -> str | None:
        if "events" not in self.keys:
            return f"{self.line.where}: no key 'events'; {NO_EVENTS}: add it, [] if there are none"
        if not self.tracks and self.mix is None:
            return f"{self.line.where}: no 'audio', and none in 'speakers'; add one of them"
        return None

    def _reader(self) -> LineReader:
        self.refuse_fault()
        names = None if self.listed is None else [item.name for item in self.listed]
        return LineReader(self.line.read(), self.line.path.parent, names)


def find_manifest(path: Path) -> Path | None:
    """Return the manifest that a path means: a file of that kind, or the one in a folder."""
    if path.is_dir():
        found = [e for e in visible(path) if e.name.lower() == NAME and e.is_file()]
        return found[0] if len(found) == 1 else None
    return path if path.name.lower().endswith(SUFFIX) and path.is_file() else None


def read_manifest_lines(manifest: Path) -> list[DatasetRecording]:
    """Return the recordings of a manifest.

    Raises:
        ConfigError: it is too large, empty, a line is no recording or two have one name.
    """
    recordings: list[DatasetRecording] = []
    line_of: dict[str, int] = {}
    for line, data in _lines(manifest):
        recording = _recording(line, data)
        first = line_of.setdefault(recording.name, line.number)
        if first != line.number:
            raise ConfigError(
                f"{line.where}: the name {recording.name!r} stands in line {first}, too; each"
                " recording has one line: join or rename them"
            )
        recordings.append(recording)
    if not recordings:
        raise ConfigError(f"{manifest}: holds no recording; write one JSON object a line")
    return sorted(recordings, key=lambda item: (split_rank(item.split), item.name))


def _lines(manifest: Path) -> Iterator[tuple[Line, bytes]]:
    """Yield the lines that are not blank."""
    try:
        file = manifest.open("rb")
    except OSError as error:
        raise ConfigError(f"{manifest}: cannot be read ({error.strerror}); check it") from error
    with named_in_errors(manifest), file:
        num_bytes = manifest.stat().st_size
        if num_bytes > MAX_JSON_BYTES:
            raise ConfigError(
                f"{manifest}: {num_bytes >> 20} MiB, manifests of at most {MAX_JSON_BYTES >> 20}"
                " MiB are read; put words and segments into files of their own"
            )
        offset = 0
        for number, raw in enumerate(file, 1):
            data = raw.removeprefix(_BOM) if number == 1 else raw
            start = offset + len(raw) - len(data)
            offset += len(raw)
            if data.strip():
                yield Line(manifest, number, start, len(data), zlib.crc32(data)), data


def _recording(line: Line, data: bytes) -> ManifestRecording:
    try:
        record = line.record(data)
        name, split = read_name(record, "name"), read_split(record)
    except BadRecording as error:
        raise ConfigError(str(error)) from error
    fault, head = None, Head(None, None, None)
    try:
        head = read_head(record, line.path.parent)
    except BadRecording as error:
        fault = f"{name}: {error}"
    tracks: dict[str, AudioFile] = {}
    for speaker in head.speakers or ():
        if speaker.audio is not None:
            tracks[speaker.name] = speaker.audio
    return ManifestRecording(
        name=name,
        split=split,
        group=head.group or show_of(name),
        tracks=tracks,
        mix=head.audio,
        fault=fault,
        line=line,
        keys=frozenset(key for key, value in record.data.items() if value is not None),
        listed=head.speakers,
    )
