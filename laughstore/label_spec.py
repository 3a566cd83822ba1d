"""What a label asks: which events, and which rows around them. Checked when it is written down.

Enters: settings as a person writes them. Leaves: rules in frames, the label's identity in runs, and
one line that describes it. Targets are made from it by `laughstore.labels`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from decimal import Decimal
from functools import cached_property, lru_cache
from typing import Any, Final, Literal, Self, get_args

from .errors import ConfigError, CorruptData
from .kinds import KINDS, Rules, Until
from .timebase import US_PER_SECOND, Span

Whose = Literal["main", "other", "pair", "any"]

FULL: Final = "full:"
"""Begins the name of a class of the full vocabulary."""
_NO_SPAN: Final = Span("0f")
_MERGE_GAP: Final = Span("0.5s")
"""One laugh is often annotated as several events of about 0.3 s (PodcastFillers)."""
_LIMIT: Final = Span("10s")
_KIND_OPTIONS: Final = ("guard", "lead", "edge", "fill_gaps", "limit", "until")
"""Fields that only some kinds know."""
_NOT_LEGACY: Final = (
    "merge_gap",
    "guard",
    "lead",
    "min_confidence",
    "edge",
    "fill_gaps",
    "limit",
    "until",
)
"""Fields that `legacy` knows nothing of: its regression always waits for ends of intervals."""


@dataclass(frozen=True)
class LabelSpec:
    """Which rows are positive, negative or ignored.

    Raises:
        ConfigError: a field, or two together, cannot work.
    """

    label: str = "detection"
    """What is asked of a row. `detection`: the frame holds an event. `shift:1f`: the frame that
    much later does; nearly all of that is detection (of the positive rows 76 % lie at or after the
    onset for 1f, 52 % for 2f, 24 % for 4f, 5 % for 8f). `onset:0.8s`, `onset:10f`: a bout begins
    soon. `interval:10s`: an annotated prediction interval ends soon. `regression:10s`: how soon, as
    1 / (1 + seconds)."""
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
    """Detection and shift: rows this close to a bout, on the outside, are ignored."""
    fill_gaps: bool = False
    """Detection and shift: rows between the events of one bout are positive, not ignored."""
    limit: Span = _LIMIT
    """Interval: ignored where its turn began this long before the event, or longer."""
    until: Until = "onset"
    """Regression: time to the next onset of a bout, or to the next end of an interval."""
    legacy: bool = False
    """By the rules of the scripts before laughstore: floating-point times, no bouts, nothing
    ignored."""

    def __post_init__(self) -> None:
        kind, span_frames = _parse_label(self.label)
        options = KINDS[kind].options
        for name in _KIND_OPTIONS:
            if self._given(name) and name not in options:
                knowers = ", ".join(key for key, other in KINDS.items() if name in other.options)
                raise ConfigError(
                    f"{name} {getattr(self, name)}: label {self.label} has no {name}, only"
                    f" {knowers} has; drop it"
                )
        if "guard" in options and not 0 <= self.guard.frames < span_frames:
            raise ConfigError(
                f"guard {self.guard} is {self.guard.frames} rows: it must be at least 0 and less"
                f" than the {span_frames} rows of label {self.label}"
            )
        for name, span in (("merge_gap", self.merge_gap), ("edge", self.edge)):
            if span.us < 0:
                raise ConfigError(f"{name} {span}: it must be 0 or more")
        if self.limit.us <= 0:
            raise ConfigError(f"limit {self.limit}: it must be longer than 0")
        for name, kinds in (("whose", Whose), ("until", Until)):
            if getattr(self, name) not in get_args(kinds):
                raise ConfigError(
                    f"{name} {getattr(self, name)!r}: it must be one of"
                    f" {', '.join(get_args(kinds))}"
                )
        if not 0 <= self.min_confidence <= 1:  # also refuses NaN
            raise ConfigError(f"min_confidence {self.min_confidence}: it must lie in 0 to 1")
        if not self.event.removeprefix(FULL):
            raise ConfigError(f"event {self.event!r}: write a class name, or full:NAME")
        if self.legacy:
            self._check_legacy()

    def _check_legacy(self) -> None:
        for name in _NOT_LEGACY:
            if self._given(name):
                raise ConfigError(
                    f"{name} {getattr(self, name)}: legacy labels have no {name}; drop it or legacy"
                )
        kind, span_frames = _parse_label(self.label)
        if KINDS[kind].usual_span not in (None, span_frames):
            raise ConfigError(f"label {self.label}: legacy {kind} knows one span; write {kind}:10s")

    def _given(self, name: str) -> bool:
        """Tell whether a field differs from its default, however spans are written."""
        value, default = getattr(self, name), _DEFAULTS[name]
        if isinstance(value, Span) and isinstance(default, Span):
            return value.us != default.us
        return value != default

    @property
    def kind(self) -> str:
        """Name of the kind, a key of `laughstore.kinds.KINDS`."""
        return _parse_label(self.label)[0]

    @property
    def lead_frames(self) -> int:
        """L: the score of row t is written, plotted and scored at frame t + L."""
        return self.rules.lead

    @property
    def needs_intervals(self) -> bool:
        """Whether targets are made from prediction intervals."""
        return self.kind == "interval" or (
            self.kind == "regression" and self.rules.until == "interval"
        )

    @cached_property
    def rules(self) -> Rules:
        """The spans, resolved to frames."""
        kind, span = _parse_label(self.label)
        return Rules(
            span=span,
            guard=self.guard.frames,
            lead=span if KINDS[kind].leads_by_span else self.lead.frames,
            edge=self.edge.frames,
            fill_gaps=self.fill_gaps,
            limit_us=self.limit.us,
            # The rules of old know intervals alone: one label shall have one identity.
            until="interval" if self.legacy and kind == "regression" else self.until,
        )

    def identity(self) -> dict[str, Any]:  # Any: a JSON object
        """Return the canonical JSON object of this label: equal if and only if all settings are.

        Spans are resolved, so `onset:0.8s` and `onset:10f` have one identity. Settings that came
        with a later release are named only where they differ from their default, so that labels
        that do without them keep the identity they had.
        """
        rules = self.rules
        later = {"limit_us": rules.limit_us, "until": rules.until, "legacy": self.legacy}
        return {
            "kind": self.kind,
            "span_frames": rules.span,
            "event": self.event,
            "whose": self.whose,
            "merge_gap_us": self.merge_gap.us,
            "guard_frames": rules.guard,
            "lead_frames": self.lead.frames,
            "min_confidence": float(self.min_confidence),
            "edge_frames": rules.edge,
            "fill_gaps": self.fill_gaps,
            **{name: value for name, value in later.items() if value != _LATER[name]},
        }

    @classmethod
    def from_identity(cls, identity: Mapping[str, Any], *, where: str = "label") -> Self:
        """Return the spec with this identity; spans are written in frames.

        Raises:
            CorruptData: it is not what `identity` returns; the message begins with `where`.
            ConfigError: a value cannot work, or the kind is not one of this release's.
        """
        expected = cls().identity() | _LATER
        found = _LATER | dict(identity)
        strange = sorted(
            key
            for key in expected.keys() | found.keys()
            if key not in expected or not _same_type(found.get(key), expected[key])
        )
        if strange:
            raise CorruptData(
                f"{where}: not a label of this release (field {', '.join(strange)} is missing,"
                " strange or of another type); restore the file, or name the label again"
            )
        kind, span = found["kind"], found["span_frames"]
        return cls(
            label=f"{kind}:{span}f" if span else kind,
            event=found["event"],
            whose=found["whose"],
            merge_gap=_span_of_us(found["merge_gap_us"]),
            guard=Span.of_frames(found["guard_frames"]),
            lead=Span.of_frames(found["lead_frames"]),
            min_confidence=found["min_confidence"],
            edge=Span.of_frames(found["edge_frames"]),
            fill_gaps=found["fill_gaps"],
            limit=_span_of_us(found["limit_us"]),
            # Legacy rules choose it themselves, and refuse a choice.
            until=_LATER["until"] if found["legacy"] else found["until"],
            legacy=found["legacy"],
        )

    def describe(self) -> str:
        """Return one line for people, with the number of rows each span became."""
        rules = self.rules
        rows = f" ({_rows(rules.span)})" if rules.span else ""
        parts = [f"{self.label}{rows} of {self.event}, whose: {self.whose}"]
        if self.kind == "interval" and not self.legacy:
            parts.append(f"turns begun less than {self.limit} before")
        if self.kind == "regression":
            parts.append(f"until the next {rules.until}")
        if self.legacy:
            return ", ".join([*parts, "legacy rules"])
        parts.append(f"bouts merged over {self.merge_gap}")
        lead = self.lead.frames
        for name, frames in (("guard", rules.guard), ("lead", lead), ("edge", rules.edge)):
            if frames:
                parts.append(f"{name} {getattr(self, name)} ({_rows(frames)})")
        if self.min_confidence > 0:
            parts.append(f"confidence at least {self.min_confidence:g}")
        if self.fill_gaps:
            parts.append("gaps filled")
        return ", ".join(parts)


_DEFAULTS: Final = {item.name: item.default for item in fields(LabelSpec)}
_LATER: Final = {"limit_us": _LIMIT.us, "until": "onset", "legacy": False}
"""Fields of an identity that are left out where they have these values."""


@lru_cache
def _parse_label(label: str) -> tuple[str, int]:
    """Return (kind, rows of its span or 0) of `kind` or `kind:span`."""
    kind, colon, text = label.partition(":")
    if kind not in KINDS:
        raise ConfigError(f"label {label!r}: the kinds of labels are {', '.join(KINDS)}")
    if not KINDS[kind].takes_span:
        if colon:
            raise ConfigError(f"label {label!r}: {kind} takes no span; write {kind}")
        return kind, 0
    usual = KINDS[kind].usual_span
    if not colon and usual is not None:
        return kind, usual
    if not colon:
        raise ConfigError(f"label {label!r} needs a span: write {kind}:0.8s or {kind}:10f")
    frames = Span(text).frames
    if frames < 1:
        raise ConfigError(f"label {label!r}: its span must be longer than 0")
    return kind, frames


def _span_of_us(time_us: int) -> Span:
    return Span(f"{(Decimal(time_us) / US_PER_SECOND).normalize():f}s")


def _same_type(value: object, like: object) -> bool:
    """Tell whether a JSON value has the type of another; a whole number may be a float's."""
    return type(value) is type(like) or (type(like) is float and type(value) is int)


def _rows(frames: int) -> str:
    return f"{frames} row" if abs(frames) == 1 else f"{frames} rows"
