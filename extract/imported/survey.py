"""Look at features before they are imported: whose they are, how long, what is amiss.

Opens every file, reads no features, writes nothing. Features meet their recording of the data set
by its name; where both know something (the split, the length), both have to agree, or it is told.
"""

import fnmatch
from dataclasses import dataclass, field, replace

from laughstore.annotations import Annotations, Speaker
from laughstore.buildplan import Assignment, SkippedRecording
from laughstore.errors import BadRecording, ConfigError
from laughstore.naming import MIX, assignment_names, is_path_part, recording_id
from laughstore.progress import NoProgress, Progress
from laughstore.timebase import FRAME_US, SAMPLE_RATE, US_PER_SECOND, ceil_frame

from ..datasets import DatasetRecording, open_dataset
from ..layouts.folders import SPLIT_ORDER
from ..layouts.recording import UNKNOWN_SPLIT, show_of
from ..reasons import reason_of
from ..roles import choose_roles
from ..sound.tracks import probe_audio
from ..survey import oddities
from .config import ImportConfig
from .layouts import FoundFeatures, FoundStream, find_features

NO_ANNOTATIONS = (
    "without --dataset there are no events: every label has no positive row until `laughstore"
    " annotate STORE --from DATASET` brings them"
)


@dataclass(frozen=True)
class SurveyedFeatures:
    """Features that can be imported."""

    name: str
    split: str
    group: str
    num_frames: int
    """To be stored: those behind the end of the audio are left out."""
    streams: tuple[FoundStream, ...]
    assignments: tuple[Assignment, ...]
    """Of each stream."""
    duration_us: int
    annotations_id: str
    source: DatasetRecording | None = field(repr=False)

    @property
    def id(self) -> str:
        """The recording's id in paths, keys and URLs."""
        return recording_id(self.name)

    def annotations(self) -> Annotations:
        """Read the recording's annotations (again: a corpus's words do not fit in memory)."""
        return _annotations(self.name, self.source, self.assignments, self.duration_us)


@dataclass(frozen=True)
class ImportSurvey:
    """What a folder of features holds."""

    recordings: tuple[SurveyedFeatures, ...]
    skipped: tuple[SkippedRecording, ...]
    notes: tuple[str, ...] = field(repr=False)
    dim: int
    """Channels of all of them; 0 when there are none."""

    @property
    def num_frames(self) -> int:
        """Frames of all streams."""
        return sum(item.num_frames * len(item.streams) for item in self.recordings)

    @property
    def audio_hours(self) -> float:
        """Hours of recordings, each counted once."""
        return sum(item.num_frames for item in self.recordings) * FRAME_US / US_PER_SECOND / 3600


def survey_features(config: ImportConfig, progress: Progress | None = None) -> ImportSurvey:
    """Survey the features of an import.

    Raises:
        NotFound: a folder does not exist.
        ConfigError: there are no features in it, nothing matches, two are of one recording, or they
            are of several models; as `extract.datasets.open_dataset`.
        BadRecording: one cannot be imported and the import is strict.
    """
    progress = progress or NoProgress()
    found = find_features(config.features)
    notes: list[str] = []
    known: dict[str, DatasetRecording] = {}
    if config.dataset is None:
        notes.append(NO_ANNOTATIONS)
    else:
        dataset = open_dataset(config.dataset, config.layout, needs_audio=False)
        notes.extend(dataset.notes)
        known = {item.id: item for item in dataset.recordings}
        without = known.keys() - {recording_id(item.name) for item in found}
        if without:
            some = min(known[key].name for key in without)
            notes.append(
                f"{len(without)} of {len(known)} recordings of the data set have no features here,"
                f" the first is {some!r}"
            )
    chosen = _chosen(config, found, known)
    kept: list[SurveyedFeatures] = []
    skipped: list[SkippedRecording] = []
    progress.begin("survey", len(chosen), "recording")
    try:
        for item, split in chosen:
            try:
                one, about = _survey_one(item, split, known.get(recording_id(item.name)), config)
            except BadRecording as error:
                if config.strict:
                    raise
                skipped.append(SkippedRecording(item.name, split, reason_of(error, *config.places)))
            else:
                kept.append(one)
                notes.extend(f"{item.name}: {note}" for note in about)
            progress.advance(1)
    finally:
        progress.end()
    _refuse_twice(kept)
    return ImportSurvey(tuple(kept), tuple(skipped), tuple(notes), _one_dim(kept))


