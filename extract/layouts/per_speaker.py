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

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from laughstore.annotations import Annotations, Event, Speaker
from laughstore.errors import BadRecording
from laughstore.naming import MIX

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
from .episode_audio import EpisodeAudio, choose, find_episode_audio
from .folders import (
    AUDIO_FOLDER,
    annotation_splits,
    encoding_fault,
    find_folder,
    metadata_folders,
    readable,
    same_file,
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
        self.refuse_fault()
        return read_events(self._file(EVENTS, NO_EVENTS))

    def annotations(self) -> Annotations:
        """Return everything annotated; see `DatasetRecording.annotations`.

        Without audio and a stated length, it is taken to end with the last thing annotated.
        """
        self.refuse_fault()
        diarization = self.diarization
        events = self.events()
        files = self.files
        words = read_words(files[TRANSCRIPTS]) if TRANSCRIPTS in files else None
        if words is not None:
            words = with_speakers(words, diarization.speakers, diarization.segments)
        turns = read_turns(files[TURNS]) if TURNS in files else None
        duration_us = diarization.duration_us or self._audio_us()
        if not duration_us:
            spans = (*events, *diarization.segments, *(turns or ()), *(words or ()))
            duration_us = max([item.end_us for item in spans], default=0)
        return Annotations(
            recording=self.name,
            duration_us=duration_us,
            speakers=diarization.speakers,
            events=events,
            segments=diarization.segments,
            turns=turns,
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
        """Return the length of the longest of its sound files, 0 for none."""
        return longest_us([*self.tracks.values(), *([] if self.mix is None else [self.mix])])


def has_tracks(root: Path) -> bool:
    """Tell whether a data set has a folder of tracks."""
    return _tracks_folder(root) is not None


def has_speaker_events(root: Path) -> bool:
    """Tell whether a data set has a folder of events with speakers."""
    return bool(metadata_folders(root, EVENTS))


def read_per_speaker(root: Path) -> tuple[list[DatasetRecording], list[str]]:
    """Return the recordings of a data set, and notes on all of it.

    Raises:
        ConfigError: a folder among those of tracks cannot be a split.
    """
    notes: list[str] = []
    tracks_folder = _tracks_folder(root)
    found = {TRACKS_FOLDER: {} if tracks_folder is None else _track_folders(tracks_folder)}
    for kind in ANNOTATION_KINDS:
        found[kind], more = _annotation_files(root, kind)
        notes += more
    mixes = find_episode_audio(root)
    names = set[str]().union(*found.values())
    recordings = [
        _recording(
            name,
            {kind: at[name] for kind, at in found.items() if name in at},
            mixes.get(name, ()),
        )
        for name in names
    ]
    recordings.sort(key=lambda item: (split_rank(item.split), item.name))
    return list(recordings), notes + _notes(mixes.keys() - names)


type _Found = list[tuple[str, Path]]  # (split, file or folder of tracks)


def _recording(
    name: str, found: Mapping[str, _Found], mixes: Sequence[EpisodeAudio]
) -> PerSpeakerRecording:
    """Return a recording of what was found of it by kind, tracks first."""
    split = next(iter(found.values()))[0][0]
    faults = [_split_fault(name, split, found)]
    seen = [path for places in found.values() for _, path in places]
    files: dict[str, Path] = {}
    tracks: dict[str, Path] = {}
    for kind, places in found.items():
        paths = [path for at, path in places if at == split]
        if kind == TRACKS_FOLDER:
            tracks, fault = _tracks(paths)
        else:
            file, fault = same_file(paths)
            if file is not None:
                files[kind] = file
        faults.append(fault)
    mix, mix_fault = choose(mixes)
    if mix is not None and mix.split not in (None, split):
        mix_fault = f"{mix.path} is in split {mix.split}, its other files are in {split}; move one"
    # First: the others' lines could not be written down.
    encoding = encoding_fault([*seen, *tracks.values(), *(item.path for item in mixes)])
    faults = [encoding, *faults, mix_fault]
    return PerSpeakerRecording(
        name=name,
        split=split,
        group=show_of(name),
        tracks={speaker: AudioFile(path) for speaker, path in tracks.items()},
        mix=None if mix is None else AudioFile(mix.path),
        fault=next((fault for fault in faults if fault is not None), None),
        files=files,
    )


def _split_fault(name: str, split: str, found: Mapping[str, _Found]) -> str | None:
    """Return why a recording's split cannot be told, if so: a copy may be of another version."""
    first = next(iter(found.values()))[0][1]
    for at, path in (place for places in found.values() for place in places):
        if at != split:
            return (
                f"{name}: {first} is in split {split}, {path} in {at}; it would be trained on and"
                " tested on: keep its files in one of them"
            )
    return None


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


def _track_folders(folder: Path) -> dict[str, _Found]:
    found: dict[str, _Found] = {}
    for split in sorted(split_folders(folder), key=lambda split: split_rank(split.name)):
        for entry in visible(split):
            if entry.is_dir():
                found.setdefault(readable(entry.name), []).append((split.name, entry))
    return found


def _annotation_files(root: Path, kind: str) -> tuple[dict[str, _Found], list[str]]:
    """Return the files of each recording: `<episode>.json` and `<episode>/metadata.json`."""
    found: dict[str, _Found] = {}
    splits, notes = annotation_splits(root, kind)
    for split in sorted(splits, key=lambda split: split_rank(split.name)):
        for entry in visible(split):
            inner = entry / "metadata.json"
            # Names hold dots: only a final ".json" is no part of them.
            if entry.name.endswith(".json") and entry.is_file():
                name, file = entry.name.removesuffix(".json"), entry
            elif inner.is_file():
                name, file = entry.name, inner
            else:
                continue
            found.setdefault(readable(name), []).append((split.name, file))
    return found, notes


def _tracks(folders: Sequence[Path]) -> tuple[dict[str, Path], str | None]:
    """Return an episode's tracks by speaker, and what is wrong with them, if anything."""
    if len(folders) > 1:
        return {}, f"{folders[0]} and {folders[1]} are of one recording; keep one of them"
    tracks: dict[str, Path] = {}
    for entry in visible(folders[0]) if folders else ():
        found = sound_name(entry)
        if found is None:
            continue
        speaker = readable(found)
        if speaker == MIX:
            return {}, f"{entry}: a speaker is named {MIX!r}, which stands for a mix; rename it"
        if speaker in tracks:
            both = f"{entry} and {tracks[speaker].name}"
            return {}, f"{both} are both tracks of {speaker}; keep one of them"
        tracks[speaker] = entry
    return tracks, None
