"""What a comparison found: runs, their differences from one of them, and what they differ in."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from laughstore.labels import LabelSpec

from ..evaluation.bootstrap import Interval
from ..evaluation.validated import OperatingPoint
from ..losses import ScoreKind
from ..runs.looks import Look
from ..scoring.metrics import METRICS, FrameMetrics
from .paired import Difference
from .question import Question
from .settings import Setting

COMPARISON_FORMAT = "laughstore-comparison"
COMPARISON_VERSION = 1


@dataclass(frozen=True)
class ComparedRun:
    """One run on the split."""

    name: str
    path: Path
    checkpoint: Path
    label: LabelSpec
    scores: ScoreKind
    """What the run's scores are."""
    where: str
    """The shards, a URL without credentials."""
    generation: int
    groups_trained_on: tuple[str, ...]
    """Groups (shows) of the split that it was trained on, too: they make it look better."""
    other_annotations: str | None
    """One line when its labels may be others than those it was trained with."""
    question: Question
    asked: int
    """Runs with equal numbers were asked about the same rows, and can be compared."""
    metrics: FrameMetrics
    point: OperatingPoint
    """The threshold of precision, recall and F1, and where it is from."""
    look: Look | None
    """At a split that is counted, such as test; None of others."""
    intervals: Mapping[str, Interval]
    """Of metrics, by name."""
    num_streams: int
    is_best: bool
    """Better than each other run that was asked the same, all paired intervals excluding 0."""

    def to_json(self) -> dict[str, Any]:  # Any: JSON values
        """Return a JSON object of finite numbers and nulls."""
        return {
            "name": self.name,
            "run": str(self.path),
            "checkpoint": self.checkpoint.name,
            "label": self.label.identity(),
            "label_text": self.label.describe(),
            "scores": self.scores,
            "shards": self.where,
            "generation": self.generation,
            "groups_trained_on": list(self.groups_trained_on),
            "other_annotations": self.other_annotations,
            "asked": self.asked,
            "streams": self.num_streams,
            "recordings": len(self.question.groups),
            "skipped_blocks": len(self.question.skipped),
            "metrics": self.metrics.to_json(),
            "operating_point": self.point.to_json(),
            "look": None if self.look is None else self.look.to_json(),
            "intervals": {name: found.to_json() for name, found in self.intervals.items()},
            "best": self.is_best,
        }


@dataclass(frozen=True)
class SeedGroup:
    """Runs that differ by their seed alone."""

    names: tuple[str, ...]
    mean: float | None
    """Of the metric; None if one of them has none."""
    spread: float | None
    """Standard deviation over the runs (n - 1)."""
    interval: Interval | None
    """Of the mean, over draws of groups or recordings."""
    difference: Difference | None
    """Of the mean from that of the baseline and the runs that differ from it by their seed alone;
    None for these."""

    def to_json(self) -> dict[str, Any]:  # Any: JSON values
        """Return a JSON object of finite numbers and nulls."""
        return {
            "runs": list(self.names),
            "mean": self.mean,
            "spread": self.spread,
            "interval": None if self.interval is None else self.interval.to_json(),
            "difference": None if self.difference is None else self.difference.to_json(),
        }


@dataclass(frozen=True)
class Comparison:
    """Runs beside each other."""

    split: str
    metric: str
    """Key of METRICS, that the runs are compared by."""
    baseline: str
    """Name of the run that differences are from."""
    runs: tuple[ComparedRun, ...]
    differences: Mapping[str, Mapping[str, Difference]]
    """From the baseline, by name of the run and metric."""
    seeds: tuple[SeedGroup, ...]
    settings: Mapping[str, tuple[Setting, ...]]
    """What is not the same in all runs: a value of each, by name."""
    draws: int
    seed: int
    """Of the draws."""

    @property
    def better(self) -> str | None:
        """Whether a higher or a lower value of the metric is better."""
        return METRICS[self.metric].better

    def to_json(self) -> dict[str, Any]:  # Any: JSON values
        """Return a JSON object of finite numbers and nulls."""
        return {
            "format": COMPARISON_FORMAT,
            "version": COMPARISON_VERSION,
            "split": self.split,
            "metric": self.metric,
            "better": self.better,
            "baseline": self.baseline,
            "draws": self.draws,
            "seed": self.seed,
            "runs": [run.to_json() for run in self.runs],
            "differences": {
                name: {metric: found.to_json() for metric, found in each.items()}
                for name, each in self.differences.items()
            },
            "seeds": [group.to_json() for group in self.seeds],
            "settings": {name: list(values) for name, values in self.settings.items()},
        }
