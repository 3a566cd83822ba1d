"""Which sound files are meant, and what the predictions of each are called.

Files that are named are taken as they are; of a folder, all below it that have the ending of a
sound file, in the order of their paths. It opens no file.
"""

import hashlib
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Final

from extract.layouts.folders import AUDIO_SUFFIXES

from ...annotation_formats.text import stem
from ...errors import ConfigError, NotFound

MAX_FILES: Final = 100_000
_MAX_NAME_BYTES: Final = 150
"""Of a name; endings, and that of a file which is being written, stand behind it."""
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class FoundAudio:
    """A sound file, and where its predictions go."""

    path: Path
    folder: PurePath
    """Where it stands below the folder that was named; the predictions stand there, too."""
    name: str
    """Of the recording, and of its files but for their endings."""


def find_audio(paths: Sequence[Path], claims: Callable[[str], Iterable[str]]) -> list[FoundAudio]:
    """Return the sound files that are meant, each with a name of its own.

    A file is called as it is, without its ending. Where the files of two would have the same name,
    whatever the case of its letters, both keep their ending, and if that does not tell them apart,
    they get 8 hex digits of their path's SHA-256.

    Args:
        paths: files and folders, in the order in which they are wanted; none counts twice.
        claims: the files (relative to their folder) that are written for a name.

    Raises:
        NotFound: one of the paths does not exist, or a folder holds no sound file.
        ConfigError: a folder cannot be listed, or holds too many.
    """
    found: dict[str, tuple[Path, PurePath]] = {}
    for path in paths:
        for file, folder in _files(path):
            found.setdefault(os.path.abspath(file), (file, folder))  # noqa: PTH100 (links stay)
            if len(found) > MAX_FILES:
                raise ConfigError(f"{path}: more than {MAX_FILES:,} sound files; give fewer")
    items = list(found.values())
    names = _names(items, claims)
    return [
        FoundAudio(file, folder, name) for (file, folder), name in zip(items, names, strict=True)
    ]


def name_of(path: Path) -> str:
    """Return what a recording is called whose sound is in this file."""
    return _short(_plain(stem(path, path.suffix)), path)


def _files(path: Path) -> Iterator[tuple[Path, PurePath]]:
    """Yield the files that a path means, and the folder of each below it."""
    if not path.is_dir():
        if not path.exists():
            raise NotFound(f"{path}: no such file or folder; give a sound file or a folder of some")
        yield path, PurePath()
        return
    num_files = 0
    for parent, folders, files in os.walk(path, onerror=_refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            file = Path(parent, name)
            if not name.startswith(".") and file.suffix.lower() in AUDIO_SUFFIXES:
                num_files += 1
                yield file, Path(parent).relative_to(path)
    if not num_files:
        endings = " ".join(sorted(AUDIO_SUFFIXES))
        raise NotFound(f"{path}: holds no sound file ({endings}); give a folder that does")


def _refuse(error: OSError) -> None:
    raise ConfigError(f"{error.filename}: cannot be listed ({error.strerror}); check it") from error


def _names(
    items: Sequence[tuple[Path, PurePath]], claims: Callable[[str], Iterable[str]]
) -> list[str]:
    forms = (name_of, lambda path: _short(_plain(path.name), path), _told_apart)
    level = [0] * len(items)
    while True:
        names = [forms[k](path) for k, (path, _) in zip(level, items, strict=True)]
        owners: dict[str, set[int]] = {}
        for number, ((_, folder), name) in enumerate(zip(items, names, strict=True)):
            for claim in claims(name):
                owners.setdefault(_fold(folder / claim), set()).add(number)
        clashing = {i for group in owners.values() if len(group) > 1 for i in group}
        raised = [i for i in clashing if level[i] < len(forms) - 1]
        if not raised:
            assert not clashing, "hashes of paths differ"
            return names
        for number in raised:
            level[number] += 1


def _told_apart(path: Path) -> str:
    return f"{_short(_plain(path.name), path)}-{_digest(path)}"


def _plain(name: str) -> str:
    """Return a name in which every character can be written: others are shown escaped, or gone."""
    shown = os.fsencode(name).decode("utf-8", "backslashreplace")
    return _UNPRINTABLE.sub(" ", unicodedata.normalize("NFC", shown)).strip() or "recording"


def _short(name: str, path: Path) -> str:
    data = name.encode()
    if len(data) <= _MAX_NAME_BYTES:
        return name
    return f"{data[:_MAX_NAME_BYTES].decode(errors='ignore')}-{_digest(path)}"


def _digest(path: Path) -> str:
    whole = os.path.abspath(path)  # noqa: PTH100 (links stay)
    return hashlib.sha256(os.fsencode(whole)).hexdigest()[:8]


def _fold(path: PurePath) -> str:
    return unicodedata.normalize("NFC", str(path)).casefold()
