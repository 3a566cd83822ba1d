"""Evaluate a trained run on a split: metrics, a table by recording, plots.

(Not named `evaluate`, because a module of that name would hide the function in the package.)
"""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from laughstore.errors import ConfigError, CorruptData, SpecMismatch
from laughstore.files import write_atomic
from laughstore.index import Index
from laughstore.labels import LabelSpec, target_bouts
from laughstore.other_annotations import (
    Annotate,
    check_there,
    read_other_annotations,
    tables_digest,
)
from laughstore.reading.shard_cache import open_cache
from laughstore.store import open_shards
from laughstore.timebase import FRAME_US, US_PER_SECOND

from .checkpoint import checkpoint_path, load_checkpoint
from .device import choose_device
from .folds import TRAIN_SPLIT, shown_groups, with_fold
from .losses import LOSSES, ScoreKind
from .metrics import FrameMetrics
from .model import ScoreModel
from .plots import Panel, precision_recall_png, timeline_png
from .probe import PROBES
from .run import Run
from .score import StreamScores, by_recording, metrics_of, score_streams
from .selection import Selection, select
from .skip import skipped_blocks, without_blocks
from .source import FrameSource

logger = logging.getLogger(__name__)

EVALUATION_FORMAT = "laughstore-evaluation"
EVALUATION_VERSION = 1
_ANNOTATIONS = "annotations_sha256"
_METRICS, _CURVE = "metrics.json", "pr.png"
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
    if timelines < 0:
        raise ConfigError(f"timelines is {timelines}; it must be 0 or more")
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
    index = open_shards(config.shards if shards is None else shards)
    if index.spec_id != opened.spec.spec_id:
        raise SpecMismatch(
            f"{index.where} holds other features than {run} was trained on"
            f" ({'; '.join(index.spec.differences(opened.spec))}); give shards of the same spec"
        )
    if annotations is not None:
        index = annotate(index, annotations)
    elif config.annotations is not None:
        index = _as_trained(index, opened, config.annotations, annotate)
    annotations = annotations or config.annotations
    if opened.fold is not None:
        index = with_fold(index, opened.fold)
    selection = select(
        index,
        split,
        config.label,
        config.filter,
        advice=f"the filter and the label are those that {run} was trained with: evaluate another"
        " --split or --shards, or train another run",
    )
    known_groups = _trained_on(index, opened, selection) if split != TRAIN_SPLIT else ()
    if known_groups:
        logger.warning(
            "%s of split %r were trained on, too: its scores are too good",
            shown_groups(known_groups),
            split,
        )
    where = str(run)
    skipped = skipped_blocks(index, split, opened.skip, where=where, may_be_gone=True)
    selection = without_blocks(selection, np.array(list(skipped), np.int64))
    path = _find(opened, checkpoint)
    model = _load(path, opened).to(choose_device(device))
    kept = open_cache(cache, cache_gb, index.folder)
    with FrameSource(
        index, split, verify=config.verify, damaged=bool(skipped), cache=kept
    ) as source:
        streams = score_streams(
            model, selection, source, config.label, ignored_too=True, progress=progress
        )
    folder = out or run / "evaluation" / split
    _clear(folder)
    groups = by_recording(streams)
    metrics = metrics_of(streams, config.label)
    result = EvaluationResult(
        run=run,
        out=folder,
        split=split,
        checkpoint=path,
        label=config.label,
        scores=model.scores,
        generation=index.generation,
        index_id=index.index_id,
        annotations=annotations,
        groups_trained_on=known_groups,
        fold=None if config.folds is None else {"folds": config.folds, "fold": config.fold},
        other_annotations=_other_annotations(index, opened, annotations),
        metrics=metrics,
        num_ignored=sum(int((~stream.eligible).sum()) for stream in streams),
        num_skipped_blocks=len(skipped),
        num_streams=len(streams),
        recordings=tuple(
            RecordingMetrics(
                key, index.recording(key).name, len(group), metrics_of(group, config.label)
            )
            for key, group in groups.items()
        ),
        plots=(
            *_draw_curve(folder, streams, metrics, f"{split}: {config.label.describe()}"),
            *_draw_timelines(
                folder, index, groups, config.label, model.scores, metrics.base_rate, timelines
            ),
        ),
    )
    text = json.dumps(result.to_json(), indent=1, sort_keys=True, allow_nan=False)
    write_atomic(folder / _METRICS, f"{text}\n".encode())
    return result


def _as_trained(index: Index, run: Run, path: Path, annotate: Annotate) -> Index:
    """The index with the annotations that the run was trained with, if they are still the same."""
    check_there(path)
    found = annotate(index, path)
    if index.index_id == run.index_id and tables_digest(found) != run.about.get(_ANNOTATIONS):
        raise ConfigError(
            f"{path} has changed since {run.path} was trained with it; restore it, or say that what"
            f" is there now is meant: --annotations {path}"
        )
    return found


