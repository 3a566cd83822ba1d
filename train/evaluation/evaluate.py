"""Evaluate a trained run on a split: metrics, a table by recording, plots.

(Not named `evaluate`, because a module of that name would hide the function in the package.)
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from laughstore.errors import ConfigError
from laughstore.files import write_atomic
from laughstore.labels import LabelSpec
from laughstore.other_annotations import Annotate, read_other_annotations
from laughstore.reading.shard_cache import open_cache
from laughstore.timebase import FRAME_US, US_PER_SECOND

from ..losses import ScoreKind
from ..probe import PROBES
from ..runs.drawing import METRICS_FILE, clear_evaluation, draw_curve, draw_timelines
from ..runs.folds import TRAIN_SPLIT, VALIDATION_SPLIT, shown_groups
from ..runs.run import Run
from ..runs.trained import groups_trained_on, index_for, load_trained, other_annotations
from ..scoring.metrics import FrameMetrics
from ..scoring.score import StreamScores, by_recording, counted_rows, metrics_of, score_streams
from ..streaming.device import choose_device
from ..streaming.selection import select
from ..streaming.skip import skipped_blocks, without_blocks
from ..streaming.source import FrameSource
from .baselines import Baseline, baselines_of
from .bootstrap import DRAWS, Interval
from .calibration import Calibration
from .event_metrics import EventMetrics, event_metrics
from .intervals import metric_intervals
from .null import NULL_DRAWS, ShiftNull, null_of
from .strata import Division, strata_of
from .train_side import TrainSide, energy_direction
from .within import WithinStreams

logger = logging.getLogger(__name__)

EVALUATION_FORMAT = "laughstore-evaluation"
EVALUATION_VERSION = 1
_US_PER_HOUR = 3600 * US_PER_SECOND


@dataclass(frozen=True)
class RecordingMetrics:
    """Metrics of one recording, its streams together."""

    recording_id: str
    name: str
    num_streams: int
    metrics: FrameMetrics

    def to_json(self) -> dict[str, Any]:  # Any: JSON values
        """Return a JSON object."""
        return {
            "id": self.recording_id,
            "name": self.name,
            "streams": self.num_streams,
            **self.metrics.to_json(),
        }


@dataclass(frozen=True)
class EvaluationResult:
    """What an evaluation found, and where it was written."""

    run: Path
    out: Path
    split: str
    checkpoint: Path
    label: LabelSpec
    scores: ScoreKind
    """What the run's scores are."""
    generation: int
    """Of the store, whose annotations the labels are made from."""
    index_id: str
    """Of its index."""
    fold: dict[str, int | None] | None
    """Number of folds and the run's, whose groups are the split validation; None without folds."""
    groups_trained_on: tuple[str, ...]
    """Groups (shows) of the split that the run was trained on, too: they make it look better. None
    for the split train, or where the shards are others than the run's and it has no folds."""
    annotations: Path | None
    """Labels were made from these, not from the store's."""
    other_annotations: str | None
    """One line when the run was trained on another index: its labels may have been others."""
    metrics: FrameMetrics
    threshold_of: Literal["checkpoint", "split"] | None
    """Where the threshold of precision, recall and F1 was chosen: by the validation of the
    checkpoint, or, of a checkpoint without one, on this split, which is validation. None: nowhere,
    as for labels that are numbers."""
    intervals: Mapping[str, Interval]
    """Of metrics, by name."""
    null: ShiftNull | None
    """Average precision of labels rotated against the scores; None where that cannot be done, and
    of labels that are numbers."""
    calibration: Calibration | None
    """Of the rows that count; None where scores are no probabilities."""
    within: WithinStreams | None
    """How well scores order the rows of a stream; None for labels that are numbers."""
    baselines: Mapping[str, Baseline]
    """Scores that nobody trained, on the same rows, by name."""
    events: EventMetrics
    """What the scores come to as events."""
    strata: Mapping[str, Division]
    """By kind of laugh, and by show."""
    num_ignored: int
    """Rows of the scored streams that the label leaves out."""
    num_skipped_blocks: int
    """Blocks of the split that are left out, because the run left them out as corrupt."""
    num_streams: int
    """Streams scored; those that ask the same (pair, any) count as one."""
    recordings: tuple[RecordingMetrics, ...]
    plots: tuple[Path, ...]

    @property
    def hours(self) -> float:
        """Hours of counted frames; both streams of a recording count."""
        return self.metrics.num_rows * FRAME_US / _US_PER_HOUR

    def to_json(self) -> dict[str, Any]:  # Any: JSON values
        """Return a JSON object of finite numbers and nulls."""
        return {
            "format": EVALUATION_FORMAT,
            "version": EVALUATION_VERSION,
            "split": self.split,
            "checkpoint": self.checkpoint.name,
            "label": self.label.identity(),
            "label_text": self.label.describe(),
            "scores": self.scores,
            "generation": self.generation,
            "index_id": self.index_id,
            "fold": self.fold,
            "groups_trained_on": list(self.groups_trained_on),
            "annotations": None if self.annotations is None else str(self.annotations),
            "other_annotations": self.other_annotations,
            "metrics": self.metrics.to_json(),
            "threshold_of": self.threshold_of,
            "intervals": {name: found.to_json() for name, found in self.intervals.items()},
            "circular_shift_null": None if self.null is None else self.null.to_json(),
            "calibration": None if self.calibration is None else self.calibration.to_json(),
            "within_streams": None if self.within is None else self.within.to_json(),
            "baselines": {name: found.to_json() for name, found in self.baselines.items()},
            "events": self.events.to_json(),
            "strata": {name: found.to_json() for name, found in self.strata.items()},
            "ignored": self.num_ignored,
            "skipped_blocks": self.num_skipped_blocks,
            "streams": self.num_streams,
            "hours": round(self.hours, 6),
            "recordings": [item.to_json() for item in self.recordings],
        }


