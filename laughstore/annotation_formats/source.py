"""Which files a source is, and what they hold together."""

import logging
import os
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NoReturn

from laughstore.errors import BadRecording, ConfigError, NotFound

from . import audacity, elan, rttm, table, textgrid
from .spans import AnnotationFile, DroppedRow, LabelledSpan

logger = logging.getLogger(__name__)

READERS: Mapping[str, Callable[[Path], AnnotationFile]] = {
    textgrid.SUFFIX.lower(): textgrid.read_textgrid,
    elan.SUFFIX: elan.read_elan,
    audacity.SUFFIX: audacity.read_audacity,
    rttm.SUFFIX: rttm.read_rttm,
} | dict.fromkeys(table.SUFFIXES, table.read_table)
"""Reader of each kind of file, by its ending in lower case."""

MAX_FILES = 100_000
SPOTS_FILE = "laughstore-spots.json"
"""Marks a folder of `laughstore spots`, whose labels are of clips and never read as others."""
_EXPECTED = ".TextGrid, .eaf, .txt (Audacity labels), .csv, .tsv or .rttm"


@dataclass(frozen=True)
class AnnotationSource:
    """Files that were read together."""

    files: tuple[AnnotationFile, ...] = field(repr=False)

    @cached_property
    def by_recording(self) -> Mapping[str, tuple[LabelledSpan, ...]]:
        """The spans of each recording that the source names, in file order.

        A file of one recording without any span counts: it says that there is nothing.

        Raises:
            ConfigError: two files are of one recording.
        """
        found: dict[str, list[LabelledSpan]] = {}
        file_of: dict[str, Path] = {}
        for item in self.files:
            if item.is_of_one_recording:
                first = file_of.setdefault(item.recording, item.path)
                if first != item.path:
                    raise ConfigError(
                        f"{first} and {item.path} are both of recording {item.recording!r};"
                        " give one of them, or a table with a recording column"
                    )
                found.setdefault(item.recording, [])
            for span in item.spans:
                found.setdefault(_name(span, item), []).append(span)
            # A recording of which nothing can be used is one that the source names.
            for row in item.dropped:
                if row.span is not None and (row.span.recording or item.is_of_one_recording):
                    found.setdefault(_name(row.span, item), [])
        return {name: tuple(spans) for name, spans in found.items()}

    @cached_property
    def dropped_by_recording(self) -> Mapping[str, tuple[DroppedRow, ...]]:
        """The rows that cannot be used and are of a recording, or may be, by its name."""
        found: dict[str, list[DroppedRow]] = {}
        for item in self.files:
            if not item.dropped:
                continue
            said = [*item.spans, *(row.span for row in item.dropped if row.span is not None)]
            if item.is_of_one_recording:
                names = [item.recording]
            else:
                names = list(dict.fromkeys(_name(span, item) for span in said if span.recording))
            for row in item.dropped:
                known = row.span is not None and row.span.recording
                for name in [_name(row.span, item)] if row.span and known else names:
                    found.setdefault(name, []).append(row)
        return {name: tuple(rows) for name, rows in found.items()}

    @property
    def spans(self) -> Iterator[LabelledSpan]:
        """Every span, in file order."""
        return (span for item in self.files for span in item.spans)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out and why, one line each."""
        return tuple(note for item in self.files for note in item.notes)


def source_files(paths: Path | Iterable[Path]) -> tuple[Path, ...]:
    """Return the annotation files that some paths mean, sorted within each folder.

    Args:
        paths: files of a known kind, or folders: all files of a known kind in them and below,
            without hidden ones, and without text files that are no label track (README.txt).

    Raises:
        NotFound: a path does not exist.
        ConfigError: a file is of another kind, there is none, or a folder is of `laughstore spots`.
        BadRecording: a folder, or a text file in one, cannot be read.
    """
    given = [paths] if isinstance(paths, Path) else list(paths)
    found: dict[Path, None] = {}
    for path in given:
        if path.is_dir():
            in_folder = list(_files_below(path))
            if not in_folder:
                raise ConfigError(f"{path}: no annotation file in it ({_EXPECTED})")
            found.update(dict.fromkeys(in_folder))
        elif not path.exists():
            raise NotFound(f"{path}: no such file; give annotation files or a folder of them")
        elif _reader(path) is None:
            raise ConfigError(f"{path}: is no annotation file; known are {_EXPECTED}")
        else:
            _refuse_spots(path.absolute().parent)
            found[path] = None
    if not found:
        raise ConfigError(f"no annotation files given; known are {_EXPECTED}")
    return tuple(found)


def read_annotation_file(path: Path) -> AnnotationFile:
    """Return what one annotation file holds; its ending tells the format.

    Raises:
        NotFound: no such file.
        ConfigError: the ending is of no known format.
        BadRecording: the content is not of that format; the message names file and line.
    """
    reader = _reader(path)
    if reader is None:
        raise ConfigError(f"{path}: is no annotation file; known are {_EXPECTED}")
    return reader(path)


def read_annotation_source(paths: Path | Iterable[Path]) -> AnnotationSource:
    """Return what files and folders hold together.

    Raises:
        NotFound: a path does not exist.
        ConfigError: as for `source_files`, or two files are of one recording.
        BadRecording: the content of a file is not of its format.
    """
    source = AnnotationSource(tuple(read_annotation_file(path) for path in source_files(paths)))
    _ = source.by_recording  # finds two files of one recording here, where files are at hand
    return source


def _reader(path: Path) -> Callable[[Path], AnnotationFile] | None:
    return READERS.get(path.suffix.lower())


def _name(span: LabelledSpan, item: AnnotationFile) -> str:
    return unicodedata.normalize("NFC", span.recording or item.recording)


def _is_label_track(path: Path) -> bool:
    found = audacity.is_label_track(path)
    if not found:
        logger.warning("%s: left out, its first line is no Audacity label", path)
    return found


def _refuse(error: OSError) -> NoReturn:
    """What stands in a folder that cannot be read would be taken for nothing."""
    what = error.strerror or error
    raise BadRecording(f"{error.filename}: cannot be read ({what}); check it") from error


def is_spot_folder(folder: Path) -> bool:
    """Tell whether a folder was made by `laughstore spots`; false for one that cannot be read."""
    try:
        return (folder / SPOTS_FILE).is_file()
    except OSError:  # its path is too long, say
        return False


def _refuse_spots(folder: Path) -> None:
    """Times of its labels are those of `spots.wav`, and its table lists what nobody accepted."""
    if is_spot_folder(folder):
        raise ConfigError(
            f"{folder} is a folder of laughstore spots, with labels of its clips; give it alone"
        )


def _files_below(folder: Path) -> Iterator[Path]:
    num_files = 0
    for parent, folders, names in os.walk(folder, onerror=_refuse):
        _refuse_spots(Path(parent))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(parent, name)
            reader = None if name.startswith(".") else _reader(path)
            if reader is None or (reader is audacity.read_audacity and not _is_label_track(path)):
                continue
            num_files += 1
            if num_files > MAX_FILES:
                raise ConfigError(f"{folder}: more than {MAX_FILES:,} annotation files below it")
            yield path
