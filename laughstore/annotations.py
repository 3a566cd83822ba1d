"""What is known about a recording besides its features: events, turns, speakers, words.

Annotations enter in file order and as they are (LABELS: `legacy` labels need them untouched); only
times that are no numbers are dropped, by the readers in `extract.datasets`. Cleaning, bouts and
targets are made at read time by `laughstore.labels`. One JSON file a recording, named by its
content, never overwritten: `annotations/<id>/<split>/<recording id>.json`.
"""

import hashlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from . import layout
from .errors import CorruptData, NotFound
from .files import write_atomic
from .folders import Folder
from .sealed import canonical_json, parse_json, read_small

ANNOTATIONS_FORMAT = 1


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
        return {"format": "laughstore-annotations", "version": ANNOTATIONS_FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, data: dict[str, Any], *, where: str = "annotations") -> Self:
        """Return the annotations that `to_json` wrote.

        Raises:
            CorruptData: the object is no annotation file of a version that this release reads.
        """
        if data.get("format") != "laughstore-annotations" or data.get("version") != 1:
            version = data.get("version")
            raise CorruptData(
                f"{where}: format {data.get('format')!r} version {version!r} is not readable;"
                " this release reads laughstore-annotations version 1"
            )
        try:
            return cls(
                recording=data["recording"],
                duration_us=data["duration_us"],
                speakers=tuple(Speaker(**item) for item in data["speakers"]),
                events=tuple(Event(**item) for item in data["events"]),
                segments=tuple(Segment(**item) for item in data["segments"]),
                turns=_optional(Segment, data["turns"]),
                intervals=_optional(Interval, data["intervals"]),
                words=_optional(Word, data["words"]),
            )
        except (KeyError, TypeError) as error:
            raise CorruptData(f"{where}: field missing or of another kind ({error})") from error

    def content_id(self) -> str:
        """Return the first 8 hex digits of the SHA-256 of the canonical JSON."""
        return hashlib.sha256(canonical_json(self.to_json())).hexdigest()[:8]


def _optional[T](kind: type[T], items: list[dict[str, Any]] | None) -> tuple[T, ...] | None:
    return None if items is None else tuple(kind(**item) for item in items)


def write_annotations(store: Path, item: Annotations, split: str, recording_id: str) -> str:
    """Write one recording's annotations under the name of their content. Returns their id."""
    annotations_id = item.content_id()
    path = store / layout.annotations(annotations_id, split, recording_id)
    write_atomic(path, canonical_json(item.to_json()) + b"\n")
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
    found = Annotations.from_json(parse_json(data, where=where), where=where)
    if found.content_id() != annotations_id:
        raise CorruptData(f"{where}: content is not what its name says; restore it")
    return found
