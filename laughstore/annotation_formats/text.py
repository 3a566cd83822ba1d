"""Bytes and text of an annotation file: sizes checked first, encodings told by their marks."""

import codecs
import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from laughstore.errors import BadRecording, NotFound
from laughstore.files import is_passing, named_in_errors

MAX_FILE_BYTES = 32 << 20
"""A TextGrid of all phones of an hour has 5 MB, PodcastFillers.csv 20. Larger ones are not read."""
MAX_LINE_CHARS = 1_000_000
MAX_LINES = 2_000_000


def read_bytes(path: Path) -> bytes:
    """Return the content of a file.

    Raises:
        NotFound: no such file.
        BadRecording: it is no plain file, too large or unreadable.
        OSError: the disk or its server fails.
    """
    try:
        # A pipe or a device would wait for ever.
        if not path.is_file():
            if path.exists():
                raise BadRecording(f"{path}: is no plain file; give an annotation file")
            raise NotFound(f"{path}: no such file; give an annotation file")
        with named_in_errors(path), path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, NotFound) or is_passing(error):
            raise
        raise BadRecording(f"{path}: cannot be read ({error}); check it") from error
    if len(data) > MAX_FILE_BYTES:
        raise BadRecording(
            f"{path}: larger than {MAX_FILE_BYTES >> 20} MiB; cut it into several files"
        )
    return data


def read_text(path: Path) -> str:
    r"""Return the text of a file in UTF-8, or in UTF-16 with its mark, with `\n` line ends.

    Raises:
        NotFound: no such file.
        BadRecording: it is no such text, or as for `read_bytes`.
    """
    return decode(path, read_bytes(path))


def decode(path: Path, data: bytes) -> str:
    """Return a file's content as `read_text` does.

    Raises:
        BadRecording: it is no such text.
    """
    encoding = "utf-8-sig"
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadRecording(
            f"{path}, line {line}: is no {encoding.upper().removesuffix('-SIG')} text"
            f" ({error.reason}); save it as UTF-8"
        ) from error
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    nul = text.find("\0")
    if nul >= 0:
        raise BadRecording(
            f"{path}, line {line_number(text, nul)}: holds a NUL character; it is a binary file,"
            " or UTF-16 without its mark: save it as UTF-8 text"
        )
    return text


def lines(path: Path, text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines of a text with their numbers, counted from 1; no list of all is made.

    Raises:
        BadRecording: a line is longer than any row of a table, or there are too many.
    """
    start = number = 0
    while start <= len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        number += 1
        if end - start > MAX_LINE_CHARS:
            raise BadRecording(f"{path}, line {number}: more than {MAX_LINE_CHARS:,} characters")
        if number > MAX_LINES:
            raise BadRecording(f"{path}: more than {MAX_LINES:,} lines; cut it into several files")
        yield number, text[start:end]
        start = end + 1


def line_number(text: str, position: int) -> int:
    """Return the line of a position, counted from 1."""
    return text.count("\n", 0, position) + 1


def stem(path: Path, suffix: str) -> str:
    """Return a file's name without its ending, in form NFC; names hold dots, so only this one goes.

    Args:
        path: of the file.
        suffix: its ending, in any case, with the dot; empty if it has none.
    """
    # Bytes that are no UTF-8 (old zip files) are shown escaped; such a name matches no recording.
    name = os.fsencode(path.name).decode("utf-8", "backslashreplace")
    if suffix and name.lower().endswith(suffix.lower()):
        name = name[: -len(suffix)]
    return unicodedata.normalize("NFC", name)
