"""What is known about a recording besides its features: events, turns, speakers, words.

Annotations enter in file order and as they are (LABELS: `legacy` labels need them untouched); only
times that are no numbers are dropped, by the readers in `extract`. Cleaning, bouts and
targets are made at read time by `laughstore.labels`. One JSON file a recording, named by its
content, never overwritten: `annotations/<id>/<split>/<recording id>.json`.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from itertools import batched
from operator import attrgetter
from pathlib import Path
from typing import Any, Self

from . import layout
from .errors import BadRecording, CorruptData, NotFound
from .files import write_atomic
from .folders import Folder
from .sealed import MAX_BYTES, canonical_json, parse_json, parse_json_as, read_small
from .values import MAX_INTEGER, integer, is_text, listed, text

ANNOTATIONS_FORMAT = 1
_FORMAT = "laughstore-annotations"
_ITEMS_A_PIECE = 500
"""Of a list written as JSON at once: some 40 kB."""


@dataclass(frozen=True, slots=True)
class Event:
    """One annotated vocal event."""

    start_us: int
    end_us: int
    label: str
    """Consolidated class (`Laughter`, `Breath`, ...); empty for events outside them."""
    full_label: str
    """Class in the full vocabulary."""
    speaker: str | None
    """Who made it; None when unknown."""
    confidence: float = 1.0


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of time that belongs to one speaker: a turn, or a diarization segment."""

    start_us: int
    end_us: int
    speaker: str


@dataclass(frozen=True, slots=True)
class Interval:
    """A prediction interval: the stretch before an event in which it is to be predicted."""

    speaker: str
    event_start_us: int
    turn_start_us: int
    end_us: int


@dataclass(frozen=True, slots=True)
class Word:
    """One transcribed word. The recogniser heard the future: see docs on text modes."""

    start_us: int
    end_us: int
    text: str
    speaker: str | None
    """Speaker with the largest overlap in the diarization; None when there is none."""


@dataclass(frozen=True, slots=True)
class Speaker:
    """A speaker and how long they speak in the recording."""

    name: str
    total_us: int


_Item = Event | Segment | Interval | Word | Speaker
_FIELDS = {
    kind: tuple(item.name for item in fields(kind))
    for kind in (Event, Segment, Interval, Word, Speaker)
}
_KINDS = {frozenset(names): kind for kind, names in _FIELDS.items()}


@dataclass(frozen=True)
class Annotations:
    """Everything annotated in one recording.

    `turns` and `intervals` are None when the data set has none for this recording, which is not the
    same as an empty list: labels that need them say so instead of finding nothing.
    """

    recording: str
    """The recording's original name."""
    duration_us: int
    speakers: tuple[Speaker, ...]
    """Longest total time first; ties by name."""
    events: tuple[Event, ...] = ()
    segments: tuple[Segment, ...] = ()
    turns: tuple[Segment, ...] | None = None
    intervals: tuple[Interval, ...] | None = None
    words: tuple[Word, ...] | None = field(default=None, repr=False)

    def to_json(self) -> dict[str, Any]:  # Any: a JSON object
        """Return the canonical JSON object (times in integer microseconds)."""
        head = {"format": _FORMAT, "version": ANNOTATIONS_FORMAT}
        return head | {item.name: _plain(getattr(self, item.name)) for item in fields(self)}

    def to_bytes(self) -> bytes:
        """Return the annotation file: canonical JSON and a newline."""
        return b"".join(self._pieces()) + b"\n"

    @classmethod
    def from_json(cls, data: dict[str, Any], *, where: str = "annotations") -> Self:
        """Return the annotations that `to_json` wrote.

        Raises:
            CorruptData: the object is no annotation file of a version that this release reads.
        """
        if data.get("format") != _FORMAT or data.get("version") != 1:
            version = data.get("version")
            raise CorruptData(
                f"{where}: format {data.get('format')!r} version {version!r} is not readable;"
                " this release reads laughstore-annotations version 1"
            )
        odd = set(data) ^ {"format", "version", *(item.name for item in fields(cls))}
        if odd:
            raise CorruptData(f"{where}: field {sorted(odd)[0][:40]!r} missing or unknown")
        return cls(
            recording=text(data, "recording", where=where),
            duration_us=integer(data, "duration_us", where=where),
            speakers=_items(Speaker, data, "speakers", where=where),
            events=_items(Event, data, "events", where=where),
            segments=_items(Segment, data, "segments", where=where),
            turns=_optional(Segment, data, "turns", where=where),
            intervals=_optional(Interval, data, "intervals", where=where),
            words=_optional(Word, data, "words", where=where),
        )

    def content_id(self) -> str:
        """Return the first 8 hex digits of the SHA-256 of the canonical JSON."""
        return _id_of(self._pieces())

    def checked_id(self) -> str:
        """Return `content_id` of annotations that can be stored.

        Raises:
            BadRecording: their file would be larger than readers take.
        """
        num_bytes = len(b"\n")

        def counted() -> Iterator[bytes]:
            nonlocal num_bytes
            for piece in self._pieces():
                num_bytes += len(piece)
                yield piece

        annotations_id = _id_of(counted())
        self._refuse_large(num_bytes)
        return annotations_id

    def _refuse_large(self, num_bytes: int) -> None:
        if num_bytes > MAX_BYTES:
            raise BadRecording(
                f"{self.recording}: {num_bytes} bytes of annotations, readers take {MAX_BYTES};"
                " leave out its words, or split the recording"
            )

    def _pieces(self) -> Iterator[bytes]:
        """Yield the canonical JSON of `to_json` in pieces: hours of words take megabytes."""
        values: dict[str, Any] = {"format": _FORMAT, "version": ANNOTATIONS_FORMAT}
        values |= {item.name: getattr(self, item.name) for item in fields(self)}
        for i, name in enumerate(sorted(values)):
            yield (b"," if i else b"{") + canonical_json(name) + b":"
            if isinstance(values[name], tuple | list):
                yield b"["
                for k, items in enumerate(batched(values[name], _ITEMS_A_PIECE)):
                    yield (b"," if k else b"") + canonical_json(_plain(items))[1:-1]
                yield b"]"
            else:
                yield canonical_json(values[name])
        yield b"}"


