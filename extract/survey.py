"""Look at a data set before it is built: which recordings can be, how long they are, what is amiss.

Reads every header and annotation file, decodes no audio, loads no model, writes nothing.
"""

import fnmatch
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from laughstore.annotations import Annotations
from laughstore.buildplan import Assignment, SkippedRecording
from laughstore.errors import BadRecording, ConfigError
from laughstore.naming import assignment_name
from laughstore.timebase import SAMPLE_RATE, SAMPLES_PER_FRAME

from .audio import AudioInfo, probe_audio
from .config import BuildConfig
from .datasets import DatasetRecording, load_annotations, open_dataset


@dataclass(frozen=True)
class SurveyedRecording:
    """A recording that can be built."""

    source: DatasetRecording
    tracks: tuple[Path, ...]
    """Of the one or two main speakers, the longer-speaking first."""
    num_frames: int
    """Of the longer track."""
    assignments: tuple[Assignment, ...]
    annotations_id: str
    """Of the content of its annotations."""

    def annotations(self) -> Annotations:
        """Read the recording's annotations (again: a corpus's words do not fit in memory)."""
        return load_annotations(self.source)


@dataclass(frozen=True)
class Survey:
    """What a data set holds."""

    recordings: tuple[SurveyedRecording, ...]
    skipped: tuple[SkippedRecording, ...]
    notes: tuple[str, ...] = field(repr=False)
    """What is missing but stops nothing, one line each."""

    @property
    def num_frames(self) -> int:
        """Frames of all streams."""
        return sum(item.num_frames * len(item.assignments) for item in self.recordings)

    @property
    def audio_hours(self) -> float:
        """Hours of recordings, each counted once."""
        samples = sum(item.num_frames for item in self.recordings) * SAMPLES_PER_FRAME
        return samples / SAMPLE_RATE / 3600


def survey(config: BuildConfig, on_recording: Callable[[], None] | None = None) -> Survey:
    """Survey the data set of a build.

    Args:
        config: of the build; `split` and `recordings` choose among its recordings.
        on_recording: called after each recording.

    Raises:
        NotFound: the data set's folder does not exist.
        ConfigError: it has another layout, no such split, or nothing matches.
        BadRecording: a recording cannot be built and the build is strict.
    """
    kept: list[SurveyedRecording] = []
    skipped: list[SkippedRecording] = []
    notes: list[str] = []
    for recording in _chosen(config):
        try:
            kept.append(_survey_recording(recording))
        except BadRecording as error:
            if config.strict:
                raise
            skipped.append(SkippedRecording(recording.name, recording.split, str(error)))
        else:
            notes.extend(f"{recording.name}: {note}" for note in recording.notes)
            if len(kept[-1].assignments) == 1:
                only = kept[-1].assignments[0].main
                notes.append(f"{recording.name}: one speaker ({only}); the other is silence")
        if on_recording is not None:
            on_recording()
    return Survey(tuple(kept), tuple(skipped), tuple(notes))


def _chosen(config: BuildConfig) -> list[DatasetRecording]:
    dataset = open_dataset(config.dataset)
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
        raise ConfigError(
            f"no recording of {config.dataset} matches {pattern!r}; there are"
            f" {len(dataset.recordings)}, the first is {dataset.recordings[0].name!r}"
        )
    return chosen


def _survey_recording(recording: DatasetRecording) -> SurveyedRecording:
    if recording.problem is not None:
        raise BadRecording(recording.problem)
    speakers = [speaker.name for speaker in recording.main_speakers]
    tracks = tuple(recording.tracks[name] for name in speakers)
    headers: list[AudioInfo] = [probe_audio(track) for track in tracks]
    return SurveyedRecording(
        source=recording,
        tracks=tracks,
        num_frames=max(header.num_frames for header in headers),
        assignments=_assignments(speakers),
        # Reads every annotation file: a broken one is found now, not hours later.
        annotations_id=load_annotations(recording).content_id(),
    )


def _assignments(speakers: list[str]) -> tuple[Assignment, ...]:
    """Each of the speakers is main once, the longer-speaking first."""
    if len(speakers) == 1:
        return (Assignment(assignment_name(speakers[0], None), speakers[0], None),)
    a, b = speakers
    return (
        Assignment(assignment_name(a, b), a, b),
        Assignment(assignment_name(b, a), b, a),
    )
