"""Scores that nobody trained, and the same scores by kind of laugh, as people read them."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from .text import counted, number

if TYPE_CHECKING:
    from train import EvaluationResult
    from train.evaluation.baselines import Baseline
    from train.evaluation.strata import Division, Stratum


def baseline_texts(result: "EvaluationResult") -> Iterator[str]:
    """Yield a line for each score that nobody trained."""
    from train.evaluation.baselines import baseline_title

    reasons = {found.reason for found in result.baselines.values()}
    if len(reasons) == 1 and None not in reasons:
        yield f"no baselines: {reasons.pop()}"
        return
    for name, found in result.baselines.items():
        yield f"baseline, {baseline_title(name, result.label)}: {_baseline(found)}"


def _baseline(found: "Baseline") -> str:
    if found.metrics is None:
        return f"undefined ({found.reason})"
    values = found.metrics.values
    text = (
        f"AP {number(values['average_precision'])}, lift {number(values['lift'])},"
        f" AUROC {number(values['auroc'])}"
    )
    if "rmse" in values:
        text = f"RMSE {number(values['rmse'])}, MAE {number(values['mae'])}, {text}"
    if found.higher is not None:
        text += f" ({found.higher} is higher, as in train)"
    elif found.known_of is not None:
        known = found.known_of
        text += f" ({known['stream']} of {counted(sum(known.values()), 'streams')} trained on)"
    if found.within is not None and len(found.within.lift):
        lift = found.within.to_json()["lift_mean"]
        text += f"; within streams lift {number(lift)}"
    return text


def strata_texts(result: "EvaluationResult") -> Iterator[str]:
    """Yield a line for each way to divide laughs, and one about shows."""
    from train.evaluation.strata import DIVISION_TITLES

    for name, title in DIVISION_TITLES.items():
        found = result.strata[name]
        parts = [
            f"{stratum} {_stratum(item)}"
            for stratum, item in found.strata.items()
            if item.metrics.num_positives or item.num_events
        ]
        if found.num_unknown:
            parts.append(f"not known {counted(found.num_unknown, 'rows')}")
        if found.strata and parts:
            yield f"by {title}: {'; '.join(parts)}"
    yield from _shows(result.strata["show"])


def _stratum(item: "Stratum") -> str:
    values = item.metrics.values
    parts = [f"AP {number(values['average_precision'])}", f"lift {number(values['lift'])}"]
    if item.num_events is not None:
        parts.append(f"{item.num_found:,} of {item.num_events:,} found")
    return ", ".join(parts)


def _shows(found: "Division") -> Iterator[str]:
    scored: Mapping[str, float] = {
        name: value
        for name, item in found.strata.items()
        if (value := item.metrics.lift) is not None
    }
    if len(scored) < 2:
        return
    low, high = min(scored, key=scored.__getitem__), max(scored, key=scored.__getitem__)
    yield (
        f"by show: lift from {number(scored[low])} ({low}) to {number(scored[high])} ({high}), of"
        f" {len(scored):,} shows with positive rows"
    )
