"""Spans of one recording to its events and segments, and these joined with the old ones.

The rules are in the docstring of the package.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal
from unicodedata import normalize

from laughstore.annotations import Annotations, Event, Segment
from laughstore.errors import BadRecording

from .rules import EventRule, at_edge, class_name, event_class
from .spans import DroppedRow, LabelledSpan, show_faults

type Mode = Literal["replace", "merge"]


@dataclass(frozen=True)
class AnnotatedRecording:
    """A recording's new annotations and what changed."""

    annotations: Annotations
    num_added: int
    """Events that were not there before."""
    num_removed: int
    """Events that are no longer there."""
    has_new_segments: bool
    notes: tuple[str, ...] = ()
    """What looks wrong, one line each."""

    @property
    def has_changed(self) -> bool:
        """Whether events or segments differ from before."""
        return self.num_added + self.num_removed > 0 or self.has_new_segments


def to_events(
    spans: Iterable[LabelledSpan], rule: EventRule, speakers: Sequence[str]
) -> tuple[Event, ...]:
    """Return the spans of one recording that are events, in file order.

    Args:
        spans: of one recording.
        rule: of the source they are from.
        speakers: names of the recording's speakers.
    """
    who = _Speakers(speakers)
    events: list[Event] = []
    for span in spans:
        label = rule.label_of(span)
        if label is None:
            continue
        full_label = label if rule.takes_every_span else span.full_label or label
        speaker = who.of(span)
        events.append(
            Event(span.start_us, span.end_us, label, full_label, speaker, span.confidence)
        )
    return tuple(events)


def to_segments(spans: Iterable[LabelledSpan], speakers: Sequence[str]) -> tuple[Segment, ...]:
    """Return the segments (SPEAKER lines) among the spans of one recording, in file order.

    Args:
        spans: of one recording.
        speakers: names of the recording's speakers.
    """
    who = _Speakers(speakers)
    return tuple(
        Segment(span.start_us, span.end_us, who.of(span) or "")
        for span in spans
        if span.kind == "segment" and span.end_us > span.start_us
    )


def annotate_recording(
    old: Annotations,
    spans: Sequence[LabelledSpan],
    rule: EventRule,
    *,
    mode: Mode = "replace",
    dropped: Sequence[DroppedRow] = (),
) -> AnnotatedRecording:
    """Return a recording's annotations with the events (and segments) of a source.

    Turns, intervals, words and the list of main speakers stay as they are. Nothing is cut or
    cleaned: that is done when labels are made, as for events of a data set.

    Args:
        old: the recording's annotations until now.
        spans: of this recording; none means that the source finds nothing in it.
        rule: of the whole source.
        mode: `replace` takes away the old events of the source's classes (and the old segments, if
            the source has some for this recording); `merge` adds what is not there already.
        dropped: rows of the source that are of this recording, or may be, and cannot be used.

    Raises:
        BadRecording: with `replace`, such a row may be an event or segment, or all spans of a class
            are points: old events would go and the new ones not come.
    """
    speakers = speakers_of(old)
    found = to_events(spans, rule, speakers)
    segments = to_segments(spans, speakers)
    if mode == "merge":
        events = _merged(old.events, found, key=_event_key)
        new_segments = _merged(old.segments, segments, key=lambda item: item)
    else:
        _refuse_losses(old, spans, dropped, rule, found)
        kept = [event for event in old.events if event_class(event) not in rule.classes]
        # Who speaks when says nothing of events: not that there is none either.
        has_only_segments = bool(spans) and all(span.kind == "segment" for span in spans)
        events = old.events if has_only_segments else (*kept, *found)
        new_segments = segments or old.segments
    before, after = Counter(old.events), Counter(events)
    if before == after:
        # Another order alone is no change, and legacy labels depend on it.
        events = old.events
    new = replace(old, events=events, segments=new_segments)
    changed = before != after
    return AnnotatedRecording(
        new,
        num_added=(after - before).total(),
        num_removed=(before - after).total(),
        notes=doubts(old, found, segments, has_stale_intervals=changed),
        has_new_segments=new_segments != old.segments,
    )


def speakers_of(annotations: Annotations) -> tuple[str, ...]:
    """Return every speaker that a recording's annotations name, the main speakers first."""
    names: list[str | None] = [speaker.name for speaker in annotations.speakers]
    names += [segment.speaker for segment in annotations.segments]
    names += [segment.speaker for segment in annotations.turns or ()]
    names += [event.speaker for event in annotations.events]
    return tuple(dict.fromkeys(name for name in names if name))


