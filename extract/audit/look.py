"""One recording as an audit looks at it: what a build would make of it, and its clean events."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from laughstore.annotations import Annotations, Event
from laughstore.bouts import EventFaults, clean_events
from laughstore.errors import BadRecording
from laughstore.spec import Speakers
from laughstore.tables import UNKNOWN_SPEAKER, Vocabulary, recording_tables
from laughstore.timebase import SAMPLE_RATE, US_PER_SECOND

from ..datasets import DatasetRecording
from ..roles import Roles, choose_roles
from ..sound.tracks import probe_audio
from .findings import Findings

LAUGHTER = "Laughter"
_PACKAGE = "extract"


@dataclass(frozen=True)
class LookedAt:
    """A recording that can be built. It holds everything that was read: not to be kept."""

    recording: DatasetRecording
    roles: Roles
    stated_us: int
    """What its annotations say that it lasts."""
    annotations: Annotations
    """With the length of what is heard."""
    events: tuple[Event, ...]
    """Those that labels are made from."""
    faults: EventFaults
    """Of the others."""

    @property
    def laughs(self) -> list[Event]:
        """Its events of class Laughter."""
        return [event for event in self.events if event.label == LAUGHTER]

    @property
    def parts(self) -> frozenset[str]:
        """Which of `audit_report.PARTS` it has."""
        there = {
            "tracks": bool(self.recording.tracks),
            "mix": self.recording.mix is not None,
            "segments": self.recording.has_segments,
            "words": self.recording.has_words,
            "turns": self.annotations.turns is not None,
            "intervals": self.annotations.intervals is not None,
        }
        return frozenset(name for name, is_there in there.items() if is_there)


def look_at(recording: DatasetRecording, speakers: Speakers) -> LookedAt:
    """Return a recording as a build without text takes it.

    Args:
        recording: of a data set; what is read is not kept in it.
        speakers: policy that chooses who is main.

    Raises:
        BadRecording: a build leaves it out.
    """
    # A copy, so that what it reads and keeps goes with it.
    recording = replace(recording)
    if recording.problem is not None:
        raise BadRecording(recording.problem)
    roles = choose_roles(recording, speakers)
    num_samples = max(probe_audio(file).num_samples_24k for file in roles.files)
    stated = recording.annotations()
    annotations = replace(stated, duration_us=num_samples * US_PER_SECOND // SAMPLE_RATE)
    annotations.checked_id()  # a build leaves out what no reader takes
    vocabulary = Vocabulary.of([annotations])
    tables = recording_tables(annotations, vocabulary)
    clean, faults = clean_events(tables)
    events = tuple(
        Event(
            int(clean.start_us[k]),
            int(clean.end_us[k]),
            vocabulary.labels[clean.label[k]],
            vocabulary.full_labels[clean.full_label[k]],
            None if clean.speaker[k] == UNKNOWN_SPEAKER else tables.speakers[clean.speaker[k]],
            float(clean.confidence[k]),
        )
        for k in range(len(clean))
    )
    return LookedAt(recording, roles, stated.duration_us, annotations, events, faults)


def where(recording: DatasetRecording, event: Event) -> str:
    """Return where an event is, for an example."""
    who = "" if event.speaker is None else f" ({event.speaker})"
    return f"{recording.name}: {event.start_us / US_PER_SECOND:.3f} s{who}"


@contextmanager
def dropped_records(found: Findings | None) -> Iterator[None]:
    """Make findings of what readers of annotations warn of, instead of passing it on.

    Args:
        found: receives them; None when they are there already.
    """
    log = logging.getLogger(_PACKAGE)
    handlers, level, propagate = log.handlers, log.level, log.propagate
    log.handlers, log.propagate = [_Warnings(found)], False
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.handlers, log.propagate = handlers, propagate
        log.setLevel(level)


class _Warnings(logging.Handler):
    def __init__(self, found: Findings | None) -> None:
        super().__init__(logging.WARNING)
        self._found = found

    def emit(self, record: logging.LogRecord) -> None:
        if self._found is not None:
            self._found.add("records-dropped", record.getMessage())
