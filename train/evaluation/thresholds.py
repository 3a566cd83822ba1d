"""By which rule a threshold is chosen, and the choice among the scores of rows.

A decision is score >= threshold, so only scores that occur are thresholds: the exact points of the
precision-recall curve and of the ROC curve. Of points that are equally good the higher threshold
counts. What false alarms of events come to is chosen in `train.evaluation.false_alarms`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Self, cast, get_args

import numpy as np
from numpy.typing import NDArray

from laughstore.errors import ConfigError

from ..scoring.confusion import Confusion
from ..scoring.ranking import RankedRows

RuleName = Literal["f1", "youden", "precision", "recall", "fa-per-hour"]
_WITH_A_NUMBER: Final = ("precision", "recall", "fa-per-hour")
FORMS: Final = "f1, youden, precision@X, recall@X, fa-per-hour@X"


@dataclass(frozen=True)
class ThresholdRule:
    """What a threshold has to be the best of.

    Raises:
        ConfigError: a number is missing, not wanted, or cannot work.
    """

    name: RuleName = "f1"
    """f1: the best F1. youden: the largest recall less false positive rate. precision: the highest
    recall of those with such a precision. recall: the highest precision of those with such a
    recall. fa-per-hour: the lowest with so few false alarms of events an hour."""
    at: float | None = None
    """Of the last three: the precision, the recall, the false alarms an hour."""

    def __post_init__(self) -> None:
        if self.name not in get_args(RuleName):
            raise ConfigError(f"threshold rule {self.name!r}: it must be one of {FORMS}")
        if (self.name in _WITH_A_NUMBER) != (self.at is not None):
            needs = "needs a number" if self.at is None else "takes no number"
            raise ConfigError(f"threshold rule {self.name} {needs}; give one of {FORMS}")
        if self.at is None:
            return
        if self.name == "fa-per-hour":
            if not (self.at >= 0 and math.isfinite(self.at)):
                raise ConfigError(f"fa-per-hour@{self.at}: the number must be 0 or more")
        elif not 0 < self.at <= 1:
            raise ConfigError(
                f"{self.name}@{self.at}: the number must be above 0 and at most 1, such as 0.9"
            )

    def __str__(self) -> str:
        if self.at is None:
            return self.name
        return f"{self.name}@{np.format_float_positional(self.at, trim='-')}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the rule that is written so: `f1`, `precision@0.9`.

        Raises:
            ConfigError: it is none.
        """
        name, at_sign, number = text.partition("@")
        try:
            at = float(number) if at_sign else None
        except ValueError as error:
            raise ConfigError(
                f"threshold rule {text!r}: {number!r} is no number; give one of {FORMS}"
            ) from error
        if name not in get_args(RuleName):
            raise ConfigError(f"threshold rule {text!r}: it must be one of {FORMS}")
        return cls(cast(RuleName, name), at)


def asked_rule(given: float | None, rule: ThresholdRule | str | None) -> ThresholdRule:
    """Return the rule that is asked for: f1 by default, and where a threshold is given.

    Raises:
        ConfigError: both are given, there is no such rule, or no score can be the threshold.
    """
    if given is not None:
        if rule is not None:
            raise ConfigError("threshold and threshold_by: give one of them")
        if not 0 <= given <= 1:
            raise ConfigError(f"threshold is {given}; it must be 0 to 1, as scores are")
    if isinstance(rule, str):
        return ThresholdRule.parse(rule)
    return rule or ThresholdRule()


@dataclass(frozen=True)
class ChosenThreshold:
    """The threshold of a rule, and what it came to on validation."""

    rule: ThresholdRule
    threshold: float | None
    reason: str | None = None
    """Why there is none; None where there is one."""
    confusion: Confusion | None = None
    """Of the rows of validation that count; None without a threshold."""
    false_alarms_per_hour: float | None = None
    """Of events of validation; None without a threshold, and of labels that have no such thing."""

    def __post_init__(self) -> None:
        assert (self.threshold is None) == (self.reason is not None), "one of both"

    def to_json(self) -> dict[str, Any]:  # Any: JSON values
        """Return a JSON object of finite numbers and nulls."""
        return {
            "rule": str(self.rule),
            "threshold": self.threshold,
            "reason": self.reason,
            "confusion": None if self.confusion is None else self.confusion.to_json(),
            "false_alarms_per_hour": self.false_alarms_per_hour,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:  # Any: JSON values
        """Return what `to_json` wrote. Raises KeyError when it did not."""
        confusion = data["confusion"]
        return cls(
            ThresholdRule.parse(data["rule"]),
            data["threshold"],
            data["reason"],
            None if confusion is None else Confusion.from_json(confusion),
            data["false_alarms_per_hour"],
        )


def choose_threshold(
    rule: ThresholdRule, positive: NDArray[np.bool_], score: NDArray[np.float32]
) -> ChosenThreshold:
    """Return the threshold of a rule about rows, of N rows.

    Args:
        rule: any but fa-per-hour, which is about events.
        positive: bool[N].
        score: f4[N], finite.
    """
    if not len(score):
        return ChosenThreshold(rule, None, "validation has no rows that count")
    if not positive.any():
        return ChosenThreshold(rule, None, "validation has no positive rows")
    found = _place(rule, RankedRows.of(positive, score))
    if isinstance(found, str):
        return ChosenThreshold(rule, None, found)
    return ChosenThreshold(rule, found, confusion=Confusion.of(positive, score, found))


def _place(rule: ThresholdRule, ranking: RankedRows) -> float | str:
    """Return the threshold, or why there is none. argmax takes the first, the highest, of equals.

    Below 2^25 rows, quotients that are equal are equal as f8, and others are not.
    """
    hits, rows = ranking.hits, ranking.rows
    num_positives, num_rows = int(hits[-1]), int(rows[-1])
    precision, least = hits / rows, rule.at or 0.0
    match rule.name:
        case "f1":
            return ranking.best_f1_threshold
        case "youden":
            if num_positives == num_rows:
                return "validation has no negative rows"
            # recall - false positive rate, times both numbers of rows: whole numbers.
            good = hits * (num_rows - num_positives) - (rows - hits) * num_positives
        case "precision":
            good = np.where(precision >= least, hits, -1)
            if good.max() < 0:
                return (
                    f"no threshold has a precision of {least:g} on validation; the best is"
                    f" {precision.max():.3f}"
                )
        case "recall":
            good = np.where(hits / num_positives >= least, precision, -1.0)
        case "fa-per-hour":
            raise AssertionError("false alarms are those of events")
    return float(ranking.scores[np.argmax(good)])
