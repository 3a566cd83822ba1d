"""Runs opened to be compared, and their scores: the frames of one store are read once for all.

Enters: folders of runs. Leaves: for each the scores of the split, stream by stream, as `evaluate`
makes them, bit for bit.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from laughstore.errors import ConfigError, NotFound
from laughstore.index import Index
from laughstore.other_annotations import Annotate
from laughstore.reading.shard_cache import open_cache

from ..probe import PROBES
from ..runs.run import Run, is_run
from ..runs.trained import Trained, index_for, load_trained
from ..scoring.score import StreamScores, by_stream, score_rows
from ..scoring.several import SeveralModels
from ..streaming.choices import Verify
from ..streaming.device import choose_device
from ..streaming.selection import Selection, select
from ..streaming.skip import skipped_blocks, without_blocks
from ..streaming.source import FrameSource

_SHOWN: Final = 3
_STRICTNESS: Final[tuple[Verify, ...]] = ("always", "first", "never")
"""Of checking blocks, falling."""


@dataclass(frozen=True, eq=False)
class OpenedRun:
    """A run, its checkpoint, and the rows of the split that it is asked about."""

    name: str
    """Tells it apart from the others."""
    run: Run
    trained: Trained
    index: Index
    selection: Selection
    skipped: tuple[str, ...]
    """Keys of blocks of the split that are left out as corrupt."""

    @property
    def reads(self) -> tuple[object, ...]:
        """Equal for runs that read the very same rows, whatever their label counts of them."""
        # Not the filter: turns, which it may ask about, are those of the annotations of each run.
        passes = hashlib.sha256(np.packbits(self.rows.eligible)).hexdigest()
        return (
            self.index.where,
            self.index.index_id,
            self.selection.streams,
            passes,
            self.skipped,
            self.trained.model.context,
        )

    @property
    def rows(self) -> Selection:
        """All rows that the filter lets pass, those that the label ignores too."""
        selection = self.selection
        return replace(selection, eligible=selection.eligible | selection.ignored)


def runs_of(paths: Sequence[Path]) -> dict[str, Run]:
    """Return the runs at these paths by names that tell them apart; of many probes, all of them.

    Raises:
        NotFound: there is no run, or its probes are not there yet.
        ConfigError: a run is given twice, or there are fewer than two.
        CorruptData: a config.json was altered.
    """
    runs = [run for path in paths for run in _probes_of(Run.open(path))]
    known: dict[Path, Path] = {}
    for run in runs:
        place = run.path.resolve()
        if place in known:
            raise ConfigError(f"{run.path} is given twice; give each run once")
        known[place] = run.path
    if len(runs) < 2:
        given = ", ".join(str(path) for path in paths) or "none"
        raise ConfigError(
            f"one run is nothing to compare ({given}); give two or more, or one with many probes"
        )
    short = [run.path.name or run.path.resolve().name for run in runs]
    whole = [str(run.path) for run in runs]
    return dict(zip(short if len(set(short)) == len(runs) else whole, runs, strict=True))


def _probes_of(run: Run) -> list[Run]:
    if not run.config.probe:
        return [run]
    folders = [run.path / PROBES / probe.name for probe in run.config.probes]
    missing = [folder.name for folder in folders if not is_run(folder)]
    if missing:
        more = ", ..." if len(missing) > _SHOWN else ""
        raise NotFound(
            f"{run.path} has not written {len(missing)} of its {len(folders)} probes yet"
            f" ({', '.join(missing[:_SHOWN])}{more}); let it end, or go on with it: --resume"
        )
    return [Run.open(folder) for folder in folders]


def open_run(
    name: str,
    run: Run,
    split: str,
    *,
    shards: Path | str | None,
    annotations: Path | None,
    annotate: Annotate,
    checkpoint: str,
) -> OpenedRun:
    """Return a run opened for a split; arguments and errors as of `train.evaluate`."""
    index = index_for(run, shards, annotations, annotate)
    advice = f"the filter and the label are those that {run.path} was trained with"
    selection = select(index, split, run.config.label, run.config.filter, advice=advice)
    skipped = skipped_blocks(index, split, run.skip, where=str(run.path), may_be_gone=True)
    selection = without_blocks(selection, np.array(list(skipped), np.int64))
    trained = load_trained(run, checkpoint)
    return OpenedRun(name, run, trained, index, selection, tuple(skipped.values()))


def score_runs(
    opened: Sequence[OpenedRun],
    *,
    device: str,
    cache: Path | None,
    cache_gb: float,
    progress: Callable[[int, int], None] | None,
) -> Iterator[tuple[OpenedRun, list[StreamScores]]]:
    """Yield each run with its scores, those of ignored rows too; runs of one store together.

    Args:
        opened: all of one split.
        device: as in TrainConfig.
        cache: as of `train.evaluate`.
        cache_gb: as of `train.evaluate`.
        progress: called with (rows read, rows to read).

    Raises:
        ConfigError: scores are not finite, or the cache cannot be used.
        CorruptData: a file was altered or cut.
    """
    groups: dict[tuple[object, ...], list[OpenedRun]] = {}
    for item in opened:
        groups.setdefault(item.reads, []).append(item)
    total, before = sum(group[0].rows.num_rows for group in groups.values()), 0
    for group in groups.values():

        def told(done: int, _: int, before: int = before) -> None:
            if progress is not None:
                progress(before + done, total)

        index, rows = group[0].index, group[0].rows
        place = choose_device(device)
        models = [item.trained.model.to(place) for item in group]
        verify = _STRICTNESS[min(_STRICTNESS.index(item.run.config.verify) for item in group)]
        kept = open_cache(cache, cache_gb, index.folder)
        with FrameSource(
            index, rows.split, verify=verify, damaged=bool(group[0].skipped), cache=kept
        ) as source:
            several = SeveralModels(models, [item.name for item in group])
            scores = score_rows(several, rows, source, progress=told)
        before += rows.num_rows
        for number, item in enumerate(group):
            own, label = item.rows, item.run.config.label
            y, eligible = own.y[own.eligible], item.selection.eligible[own.eligible]
            yield item, by_stream(own, scores[:, number], y, eligible, label)
