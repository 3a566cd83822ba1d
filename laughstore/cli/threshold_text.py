"""The threshold of an evaluation and where it was chosen, as people read it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from train import EvaluationResult
    from train.evaluation.thresholds import ThresholdRule

_RULES: Final = {
    "f1": "the best F1",
    "youden": "the largest recall less false positive rate",
    "precision": "the highest recall with a precision of {:g} or more",
    "recall": "the highest precision with a recall of {:g} or more",
    "fa-per-hour": "the lowest with at most {:g} false alarms of events an hour",
}


def threshold_texts(result: "EvaluationResult") -> Iterator[str]:
    """Yield a line about the threshold, and one about the rows of each kind at it."""
    point, rule = result.point, result.point.rule
    if point.threshold is None:
        if rule is not None:
            yield f"no threshold ({rule}): {point.reason}"
        return
    match point.chosen_on:
        case "given" | None:
            yield f"threshold {point.threshold:g}: as given"
        case "checkpoint":
            yield (
                f"threshold {point.threshold:.4g}: {_words(rule)} when the checkpoint was"
                " validated (validation cannot be scored again)"
            )
        case "validation":
            where = " (these very rows)" if point.on_these_rows else ""
            yield f"threshold {point.threshold:.4g}: {_words(rule)} on validation{where}"
    counts = result.confusion
    if counts is not None:
        yield (
            f"rows at the threshold: {counts.tp:,} positive ones are alarms (tp) and {counts.fn:,}"
            f" are not (fn), {counts.fp:,} negative ones are (fp) and {counts.tn:,} are not (tn)"
        )


def _words(rule: "ThresholdRule | None") -> str:
    assert rule is not None, "chosen by one"
    return _RULES[rule.name].format(rule.at)
