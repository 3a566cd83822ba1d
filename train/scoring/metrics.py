"""How good scores are. What cannot be computed is None with the reason, never 0 and never NaN.

A metric is one function here and its line in `METRICS`; logs, checkpoints, evaluations and the
command line take it from there.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray

from laughstore.errors import ConfigError
from laughstore.kinds import TargetArray
from laughstore.labels import LabelSpec
from laughstore.timebase import FRAME_US, US_PER_SECOND

from ..losses import TargetKind, target_kind
from .ranking import ranks_of
from .scored_rows import FIT, NOBODY_CHOSE, ScoredRows, UndefinedError


def _base_rate(rows: ScoredRows) -> float:
    """Share of positive rows: the average precision of a constant score."""
    return rows.num_positives / len(rows.y)


def _average_precision(rows: ScoredRows) -> float:
    """Area under the precision-recall curve."""
    return rows.average_precision


def _lift(rows: ScoredRows) -> float:
    """Average precision over base rate."""
    return rows.average_precision * len(rows.y) / rows.num_positives


def _auroc(rows: ScoredRows) -> float:
    """Area under the ROC curve."""
    rows.need_positives()
    if rows.num_positives == len(rows.y):
        raise UndefinedError("no negative rows")
    return rows.ranking.auroc


def _f1(rows: ScoredRows) -> float:
    """Harmonic mean of precision and recall; 0 without a hit."""
    rows.need_positives()
    return 2 * rows.num_hits / (rows.num_alarms + rows.num_positives)


def _precision(rows: ScoredRows) -> float:
    """Share of alarms in positive rows."""
    rows.need_positives()
    if not rows.num_alarms:
        raise UndefinedError("no score reaches the threshold")
    return rows.num_hits / rows.num_alarms


def _recall(rows: ScoredRows) -> float:
    """Share of positive rows with an alarm."""
    rows.need_positives()
    return rows.num_hits / rows.num_positives


def _threshold(rows: ScoredRows) -> float:
    """The score from which on a row is an alarm."""
    return rows.threshold


def _mae(rows: ScoredRows) -> float:
    """Mean absolute error."""
    return float(np.abs(rows.error).mean())


def _rmse(rows: ScoredRows) -> float:
    """Root of the mean squared error."""
    return float(np.sqrt(np.square(rows.error).mean()))


def _spearman(rows: ScoredRows) -> float:
    """Correlation of the ranks of targets and scores, equal ones sharing their mean rank."""
    for name, values in (("targets", rows.y), ("scores", rows.score)):
        if values.min() == values.max():
            raise UndefinedError(f"all {name} are equal")
    return float(np.corrcoef(ranks_of(rows.y), rows.ranking.ranks)[0, 1])


def _wait_mae_s(rows: ScoredRows) -> float:
    """Mean absolute error of the seconds to what comes next, over the rows where something does.

    A target is 1 / (1 + seconds). A score outside what targets can be means the nearest wait that
    they can tell of: none, or the label's reach.
    """
    rows.need_positives()
    return float(np.abs(rows.wait_error_s).mean())


@dataclass(frozen=True)
class Metric:
    """One number about scored rows."""

    of: Callable[[ScoredRows], float]
    """Computes it of one row or more."""
    title: str
    """For people."""
    targets: tuple[TargetKind, ...]
    """Of the labels that it says something about."""
    better: Literal["higher", "lower"] | None = None
    """What is better, of those that an epoch can be chosen by."""
    is_share: bool = False
    """Shown as percent."""


_CLASSES: Final[tuple[TargetKind, ...]] = ("classes",)
_NUMBERS: Final[tuple[TargetKind, ...]] = ("numbers",)
_BOTH = _CLASSES + _NUMBERS

METRICS: Final[dict[str, Metric]] = {
    "rmse": Metric(_rmse, "RMSE", _NUMBERS, better="lower"),
    "mae": Metric(_mae, "MAE", _NUMBERS, better="lower"),
    "spearman": Metric(_spearman, "Spearman", _NUMBERS, better="higher"),
    "wait_mae_s": Metric(_wait_mae_s, "MAE of the wait in s", _NUMBERS, better="lower"),
    "average_precision": Metric(_average_precision, "AP", _BOTH, better="higher"),
    "base_rate": Metric(_base_rate, "base rate", _BOTH, is_share=True),
    "lift": Metric(_lift, "lift", _BOTH),
    "auroc": Metric(_auroc, "AUROC", _BOTH, better="higher"),
    "f1": Metric(_f1, "F1", _CLASSES, better="higher"),
    "precision": Metric(_precision, "precision", _CLASSES),
    "recall": Metric(_recall, "recall", _CLASSES),
    "threshold": Metric(_threshold, "threshold", _CLASSES),
}
"""In the order in which they are shown."""
_CHOICE: Final = {
    ("val_ap" if name == "average_precision" else f"val_{name}"): name
    for name, metric in METRICS.items()
    if metric.better is not None
}
_USUAL_CHOICE: Final[dict[TargetKind, str]] = {"classes": "val_ap", "numbers": "val_rmse"}
"""RMSE is least for the mean of what may come. MAE is not: most targets are 0, and so is their
median, so a head that always says 0 would be the best."""

if TYPE_CHECKING:
    SelectBy = str
else:
    SelectBy = Literal["auto", *_CHOICE]  # the choices that the command line shows


def choice_for(select_by: SelectBy, label: LabelSpec) -> SelectBy:
    """Return how an epoch is chosen, auto replaced by what is usual for a label.

    Raises:
        ConfigError: there is no such metric, or it says nothing about such targets.
    """
    kind = target_kind(label)
    if select_by == "auto":
        return _USUAL_CHOICE[kind]
    fitting = [choice for choice, name in _CHOICE.items() if kind in METRICS[name].targets]
    if select_by not in fitting:
        raise ConfigError(
            f"select_by is {select_by!r}; for label {label.label} it must be auto,"
            f" {', '.join(fitting)}"
        )
    return select_by


def chosen_metric(select_by: SelectBy) -> str:
    """Return the name, in METRICS, of what chooses an epoch; given as `choice_for` returns it."""
    return _CHOICE[select_by]


@dataclass(frozen=True)
class FrameMetrics:
    """Scores of N rows against their targets."""

    num_rows: int
    num_positives: int
    values: Mapping[str, float | None]
    """By name, as in METRICS: those of this kind of target."""
    undefined: Mapping[str, str]
    """Why some of these are None, by name."""

    @property
    def base_rate(self) -> float | None:
        """Share of positive rows."""
        return self.values["base_rate"]

    @property
    def average_precision(self) -> float | None:
        """Area under the precision-recall curve of positive rows."""
        return self.values["average_precision"]

    @property
    def lift(self) -> float | None:
        """average_precision / base_rate."""
        return self.values["lift"]

    @property
    def auroc(self) -> float | None:
        """Area under the ROC curve of positive rows."""
        return self.values["auroc"]

    @property
    def threshold(self) -> float | None:
        """Score from which on a row is an alarm; None for numbers, too."""
        return self.values.get("threshold")

    def beats(self, other: "FrameMetrics | None", by: SelectBy) -> bool:
        """Tell whether these are better than others, which there may be none of yet.

        Args:
            other: None is beaten by all.
            by: as `choice_for` returns it. What is undefined beats nothing.
        """
        if other is None:
            return True
        name = _CHOICE[by]
        mine, theirs = self.values[name], other.values[name]
        if mine is None or theirs is None:
            return mine is not None
        return mine > theirs if METRICS[name].better == "higher" else mine < theirs

    def only(self, names: Collection[str]) -> "FrameMetrics":
        """Return some of these metrics, by name."""
        return replace(
            self,
            values={name: value for name, value in self.values.items() if name in names},
            undefined={name: why for name, why in self.undefined.items() if name in names},
        )

    def to_json(self) -> dict[str, Any]:  # Any: JSON values
        """Return a JSON object of finite numbers and nulls."""
        return {
            "rows": self.num_rows,
            "positives": self.num_positives,
            **self.values,
            "undefined": dict(self.undefined),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:  # Any: JSON values
        """Return the metrics that `to_json` wrote. Raises KeyError when it did not."""
        undefined = data["undefined"]
        return cls(
            num_rows=data["rows"],
            num_positives=data["positives"],
            values={name: data[name] for name in METRICS if name in data},
            # Earlier releases wrote one reason for all, or null.
            undefined=undefined if isinstance(undefined, dict) else {},
        )


def rows_of(
    y: TargetArray,
    score: NDArray[np.float32],
    label: LabelSpec,
    threshold: float | Literal["fit"] | None,
    no_threshold: str = NOBODY_CHOSE,
) -> ScoredRows:
    """Return N rows with what metrics need to know of them; arguments as of `frame_metrics`."""
    is_number = target_kind(label) == "numbers"
    reach_s = label.rules.span * FRAME_US / US_PER_SECOND if is_number else None
    return ScoredRows(y, score, reach_s, threshold, no_threshold)


def frame_metrics(
    y: TargetArray,
    score: NDArray[np.float32],
    label: LabelSpec | None = None,
    *,
    threshold: float | Literal["fit"] | None = FIT,
    no_threshold: str = NOBODY_CHOSE,
) -> FrameMetrics:
    """Return the metrics of N rows.

    Args:
        y: u1[N] classes, 1 positive; or f4[N] numbers from 0 to 1, above 0 where positive.
        score: f4[N]; of classes, higher means more likely positive; finite.
        label: of the targets; None for classes, whatever they mean.
        threshold: of classes, score from which on a row is an alarm; FIT: that with the best F1 of
            these rows; None: nobody has chosen one.
        no_threshold: why there is none.
    """
    label = LabelSpec() if label is None else label
    kind, rows = target_kind(label), rows_of(y, score, label, threshold, no_threshold)
    values: dict[str, float | None] = {}
    undefined: dict[str, str] = {}
    for name, metric in METRICS.items():
        if kind not in metric.targets:
            continue
        values[name] = None
        try:
            if not len(y):
                raise UndefinedError("no rows")
            values[name] = metric.of(rows)
        except UndefinedError as error:
            undefined[name] = str(error)
    return FrameMetrics(len(y), rows.num_positives, values, undefined)
