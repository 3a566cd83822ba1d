"""Predict recordings into a folder: find them, score them, write each as it ends, go on later.

A file that cannot be used is told of and passed over. Nothing is printed here.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from train.runs.run import Run
from train.runs.trained import Trained, load_trained
from train.streaming.selection import FrameFilter

from ...errors import BadRecording, ConfigError, LaughstoreError, NotFound
from ...files import sha256_file
from ...progress import NoProgress, Progress
from ...timebase import Span
from .batch import Text, Unusable, score_recordings
from .config import PredictConfig
from .files import PredictionFolder, Wanted, formats_of
from .heard import Heard, hear_file, hear_tracks
from .inputs import find_audio
from .opened import OpenedRun, open_run, read_run
from .result import Prediction
from .rule import Segmenting, choose_segmenting
from .transcript import read_transcript, text_of


@dataclass(frozen=True)
class Predicted:
    """A recording that was predicted now."""

    name: str
    json: Path
    """The file that tells all; the others stand beside it."""
    num_segments: int | None
    """None of labels that are numbers."""
    segments_us: int
    duration_us: int
    warnings: tuple[str, ...]


@dataclass
class Outcome:
    """What came of all recordings."""

    label: str
    """What was predicted, for people."""
    predicted: list[Predicted] = field(default_factory=list)
    done_before: list[str] = field(default_factory=list)
    """Names of recordings that were passed over."""
    unusable: dict[str, str] = field(default_factory=dict)
    """Why, by the name of the file."""

    @property
    def warnings(self) -> list[str]:
        """Each warning once."""
        return list(dict.fromkeys(text for item in self.predicted for text in item.warnings))


def predict(config: PredictConfig, progress: Progress | None = None) -> Outcome:
    """Predict all recordings that are meant, or those that are left.

    Args:
        config: what to predict.
        progress: told of frames, and of files that cannot be used.

    Raises:
        NotFound: no such run, model, sound or transcript.
        ConfigError: a setting cannot work, or the folder exists or was begun with others.
        SpecMismatch: the model is not that of the run's features.
        CorruptData: a file of the run or the model was altered or cut.
        LaughstoreError: no recording can be used.
    """
    progress = progress or NoProgress()
    run = read_run(config.run)
    _check_text(config, run)
    trained = load_trained(run, config.checkpoint)
    segmenting = choose_segmenting(
        run,
        trained,
        threshold=config.threshold,
        threshold_by=config.threshold_by or "f1",
        min_duration=_given(config.min_duration),
        merge_gap=_given(config.merge_gap),
    )
    has_segments = segmenting is not None
    wanted = Wanted(
        formats_of(config.format, has_segments=has_segments),
        frames=config.frames or not has_segments,
    )
    settings = _settings(config, run, trained, segmenting, wanted)
    folder = PredictionFolder(config.out, settings, wanted)
    folder.check(resume=config.resume)
    outcome = Outcome(run.config.label.describe())
    recordings = list(_recordings(config, run, wanted, outcome, progress))
    left = []
    for item in recordings:
        if folder.has(item):
            outcome.done_before.append(item.title)
        else:
            left.append(item)
    if left:
        opened = open_run(run, trained, model=config.model, device=config.device)
        job = _Job(config, opened, segmenting, folder, settings, outcome, progress)
        job.run(left)
    if not outcome.predicted and not outcome.done_before:
        reason = next(iter(outcome.unusable.values()))
        raise LaughstoreError(f"none of {len(outcome.unusable)} can be used; the first: {reason}")
    return outcome


def _given(span: Literal["auto"] | Span) -> Span | None:
    return span if isinstance(span, Span) else None


def _check_text(config: PredictConfig, run: Run) -> None:
    text = run.spec.text
    if text == "none":
        if config.transcript is not None:
            raise ConfigError(f"{run.path} hears no words; leave --transcript out")
        return
    if config.transcript is None:
        raise ConfigError(
            f"{run.path} was trained with words (text: {text}), and its scores without any are not"
            " what was validated; give --transcript FILE"
        )
    is_one = config.main is not None or (len(config.audio) == 1 and not config.audio[0].is_dir())
    if not is_one:
        raise ConfigError("--transcript is of one recording; give one sound file, or --main FILE")
    if not config.transcript.is_file():
        raise NotFound(f"{config.transcript}: no such file; give the transcript of the recording")


def _settings(
    config: PredictConfig,
    run: Run,
    trained: Trained,
    segmenting: Segmenting | None,
    wanted: Wanted,
) -> dict[str, Any]:  # Any: JSON values
    """Return all that decides what is written for a recording, as a JSON object."""
    transcript = config.transcript
    return {
        "run_config_sha256": run.sha256,
        "head_sha256": trained.sha256,
        "spec_id": run.spec.spec_id,
        "segmenting": None if segmenting is None else segmenting.to_json(),
        "formats": ["json", *wanted.formats],
        "frames": wanted.frames,
        "transcript_sha256": None if transcript is None else sha256_file(transcript),
    }


def _recordings(
    config: PredictConfig, run: Run, wanted: Wanted, outcome: Outcome, progress: Progress
) -> Iterable[Heard]:
    """Yield what can be heard; tell of the rest."""
    if config.main is not None:
        for path in (config.main, config.other):
            if path is not None and not path.is_file():
                raise NotFound(f"{path}: no such file; give the track of a speaker")
        try:
            yield hear_tracks(run, config.main, config.other)
        except BadRecording as error:
            _tell_unusable(str(config.main), error, outcome, progress)
        return
    for found in find_audio(config.audio, wanted.paths):
        try:
            yield hear_file(run, found)
        except BadRecording as error:
            _tell_unusable(str(found.path), error, outcome, progress)


def _tell_unusable(file: str, error: BadRecording, outcome: Outcome, progress: Progress) -> None:
    outcome.unusable[file] = str(error)
    progress.message(f"left out: {error}")


def _warnings(run: Run, trained: Trained) -> list[str]:
    """Return what is to be known of all scores of a run."""
    found = []
    asked = run.config.filter
    rows = FrameFilter(
        min_context=asked.min_context,
        turn_within=asked.turn_within,
        legacy_filter=asked.legacy_filter,
    )
    if rows != FrameFilter():
        found.append(
            f"the run was trained and validated on some rows alone ({rows.describe()}), and here"
            " all are scored"
        )
    if trained.model.scores == "order":
        found.append("scores order frames, and are no probabilities (docs/labels.md, Losses)")
    return found


@dataclass
class _Job:
    """Scores what is left, and writes it."""

    config: PredictConfig
    opened: OpenedRun
    segmenting: Segmenting | None
    folder: PredictionFolder
    settings: Mapping[str, Any]
    outcome: Outcome
    progress: Progress

    def run(self, left: Sequence[Heard]) -> None:
        self.folder.make()
        self.progress.begin("predict", sum(item.num_frames for item in left), "frame")
        try:
            scored = score_recordings(
                self.opened, left, text=self._text(), advance=self.progress.advance
            )
            with closing(scored):
                for item in scored:
                    if isinstance(item, Unusable):
                        files = " and ".join(map(str, item.heard.files.values()))
                        _tell_unusable(files, item.error, self.outcome, self.progress)
                    else:
                        self._write(item.heard, item.score)
        finally:
            self.progress.end()

    def _text(self) -> Text | None:
        path, encode, mode = self.config.transcript, self.opened.encode, self.opened.how.text
        if path is None or encode is None:
            return None
        return lambda heard: text_of(read_transcript(path, heard), mode, heard.num_frames, encode)

    def _write(self, heard: Heard, score: NDArray[np.float32]) -> None:
        opened = self.opened
        found = Prediction.of(
            heard,
            score,
            label=opened.label,
            scores=opened.trained.model.scores,
            segmenting=self.segmenting,
            warnings=_warnings(opened.run, opened.trained),
        )
        more = {
            "run": str(opened.run.path.absolute()),
            "checkpoint": opened.trained.path.name,
            "settings": dict(self.settings),
        }
        paths = self.folder.write(found, more)
        segments = found.segments
        self.outcome.predicted.append(
            Predicted(
                heard.title,
                paths[-1],
                None if segments is None else len(segments),
                found.total_us,
                heard.duration_us,
                found.warnings,
            )
        )
