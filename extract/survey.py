"""Look at a data set before it is built: which recordings can be, how long they are, what is amiss.

Reads every header and annotation file, decodes no audio, loads no model, writes nothing.
"""

import fnmatch
from collections.abc import Container, Mapping
from dataclasses import dataclass, field, replace

from laughstore.annotations import Annotations
from laughstore.bouts import clean_events
from laughstore.buildplan import Assignment, SkippedRecording, refuse_like_splits
from laughstore.errors import BadRecording, ConfigError
from laughstore.progress import NoProgress, Progress
from laughstore.tables import Vocabulary, recording_tables
from laughstore.timebase import SAMPLE_RATE, SAMPLES_PER_FRAME, US_PER_SECOND

from .config import BuildConfig
from .datasets import DatasetRecording, open_dataset
from .reasons import reason_of
from .roles import Roles, choose_roles
from .sound.tracks import AudioFile, probe_audio
from .text import is_tag

_DURATION_TOLERANCE_US = US_PER_SECOND
"""Stated and real length of a recording may differ by this much without a note."""


@dataclass(frozen=True)
class SurveyedRecording:
    """A recording that can be built."""

    source: DatasetRecording
    roles: Roles
    num_frames: int
    """Of the longest file that is heard."""
    duration_us: int
    """Of the longest file that is heard: what the annotations say of it is not believed."""
    annotations_id: str
    """Of the content of its annotations."""
    lengths: Mapping[AudioFile, int] = field(repr=False)
    """Audio samples of each file that is heard, once at 24 kHz."""

    @property
    def assignments(self) -> tuple[Assignment, ...]:
        """Of all its pairs, in order."""
        return self.roles.assignments

    def annotations(self) -> Annotations:
        """Read the recording's annotations (again: a corpus's words do not fit in memory)."""
        return replace(self.source.annotations(), duration_us=self.duration_us)


@dataclass(frozen=True)
class Survey:
    """What a data set holds."""

    recordings: tuple[SurveyedRecording, ...]
    skipped: tuple[SkippedRecording, ...]
    notes: tuple[str, ...] = field(repr=False)
    """What is missing but stops nothing, one line each."""

    @property
    def all_are_mixes(self) -> bool:
        """Whether no recording has a track a speaker that is heard: the store is one of mixes."""
        return all(item.roles.is_mix for item in self.recordings)

    @property
    def num_frames(self) -> int:
        """Frames of all streams."""
        return sum(item.num_frames * len(item.assignments) for item in self.recordings)

    @property
    def audio_hours(self) -> float:
        """Hours of recordings, each counted once."""
        samples = sum(item.num_frames for item in self.recordings) * SAMPLES_PER_FRAME
        return samples / SAMPLE_RATE / 3600


def survey(
    config: BuildConfig,
    progress: Progress | None = None,
    *,
    without: Container[str] = frozenset(),
) -> Survey:
    """Survey the data set of a build.

    Args:
        config: of the build; `split` and `recordings` choose among its recordings.
        progress: told of each recording.
        without: ids of recordings to pass over, as if the data set did not have them.

    Raises:
        NotFound: the data set's folder does not exist.
        ConfigError: it has another layout, no such split, or nothing matches.
        BadRecording: a recording cannot be built and the build is strict.
    """
    progress = progress or NoProgress()
    kept: list[SurveyedRecording] = []
    skipped: list[SkippedRecording] = []
    notes: list[str] = []
    recordings, about_all = chosen_recordings(config)
    notes.extend(about_all)
    chosen = [item for item in recordings if item.id not in without]
    progress.begin("survey", len(chosen), "recording")
    try:
        for recording in chosen:
            try:
                item, about = _survey_recording(recording, config)
            except BadRecording as error:
                if config.strict:
                    raise
                reason = reason_of(error, config.dataset)
                skipped.append(SkippedRecording(recording.name, recording.split, reason))
            else:
                kept.append(item)
                notes.extend(f"{recording.name}: {note}" for note in about)
            progress.advance(1)
    finally:
        progress.end()
    return Survey(tuple(kept), tuple(skipped), tuple(notes))


