"""PodcastFillers as published (Zenodo 7121457): mixed episodes, events without speakers.

    audio/episode_wav/<split>/<episode>.wav, audio/episode_mp3/[<split>/]<episode>.mp3
    metadata/episode_annotations/<split>/<episode>.csv
    metadata/PodcastFillers.csv             events of episodes that have no table of their own
    metadata/episode_transcripts/<split>/<episode>.json         optional

Nobody knows who speaks or laughs: each recording is its mix, and events are anybody's. Episodes are
the union over all of these, so that one without sound or events is seen. The split is that of the
folders and of `episode_split_subset`; where they disagree, the recording has a problem. Clips,
`episode_vad` and `episode_sed_eval_paper` are not read.
"""

import logging
import re
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from laughstore.annotation_formats.text import read_bytes
from laughstore.annotations import Annotations, Event, Speaker
from laughstore.errors import BadRecording, ConfigError

from ..annotation_files import read_words
from ..sound.tracks import AudioFile
from .episode_audio import EpisodeAudio, choose, find_episode_audio, has_episode_audio
from .event_tables import EpisodeEvents, EventTable, read_event_table
from .folders import (
    METADATA_FOLDERS,
    SPLIT_NAME,
    annotation_splits,
    encoding_fault,
    find_folder,
    metadata_folders,
    readable,
    same_file,
    split_rank,
    visible,
)
from .recording import (
    NO_EVENTS,
    NO_TRANSCRIPT,
    UNKNOWN_SPLIT,
    DatasetRecording,
    longest_us,
    show_of,
)

logger = logging.getLogger(__name__)

ANNOTATIONS = "episode_annotations"
TRANSCRIPTS = "episode_transcripts"
TABLE = "PodcastFillers.csv"
_NOBODY = (
    "this layout does not tell who speaks or laughs: each recording is one stream, its mix, and its"
    " labels are of anybody's events (--whose any); it has no turns and no prediction intervals"
)


@dataclass(frozen=True, kw_only=True)
class PodcastFillersRecording(DatasetRecording):
    """An episode as published: a mix, and events of nobody in particular."""

    table: Path | None = field(repr=False)
    """The episode's own table of events."""
    rows: EpisodeEvents | None = field(repr=False)
    """Its rows in the table of all episodes."""
    table_fault: str | None = field(default=None, repr=False)
    """Why `rows` cannot be had, if so."""
    words: Path | None = field(default=None, repr=False)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is not there and does not stop a build, one line each."""
        notes = [] if self.words else [NO_TRANSCRIPT]
        try:
            num_own = self._own.num_rows
        except BadRecording:
            return tuple(notes)
        whole = self.rows if self.table and not self.table_fault else None
        if whole is not None and whole.num_rows != num_own:
            notes.append(
                f"its own table has {num_own} events, {TABLE} {whole.num_rows}; its own is used"
            )
        return tuple(notes)

    @property
    def has_segments(self) -> bool:
        """False: nobody knows who speaks."""
        return False

    @property
    def has_event_speakers(self) -> bool:
        """False: nobody knows who laughs."""
        return False

    @property
    def has_words(self) -> bool:
        """Whether there is a transcript."""
        return self.words is not None

    @property
    def transcript(self) -> Path | None:
        """The transcript file, if there is one."""
        return self.words

    def events(self) -> tuple[Event, ...]:
        """Return the events, uncleaned and in file order. Raises BadRecording."""
        self.refuse_fault()
        found = self._own
        if found.num_dropped:
            logger.warning("%s: %d events dropped: no usable time", self.name, found.num_dropped)
        return tuple(found.events)

    def annotations(self) -> Annotations:
        """Return everything annotated; see `DatasetRecording.annotations`.

        Without audio, the recording is taken to end with the last of its events and words.
        """
        events = self.events()
        words = None if self.words is None else read_words(self.words)
        duration_us = 0 if self.mix is None else longest_us([self.mix])
        if not duration_us:
            duration_us = max([item.end_us for item in (*events, *(words or ()))], default=0)
        return Annotations(self.name, duration_us, speakers=(), events=events, words=words)

    @cached_property
    def _own(self) -> EpisodeEvents:
        """The episode's events, of its own table if there is one."""
        if self.table is not None:
            table = read_event_table(self.table, episode=self.name)
            fault = table.fault or next((e.fault for e in table.episodes.values() if e.fault), None)
            found = table.episodes.get(self.name, EpisodeEvents())
            if fault is None and found.splits - {self.split}:
                splits = " and ".join(sorted(found.splits))
                fault = f"{self.table}: says split {splits}, its folder {self.split}; move it"
            if fault is None and not found.num_rows and self.rows and self.rows.num_rows:
                fault = (
                    f"{self.table}: holds no events, {TABLE} has {self.rows.num_rows} of this"
                    " episode; fetch it again, or remove it"
                )
            if fault is not None:
                raise BadRecording(fault)
            return found
        if self.table_fault is not None:
            raise BadRecording(f"{self.name}: {self.table_fault}")
        if self.rows is None:
            raise BadRecording(
                f"{self.name}: no file {ANNOTATIONS}/{self.split}/{self.name}.csv and no row in"
                f" {TABLE}; {NO_EVENTS}: add one, or leave the recording out"
            )
        if self.rows.fault is not None:
            raise BadRecording(f"{self.name}: {self.rows.fault}")
        return self.rows

    def _find_speakers(self) -> tuple[Speaker, ...]:
        return ()

    def _find_problem(self) -> str | None:
        if self.mix is None:
            return (
                f"{self.name}: no sound in audio/episode_wav/{self.split} or audio/episode_mp3; add"
                " it, or remove its annotations"
            )
        try:
            _ = self._own
        except BadRecording as error:
            return str(error)
        return None


