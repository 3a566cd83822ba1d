"""Features as the earlier scripts laid them out: whose they are, and where their rows stand.

    <split>/<episode>.pt                                    [2, T, D] and what it says of itself
    <split>/<episode>/features_assignment_<K>.npy           [T, D], metadata_shift_<S>.json beside
    <split>_features.npy                                    [N, D], <split>_metadata.json beside
    <split>/features.npy                                    [N, D], metadata.json: a row a frame
    [<split>/]<recording>.pt or .npy                        [T, D] or [A, T, D] and nothing else

Labels that stand beside them are passed over: labels are made at read time. What is odd about one
recording becomes its `problem`; it is told and left out.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from laughstore.errors import BadRecording, ConfigError, NotFound
from laughstore.values import is_text

from ..json_records import Record
from ..layouts.folders import SPLIT_NAME, readable, visible
from .files import SUFFIXES, FeatureFile, open_feature_file
from .frame_list import read_frame_list

_OF_ASSIGNMENT = re.compile(r"features_assignment_(\d{1,4})\.npy")
_OF_SHIFT = re.compile(r"metadata_shift_(-?\d{1,6})\.json")
_OF_SPLIT = re.compile(r"([A-Za-z0-9][A-Za-z0-9_-]*)_features\.npy")
_LABELS = re.compile(r"labels(_assignment_.*)?\.npy|[A-Za-z0-9][A-Za-z0-9_-]*_labels\.npy")
_LISTED, _LIST = "features.npy", "metadata.json"
_MAIN = ("user", "user_id", "user_speaker_id")
_OTHER = ("system", "system_id", "system_speaker_id")
_OTHERS = "system_speaker_ids"
_MISPLACED = "holds features, and is not the folder of"
_MASKED = (
    "laughter was silenced in its audio before extraction: rows that have heard an onset can tell"
    " where the silence is"
)


@dataclass(frozen=True)
class FoundStream:
    """Rows of one stream."""

    path: Path
    index: int
    """Which of the arrays in the file."""
    first_row: int
    num_rows: int
    dim: int
    main: str | None = None
    """None: nobody says who is main, or other."""
    other: str | None = None
    """None where main is known: silence."""
    listed_main: str | None = None
    """Who is main by a list that does not tell who is other."""


@dataclass(frozen=True, kw_only=True)
class FoundFeatures:
    """Features of one recording."""

    name: str
    """As the scripts had it, in Unicode form NFC; of files that do not say, the file's."""
    split: str | None
    streams: tuple[FoundStream, ...] = ()
    duration_us: int | None = None
    """Of the audio, as the scripts wrote it down."""
    notes: tuple[str, ...] = ()
    problem: str | None = None
    """Why it cannot be imported, if so; one line."""


def find_features(folder: Path) -> list[FoundFeatures]:
    """Return the features in a folder, in the order of their files.

    Raises:
        NotFound: no such folder.
        ConfigError: there are no features in it.
    """
    if folder.is_file():
        raise ConfigError(f"{folder}: is a file; give the folder that holds it")
    if not folder.is_dir():
        raise NotFound(f"{folder}: no such folder; give the folder that holds the features")
    found = list(_scan(folder, None))
    if all(_MISPLACED in (item.problem or "") for item in found):  # or there are none
        for inner in visible(folder):
            if inner.is_dir() and any(item.streams for item in _scan(inner, None)):
                raise ConfigError(f"{folder}: no features here, but in {inner.name}/; give {inner}")
    if found:
        return found
    if any(_OF_ASSIGNMENT.fullmatch(item.name) for item in visible(folder)):
        raise ConfigError(
            f"{folder}: holds features of one episode; give the folder above its split,"
            f" {folder.absolute().parent.parent}"
        )
    names = [item.name for item in visible(folder)]
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "") if names else "nothing"
    raise ConfigError(
        f"{folder}: no features; expected <split>/<episode>.pt,"
        f" <split>/<episode>/features_assignment_0.npy or <split>_features.npy, found {shown}"
    )


