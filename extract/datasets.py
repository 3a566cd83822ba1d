"""Data sets on disk: which recordings there are, their tracks, their annotations, their gaps.

In: a folder of the per-speaker PodcastFillers layout,

    audio/episode_wav_dial/<split>/<episode>/<SPEAKER>.wav      one track a speaker, or .flac, ...
    metadata/episode_diarizations/<split>/<episode>/metadata.json       or <split>/<episode>.json
    metadata/episode_event_speaker_mapping/<split>/<episode>.json
    metadata/episode_transcripts/<split>/<episode>.json                 optional
    metadata/episode_laughter_turns/<split>/<episode>.json              optional
    metadata/episode_laughter_prediction_intervals/<split>/<episode>.json      optional

Out: a `Dataset` of `DatasetRecording`s. Folder names are matched without regard to case, and
`meta_data/` is read too. Episodes are the union over all of these folders, so that one without
audio or without annotations is seen: it carries a `problem` and cannot be built; what is merely not
there stands in its `notes`. Only names are read here; file contents are read when asked for.
"""

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from laughstore.annotations import Annotations, Speaker
from laughstore.errors import BadRecording, ConfigError, NotFound
from laughstore.naming import recording_id
from laughstore.timebase import SAMPLE_RATE, US_PER_SECOND

from .annotation_files import (
    Diarization,
    read_diarization,
    read_events,
    read_intervals,
    read_turns,
    read_words,
)
from .audio import probe_audio

AUDIO_FOLDER = "audio"
TRACKS_FOLDER = "episode_wav_dial"
METADATA_FOLDERS = ("metadata", "meta_data")
DIARIZATIONS = "episode_diarizations"
EVENTS = "episode_event_speaker_mapping"
TRANSCRIPTS = "episode_transcripts"
TURNS = "episode_laughter_turns"
INTERVALS = "episode_laughter_prediction_intervals"
ANNOTATION_KINDS = (DIARIZATIONS, EVENTS, TRANSCRIPTS, TURNS, INTERVALS)
OPTIONAL_KINDS = {
    TRANSCRIPTS: "no transcript: text modes other than none cannot be built from it",
    TURNS: "no turns: filters on turns use the diarization",
    INTERVALS: "no prediction intervals: interval labels cannot be made for it",
}
SPLIT_ORDER = ("train", "validation", "test")
NUM_MAIN_SPEAKERS = 2
AUDIO_SUFFIXES = frozenset(
    [
        ".wav",
        ".flac",
        ".ogg",
        ".oga",
        ".opus",
        ".mp3",
        ".aif",
        ".aiff",
        ".au",
        ".caf",
        ".w64",
        ".rf64",
    ]
)

SPLIT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
"""Split names become part of shard names, which stand in URLs and patterns."""


@dataclass(frozen=True)
class DatasetRecording:
    """One recording of a data set: where its files are and what is missing."""

    name: str
    """The episode's original name, in Unicode form NFC."""
    split: str
    tracks: Mapping[str, Path]
    """Track of each speaker, by speaker name."""
    files: Mapping[str, Path] = field(repr=False)
    """Annotation file of each kind (a member of ANNOTATION_KINDS); no key where there is none."""
    track_fault: str | None = field(default=None, repr=False)
    """Why the tracks cannot be told apart, if so."""

    @property
    def id(self) -> str:
        """The recording's id in paths, keys and URLs."""
        return recording_id(self.name)

    @property
    def group(self) -> str:
        """The show: the part of the name before its first `_`, else the whole name."""
        return self.name.partition("_")[0]

    @property
    def notes(self) -> tuple[str, ...]:
        """What is not there and does not stop a build, one line each."""
        return tuple(text for kind, text in OPTIONAL_KINDS.items() if kind not in self.files)

    @cached_property
    def diarization(self) -> Diarization:
        """Who speaks when, read from the file once.

        Raises:
            BadRecording: there is no diarization, or it cannot be used.
        """
        diarization = read_diarization(self._file(DIARIZATIONS, "nobody's track can be chosen"))
        if not diarization.speakers:
            raise BadRecording(
                f"{self.files[DIARIZATIONS]}: no speaker in 'speaker_statistics' has a total_time"
                " above 0; diarize the recording again"
            )
        return diarization

    @property
    def main_speakers(self) -> tuple[Speaker, ...]:
        """The one or two speakers who speak most, the longer first; ties by name.

        Raises:
            BadRecording: as for `diarization`.
        """
        return self.diarization.speakers[:NUM_MAIN_SPEAKERS]

    @cached_property
    def problem(self) -> str | None:
        """Why no features can be built from this recording (one line), or None."""
        if self.track_fault is not None:
            return self.track_fault
        if not self.tracks:
            return (
                f"{self.name}: no audio tracks in {AUDIO_FOLDER}/{TRACKS_FOLDER}/{self.split};"
                " add them, or remove its annotations"
            )
        try:
            self._file(EVENTS, "without events every frame would count as negative")
            speakers = [speaker.name for speaker in self.main_speakers]
        except BadRecording as error:
            return str(error)
        missing = [name for name in speakers if name not in self.tracks]
        if missing:
            return (
                f"{self.name}: no track of {' and '.join(missing)}, who speak most (tracks:"
                f" {', '.join(sorted(self.tracks))}); add it, or diarize the recording again"
            )
        return None

    def _file(self, kind: str, consequence: str) -> Path:
        if kind not in self.files:
            raise BadRecording(
                f"{self.name}: no file {kind}/{self.split}/{self.name}.json; {consequence}: add"
                " it, or leave the recording out"
            )
        return self.files[kind]


