"""Tables (`.csv`, `.tsv`) with a header: one span a row.

Columns are found by name, in any case and order, with spaces, dashes or brackets between words:

    start       start, start_time, onset, begin, begin_time, tmin, event_start_inepisode
    end         end, end_time, stop, stop_time, tmax, event_end_inepisode, offset (beside onset)
    duration    duration, dur: used in rows that have no end
    label       label, event, event_label, class, category, trial_type, label_consolidated_vocab,
                annotation, text
    speaker     speaker, speaker_id, speaker_name, participant
    recording   recording, recording_id, recording_name, podcast_filename, episode, episode_name,
                filename, file_name, file, audio
    confidence  confidence, score, probability: from 0 to 1
    full label  full_label, label_full_vocab

Times are seconds; a name that ends in `_s`, `_sec`, `_seconds`, `_ms` or `_us` says its unit. Where
a table has several names of one row of this list, the first named here counts. The separator is the
one of comma, semicolon and tab that makes the header readable; with a semicolon or tab, `0,5` is a
half. Empty, `NaN`, `None`, `null`, `NA`, `n/a` and `<NA>` stand for nothing; as the name of a
recording an empty cell alone does: a recording may be called so.
"""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from unicodedata import normalize

from laughstore.errors import BadRecording

from .numbers import MICROSECONDS, MILLISECONDS, SECONDS, in_us, read_number, to_us, total
from .spans import AnnotationFile, LabelledSpan, SpanCollector, tidy
from .text import lines, read_text, stem

SUFFIXES = (".csv", ".tsv")
MAX_COLUMNS = 1_000

_TIMES = {
    "start": (
        "start",
        "start_time",
        "onset",
        "begin",
        "begin_time",
        "tmin",
        "event_start_inepisode",
    ),
    "end": ("end", "end_time", "stop", "stop_time", "tmax", "event_end_inepisode", "offset"),
    "duration": ("duration", "dur"),
}
_TEXTS = {
    "label": (
        "label",
        "event",
        "event_label",
        "class",
        "category",
        "trial_type",
        "label_consolidated_vocab",
        "annotation",
        "text",
    ),
    "speaker": ("speaker", "speaker_id", "speaker_name", "participant"),
    "recording": (
        "recording",
        "recording_id",
        "recording_name",
        "podcast_filename",
        "episode",
        "episode_name",
        "filename",
        "file_name",
        "file",
        "audio",
    ),
    "confidence": ("confidence", "score", "probability"),
    "full_label": ("full_label", "label_full_vocab"),
}
_UNITS = {
    "s": SECONDS,
    "sec": SECONDS,
    "seconds": SECONDS,
    "ms": MILLISECONDS,
    "us": MICROSECONDS,
}
_NOTHING = frozenset(["", "nan", "none", "null", "na", "n/a", "<na>"])
_SEPARATORS = ",;\t"


def read_table(path: Path) -> AnnotationFile:
    """Return the spans of a table; without a label column every label is empty.

    Raises:
        NotFound: no such file.
        BadRecording: it is no such table; the message names file and line.
    """
    numbered = lines(path, read_text(path))
    first, header = next(((n, line) for n, line in numbered if line.strip()), (1, ""))
    if not header:
        raise BadRecording(f"{path}: is empty; it needs a header with start, end and label")
    separator, columns = _header(path, header)
    spans = SpanCollector(path)
    rows = csv.reader((line + "\n" for _, line in numbered), delimiter=separator, strict=True)
    try:
        for cells in rows:
            if any(cell.strip() for cell in cells):
                _add_row(spans, first + rows.line_num, cells, columns, comma=separator != ",")
    except csv.Error as error:
        raise BadRecording(
            f"{path}, line {first + rows.line_num}: is no row of a table ({error}); correct it"
        ) from error
    suffix = next((end for end in SUFFIXES if path.name.lower().endswith(end)), "")
    return spans.finish(stem(path, suffix), is_of_one_recording="recording" not in columns.place)


@dataclass(frozen=True, slots=True)
class _Columns:
    num_columns: int
    place: dict[str, int]
    unit: dict[str, int]

    def text(self, cells: Sequence[str], role: str) -> str:
        """Return a cell's text, empty for nothing."""
        if role not in self.place:
            return ""
        text = cells[self.place[role]]
        if role == "recording":
            # It may be called `NA`, and white space within may be meant.
            return normalize("NFC", text.strip())
        text = tidy(text)
        return "" if text.casefold() in _NOTHING else text

    def time(self, cells: Sequence[str], role: str, *, comma: bool) -> Decimal | None:
        """Return a time in microseconds, not yet rounded."""
        number = read_number(cells[self.place[role]], decimal_comma=comma)
        return None if number is None else in_us(number, self.unit[role])


def _add_row(
    spans: SpanCollector, line: int, cells: Sequence[str], columns: _Columns, *, comma: bool
) -> None:
    if len(cells) != columns.num_columns:
        spans.drop(line, f"{len(cells)} cells, the header has {columns.num_columns}")
        return
    recording = columns.text(cells, "recording")
    label, full_label = columns.text(cells, "label"), columns.text(cells, "full_label")
    if "recording" in columns.place and not recording:
        spans.drop(
            line, "names no recording", LabelledSpan(None, 0, 1, label, full_label=full_label)
        )
        return
    start = columns.time(cells, "start", comma=comma)
    if columns.text(cells, "end") or "duration" not in columns.place:
        end = columns.time(cells, "end", comma=comma)
    else:
        end = total(start, columns.time(cells, "duration", comma=comma))
    confidence = columns.text(cells, "confidence") or None
    if confidence and comma:
        confidence = confidence.replace(",", ".")
    spans.add(
        line,
        to_us(start, MICROSECONDS),
        to_us(end, MICROSECONDS),
        label,
        recording=recording or None,
        speaker=columns.text(cells, "speaker") or None,
        confidence=confidence,
        full_label=full_label,
    )


def _header(path: Path, line: str) -> tuple[str, _Columns]:
    """Return the separator and where each column is."""
    for separator in _SEPARATORS:
        try:
            names = next(csv.reader([line], delimiter=separator, strict=True))
        except csv.Error:
            continue
        if len(names) > MAX_COLUMNS:
            break
        columns = _columns(names)
        if "start" in columns.place and ("end" in columns.place or "duration" in columns.place):
            return separator, columns
    raise BadRecording(
        f"{path}, line 1: no header with start and end (or duration), such as"
        f" start_s,end_s,label,speaker,recording; found {tidy(line)[:80]!r}"
    )


def _columns(names: Sequence[str]) -> _Columns:
    plain = [re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") for name in names]
    place: dict[str, int] = {}
    unit: dict[str, int] = {}
    for role, accepted in _TIMES.items():
        for name in accepted:
            forms = {name: SECONDS} | {f"{name}_{end}": places for end, places in _UNITS.items()}
            found = next((form for form in forms if form in plain), None)
            if found is not None:
                place[role], unit[role] = plain.index(found), forms[found]
                break
    # `offset` alone may be a start, a delay or an end: it is an end only beside an onset.
    if "end" in place and plain[place["end"]].startswith("offset"):
        start = place.get("start")
        if start is None or not plain[start].startswith("onset"):
            del place["end"]
    for role, accepted in _TEXTS.items():
        found = next((name for name in accepted if name in plain), None)
        if found is not None:
            place[role] = plain.index(found)
    return _Columns(len(names), place, unit)
