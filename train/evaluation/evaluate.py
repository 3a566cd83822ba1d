"""Evaluate a trained run on a split: metrics, a table by recording, plots."""

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from laughstore.errors import ConfigError
from laughstore.files import write_atomic
from laughstore.other_annotations import Annotate, read_other_annotations, tables_digest

from ..losses import target_kind
from ..probe import PROBES
from ..runs.checkpoint import checkpoint_sha256
from ..runs.drawing import METRICS_FILE, clear_evaluation, draw_curve, draw_timelines
from ..runs.folds import TRAIN_SPLIT, VALIDATION_SPLIT, shown_groups
from ..runs.looks import is_counted, record_look
from ..runs.run import Run
from ..runs.trained import groups_trained_on, index_for, load_trained, other_annotations
from ..scoring.confusion import Confusion
from ..scoring.score import by_recording, counted_rows, metrics_of
from ..scoring.scored_rows import NOBODY_CHOSE
from ..streaming.device import choose_device
from .baselines import baselines_of
from .bootstrap import DRAWS
from .calibration import Calibration
from .event_metrics import draw_trade_off, event_metrics
from .events.collar import Collar
from .intervals import metric_intervals
from .null import NULL_DRAWS, null_of
from .recording_metrics import RecordingMetrics
from .result import EvaluationResult
from .scored_split import SplitScorer, rows_of
from .strata import strata_of
from .temperature import Tempered
from .thresholds import ThresholdRule, asked_rule
from .train_side import TrainSide
from .validated import NO_POINT, Validated, own_validation, validated
from .within import WithinStreams

logger = logging.getLogger(__name__)


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
    checkpoint, and kept in the run; if it is not there, validation is scored, too. Each look at a
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
    scored = scorer.score(index, split)
    chosen, point = Validated(None, None, None), NO_POINT
    if has_classes:
        own = own_validation(opened, index, shards, annotations, annotate)
        chosen = validated(opened, trained, own, rule, scorer)
        on_itself = own is index and split == VALIDATION_SPLIT
        point = chosen.point(trained, rule, threshold, on_these_rows=on_itself)
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
