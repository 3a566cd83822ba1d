"""Labels are a question asked of the annotations, never stored as truth.

Enters: a `LabelSpec` (the question) and one recording's tables. Leaves: for every row a target, or
that it is ignored. Definitions to the frame stand in docs/labels.md; the kinds of labels in
`laughstore.kinds`.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .bouts import Selection, Times, clean_events, merge_bouts, select_events
from .errors import ConfigError
from .kinds import KINDS, Scene, Targets
from .label_spec import FULL, LabelSpec, Whose
from .naming import MIX
from .tables import EventTable, IntervalTable, RecordingTables, Vocabulary

_NONE = np.empty(0, np.int64)
_NO_TIMES = Times(_NONE, _NONE)


def frame_targets(
    spec: LabelSpec, tables: RecordingTables, *, main: str, other: str | None, num_frames: int
) -> Targets:
    """Return the label of every row of one stream.

    Args:
        spec: what is asked.
        tables: the recording's annotations.
        main: speaker in the main role of the assignment, or `MIX`: all events are its own then,
            whatever `whose` says.
        other: speaker in the other role; None when it is silence.
        num_frames: T, rows of the stream.

    Returns:
        Targets of T rows; y is 0 where ignored.

    Raises:
        ConfigError: the label needs prediction intervals, and the recording has none.
    """
    kind, speakers = KINDS[spec.kind], _speakers(spec, tables, main, other)
    check_intervals(spec, {"the recording": tables})
    intervals = _intervals(tables if spec.needs_intervals else None, speakers)
    if spec.legacy:
        events = _as_written(spec, tables, speakers)
        scene = Scene(num_frames, events, _NO_TIMES, _NO_TIMES, intervals)
        y = kind.legacy(scene, spec.rules)
        return Targets(y=y, ignored=np.zeros(num_frames, np.bool_))
    events, unknown = _select(spec, tables, speakers)
    bouts = merge_bouts(events, spec.merge_gap.us)
    return kind.paint(Scene(num_frames, events, bouts, unknown, intervals), spec.rules)


def target_bouts(
    spec: LabelSpec,
    tables: RecordingTables,
    *,
    main: str,
    other: str | None,
    merge_gap_us: int | None = None,
) -> Times:
    """Return the bouts of the target events, in order of time (i8[N] starts and ends, us).

    Legacy labels are not made from bouts, but are drawn and scored beside those of other labels.
    `merge_gap_us` (0 or more) is used instead of the label's, if it is given.
    """
    speakers = _speakers(spec, tables, main, other)
    gap_us = spec.merge_gap.us if merge_gap_us is None else merge_gap_us
    return merge_bouts(_select(spec, tables, speakers).targets, gap_us)


def unknown_events(
    spec: LabelSpec, tables: RecordingTables, *, main: str, other: str | None
) -> Times:
    """Return the events that may be target events, in file order: nobody knows whose, or how sure.

    What says that there is a target event there is neither right nor wrong.
    """
    return _select(spec, tables, _speakers(spec, tables, main, other)).unknown


def awaited_us(
    spec: LabelSpec, tables: RecordingTables, *, main: str, other: str | None
) -> NDArray[np.int64]:
    """Return i64[K], rising: the moments that a label of onsets, or of intervals, asks about.

    Raises:
        ConfigError: the label needs prediction intervals, and the recording has none.
    """
    if not spec.needs_intervals:
        return target_bouts(spec, tables, main=main, other=other).start_us
    return awaited_intervals(spec, tables, main=main, other=other)[0]


def awaited_intervals(
    spec: LabelSpec, tables: RecordingTables, *, main: str, other: str | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the ends of the intervals that a label asks about, and the starts of their events.

    Returns:
        i64[K] ends, rising, and i64[K] starts; of intervals that end together the first in the
        file counts.

    Raises:
        ConfigError: the recording has no prediction intervals.
    """
    check_intervals(spec, {"the recording": tables})
    found = _intervals(tables, _speakers(spec, tables, main, other))
    taken = found.event_start_us - found.turn_start_us < spec.rules.limit_us
    end_us, first = np.unique(found.end_us[taken], return_index=True)
    return end_us, found.event_start_us[taken][first]


class CandidateEvents(NamedTuple):
    """K annotated events of all classes that a stream's label may have been about."""

    times: Times
    is_target: NDArray[np.bool_]
    """bool[K]: of the class asked for."""
    label: NDArray[np.int32]
    """i32[K]: code of the consolidated class."""


def candidate_events(
    spec: LabelSpec, tables: RecordingTables, *, main: str, other: str | None
) -> CandidateEvents:
    """Return the events of all classes, of the speakers asked for, that are sure, in file order.

    Somebody looked at each of these, whatever it was then called; stretches without an event may
    hold anything.
    """
    events, _ = clean_events(tables)
    speakers = _speakers(spec, tables, main, other)
    every = np.ones(len(events), np.bool_)
    sure = every if speakers is None else np.isin(events.speaker, list(speakers))
    sure = sure & (events.confidence >= np.float32(spec.min_confidence))
    return CandidateEvents(
        Times(events.start_us[sure], events.end_us[sure]),
        _of_class(spec.event, tables, events)[sure],
        events.label[sure].astype(np.int32),
    )


class ClassEvents(NamedTuple):
    """K events of the class asked for, whoever's they are and however sure, in file order."""

    times: Times
    speaker: NDArray[np.int32]
    """i32[K]: code among the recording's speakers; UNKNOWN_SPEAKER when nobody knows."""
    confidence: NDArray[np.float32]
    """f4[K]."""
    is_sure: NDArray[np.bool_]
    """bool[K]: of at least the confidence asked for."""
    is_target: NDArray[np.bool_]
    """bool[K]: sure, and of the speakers asked for."""


