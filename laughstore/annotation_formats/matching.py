"""Names in annotation files to recordings of a store."""

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from laughstore.errors import ConfigError

_AUDIO_SUFFIX = re.compile(r"\.(?:wav|flac|ogg|oga|opus|mp3|m4a|aac|aiff?|au|caf|w64|rf64)")


@dataclass(frozen=True)
class Matches:
    """Which recording each name of a source means."""

    recording_ids: Mapping[str, str]
    """Id of the recording, by the name in the source."""
    unmatched: tuple[str, ...]
    """Names that mean no recording, in the source's order."""


def match_recordings(
    names_in_source: Iterable[str], recordings: Sequence[tuple[str, str]]
) -> Matches:
    """Return which recording each name means.

    The first of these that finds one counts: the recording's name (in any Unicode form); its id;
    its name or id in any case, without folders and without the ending of an audio file.

    Args:
        names_in_source: as the files have them.
        recordings: id and original name of each.

    Raises:
        ConfigError: a name means several recordings, or several names mean one.
    """
    forms: list[Callable[[str], str]] = [_nfc, _nfc, _loose]
    fields: list[tuple[int, ...]] = [(1,), (0,), (0, 1)]
    tables: list[dict[str, dict[str, str]]] = []
    for form, places in zip(forms, fields, strict=True):
        table: dict[str, dict[str, str]] = {}
        for recording in recordings:
            for place in places:
                table.setdefault(form(recording[place]), {})[recording[0]] = recording[1]
        tables.append(table)
    matched: dict[str, str] = {}
    unmatched: list[str] = []
    name_of: dict[str, str] = {}
    for name in dict.fromkeys(names_in_source):
        candidates = next(
            (
                table[form(name)]
                for form, table in zip(forms, tables, strict=True)
                if form(name) in table
            ),
            {},
        )
        if not candidates:
            unmatched.append(name)
            continue
        if len(candidates) > 1:
            both = " or ".join(repr(found) for found in list(candidates.values())[:3])
            raise ConfigError(f"{name!r} may mean {both}; write the name as the store has it")
        (recording_id,) = candidates
        first = name_of.setdefault(recording_id, name)
        if first != name:
            raise ConfigError(
                f"{first!r} and {name!r} both mean recording {candidates[recording_id]!r}; give"
                " one of them"
            )
        matched[name] = recording_id
    return Matches(matched, tuple(unmatched))


def _nfc(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _loose(name: str) -> str:
    last = re.split(r"[/\\]", _nfc(name).casefold().rstrip("/\\"))[-1]
    dot = last.rfind(".")
    # Names hold dots: only an audio file's ending is no part of them.
    return last[:dot] if dot > 0 and _AUDIO_SUFFIX.fullmatch(last, dot) else last
