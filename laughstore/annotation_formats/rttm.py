"""RTTM (NIST Rich Transcription Time Marked): ten fields a line, white space between them.

    type  file  channel  start  duration  text  subtype  name  confidence  lookahead

SPEAKER lines say who speaks: they become segments. NON-LEX lines (subtypes laugh, breath,
lipsmack, cough, sneeze, other) and NON-SPEECH lines (noise, music, other) become events of their
subtype. The other types (words, sentence units, ...) are left out and counted. Times with a
trailing asterisk are placeholders in this format, no times: such lines are dropped. The lookahead
may be missing.
"""

from collections import Counter
from pathlib import Path
from typing import Literal

from laughstore.errors import BadRecording

from .numbers import read_number, to_us, total
from .spans import AnnotationFile, LabelledSpan, SpanCollector, tidy
from .text import lines, read_text, stem

SUFFIX = ".rttm"
EVENT_TYPES = frozenset(["NON-LEX", "NON-SPEECH"])
SEGMENT_TYPE = "SPEAKER"
OTHER_TYPES = frozenset(
    [
        "A/P",
        "CB",
        "EDIT",
        "FILLER",
        "IP",
        "LEXEME",
        "NOSCORE",
        "NO_RT_METADATA",
        "NORTMETADATA",
        "SEGMENT",
        "SPKR-INFO",
        "SU",
    ]
)
_NOTHING = frozenset(["<NA>", "NA"])
_MIN_FIELDS = 8
_MAX_FIELDS = 10


def read_rttm(path: Path) -> AnnotationFile:
    """Return the segments and events of an RTTM file, each with its recording.

    Raises:
        NotFound: no such file.
        BadRecording: a line is of no type of this format; the message names file and line.
    """
    spans = SpanCollector(path, "lines")
    left_out: Counter[str] = Counter()
    for number, line in lines(path, read_text(path)):
        fields = line.split(maxsplit=_MAX_FIELDS)
        if not fields or fields[0].startswith(";;"):
            continue
        kind = fields[0].upper()
        if kind in OTHER_TYPES:
            left_out[kind] += 1
        elif kind == SEGMENT_TYPE or kind in EVENT_TYPES:
            _add_line(spans, number, fields, kind)
        else:
            raise BadRecording(
                f"{path}, line {number}: {tidy(fields[0])[:40]!r} is no type of RTTM (SPEAKER,"
                " NON-LEX, ...); correct it"
            )
    if left_out:
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(left_out.items()))
        spans.note(f"lines of other types left out: {counts}")
    return spans.finish(stem(path, SUFFIX), is_of_one_recording=False)


def _add_line(spans: SpanCollector, number: int, fields: list[str], kind: str) -> None:
    if len(fields) < _MIN_FIELDS:
        spans.drop(number, f"{len(fields)} fields, RTTM has {_MAX_FIELDS}")
        return
    _, recording, _, start_text, length_text, _, subtype, name = fields[:_MIN_FIELDS]
    confidence = fields[_MIN_FIELDS] if len(fields) > _MIN_FIELDS else "<NA>"
    span_kind: Literal["event", "segment"] = "segment" if kind == SEGMENT_TYPE else "event"
    label = subtype if span_kind == "event" and subtype not in _NOTHING else ""
    untimed = LabelledSpan(tidy(recording), 0, 1, label, kind=span_kind)
    if span_kind == "segment" and name in _NOTHING:
        spans.drop(number, "a SPEAKER line without a name", untimed)
        return
    start = read_number(start_text)
    end = total(start, read_number(length_text))
    # Rounding must not turn a length below zero into none.
    if start is not None and end is not None and end < start:
        spans.drop(number, "ends before it starts", untimed)
        return
    spans.add(
        number,
        to_us(start),
        to_us(end),
        label,
        recording=tidy(recording),
        speaker=None if name in _NOTHING else tidy(name),
        confidence=None if confidence in _NOTHING else confidence,
        kind=span_kind,
    )
