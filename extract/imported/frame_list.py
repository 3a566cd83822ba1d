"""The list of frames that stands beside features of a whole split: one JSON object a row.

For PodcastFillers it has 13 million objects, more than a gigabyte of text. It is read piece by
piece, and rows that follow each other become runs.
"""

import codecs
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from laughstore.errors import BadRecording
from laughstore.files import is_passing, named_in_errors
from laughstore.values import is_text

_PIECE_BYTES = 1 << 20
_MAX_OBJECT = 64 << 10
"""Characters of the object of one frame; a real one has 120."""
_DECODER = json.JSONDecoder()


@dataclass(frozen=True)
class Run:
    """Rows of one stream of one recording, all of its frames in order."""

    recording: str
    assignment: int
    main: str
    first_row: int
    num_rows: int


def read_frame_list(path: Path) -> list[Run]:
    """Return the runs of a list of frames.

    Raises:
        BadRecording: it is no such list, frames of a run are not counted 0, 1, 2, ..., or a stream
            stands in it twice.
    """
    runs: list[Run] = []
    seen: set[tuple[str, int]] = set()
    key: tuple[str, int, str] | None = None
    first = row = 0
    for row, item in enumerate(_objects(path)):
        name, user, frame, number = (
            item.get(k) for k in ("episode_name", "user_id", "frame_idx", "assignment_idx")
        )
        if type(name) is not str or type(user) is not str or type(number) is not int:
            raise BadRecording(
                f"{path}: row {row} is not of a frame ({str(item)[:80]}); restore it"
            )
        if (name, number, user) != key:
            if not (is_text(name) and is_text(user)):
                raise BadRecording(f"{path}: row {row} names what is no text; restore it")
            if key is not None:
                runs.append(Run(key[0], key[1], key[2], first, row - first))
            if (name, number) in seen:
                raise BadRecording(
                    f"{path}: frames of {name!r}, assignment {number}, stand in two places"
                )
            seen.add((name, number))
            key, first = (name, number, user), row
        if type(frame) is not int or frame != row - first:
            raise BadRecording(
                f"{path}: row {row} is frame {str(frame)[:20]} of {name!r}, and frame {row - first}"
                " comes next: rows are missing or not in order"
            )
    if key is None:
        raise BadRecording(f"{path}: lists no frames; restore it")
    runs.append(Run(key[0], key[1], key[2], first, row + 1 - first))
    return runs


def _objects(path: Path) -> Iterator[dict[str, object]]:
    """Yield the objects of a JSON list, without ever holding more than a piece of it."""
    text = _Text(path)
    if text.next_character() != "[":
        raise BadRecording(f"{path}: is no JSON list of frames; restore it")
    if text.peek() == "]":
        return
    while True:
        yield text.take_object()
        character = text.next_character()
        if character == "]":
            return
        if character != ",":
            raise BadRecording(f"{path}: is cut or broken at {character[:1]!r}; restore it")


class _Text:
    """The text of a file, a piece of which is in memory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pieces = self._read()
        self._text = ""
        self._at = 0

    def peek(self) -> str:
        """Return the next character that is no space, or nothing at the end."""
        while True:
            while self._at < len(self._text):
                if not self._text[self._at].isspace():
                    return self._text[self._at]
                self._at += 1
            if not self._more():
                return ""

    def next_character(self) -> str:
        """Return what `peek` does, and go behind it."""
        character = self.peek()
        self._at += 1
        return character

    def take_object(self) -> dict[str, object]:
        """Return the object that begins here, and go behind it. Raises BadRecording."""
        self.peek()
        while True:
            # Objects of frames are flat: before a brace closes there is nothing to be parsed.
            if self._text.find("}", self._at) >= 0:
                try:
                    value, self._at = _DECODER.raw_decode(self._text, self._at)
                except (ValueError, RecursionError):
                    pass  # a brace in a name, perhaps
                else:
                    if isinstance(value, dict):
                        return value
                    break
            if len(self._text) - self._at > _MAX_OBJECT or not self._more():
                break
        shown = self._text[self._at : self._at + 40]
        raise BadRecording(f"{self._path}: is cut or broken at {shown!r}; restore it")

    def _more(self) -> bool:
        piece = next(self._pieces, "")
        self._text, self._at = self._text[self._at :] + piece, 0
        return bool(piece)

    def _read(self) -> Iterator[str]:
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            with named_in_errors(self._path), self._path.open("rb") as file:
                while data := file.read(_PIECE_BYTES):
                    if piece := decoder.decode(data):
                        yield piece
        except (OSError, UnicodeDecodeError) as error:
            if is_passing(error):
                raise
            raise BadRecording(f"{self._path}: cannot be read ({error}); restore it") from error