def _trained_on(index: Index, run: Run, scored: Selection) -> tuple[str, ...]:
    """Groups of the scored streams that the run was trained on, as far as is known."""
    if run.fold is not None:
        known = run.fold.train
    elif index.index_id == run.index_id:
        takes = run.config.filter.takes
        items = (item for item in index.recordings if item.split == TRAIN_SPLIT and takes(item.id))
        known = {item.group for item in items}
    else:
        return ()
    groups = {index.recording(stream.recording_id).group for stream in scored.streams}
    return tuple(sorted(groups & known))


def _other_annotations(index: Index, run: Run, annotations: Path | None) -> str | None:
    if annotations is not None and tables_digest(index) != run.about.get(_ANNOTATIONS):
        trained_on = run.config.annotations or "the store's own"
        return f"labels are made from {annotations} as it is; the run was trained on {trained_on}"
    if index.index_id == run.index_id:
        return None
    trained_on = run.about.get("generation")
    other = "another store"
    if trained_on != index.generation:
        other = "another one" if trained_on is None else f"generation {trained_on}"
    return f"labels are those of generation {index.generation}; the run was trained on {other}"


def _find(run: Run, checkpoint: str) -> Path:
    if checkpoint == "best" or checkpoint == "last":
        return checkpoint_path(run.checkpoints, checkpoint)
    return Path(checkpoint)


def _load(path: Path, run: Run) -> ScoreModel:
    checkpoint = load_checkpoint(path)
    saved_by, ours = checkpoint.state.get("run", {}), run.identity
    if saved_by != ours:
        differ = [name for name in ours if saved_by.get(name) != ours[name]]
        raise ConfigError(
            f"{path} is a checkpoint of another run than {run.path} (other {', '.join(differ)});"
            " evaluate it with the folder of the run that saved it"
        )
    described = checkpoint.state.get("model")
    if described is None:  # runs of earlier releases say in their config alone what was trained
        scores = LOSSES[run.config.loss.loss].scores
        model = ScoreModel(run.config.head, run.spec.dim, scores=scores)
    else:
        model = ScoreModel.described(described, dim=run.spec.dim, where=str(path))
    try:
        # Runs from before there was balance have none.
        model.load_state_dict({"log_balance": torch.zeros(()), **checkpoint.model})
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise CorruptData(f"{path} is no checkpoint of {run.path}'s model ({reason})") from error
    return model.eval()


def _clear(folder: Path) -> None:
    """Delete an older evaluation, so that none of its plots stays beside new numbers."""
    for path in (folder / _METRICS, folder / _CURVE, *folder.glob("timeline-*.png")):
        path.unlink(missing_ok=True)


def _draw_curve(
    folder: Path, streams: Sequence[StreamScores], metrics: FrameMetrics, title: str
) -> list[Path]:
    if metrics.average_precision is None:
        logger.warning("no precision-recall curve: %s", metrics.undefined["average_precision"])
        return []
    positive = np.concatenate([stream.y[stream.eligible] > 0 for stream in streams])
    score = np.concatenate([stream.score[stream.eligible] for stream in streams])
    write_atomic(folder / _CURVE, precision_recall_png(positive, score, metrics, title=title))
    return [folder / _CURVE]


def _draw_timelines(
    folder: Path,
    index: Index,
    groups: dict[str, list[StreamScores]],
    label: LabelSpec,
    scores: ScoreKind,
    base_rate: float | None,
    limit: int,
) -> list[Path]:
    drawn = sorted(
        groups.items(),
        key=lambda item: -sum(int(np.count_nonzero(stream.y)) for stream in item[1]),
    )[:limit]
    paths = []
    for key, streams in drawn:
        recording = index.recording(key)
        path = folder / f"timeline-{key}.png"
        panels = [timeline_panel(index, stream, label) for stream in streams]
        png = timeline_png(
            panels,
            title=recording.name,
            event=label.event,
            scores=scores,
            question=_question(label),
            base_rate=base_rate if scores == "probability" else None,
        )
        write_atomic(path, png)
        paths.append(path)
    return paths


def _question(label: LabelSpec) -> str:
    if label.kind == "regression":
        until = label.event if label.rules.until == "onset" else "end of interval"
        return f"1 / (1 + s until\n{until})"
    if label.kind in ("onset", "interval"):
        return f"{label.event}\nwithin {label.rules.span * FRAME_US / US_PER_SECOND:g} s"
    return label.event


def timeline_panel(index: Index, scores: StreamScores, label: LabelSpec) -> Panel:
    """Return one stream's timeline; each score stands at the frame that it speaks of."""
    stream = scores.stream
    tables = index.tables(index.recording(stream.recording_id))
    bouts = target_bouts(label, tables, main=stream.main, other=stream.other)
    return Panel(
        title=scores.title,
        frame=scores.row + label.lead_frames,
        score=scores.score,
        ignored=~scores.eligible,
        bout_start_s=bouts.start_us / US_PER_SECOND,
        bout_end_s=bouts.end_us / US_PER_SECOND,
    )
