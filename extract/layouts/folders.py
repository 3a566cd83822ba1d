"""Folders and names in the PodcastFillers layouts: any case, odd letters, hidden files, splits."""

import filecmp
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from laughstore.errors import ConfigError
from laughstore.files import is_passing

AUDIO_FOLDER = "audio"
METADATA_FOLDERS = ("metadata", "meta_data")
SPLIT_ORDER = ("train", "validation", "test")
AUDIO_SUFFIXES = frozenset(
    ".wav .flac .ogg .oga .opus .mp3 .aif .aiff .au .caf .w64 .rf64".split()  # noqa: SIM905
)
SPLIT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
"""Split names become part of shard names, which stand in URLs and patterns."""


def visible(folder: Path) -> list[Path]:
    """Return what is in a folder, sorted, without hidden files (`.DS_Store`, `._x.json`)."""
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be listed ({error.strerror}); check it") from error


def find_folder(folder: Path | None, name: str) -> Path | None:
    """Return the folder of this name in another one, whatever its case.

    Raises:
        ConfigError: there are several.
    """
    if folder is None or not folder.is_dir():
        return None
    found = [e for e in visible(folder) if e.name.lower() == name.lower() and e.is_dir()]
    if len(found) > 1:
        names = " and ".join(entry.name for entry in found)
        raise ConfigError(f"{folder}: holds {names}, which is one folder here; merge them")
    return found[0] if found else None


def metadata_folders(root: Path, kind: str) -> list[Path]:
    """Return the folders of this kind of annotation: in metadata/, in meta_data/, or both."""
    found = (find_folder(find_folder(root, metadata), kind) for metadata in METADATA_FOLDERS)
    return [folder for folder in found if folder is not None]


def split_folders(folder: Path) -> Iterator[Path]:
    """Yield the splits in a folder.

    Raises:
        ConfigError: a folder in it cannot be a split.
    """
    for split in visible(folder):
        if split.is_dir():
            if not SPLIT_NAME.fullmatch(split.name):
                raise ConfigError(
                    f"{split}: {split.name!r} cannot be a split (letters, digits, - and _);"
                    " the layout is <split>/<episode>, rename or move it"
                )
            yield split


def annotation_splits(root: Path, kind: str) -> tuple[list[Path], list[str]]:
    """Return the splits of this kind of annotation, and notes on folders that cannot be splits."""
    splits: list[Path] = []
    notes: list[str] = []
    for folder in metadata_folders(root, kind):
        there = [entry for entry in visible(folder) if entry.is_dir()]
        odd = [entry.name for entry in there if not SPLIT_NAME.fullmatch(entry.name)]
        splits += [entry for entry in there if entry.name not in odd]
        if odd:
            notes.append(
                f"{folder}: passed over {len(odd)} folders that cannot be splits (letters, digits,"
                f" - and _), such as {readable(odd[0])!r}; the layout is <split>/<episode>"
            )
    return splits, notes


def same_file(paths: Sequence[Path]) -> tuple[Path | None, str | None]:
    """Return the file of a recording that was found once, or several times with one content.

    Returns:
        The first file, None where there is none; and why it cannot be told which one is meant, if
        so (one line).
    """
    if not paths:
        return None, None
    first = paths[0]
    for other in paths[1:]:
        try:
            are_same = filecmp.cmp(first, other, shallow=False)
        except OSError as error:
            if is_passing(error):
                if error.filename is None:  # as those of reads have none
                    error.filename = f"{first} or {other}"
                raise
            return None, f"{other}: cannot be read ({error.strerror}); check it"
        if not are_same:
            return None, (
                f"{first} and {other} are of one recording and differ; keep the right one of them"
            )
    return first, None


def readable(file_name: str) -> str:
    """Return a name as text in form NFC; bytes that are no UTF-8 are shown escaped."""
    # Names out of old zip files; `encoding_fault` tells of them.
    text = os.fsencode(file_name).decode("utf-8", "backslashreplace")
    # macOS writes names in form NFD; the same episode must be found under both.
    return unicodedata.normalize("NFC", text)


def encoding_fault(paths: Iterable[Path]) -> str | None:
    """Why names cannot be written down, if one is not UTF-8."""
    for path in paths:
        if readable(str(path)) != unicodedata.normalize("NFC", str(path)):
            return f"{readable(str(path))}: this name is not UTF-8; rename the file or folder"
    return None


def split_rank(split: str) -> tuple[int, str]:
    """Return a sort key: train, validation, test, then others by name."""
    return SPLIT_ORDER.index(split) if split in SPLIT_ORDER else len(SPLIT_ORDER), split


def sound_name(file: Path) -> str | None:
    """Return the name of a sound file without its ending; None for any other file.

    Names hold dots: only the ending of a sound file is no part of them.
    """
    if file.suffix.lower() not in AUDIO_SUFFIXES or not file.is_file():
        return None
    return file.name[: -len(file.suffix)]
