"""What every reader gives back: labelled spans of time, and what could not be used.

A reader hands its rows to a `SpanCollector`, the one place that decides which rows are usable.
"""

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from laughstore.errors import BadRecording

from .numbers import MAX_US, read_number

MAX_SPANS = 500_000
"""Rows of one file, used or not; the whole of PodcastFillers has 86 thousand."""
MAX_LABEL_CHARS = 1_000
_SHOWN_FAULTS = 3

type Line = int | Callable[[], int]
"""A line number counted from 1, or how to find it (counting lines is done for few faults only)."""


@dataclass(frozen=True, slots=True)
class LabelledSpan:
    """A stretch of time that somebody labelled."""

    recording: str | None
    """Name of the recording in the file; None when the file's own name tells it."""
    start_us: int
    end_us: int
    """At least `start_us`; equal for a point."""
    label: str
    """As written, white space collapsed, in Unicode form NFC; may be empty."""
    speaker: str | None = None
    """Who the file says it was; None when it does not say."""
    tier: str | None = None
    """Name of the tier, in formats with tiers."""
    confidence: float = 1.0
    """From 0 to 1."""
    full_label: str = ""
    """Class in a full vocabulary, in files with two (PodcastFillers.csv)."""
    kind: Literal["event", "segment"] = "event"
    """`segment`: `speaker` speaks here (RTTM SPEAKER lines); it has no label."""


@dataclass(frozen=True, slots=True)
class DroppedRow:
    """A row that cannot be used."""

    path: Path
    line: int | None
    """Counted from 1; None when it was not counted."""
    reason: str
    span: LabelledSpan | None
    """What it says, with times that mean nothing; None when not even that can be told."""

    def __str__(self) -> str:
        return self.reason if self.line is None else f"line {self.line}: {self.reason}"


@dataclass(frozen=True)
class AnnotationFile:
    """What one file holds."""

    path: Path
    recording: str
    """The file's name without its ending: the recording of spans that name none."""
    spans: tuple[LabelledSpan, ...] = field(repr=False)
    """In file order."""
    notes: tuple[str, ...] = ()
    """What was left out and why, one line each."""
    is_of_one_recording: bool = True
    """False: each span names its recording."""
    dropped: tuple[DroppedRow, ...] = field(default=(), repr=False)
    """Rows that cannot be used, in file order."""


class SpanCollector:
    """Takes the rows of one file, keeps the usable ones, counts the others."""

    def __init__(self, path: Path, rows: str = "rows") -> None:
        self.path = path
        self._rows = rows
        self._spans: list[LabelledSpan] = []
        self._dropped: list[DroppedRow] = []
        self._notes: list[str] = []

    def add(
        self,
        line: Line,
        start_us: int | None,
        end_us: int | None,
        label: str,
        *,
        recording: str | None = None,
        speaker: str | None = None,
        tier: str | None = None,
        confidence: str | None = None,
        full_label: str = "",
        kind: Literal["event", "segment"] = "event",
    ) -> None:
        """Keep a row, or drop it with the reason.

        Args:
            line: where it stands.
            start_us: None when it is no finite number; so for `end_us`.
            end_us: as above.
            label: any text.
            recording: its name, if the file tells it.
            speaker: likewise.
            tier: likewise.
            confidence: text of a number from 0 to 1; None for 1.
            full_label: likewise.
            kind: see `LabelledSpan`.
        """
        certainty = None if confidence is None else read_number(confidence)
        label = tidy(label)
        reason = _fault_of(start_us, end_us, label)
        is_certain = confidence is None or (certainty is not None and 0 <= certainty <= 1)
        if reason is None and not is_certain:
            reason = "confidence is no number from 0 to 1"
        span = LabelledSpan(
            recording=recording,
            start_us=start_us if reason is None and start_us is not None else 0,
            end_us=end_us if reason is None and end_us is not None else 1,
            label=label[:MAX_LABEL_CHARS],
            speaker=speaker,
            tier=tier,
            confidence=1.0 if certainty is None else float(certainty),
            full_label=full_label,
            kind=kind,
        )
        if reason is None:
            self._count()
            self._spans.append(span)
        else:
            self.drop(line, reason, span)

    def drop(self, line: Line, reason: str, span: LabelledSpan | None = None) -> None:
        """Leave a row out that cannot be used.

        Args:
            line: where it stands.
            reason: what is wrong with it.
            span: what it says all the same; its times are not looked at.
        """
        self._count()
        if not isinstance(line, int):
            line = line() if len(self._dropped) < _SHOWN_FAULTS else 0
        self._dropped.append(DroppedRow(self.path, line or None, reason, span))

    def _count(self) -> None:
        if len(self._spans) + len(self._dropped) >= MAX_SPANS:
            raise BadRecording(
                f"{self.path}: more than {MAX_SPANS:,} {self._rows}; cut the file into several"
            )

    def note(self, text: str) -> None:
        """Tell something about the file."""
        self._notes.append(f"{self.path.name}: {text}")

    def finish(self, recording: str, *, is_of_one_recording: bool = True) -> AnnotationFile:
        """Return what was kept.

        Raises:
            BadRecording: there were rows and none could be used: the file is not what it seems.
        """
        num_dropped = len(self._dropped)
        if num_dropped and not self._spans:
            raise BadRecording(
                f"{self.path}: none of its {num_dropped} {self._rows} can be used"
                f" ({show_faults(self._dropped)})"
            )
        if num_dropped:
            num_rows = len(self._spans) + num_dropped
            faults = show_faults(self._dropped)
            self.note(f"{num_dropped} of {num_rows} {self._rows} dropped ({faults})")
        return AnnotationFile(
            self.path,
            recording,
            tuple(self._spans),
            tuple(self._notes),
            is_of_one_recording,
            tuple(self._dropped),
        )


def show_faults(rows: Sequence[DroppedRow]) -> str:
    """Return what is wrong with the first of some rows, on one line."""
    shown = "; ".join(map(str, rows[:_SHOWN_FAULTS]))
    return f"{shown}; ..." if len(rows) > _SHOWN_FAULTS else shown


def _fault_of(start_us: int | None, end_us: int | None, label: str) -> str | None:
    if start_us is None or end_us is None:
        return "a time is no finite number of seconds"
    if start_us < 0:
        return "starts before 0"
    if end_us < start_us:
        return "ends before it starts"
    if end_us > MAX_US:
        return "a time is longer than any recording"
    if len(label) > MAX_LABEL_CHARS:
        return f"label longer than {MAX_LABEL_CHARS:,} characters"
    return None


def tidy(text: str) -> str:
    """Return text in form NFC on one line: white space collapsed, control characters left out."""
    # Most labels are plain words: these need no look at each character.
    if text.isascii() and text.isalnum():
        return text
    joined = " ".join(unicodedata.normalize("NFC", text).split())
    return "".join(char for char in joined if unicodedata.category(char) != "Cc")
