"""Sum up what a label finds: rows, positives and ignored rows of splits, recordings and speakers.

Enters: one `StreamRows` for each stream. Leaves: lines of a table, or a drawing of a stream along
time as plain text, readable without a terminal and without colour.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from .bouts import Times, paint
from .index import Recording, Stream
from .label_counts import LabelCounts
from .timebase import FRAME_US, US_PER_SECOND

By = Literal["recording", "speaker", "group"]

COLUMN_FRAMES: Final = 10
"""Frames that one character of a drawing stands for: 0.8 s."""
LINE_COLUMNS: Final = 75
"""Characters of a line of a drawing: one minute."""
LEGEND: Final = (
    "+ a positive row, . ignored, - negative, blank left out by the filter; above them # an event"
    " that the label asks for, o another one of its class"
)


@dataclass(frozen=True, eq=False)
class StreamRows:
    """The rows of one stream, T, as a label and a filter see them. At most one of three is true."""

    recording: Recording
    stream: Stream
    positive: NDArray[np.bool_]
    """bool[T]: takes part, and its target is above 0."""
    negative: NDArray[np.bool_]
    """bool[T]: takes part, and its target is 0."""
    ignored: NDArray[np.bool_]
    """bool[T]: the filter lets it pass, the label ignores it."""

    @property
    def counts(self) -> LabelCounts:
        """Rows that the filter lets pass, and how many of them are positive or ignored."""
        positives, negatives, ignored = (
            int(np.count_nonzero(rows)) for rows in (self.positive, self.negative, self.ignored)
        )
        return LabelCounts(positives + negatives + ignored, positives, ignored)


@dataclass(frozen=True)
class LabelLine:
    """One line of a table: streams that belong together."""

    split: str
    name: str
    """For people: a split, a recording as in the data set, a group; `SPEAKER of RECORDING`."""
    num_recordings: int
    num_streams: int
    counts: LabelCounts

    @property
    def hours(self) -> float:
        """Hours of rows; both streams of a recording count."""
        return self.counts.rows * FRAME_US / US_PER_SECOND / 3600

    def to_json(self) -> dict[str, Any]:  # Any: JSON values
        """Return a JSON object."""
        return {
            "split": self.split,
            "name": self.name,
            "recordings": self.num_recordings,
            "streams": self.num_streams,
            "hours": round(self.hours, 6),
            "rows": self.counts.rows,
            "positives": self.counts.positives,
            "negatives": self.counts.negatives,
            "ignored": self.counts.ignored,
            "base_rate": self.counts.base_rate,
        }


class LabelTally:
    """Adds up streams as they come, so that their rows need not be kept.

    Args:
        by: what a line of the second table is; None for no second table.
    """

    def __init__(self, by: By | None = None) -> None:
        self._key = None if by is None else _KEYS[by]
        self._splits: dict[Hashable, _Sum] = {}
        self._items: dict[Hashable, _Sum] = {}

    def begin(self, split: str) -> None:
        """Count a split that may have no streams."""
        self._splits.setdefault(split, _Sum(split, split))

    def add(self, rows: StreamRows) -> None:
        """Count one stream."""
        split = rows.recording.split
        counts = rows.counts
        self._splits.setdefault(split, _Sum(split, split)).add(rows.recording, counts)
        if self._key is not None:
            key, name = self._key(rows)
            self._items.setdefault((split, key), _Sum(split, name)).add(rows.recording, counts)

    @property
    def splits(self) -> tuple[LabelLine, ...]:
        """One line for each split, in the order in which they came."""
        return tuple(item.line() for item in self._splits.values())

    @property
    def items(self) -> tuple[LabelLine, ...]:
        """One line for each recording, speaker or group of a split."""
        return tuple(item.line() for item in self._items.values())


class _Sum:
    def __init__(self, split: str, name: str) -> None:
        self._split, self._name = split, name
        self._recordings: set[str] = set()
        self._num_streams = 0
        self._counts = LabelCounts()

    def add(self, recording: Recording, counts: LabelCounts) -> None:
        self._recordings.add(recording.id)
        self._num_streams += 1
        self._counts += counts

    def line(self) -> LabelLine:
        return LabelLine(
            self._split, self._name, len(self._recordings), self._num_streams, self._counts
        )


def _by_speaker(rows: StreamRows) -> tuple[Hashable, str]:
    # Names such as SPEAKER_00 mean somebody else in each recording.
    main = rows.stream.main
    return (rows.recording.id, main), f"{main} of {rows.recording.name}"


_KEYS: Final[dict[By, Callable[[StreamRows], tuple[Hashable, str]]]] = {
    "recording": lambda rows: (rows.recording.id, rows.recording.name),
    "group": lambda rows: (rows.recording.group, rows.recording.group),
    "speaker": _by_speaker,
}


def draw(rows: StreamRows, *, asked: Times, of_class: Times) -> list[str]:
    """Return a stream along time, a minute a line; see `LEGEND` for the characters.

    A character stands for 10 frames (0.8 s), and shows the rarest kind of row among them: positive
    before ignored before negative. Above a line with events stands a line of them.

    Args:
        rows: of the stream.
        asked: stretches of the events that the label asks for, in microseconds.
        of_class: stretches of all events of its class.
    """
    num_frames = rows.stream.num_frames
    marks = _columns([(rows.positive, "+"), (rows.ignored, "."), (rows.negative, "-")])
    events = _columns(
        [
            (paint(num_frames, asked.frames()), "#"),
            (paint(num_frames, of_class.frames()), "o"),
        ]
    )
    lines: list[str] = []
    for minute, start in enumerate(range(0, len(marks), LINE_COLUMNS)):
        part = slice(start, start + LINE_COLUMNS)
        above = "".join(events[part]).rstrip()
        if above:
            lines.append(f"    {above}")
        lines.append(f"{minute:>3} {''.join(marks[part])}".rstrip())
    return lines


def ranges(rows: NDArray[np.bool_]) -> list[list[int]]:
    """Return the runs of true rows of bool[T] as [first, stop) pairs, rising."""
    steps = np.diff(np.concatenate([[0], rows.astype(np.int8), [0]]))
    firsts, stops = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
    return [list(pair) for pair in zip(firsts.tolist(), stops.tolist(), strict=True)]


def _columns(layers: Sequence[tuple[NDArray[np.bool_], str]]) -> list[str]:
    """One character for every COLUMN_FRAMES frames: of the first layer with a true frame there."""
    num_frames = len(layers[0][0])
    num_columns = -(-num_frames // COLUMN_FRAMES)
    characters = np.full(num_columns, " ")
    for frames, character in reversed(layers):
        padded = np.zeros(num_columns * COLUMN_FRAMES, np.bool_)
        padded[:num_frames] = frames
        characters[padded.reshape(num_columns, COLUMN_FRAMES).any(axis=1)] = character
    return characters.tolist()
