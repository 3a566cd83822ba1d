"""Events in CSV as PodcastFillers is published: one table of all, one for each episode.

Columns are found by name in the first line, in any order and case; of the 17 that are published
these are read:

    podcast_filename                                  which episode; not needed in its own table
    event_start_inepisode, event_end_inepisode        seconds
    label_consolidated_vocab                          class; empty, NaN or None outside the six
    label_full_vocab, confidence, episode_split_subset        where they are there

Names hold commas, quotes and dots. Events without times are dropped and counted; a row that cannot
be read is a fault of its episode, and a table whose rows cannot be told apart one of all of them.
"""

import csv
import unicodedata
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from laughstore.annotation_formats.numbers import read_number, to_us
from laughstore.annotation_formats.text import lines, read_text
from laughstore.annotations import Event
from laughstore.errors import BadRecording
from laughstore.timebase import US_PER_SECOND

from ..json_records import MAX_SECONDS, NOTHING

EPISODE = "podcast_filename"
START = "event_start_inepisode"
END = "event_end_inepisode"
LABEL = "label_consolidated_vocab"
FULL_LABEL = "label_full_vocab"
CONFIDENCE = "confidence"
SPLIT = "episode_split_subset"
MAX_COLUMNS = 1_000
_NO_TIMES = NOTHING | {"inf", "-inf"}


@dataclass
class EpisodeEvents:
    """What a table says of one episode."""

    events: list[Event] = field(default_factory=list)
    """In the table's order, uncleaned; nobody is their speaker."""
    splits: set[str] = field(default_factory=set)
    num_rows: int = 0
    num_dropped: int = 0
    """Events without times."""
    fault: str | None = None
    """The first row that could not be read, if any; one line."""


@dataclass(frozen=True)
class EventTable:
    """The rows of a table, by the name of their episode (form NFC)."""

    path: Path
    episodes: Mapping[str, EpisodeEvents] = field(repr=False)
    num_nameless: int
    """Rows that name no episode."""
    fault: str | None
    """Why rows from some line on could not be told apart: then none is to be believed."""


def read_event_table(
    path: Path, *, episode: str | None = None, only_counted: Container[str] = ()
) -> EventTable:
    """Return the rows of a table.

    Args:
        path: of the table.
        episode: whose own table it is; rows need not name it then, and none may name another.
        only_counted: episodes whose splits are read and rows counted, and no events made of them.

    Raises:
        BadRecording: it is no text, too large, or has no such header.
    """
    numbered = lines(path, read_text(path))
    episodes: dict[str, EpisodeEvents] = {}
    num_nameless, fault = 0, None
    rows = csv.reader((line + "\n" for _, line in numbered), strict=True)
    columns = _header(path, rows, needs_episode=episode is None)
    line = 1  # where the row at hand begins: one with an odd name may go over several
    try:
        while True:
            line = rows.line_num + 1
            cells = next(rows, None)
            if cells is None:
                break
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != columns.num_columns:
                fault = (
                    f"{path}, line {line}: {len(cells)} cells, the header has"
                    f" {columns.num_columns}; correct it, or fetch the table again"
                )
                break
            name = columns.name(cells) if episode is None else columns.name(cells) or episode
            if not name:
                num_nameless += 1
                continue
            found = episodes.setdefault(name, EpisodeEvents())
            try:
                if episode not in (None, name):
                    raise ValueError(f"is of episode {name!r}; the table is of {episode!r}")
                columns.count(cells, found)
                if name not in only_counted:
                    columns.add(cells, found)
            except ValueError as error:
                at = f"{path}, line {line}: {error}; correct it"
                found.fault = found.fault or at
    except csv.Error as error:
        fault = (
            f"{path}, line {line}: is no row of a table ({error}); correct it, or fetch"
            " the table again"
        )
    return EventTable(path, episodes, num_nameless, fault)


@dataclass(frozen=True, slots=True)
class _Columns:
    num_columns: int
    place: Mapping[str, int]

    def name(self, cells: Sequence[str]) -> str:
        """Return the episode's name, whose white space may be meant."""
        place = self.place.get(EPISODE)
        name = "" if place is None else unicodedata.normalize("NFC", cells[place])
        return name if name.strip() else ""

    def count(self, cells: Sequence[str], found: EpisodeEvents) -> None:
        """Count a row and take its split."""
        found.num_rows += 1
        split = self._text(cells, SPLIT)
        if split:
            found.splits.add(split)

    def add(self, cells: Sequence[str], found: EpisodeEvents) -> None:
        """Add the event of a row. Raises ValueError when a cell is not as it should be."""
        start_us, end_us = self._time_us(cells, START), self._time_us(cells, END)
        confidence = self._confidence(cells)
        if start_us is None or end_us is None:
            found.num_dropped += 1
            return
        label, full_label = self._text(cells, LABEL), self._text(cells, FULL_LABEL)
        found.events.append(Event(start_us, end_us, label, full_label, None, confidence))

    def _text(self, cells: Sequence[str], column: str) -> str:
        text = cells[self.place[column]].strip() if column in self.place else ""
        return "" if text.lower() in NOTHING else unicodedata.normalize("NFC", text)

    def _time_us(self, cells: Sequence[str], column: str) -> int | None:
        text = cells[self.place[column]].strip()
        if text.lower() in _NO_TIMES:
            return None
        time_us = to_us(read_number(text))
        if time_us is None:
            raise ValueError(f"{column} is no number ({text[:40]!r})")
        if abs(time_us) > MAX_SECONDS * US_PER_SECOND:
            raise ValueError(f"{column} is no time in a recording ({text[:40]!r})")
        return time_us

    def _confidence(self, cells: Sequence[str]) -> float:
        text = self._text(cells, CONFIDENCE)
        if not text:
            return 1.0
        number = read_number(text)
        if number is None or not 0 <= number <= 1:
            raise ValueError(f"{CONFIDENCE} is not between 0 and 1 ({text[:40]!r})")
        return float(number)


def _header(path: Path, rows: Iterator[list[str]], *, needs_episode: bool) -> _Columns:
    try:
        cells = next(rows, [])
    except csv.Error as error:
        raise BadRecording(f"{path}, line 1: is no header ({error}); fetch it again") from error
    names = [cell.strip().lower() for cell in cells]
    if len(names) > MAX_COLUMNS:
        raise BadRecording(f"{path}, line 1: {len(names)} columns; this is another table")
    needed = [*([EPISODE] if needs_episode else []), START, END, LABEL]
    missing = [name for name in needed if name not in names]
    if missing:
        found = ", ".join(names)[:80] or "nothing"
        raise BadRecording(
            f"{path}, line 1: no column {' nor '.join(missing)} (found {found}); this is another"
            " table, or fetch it again"
        )
    read = (EPISODE, START, END, LABEL, FULL_LABEL, CONFIDENCE, SPLIT)
    twice = [name for name in read if names.count(name) > 1]
    if twice:
        raise BadRecording(f"{path}, line 1: two columns {twice[0]}; leave one of them out")
    return _Columns(len(names), {name: names.index(name) for name in read if name in names})
