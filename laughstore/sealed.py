"""Sealed JSON: a canonical JSON object whose last key is the SHA-256 of all that stands before it.

A flipped bit, a cut file or an edit by hand is found when the file is opened, without writing the
object out again: the seal is a suffix of fixed length.
"""

import hashlib
import json
import math
from collections.abc import Callable
from typing import Any

from .errors import CorruptData, LaughstoreError
from .folders import Folder

_KEY = b',"sha256":"'
_SUFFIX_BYTES = len(_KEY) + 64 + len(b'"}\n')
MAX_BYTES = 32 << 20
"""Of a JSON file; an index of 10,000 recordings takes 5 MB. Parsed JSON may take 20 times it."""


def canonical_json(value: object) -> bytes:
    """Return the one UTF-8 form of a JSON value: sorted keys, no spaces, no NaN."""
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()


def seal(value: dict[str, Any]) -> bytes:  # Any: a JSON object
    """Return the bytes of a sealed JSON file of this object (not empty, no key `sha256`).

    Raises:
        LaughstoreError: it is larger than readers take.
    """
    assert value, "an empty object cannot be sealed"
    assert "sha256" not in value, "the seal adds the key sha256 itself"
    body = canonical_json(value)
    data = body[:-1] + _KEY + hashlib.sha256(body).hexdigest().encode() + b'"}\n'
    if len(data) > MAX_BYTES:
        raise LaughstoreError(
            f"{value.get('format', 'a JSON file')}: {len(data)} bytes, readers take {MAX_BYTES};"
            " nothing was published: put fewer recordings into one store (--split, --recordings)"
        )
    return data


def unseal(data: bytes, *, where: str) -> tuple[dict[str, Any], str]:
    """Return (object, sha256) of a sealed JSON file's bytes.

    Raises:
        CorruptData: the bytes are not what `seal` wrote; the message begins with `where`.
    """
    advice = "the file was altered or cut; restore it"
    suffix = data[-_SUFFIX_BYTES:]
    if len(data) < _SUFFIX_BYTES + 2 or not suffix.startswith(_KEY) or suffix[-3:] != b'"}\n':
        raise CorruptData(f"{where}: no seal at the end; {advice}")
    body = data[:-_SUFFIX_BYTES] + b"}"
    digest = hashlib.sha256(body).hexdigest()
    written = suffix[len(_KEY) : -3].decode("ascii", "replace")
    if digest != written:
        raise CorruptData(f"{where}: sha256 is {digest[:8]}, the seal says {written[:8]}; {advice}")
    return parse_json(body, where=where), digest


def parse_json(data: bytes, *, where: str) -> dict[str, Any]:
    """Return the JSON object in these bytes.

    Raises:
        CorruptData: they are none, a key occurs twice, or it is a bomb: nested too deep, numbers
            too large.
    """
    value = _parsed(data, _DECODER, where)
    if not isinstance(value, dict):
        raise CorruptData(f"{where}: not a JSON object; restore it")
    return value


def parse_json_as(
    data: bytes, convert: Callable[[dict[str, Any]], object], *, where: str
) -> object:
    """Return the value in these bytes, with `convert` of each object in the place of the object.

    Objects are converted as they are met, inner ones first, so that those of a long list never
    exist together.

    Raises:
        CorruptData: as `parse_json`, but for bytes of anything else than an object.
    """
    return _parsed(data, _decoder(lambda pairs: convert(_unique(pairs))), where)


def _parsed(data: bytes, decoder: json.JSONDecoder, where: str) -> object:
    try:
        return decoder.decode(data.decode())
    except (ValueError, RecursionError) as error:
        raise CorruptData(f"{where}: not readable as JSON ({error}); restore it") from error


def read_sealed(folder: Folder, path: str) -> tuple[dict[str, Any], str]:
    """Return (object, sha256) of a sealed JSON file of a store.

    Raises:
        NotFound: there is no such file.
        CorruptData: it was altered or cut, or is too large.
    """
    return unseal(read_small(folder, path), where=folder.describe(path))


def read_small(folder: Folder, path: str) -> bytes:
    """Return a JSON file's bytes, its size checked first.

    Raises:
        NotFound: there is no such file.
        CorruptData: it is too large to be what a store writes.
    """
    num_bytes = folder.size(path)
    if num_bytes > MAX_BYTES:
        raise CorruptData(
            f"{folder.describe(path)}: {num_bytes} bytes, a store's JSON files have at most"
            f" {MAX_BYTES}; do not trust it"
        )
    return folder.read_range(path, 0, num_bytes)  # no more than that, whatever comes


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is larger than any number")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Readers disagree on which of two equal keys counts."""
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key occurs twice in one object")
    return value


def _decoder(hook: Callable[[list[tuple[str, Any]]], object]) -> json.JSONDecoder:
    return json.JSONDecoder(
        parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=hook
    )


_DECODER = _decoder(_unique)