@dataclass(frozen=True)
class Dataset:
    """The recordings of a data set, by split (train, validation, test, others), then by name."""

    path: Path
    recordings: tuple[DatasetRecording, ...] = field(repr=False)

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits, in order."""
        return tuple(dict.fromkeys(recording.split for recording in self.recordings))


def is_dataset(path: Path) -> bool:
    """Tell whether a folder is of the layout that `open_dataset` reads, be it without audio."""
    if not path.is_dir():
        return False
    return _find(_find(path, AUDIO_FOLDER), TRACKS_FOLDER) is not None or any(
        _find(_find(path, metadata), EVENTS) is not None for metadata in METADATA_FOLDERS
    )


def open_dataset(path: Path, *, needs_audio: bool = True) -> Dataset:
    """Return the data set in a folder.

    Args:
        path: of the folder that holds audio/ and metadata/.
        needs_audio: False takes one that has only annotations, too.

    Raises:
        NotFound: no such folder.
        ConfigError: the folder has another layout, or one recording is in two splits.
    """
    if not path.is_dir():
        raise NotFound(f"{path}: no such folder; give the folder that holds audio/ and metadata/")
    tracks_folder = _find(_find(path, AUDIO_FOLDER), TRACKS_FOLDER)
    if tracks_folder is None and (needs_audio or not is_dataset(path)):
        raise _other_layout(path)
    folders = {} if tracks_folder is None else _track_folders(tracks_folder)
    file_paths = {kind: _annotation_files(path, kind) for kind in ANNOTATION_KINDS}
    keys = set(folders).union(*file_paths.values())
    if not keys:
        raise _other_layout(path)
    _check_splits(keys, path)
    recordings = []
    for split, name in sorted(keys, key=_order):
        tracks, fault = _tracks(folders.get((split, name)))
        files = {kind: at[split, name] for kind, at in file_paths.items() if (split, name) in at}
        fault = fault or _encoding_fault([*tracks.values(), *files.values()])
        recordings.append(DatasetRecording(name, split, tracks, files, fault))
    return Dataset(path, tuple(recordings))


def load_annotations(recording: DatasetRecording) -> Annotations:
    """Return everything annotated in a recording, in file order and uncleaned.

    Raises:
        BadRecording: a file is missing that a build needs, broken, or lacks a key.
    """
    diarization = recording.diarization
    events = recording._file(EVENTS, "without events every frame would count as negative")
    files = recording.files
    return Annotations(
        recording=recording.name,
        duration_us=diarization.duration_us or _audio_duration_us(recording),
        speakers=recording.main_speakers,
        events=read_events(events),
        segments=diarization.segments,
        turns=read_turns(files[TURNS]) if TURNS in files else None,
        intervals=read_intervals(files[INTERVALS]) if INTERVALS in files else None,
        words=read_words(files[TRANSCRIPTS], diarization) if TRANSCRIPTS in files else None,
    )


type _Key = tuple[str, str]  # (split, recording name)


def _audio_duration_us(recording: DatasetRecording) -> int:
    """Return the length of the longest track of the main speakers."""
    speakers = recording.main_speakers
    tracks = [recording.tracks[item.name] for item in speakers if item.name in recording.tracks]
    if not tracks:
        raise BadRecording(
            f"{recording.name}: neither 'original_duration' in its diarization nor a track tells"
            " how long it is; add one of them"
        )
    num_samples = max(probe_audio(track).num_samples_24k for track in tracks)
    return num_samples * US_PER_SECOND // SAMPLE_RATE


def _visible(folder: Path) -> list[Path]:
    """Return what is in a folder, sorted, without hidden files (`.DS_Store`, `._x.json`)."""
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))


def _find(folder: Path | None, name: str) -> Path | None:
    """Return the folder of this name in another one, whatever its case."""
    if folder is None:
        return None
    found = [e for e in _visible(folder) if e.name.lower() == name.lower() and e.is_dir()]
    if len(found) > 1:
        names = " and ".join(entry.name for entry in found)
        raise ConfigError(f"{folder}: holds {names}, which is one folder here; merge them")
    return found[0] if found else None


def _splits(folder: Path) -> Iterator[Path]:
    for split in _visible(folder):
        if split.is_dir():
            if not SPLIT_NAME.fullmatch(split.name):
                raise ConfigError(
                    f"{split}: {split.name!r} cannot be a split (letters, digits, - and _);"
                    " the layout is <split>/<episode>, rename or move it"
                )
            yield split


def _name(file_name: str) -> str:
    # Bytes that are no UTF-8 (old zip files) are shown escaped: `_encoding_fault` tells of them.
    readable = os.fsencode(file_name).decode("utf-8", "backslashreplace")
    # macOS writes names in form NFD; the same episode must be found under both.
    return unicodedata.normalize("NFC", readable)


def _encoding_fault(paths: Iterable[Path]) -> str | None:
    """Why names cannot be written down, if one is not UTF-8."""
    for path in paths:
        if _name(str(path)) != unicodedata.normalize("NFC", str(path)):
            return f"{_name(str(path))}: this name is not UTF-8; rename the file or folder"
    return None


def _track_folders(folder: Path) -> dict[_Key, Path]:
    found: dict[_Key, Path] = {}
    for split in _splits(folder):
        for entry in _visible(split):
            if entry.is_dir():
                _add(found, (split.name, _name(entry.name)), entry)
    return found


def _annotation_files(root: Path, kind: str) -> dict[_Key, Path]:
    """Return the file of each recording: `<episode>.json` or `<episode>/metadata.json`."""
    found: dict[_Key, Path] = {}
    for metadata in METADATA_FOLDERS:
        folder = _find(_find(root, metadata), kind)
        for split in _splits(folder) if folder else ():
            for entry in _visible(split):
                inner = entry / "metadata.json"
                # Names hold dots: only a final ".json" is no part of them.
                if entry.name.endswith(".json") and entry.is_file():
                    _add(found, (split.name, _name(entry.name.removesuffix(".json"))), entry)
                elif inner.is_file():
                    _add(found, (split.name, _name(entry.name)), inner)
    return found


def _add(found: dict[_Key, Path], key: _Key, path: Path) -> None:
    if key in found:
        raise ConfigError(f"{path} and {found[key]} are of one recording; keep one of them")
    found[key] = path


def _tracks(folder: Path | None) -> tuple[dict[str, Path], str | None]:
    """Return an episode's tracks by speaker, and what is wrong with them, if anything."""
    tracks: dict[str, Path] = {}
    for entry in _visible(folder) if folder else ():
        if entry.suffix.lower() not in AUDIO_SUFFIXES or not entry.is_file():
            continue
        speaker = entry.name[: -len(entry.suffix)]
        if speaker in tracks:
            both = f"{entry} and {tracks[speaker].name}"
            return {}, f"{both} are both tracks of {speaker}; keep one of them"
        tracks[speaker] = entry
    return tracks, None


