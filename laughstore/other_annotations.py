"""Labels from other annotations than the store's, in memory: nothing is written.

Enters: an index and what another source says of its recordings. Leaves: an index of the same
features whose tables are others. To keep such annotations, use `laughstore annotate`.
"""

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .annotation_formats import EventRule, match_recordings, read_annotation_source
from .annotations import Annotations, Event, Interval, Segment, Speaker
from .errors import ConfigError, NotFound
from .evolution.annotate import Revise, revise_from_files
from .index import Index, Recording
from .sealed import canonical_json
from .table_columns import table_arrays
from .tables import (
    UNKNOWN_SPEAKER,
    EventTable,
    RecordingTables,
    SegmentTable,
    Vocabulary,
    recording_tables,
)

logger = logging.getLogger(__name__)

Annotate = Callable[[Index, Path], Index]
"""(index, where other annotations are) -> the index with them."""

_NOTES_SHOWN = 5


def with_annotations(
    index: Index,
    names: Iterable[str],
    revise: Revise,
    *,
    where: str,
    notes: Sequence[str] = (),
) -> Index:
    """Return an index of the same features whose labels are made from other annotations.

    Recordings that the source does not name keep those of the store. Words are in neither.

    Args:
        index: as opened.
        names: recordings that the source speaks of, as it names them.
        revise: what it makes of each.
        where: the source is, for messages.
        notes: what the source leaves out; told in the log with the notes of the recordings.

    Raises:
        ConfigError: a name may mean several recordings, or none means one.
        BadRecording: the source cannot be used for a recording.
    """
    found = match_recordings(names, [(item.id, item.name) for item in index.recordings])
    if not found.recording_ids:
        raise ConfigError(
            f"{where}: it names no recording of {index.where}"
            f" (it names {', '.join(found.unmatched[:3]) or 'none at all'}); rename its files, or"
            " give other annotations"
        )
    told = [*notes, *(f"{where}: no recording {name!r} in the store" for name in found.unmatched)]
    old_tables = index.all_tables
    position = {item.id: i for i, item in enumerate(index.recordings)}
    changed: dict[int, Annotations] = {}
    for name, key in found.recording_ids.items():
        i = position[key]
        revised = revise(name, annotations_of(index.recordings[i], old_tables[i]))
        changed[i] = revised.annotations
        told.extend(revised.notes)
    _tell(told)
    kept = [tables for i, tables in enumerate(old_tables) if i not in changed]
    vocabulary = _vocabulary(kept, index.vocabulary, list(changed.values()))
    tables = tuple(
        recording_tables(changed[i], vocabulary)
        if i in changed
        else _recoded(item, index.vocabulary, vocabulary)
        for i, item in enumerate(old_tables)
    )
    recordings = tuple(
        replace(item, speakers=own.speakers)
        for item, own in zip(index.recordings, tables, strict=True)
    )
    return replace(index, recordings=recordings, vocabulary=vocabulary, other_tables=tables)


def read_other_annotations(index: Index, path: Path) -> Index:
    """Return an index whose labels are made from annotation files of other tools.

    Args:
        index: as opened.
        path: a file or a folder of files (see `laughstore.annotation_formats`). Their events take
            the place of the store's of the same classes, as `laughstore annotate` does it.

    Raises:
        NotFound: nothing is at the path.
        ConfigError, BadRecording: as `with_annotations`, or a file cannot be read.
    """
    source = read_annotation_source([path])
    rule = EventRule.of(source)
    revise = revise_from_files(source, rule, mode="replace")
    notes = (*source.notes, *rule.notes)
    return with_annotations(index, source.by_recording, revise, where=str(path), notes=notes)


def check_there(path: Path) -> None:
    """Raise NotFound, with what to do, when annotations that a run needs are gone."""
    if not path.exists():
        raise NotFound(
            f"{path} is gone, where the run's annotations were; restore it, or name others with"
            " --annotations"
        )