def _chosen(
    config: ImportConfig, found: list[FoundFeatures], known: dict[str, DatasetRecording]
) -> list[tuple[FoundFeatures, str]]:
    """Return what is asked for, with its split: in order of splits, then of names."""
    all_of_it: list[tuple[FoundFeatures, str]] = []
    for item in found:
        source = known.get(recording_id(item.name))
        split = item.split if source is None else source.split
        all_of_it.append((item, UNKNOWN_SPLIT if split is None else split))
    splits = {split for _, split in all_of_it}
    if config.split not in ("all", *splits):
        raise ConfigError(
            f"{config.features} has no split {config.split!r}; it has {', '.join(sorted(splits))}"
        )
    pattern = config.recordings
    chosen = [
        (item, split)
        for item, split in all_of_it
        if config.split in ("all", split)
        and (
            pattern is None
            or fnmatch.fnmatchcase(item.name, pattern)
            or fnmatch.fnmatchcase(recording_id(item.name), pattern)
        )
    ]
    if not chosen:
        raise ConfigError(
            f"no recording of {config.features} (split: {config.split}) matches {pattern!r}; there"
            f" are {len(found)}, the first is {found[0].name!r}"
        )

    def order(entry: tuple[FoundFeatures, str]) -> tuple[int, str, str]:
        item, split = entry
        place = SPLIT_ORDER.index(split) if split in SPLIT_ORDER else len(SPLIT_ORDER)
        return place, split, item.name

    return sorted(chosen, key=order)


def _survey_one(
    item: FoundFeatures, split: str, source: DatasetRecording | None, config: ImportConfig
) -> tuple[SurveyedFeatures, list[str]]:
    """Return the recording and what is odd about it without stopping an import."""
    if item.problem is not None:
        raise BadRecording(item.problem)
    if config.dataset is not None and source is None:
        raise BadRecording(
            f"{item.name}: features of a recording that the data set does not have; correct the"
            " name of either, or leave it out"
        )
    if not is_path_part(split) or split == UNKNOWN_SPLIT:
        raise BadRecording(
            f"{item.name}: nothing tells its split; put its file into a folder of that name"
            " (letters, digits, - and _), or give --dataset"
        )
    notes = list(item.notes)
    if source is not None:
        source.refuse_fault()
        if item.split not in (None, split):
            notes.append(
                f"its features say split {item.split}, the data set {split}: it is {split}"
            )
    assignments = _assignments(item, source, config)
    num_frames, duration_us = _length(item, source, assignments, config, notes)
    annotations = _annotations(item.name, source, assignments, duration_us)
    if source is not None:
        notes += [*source.notes, *oddities(annotations)]
    one = SurveyedFeatures(
        name=item.name if source is None else source.name,
        split=split,
        group=show_of(item.name) if source is None else source.group,
        num_frames=num_frames,
        streams=item.streams,
        assignments=assignments,
        duration_us=duration_us,
        annotations_id=annotations.checked_id(),
        source=source,
    )
    return one, notes


def _assignments(
    item: FoundFeatures, source: DatasetRecording | None, config: ImportConfig
) -> tuple[Assignment, ...]:
    """Return who is main in each stream: as the features say, else by the data set."""
    roles = [(stream.main, stream.other) for stream in item.streams if stream.main is not None]
    if not roles:
        return _assignments_by_dataset(item, source, config)
    names = {who for pair in roles for who in pair if who is not None}
    if MIX in names:
        raise BadRecording(f"{item.name}: a speaker is named {MIX!r}, which stands for a mix")
    if len(set(roles)) != len(roles):
        raise BadRecording(f"{item.name}: two streams have the same main and other")
    there = set() if source is None else {who.name for who in source.speakers}
    strangers = sorted(names - there) if there else []
    if strangers:
        raise BadRecording(
            f"{item.name}: its features are of {', '.join(strangers)}, the data set knows"
            f" {', '.join(sorted(there))}: it is another diarization, and events would be"
            " given to the wrong speakers"
        )
    named = assignment_names(roles)
    return tuple(Assignment(name, *who) for name, who in zip(named, roles, strict=True))