def class_events(
    spec: LabelSpec, tables: RecordingTables, *, main: str, other: str | None
) -> ClassEvents:
    """Return all events of the class asked for, cleaned: those asked for and those around them."""
    events, _ = clean_events(tables)
    speakers = _speakers(spec, tables, main, other)
    chosen = _of_class(spec.event, tables, events)
    speaker, confidence = events.speaker[chosen], events.confidence[chosen]
    is_sure = confidence >= np.float32(spec.min_confidence)
    is_target = is_sure if speakers is None else is_sure & np.isin(speaker, list(speakers))
    times = Times(events.start_us[chosen], events.end_us[chosen])
    return ClassEvents(times, speaker, confidence, is_sure, is_target)


def check_event(spec: LabelSpec, vocabulary: Vocabulary) -> None:
    """Check that the class asked for occurs in the data set.

    Args:
        spec: what is asked.
        vocabulary: of the whole data set.

    Raises:
        ConfigError: it occurs nowhere; the message lists the classes there are.
    """
    wants_full = spec.event.startswith(FULL)
    name = spec.event.removeprefix(FULL)
    # The empty name stands for events outside the consolidated classes.
    classes = [label for label in vocabulary.labels if label]
    full_classes = [FULL + label for label in vocabulary.full_labels if label]
    if wants_full and spec.event not in full_classes:
        there_are = full_classes
    elif not wants_full and name not in classes:
        there_are = classes + [label for label in full_classes if label == FULL + name]
    else:
        return
    raise ConfigError(
        f"event {spec.event!r} occurs nowhere in the data set;"
        f" there are: {', '.join(there_are) or 'no events'}"
    )


def check_whose(
    spec: LabelSpec, tables: Iterable[RecordingTables], mains: Iterable[str] = ()
) -> None:
    """Check that events can be told apart by speaker, when the label asks for it.

    Args:
        spec: what is asked.
        tables: of every recording of the data set; read up to the first event with a speaker.
        mains: main speakers of its streams. A mix, of which all events are, needs no speakers.

    Raises:
        ConfigError: there are events, none has a speaker, and not all streams are mixes.
    """
    if spec.whose == "any" or set(mains) == {MIX}:
        return
    num_events = 0
    for recording in tables:
        if np.any(recording.events.speaker >= 0):
            return
        num_events += len(recording.events)
    if num_events:
        raise ConfigError(
            f"whose {spec.whose}: none of the {num_events} events of the data set has a speaker;"
            " use --whose any"
        )


def check_intervals(spec: LabelSpec, tables: Mapping[str, RecordingTables]) -> None:
    """Check that there are prediction intervals, when the label asks for them.

    Args:
        spec: what is asked.
        tables: of each recording that is asked about, by its name for the message.

    Raises:
        ConfigError: a recording has none; the message names labels that need none.
    """
    if not spec.needs_intervals:
        return
    lacking = [name for name, recording in tables.items() if recording.intervals is None]
    if lacking:
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        instead = "" if spec.kind == "interval" or spec.legacy else ", or --until onset"
        raise ConfigError(
            f"label {spec.label} needs prediction intervals, and {lacking[0]}{more} has none in the"
            f" annotations; use --label onset:{spec.rules.span}f{instead}"
        )


def asked_of(whose: Whose, main: str) -> Whose:
    """Return whose events a label means in a stream: a mix has no sides, so those of anyone."""
    return "any" if main == MIX else whose


def _speakers(
    spec: LabelSpec, tables: RecordingTables, main: str, other: str | None
) -> tuple[int, ...] | None:
    """Return the codes of the speakers asked for; None is everyone, unknown ones too."""
    whose = asked_of(spec.whose, main)
    names = {"main": (main,), "other": (other,), "pair": (main, other), "any": None}[whose]
    if names is None:
        return None
    return tuple(tables.speaker_code(name) for name in names if name is not None)


def _of_class(event: str, tables: RecordingTables, events: EventTable) -> NDArray[np.bool_]:
    """bool[K]: the event is of the class asked for."""
    vocabulary, code_of_event = tables.vocabulary, events.label
    classes, name = vocabulary.labels, event
    if event.startswith(FULL):
        code_of_event = events.full_label
        classes, name = vocabulary.full_labels, event.removeprefix(FULL)
    code = classes.index(name) if name in classes else -1  # no event has code -1
    return code_of_event == code


def _select(
    spec: LabelSpec, tables: RecordingTables, speakers: tuple[int, ...] | None
) -> Selection:
    """Return the target events and the unknown events of one assignment."""
    events, _ = clean_events(tables)
    return select_events(
        events,
        of_class=_of_class(spec.event, tables, events),
        speakers=speakers,
        min_confidence=spec.min_confidence,
    )


def _as_written(
    spec: LabelSpec, tables: RecordingTables, speakers: Collection[int] | None
) -> Times:
    """Return the events of one assignment in file order, faults and all."""
    events = tables.events
    taken = _of_class(spec.event, tables, events)
    if speakers is not None:
        taken = taken & np.isin(events.speaker, list(speakers))
    return Times(events.start_us[taken], events.end_us[taken])


def _intervals(tables: RecordingTables | None, speakers: Collection[int] | None) -> IntervalTable:
    """Return the prediction intervals of these speakers in file order; none without tables."""
    found = None if tables is None else tables.intervals
    if found is None:
        return IntervalTable(np.empty(0, np.int32), _NONE, _NONE, _NONE)
    if speakers is None:
        return found
    taken = np.isin(found.speaker, list(speakers))
    return IntervalTable(
        speaker=found.speaker[taken],
        event_start_us=found.event_start_us[taken],
        turn_start_us=found.turn_start_us[taken],
        end_us=found.end_us[taken],
    )
