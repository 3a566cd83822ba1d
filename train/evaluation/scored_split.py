"""A split scored with a trained run: what an evaluation counts, and a report shows."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from laughstore.errors import ConfigError
from laughstore.index import Index
from laughstore.labels import LabelSpec
from laughstore.other_annotations import Annotate, read_other_annotations
from laughstore.reading.shard_cache import open_cache

from ..probe import PROBES
from ..runs.folds import TRAIN_SPLIT, shown_groups
from ..runs.run import Run
from ..runs.trained import Trained, groups_trained_on, index_for, load_trained, other_annotations
from ..scoring.score import StreamScores, score_streams
from ..streaming.device import choose_device
from ..streaming.selection import select
from ..streaming.skip import skipped_blocks, without_blocks
from ..streaming.source import FrameSource

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class ScoredSplit:
    """All rows of a split with their scores, and where they are from."""

    run: Run
    split: str
    index: Index
    """With the annotations that labels are made from, divided as the run's fold is."""
    trained: Trained
    """The checkpoint that scored."""
    streams: list[StreamScores]
    """With the rows that the label ignores, too."""
    annotations: Path | None
    """Labels were made from these, not from the store's."""
    groups_trained_on: tuple[str, ...]
    """Groups (shows) of the split that the run was trained on, too: they make it look better. None
    for the split train, or where the shards are others than the run's and it has no folds."""
    other_annotations: str | None
    """One line when the run was trained on another index: its labels may have been others."""
    num_skipped_blocks: int
    """Blocks of the split that are left out, because the run left them out as corrupt."""

    @property
    def label(self) -> LabelSpec:
        """What the scores are about."""
        return self.run.config.label


def score_split(
    run: Path,
    *,
    split: str = "validation",
    shards: Path | str | None = None,
    checkpoint: str = "best",
    device: str = "auto",
    annotations: Path | None = None,
    annotate: Annotate = read_other_annotations,
    cache: Path | None = None,
    cache_gb: float = 50.0,
    progress: Callable[[int, int], None] | None = None,
) -> ScoredSplit:
    """Score a split with a trained run.

    Args:
        run: folder of the run.
        split: to score.
        shards: shards folder or URL; the run's own if None.
        checkpoint: `best`, `last`, or the path of a checkpoint.
        device: as in TrainConfig.
        annotations: to make labels from instead of those that the run was trained with.
        annotate: reads them; see `train`.
        cache: folder of this machine that keeps blocks of remote shards; none if None.
        cache_gb: bound of that folder, in units of 10^9 bytes.
        progress: called with (rows done, rows).

    Raises:
        NotFound: no run, shards, checkpoint or annotations there.
        ConfigError: no such split, the run holds probes, its annotations have changed, no row takes
            part, the checkpoint is another run's, its scores are not finite, or the cache cannot
            be used.
        SpecMismatch: the shards hold features of another model or setting than the run's.
        CorruptData: a file was altered or cut.
    """
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
    skipped = skipped_blocks(index, split, opened.skip, where=str(run), may_be_gone=True)
    selection = without_blocks(selection, np.array(list(skipped), np.int64))
    trained = load_trained(opened, checkpoint)
    model = trained.model.to(choose_device(device))
    kept = open_cache(cache, cache_gb, index.folder)
    with FrameSource(
        index, split, verify=config.verify, damaged=bool(skipped), cache=kept
    ) as source:
        streams = score_streams(
            model, selection, source, config.label, ignored_too=True, progress=progress
        )
    return ScoredSplit(
        run=opened,
        split=split,
        index=index,
        trained=trained,
        streams=streams,
        annotations=annotations,
        groups_trained_on=known_groups,
        other_annotations=other_annotations(index, opened, annotations),
        num_skipped_blocks=len(skipped),
    )