def _assignments_by_dataset(
    item: FoundFeatures, source: DatasetRecording | None, config: ImportConfig
) -> tuple[Assignment, ...]:
    if source is None:
        raise BadRecording(
            f"{item.name}: nothing tells who is main in its features; give --dataset"
        )
    assignments = choose_roles(source, config.roles).assignments
    if len(assignments) != len(item.streams):
        raise BadRecording(
            f"{item.name}: its features are {len(item.streams)} streams, and by the data set"
            f" (--speakers {config.roles}) it has {len(assignments)}; state another --speakers, or"
            " leave it out"
        )
    for stream, by_dataset in zip(item.streams, assignments, strict=True):
        if stream.listed_main not in (None, by_dataset.main) and by_dataset.main != MIX:
            raise BadRecording(
                f"{item.name}: its list names {stream.listed_main!r} as main where the data set has"
                f" {by_dataset.main!r}; leave it out"
            )
    return assignments


def _length(
    item: FoundFeatures,
    source: DatasetRecording | None,
    assignments: tuple[Assignment, ...],
    config: ImportConfig,
    notes: list[str],
) -> tuple[int, int]:
    """Return the frames to be stored and the duration (us): features and audio are held together.

    Raises:
        BadRecording: their lengths differ, or streams do.
    """
    lengths = {stream.num_rows for stream in item.streams}
    if len(lengths) > 1:
        shown = " and ".join(map(str, sorted(lengths)))
        raise BadRecording(f"{item.name}: its streams have {shown} frames; extract it again")
    (num_rows,) = lengths
    tolerance = config.tolerance_frames
    heard_us = _heard_us(source, assignments)
    duration_us = item.duration_us if heard_us is None else heard_us
    if tolerance is None:
        return num_rows, num_rows * FRAME_US if duration_us is None else duration_us
    if duration_us is None:
        raise BadRecording(
            f"{item.name}: nothing tells how long its audio is, to hold {num_rows} frames against;"
            " give a --dataset with its audio, or --length-tolerance off"
        )
    num_frames = ceil_frame(duration_us)
    difference = num_rows - num_frames
    what = "its audio" if heard_us is not None else "the audio they say they are of"
    if abs(difference) > tolerance:
        raise BadRecording(
            f"{item.name}: its features have {num_rows} frames"
            f" ({num_rows * FRAME_US / US_PER_SECOND:.2f} s), {what} has {num_frames}"
            f" ({duration_us / US_PER_SECOND:.2f} s): are they of one recording? If they are:"
            f" --length-tolerance {abs(difference)}f"
        )
    if difference:
        notes.append(f"its features have {num_rows} frames, {what} has {num_frames}")
    return min(num_rows, num_frames), duration_us


def _heard_us(source: DatasetRecording | None, assignments: tuple[Assignment, ...]) -> int | None:
    """Return the length of what was heard, if the data set has the sound of it (us)."""
    if source is None:
        return None
    names = {who for item in assignments for who in (item.main, item.other)}
    files = [file for name, file in source.tracks.items() if name in names]
    if not files and source.mix is not None:
        files = [source.mix]
    if not files:
        return None
    longest = max(probe_audio(file).num_samples_24k for file in files)
    return longest * US_PER_SECOND // SAMPLE_RATE


def _annotations(
    name: str,
    source: DatasetRecording | None,
    assignments: tuple[Assignment, ...],
    duration_us: int,
) -> Annotations:
    if source is not None:
        found = source.annotations()
        if found.speakers or any(item.main == MIX for item in assignments):
            return replace(found, duration_us=duration_us)
        return replace(found, duration_us=duration_us, speakers=_speakers(assignments))
    return Annotations(recording=name, duration_us=duration_us, speakers=_speakers(assignments))


def _speakers(assignments: tuple[Assignment, ...]) -> tuple[Speaker, ...]:
    """Return who is main or other; for how long they speak nobody says."""
    names = [who for item in assignments for who in (item.main, item.other) if who is not None]
    return tuple(Speaker(who, 0) for who in sorted(set(names)))


def _refuse_twice(kept: list[SurveyedFeatures]) -> None:
    """Refuse two files of one recording: here, so that a dry run tells it, too."""
    first: dict[str, SurveyedFeatures] = {}
    for item in kept:
        before = first.setdefault(item.id, item)
        if before is not item:
            a, b = (each.streams[0].path for each in (before, item))
            raise ConfigError(f"{a} and {b} are both features of {item.name!r}; keep one of them")


def _one_dim(kept: list[SurveyedFeatures]) -> int:
    dims = {stream.dim: item.name for item in kept for stream in item.streams}
    if len(dims) > 1:
        (a, one), (b, other), *_ = dims.items()
        raise ConfigError(
            f"features of two models: {one!r} has {a} channels, {other!r} {b}; import each into a"
            " store of its own (--recordings)"
        )
    return next(iter(dims), 0)
