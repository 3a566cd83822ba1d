"""Praat TextGrids, as text: the long and the short form, interval and point tiers.

Praat reads both forms the same way: numbers, strings in double quotes and flags in `<>` are data,
in a fixed order; everything else (`xmin =`, `intervals [1]:`, what follows `!`) is comment. Source:
"TextGrid file formats" in the manual of Praat.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from laughstore.errors import BadRecording

from .numbers import read_number, to_us
from .spans import MAX_SPANS, AnnotationFile, SpanCollector, tidy
from .text import decode, line_number, read_bytes, stem

SUFFIX = ".TextGrid"

# Possessive, so that a quote that is never closed costs one pass and no memory. Words that cannot
# begin a number or a flag are passed over in runs: a long file has three of them for each datum.
_TOKEN = re.compile(
    r'(?P<string>"[^"]*+(?:""[^"]*+)*+")|(?P<open>")|(?P<comment>![^\n]*+)'
    r"|(?P<flag><[a-z]+>)|(?P<words>(?:[^\s\"!<\d.+\-nNiI][^\s\"]*+\s*+)++)|(?P<word>[^\s\"]++)"
)
_NUMBER = re.compile(r"[+-]?(?:[\d.][\d.eE+-]*|nan|inf(?:inity)?)", re.ASCII | re.IGNORECASE)
_MAX_COUNT_DIGITS = 9
MAX_TIERS = 10_000
MAX_INTERVALS = 2 * MAX_SPANS
"""Of a whole file, labelled or not."""


def read_textgrid(path: Path) -> AnnotationFile:
    """Return the spans of a TextGrid; intervals with an empty text are gaps and no spans.

    Raises:
        NotFound: no such file.
        BadRecording: it is no TextGrid in text form; the message names file and line.
    """
    content = read_bytes(path)
    if content.startswith(b"ooBinaryFile"):
        raise BadRecording(
            f"{path}: is a binary TextGrid; open it in Praat and choose Save as text file"
        )
    data = _Data(path, decode(path, content))
    if not data.string().startswith("ooTextFile"):
        raise data.fault("does not begin as a Praat text file; save it in Praat as a text file")
    kind = data.string()
    if kind != "TextGrid":
        raise data.fault(f"holds a {tidy(kind)[:40]!r}, no TextGrid; save each TextGrid by itself")
    data.number()
    data.number()
    spans = SpanCollector(path, "intervals and points")
    if data.flag() == "<exists>":
        num_tiers = data.count()
        if num_tiers > MAX_TIERS:
            raise data.fault(
                f"says that it has {num_tiers:,} tiers; at most {MAX_TIERS:,} are read"
            )
        num_intervals = 0
        for _ in range(num_tiers):
            num_intervals += _read_tier(data, spans, MAX_INTERVALS - num_intervals)
    return spans.finish(stem(path, SUFFIX))


def _read_tier(data: "_Data", spans: SpanCollector, most: int) -> int:
    """Read a tier of at most this many intervals or points. Returns how many it has."""
    kind = data.string()
    if kind not in ("IntervalTier", "TextTier"):
        raise data.fault(f"expected IntervalTier or TextTier, found {tidy(kind)[:40]!r}")
    tier = tidy(data.string())
    data.number()
    data.number()
    num_intervals = data.count()
    if num_intervals > most:
        raise data.fault(f"more than {MAX_INTERVALS:,} intervals; cut the file into several")
    for _ in range(num_intervals):
        start = data.number()
        end = data.number() if kind == "IntervalTier" else start
        line = data.line
        text = data.string()
        if text.strip():
            spans.add(line, to_us(read_number(start)), to_us(read_number(end)), text, tier=tier)
    return num_intervals


class _Data:
    """The numbers, strings and flags of the file, one after the other."""

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._text = text
        self._position = 0
        self._tokens = self._read()

    def _read(self) -> Iterator[tuple[str, str]]:
        for match in _TOKEN.finditer(self._text):
            kind, token = match.lastgroup, match.group()
            if kind == "word":
                kind = "number" if _NUMBER.fullmatch(token) else "comment"
            if kind in ("comment", "words"):
                continue
            self._position = match.start()
            if kind == "open":
                raise self.fault("a double quote is not closed")
            yield kind or "", token

    def line(self) -> int:
        """Return the line of the last token."""
        return line_number(self._text, self._position)

    def fault(self, what: str) -> BadRecording:
        return BadRecording(f"{self._path}, line {self.line()}: {what}")

    def string(self) -> str:
        return self._next("string", "a text in double quotes")[1:-1].replace('""', '"')

    def number(self) -> str:
        return self._next("number", "a number")

    def flag(self) -> str:
        return self._next("flag", "<exists> or <absent>")

    def count(self) -> int:
        token = self.number()
        if not (token.isascii() and token.isdigit() and len(token) <= _MAX_COUNT_DIGITS):
            raise self.fault(f"{token[:40]} is no number of tiers, intervals or points")
        return int(token)

    def _next(self, kind: str, said: str) -> str:
        found, token = next(self._tokens, ("", ""))
        if not found:
            self._position = len(self._text)
            raise self.fault(f"the file ends where {said} is expected; it was cut")
        if found != kind:
            raise self.fault(f"expected {said}, found {tidy(token)[:40]}")
        return token
