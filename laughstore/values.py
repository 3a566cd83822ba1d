"""Take values out of JSON that may be anybody's: each is of the kind it should be, or CorruptData.

Python's own conversions accept too much: True is an int, a string is a sequence of strings.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from .errors import CorruptData
from .naming import is_path_part

MAX_INTEGER = 2**48
"""No count or size in a store comes near it; products of two such numbers do no harm."""
MAX_FRAMES = 2**32
"""Of one recording: ten years."""
_SHOWN = 60
_SURROGATE = re.compile("[\\ud800-\\udfff]")


def mapping(value: object, *, where: str) -> Mapping[str, Any]:  # Any: JSON values
    """Return a JSON object."""
    if not isinstance(value, dict):
        raise CorruptData(f"{where}: expected an object, found {_short(value)}; restore it")
    return value


def listed(value: object, name: str, *, where: str) -> Sequence[Any]:  # Any: JSON values
    """Return a JSON array."""
    if not isinstance(value, list):
        raise CorruptData(f"{where}: {name} is {_short(value)}, not a list; restore it")
    return value


def integer(
    item: Mapping[str, object], name: str, *, where: str, low: int = 0, high: int = MAX_INTEGER
) -> int:
    """Return an integer of a JSON object, `low` to `high`."""
    value = item.get(name)
    if type(value) is not int or not low <= value <= high:
        raise CorruptData(
            f"{where}: {name} is {_short(value)}, not an integer from {low} to {high}; restore it"
        )
    return value


def text(item: Mapping[str, object], name: str, *, where: str) -> str:
    """Return a string of a JSON object."""
    value = item.get(name)
    if not is_text(value):
        raise CorruptData(f"{where}: {name} is {_short(value)}, not a string; restore it")
    return value


def optional_text(item: Mapping[str, object], name: str, *, where: str) -> str | None:
    """Return a string of a JSON object, or None where it is null or missing."""
    return None if item.get(name) is None else text(item, name, where=where)


def texts(value: object, name: str, *, where: str) -> tuple[str, ...]:
    """Return an array of strings."""
    items = listed(value, name, where=where)
    for item in items:
        if not is_text(item):
            raise CorruptData(f"{where}: {name} holds {_short(item)}, not a string; restore it")
    return tuple(items)


def path_part(item: Mapping[str, object], name: str, *, where: str) -> str:
    """Return a string of a JSON object that may be a part of a path: an id, a split."""
    value = item.get(name)
    if not isinstance(value, str) or not is_path_part(value):
        raise CorruptData(
            f"{where}: {name} is {_short(value)}, which must not stand in a path; do not trust"
            " this file"
        )
    return value


def is_text(value: object) -> TypeGuard[str]:
    """Tell a string from all else; half a surrogate pair is a str in Python, text nowhere else."""
    if not isinstance(value, str):
        return False
    return value.isascii() or not _SURROGATE.search(value)


def _short(value: object) -> str:
    shown = repr(value) if isinstance(value, str | int | float | bool) else type(value).__name__
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
