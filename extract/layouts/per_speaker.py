"""PodcastFillers with one track a speaker, as an earlier pipeline derives it.

    audio/episode_wav_dial/<split>/<episode>/<SPEAKER>.wav      one track a speaker, or .flac, ...
    audio/episode_wav/<split>/<episode>.wav                             optional: the mix
    metadata/episode_diarizations/<split>/<episode>/metadata.json       or <split>/<episode>.json
    metadata/episode_event_speaker_mapping/<split>/<episode>.json
    metadata/episode_transcripts/<split>/<episode>.json                 optional
    metadata/episode_laughter_turns/<split>/<episode>.json              optional
    metadata/episode_laughter_prediction_intervals/<split>/<episode>.json      optional

Episodes are the union over all of these folders but that of the mixes, so that one without tracks
or without annotations is seen. Only names are read here; contents are read when asked for.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from laughstore.annotations import Annotations, Event, Speaker
from laughstore.errors import BadRecording, ConfigError

from ..annotation_files import (
    Diarization,
    read_diarization,
    read_events,
    read_intervals,
    read_turns,
    read_words,
)
from ..sound.tracks import AudioFile
from ..word_speakers import with_speakers
from .episode_audio import choose, find_episode_audio
from .folders import (
    AUDIO_FOLDER,
    RecordingKey,
    encoding_fault,
    find_folder,
    metadata_folders,
    readable,
    sound_name,
    split_folders,
    split_rank,
    visible,
)
from .recording import (
    NO_EVENTS,
    NO_INTERVALS,
    NO_TRANSCRIPT,
    NO_TURNS,
    DatasetRecording,
    longest_us,
    show_of,
)

TRACKS_FOLDER = "episode_wav_dial"
DIARIZATIONS = "episode_diarizations"
EVENTS = "episode_event_speaker_mapping"
TRANSCRIPTS = "episode_transcripts"
TURNS = "episode_laughter_turns"
INTERVALS = "episode_laughter_prediction_intervals"
ANNOTATION_KINDS = (DIARIZATIONS, EVENTS, TRANSCRIPTS, TURNS, INTERVALS)
_OPTIONAL_KINDS = {TRANSCRIPTS: NO_TRANSCRIPT, TURNS: NO_TURNS, INTERVALS: NO_INTERVALS}


@dataclass(frozen=True, kw_only=True)
class PerSpeakerRecording(DatasetRecording):
    """An episode with a track for each speaker."""

    files: Mapping[str, Path] = field(repr=False)
    """Annotation file of each kind (a member of ANNOTATION_KINDS); no key where there is none."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What is not there and does not stop a build, one line each."""
        notes = [text for kind, text in _OPTIONAL_KINDS.items() if kind not in self.files]
        if DIARIZATIONS not in self.files:
            notes.append("no diarization: nobody knows who speaks")
        return tuple(notes)

    @property
    def has_words(self) -> bool:
        """Whether there is a transcript."""
        return TRANSCRIPTS in self.files

    @property
    def transcript(self) -> Path | None:
        """The transcript file, if there is one."""
        return self.files.get(TRANSCRIPTS)

    @property
    def has_segments(self) -> bool:
        """Whether there is a diarization."""
        return DIARIZATIONS in self.files

    @cached_property
    def diarization(self) -> Diarization:
        """Who speaks when, read from the file once; nobody where there is none.

        Raises:
            BadRecording: it cannot be used.
        """
        if DIARIZATIONS not in self.files:
            return Diarization((), (), None)
        diarization = read_diarization(self.files[DIARIZATIONS])
        if not diarization.speakers:
            raise BadRecording(
                f"{self.files[DIARIZATIONS]}: no speaker in 'speaker_statistics' has a total_time"
                " above 0; diarize the recording again"
            )
        return diarization

    def events(self) -> tuple[Event, ...]:
        """Return the events, uncleaned and in file order. Raises BadRecording."""
        return read_events(self._file(EVENTS, NO_EVENTS))

    def annotations(self) -> Annotations:
        """Return everything annotated; see `DatasetRecording.annotations`."""
        diarization = self.diarization
        events = self.events()
        files = self.files
        words = read_words(files[TRANSCRIPTS]) if TRANSCRIPTS in files else None
        if words is not None:
            words = with_speakers(words, diarization.speakers, diarization.segments)
        return Annotations(
            recording=self.name,
            duration_us=diarization.duration_us or self._audio_us(),
            speakers=diarization.speakers,
            events=events,
            segments=diarization.segments,
            turns=read_turns(files[TURNS]) if TURNS in files else None,
            intervals=read_intervals(files[INTERVALS]) if INTERVALS in files else None,
            words=words,
        )

    def _find_speakers(self) -> tuple[Speaker, ...]:
        if self.tracks:
            self._file(DIARIZATIONS, "nobody's track can be chosen")
        return self.diarization.speakers

    def _find_problem(self) -> str | None:
        if not self.tracks and self.mix is None:
            return (
                f"{self.name}: no audio tracks in {AUDIO_FOLDER}/{TRACKS_FOLDER}/{self.split};"
                " add them, or remove its annotations"
            )
        try:
            self._file(EVENTS, NO_EVENTS)
            _ = self.diarization
        except BadRecording as error:
            return str(error)
        return None

    def _file(self, kind: str, consequence: str) -> Path:
        if kind not in self.files:
            raise BadRecording(
                f"{self.name}: no file {kind}/{self.split}/{self.name}.json; {consequence}: add"
                " it, or leave the recording out"
            )
        return self.files[kind]

    def _audio_us(self) -> int:
        """Return the length of the longest of its sound files."""
        files = [*self.tracks.values(), *([] if self.mix is None else [self.mix])]
        if not files:
            raise BadRecording(
                f"{self.name}: neither 'original_duration' in its diarization nor a track tells"
                " how long it is; add one of them"
            )
        return longest_us(files)


