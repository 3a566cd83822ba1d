"""Give a finished store other annotations: a new generation, whose features are the old ones.

What a source says of a recording is joined with what the store has *now*, under the store's lock:
of two who annotate at once, the second one builds on what the first has published.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from ..annotation_formats import (
    AnnotationSource,
    EventRule,
    Mode,
    annotate_recording,
    event_class,
    match_recordings,
)
from ..annotations import Annotations, Event, read_annotations, write_annotations
from ..commit import commit_annotation_ids
from ..errors import BadRecording
from ..locks import StoreLocks
from ..progress import NoProgress, Progress
from ..store import open_store


@dataclass(frozen=True)
class Revised:
    """What a source makes of a recording's annotations."""

    annotations: Annotations
    notes: tuple[str, ...] = ()
    """What looks wrong, one line each."""


Revise = Callable[[str, Annotations], Revised]
"""(name in the source, annotations until now) -> the new ones. Raises BadRecording."""


@dataclass(frozen=True)
class RecordingChange:
    """What changes in a recording."""

    recording: str
    id: str
    split: str
    events_before: dict[str, int]
    """Events by class."""
    events_after: dict[str, int]
    num_added: int
    """Events that were not there before."""
    num_removed: int
    also: tuple[str, ...]
    """What else changes: `segments`, `turns`, `intervals`, `words`, or `order` of events."""


@dataclass(frozen=True)
class AnnotateResult:
    """What annotating did, or would do."""

    generation: int
    """The newest after it; of a dry run, the newest that there is."""
    was_published: bool
    """False when nothing changes, and for a dry run."""
    changes: tuple[RecordingChange, ...]
    num_unchanged: int
    """Recordings that the source names and leaves as they are."""
    unmatched: tuple[str, ...]
    """Names in the source that no recording of the store has."""
    unusable: tuple[str, ...]
    """Recordings whose annotations in the source cannot be used, with the reason."""
    notes: tuple[str, ...] = field(repr=False)


def revise_from_files(source: AnnotationSource, rule: EventRule, *, mode: Mode) -> Revise:
    """Return how files of other tools change annotations (`laughstore.annotation_formats`).

    Args:
        source: the files.
        rule: which of their spans are events.
        mode: `replace` the old events of the same classes, or `merge` the new ones into them.
    """

    def revise(name: str, old: Annotations) -> Revised:
        spans, dropped = source.by_recording[name], source.dropped_by_recording.get(name, ())
        found = annotate_recording(old, spans, rule, mode=mode, dropped=dropped)
        return Revised(found.annotations, found.notes)

    return revise


def annotate(
    store: Path,
    names: Iterable[str],
    revise: Revise,
    *,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> AnnotateResult:
    """Publish a generation with changed annotations; nothing is published when nothing changes.

    Can be killed at any point and run again: the store is the old generation or the new one, and
    the new one has the same bytes.

    Args:
        store: folder of a finished store.
        names: recordings that the source speaks of, as it names them.
        revise: what it makes of each.
        dry_run: only tell what would change; nothing is written.
        progress: told of each recording, and once when another process has to be waited for.

    Raises:
        NotFound, IncompleteStore: there is no finished store.
        ConfigError: a name may mean several recordings.
        CorruptData: a file of the store was altered.
    """
    progress = progress or NoProgress()
    with ExitStack() as stack:
        opened = open_store(store)  # first of all: a lock file is not made just anywhere
        if not dry_run:
            locks = stack.enter_context(StoreLocks(store, progress))
            stack.enter_context(locks.exclusive())
            opened = open_store(store)
        recordings = {item.id: item for item in opened.recordings}
        found = match_recordings(names, [(item.id, item.name) for item in opened.recordings])
        changes: list[RecordingChange] = []
        notes: list[str] = []
        unusable: list[str] = []
        written: dict[str, str] = {}
        progress.begin("annotate", len(found.recording_ids), "recording")
        try:
            for name, key in found.recording_ids.items():
                item = recordings[key]
                old = read_annotations(opened.folder, item.annotations_id, item.split, key)
                progress.advance(1)
                try:
                    revised = revise(name, old)
                except BadRecording as error:
                    unusable.append(str(error))
                    continue
                notes.extend(revised.notes)
                if revised.annotations == old:
                    continue
                changes.append(_change(item.name, key, item.split, old, revised.annotations))
                if not dry_run:
                    written[key] = write_annotations(store, revised.annotations, item.split, key)
        finally:
            progress.end()
        generation = opened.manifest.generation
        if not dry_run:
            # With nothing changed this only gives back a current index that a kill kept old.
            generation = commit_annotation_ids(store, written).generation
    return AnnotateResult(
        generation=generation,
        was_published=generation != opened.manifest.generation,
        changes=tuple(changes),
        num_unchanged=len(found.recording_ids) - len(changes) - len(unusable),
        unmatched=found.unmatched,
        unusable=tuple(unusable),
        notes=tuple(notes),
    )


def merge_events(old: Sequence[Event], new: Iterable[Event]) -> tuple[Event, ...]:
    """Return the old events and behind them those new ones that are none of them, each once.

    Two events are one when all but their confidence is the same.
    """
    seen = {replace(event, confidence=1.0) for event in old}
    added: list[Event] = []
    for event in new:
        key = replace(event, confidence=1.0)
        if key not in seen:
            seen.add(key)
            added.append(event)
    return (*old, *added)


def with_known_speakers(new: Iterable[Event], old: Iterable[Event]) -> tuple[Event, ...]:
    """Return the new events, those of nobody with the speaker of the same old event, if any.

    Two events are the same when their times and classes are. Several such events take the speakers
    of the old ones in their order.
    """
    known: dict[tuple[int, int, str, str], list[str | None]] = {}
    for event in old:
        known.setdefault(_moment(event), []).append(event.speaker)
    found: list[Event] = []
    for event in new:
        speakers = known.get(_moment(event))
        old_speaker = speakers.pop(0) if speakers else None
        found.append(event if event.speaker is not None else replace(event, speaker=old_speaker))
    return tuple(found)


def _moment(event: Event) -> tuple[int, int, str, str]:
    return event.start_us, event.end_us, event.label, event.full_label


def _change(
    name: str, recording_id: str, split: str, old: Annotations, new: Annotations
) -> RecordingChange:
    before, after = Counter(old.events), Counter(new.events)
    also = [
        item.name
        for item in fields(Annotations)
        if item.name != "events" and getattr(old, item.name) != getattr(new, item.name)
    ]
    if before == after and old.events != new.events:
        also.append("order")
    return RecordingChange(
        recording=name,
        id=recording_id,
        split=split,
        events_before=_by_class(old.events),
        events_after=_by_class(new.events),
        num_added=(after - before).total(),
        num_removed=(before - after).total(),
        also=tuple(also),
    )


def _by_class(events: Iterable[Event]) -> dict[str, int]:
    return dict(sorted(Counter(event_class(event) for event in events).items()))
