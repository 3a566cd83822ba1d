"""What the split train tells, to those who may look at no other: rates, and which way scores point.

A baseline is a score that needs no training but a few numbers of this split. What is evaluated
chooses none of them.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from laughstore.errors import LaughstoreError
from laughstore.index import Index, Stream
from laughstore.kinds import TargetArray
from laughstore.labels import LabelSpec
from laughstore.other_annotations import Annotate

from ..model import ScoreModel
from ..runs.folds import TRAIN_SPLIT
from ..runs.run import Run
from ..runs.trained import index_for
from ..scoring.ranking import RankedRows
from ..scoring.row_energy import RowEnergy
from ..scoring.score import question_of, score_rows
from ..streaming.selection import Selection
from .scored_split import SplitScorer

logger = logging.getLogger(__name__)

Points = Literal[1, -1]
"""Whether higher or lower values are more likely positive."""
KnownOf = Literal["stream", "show", "train"]
"""Whose rate it is: that of the stream itself, of its show, or of all rows trained on."""
ONE_CLASS: Final = "train has no rows of both classes"
SAMPLED_BLOCKS: Final = 128
"""Of train, with positive rows, and as many with negative ones: 256 MiB of 4096 channels."""


@dataclass(frozen=True, eq=False)
class TrainSide:
    """The rows of the split train that count for a run's label."""

    label: LabelSpec
    selection: Selection
    energy_points: Points | str
    """Which way the energy of rows points, or why nobody knows."""

    @classmethod
    def of(
        cls,
        run: Run,
        index: Index,
        model: ScoreModel,
        *,
        shards: Path | str | None,
        annotate: Annotate,
        scorer: SplitScorer,
    ) -> "TrainSide | str":
        """Return the rows, or why there are none.

        Args:
            run: that was trained.
            index: of what is evaluated, divided as the run's fold is.
            model: whose statistics standardise.
            shards: where that is; None: the run's own.
            annotate: reads the run's annotations.
            scorer: of the run.
        """
        moved = shards is not None and index.index_id != run.index_id
        try:
            own = index_for(run, None, None, annotate) if moved else index
            found, num_skipped = scorer.rows(own, TRAIN_SPLIT)
        except LaughstoreError as error:
            return f"the rows trained on are not there: {error}"
        points = energy_direction(found, model, scorer, damaged=num_skipped > 0)
        return cls(run.config.label, found, points)

    @property
    def index(self) -> Index:
        """Of its shards."""
        return self.selection.index

    def questions(self) -> Iterator[tuple[Stream, TargetArray, NDArray[np.bool_]]]:
        """Yield (stream, targets [T], counts bool[T]), once for each question."""
        asked = set()
        for number, stream in enumerate(self.selection.streams):
            question = question_of(stream, self.label.whose)
            if question not in asked:
                asked.add(question)
                y, counts = self.selection.stream_targets(number)
                yield stream, y, counts


@dataclass(frozen=True)
class Rates:
    """Mean targets of the rows that count: of classes, the share of positive ones."""

    overall: float
    of_stream: Mapping[tuple[str, frozenset[str | None]], float]
    """By question."""
    of_show: Mapping[str, float]

    @classmethod
    def of(cls, side: TrainSide) -> "Rates":
        """Return the rates of the rows trained on: of each stream, each show, and all."""
        total = np.zeros(2)
        streams: dict[tuple[str, frozenset[str | None]], NDArray[np.float64]] = {}
        shows: dict[str, NDArray[np.float64]] = {}
        for stream, y, counts in side.questions():
            sums = np.array([y[counts].sum(dtype=np.float64), np.count_nonzero(counts)])
            streams[question_of(stream, side.label.whose)] = sums
            show = side.index.recording(stream.recording_id).group
            shows[show] = shows.get(show, np.zeros(2)) + sums
            total += sums
        return cls(float(total[0] / total[1]), _means(streams), _means(shows))

    def known_of(self, stream: Stream, show: str, label: LabelSpec) -> tuple[KnownOf, float]:
        """Return the rate of a stream, of the nearest of which one is known."""
        question = question_of(stream, label.whose)
        if question in self.of_stream:
            return "stream", self.of_stream[question]
        if show in self.of_show:
            return "show", self.of_show[show]
        return "train", self.overall


def _means[Key](sums: Mapping[Key, NDArray[np.float64]]) -> dict[Key, float]:
    return {key: float(y / num) for key, (y, num) in sums.items() if num}


def direction(positive: NDArray[np.bool_], value: NDArray[np.float32]) -> Points | None:
    """Return which of `value` and `-value` has the higher AUROC; of equal ones 1.

    Args:
        positive: bool[N].
        value: f4[N], finite.

    Returns:
        None without rows of both classes.
    """
    num_positives = int(np.count_nonzero(positive))
    if num_positives in (0, len(positive)):
        return None
    return 1 if RankedRows.of(positive, value).auroc >= 0.5 else -1


def energy_direction(
    rows: Selection, model: ScoreModel, scorer: SplitScorer, *, damaged: bool, seed: int = 0
) -> Points | str:
    """Return which way the energy of rows points in train, or why that is not known.

    A pass over train would take longer than all else of an evaluation, so a sample of blocks is
    read: positive rows of some that have positive ones, negative rows of some that have negative
    ones. AUROC does not depend on how many there are of each.

    Args:
        rows: of train that count.
        model: whose statistics standardise.
        scorer: of the run, which reads them.
        damaged: blocks of train are left out.
        seed: of the sample.
    """
    chosen = _sample(rows, np.random.Generator(np.random.Philox(seed)))
    energy = RowEnergy(model, chosen.num_rows)
    try:
        with scorer.source(chosen, damaged=damaged) as source:
            score_rows(model, chosen, source, watch=energy.take)
    except LaughstoreError as error:
        logger.warning("rows of train cannot be read: %s", error)
        return f"rows of train cannot be read: {error}"
    return direction(chosen.targets > 0, energy.values) or ONE_CLASS


def _sample(selection: Selection, rng: np.random.Generator) -> Selection:
    """The rows of a few blocks: their positive ones, or their negative ones."""
    eligible = np.zeros_like(selection.eligible)
    for wanted in (selection.y > 0, selection.y == 0):
        rows = selection.eligible & wanted
        blocks = np.flatnonzero(rows.any(axis=1))
        some = rng.choice(blocks, min(len(blocks), SAMPLED_BLOCKS), replace=False)
        eligible[some] |= rows[some]
    return replace(selection, eligible=eligible, ignored=np.zeros_like(eligible))
