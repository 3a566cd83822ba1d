"""JSON files that anybody may have written: sizes and kinds are checked before values are used.

In: bytes. Out: a `Record`, an object that knows where it stands, so that faults name file (and
line) and key. Values are of the kind asked for or a `BadRecording` is raised; nothing is guessed.
"""

import difflib
import json
import math
import reprlib
import unicodedata
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from laughstore.errors import BadRecording
from laughstore.files import is_passing, named_in_errors
from laughstore.timebase import is_finite_time, microseconds
from laughstore.values import is_text

MAX_JSON_BYTES = 256 << 20
MAX_SECONDS = 10_000_000
"""Larger numbers are no times in a recording (115 days); their microseconds always fit an i64."""
TICK_DIGITS = 7
"""Transcript times are integers in units of 10^-7 s (100 ns)."""
NOTHING = frozenset(["", "nan", "none", "null"])
"""Text, in any case, that tools write where there is no number."""

type Json = Mapping[str, object]


def read_json(path: Path, *, strict: bool = False) -> object:
    """Return the value in a JSON file.

    Args:
        path: of the file.
        strict: refuse NaN and infinity, which pandas writes and JSON does not have.

    Raises:
        BadRecording: it is missing, too large or no JSON, or a key stands twice in an object.
        OSError: the disk or its server fails.
    """
    try:
        num_bytes = path.stat().st_size
        if num_bytes > MAX_JSON_BYTES:
            raise BadRecording(
                f"{path}: {num_bytes >> 20} MiB, JSON files of at most {MAX_JSON_BYTES >> 20}"
                " MiB are read; this is no annotation of one recording"
            )
        if not path.is_file():  # a pipe would wait for ever
            raise BadRecording(f"{path}: is no plain file; give a JSON file")
        with named_in_errors(path):
            data = path.read_bytes()
    except (OSError, ValueError) as error:
        if is_passing(error):
            raise
        raise BadRecording(f"{path}: cannot be read ({error}); check it") from error
    return parse_json(data, where=str(path), strict=strict)


def parse_json(data: bytes, *, where: str, strict: bool = False) -> object:
    """Return the value in these bytes; arguments and errors as of `read_json`."""
    try:
        return (_STRICT if strict else _LENIENT).decode(data.decode("utf-8-sig"))
    # ValueError: broken JSON or UTF-8, an integer of thousands of digits.
    except (ValueError, RecursionError) as error:
        raise BadRecording(f"{where}: not readable as JSON ({error}); write it again") from error