def _order(key: _Key) -> tuple[int, str, str]:
    split, name = key
    rank = SPLIT_ORDER.index(split) if split in SPLIT_ORDER else len(SPLIT_ORDER)
    return rank, split, name


def _check_splits(keys: set[_Key], path: Path) -> None:
    split_of: dict[str, str] = {}
    for split, name in sorted(keys, key=_order):
        first = split_of.setdefault(name, split)
        if first != split:
            raise ConfigError(
                f"{path}: recording {name!r} is in the splits {first} and {split}; it would be"
                " trained on and tested on: keep its files in one of them"
            )


def _other_layout(path: Path) -> ConfigError:
    expected = f"{AUDIO_FOLDER}/{TRACKS_FOLDER}/<split>/<episode>/<SPEAKER>.wav"
    entries = _visible(path)
    inner = [e for e in entries if e.is_dir() and _find(_find(e, AUDIO_FOLDER), TRACKS_FOLDER)]
    if inner:
        return ConfigError(f"{path}: no {expected} here, but in {inner[0].name}/; give {inner[0]}")
    audio = _find(path, AUDIO_FOLDER)
    shown = [f"{AUDIO_FOLDER}/{entry.name}" for entry in _visible(audio)] if audio else []
    shown += [entry.name for entry in entries if entry != audio]
    found = ", ".join(shown[:5]) + (", ..." if len(shown) > 5 else "") if shown else "nothing"
    return ConfigError(f"{path}: expected {expected} with metadata/ beside audio/, found {found}")