def settle(config: BuildConfig, found: Survey) -> BuildConfig:
    """Return the build that a survey makes of what was asked for: of mixes, if there are only such.

    Raises:
        ConfigError: two splits differ in case only.
    """
    refuse_like_splits(item.source.split for item in found.recordings)
    if found.recordings and found.all_are_mixes and config.speakers != "mix":
        return replace(config, speakers="mix")
    return config


def chosen_recordings(config: BuildConfig) -> tuple[list[DatasetRecording], tuple[str, ...]]:
    """Return the recordings of a data set that a build asks for, and notes about all of it.

    Raises:
        NotFound: as `survey`.
        ConfigError: as `survey`.
    """
    dataset = open_dataset(config.dataset, config.layout)
    if config.split != "all" and config.split not in dataset.splits:
        raise ConfigError(
            f"{config.dataset} has no split {config.split!r}; it has {', '.join(dataset.splits)}"
        )
    pattern = config.recordings
    chosen = [
        recording
        for recording in dataset.recordings
        if config.split in ("all", recording.split)
        and (
            pattern is None
            or fnmatch.fnmatchcase(recording.name, pattern)
            or fnmatch.fnmatchcase(recording.id, pattern)
        )
    ]
    if not chosen:
        of_split = [item for item in dataset.recordings if config.split in ("all", item.split)]
        raise ConfigError(
            f"no recording of {config.dataset} (split: {config.split}) matches {pattern!r}; there"
            f" are {len(of_split)}, the first is {of_split[0].name!r}"
        )
    return chosen, dataset.notes


def _survey_recording(
    recording: DatasetRecording, config: BuildConfig
) -> tuple[SurveyedRecording, list[str]]:
    """Return the recording and what is odd about it without stopping a build."""
    if recording.problem is not None:
        raise BadRecording(recording.problem)
    roles = choose_roles(recording, config.speakers)
    needs_words = config.text != "none" and not roles.is_mix
    if needs_words and not recording.has_words:
        raise BadRecording(
            f"{recording.name}: no transcript, so there is no text to feed ({config.text}); add"
            " it, or use --text none"
        )
    headers = {file: probe_audio(file) for file in roles.files}
    lengths = {file: header.num_samples_24k for file, header in headers.items()}
    duration_us = max(lengths.values()) * US_PER_SECOND // SAMPLE_RATE
    # Reads every annotation file: a broken one is found now, not hours later.
    stated = recording.annotations()
    annotations = replace(stated, duration_us=duration_us)
    item = SurveyedRecording(
        source=recording,
        roles=roles,
        num_frames=max(header.num_frames for header in headers.values()),
        duration_us=duration_us,
        annotations_id=annotations.checked_id(),
        lengths=lengths,
    )
    notes = [*recording.notes, *roles.notes, *oddities(annotations)]
    if abs(stated.duration_us - duration_us) > _DURATION_TOLERANCE_US:
        notes.append(
            f"the annotations say {stated.duration_us / US_PER_SECOND:.1f} s, its audio lasts"
            f" {duration_us / US_PER_SECOND:.1f} s: are they of one recording?"
        )
    if needs_words:
        notes.extend(_words_left_out(annotations))
    elif config.text != "none":
        num_words = len(annotations.words or ())
        notes.append(f"the mix is fed no text ({num_words} words are left out)")
    return item, notes


def _words_left_out(annotations: Annotations) -> list[str]:
    words = annotations.words or ()
    reasons = {
        "are nobody's, by the diarization": sum(word.speaker is None for word in words),
        "are tags of laughter and the like": sum(is_tag(word.text) for word in words),
    }
    return [
        f"{number} words {reason}: left out of the text"
        for reason, number in reasons.items()
        if number
    ]


def oddities(annotations: Annotations) -> list[str]:
    """Return how many events labels leave out or cut, one line a reason."""
    _, faults = clean_events(recording_tables(annotations, Vocabulary.of([annotations])))
    reasons = {
        "end before they begin": faults.empty,
        "begin after the recording's end": faults.past_end,
        "are exact duplicates": faults.duplicates,
        "are cut at the recording's end": faults.cut,
    }
    return [f"{number} events {reason}" for reason, number in reasons.items() if number]