def _id_of(pieces: Iterable[bytes | memoryview]) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()[:8]


def _plain(value: object) -> object:
    """Return a field as JSON has it. `asdict` would copy each of ten thousand words deeply."""
    if not isinstance(value, tuple | list):
        return value
    names = _FIELDS[type(value[0])] if value else ()
    return [{name: getattr(item, name) for name in names} for item in value]


def _optional[T: _Item](
    kind: type[T], data: Mapping[str, Any], name: str, *, where: str
) -> tuple[T, ...] | None:
    return None if data[name] is None else _items(kind, data, name, where=where)


def _items[T: _Item](
    kind: type[T], data: Mapping[str, Any], name: str, *, where: str
) -> tuple[T, ...]:
    """Return a list of events, words, ...: each with exactly its fields, of their kinds.

    Checked field by field over all items: a long recording has ten thousand words.
    """
    found: list[T] = []
    for i, value in enumerate(listed(data[name], name, where=where)):
        item = _compact(value) if isinstance(value, dict) else value
        if not isinstance(item, kind):
            raise CorruptData(f"{where}: {name} {i}: a field is missing or unknown")
        found.append(item)
    for checked in fields(kind):
        if not _are(list(map(attrgetter(checked.name), found)), checked.type):
            raise CorruptData(f"{where}: {name}: a {checked.name} is of another kind; restore it")
    return tuple(found)


def _compact(value: dict[str, Any]) -> dict[str, Any] | _Item:
    """Return an object of JSON as the item that has exactly its keys, unchecked, if one has."""
    kind = _KINDS.get(frozenset(value))
    return value if kind is None else kind(**value)


def _parse(data: bytes, where: str) -> dict[str, Any]:
    """Return the JSON object in an annotation file, with items where objects have their keys.

    Words take a third of what they take as dictionaries. Raises CorruptData as `parse_json`.
    """
    seen: dict[str, str] = {}

    def convert(value: dict[str, Any]) -> dict[str, Any] | _Item:
        found = value.get("text")
        if type(found) is str:  # of thousands of words few differ: equal ones are kept once
            value["text"] = seen.setdefault(found, found)
        return _compact(value)

    value = parse_json_as(data, convert, where=where)
    if not isinstance(value, dict):
        raise CorruptData(f"{where}: not an annotation file; restore it")
    return value


def _are(values: list[Any], kind: object) -> bool:  # Any: JSON values
    """Tell whether these JSON values are what a field of this type may hold."""
    types = set(map(type, values))
    if kind is int:  # times may be negative: as annotated
        return types <= {int} and (
            not values or (min(values) >= -MAX_INTEGER and max(values) <= MAX_INTEGER)
        )
    if kind is float:
        return types <= {int, float} and all(abs(value) <= MAX_INTEGER for value in set(values))
    if kind is str:
        return types <= {str} and is_text("".join(set(values)))
    assert kind == str | None, f"no such field: {kind}"
    return _are([value for value in values if value is not None], str)


def write_annotations(store: Path, item: Annotations, split: str, recording_id: str) -> str:
    """Write one recording's annotations under the name of their content. Returns their id.

    Raises:
        BadRecording: they are larger than readers take.
    """
    pieces = [*item._pieces(), b"\n"]
    item._refuse_large(sum(map(len, pieces)))
    annotations_id = _id_of(pieces[:-1])
    path = store / layout.annotations(annotations_id, split, recording_id)
    write_atomic(path, pieces)
    return annotations_id


def read_annotations(
    folder: Folder, annotations_id: str, split: str, recording_id: str
) -> Annotations:
    """Return a recording's annotations.

    Raises:
        CorruptData: the file is missing, altered or of another version.
    """
    path = layout.annotations(annotations_id, split, recording_id)
    where = folder.describe(path)
    try:
        data = read_small(folder, path)
    except NotFound as error:
        raise CorruptData(f"{where} is missing; restore it") from error
    # Hashed as it is: to write the JSON out again takes as much memory as the file, twice.
    is_as_written = _id_of([memoryview(data)[: -len(b"\n")]]) == annotations_id
    try:
        found = Annotations.from_json(_parse(data, where), where=where)
    except (CorruptData, RecursionError):
        # Errors are of what the file has, not of the items that were made of it, and which cannot
        # be shown if they are nested deep.
        found = Annotations.from_json(parse_json(data, where=where), where=where)
    # The name is of the JSON: spaces and the order of keys are free.
    if not (
        is_as_written or _id_of([canonical_json(parse_json(data, where=where))]) == annotations_id
    ):
        raise CorruptData(f"{where}: content is not what its name says; restore it")
    return found
