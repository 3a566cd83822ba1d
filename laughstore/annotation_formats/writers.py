"""Spans of time as text in the formats of other tools; the readers beside it read them back.

In: spans of one recording with a label and, maybe, a score. Out: the text of a file. No file is
written here. Times are written as they are, in microseconds; in TextGrids, whose tiers have neither
gaps nor overlaps, spans have to be disjoint and in order.
"""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from laughstore.errors import ConfigError
from laughstore.timebase import US_PER_SECOND

from .rules import well_known
from .spans import tidy

_SPACE = re.compile(r"\s+")
_RTTM_SUBTYPES = {"Laughter": "laugh", "Breath": "breath", "Music": "music"}
_NON_SPEECH = frozenset(["music", "noise"])
"""Subtypes of NON-SPEECH; all others are sounds that a person makes."""


@dataclass(frozen=True, slots=True)
class WrittenSpan:
    """A stretch of time to be written.

    Raises:
        ConfigError: it ends before it starts, or begins before the recording.
    """

    start_us: int
    end_us: int
    label: str
    score: float | None = None
    """From 0 to 1, in formats that have a place for it; None: nothing is said."""
    speaker: str | None = None
    """In formats that have a place for it."""

    def __post_init__(self) -> None:
        if not 0 <= self.start_us <= self.end_us:
            raise ConfigError(
                f"a span from {self.start_us} to {self.end_us} us: it must begin at 0 or later and"
                " end behind its start"
            )


def audacity_text(spans: Sequence[WrittenSpan]) -> str:
    """Return an Audacity label track: a label has the span's name alone, so that it is read back.

    Args:
        spans: of one recording, which the file's name tells.
    """
    return "".join(
        f"{seconds_text(span.start_us)}\t{seconds_text(span.end_us)}\t{tidy(span.label)}\n"
        for span in spans
    )


def table_text(recording: str, spans: Sequence[WrittenSpan]) -> str:
    """Return a CSV with the columns recording, start_s, end_s, label, speaker and score.

    Args:
        recording: its name.
        spans: of it.
    """
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["recording", "start_s", "end_s", "label", "speaker", "score"])
    for span in spans:
        times = seconds_text(span.start_us), seconds_text(span.end_us)
        who = "" if span.speaker is None else tidy(span.speaker)
        writer.writerow([recording, *times, tidy(span.label), who, score_text(span.score)])
    return table.getvalue()


def rttm_text(recording: str, spans: Sequence[WrittenSpan]) -> str:
    """Return RTTM: lines of type NON-LEX, for music and noise NON-SPEECH.

    Args:
        recording: its name; fields stand between spaces, so its own become `_`.
        spans: of it.
    """
    return "".join(_rttm_line(_field(recording), span) for span in spans)


def _rttm_line(recording: str, span: WrittenSpan) -> str:
    subtype = _RTTM_SUBTYPES.get(well_known(span.label), _field(span.label))
    kind = "NON-SPEECH" if subtype in _NON_SPEECH else "NON-LEX"
    length = seconds_text(span.end_us - span.start_us)
    speaker = "<NA>" if span.speaker is None else _field(span.speaker)
    score = score_text(span.score) or "<NA>"
    times = f"{seconds_text(span.start_us)} {length}"
    return f"{kind} {recording} 1 {times} <NA> {subtype} {speaker} {score} <NA>\n"


def textgrid_text(tier: str, spans: Sequence[WrittenSpan], duration_us: int) -> str:
    """Return a TextGrid in its long form, with one tier of intervals from 0 to the end.

    Args:
        tier: its name.
        spans: disjoint and in order; those without length have no place in a tier.
        duration_us: of the recording, above 0; no span ends behind it.

    Raises:
        ConfigError: the spans overlap, or lie outside the recording.
    """
    end = seconds_text(duration_us)
    intervals = list(_intervals([s for s in spans if s.end_us > s.start_us], duration_us))
    lines = [
        'File type = "ooTextFile"',
        'Object class = "TextGrid"',
        "",
        "xmin = 0",
        f"xmax = {end}",
        "tiers? <exists>",
        "size = 1",
        "item []:",
        "    item [1]:",
        '        class = "IntervalTier"',
        f"        name = {_quoted(tier)}",
        "        xmin = 0",
        f"        xmax = {end}",
        f"        intervals: size = {len(intervals)}",
    ]
    for number, (start_us, end_us, label) in enumerate(intervals, start=1):
        lines += [
            f"        intervals [{number}]:",
            f"            xmin = {seconds_text(start_us)}",
            f"            xmax = {seconds_text(end_us)}",
            f"            text = {_quoted(label)}",
        ]
    return "\n".join(lines) + "\n"


def _intervals(spans: Sequence[WrittenSpan], duration_us: int) -> Iterator[tuple[int, int, str]]:
    """Yield (start, end, label) from 0 to the end, those between the spans with an empty label."""
    at = 0
    for span in spans:
        if span.start_us < at or span.end_us > duration_us:
            raise ConfigError(
                f"a span from {seconds_text(span.start_us)} to {seconds_text(span.end_us)} s lies"
                " in another one or outside the recording: a TextGrid's tier has no place for it"
            )
        if span.start_us > at:
            yield at, span.start_us, ""
        yield span.start_us, span.end_us, span.label
        at = span.end_us
    if at < duration_us:
        yield at, duration_us, ""


def seconds_text(time_us: int) -> str:
    """Return a time of 0 or more in seconds, with all its microseconds."""
    return f"{time_us // US_PER_SECOND}.{time_us % US_PER_SECOND:06d}"


def score_text(score: float | np.float32 | None) -> str:
    """Return the shortest decimals that are this f4 number and no other; empty for None."""
    return "" if score is None else str(np.float32(score))


def _quoted(text: str) -> str:
    return '"' + tidy(text).replace('"', '""') + '"'


def _field(text: str) -> str:
    """Return what stands between two spaces of a line: no space in it, and not nothing."""
    return _SPACE.sub("_", tidy(text)) or "_"