def _scan(folder: Path, split: str | None) -> Iterator[FoundFeatures]:
    """Yield the features in a folder: of a split, or of all if that is None."""
    for entry in visible(folder):
        if entry.is_dir():
            inner = visible(entry)
            if any(_OF_ASSIGNMENT.fullmatch(item.name) for item in inner):
                yield _checked(entry.name, split, partial(_episode_folder, entry, split))
            elif split is None and SPLIT_NAME.fullmatch(entry.name):
                yield from _scan(entry, entry.name)
            elif any(_may_be_features(item) for item in inner):
                what = "a split (letters, digits, - and _)" if split is None else "an episode"
                yield FoundFeatures(
                    name=readable(entry.name),
                    split=split,
                    problem=f"{entry}: {_MISPLACED} {what}; move them",
                )
            continue
        if not _may_be_features(entry):
            continue
        of_split = _OF_SPLIT.fullmatch(entry.name)
        if split is None and of_split and (beside := _beside(entry, of_split[1])).is_file():
            yield from _whole_split(entry, beside, of_split[1])
        elif entry.name == _LISTED and (beside := entry.with_name(_LIST)).is_file():
            yield from _listed(entry, beside, split)
        elif not _OF_ASSIGNMENT.fullmatch(entry.name):
            yield _checked(entry.stem, split, partial(_file, entry, split))


