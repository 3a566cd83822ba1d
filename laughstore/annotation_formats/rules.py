"""Which spans of a source are events, and of which class.

This is decided for a whole source at once, because a recording without a laugh must not have its
file read differently from the others. The rules are in the docstring of the package.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Self

from laughstore.annotations import Event
from laughstore.errors import ConfigError

from .source import AnnotationSource
from .spans import LabelledSpan, tidy

WELL_KNOWN: Mapping[str, str] = {
    "laughter": "Laughter",
    "laugh": "Laughter",
    "laughs": "Laughter",
    "laughing": "Laughter",
    "breath": "Breath",
    "music": "Music",
    "uh": "Uh",
    "um": "Um",
    "words": "Words",
}
"""Names, in lower case, of the consolidated classes of PodcastFillers, and of laughs elsewhere."""

MAX_CLASSES = 256
"""More different labels than this are a transcript, no annotation of events."""
MAX_OTHER_LABELS = 5
"""More different labels that name no class than this are not taken as events of one class."""
UNDECIDED = "?"
"""Ends a label that was proposed and that nobody accepted: it is no event."""
_WORD = re.compile(r"[^\W\d_]+")
_BRACKETS = "[](){}<>* "


@dataclass(frozen=True)
class EventRule:
    """How the spans of one source are read as events. Made by `EventRule.of`."""

    event: str | None
    """The one class that is taken; None for all."""
    takes_every_span: bool
    """No span is of class `event`: all of them become it."""
    tiers: frozenset[str] | None
    """Tiers that are read, in lower case; None for all."""
    classes: frozenset[str]
    """Classes that the source speaks of, as `event_class` gives them."""
    notes: tuple[str, ...] = ()
    """What is left out and why, one line each."""
    _class_of_tier: dict[str, str | None] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(
        cls,
        source: AnnotationSource,
        *,
        event: str | None = None,
        tiers: Collection[str] | None = None,
    ) -> Self:
        """Return how to read a source.

        Args:
            source: all of it.
            event: the one class to take; None takes every class.
            tiers: names of the tiers to read, in any case; None reads all. Spans of formats without
                tiers are not affected.

        Raises:
            ConfigError: a tier does not occur; no span has a class; there are too many classes;
                no span is of class `event` while some are of other well-known ones, all are
                points, segments or the words of a transcript.
        """
        if event is not None:
            event = well_known(event)
            if not event or event.startswith("full:"):
                raise ConfigError(f"event {event!r} is no class; give one such as Laughter")
        wanted = None if tiers is None else frozenset(tidy(tier).casefold() for tier in tiers)
        _check_tiers(source, wanted)
        rule = cls(event, False, wanted, frozenset())
        read = [span for span in source.spans if span.kind == "event" and rule._is_read(span)]
        num_undecided = sum(is_undecided(span) for span in read)
        read = [span for span in read if not is_undecided(span)]
        labelled = [span for span in read if span.end_us > span.start_us]
        num_points = len(read) - len(labelled)
        has_segments = any(span.kind == "segment" for span in source.spans)
        counts = Counter(rule._class(span) for span in labelled)
        num_unlabelled = counts.pop(None, 0)
        notes = [f"{num_points} points left out: they have no length"] if num_points else []
        if num_undecided:
            notes.append(f"{num_undecided} labels left out: they end with {UNDECIDED}, undecided")
        if event is not None and event not in counts and not rule._is_dropped(source, event):
            if read and not labelled:
                raise ConfigError(
                    f"all {num_points} labels are points, which have no length, so none of them is"
                    f" an event; mark each {event} from its start to its end"
                )
            if has_segments and not read:
                raise ConfigError(
                    f"only SPEAKER lines: they tell who speaks when, not where a {event} is; write"
                    f" one as a line of type NON-LEX, or as a table with the label {event}"
                )
            _check_others(counts, event)
            _check_transcript(labelled, event)
            if read:
                notes.append(f"no span is labelled {event}: every span is taken as one")
            rule = replace(rule, takes_every_span=True)
            return replace(rule, classes=frozenset([event]), notes=tuple(notes))
        if event is not None:
            others = Counter({name: count for name, count in counts.items() if name != event})
            notes.extend(_left_out(others, event))
            counts = Counter({event: counts[event]})
        elif num_unlabelled and not counts and not has_segments:
            raise ConfigError(
                f"none of the {num_unlabelled} spans has a label, so their class is not known;"
                " give it (such as --event Laughter)"
            )
        elif not counts and not has_segments:
            notes.append(
                "no labelled span: nothing changes; if that says that there are no events, give"
                " their class (such as --event Laughter)"
            )
        if num_unlabelled:
            notes.append(f"{num_unlabelled} spans left out: they have no label")
        if len(counts) > MAX_CLASSES:
            raise ConfigError(
                f"{len(counts):,} different labels: this looks like a transcript, no annotation"
                " of events; give one class (such as --event Laughter) or choose tiers"
            )
        classes = frozenset(name for name in counts if name is not None)
        return replace(rule, classes=classes, notes=tuple(notes))

    def label_of(self, span: LabelledSpan) -> str | None:
        """Return the class in which a span is an event (empty: only in the full vocabulary).

        None when it is no event.
        """
        return None if span.start_us == span.end_us else self.label_if_long(span)

    def label_if_long(self, span: LabelledSpan) -> str | None:
        """Return as `label_of` what a span would be if it had a length."""
        if not self._is_read(span):
            return None
        if span.kind == "segment" or is_undecided(span):
            return None
        if self.takes_every_span:
            return self.event
        label = self._label(span)
        if label is None or (self.event is not None and label != self.event):
            return None
        return label

    def _is_dropped(self, source: AnnotationSource, event: str) -> bool:
        """Whether a row that cannot be used is of a class: then the source does speak of it."""
        spans = [row.span for item in source.files for row in item.dropped if row.span is not None]
        return any(
            span.kind == "event" and self._is_read(span) and self._class(span) == event
            for span in spans
        )

    def _is_read(self, span: LabelledSpan) -> bool:
        if self.tiers is None or span.tier is None:
            return True
        return span.tier.casefold() in self.tiers

    def _class(self, span: LabelledSpan) -> str | None:
        label = self._label(span)
        return None if label is None else class_name(label, span.full_label)

    def _label(self, span: LabelledSpan) -> str | None:
        known = self._known(span.label)
        if known is not None:
            return known
        tier = span.tier
        if tier is not None:
            if tier not in self._class_of_tier:
                self._class_of_tier[tier] = self._known_at_edge(tier)
            known = self._class_of_tier[tier]
        if known is not None:
            return known
        return span.label if span.label or span.full_label else None

    def _known(self, label: str) -> str | None:
        name = label.strip(_BRACKETS).casefold()
        if self.event is not None and name == self.event.casefold():
            return self.event
        return WELL_KNOWN.get(name)

    def _known_at_edge(self, tier: str) -> str | None:
        names = dict(WELL_KNOWN)
        if self.event is not None:
            names[self.event.casefold()] = self.event
        found = at_edge(tier, names)
        return None if found is None else names[found]


def is_undecided(span: LabelledSpan) -> bool:
    """Tell whether a label was proposed and not accepted: it ends with a question mark."""
    return (span.label or span.full_label).endswith(UNDECIDED)


def well_known(name: str) -> str:
    """Return the well-known class that a name means in any case, else the name on one line."""
    return WELL_KNOWN.get(tidy(name).casefold(), tidy(name))


def event_class(event: Event) -> str:
    """Return the name of an event's class: consolidated, or `full:NAME` for those outside."""
    return class_name(event.label, event.full_label)


