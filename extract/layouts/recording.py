"""What every layout gives: recordings that know their sound, their annotations and their gaps."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from laughstore.annotations import Annotations, Event, Speaker
from laughstore.errors import BadRecording
from laughstore.naming import recording_id
from laughstore.timebase import SAMPLE_RATE, US_PER_SECOND

from ..sound.tracks import AudioFile, probe_audio

FoundLayout = Literal["per-speaker", "podcastfillers", "manifest"]
UNKNOWN_SPLIT = "unknown"
"""Split of a recording that nothing puts into one; it has a problem, too."""
NO_EVENTS = "without events every frame would count as negative"
NO_TRANSCRIPT = "no transcript: text modes other than none cannot be built from it"
NO_TURNS = "no turns: filters on turns use the diarization"
NO_INTERVALS = "no prediction intervals: interval labels cannot be made for it"


@dataclass(frozen=True, kw_only=True)
class DatasetRecording(ABC):
    """One recording of a data set. What is read from files of its own is read when asked for."""

    name: str
    """Its original name, in Unicode form NFC."""
    split: str
    group: str
    """The show; recordings of one show belong into one split."""
    tracks: Mapping[str, AudioFile] = field(repr=False)
    """The sound of each speaker alone, by speaker; empty where there is only a mix."""
    mix: AudioFile | None = field(repr=False)
    """The sound of all speakers together, when there is a file of it."""
    fault: str | None = field(default=None, repr=False)
    """Why its files cannot be told apart or believed, if so; one line."""

    @property
    def id(self) -> str:
        """The recording's id in paths, keys and URLs."""
        return recording_id(self.name)

    @cached_property
    def speakers(self) -> tuple[Speaker, ...]:
        """Everybody who speaks, longest total time first, ties by name; () when nobody knows who.

        Raises:
            BadRecording: what tells it is missing or broken.
        """
        return self._find_speakers()

    @cached_property
    def problem(self) -> str | None:
        """Why nothing can be built from this recording, whoever is main (one line), or None."""
        return self.fault or self._find_problem()

    def refuse_fault(self) -> None:
        """Raise BadRecording when its files cannot be told apart or believed."""
        if self.fault is not None:
            raise BadRecording(self.fault)

    @property
    @abstractmethod
    def notes(self) -> tuple[str, ...]:
        """What is not there and does not stop a build, one line each."""

    @property
    @abstractmethod
    def has_segments(self) -> bool:
        """Whether it is told who speaks when."""

    @property
    def has_event_speakers(self) -> bool:
        """Whether events can have speakers; where they can, none means nobody knows whose."""
        return True

    @property
    @abstractmethod
    def has_words(self) -> bool:
        """Whether there is a transcript."""

    @property
    def transcript(self) -> Path | None:
        """The transcript whose unit of time is to be checked, if there is such a file."""
        return None

    @abstractmethod
    def events(self) -> tuple[Event, ...]:
        """Return the events, uncleaned and in file order. Raises BadRecording."""

    @abstractmethod
    def annotations(self) -> Annotations:
        """Return everything annotated, uncleaned and in file order.

        `duration_us` is as stated, else that of the audio; `speakers` is everybody.

        Raises:
            BadRecording: a file is missing that a build needs, broken, or lacks a key.
        """

    def track_problem(self, speakers: Sequence[str]) -> str | None:
        """Return why the tracks of these speakers cannot be used (one line), or None."""
        missing = [name for name in speakers if name not in self.tracks]
        if not missing:
            return None
        there = ", ".join(sorted(self.tracks)) or "none"
        return (
            f"{self.name}: no track of {' and '.join(missing)}, who would be main (tracks: {there})"
            "; add it, or diarize the recording again"
        )

    @abstractmethod
    def _find_speakers(self) -> tuple[Speaker, ...]:
        """Return what `speakers` is."""

    @abstractmethod
    def _find_problem(self) -> str | None:
        """Return what `problem` is, if there is no `fault`."""


@dataclass(frozen=True)
class Dataset:
    """The recordings of a data set, by split (train, validation, test, others), then by name."""

    path: Path
    layout: FoundLayout
    recordings: tuple[DatasetRecording, ...] = field(repr=False)
    notes: tuple[str, ...] = field(default=(), repr=False)
    """What is to be known about all of it, one line each."""

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits, in order."""
        return tuple(dict.fromkeys(recording.split for recording in self.recordings))


def show_of(name: str) -> str:
    """Return the show in a recording's name: the part before its first `_`, else all of it."""
    return name.partition("_")[0]


def longest_us(files: Iterable[AudioFile]) -> int:
    """Return the length of the longest of these files, 0 for none. Raises BadRecording."""
    lengths = [probe_audio(file).num_samples_24k for file in files]
    return max(lengths, default=0) * US_PER_SECOND // SAMPLE_RATE
