"""ELAN documents (`.eaf`): annotations with times of their own, and those that refer to others.

A REF_ANNOTATION has the times of the annotation that it refers to, over any number of steps (so the
parts of a symbolic subdivision all have those of the whole). One whose time slot has no time is
dropped: ELAN draws it somewhere between its neighbours, but nobody said where. PARTICIPANT is the
speaker. A DOCTYPE, and with it every entity of one's own, is refused. Source: "ELAN Annotation
Format" (EAF) of The Language Archive.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.parsers import expat

from laughstore.errors import BadRecording

from .numbers import MILLISECONDS, read_number, to_us
from .spans import MAX_SPANS, AnnotationFile, LabelledSpan, SpanCollector, tidy
from .text import read_bytes, stem

SUFFIX = ".eaf"
MAX_DEPTH = 64
"""Elements inside each other; ELAN writes five deep."""
_ROOT = "ANNOTATION_DOCUMENT"

type _Slots = tuple[str, str]  # ids of the start slot and the end slot


def read_elan(path: Path) -> AnnotationFile:
    """Return the annotations of an ELAN document, in file order; an empty value stays empty.

    Raises:
        NotFound: no such file.
        BadRecording: it is no such document; the message names file and line.
    """
    document = _Document(path)
    document.parse(read_bytes(path))
    spans = SpanCollector(path, "annotations")
    if document.has_media_offset:
        spans.note("a media file has a TIME_ORIGIN; times are those of ELAN's time line")
    for annotation in document.annotations.values():
        slots = document.slots(annotation)
        tier = annotation.tier
        untimed = LabelledSpan(None, 0, 1, tidy(annotation.value), tier=tidy(tier.name))
        if slots is None:
            spans.drop(annotation.line, "refers to an annotation that is not there", untimed)
            continue
        times = [document.times.get(slot) for slot in slots]
        if None in times:
            spans.drop(annotation.line, "its time slot has no time; align it in ELAN", untimed)
            continue
        start, end = (to_us(read_number(time or ""), MILLISECONDS) for time in times)
        spans.add(
            annotation.line,
            start,
            end,
            annotation.value,
            speaker=tidy(tier.participant) or None,
            tier=tidy(tier.name),
        )
    return spans.finish(stem(path, SUFFIX))


@dataclass(frozen=True, slots=True)
class _Tier:
    name: str
    participant: str


@dataclass(slots=True)
class _Annotation:
    tier: _Tier
    line: int
    slots: _Slots | None
    """None for a reference."""
    parent: str | None
    """Id of the annotation referred to."""
    value: str = ""


class _Document:
    """The parts of a document that matter here, as the parser meets them."""

    def __init__(self, path: Path) -> None:
        self.annotations: dict[str, _Annotation] = {}
        self.times: dict[str, str | None] = {}
        self.has_media_offset = False
        self._path = path
        self._depth = 0
        self._tier: _Tier | None = None
        self._current: _Annotation | None = None
        self._value: list[str] | None = None
        self._resolved: dict[str, _Slots | None] = {}
        self._parser = expat.ParserCreate()
        self._parser.buffer_text = True
        self._parser.StartDoctypeDeclHandler = self._doctype
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._text

    def parse(self, data: bytes) -> None:
        try:
            self._parser.Parse(data, True)
        # LookupError, ValueError: an encoding that is unknown or cannot be used.
        except (expat.ExpatError, LookupError, ValueError) as error:
            raise self._fault(f"is not readable as XML ({error}); save it again in ELAN") from error

    def slots(self, annotation: _Annotation) -> _Slots | None:
        """Return the slots of an annotation, or of what it refers to; None if nothing has any."""
        passed: list[str] = []
        here: _Annotation | None = annotation
        found: _Slots | None = None
        while here is not None:
            if here.slots is not None:
                found = here.slots
                break
            parent = here.parent or ""
            if parent in self._resolved:
                found = self._resolved[parent]
                break
            # A circle meets this entry, made before its answer is known.
            self._resolved[parent] = None
            passed.append(parent)
            here = self.annotations.get(parent)
        for name in passed:
            self._resolved[name] = found
        return found

    def _fault(self, what: str) -> BadRecording:
        return BadRecording(f"{self._path}, line {self._parser.CurrentLineNumber}: {what}")

    def _doctype(self, *_: object) -> None:
        raise self._fault("has a DOCTYPE, which no ELAN document has; it is not read")

    def _start(self, name: str, attributes: Mapping[str, str]) -> None:
        self._depth += 1
        if self._depth == 1 and name != _ROOT:
            raise self._fault(f"is <{tidy(name)[:40]}>, no ELAN document (<{_ROOT}>)")
        if self._depth > MAX_DEPTH:
            raise self._fault(f"elements are more than {MAX_DEPTH} deep; it is not read")
        match name:
            case "HEADER":
                units = attributes.get("TIME_UNITS", "milliseconds")
                if units != "milliseconds":
                    raise self._fault(f"times in {tidy(units)[:40]}; only milliseconds are read")
            case "MEDIA_DESCRIPTOR":
                self.has_media_offset |= attributes.get("TIME_ORIGIN", "0").strip("0 ") != ""
            case "TIME_SLOT":
                slot = self._required(attributes, "TIME_SLOT_ID")
                if len(self.times) >= 2 * MAX_SPANS:
                    raise self._fault("too many time slots; cut the file into several")
                self.times[slot] = attributes.get("TIME_VALUE")
            case "TIER":
                self._tier = _Tier(
                    self._required(attributes, "TIER_ID"), attributes.get("PARTICIPANT", "")
                )
            case "ALIGNABLE_ANNOTATION":
                start = self._required(attributes, "TIME_SLOT_REF1")
                end = self._required(attributes, "TIME_SLOT_REF2")
                self._annotation(attributes, (start, end), None)
            case "REF_ANNOTATION":
                self._annotation(attributes, None, self._required(attributes, "ANNOTATION_REF"))
            case "ANNOTATION_VALUE":
                self._value = []

    def _end(self, name: str) -> None:
        self._depth -= 1
        if name == "ANNOTATION_VALUE" and self._current is not None and self._value is not None:
            self._current.value = "".join(self._value)
            self._value = None
        elif name in ("ALIGNABLE_ANNOTATION", "REF_ANNOTATION"):
            self._current = None
        elif name == "TIER":
            self._tier = None

    def _text(self, text: str) -> None:
        if self._value is not None:
            self._value.append(text)

    def _annotation(
        self, attributes: Mapping[str, str], slots: _Slots | None, parent: str | None
    ) -> None:
        name = self._required(attributes, "ANNOTATION_ID")
        if self._tier is None:
            raise self._fault(f"annotation {tidy(name)[:40]!r} stands in no tier")
        if name in self.annotations:
            raise self._fault(f"a second annotation has the id {tidy(name)[:40]!r}")
        if len(self.annotations) >= MAX_SPANS:
            raise self._fault(f"more than {MAX_SPANS:,} annotations; cut the file into several")
        line = self._parser.CurrentLineNumber
        self._current = _Annotation(self._tier, line, slots, parent)
        self.annotations[name] = self._current

    def _required(self, attributes: Mapping[str, str], name: str) -> str:
        if name not in attributes:
            raise self._fault(f"{name} is missing; save it again in ELAN")
        return attributes[name]