def has_tracks(root: Path) -> bool:
    """Tell whether a data set has a folder of tracks."""
    return _tracks_folder(root) is not None


def has_speaker_events(root: Path) -> bool:
    """Tell whether a data set has a folder of events with speakers."""
    return bool(metadata_folders(root, EVENTS))


def read_per_speaker(root: Path) -> tuple[list[DatasetRecording], list[str]]:
    """Return the recordings of a data set, and notes on all of it.

    Raises:
        ConfigError: one recording is in two splits, or twice in one.
    """
    tracks_folder = _tracks_folder(root)
    folders = {} if tracks_folder is None else _track_folders(tracks_folder)
    file_paths = {kind: _annotation_files(root, kind) for kind in ANNOTATION_KINDS}
    mixes = find_episode_audio(root)
    keys = set(folders).union(*file_paths.values())
    _check_splits(keys, root)
    recordings: list[DatasetRecording] = []
    for split, name in sorted(keys, key=_order):
        tracks, fault = _tracks(folders.get((split, name)))
        files = {kind: at[split, name] for kind, at in file_paths.items() if (split, name) in at}
        mix, mix_fault = choose(mixes.get(name, ()))
        if mix is not None and mix.split not in (None, split):
            mix_fault = (
                f"{mix.path} is in split {mix.split}, its other files are in {split}; move one"
            )
        paths = [*tracks.values(), *files.values(), *([] if mix is None else [mix.path])]
        recordings.append(
            PerSpeakerRecording(
                name=name,
                split=split,
                group=show_of(name),
                tracks={speaker: AudioFile(path) for speaker, path in tracks.items()},
                mix=None if mix is None else AudioFile(mix.path),
                fault=fault or mix_fault or encoding_fault(paths),
                files=files,
            )
        )
    return recordings, _notes(mixes.keys() - {name for _, name in keys})


def _notes(unseen: Iterable[str]) -> list[str]:
    names = sorted(unseen)
    if not names:
        return []
    first = names[0]
    return [
        f"{len(names)} episodes have a mix and no tracks or annotations of this layout, such as"
        f" {first!r}: left out (--layout podcastfillers reads mixes)"
    ]


def _tracks_folder(root: Path) -> Path | None:
    return find_folder(find_folder(root, AUDIO_FOLDER), TRACKS_FOLDER)


def _track_folders(folder: Path) -> dict[RecordingKey, Path]:
    found: dict[RecordingKey, Path] = {}
    for split in split_folders(folder):
        for entry in visible(split):
            if entry.is_dir():
                _add(found, (split.name, readable(entry.name)), entry)
    return found


def _annotation_files(root: Path, kind: str) -> dict[RecordingKey, Path]:
    """Return the file of each recording: `<episode>.json` or `<episode>/metadata.json`."""
    found: dict[RecordingKey, Path] = {}
    for folder in metadata_folders(root, kind):
        for split in split_folders(folder):
            for entry in visible(split):
                inner = entry / "metadata.json"
                # Names hold dots: only a final ".json" is no part of them.
                if entry.name.endswith(".json") and entry.is_file():
                    _add(found, (split.name, readable(entry.name.removesuffix(".json"))), entry)
                elif inner.is_file():
                    _add(found, (split.name, readable(entry.name)), inner)
    return found


def _add(found: dict[RecordingKey, Path], key: RecordingKey, path: Path) -> None:
    if key in found:
        raise ConfigError(f"{path} and {found[key]} are of one recording; keep one of them")
    found[key] = path


def _tracks(folder: Path | None) -> tuple[dict[str, Path], str | None]:
    """Return an episode's tracks by speaker, and what is wrong with them, if anything."""
    tracks: dict[str, Path] = {}
    for entry in visible(folder) if folder else ():
        speaker = sound_name(entry)
        if speaker is None:
            continue
        if speaker in tracks:
            both = f"{entry} and {tracks[speaker].name}"
            return {}, f"{both} are both tracks of {speaker}; keep one of them"
        tracks[speaker] = entry
    return tracks, None


def _order(key: RecordingKey) -> tuple[tuple[int, str], str]:
    split, name = key
    return split_rank(split), name


def _check_splits(keys: set[RecordingKey], path: Path) -> None:
    split_of: dict[str, str] = {}
    for split, name in sorted(keys, key=_order):
        first = split_of.setdefault(name, split)
        if first != split:
            raise ConfigError(
                f"{path}: recording {name!r} is in the splits {first} and {split}; it would be"
                " trained on and tested on: keep its files in one of them"
            )