def tables_digest(index: Index) -> str:
    """Return the SHA-256 of all tables of an index: equal when the annotations are.

    It covers what labels are made from, and neither paths nor words.
    """
    tables = index.all_tables
    digest = hashlib.sha256()
    head = {
        "labels": list(index.vocabulary.labels),
        "full_labels": list(index.vocabulary.full_labels),
        "recordings": [
            [item.id, own.duration_us, list(own.speakers)]
            for item, own in zip(index.recordings, tables, strict=True)
        ],
    }
    digest.update(canonical_json(head))
    for name, array in sorted(table_arrays(tables).items()):
        digest.update(f"\n{name} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def annotations_of(recording: Recording, tables: RecordingTables) -> Annotations:
    """Return what tables hold, as annotations: without words and how long each speaker speaks."""
    speakers, vocabulary = tables.speakers, tables.vocabulary
    events, intervals = tables.events, tables.intervals
    who = dict(enumerate(speakers)) | {UNKNOWN_SPEAKER: None}
    return Annotations(
        recording=recording.name,
        duration_us=tables.duration_us,
        speakers=tuple(Speaker(name, 0) for name in speakers),
        events=tuple(
            Event(start, end, vocabulary.labels[a], vocabulary.full_labels[b], who[code], sure)
            for start, end, a, b, code, sure in _rows(
                events.start_us,
                events.end_us,
                events.label,
                events.full_label,
                events.speaker,
                events.confidence,
            )
        ),
        segments=_segments(tables.segments, who),
        turns=None if tables.turns is None else _segments(tables.turns, who),
        intervals=None
        if intervals is None
        else tuple(
            Interval(who[code] or "", event_start, turn_start, end)
            for code, event_start, turn_start, end in _rows(
                intervals.speaker,
                intervals.event_start_us,
                intervals.turn_start_us,
                intervals.end_us,
            )
        ),
    )


def _segments(table: SegmentTable, who: Mapping[int, str | None]) -> tuple[Segment, ...]:
    rows = _rows(table.start_us, table.end_us, table.speaker)
    return tuple(Segment(start, end, who[code] or "") for start, end, code in rows)


def _rows(*columns: NDArray) -> Iterable[tuple]:
    return zip(*(column.tolist() for column in columns), strict=True)


def _vocabulary(
    kept: Sequence[RecordingTables], old: Vocabulary, changed: Sequence[Annotations]
) -> Vocabulary:
    """The classes that occur: a label of one that no longer does is an error, as ever."""
    new = Vocabulary.of(changed)
    labels = {old.labels[code] for item in kept for code in np.unique(item.events.label)}
    full = {old.full_labels[code] for item in kept for code in np.unique(item.events.full_label)}
    return Vocabulary(
        tuple(sorted(labels.union(new.labels))), tuple(sorted(full.union(new.full_labels)))
    )


def _recoded(tables: RecordingTables, old: Vocabulary, new: Vocabulary) -> RecordingTables:
    """The same tables with the codes of another vocabulary."""
    events: EventTable = tables.events
    recoded = replace(
        events,
        label=_codes(events.label, old.labels, new.labels),
        full_label=_codes(events.full_label, old.full_labels, new.full_labels),
    )
    return replace(tables, vocabulary=new, events=recoded)


def _codes(codes: NDArray[np.int32], old: Sequence[str], new: Sequence[str]) -> NDArray[np.int32]:
    place = {name: code for code, name in enumerate(new)}
    # Classes that occur no more have no code, and no row asks for one.
    return np.array([place.get(name, -1) for name in old] or [-1], np.int32)[codes]


def _tell(notes: Sequence[str]) -> None:
    for note in notes[:_NOTES_SHOWN]:
        logger.warning("%s", note)
    if len(notes) > _NOTES_SHOWN:
        logger.warning("... and %d more notes", len(notes) - _NOTES_SHOWN)
