"""Annotations as columns: what labels are computed from, vectorised, and what the index carries.

A `RecordingTables` is one recording's events, segments, turns and intervals as arrays. Strings are
codes into vocabularies shared by a whole index. Words are not in it: no label needs them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .annotations import Annotations, Segment

UNKNOWN_SPEAKER = -1
"""Speaker code of an event whose speaker is null."""


@dataclass(frozen=True)
class EventTable:
    """K events in file order."""

    start_us: NDArray[np.int64]
    end_us: NDArray[np.int64]
    label: NDArray[np.int32]
    """Code into `Vocabulary.labels` (consolidated classes; the empty string is a class)."""
    full_label: NDArray[np.int32]
    """Code into `Vocabulary.full_labels`."""
    speaker: NDArray[np.int32]
    """Code into the recording's speakers; UNKNOWN_SPEAKER when null."""
    confidence: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.start_us)


@dataclass(frozen=True)
class SegmentTable:
    """K turns or diarization segments in file order."""

    start_us: NDArray[np.int64]
    end_us: NDArray[np.int64]
    speaker: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.start_us)


@dataclass(frozen=True)
class IntervalTable:
    """K prediction intervals in file order."""

    speaker: NDArray[np.int32]
    event_start_us: NDArray[np.int64]
    turn_start_us: NDArray[np.int64]
    end_us: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.end_us)


@dataclass(frozen=True)
class Vocabulary:
    """Class names behind the codes of an `EventTable`."""

    labels: tuple[str, ...]
    full_labels: tuple[str, ...]

    @classmethod
    def of(cls, annotations: Sequence[Annotations]) -> "Vocabulary":
        """Return the sorted class names that occur in these annotations."""
        events = [event for item in annotations for event in item.events]
        return cls(
            labels=tuple(sorted({event.label for event in events})),
            full_labels=tuple(sorted({event.full_label for event in events})),
        )


@dataclass(frozen=True, eq=False)
class RecordingTables:
    """One recording's annotations as columns. Equal is only what is the same object."""

    duration_us: int
    speakers: tuple[str, ...]
    """Names behind the speaker codes, as in the annotations, then any other that occurs."""
    vocabulary: Vocabulary
    events: EventTable
    segments: SegmentTable
    turns: SegmentTable | None
    """None: the data set has no turns for this recording."""
    intervals: IntervalTable | None
    """None: the data set has no prediction intervals for this recording."""

    def speaker_code(self, name: str) -> int:
        """Return the code of a speaker, or -2, which no row has, when they do not occur."""
        return self.speakers.index(name) if name in self.speakers else -2


def recording_tables(annotations: Annotations, vocabulary: Vocabulary) -> RecordingTables:
    """Return a recording's annotations as columns.

    Args:
        annotations: of one recording.
        vocabulary: holds every class that occurs in them.
    """
    names = [speaker.name for speaker in annotations.speakers]
    mentioned: list[str | None] = [event.speaker for event in annotations.events]
    for rows in (annotations.segments, annotations.turns or (), annotations.intervals or ()):
        mentioned.extend(row.speaker for row in rows)
    names.extend(sorted({name for name in mentioned if name is not None} - set(names)))
    codes: dict[str | None, int] = {name: code for code, name in enumerate(names)}
    codes[None] = UNKNOWN_SPEAKER
    label_codes = {label: code for code, label in enumerate(vocabulary.labels)}
    full_codes = {label: code for code, label in enumerate(vocabulary.full_labels)}
    events = annotations.events
    intervals = annotations.intervals
    return RecordingTables(
        duration_us=annotations.duration_us,
        speakers=tuple(names),
        vocabulary=vocabulary,
        events=EventTable(
            start_us=_i8([event.start_us for event in events]),
            end_us=_i8([event.end_us for event in events]),
            label=_i4([label_codes[event.label] for event in events]),
            full_label=_i4([full_codes[event.full_label] for event in events]),
            speaker=_i4([codes[event.speaker] for event in events]),
            confidence=np.array([event.confidence for event in events], np.float32),
        ),
        segments=_segment_table(annotations.segments, codes),
        turns=None if annotations.turns is None else _segment_table(annotations.turns, codes),
        intervals=None
        if intervals is None
        else IntervalTable(
            speaker=_i4([codes[row.speaker] for row in intervals]),
            event_start_us=_i8([row.event_start_us for row in intervals]),
            turn_start_us=_i8([row.turn_start_us for row in intervals]),
            end_us=_i8([row.end_us for row in intervals]),
        ),
    )


def _segment_table(rows: Sequence[Segment], codes: dict[str | None, int]) -> SegmentTable:
    return SegmentTable(
        start_us=_i8([row.start_us for row in rows]),
        end_us=_i8([row.end_us for row in rows]),
        speaker=_i4([codes[row.speaker] for row in rows]),
    )


def _i8(values: list[int]) -> NDArray[np.int64]:
    return np.array(values, np.int64)


def _i4(values: list[int]) -> NDArray[np.int32]:
    return np.array(values, np.int32)