@dataclass(frozen=True, slots=True)
class Record:
    """A JSON object that knows where it stands."""

    data: Json
    where: str
    """File, and line where there are several objects in it."""
    place: str = ""
    """Keys that lead to it."""
    index: int | None = None
    """Where it stands in the list under that place; None when it stands in no list."""

    @classmethod
    def load(cls, path: Path) -> "Record":
        """Return the object in a JSON file. Raises BadRecording when there is none."""
        data = read_json(path)
        if not isinstance(data, dict):
            raise BadRecording(f"{path}: holds no JSON object; write it again")
        return cls(data, str(path))

    def record(self, key: str) -> "Record":
        """Return the object under a key."""
        value = self.value(key)
        if not isinstance(value, dict):
            raise self.fault(key, "is no object")
        return Record(value, self.where, self._name(key))

    def records(self, key: str, *, once: bool = False) -> Iterator["Record"]:
        """Return the objects of the list under a key, as `records_of` does."""
        values = self.value(key)
        if not isinstance(values, list):
            raise self.fault(key, "is no list")
        return records_of(values, self.where, self._name(key), once=once)

    def text(self, key: str, *, required: bool = True) -> str:
        """Return a stripped name; the empty string for null, NaN, "None", "" or an optional gap.

        Its Unicode form is NFC: one speaker is one name, whichever tool wrote it.
        """
        stripped = self.words(key, required=required)
        return "" if stripped == "None" else unicodedata.normalize("NFC", stripped)

    def words(self, key: str, *, required: bool = True) -> str:
        """Return stripped text as it is written, in which "None" is a word; else as `text`."""
        value = self.value(key) if required else self.data.get(key)
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return ""
        if not is_text(value):
            raise self.fault(key, "is no text")
        return value.strip()

    def number(self, key: str, *, required: bool = True) -> int | float | None:
        """Return a finite number; None for null, NaN, infinity, `NOTHING` or an optional gap."""
        value = self.value(key) if required else self.data.get(key)
        if value is None or (isinstance(value, str) and value.strip().lower() in NOTHING):
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.fault(key, "is no number")
        # An integer is finite, however long; asking math.isfinite would overflow.
        return value if isinstance(value, int) or is_finite_time(value) else None

    def fraction(self, key: str, *, default: float) -> float:
        """Return a number from 0 to 1; the default for null, NaN, `NOTHING` or a gap."""
        value = self.number(key, required=False)
        if value is None:
            return default
        if not 0 <= value <= 1:
            raise self.fault(key, "is not between 0 and 1")
        return float(value)

    def time_us(self, key: str, *, required: bool = True) -> int | None:
        """Return seconds as microseconds; None where `number` gives it."""
        seconds = self.number(key, required=required)
        return None if seconds is None else self._checked_us(key, Decimal(str(seconds)))

    def ticks_us(self, key: str) -> int | None:
        """Return transcript ticks (100 ns) as microseconds; None where `number` gives it."""
        ticks = self.number(key)
        return None if ticks is None else self._checked_us(key, Decimal(ticks).scaleb(-TICK_DIGITS))

    def value(self, key: str) -> object:
        """Return what stands under a key that must be there."""
        if key not in self.data:
            raise BadRecording(f"{self.where}: no key {self._name(key)!r}; add it")
        return self.data[key]

    def refuse_unknown(self, known: Collection[str]) -> None:
        """Raise BadRecording when there is a key besides these: a typo would lose what it holds."""
        for key in sorted(self.data.keys() - known):
            close = difflib.get_close_matches(key, known, 1)
            hint = f"; is it {close[0]!r}?" if close else f"; known are {', '.join(sorted(known))}"
            raise BadRecording(f"{self.where}: unknown key {reprlib.repr(self._name(key))}{hint}")

    def fault(self, key: str, what: str) -> BadRecording:
        """Return the error that the value under a key is not as it should be."""
        shown = reprlib.repr(self.data.get(key))
        return BadRecording(f"{self.where}: key {self._name(key)!r} {what} ({shown}); correct it")

    def _checked_us(self, key: str, seconds: Decimal) -> int:
        if abs(seconds) > MAX_SECONDS:
            raise self.fault(key, "is no time in a recording")
        return microseconds(seconds)

    def _name(self, key: str) -> str:
        place = self.place if self.index is None else f"{self.place}[{self.index}]"
        return f"{place}.{key}" if place else key


def records_of(
    values: list[Any],  # JSON values
    where: str,
    place: str,
    *,
    once: bool = False,
) -> Iterator[Record]:
    """Return the objects of a list as records, one by one; all of them are checked at once.

    Args:
        values: the list.
        where: file, and line.
        place: keys that lead to the list.
        once: take each object out of the list, so that thousands of words are not kept both as
            they were read and as what is made of them.

    Raises:
        BadRecording: it holds anything else than objects.
    """
    for value in values:
        if not isinstance(value, dict):
            shown = reprlib.repr(values)
            raise BadRecording(
                f"{where}: key {place!r} holds something else than objects ({shown}); correct it"
            )
    return _each(values, where, place, once)


def _each(values: list[Any], where: str, place: str, once: bool) -> Iterator[Record]:
    for k, value in enumerate(values):
        if once:
            values[k] = None
        yield Record(value, where, place, k)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:  # Any: JSON values
    found = dict(pairs)
    if len(found) != len(pairs):
        seen = set[str]()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"key {reprlib.repr(key)} stands twice in one object")
            seen.add(key)
    return found


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is too large a number")
    return number


_LENIENT = json.JSONDecoder(object_pairs_hook=_unique)
_STRICT = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_finite
)