def is_published_layout(root: Path) -> bool:
    """Tell whether a folder looks like PodcastFillers as published, be it without audio."""
    if has_episode_audio(root) or metadata_folders(root, ANNOTATIONS):
        return True
    return any(_tables_in(find_folder(root, metadata)) for metadata in METADATA_FOLDERS)


def read_podcastfillers(root: Path) -> tuple[list[DatasetRecording], list[str]]:
    """Return the recordings of a data set, and notes on all of it.

    Raises:
        ConfigError: there are two different tables of all episodes.
    """
    audio = find_episode_audio(root)
    own, notes = _files(root, ANNOTATIONS, ".csv")
    transcripts, more = _files(root, TRANSCRIPTS, ".json")
    notes = [_NOBODY, *notes, *more]
    table, table_fault = _read_table(root, own.keys())
    rows = {} if table is None else table.episodes
    recordings: list[DatasetRecording] = [
        _recording(name, audio.get(name, ()), own, transcripts, rows.get(name), table_fault)
        for name in {*audio, *own, *transcripts, *rows}
    ]
    recordings.sort(key=lambda item: (split_rank(item.split), item.name))
    if table_fault is not None:
        notes.append(table_fault)
    if table is not None and table.num_nameless:
        notes.append(f"{table.path}: {table.num_nameless} rows name no episode and are left out")
    notes += _halves({*audio}, {*own, *rows})
    return recordings, notes


def _halves(heard: set[str], annotated: set[str]) -> list[str]:
    """Return notes on sound and events whose names differ in punctuation only: one episode?"""
    plain = {re.sub(r"[\W_]+", "", name).casefold(): name for name in sorted(annotated - heard)}
    notes = []
    for name in sorted(heard - annotated):
        other = plain.get(re.sub(r"[\W_]+", "", name).casefold())
        if other is not None:
            notes.append(
                f"{name!r} has sound and no events, {other!r} events and no sound: if they are one"
                " episode, give its files the name in the table"
            )
    return notes


type _Files = Mapping[str, Sequence[tuple[str, Path]]]  # name -> (split, file)


def _recording(
    name: str,
    audio: Sequence[EpisodeAudio],
    own: _Files,
    transcripts: _Files,
    rows: EpisodeEvents | None,
    table_fault: str | None,
) -> PodcastFillersRecording:
    sound, fault = choose(audio)
    tables, words = own.get(name, ()), transcripts.get(name, ())
    paths = [*(item.path for item in audio), *(path for _, path in (*tables, *words))]
    said = [(item.split, str(item.path)) for item in audio if item.split is not None]
    said += [(split, str(path)) for split, path in (*tables, *words)]
    said += [(split, TABLE) for split in sorted(rows.splits if rows else ())]
    split, split_fault = _split(name, said)
    own_table, table_differs = same_file([path for _, path in tables])
    transcript, words_differ = same_file([path for _, path in words])
    return PodcastFillersRecording(
        name=name,
        split=split,
        group=show_of(name),
        tracks={},
        mix=None if sound is None else AudioFile(sound.path),
        fault=encoding_fault(paths) or fault or split_fault or table_differs or words_differ,
        table=own_table,
        rows=rows,
        table_fault=table_fault,
        words=transcript,
    )


def _split(name: str, said: Sequence[tuple[str, str]]) -> tuple[str, str | None]:
    """Return the split, and what is wrong with it, if anything; `said` are (split, by what)."""
    if not said:
        return UNKNOWN_SPLIT, (
            f"{name}: nothing tells its split; put its sound into audio/episode_wav/<split>, or add"
            f" its rows to {TABLE}"
        )
    split, source = said[0]
    if not SPLIT_NAME.fullmatch(split):
        return UNKNOWN_SPLIT, (
            f"{name}: {split!r} cannot be a split (letters, digits, - and _), says {source}"
        )
    other = next((item for item in said if item[0] != split), None)
    if other is not None:
        return split, (
            f"{name}: is in split {split} by {source} and in {other[0]} by {other[1]}; it would be"
            " trained on and tested on: correct one of them"
        )
    return split, None


def _files(
    root: Path, kind: str, suffix: str
) -> tuple[dict[str, list[tuple[str, Path]]], list[str]]:
    """Return (split, file) of each recording, and notes on what is passed over."""
    found: dict[str, list[tuple[str, Path]]] = {}
    splits, notes = annotation_splits(root, kind)
    for split in splits:
        for entry in visible(split):
            # Names hold dots: only the suffix is no part of them.
            if entry.name.lower().endswith(suffix) and entry.is_file():
                name = readable(entry.name[: -len(suffix)])
                found.setdefault(name, []).append((split.name, entry))
    return found, notes


def _tables_in(folder: Path | None) -> list[Path]:
    entries: Iterable[Path] = visible(folder) if folder and folder.is_dir() else ()
    return [e for e in entries if e.name.lower() == TABLE.lower() and e.is_file()]


def _read_table(root: Path, only_counted: Container[str]) -> tuple[EventTable | None, str | None]:
    """Return the table of all episodes, if there is one, and why it is not to be believed."""
    places = [root, *(find_folder(root, metadata) for metadata in METADATA_FOLDERS)]
    tables = [table for place in places for table in _tables_in(place)]
    if not tables:
        return None, None
    try:
        for other in tables[1:]:
            if read_bytes(other) != read_bytes(tables[0]):
                raise ConfigError(f"{tables[0]} and {other} differ; keep the right one of them")
        table = read_event_table(tables[0], only_counted=only_counted)
    except BadRecording as error:
        return None, str(error)
    return table, table.fault