def at_edge(text: str, names: Iterable[str]) -> str | None:
    """Return the longest of some names (in lower case) with which a text begins or ends, whole."""
    text = text.casefold()
    size = len(text)
    found = [
        name
        for name in names
        if name
        and (
            (text.startswith(name) and not text[len(name) : len(name) + 1].isalnum())
            or (text.endswith(name) and not text[size - len(name) - 1].isalnum())
        )
    ]
    return max(found, key=len, default=None)


def class_name(label: str, full_label: str) -> str:
    """Return the name of a class as `event_class` does."""
    return label or f"full:{full_label}"


def _check_tiers(source: AnnotationSource, wanted: frozenset[str] | None) -> None:
    if wanted is None:
        return
    names = sorted({span.tier for span in source.spans if span.tier is not None})
    missing = sorted(wanted - {name.casefold() for name in names})
    if missing:
        shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "") or "none"
        raise ConfigError(f"no labelled tier {missing[0]!r}; tiers with labels: {shown}")


def _check_others(counts: Counter[str | None], event: str) -> None:
    """Refuse to call spans `event` that are known to be something else: it may be misspelt."""
    known = sorted(set(WELL_KNOWN.values()).intersection(name for name in counts if name))
    if known:
        raise ConfigError(
            f"no span is labelled {event}, but some are {', '.join(known)}; give one of these, or"
            " files with one class only"
        )


def _check_transcript(spans: Iterable[LabelledSpan], event: str) -> None:
    """Refuse to call spans `event` whose labels look like what was said in them.

    Numbers do not count (`laugh1`, `laugh2`), nor does a word again (`ha ha`).
    """
    stems: dict[tuple[str, ...], str] = {}
    for span in spans:
        label = span.label or span.full_label
        if label:
            stems.setdefault(tuple(dict.fromkeys(_WORD.findall(label.casefold()))), label)
    sentence = next((label for stem, label in stems.items() if len(stem) > 1), None)
    if sentence is None and len(stems) <= MAX_OTHER_LABELS:
        return
    what = f"such as {(sentence or next(iter(stems.values())))[:40]!r}"
    raise ConfigError(
        f"no span is labelled {event}, and the labels ({len(stems)} different ones, {what}) look"
        f" like a transcript; label each {event} so, and leave other tiers out of these files"
    )


def _left_out(others: Counter[str | None], event: str) -> list[str]:
    if not others:
        return []
    shown = ", ".join(f"{count} {name}" for name, count in others.most_common(5))
    more = f" and {len(others) - 5} other classes" if len(others) > 5 else ""
    return [f"left out, not {event}: {shown}{more}"]