class _Speakers:
    """The speakers of a recording, found by a name or by the name of a tier."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = frozenset(names)
        self._by_fold: dict[str, list[str]] = {}
        for name in dict.fromkeys(names):
            # Spans are in form NFC; stores may have been built from names in NFD.
            self._by_fold.setdefault(normalize("NFC", name).casefold(), []).append(name)
        self._found: dict[tuple[str | None, str | None], str | None] = {}

    def of(self, span: LabelledSpan) -> str | None:
        """Return who made a span; a name that is new to the recording stays as it is."""
        key = span.speaker, span.tier
        if key not in self._found:
            self._found[key] = self._of(*key)
        return self._found[key]

    def _of(self, speaker: str | None, tier: str | None) -> str | None:
        known = None if speaker is None else self._named(speaker)
        if known is None and tier is not None:
            fold = at_edge(tier, self._by_fold)
            known = None if fold is None else self._unique(fold)
        return known or speaker

    def _named(self, speaker: str) -> str | None:
        return speaker if speaker in self._names else self._unique(speaker.casefold())

    def _unique(self, fold: str) -> str | None:
        names = self._by_fold.get(fold, [])
        return names[0] if len(names) == 1 else None


def _refuse_losses(
    old: Annotations,
    spans: Sequence[LabelledSpan],
    dropped: Sequence[DroppedRow],
    rule: EventRule,
    found: Sequence[Event],
) -> None:
    """Raise BadRecording if old events would be replaced by fewer than the source has."""
    lost = [row for row in dropped if row.span is None or _may_count(row.span, rule)]
    if lost:
        raise BadRecording(
            f"{old.recording}: {lost[0].path}: {len(lost)} rows cannot be used"
            f" ({show_faults(lost)}), so its old events stay; correct these rows, or add the others"
            " to the old events (--merge)"
        )
    points: set[str] = set()
    for span in spans:
        label = rule.label_if_long(span) if span.start_us == span.end_us else None
        if label is not None:
            points.add(class_name(label, span.full_label))
    points -= {event_class(event) for event in found}
    losing = sorted(points.intersection(map(event_class, old.events)) & rule.classes)
    if losing:
        raise BadRecording(
            f"{old.recording}: every {losing[0]} in it is a point, which has no length, so its old"
            " events stay; mark each from its start to its end"
        )


def _may_count(span: LabelledSpan, rule: EventRule) -> bool:
    return span.kind == "segment" or rule.label_if_long(span) is not None


def _event_key(event: Event) -> tuple[int, int, str, str, str | None]:
    return event.start_us, event.end_us, event.label, event.full_label, event.speaker


def _merged[T](old: tuple[T, ...], new: Iterable[T], key: Callable[[T], Hashable]) -> tuple[T, ...]:
    """Return the old items and behind them the new ones that are none of them, each once."""
    seen = {key(item) for item in old}
    added: list[T] = []
    for item in new:
        if key(item) not in seen:
            seen.add(key(item))
            added.append(item)
    return (*old, *added)


def doubts(
    old: Annotations,
    events: Sequence[Event],
    segments: Sequence[Segment],
    *,
    has_stale_intervals: bool,
) -> tuple[str, ...]:
    """Return what in the events and segments of a source is probably not meant, one line each.

    Args:
        old: the recording's annotations until now.
        events: that the source has for it.
        segments: that the source has for it.
        has_stale_intervals: its prediction intervals stay and its events do not.
    """
    speakers = speakers_of(old)
    notes: list[str] = []
    num_late = sum(event.start_us >= old.duration_us for event in events)
    if num_late:
        notes.append(
            f"{num_late} of {len(events)} events start after the recording's end"
            f" ({old.duration_us / 1e6:.1f} s): labels will not use them; is it this recording?"
        )
    num_unknown = sum(event.speaker is None for event in events)
    if num_unknown:
        notes.append(
            f"{num_unknown} of {len(events)} events have no speaker: labels ignore their frames,"
            " but for those of a mix and --whose any"
        )
    named = {event.speaker for event in events} | {segment.speaker for segment in segments}
    new_names = sorted(name for name in named - set(speakers) if name is not None)
    if new_names and speakers:
        notes.append(
            f"speakers new to the recording: {', '.join(new_names[:5])}"
            f"{', ...' if len(new_names) > 5 else ''} (it has {', '.join(speakers[:5])})"
        )
    if has_stale_intervals and old.intervals:
        notes.append("its prediction intervals still belong to the old events")
    return tuple(f"{old.recording}: {note}" for note in notes)
