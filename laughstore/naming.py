"""Names that are safe in paths, tar members, keys and URLs: ids of recordings, speakers, blocks.

Original names hold dots, commas, quotes and spaces; they stay in the annotations and the index and
are what users see. Ids are ASCII `[a-z0-9-]` and short enough for the 100 bytes of a USTAR name.
"""

import hashlib
import re
import unicodedata
from collections.abc import Sequence

MAX_RECORDING_SLUG = 48
MAX_SPEAKER_SLUG = 12
SILENCE = "silence"
"""In names, a role that nobody has."""
MIX = "*"
"""The main "speaker" of a stream that hears everybody mixed: events of all are its events. The mix
is fed in the place of other, and main's place is silence."""


def _slug(name: str, limit: int) -> str:
    """Lower-case ASCII letters, digits and single dashes of a name, cut to `limit`."""
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", ascii_name.lower()).strip("-")[:limit].strip("-")


def _digest(name: str, digits: int) -> str:
    return hashlib.sha256(unicodedata.normalize("NFC", name).encode()).hexdigest()[:digits]


def recording_id(name: str) -> str:
    """Return the id of a recording: its slug (48 at most), `-`, 8 hex digits of its name's SHA-256.

    The hash is of the NFC form, so one name written on macOS (NFD) and Linux (NFC) has one id.
    """
    slug = _slug(name, MAX_RECORDING_SLUG) or "recording"
    return f"{slug}-{_digest(name, 8)}"


def assignment_name(main: str, other: str | None) -> str:
    """Return `<main>--<other>`, each cut to 12 characters; other None is `silence`.

    Speakers whose cut names are equal, or empty, get 4 hex digits of their full name's SHA-256. A
    mix is `silence--mix`.
    """
    if main == MIX:
        return f"{SILENCE}--mix"
    main_slug = _slug(main, MAX_SPEAKER_SLUG)
    other_slug = SILENCE if other is None else _slug(other, MAX_SPEAKER_SLUG)
    if not main_slug or not other_slug or main_slug == other_slug:
        main_slug = f"{_slug(main, 7)}-{_digest(main, 4)}".strip("-")
        if other is not None:
            other_slug = f"{_slug(other, 7)}-{_digest(other, 4)}".strip("-")
    return f"{main_slug}--{other_slug}"


def assignment_names(pairs: Sequence[tuple[str, str | None]]) -> list[str]:
    """Return the names of a recording's assignments, all different.

    Args:
        pairs: main and other of each. Names that are equal once cut are cut to 7 characters each
            and get 8 hex digits of the SHA-256 of both full names, so that keys stay short.
    """
    names = [assignment_name(main, other) for main, other in pairs]
    return [
        name if names.count(name) == 1 else _told_apart(name, f"{main}\0{other}")
        for name, (main, other) in zip(names, pairs, strict=True)
    ]


def _told_apart(name: str, full_names: str) -> str:
    roles = "--".join(slug[:7].strip("-") for slug in name.split("--"))
    return f"{roles}-{_digest(full_names, 8)}"


def block_key(recording: str, assignment: str, block: int) -> str:
    """Return the key of one tar sample: `<recording id>/<assignment>/<block, six digits>`.

    No dot, because webdataset splits a member's name at its first dot.
    """
    return f"{recording}/{assignment}/{block:06d}"


def shard_name(split: str, number: int) -> str:
    """Return a shard's file name in `shards/`: `<split>-<nnnnnn>.tar`."""
    return f"{split}-{number:06d}.tar"


_PATH_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def is_path_part(name: object) -> bool:
    """Tell whether a split, id or assignment may stand in a path: no dot, no slash, no scheme."""
    return isinstance(name, str) and _PATH_PART.fullmatch(name) is not None


_FILE_PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
_STORE_PATH = re.compile(rf"(?!.*\.\.){_FILE_PART}(/{_FILE_PART}){{0,15}}")


def is_store_path(path: object) -> bool:
    """Tell whether this may name a file of a store: relative, plain names, no `..`, no scheme."""
    return isinstance(path, str) and _STORE_PATH.fullmatch(path) is not None
