"""Scores within streams and as events, as people read them."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .text import counted, number, percent

if TYPE_CHECKING:
    from train import EvaluationResult
    from train.evaluation.event_metrics import SegmentMetrics
    from train.evaluation.events.anticipation import Foreseen
    from train.evaluation.events.candidates import CandidateMetrics
    from train.evaluation.postprocess import PostProcessing


def sureness_texts(result: "EvaluationResult") -> Iterator[str]:
    """Yield a line about the intervals, and one about chance."""
    from train.scoring.metrics import METRICS

    found = result.intervals
    if found:
        first = next(iter(found.values()))
        each = [
            f"{METRICS[name].title} {number(one.low)} to {number(one.high)}"
            for name, one in found.items()
            if one.low is not None and not METRICS[name].is_share
        ]
        rough = ", rough" if first.is_rough else ""
        drawn = f"{counted(first.num_units, f'{first.unit}s')} drawn {first.draws:,} times{rough}"
        if each:
            yield f"95 % intervals: {', '.join(each)} ({drawn})"
        else:
            yield f"no intervals: {first.reason}"
    if result.null is not None:
        low, high = result.null.central
        yield (
            f"by chance (labels rotated {len(result.null.null)} times): AP {number(low)} to"
            f" {number(high)}, p = {result.null.p:.3f}"
        )


def calibration_texts(result: "EvaluationResult") -> Iterator[str]:
    """Yield a line about probabilities, if scores are some."""
    found = result.calibration
    if found is not None:
        yield (
            f"probabilities: Brier {found.brier:.5f}, log-loss {found.log_loss:.5f} nats, expected"
            f" calibration error {percent(found.bins.expected_error)}"
        )
    tempered = result.tempered
    if tempered is not None and tempered.calibration is not None:
        after = tempered.calibration
        yield (
            f"at temperature {number(tempered.temperature.value)}, fitted on validation and applied"
            f" to this line alone: log-loss {after.log_loss:.5f} nats, expected calibration error"
            f" {percent(after.bins.expected_error)}"
        )


def event_texts(result: "EvaluationResult") -> Iterator[str]:
    """Yield a line about each that an evaluation has."""
    if result.within is not None:
        found = result.within.to_json()
        yield (
            f"within streams: lift {number(found['lift_mean'])} (median"
            f" {number(found['lift_median'])}), AUROC {number(found['auroc_mean'])}, means over"
            f" {counted(found['streams'], 'streams')} with rows of both classes"
        )
    events = result.events
    if events.segments is not None:
        yield from _segments(events.segments)
    if events.foreseen is not None:
        yield f"alarms at the threshold: {_foreseen(events.foreseen)}"
    if events.alarms is not None:
        for item in events.alarms.at_rates:
            found = f"no threshold ({item.chosen.reason})"
            if item.found is not None:
                found = _foreseen(item.found, all_quartiles=True)
            yield f"  at most {item.most_per_hour:g} an hour on validation: {found}"
    if events.candidates is not None:
        yield _candidates(events.candidates, result.label.event)


def _segments(found: "SegmentMetrics") -> Iterator[str]:
    if found.found is not None:
        counts, rate = found.found.counts, found.found.false_alarms_per_hour
        an_hour = "" if rate is None else f", {rate:.1f} false alarms an hour"
        yield (
            f"segments at the threshold: F1 {number(counts.f1)}, precision"
            f" {number(counts.precision)}, recall {number(counts.recall)}{an_hour}"
            f" ({counted(found.num_bouts, 'bouts')}, collar {found.collar.onset_us / 1e6:g} s)"
        )
        chosen = "chosen on validation" if found.how_is_chosen else "not chosen on validation"
        yield f"  how segments are made, {chosen}: {_how(found.how)}"
    each = ", ".join(f"{number(score)} (tolerance {share})" for share, score in found.psds.items())
    yield f"segments at all thresholds: PSDS {each}"


def _how(how: "PostProcessing") -> str:
    parts = [f"gaps of {how.merge_gap_us / 1e6:g} s or less are joined"]
    if how.median_rows > 1:
        parts.append(f"scores are medians of {how.median_rows} rows")
    if how.low_share < 1:
        parts.append(f"segments go on down to {how.low_share:g} times the threshold")
    if how.min_duration_us:
        parts.append(f"shorter ones than {how.min_duration_us / 1e6:g} s are dropped")
    return ", ".join(parts)


def _foreseen(found: "Foreseen", *, all_quartiles: bool = False) -> str:
    rate = found.false_alarms_per_hour
    text = (
        f"{percent(found.recall)} of {counted(found.num_onsets, 'onsets')} foreseen,"
        f" {'undefined' if rate is None else f'{rate:.1f}'} false alarms an hour"
    )
    quartiles = found.to_json()["lead_s_quartiles"]
    if quartiles is None:
        return text
    if all_quartiles:
        return f"{text}; quartiles {', '.join(f'{x:.2f}' for x in quartiles)} s ahead"
    return f"{text}; half of them {quartiles[1]:.2f} s ahead or more"


def _candidates(found: "CandidateMetrics", event: str) -> str:
    return (
        f"annotated events alone: AP {number(found.average_precision)}, AUROC"
        f" {number(found.auroc)}, {found.num_targets:,} {event} among {found.num_others:,} others"
    )
