"""Evaluate a trained run on a split: metrics, a table by recording, plots.

(Not named `evaluate`, because a module of that name would hide the function in the package.)
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from laughstore.errors import ConfigError
from laughstore.files import write_atomic
from laughstore.index import Index
from laughstore.labels import LabelSpec
from laughstore.other_annotations import Annotate, read_other_annotations, tables_digest
from laughstore.timebase import FRAME_US, US_PER_SECOND

from ..losses import ScoreKind, target_kind
from ..probe import PROBES
from ..runs.checkpoint import checkpoint_sha256
from ..runs.drawing import METRICS_FILE, clear_evaluation, draw_curve, draw_timelines
from ..runs.folds import TRAIN_SPLIT, VALIDATION_SPLIT, shown_groups
from ..runs.looks import Look, is_counted, record_look
from ..runs.run import Run
from ..runs.trained import groups_trained_on, index_for, load_trained, other_annotations
from ..scoring.confusion import Confusion
from ..scoring.metrics import FrameMetrics
from ..scoring.score import StreamScores, by_recording, counted_rows, metrics_of
from ..scoring.scored_rows import NOBODY_CHOSE
from ..streaming.device import choose_device
from .baselines import Baseline, baselines_of
from .bootstrap import DRAWS, Interval
from .calibration import Calibration
from .event_metrics import EventMetrics, draw_trade_off, event_metrics
from .events.collar import Collar
from .intervals import metric_intervals
from .null import NULL_DRAWS, ShiftNull, null_of
from .operating import Operating
from .recording_metrics import RecordingMetrics
from .scored_split import SplitScorer, rows_of
from .strata import Division, strata_of
from .temperature import Tempered
from .thresholds import ThresholdRule, asked_rule
from .train_side import TrainSide
from .validated import NO_POINT, OperatingPoint, Validated, own_validation, validated
from .within import WithinStreams

logger = logging.getLogger(__name__)

EVALUATION_FORMAT = "laughstore-evaluation"
EVALUATION_VERSION = 1
_US_PER_HOUR = 3600 * US_PER_SECOND


@dataclass(frozen=True)
class EvaluationResult:
    """What an evaluation found, and where it was written."""

    run: Path
    out: Path
    """Folder of what is written of it."""
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
    point: OperatingPoint
    """The threshold of precision, recall, F1, segments and alarms, and where it was chosen."""
    confusion: Confusion | None
    """Of the rows that count, at the threshold; None without one."""
    operating: Operating | None
    """All that was fitted on validation; None where nothing could be, and of numbers."""
    look: Look | None
    """Which look this is at a split that is neither trained on nor chosen by."""
    intervals: Mapping[str, Interval]
    """Of metrics, by name."""
    null: ShiftNull | None
    """Average precision of labels rotated against the scores; None where that cannot be done, and
    of labels that are numbers."""
    calibration: Calibration | None
    """Of the rows that count; None where scores are no probabilities."""
    tempered: Tempered | None
    """The same at the temperature of validation, which is applied to nothing else; None where
    nothing was fitted."""
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
    opened: Run = field(repr=False, compare=False)
    """The run."""
    index: Index = field(repr=False, compare=False)
    """With the annotations that labels are made from."""
    streams: Sequence[StreamScores] = field(repr=False, compare=False)
    """All rows with their scores, the ignored ones too."""

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
            "operating_point": self.point.to_json(),
            "confusion": None if self.confusion is None else self.confusion.to_json(),
            "fitted_on_validation": None if self.operating is None else self.operating.to_json(),
            "look": None if self.look is None else self.look.to_json(),
            "intervals": {name: found.to_json() for name, found in self.intervals.items()},
            "circular_shift_null": None if self.null is None else self.null.to_json(),
            "calibration": None if self.calibration is None else self.calibration.to_json(),
            "calibration_at_temperature": None
            if self.tempered is None
            else self.tempered.to_json(),
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
    threshold: float | None = None,
    threshold_by: ThresholdRule | str | None = None,
    collar: Collar | None = None,
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
    """Score a split with a trained run; write metrics.json and plots.

    What is fitted (thresholds, segments, temperature) is fitted on the run's validation, once for a
    checkpoint, and kept in the run; if it is not there, validation is scored first. Each look at a
    split other than train and validation is counted in the run, before anything is told of it.

    Args:
        run: folder of the run.
        split: to evaluate.
        shards: shards folder or URL; the run's own if None.
        out: folder to make; RUN/evaluation/SPLIT if None, where an older evaluation is replaced.
        checkpoint: `best`, `last`, or the path of a checkpoint.
        threshold: to decide by, 0 to 1, instead of one that validation chose.
        threshold_by: rule by which validation chooses it, such as `precision@0.9`; None: f1.
        collar: how near segments must be to bouts; as usual if None, and in all that is fitted.
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
        ConfigError: no such split or rule, out exists, the run's annotations have changed, no row
            takes part, a look cannot be counted, the checkpoint is another run's, its scores are
            not finite, or the cache cannot be used.
        SpecMismatch: the shards hold features of another model or setting than the run's.
        CorruptData: a file was altered or cut.
    """
    if timelines < 0:
        raise ConfigError(f"timelines is {timelines}; it must be 0 or more")
    if out is not None and out.exists():
        raise ConfigError(f"{out} exists; choose another --out, or delete it")
    result = evaluation_of(
        run,
        split=split,
        shards=shards,
        checkpoint=checkpoint,
        threshold=threshold,
        threshold_by=threshold_by,
        collar=collar,
        device=device,
        bootstrap=bootstrap,
        null=null,
        annotations=annotations,
        annotate=annotate,
        cache=cache,
        cache_gb=cache_gb,
        progress=progress,
    )
    folder = out or result.out
    clear_evaluation(folder)
    title = f"{split}: {result.label.describe()}"
    plots = (
        *draw_curve(folder, result.streams, result.metrics, title),
        *draw_trade_off(folder, result.events, title),
        *draw_timelines(
            folder,
            result.index,
            by_recording(result.streams),
            result.label,
            result.scores,
            result.metrics.base_rate,
            timelines,
        ),
    )
    result = replace(result, out=folder, plots=plots)
    text = json.dumps(result.to_json(), indent=1, sort_keys=True, allow_nan=False)
    write_atomic(folder / METRICS_FILE, f"{text}\n".encode())
    return result


def evaluation_of(
    run: Path,
    *,
    split: str = "validation",
    shards: Path | str | None = None,
    checkpoint: str = "best",
    threshold: float | None = None,
    threshold_by: ThresholdRule | str | None = None,
    collar: Collar | None = None,
    device: str = "auto",
    bootstrap: int = DRAWS,
    null: int = NULL_DRAWS,
    annotations: Path | None = None,
    annotate: Annotate = read_other_annotations,
    cache: Path | None = None,
    cache_gb: float = 50.0,
    progress: Callable[[int, int], None] | None = None,
    by: str = "evaluate",
) -> EvaluationResult:
    """Score a split with a trained run; no metrics.json is written, and no plot.

    The arguments and errors are those of `evaluate`; `by` is what looks, for the count of looks.
    """
    for name, value in (("bootstrap", bootstrap), ("null", null)):
        if value < 0:
            raise ConfigError(f"{name} is {value}; it must be 0 or more")
    rule = asked_rule(threshold, threshold_by)
    opened = Run.open(run)
    config = opened.config
    label, has_classes = config.label, target_kind(config.label) == "classes"
    if config.probe:
        names = ", ".join(probe.name for probe in config.probes[:3])
        raise ConfigError(
            f"{run} holds {len(config.probes)} probes ({names}, ...): evaluate one of them,"
            f" {run / PROBES / config.probes[0].name}"
        )
    if not has_classes and not (threshold is None and threshold_by is None):
        raise ConfigError(
            f"{run}: label {label.label} asks for numbers, which have no threshold; leave"
            " --threshold and --threshold-by away"
        )
    index = index_for(opened, shards, annotations, annotate)
    selection = rows_of(opened, index, split)
    known_groups = groups_trained_on(index, opened, selection) if split != TRAIN_SPLIT else ()
    if known_groups:
        logger.warning(
            "%s of split %r were trained on, too: its scores are too good",
            shown_groups(known_groups),
            split,
        )
    trained = load_trained(opened, checkpoint)
    model = trained.model.to(choose_device(device))
    scorer = SplitScorer(opened, model, cache=cache, cache_gb=cache_gb, progress=progress)
    chosen, point = Validated(None, None, None), NO_POINT
    if has_classes:
        own = own_validation(opened, index, shards, annotations, annotate)
        chosen = validated(opened, trained, own, rule, scorer)
        on_itself = own is index and split == VALIDATION_SPLIT
        point = chosen.point(trained, rule, threshold, on_these_rows=on_itself)
    scored = scorer.score(index, split)
    look = None
    if is_counted(split):
        look = record_look(
            opened,
            split,
            checkpoint=trained.path,
            checkpoint_sha256=checkpoint_sha256(trained.path),
            index_id=index.index_id,
            annotations_sha256=tables_digest(index),
            by=by,
        )
    streams = scored.streams
    groups = by_recording(streams)
    y, score = counted_rows(streams)
    positive = y > 0
    no_threshold = point.reason or NOBODY_CHOSE
    metrics = metrics_of(streams, label, threshold=point.threshold, no_threshold=no_threshold)
    events = event_metrics(
        index,
        streams,
        label,
        threshold=point.threshold,
        operating=chosen.operating,
        collar=collar,
    )
    train = TrainSide.of(opened, index, model, shards=shards, annotate=annotate, scorer=scorer)
    return EvaluationResult(
        run=run,
        out=run / "evaluation" / split,
        split=split,
        checkpoint=trained.path,
        label=label,
        scores=model.scores,
        generation=index.generation,
        index_id=index.index_id,
        annotations=annotations or config.annotations,
        groups_trained_on=known_groups,
        fold=None if config.folds is None else {"folds": config.folds, "fold": config.fold},
        other_annotations=other_annotations(index, opened, annotations or config.annotations),
        metrics=metrics,
        point=point,
        confusion=None
        if point.threshold is None
        else Confusion.of(positive, score, point.threshold),
        operating=chosen.operating,
        look=look,
        intervals=metric_intervals(
            index, streams, label, threshold=point.threshold, draws=bootstrap
        ),
        null=null_of(streams, label, draws=null),
        calibration=Calibration.of(positive, score) if model.scores == "probability" else None,
        tempered=None
        if chosen.operating is None
        else Tempered.of(chosen.operating.temperature, positive, score),
        within=WithinStreams.of(streams, label),
        baselines=baselines_of(index, streams, label, train),
        events=events,
        strata=strata_of(
            index,
            streams,
            label,
            threshold=point.threshold,
            outcomes=events.outcomes,
            no_threshold=no_threshold,
        ),
        num_ignored=sum(int((~stream.eligible).sum()) for stream in streams),
        num_skipped_blocks=scored.num_skipped_blocks,
        num_streams=len(streams),
        recordings=tuple(
            RecordingMetrics(
                key,
                index.recording(key).name,
                len(group),
                metrics_of(group, label, threshold=point.threshold, no_threshold=no_threshold),
            )
            for key, group in groups.items()
        ),
        plots=(),
        opened=opened,
        index=index,
        streams=streams,
    )
