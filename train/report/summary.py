"""What a report says in words and numbers: warnings, the main numbers, all numbers, settings."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..evaluation.bootstrap import Interval
from ..evaluation.events.anticipation import Foreseen
from ..evaluation.events.collar import EventCounts
from ..evaluation.result import EvaluationResult
from ..runs.folds import TRAIN_SPLIT, shown_groups
from ..runs.run import Run
from ..scoring.metrics import METRICS
from .tables import Cell, Column, Table, number, percent

_NBSP = "\N{NO-BREAK SPACE}"


@dataclass(frozen=True)
class Tile:
    """A number that is seen first."""

    title: str
    value: str
    lines: tuple[str, ...] = ()
    """Below it: what it is to be held against."""


def warnings(result: EvaluationResult) -> list[str]:
    """Return what a reader must know before the numbers, one line each; none if all is well."""
    return list(_warnings(result))


def _warnings(result: EvaluationResult) -> Iterator[str]:
    if result.split == TRAIN_SPLIT:
        yield "The run was trained on these rows: the scores say how well it remembers them."
    if result.groups_trained_on:
        told = shown_groups(result.groups_trained_on)
        yield f"{told} of split {result.split!r} were trained on, too: the scores are too good."
    if result.other_annotations is not None:
        yield f"{result.other_annotations[0].upper()}{result.other_annotations[1:]}."
    if result.num_skipped_blocks:
        blocks = "block is" if result.num_skipped_blocks == 1 else "blocks are"
        yield (
            f"{result.num_skipped_blocks:,} {blocks} left out as corrupt, as in training"
            " (--skip-corrupt)."
        )
    if result.scores == "order":
        yield "Scores order rows, and are no probabilities (docs/labels.md, Losses)."
    if result.look is not None:
        look, split = result.look.look, result.look.split
        if look == 1:
            yield f"This is the first look at split {split!r} that is counted in the run."
        else:
            yield (
                f"This is look number {look} at split {split!r}: the more often it is looked at,"
                " the more its numbers are those of a choice."
            )
    if result.point.chosen_on == "checkpoint":
        yield (
            "The threshold is that of validation as training saw it, which could not be scored"
            " again."
        )
    interval = next(iter(result.intervals.values()), None)
    if interval is not None and interval.low is None:
        yield f"There are no intervals: {interval.reason}."
    elif interval is not None and interval.is_rough:
        yield (
            f"Intervals are rough, and rather too narrow: there are only {interval.num_units}"
            f" {interval.unit}s to draw from."
        )
    if result.null is not None and result.null.p > 0.05:
        yield (
            f"Average precision is not clearly above chance (p = {result.null.p:.3f}, labels"
            " rotated against the scores)."
        )
    yield from _undefined(result)


def _undefined(result: EvaluationResult) -> Iterator[str]:
    by_reason: dict[str, list[str]] = {}
    for name, reason in result.metrics.undefined.items():
        by_reason.setdefault(reason, []).append(METRICS[name].title)
    for reason, titles in by_reason.items():
        yield f"Undefined: {', '.join(titles)} ({reason})."


def tiles(result: EvaluationResult) -> list[Tile]:
    """Return the main numbers of an evaluation."""
    found = result.metrics
    shown = []
    if "rmse" in found.values:
        shown += [
            Tile(
                METRICS[name].title,
                number(found.values[name]),
                _interval_lines(result.intervals.get(name)),
            )
            for name in ("rmse", "mae", "spearman", "wait_mae_s")
        ]
    base_rate = f"base rate {percent(found.base_rate)}"
    if found.lift is not None:
        base_rate = f"{found.lift:.1f} times the base rate ({percent(found.base_rate)})"
    shown.append(
        Tile(
            "Average precision",
            number(found.average_precision),
            (
                *_interval_lines(result.intervals.get("average_precision")),
                base_rate,
                *_null_lines(result),
            ),
        )
    )
    shown.append(Tile("AUROC", number(found.auroc), _interval_lines(result.intervals.get("auroc"))))
    if result.within is not None:
        within = result.within.to_json()
        shown.append(
            Tile(
                "Lift within a stream",
                number(within["lift_mean"], 1),
                (
                    f"mean of {within['streams']:,} streams; median"
                    f" {number(within['lift_median'], 1)}",
                    f"AUROC {number(within['auroc_mean'])}",
                ),
            )
        )
    if "f1" in found.values:
        lines = (
            f"precision {number(found.values['precision'])}, recall"
            f" {number(found.values['recall'])}",
            f"threshold {number(found.threshold)}",
        )
        interval = _interval_lines(result.intervals.get("f1"))
        shown.append(Tile("F1 of rows", number(found.values["f1"]), (*interval, *lines)))
    shown += _event_tiles(result)
    return shown


def _event_tiles(result: EvaluationResult) -> Iterator[Tile]:
    segments, foreseen = result.events.segments, result.events.foreseen
    if segments is not None:
        counts = segments.counts or EventCounts()
        lines = (
            f"precision {number(counts.precision)}, recall {number(counts.recall)}",
            f"{segments.num_bouts:,} bouts, collar {segments.collar.onset_us / 1e6:g}{_NBSP}s",
        )
        yield Tile("F1 of segments", number(counts.f1), lines)
    if foreseen is not None:
        rate = foreseen.false_alarms_per_hour
        lines = [f"of {foreseen.num_onsets:,}, with {number(rate, 1)} false alarms an hour"]
        quartiles = foreseen.to_json()["lead_s_quartiles"]
        if quartiles is not None:
            lines.append(f"half of them {quartiles[1]:.2f} s ahead or more")
        yield Tile("Onsets foreseen", percent(foreseen.recall, 1), tuple(lines))


def _interval_lines(found: Interval | None) -> tuple[str, ...]:
    text = _interval(found)
    return (f"95 %: {text}",) if text else ()


def _interval(found: Interval | None) -> str:
    if found is None or found.low is None or found.high is None:
        return ""
    return f"{number(found.low)} to {number(found.high)}"


def _null_lines(result: EvaluationResult) -> tuple[str, ...]:
    if result.null is None:
        return ()
    low, high = result.null.central
    return (f"chance {number(low)} to {number(high)}, p {result.null.p:.3f}",)


def threshold_text(result: EvaluationResult) -> str:
    """Return where the threshold is from, as a sentence; nothing without one."""
    point = result.point
    match point.chosen_on:
        case "given":
            return "The threshold was given."
        case "checkpoint":
            return f"The threshold was chosen by {point.rule} when the checkpoint was validated."
        case "validation":
            where = ", which is these very rows" if point.on_these_rows else ""
            return f"The threshold was chosen by {point.rule} on validation{where}."
        case None:
            return ""


def numbers_table(result: EvaluationResult) -> Table:
    """Return all numbers of an evaluation, each with its interval and what it says."""
    rows = []
    for name, value in result.metrics.values.items():
        metric = METRICS[name]
        text = (percent if metric.is_share else number)(value)
        interval = result.intervals.get(name)
        span = _interval(interval)
        if span and metric.is_share and interval is not None:
            span = f"{percent(interval.low)} to {percent(interval.high)}"
        why = result.metrics.undefined.get(name, "")
        what = (metric.of.__doc__ or "").partition("\n")[0]
        rows.append(_row(metric.title, text, span, f"Undefined: {why}." if why else what))
    rows += [_row(*item) for item in _more_numbers(result)]
    columns = [Column("Number"), Column("Value"), Column("95 % interval"), Column("What it says")]
    return Table("All numbers", columns, rows)


def _row(title: str, value: str, interval: str, what: str) -> list[Cell]:
    return [Cell.name(text) for text in (title, value, interval, what)]


def _more_numbers(result: EvaluationResult) -> Iterator[tuple[str, str, str, str]]:
    if result.within is not None:
        found = result.within.to_json()
        what = (
            f"Mean over {found['streams']:,} streams with rows of both classes, each held against"
            " its own base rate."
        )
        yield "lift within a stream", number(found["lift_mean"]), "", what
        yield "AUROC within a stream", number(found["auroc_mean"]), "", what
    if result.null is not None:
        low, high = result.null.central
        what = (
            f"Labels rotated against the scores, {len(result.null.null):,} times: mean, and where"
            f" 95 % lie. p = {result.null.p:.3f}."
        )
        span = f"{number(low)} to {number(high)}"
        yield "AP by chance", number(float(result.null.null.mean())), span, what
    if result.calibration is not None:
        found = result.calibration
        yield "Brier score", number(found.brier, 5), "", "Mean squared error of the probability."
        yield "log-loss", number(found.log_loss, 5), "", "In nats."
        yield (
            "expected calibration error",
            percent(found.bins.expected_error),
            "",
            f"Over {len(found.bins.count)} bins of equal size.",
        )
    yield from _tempered_numbers(result)
    yield from _event_numbers(result)


def _tempered_numbers(result: EvaluationResult) -> Iterator[tuple[str, str, str, str]]:
    tempered = result.tempered
    if tempered is None:
        return
    what = "Fitted on validation; logits are divided by it in the two lines below alone."
    if tempered.temperature.value is None:
        what = f"Undefined: {tempered.temperature.reason}."
    yield "temperature", number(tempered.temperature.value), "", what
    after = tempered.calibration
    if after is not None:
        yield "log-loss at this temperature", number(after.log_loss, 5), "", "In nats."
        what = f"Over {len(after.bins.count)} bins of equal size."
        yield "calibration error at it", percent(after.bins.expected_error), "", what


def _event_numbers(result: EvaluationResult) -> Iterator[tuple[str, str, str, str]]:
    events = result.events
    if events.segments is not None:
        counts, collar = events.segments.counts, events.segments.collar
        if counts is not None:
            what = (
                f"At the threshold: {counts.hits:,} hits, {counts.false_alarms:,} false alarms,"
                f" {counts.misses:,} misses; onsets within {collar.onset_us / 1e6:g} s."
            )
            yield "F1 of segments", number(counts.f1), "", what
        for tolerance, score in events.segments.psds.items():
            what = "Polyphonic sound detection score, over all thresholds."
            yield f"PSDS, tolerance {tolerance}", number(score), "", what
    if events.foreseen is not None:
        yield from _foreseen_numbers(events.foreseen)
    if events.candidates is not None:
        found = events.candidates
        what = (
            f"{found.num_targets:,} {result.label.event} among {found.num_others:,} other annotated"
            " events, each with its highest score."
        )
        yield "AP of annotated events", number(found.average_precision), "", what
        yield "AUROC of annotated events", number(found.auroc), "", what


def _foreseen_numbers(found: Foreseen) -> Iterator[tuple[str, str, str, str]]:
    what = f"{len(found.lead_s):,} of {found.num_onsets:,} onsets, at the threshold."
    yield "onsets foreseen", percent(found.recall), "", what
    what = f"{found.false_alarms:,} alarms in no window, in {found.hours:.2f} hours of rows."
    yield "false alarms an hour", number(found.false_alarms_per_hour, 2), "", what


def recordings_table(result: EvaluationResult, shown: Mapping[str, str]) -> Table:
    """Return the metrics of each recording, those with the most positive rows first.

    Args:
        result: of the evaluation.
        shown: place in the page of recordings that have a timeline, by their ids.
    """
    names = [name for name in result.metrics.values if name != "threshold"]
    columns = [
        Column("Recording"),
        Column("Rows", numeric=True, hint="that count"),
        Column("Positive", numeric=True, hint="rows"),
        *(Column(METRICS[name].title, numeric=True) for name in names),
    ]
    rows = []
    for item in sorted(result.recordings, key=lambda item: -item.metrics.num_positives):
        found = item.metrics
        rows.append(
            [
                Cell.name(item.name, shown.get(item.recording_id)),
                Cell.count(found.num_rows),
                Cell.count(found.num_positives),
                *(
                    (Cell.share if METRICS[name].is_share else Cell.of)(
                        found.values[name], why=found.undefined.get(name, "")
                    )
                    for name in names
                ),
            ]
        )
    return Table("By recording", columns, rows, sorted_by=2, descending=True)


def run_settings(run: Run) -> list[tuple[str, str]]:
    """Return the settings of a run, as (name, value)."""
    return list(_flat(run.config.to_json()))


def feature_settings(run: Run) -> list[tuple[str, str]]:
    """Return what the features are of that it was trained on, as (name, value)."""
    return list(_flat(run.spec.to_json()))


def software(run: Run) -> list[tuple[str, str]]:
    """Return the versions of what trained a run, as (name, value)."""
    return list(_flat(run.about.get("versions", {})))


def _flat(data: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Names and values, objects inside objects as `label.event`."""
    for name, value in data.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        elif isinstance(value, list):
            yield f"{before}{name}", ", ".join(map(str, value)) or "none"
        else:
            yield f"{before}{name}", "none" if value is None else str(value)
