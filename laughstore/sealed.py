"""Sealed JSON: a canonical JSON object whose last key is the SHA-256 of all that stands before it.

A flipped bit, a cut file or an edit by hand is found when the file is opened, without writing the
object out again: the seal is a suffix of fixed length.
"""

import hashlib
import json
from typing import Any

from .errors import CorruptData

_KEY = b',"sha256":"'
_SUFFIX_BYTES = len(_KEY) + 64 + len(b'"}\n')


def canonical_json(value: object) -> bytes:
    """Return the one UTF-8 form of a JSON value: sorted keys, no spaces, no NaN."""
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()


def seal(value: dict[str, Any]) -> bytes:  # Any: a JSON object
    """Return the bytes of a sealed JSON file of this object (not empty, no key `sha256`)."""
    assert value, "an empty object cannot be sealed"
    assert "sha256" not in value, "the seal adds the key sha256 itself"
    body = canonical_json(value)
    return body[:-1] + _KEY + hashlib.sha256(body).hexdigest().encode() + b'"}\n'


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
    value = json.loads(body)
    if not isinstance(value, dict):
        raise CorruptData(f"{where}: not a JSON object; {advice}")
    return value, digest