def evaluate(
    run: Path,
    *,
    split: str = "validation",
    shards: Path | str | None = None,
    out: Path | None = None,
    checkpoint: str = "best",
    device: str = "auto",
    timelines: int = 8,
    bootstrap: int = DRAWS,
    null: int = NULL_DRAWS,
    annotations: Path | None = None,
    annotate: Annotate = read_other_annotations,
    cache: Path | None = None,
    cache_gb: float = 50.0,
    progress: Callable[[int, int], None] | None = None,
) -> EvaluationResult:
    """Score a split with a trained run; write metrics.json, pr.png and timelines.

    Args:
        run: folder of the run.
        split: to evaluate.
        shards: shards folder or URL; the run's own if None.
        out: folder to make; RUN/evaluation/SPLIT if None, where an older evaluation is replaced.
        checkpoint: `best`, `last`, or the path of a checkpoint.
        device: as in TrainConfig.
        timelines: most recordings to draw; those with the most positive rows are chosen.
        bootstrap: draws of groups, or of recordings, for intervals; 0: none are made.
        null: rotations of labels against scores, for average precision by chance; 0: none.
        annotations: to make labels from instead of those that the run was trained with.
        annotate: reads them; see `train`.
        cache: folder of this machine that keeps blocks of remote shards; none if None.
        cache_gb: bound of that folder, in units of 10^9 bytes.
        progress: called with (rows done, rows).

    Raises:
        NotFound: no run, shards, checkpoint or annotations there.
        ConfigError: no such split, out exists, the run's annotations have changed, no row takes
            part, the checkpoint is another run's, its scores are not finite, or the cache cannot
            be used.
        SpecMismatch: the shards hold features of another model or setting than the run's.
        CorruptData: a file was altered or cut.
    """
    for name, value in (("timelines", timelines), ("bootstrap", bootstrap), ("null", null)):
        if value < 0:
            raise ConfigError(f"{name} is {value}; it must be 0 or more")
    if out is not None and out.exists():
        raise ConfigError(f"{out} exists; choose another --out, or delete it")
    opened = Run.open(run)
    config = opened.config
    if config.probe:
        names = ", ".join(probe.name for probe in config.probes[:3])
        raise ConfigError(
            f"{run} holds {len(config.probes)} probes ({names}, ...): evaluate one of them,"
            f" {run / PROBES / config.probes[0].name}"
        )
    index = index_for(opened, shards, annotations, annotate)
    annotations = annotations or config.annotations
    selection = select(
        index,
        split,
        config.label,
        config.filter,
        advice=f"the filter and the label are those that {run} was trained with: evaluate another"
        " --split or --shards, or train another run",
    )
    known_groups = groups_trained_on(index, opened, selection) if split != TRAIN_SPLIT else ()
    if known_groups:
        logger.warning(
            "%s of split %r were trained on, too: its scores are too good",
            shown_groups(known_groups),
            split,
        )
    where = str(run)
    skipped = skipped_blocks(index, split, opened.skip, where=where, may_be_gone=True)
    selection = without_blocks(selection, np.array(list(skipped), np.int64))
    trained = load_trained(opened, checkpoint)
    model = trained.model.to(choose_device(device))
    kept = open_cache(cache, cache_gb, index.folder)
    with FrameSource(
        index, split, verify=config.verify, damaged=bool(skipped), cache=kept
    ) as source:
        streams = score_streams(
            model,
            selection,
            source,
            config.label,
            ignored_too=True,
            energies=True,
            progress=progress,
        )
    moved = shards is not None and index.index_id != opened.index_id
    train = TrainSide.of(opened, index, moved=moved, annotate=annotate)
    energy = train if isinstance(train, str) else energy_direction(train, model, cache=kept)
    folder = out or run / "evaluation" / split
    clear_evaluation(folder)
    groups = by_recording(streams)
    threshold, threshold_of = trained.threshold, "checkpoint"
    if threshold is None and split == VALIDATION_SPLIT:
        threshold, threshold_of = metrics_of(streams, config.label).threshold, "split"
    metrics = metrics_of(streams, config.label, threshold=threshold)
    events = event_metrics(index, streams, config.label, threshold=threshold)
    result = EvaluationResult(
        run=run,
        out=folder,
        split=split,
        checkpoint=trained.path,
        label=config.label,
        scores=model.scores,
        generation=index.generation,
        index_id=index.index_id,
        annotations=annotations,
        groups_trained_on=known_groups,
        fold=None if config.folds is None else {"folds": config.folds, "fold": config.fold},
        other_annotations=other_annotations(index, opened, annotations),
        metrics=metrics,
        threshold_of=None if threshold is None else threshold_of,
        intervals=metric_intervals(
            index, streams, config.label, threshold=threshold, draws=bootstrap
        ),
        null=null_of(streams, config.label, draws=null),
        calibration=_calibration(streams) if model.scores == "probability" else None,
        within=WithinStreams.of(streams, config.label),
        baselines=baselines_of(index, streams, config.label, train, energy),
        events=events,
        strata=strata_of(
            index, streams, config.label, threshold=threshold, outcomes=events.outcomes
        ),
        num_ignored=sum(int((~stream.eligible).sum()) for stream in streams),
        num_skipped_blocks=len(skipped),
        num_streams=len(streams),
        recordings=tuple(
            RecordingMetrics(
                key,
                index.recording(key).name,
                len(group),
                metrics_of(group, config.label, threshold=threshold),
            )
            for key, group in groups.items()
        ),
        plots=(
            *draw_curve(folder, streams, metrics, f"{split}: {config.label.describe()}"),
            *draw_timelines(
                folder, index, groups, config.label, model.scores, metrics.base_rate, timelines
            ),
        ),
    )
    text = json.dumps(result.to_json(), indent=1, sort_keys=True, allow_nan=False)
    write_atomic(folder / METRICS_FILE, f"{text}\n".encode())
    return result


def _calibration(streams: Sequence[StreamScores]) -> Calibration | None:
    y, score = counted_rows(streams)
    return Calibration.of(y > 0, score)
