"""What runs answered on a split: their numbers, of all rows and of each draw, held against others.

Enters: scores. Leaves: numbers; the scores of a run are let go of as soon as these are made.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from laughstore.index import Index
from laughstore.labels import LabelSpec

from ..evaluation.bootstrap import Draws
from ..evaluation.intervals import metric_draws, spearman_draws, units_of
from ..evaluation.validated import OperatingPoint
from ..losses import target_kind
from ..scoring.metrics import METRICS, FrameMetrics
from ..scoring.score import StreamScores, metrics_of
from ..scoring.scored_rows import NOBODY_CHOSE
from .compared import SeedGroup
from .paired import Difference, Drawn, mean_of
from .question import Question

SEED: Final = 0
"""Of the draws; that of `evaluate`, so that intervals are the same."""


@dataclass(frozen=True, eq=False)
class Answers:
    """Of one run."""

    question: Question
    metrics: FrameMetrics
    point: OperatingPoint
    """The threshold of precision, recall and F1, and where it is from."""
    draws: Draws | None
    """Of the groups or recordings asked about; None: nothing is drawn."""
    values: Mapping[str, NDArray[np.float64]]
    """f8[D] by metric: what it comes to in each draw."""

    @classmethod
    def of(
        cls,
        index: Index,
        streams: Sequence[StreamScores],
        label: LabelSpec,
        question: Question,
        *,
        point: OperatingPoint,
        metric: str,
        draws: int,
    ) -> Self:
        """Return what scores come to.

        Args:
            index: tells of groups.
            streams: that were scored.
            label: of their targets.
            question: that was asked.
            point: threshold of precision, recall and F1, or why there is none.
            metric: that runs are compared by; costly ones are drawn for it alone.
            draws: how many; 0: none.
        """
        threshold = point.threshold
        metrics = metrics_of(
            streams, label, threshold=threshold, no_threshold=point.reason or NOBODY_CHOSE
        )
        if not draws:
            return cls(question, metrics, point, None, {})
        drawn = Draws(units_of(index, streams), draws=draws, seed=SEED)
        values = metric_draws(index, streams, label, drawn, threshold=threshold)
        if metric == "spearman" and target_kind(label) == "numbers":
            values["spearman"] = spearman_draws(index, streams, drawn)
        return cls(question, metrics, point, drawn, values)

    def number(self, metric: str) -> Drawn:
        """Return a metric of this run; it need not be one of its kind of label."""
        if metric not in self.metrics.values:
            reason = f"{METRICS[metric].title} says nothing about label {self.question.label.kind}"
            return Drawn(None, reason, None)
        reason = self.metrics.undefined.get(metric)
        return Drawn(self.metrics.values[metric], reason, self.values.get(metric))


class Comparable:
    """All runs' answers, and which of them are to the same question.

    Args:
        answers: by name of the run.
        metric: key of METRICS that they are compared by.
    """

    def __init__(self, answers: Mapping[str, Answers], metric: str) -> None:
        self._answers, self._metric = answers, metric
        questions: list[Question] = []
        self.asked: dict[str, int] = {}
        """Number of each run's question, by name."""
        for name, item in answers.items():
            same = (i for i, known in enumerate(questions) if not item.question.why_other(known))
            number = next(same, len(questions))
            if number == len(questions):
                questions.append(item.question)
            self.asked[name] = number

    def difference(self, name: str, baseline: str, metric: str | None = None) -> Difference:
        """Return a metric of a run less that of another, or why there is no difference.

        Args:
            name: of the run.
            baseline: name of the other.
            metric: key of METRICS; None: that they are compared by.
        """
        return self._between([name], [baseline], metric or self._metric)

    def best(self) -> frozenset[str]:
        """Return the runs that are better than each other run that was asked the same."""
        together: dict[int, list[str]] = {}
        for name, number in self.asked.items():
            if self._answers[name].number(self._metric).value is not None:
                together.setdefault(number, []).append(name)
        winners = (self._winner(names) for names in together.values() if len(names) > 1)
        return frozenset(name for name in winners if name is not None)

    def seed_groups(self, groups: Iterable[Sequence[str]], baseline: str) -> list[SeedGroup]:
        """Return the means of runs that differ by their seed alone and were asked the same.

        The seed of runs on folds deals the folds, too, so those may be of other recordings.

        Args:
            groups: names of runs that differ by their seed alone.
            baseline: name of the run that differences are from: from its group, if it has one.
        """
        groups = [part for names in groups for part in self._asked_the_same(names)]
        theirs = next((names for names in groups if baseline in names), (baseline,))
        return [self._seed_group(names, theirs) for names in groups]

    def _asked_the_same(self, names: Sequence[str]) -> list[tuple[str, ...]]:
        """The groups of two or more that were asked the same."""
        parts: dict[int, list[str]] = {}
        for name in names:
            parts.setdefault(self.asked[name], []).append(name)
        return [tuple(part) for part in parts.values() if len(part) > 1]

    def _winner(self, names: Sequence[str]) -> str | None:
        sign = 1 if METRICS[self._metric].better == "higher" else -1

        def goodness(name: str) -> float:
            return sign * (self._answers[name].number(self._metric).value or 0.0)

        best = max(names, key=goodness)
        others = (self.difference(best, name) for name in names if name != best)
        return best if all(found.excludes_zero for found in others) else None

    def _seed_group(self, names: tuple[str, ...], theirs: tuple[str, ...]) -> SeedGroup:
        mean, draws = self._mean(names), self._draws(names)
        values = [self._answers[name].number(self._metric).value for name in names]
        known = [value for value in values if value is not None]
        return SeedGroup(
            names,
            mean.value,
            float(np.std(known, ddof=1)) if len(known) == len(names) else None,
            None if draws is None or mean.values is None else draws.interval(mean.values),
            None if names == theirs else self._between(names, theirs, self._metric),
        )

    def _between(self, ours: Sequence[str], theirs: Sequence[str], metric: str) -> Difference:
        first = self._answers[ours[0]].question
        for name in (*ours, *theirs):
            reason = first.why_other(self._answers[name].question)
            if reason is not None:
                return Difference.undefined(reason)
        return Difference.of(
            self._mean(ours, metric), self._mean(theirs, metric), self._draws(ours)
        )

    def _mean(self, names: Sequence[str], metric: str | None = None) -> Drawn:
        metric = metric or self._metric
        if len(names) == 1:
            return self._answers[names[0]].number(metric)
        return mean_of({name: self._answers[name].number(metric) for name in names})

    def _draws(self, names: Sequence[str]) -> Draws | None:
        """What was drawn, of runs that were asked the same: the same of all."""
        return self._answers[names[0]].draws
