"""Compare trained runs on a split: metrics with intervals, and paired differences from one of them.

(Not named `comparison`: that is the package. `train.compare` is the function.)
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from laughstore.errors import ConfigError
from laughstore.index import Index
from laughstore.other_annotations import Annotate, read_other_annotations, tables_digest

from ..evaluation.bootstrap import DRAWS
from ..evaluation.scored_split import ScoredSplit, SplitScorer
from ..evaluation.thresholds import ThresholdRule
from ..evaluation.validated import NO_POINT, own_validation, validated
from ..losses import target_kind
from ..runs.checkpoint import checkpoint_sha256
from ..runs.folds import TRAIN_SPLIT, VALIDATION_SPLIT, shown_groups
from ..runs.looks import Look, is_counted, record_look
from ..runs.run import Run
from ..runs.trained import groups_trained_on, other_annotations
from ..scoring.metrics import METRICS
from ..scoring.score import StreamScores
from .answers import SEED, Answers, Comparable
from .compared import ComparedRun, Comparison
from .opened import OpenedRun, open_run, runs_of, score_runs
from .question import Question
from .settings import differing, seed_groups, settings_of

logger = logging.getLogger(__name__)

_COMPARED: Final = tuple(name for name, metric in METRICS.items() if metric.better is not None)
_RULE: Final = ThresholdRule("f1")
"""By which the threshold of precision, recall and F1 is chosen."""
_SHORT: Final = {"ap": "average_precision"}


def compare(
    runs: Sequence[Path],
    *,
    split: str = "validation",
    metric: str = "auto",
    baseline: Path | None = None,
    shards: Path | str | None = None,
    checkpoint: str = "best",
    device: str = "auto",
    bootstrap: int = DRAWS,
    annotations: Path | None = None,
    annotate: Annotate = read_other_annotations,
    cache: Path | None = None,
    cache_gb: float = 50.0,
    progress: Callable[[int, int], None] | None = None,
) -> Comparison:
    """Score runs on a split, and tell how much better each is than one of them.

    Each run has its own label and filter. Only runs that were asked about the very same rows, with
    the same targets, have a difference; of others, the reason why not is told. What is fitted on
    validation and looks at test are kept in each run, as `evaluate` does; nothing else is written.

    Args:
        runs: folders of runs; one with many probes stands for all of these.
        split: to score.
        metric: key of METRICS that has a better side, or `ap`; auto: `average_precision`, or
            `rmse` if all labels are numbers.
        baseline: the run that differences are from; the first if None.
        shards: shards folder or URL for all runs; each run's own if None.
        checkpoint: `best` or `last`.
        device: as in TrainConfig.
        bootstrap: draws of groups, or of recordings, for intervals; 0: none are made.
        annotations: to make labels from instead of those that the runs were trained with.
        annotate: reads them; see `train`.
        cache: folder of this machine that keeps blocks of remote shards; none if None.
        cache_gb: bound of that folder, in units of 10^9 bytes.
        progress: called with (rows read, rows to read).

    Raises:
        NotFound: no run, shards, checkpoint or annotations there, or probes that are not written.
        ConfigError: fewer than two runs, one twice, no such split, metric or baseline, a run's
            annotations have changed, no row takes part, scores are not finite, or the cache cannot
            be used.
        SpecMismatch: the shards hold features of another model or setting than a run's.
        CorruptData: a file was altered or cut.
    """
    if bootstrap < 0:
        raise ConfigError(f"bootstrap is {bootstrap}; it must be 0 or more")
    if checkpoint not in ("best", "last"):
        raise ConfigError(f"checkpoint is {checkpoint!r}; use best or last")
    found = runs_of(runs)
    names = list(found)
    metric = _metric(metric, found.values())
    first = names[0] if baseline is None else _named(baseline, found)
    opened = {
        name: open_run(
            name,
            run,
            split,
            shards=shards,
            annotations=annotations,
            annotate=annotate,
            checkpoint=checkpoint,
        )
        for name, run in found.items()
    }
    answers: dict[str, Answers] = {}
    num_streams: dict[str, int] = {}
    for item, streams in score_runs(
        list(opened.values()), device=device, cache=cache, cache_gb=cache_gb, progress=progress
    ):
        scorer = SplitScorer(item.run, item.trained.model, cache=cache, cache_gb=cache_gb)
        own = own_validation(item.run, item.index, shards, annotations, annotate)
        answers[item.name] = _answers(item, streams, metric, bootstrap, own=own, scorer=scorer)
        num_streams[item.name] = len(streams)
    looks = {name: _look(opened[name]) for name in names}
    comparable = Comparable({name: answers[name] for name in names}, metric)
    best = comparable.best()
    settings = [settings_of(run) for run in found.values()]
    compared = [
        _compared(
            opened[name],
            answers[name],
            annotations,
            asked=comparable.asked[name],
            num_streams=num_streams[name],
            is_best=name in best,
            look=looks[name],
        )
        for name in names
    ]
    _warn(compared)
    by_seed = [[names[number] for number in group] for group in seed_groups(settings)]
    return Comparison(
        split=split,
        metric=metric,
        baseline=first,
        runs=tuple(compared),
        differences={
            name: {
                each: comparable.difference(name, first, each)
                for each in _COMPARED
                if each == metric or each in answers[name].metrics.values
            }
            for name in names
            if name != first
        },
        seeds=tuple(comparable.seed_groups(by_seed, first)),
        settings=differing(settings),
        draws=bootstrap,
        seed=SEED,
    )


def _metric(text: str, runs: Iterable[Run]) -> str:
    """Return the key of METRICS that is meant."""
    labels = [run.config.label for run in runs]
    kinds = {target_kind(label) for label in labels}
    if text == "auto":
        return "rmse" if kinds == {"numbers"} else "average_precision"
    name = _SHORT.get(text, text)
    fitting = [each for each in _COMPARED if kinds & set(METRICS[each].targets)]
    if name not in fitting:
        told = ", ".join(sorted({label.label for label in labels}))
        raise ConfigError(
            f"metric is {text!r}; of runs with label {told} it must be auto, ap,"
            f" {', '.join(fitting)}"
        )
    return name


def _named(path: Path, runs: dict[str, Run]) -> str:
    """Return the name of the run at a path, which may be a name, too."""
    for name, run in runs.items():
        if run.path.resolve() == path.resolve() or str(path) == name:
            return name
    raise ConfigError(f"baseline {path} is none of the runs ({', '.join(runs)})")


def _answers(
    item: OpenedRun,
    streams: Sequence[StreamScores],
    metric: str,
    draws: int,
    *,
    own: Index | str,
    scorer: SplitScorer,
) -> Answers:
    """Return what one run's scores come to, by the threshold that its own evaluation uses.

    Args:
        item: the run.
        streams: its scores.
        metric: that runs are compared by.
        draws: how many.
        own: index of the run's own validation, or why there is none.
        scorer: scores that if nothing was fitted on it yet.
    """
    config, split, index = item.run.config, item.selection.split, item.index
    point = NO_POINT
    if target_kind(config.label) == "classes":
        scorer.keep(index, ScoredSplit(split, streams, len(item.skipped)))
        point = validated(item.run, item.trained, own, _RULE, scorer).point(item.trained, _RULE)
    fold = None
    if config.folds is not None and config.fold is not None:
        is_side = split in (TRAIN_SPLIT, VALIDATION_SPLIT)
        fold = (config.folds, config.fold) if is_side else None
    question = Question.of(
        index, streams, config.label, config.filter, fold=fold, skipped=item.skipped
    )
    return Answers.of(
        index, streams, config.label, question, point=point, metric=metric, draws=draws
    )


def _look(item: OpenedRun) -> Look | None:
    """Count a look at a split that no run learns from."""
    if not is_counted(item.selection.split):
        return None
    return record_look(
        item.run,
        item.selection.split,
        checkpoint=item.trained.path,
        checkpoint_sha256=checkpoint_sha256(item.trained.path),
        index_id=item.index.index_id,
        annotations_sha256=tables_digest(item.index),
        by="compare",
    )


def _compared(
    item: OpenedRun,
    answers: Answers,
    annotations: Path | None,
    *,
    asked: int,
    num_streams: int,
    is_best: bool,
    look: Look | None,
) -> ComparedRun:
    run, index, config = item.run, item.index, item.run.config
    is_train = item.selection.split == TRAIN_SPLIT
    drawn = answers.draws
    intervals = {} if drawn is None else {n: drawn.interval(v) for n, v in answers.values.items()}
    return ComparedRun(
        name=item.name,
        path=run.path,
        checkpoint=item.trained.path,
        label=config.label,
        scores=item.trained.model.scores,
        where=index.where,
        generation=index.generation,
        groups_trained_on=() if is_train else groups_trained_on(index, run, item.selection),
        other_annotations=other_annotations(index, run, annotations or config.annotations),
        question=answers.question,
        asked=asked,
        metrics=answers.metrics,
        point=answers.point,
        look=look,
        intervals=intervals,
        num_streams=num_streams,
        is_best=is_best,
    )


def _warn(runs: Sequence[ComparedRun]) -> None:
    """Tell once of groups that runs were trained on and are scored on."""
    known = [run for run in runs if run.groups_trained_on]
    if known:
        groups = {group for run in known for group in run.groups_trained_on}
        logger.warning(
            "%s were trained on by %s, too: such scores are too good",
            shown_groups(groups),
            ", ".join(run.name for run in known),
        )
