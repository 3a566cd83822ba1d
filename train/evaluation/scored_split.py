"""The scores of a split, made once: what an evaluation, and fitting on validation, begin with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from laughstore.index import Index
from laughstore.reading.shard_cache import open_cache

from ..model import ScoreModel
from ..runs.run import Run
from ..scoring.score import StreamScores, score_streams
from ..streaming.selection import Selection, select
from ..streaming.skip import skipped_blocks, without_blocks
from ..streaming.source import FrameSource


@dataclass(frozen=True, eq=False)
class ScoredSplit:
    """Scores of one split."""

    split: str
    streams: Sequence[StreamScores]
    """With the scores of ignored rows."""
    num_skipped_blocks: int
    """That are left out, because the run left them out as corrupt."""


def rows_of(run: Run, index: Index, split: str) -> Selection:
    """Return the rows of a split that a run may be asked about: of its filter and its label.

    Raises:
        ConfigError: there is no such split, or no row takes part.
    """
    return select(
        index,
        split,
        run.config.label,
        run.config.filter,
        advice=f"the filter and the label are those that {run.path} was trained with: evaluate"
        " another --split or --shards, or train another run",
    )


class SplitScorer:
    """Scores splits with a model, each once.

    Args:
        run: that the model is of.
        model: on the device that does the work.
        cache: folder of this machine that keeps blocks of remote shards; none if None.
        cache_gb: bound of that folder, in units of 10^9 bytes.
        progress: called with (rows done, rows of this split).
    """

    def __init__(
        self,
        run: Run,
        model: ScoreModel,
        *,
        cache: Path | None = None,
        cache_gb: float = 50.0,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self._run, self._model = run, model
        self._cache, self._cache_gb = cache, cache_gb
        self._progress = progress
        self._scored: dict[tuple[int, str], tuple[Index, ScoredSplit]] = {}

    def score(self, index: Index, split: str) -> ScoredSplit:
        """Return the scores of a split of an index.

        Raises:
            ConfigError: no row takes part, scores are not finite, or the cache cannot be used.
            CorruptData: a block was altered or cut.
        """
        key = id(index), split
        if key not in self._scored:
            # The index is kept, so that no other one gets its id.
            self._scored[key] = index, self._score(index, split)
        return self._scored[key][1]

    def keep(self, index: Index, scored: ScoredSplit) -> None:
        """Take scores that this model made elsewhere, so that they are not made again."""
        self._scored[id(index), scored.split] = index, scored

    def _score(self, index: Index, split: str) -> ScoredSplit:
        selection, num_skipped = self.rows(index, split)
        with self.source(selection, damaged=num_skipped > 0) as source:
            streams = score_streams(
                self._model,
                selection,
                source,
                self._run.config.label,
                ignored_too=True,
                energies=True,
                progress=self._progress,
            )
        return ScoredSplit(split, streams, num_skipped)

    def rows(self, index: Index, split: str) -> tuple[Selection, int]:
        """Return the rows of a split that can be read, and how many blocks the run left out.

        Raises:
            ConfigError: no row takes part.
        """
        run = self._run
        selection = rows_of(run, index, split)
        skipped = skipped_blocks(index, split, run.skip, where=str(run.path), may_be_gone=True)
        return without_blocks(selection, np.array(list(skipped), np.int64)), len(skipped)

    def source(self, selection: Selection, *, damaged: bool) -> FrameSource:
        """Return what reads rows, to be closed.

        Args:
            selection: rows of a split.
            damaged: blocks of the split are left out.
        """
        index = selection.index
        return FrameSource(
            index,
            selection.split,
            verify=self._run.config.verify,
            damaged=damaged,
            cache=open_cache(self._cache, self._cache_gb, index.folder),
        )
