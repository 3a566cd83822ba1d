"""Labels are a question asked of the annotations, never stored as truth.

Enters: a `LabelSpec` (the question) and one recording's tables. Leaves: for every row a target, or
that it is ignored. Definitions to the frame stand in docs/labels.md; the kinds of labels in
`laughstore.kinds`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, Literal, Self, get_args

import numpy as np

from .bouts import Selection, Times, clean_events, merge_bouts, select_events
from .errors import ConfigError, CorruptData
from .kinds import KINDS, Rules, Scene, Targets
from .naming import MIX
from .tables import RecordingTables, Vocabulary
from .timebase import US_PER_SECOND, Span

Whose = Literal["main", "other", "pair", "any"]

_FULL: Final = "full:"
_NO_SPAN: Final = Span("0f")
_MERGE_GAP: Final = Span("0.5s")
"""One laugh is often annotated as several events of about 0.3 s (PodcastFillers)."""
_KIND_OPTIONS: Final = ("guard", "lead", "edge", "fill_gaps")
"""Fields that only some kinds know."""


@dataclass(frozen=True)
class LabelSpec:
    """Which rows are positive, negative or ignored.

    Raises:
        ConfigError: a field, or two together, cannot work.
    """

    label: str = "detection"
    """`detection` (the frame holds an event) or `onset:0.8s`, `onset:10f` (a bout begins soon)."""
    event: str = "Laughter"
    """Class of the events: a consolidated one, or `full:NAME` for one of the full vocabulary."""
    whose: Whose = "main"
    """Whose events: the main speaker's, the other's, either's (pair), or all there are (any)."""
    merge_gap: Span = _MERGE_GAP
    """Events no further apart than this are one bout."""
    guard: Span = _NO_SPAN
    """Onset: rows closer to the onset than this are ignored."""
    lead: Span = _NO_SPAN
    """Detection: each row is asked about the frame this much later (negative: earlier)."""
    min_confidence: float = 0.0
    """Events with a lower confidence are unknown: their rows are ignored."""
    edge: Span = _NO_SPAN
    """Detection: rows this close to a bout, on the outside, are ignored."""
    fill_gaps: bool = False
    """Detection: rows between the events of one bout are positive instead of ignored."""

    def __post_init__(self) -> None:
        kind, span_frames = _parse_label(self.label)
        for name in _KIND_OPTIONS:
            value = getattr(self, name)
            given = value.frames != 0 if isinstance(value, Span) else value
            if given and name not in KINDS[kind].options:
                knowers = ", ".join(key for key, other in KINDS.items() if name in other.options)
                raise ConfigError(
                    f"{name} {value}: label {self.label} has no {name}, only {knowers} has; drop it"
                )
        if "guard" in KINDS[kind].options and not 0 <= self.guard.frames < span_frames:
            raise ConfigError(
                f"guard {self.guard} is {self.guard.frames} rows: it must be at least 0 and less"
                f" than the {span_frames} rows of label {self.label}"
            )
        if self.merge_gap.us < 0:
            raise ConfigError(f"merge_gap {self.merge_gap}: it must be 0 or more")
        if self.edge.frames < 0:
            raise ConfigError(f"edge {self.edge}: it must be 0 or more")
        if self.whose not in get_args(Whose):
            raise ConfigError(
                f"whose {self.whose!r}: it must be one of {', '.join(get_args(Whose))}"
            )
        if not 0 <= self.min_confidence <= 1:  # also refuses NaN
            raise ConfigError(f"min_confidence {self.min_confidence}: it must lie in 0 to 1")
        if not self.event.removeprefix(_FULL):
            raise ConfigError(f"event {self.event!r}: write a class name, or full:NAME")

    @property
    def kind(self) -> str:
        """Name of the kind, a key of `laughstore.kinds.KINDS`."""
        return _parse_label(self.label)[0]

    @property
    def lead_frames(self) -> int:
        """L: the score of row t is written, plotted and scored at frame t + L."""
        return self.lead.frames

    @property
    def rules(self) -> Rules:
        """The spans, resolved to frames."""
        return Rules(
            span=_parse_label(self.label)[1],
            guard=self.guard.frames,
            lead=self.lead.frames,
            edge=self.edge.frames,
            fill_gaps=self.fill_gaps,
        )

    def identity(self) -> dict[str, Any]:  # Any: a JSON object
        """Return the canonical JSON object of this label: equal if and only if all settings are.

        Spans are resolved, so `onset:0.8s` and `onset:10f` have one identity.
        """
        rules = self.rules
        return {
            "kind": self.kind,
            "span_frames": rules.span,
            "event": self.event,
            "whose": self.whose,
            "merge_gap_us": self.merge_gap.us,
            "guard_frames": rules.guard,
            "lead_frames": rules.lead,
            "min_confidence": float(self.min_confidence),
            "edge_frames": rules.edge,
            "fill_gaps": self.fill_gaps,
        }

    @classmethod
    def from_identity(cls, identity: Mapping[str, Any], *, where: str = "label") -> Self:
        """Return the spec with this identity; spans are written in frames.

        Raises:
            CorruptData: it is not what `identity` returns; the message begins with `where`.
            ConfigError: a value cannot work, or the kind is not one of this release's.
        """
        expected = cls().identity()
        strange = sorted(
            key
            for key in expected.keys() | identity.keys()
            if key not in expected or not _same_type(identity.get(key), expected[key])
        )
        if strange:
            raise CorruptData(
                f"{where}: not a label of this release (field {', '.join(strange)} is missing,"
                " strange or of another type); restore the file, or name the label again"
            )
        kind, span = identity["kind"], identity["span_frames"]
        merge_gap_s = (Decimal(identity["merge_gap_us"]) / US_PER_SECOND).normalize()
        return cls(
            label=f"{kind}:{span}f" if span else kind,
            event=identity["event"],
            whose=identity["whose"],
            merge_gap=Span(f"{merge_gap_s:f}s"),
            guard=Span.of_frames(identity["guard_frames"]),
            lead=Span.of_frames(identity["lead_frames"]),
            min_confidence=identity["min_confidence"],
            edge=Span.of_frames(identity["edge_frames"]),
            fill_gaps=identity["fill_gaps"],
        )

    def describe(self) -> str:
        """Return one line for people, with the number of rows each span became."""
        rules = self.rules
        rows = f" ({_rows(rules.span)})" if rules.span else ""
        parts = [f"{self.label}{rows} of {self.event}, whose: {self.whose}"]
        parts.append(f"bouts merged over {self.merge_gap}")
        for name, frames in (("guard", rules.guard), ("lead", rules.lead), ("edge", rules.edge)):
            if frames:
                parts.append(f"{name} {getattr(self, name)} ({_rows(frames)})")
        if self.min_confidence > 0:
            parts.append(f"confidence at least {self.min_confidence:g}")
        if self.fill_gaps:
            parts.append("gaps filled")
        return ", ".join(parts)