def _may_be_features(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not _LABELS.fullmatch(path.name)


def _beside(path: Path, split: str) -> Path:
    return path.with_name(f"{split}_metadata.json")


def _checked(name: str, split: str | None, look: Callable[[], FoundFeatures]) -> FoundFeatures:
    """Return what is found, or a recording of this name with the problem."""
    try:
        return look()
    except BadRecording as error:
        return FoundFeatures(name=readable(name), split=split, problem=str(error))


def _file(path: Path, split: str | None) -> FoundFeatures:
    """A recording in a file of its own; a .pt may say whose."""
    file = open_feature_file(path)
    streams = tuple(
        FoundStream(path, i, 0, file.num_rows, file.dim) for i in range(file.num_streams)
    )
    if file.metadata is None:
        return FoundFeatures(name=readable(path.stem), split=split, streams=streams)
    about = Record(file.metadata, str(path))
    _check_frames(about, file)
    roles = [_roles(item) for item in about.records("assignments")]
    if len(roles) != len(streams):
        raise BadRecording(
            f"{path}: {len(streams)} streams and {len(roles)} assignments; extract it again"
        )
    return FoundFeatures(
        name=readable(about.words("episode_name", required=False) or path.stem),
        split=_split_of(about, split),
        streams=tuple(
            replace(stream, main=main, other=other)
            for stream, (main, other) in zip(streams, roles, strict=True)
        ),
        duration_us=about.time_us("duration_seconds", required=False),
    )


def _episode_folder(folder: Path, split: str | None) -> FoundFeatures:
    """A recording in a folder: one file a stream, and a JSON file a label shift."""
    entries = visible(folder)
    paths = {int(m[1]): e for e in entries if (m := _OF_ASSIGNMENT.fullmatch(e.name))}
    about_files = sorted(
        (int(m[1]), e) for e in entries if (m := _OF_SHIFT.fullmatch(e.name)) is not None
    )
    if sorted(paths) != list(range(len(paths))):
        raise BadRecording(
            f"{folder}: features of assignments {', '.join(map(str, sorted(paths)))}; one of those"
            " before is missing"
        )
    files = [open_feature_file(paths[number]) for number in sorted(paths)]
    streams: list[FoundStream] = []
    for file in files:
        if file.num_streams != 1:
            raise BadRecording(f"{file.path}: holds {file.num_streams} streams, not one")
        streams.append(FoundStream(file.path, 0, 0, file.num_rows, file.dim))
    if not about_files:
        return FoundFeatures(name=readable(folder.name), split=split, streams=tuple(streams))
    about = Record.load(about_files[0][1])
    _check_frames(about, files[0])
    roles = {item.number("assignment_idx"): _roles(item) for item in about.records("assignments")}
    # The script listed them only where there was an event. Those without are as the data set says.
    if roles:
        if sorted(map(str, roles)) != sorted(map(str, paths)):
            raise BadRecording(
                f"{about.where}: lists {len(roles)} assignments, and there are features of"
                f" {len(paths)}; extract this recording again"
            )
        streams = [
            replace(stream, main=roles[i][0], other=roles[i][1]) for i, stream in enumerate(streams)
        ]
    return FoundFeatures(
        name=readable(about.words("episode_name", required=False) or folder.name),
        split=_split_of(about, split),
        streams=tuple(streams),
        duration_us=about.time_us("duration_seconds", required=False),
        notes=(_MASKED,) if about.data.get("mask_laughter") is True else (),
    )


def _whole_split(path: Path, beside: Path, split: str) -> Iterator[FoundFeatures]:
    """Recordings of a split behind each other, with a list of them."""
    try:
        file = open_feature_file(path)
        about = Record.load(beside)
        items = list(about.records("episodes"))
        entries = [(readable(item.words("episode_name")), item) for item in items]
    except BadRecording as error:
        yield FoundFeatures(name=readable(path.name), split=split, problem=str(error))
        return
    for name in dict.fromkeys(name for name, _ in entries):
        of_it = [item for entry, item in entries if entry == name]
        yield _checked(name, split, partial(_of_whole_split, name, split, file, of_it))


def _of_whole_split(name: str, split: str, file: FeatureFile, items: list[Record]) -> FoundFeatures:
    streams: dict[int, FoundStream] = {}
    for item in items:
        number, first, stop = (
            _count(item, key) for key in ("assignment_idx", "start_frame", "end_frame")
        )
        if not first < stop <= file.num_rows or number in streams:
            raise BadRecording(
                f"{item.where}: rows {first} to {stop} of {name!r}, assignment {number}, are not"
                f" in {file.path.name} ({file.num_rows} rows), or listed twice"
            )
        main, other = _roles(item)
        streams[number] = FoundStream(file.path, 0, first, stop - first, file.dim, main, other)
    return FoundFeatures(name=name, split=split, streams=tuple(streams[k] for k in sorted(streams)))


def _listed(path: Path, beside: Path, split: str | None) -> Iterator[FoundFeatures]:
    """Recordings of a split behind each other, with a list of all frames."""
    try:
        file = open_feature_file(path)
        runs = read_frame_list(beside)
        num_rows = runs[-1].first_row + runs[-1].num_rows
        if num_rows != file.num_rows:
            raise BadRecording(
                f"{path}: has {file.num_rows} rows, {beside.name} lists {num_rows}: they do not"
                " belong together"
            )
    except BadRecording as error:
        yield FoundFeatures(name=readable(path.name), split=split, problem=str(error))
        return
    for name in dict.fromkeys(run.recording for run in runs):
        own = sorted((run for run in runs if run.recording == name), key=lambda run: run.assignment)
        mains = [readable(run.main) for run in own]
        # The list tells who is main. Each of two is the other's other.
        others = mains[::-1] if len(set(mains)) == len(mains) == 2 else None
        streams = [
            FoundStream(path, 0, run.first_row, run.num_rows, file.dim, listed_main=main)
            for run, main in zip(own, mains, strict=True)
        ]
        if others is not None:
            streams = [
                replace(s, main=s.listed_main, other=o)
                for s, o in zip(streams, others, strict=True)
            ]
        yield FoundFeatures(name=readable(name), split=split, streams=tuple(streams))


def _roles(item: Record) -> tuple[str, str | None]:
    """Return main and other of an assignment; the scripts called them user and system."""
    key = next((key for key in _MAIN if key in item.data), _MAIN[0])
    main = item.text(key)
    if not main:
        raise item.fault(key, "names nobody")
    if _OTHERS in item.data:
        others = item.value(_OTHERS)
        if not isinstance(others, list) or not all(map(is_text, others)):
            raise item.fault(_OTHERS, "is no list of speakers")
        if len(others) > 1:
            raise BadRecording(
                f"{item.where}: {main!r} against {len(others)} others at once; a stream here has"
                " one other"
            )
        return main, readable(others[0]) if others else None
    key = next((key for key in _OTHER if key in item.data), _OTHER[0])
    return main, item.text(key) or None


def _check_frames(about: Record, file: FeatureFile) -> None:
    """Refuse a file with another number of frames than was written down."""
    stated = about.number("num_frames", required=False)
    if stated is not None and stated != file.num_rows:
        raise BadRecording(
            f"{file.path}: has {file.num_rows} frames, its metadata say {stated}; extract this"
            " recording again"
        )


def _split_of(about: Record, split: str | None) -> str | None:
    """Return the split; that of the folder and the one written down have to be one."""
    stated = about.text("split", required=False) or None
    if stated is not None and split is not None and stated != split:
        raise BadRecording(
            f"{about.where}: is in the folder of split {split!r}, and says {stated!r}; move it"
        )
    return stated or split


def _count(item: Record, key: str) -> int:
    value = item.number(key)
    if not isinstance(value, int) or value < 0:
        raise item.fault(key, "is no count")
    return value