@dataclass(frozen=True)
class LabelCounts:
    """How many rows of a stream, or of many, are positive and ignored; the rest is negative."""

    rows: int = 0
    positives: int = 0
    ignored: int = 0

    @property
    def negatives(self) -> int:
        """Rows that are neither positive nor ignored."""
        return self.rows - self.positives - self.ignored

    @property
    def base_rate(self) -> float | None:
        """P / (P + N); None when every row is ignored."""
        eligible = self.rows - self.ignored
        return self.positives / eligible if eligible else None

    def __add__(self, other: "LabelCounts") -> "LabelCounts":
        return LabelCounts(
            self.rows + other.rows, self.positives + other.positives, self.ignored + other.ignored
        )


def count(targets: Targets) -> LabelCounts:
    """Return how many rows are positive and ignored."""
    return LabelCounts(
        rows=len(targets.y),
        positives=int(np.count_nonzero(targets.y)),
        ignored=int(np.count_nonzero(targets.ignored)),
    )


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
    """
    events, unknown = _select(spec, tables, main, other)
    scene = Scene(
        num_frames=num_frames,
        events=events.frames(),
        bouts=merge_bouts(events, spec.merge_gap.us).frames(),
        unknown=unknown.frames(),
    )
    return KINDS[spec.kind].paint(scene, spec.rules)


def target_bouts(
    spec: LabelSpec, tables: RecordingTables, *, main: str, other: str | None
) -> Times:
    """Return the bouts of the target events, in order of time (i8[N] starts and ends, us)."""
    return merge_bouts(_select(spec, tables, main, other).targets, spec.merge_gap.us)


def check_event(spec: LabelSpec, vocabulary: Vocabulary) -> None:
    """Check that the class asked for occurs in the data set.

    Args:
        spec: what is asked.
        vocabulary: of the whole data set.

    Raises:
        ConfigError: it occurs nowhere; the message lists the classes there are.
    """
    wants_full = spec.event.startswith(_FULL)
    name = spec.event.removeprefix(_FULL)
    # The empty name stands for events outside the consolidated classes.
    classes = [label for label in vocabulary.labels if label]
    full_classes = [_FULL + label for label in vocabulary.full_labels if label]
    if wants_full and spec.event not in full_classes:
        there_are = full_classes
    elif not wants_full and name not in classes:
        there_are = classes + [label for label in full_classes if label == _FULL + name]
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


def asked_of(whose: Whose, main: str) -> Whose:
    """Return whose events a label means in a stream: a mix has no sides, so those of anyone."""
    return "any" if main == MIX else whose


def _select(spec: LabelSpec, tables: RecordingTables, main: str, other: str | None) -> Selection:
    """Return the target events and the unknown events of one assignment."""
    events, _ = clean_events(tables)
    whose = asked_of(spec.whose, main)
    names = {"main": (main,), "other": (other,), "pair": (main, other), "any": None}[whose]
    speakers = None
    if names is not None:
        speakers = [tables.speaker_code(name) for name in names if name is not None]
    vocabulary, code_of_event = tables.vocabulary, events.label
    classes, name = vocabulary.labels, spec.event
    if spec.event.startswith(_FULL):
        code_of_event = events.full_label
        classes, name = vocabulary.full_labels, spec.event.removeprefix(_FULL)
    code = classes.index(name) if name in classes else -1  # no event has code -1
    return select_events(
        events,
        of_class=code_of_event == code,
        speakers=speakers,
        min_confidence=spec.min_confidence,
    )


def _parse_label(label: str) -> tuple[str, int]:
    """Return (kind, rows of its span or 0) of `kind` or `kind:span`."""
    kind, colon, text = label.partition(":")
    if kind not in KINDS:
        raise ConfigError(f"label {label!r}: the kinds of labels are {', '.join(KINDS)}")
    if not KINDS[kind].takes_span:
        if colon:
            raise ConfigError(f"label {label!r}: {kind} takes no span; write {kind}")
        return kind, 0
    if not colon:
        raise ConfigError(f"label {label!r} needs a span: write {kind}:0.8s or {kind}:10f")
    frames = Span(text).frames
    if frames < 1:
        raise ConfigError(f"label {label!r}: its span must be longer than 0")
    return kind, frames


def _same_type(value: object, like: object) -> bool:
    """Tell whether a JSON value has the type of another; a whole number may be a float's."""
    return type(value) is type(like) or (type(like) is float and type(value) is int)


def _rows(frames: int) -> str:
    return f"{frames} row" if abs(frames) == 1 else f"{frames} rows"
