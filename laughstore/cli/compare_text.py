"""A comparison of runs, as people read it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .text import aligned, counted, number, percent

if TYPE_CHECKING:
    from train import Comparison
    from train.comparison.compared import SeedGroup
    from train.comparison.paired import Difference
    from train.evaluation.bootstrap import Interval

_MOST_COLUMNS = 4
"""Runs whose settings are told side by side; of more, run by run."""
_MOST_SETTING = 40
"""Characters of a value that are shown."""


def comparison_texts(found: "Comparison") -> Iterator[str]:
    """Yield the lines of a comparison."""
    yield from _heading(found)
    yield from aligned(_run_rows(found))
    best = [run.name for run in found.runs if run.is_best]
    if best:
        yield f"* better than each other run on the same rows: {', '.join(best)}"
    elif found.draws and any(_known(found).values()):
        yield "no run is better than all others on the same rows: an interval holds 0"
    yield from _differences(found)
    for group in found.seeds:
        yield _seeds(found, group)
    yield from _settings(found)
    looks = [f"{run.name} {run.look.look}" for run in found.runs if run.look is not None]
    if looks:
        yield f"looks at {found.split} by each run, counted there: {', '.join(looks)}"


def _heading(found: "Comparison") -> Iterator[str]:
    from train.scoring.metrics import METRICS

    yield f"{found.split}: {METRICS[found.metric].title}, {found.better} is better"
    for label in dict.fromkeys(run.label.describe() for run in found.runs):
        yield f"label {label}"
    known = [run.name for run in found.runs if run.groups_trained_on]
    if known:
        yield f"scores are too good, as groups of the split were trained on: {', '.join(known)}"
    for line in dict.fromkeys(run.other_annotations for run in found.runs):
        if line is not None:
            yield line


def _run_rows(found: "Comparison") -> list[list[str]]:
    from train.scoring.metrics import METRICS

    title = METRICS[found.metric].title
    rows = [["run", title, "95 % interval", "base rate", "lift", "rows", "recordings"]]
    for run in found.runs:
        metrics = run.metrics
        rows.append(
            [
                f"{run.name} *" if run.is_best else run.name,
                number(metrics.values.get(found.metric)),
                _interval(run.intervals.get(found.metric)),
                percent(metrics.base_rate),
                number(metrics.lift),
                f"{metrics.num_rows:,}",
                f"{len(run.question.groups):,}",
            ]
        )
    return rows


def _known(found: "Comparison") -> "dict[str, Difference]":
    """Differences of the runs that have one, by name."""
    each = {name: by_metric[found.metric] for name, by_metric in found.differences.items()}
    return {name: item for name, item in each.items() if item.value is not None}


def _differences(found: "Comparison") -> Iterator[str]:
    """Lines about the differences from the baseline, and about runs that have none."""
    known = _known(found)
    if known:
        yield f"difference from {found.baseline}, on the same rows{_drawn(found, known)}:"
        rows = [["run", "difference", "95 % interval", "p"]]
        rows += [
            [name, _signed(item.value), _interval(item.interval, signed=True), _p(item.p)]
            for name, item in known.items()
        ]
        yield from (f"  {line}" for line in aligned(rows))
    reasons = [item.interval.reason for item in known.values() if item.interval is not None]
    for reason in dict.fromkeys(reasons):
        if reason is not None:
            yield f"no interval: {reason}"
    by_reason: dict[str | None, list[str]] = {}
    for name, by_metric in found.differences.items():
        by_reason.setdefault(by_metric[found.metric].reason, []).append(name)
    for reason, names in by_reason.items():
        if reason is not None:
            yield f"not compared with {found.baseline}: {', '.join(names)} ({reason})"


def _drawn(found: "Comparison", differences: "dict[str, Difference]") -> str:
    """What was drawn, of the first difference that has an interval."""
    intervals = (item.interval for item in differences.values() if item.interval is not None)
    first = next((item for item in intervals if item.low is not None), None)
    if first is None:
        return ""
    rough = ", rough" if first.is_rough else ""
    units = counted(first.num_units, f"{first.unit}s")
    return f" ({units} drawn {found.draws:,} times{rough}; p of each run by itself)"


def _seeds(found: "Comparison", group: "SeedGroup") -> str:
    from train.scoring.metrics import METRICS

    text = (
        f"{len(group.names)} seeds ({', '.join(group.names)}): mean"
        f" {METRICS[found.metric].title} {number(group.mean)}, spread {number(group.spread)}"
    )
    if group.interval is not None and group.interval.low is not None:
        text += f", 95 % interval of the mean {_interval(group.interval)}"
    difference = group.difference
    if difference is not None and difference.value is not None:
        seeds = any(found.baseline in group.names for group in found.seeds)
        others = " and its other seeds" if seeds else ""
        text += f"; {_signed(difference.value)} from {found.baseline}{others}"
        if difference.excludes_zero or difference.p is not None:
            text += f" ({_interval(difference.interval, signed=True)}, p {_p(difference.p)})"
    return text


def _settings(found: "Comparison") -> Iterator[str]:
    names = [run.name for run in found.runs]
    if not found.settings:
        yield "the runs have the same settings"
        return
    if len(names) <= _MOST_COLUMNS:
        rows = [["setting", *names]]
        rows += [[name, *map(_shown, values)] for name, values in found.settings.items()]
        yield "what differs in their settings:"
        yield from (f"  {line}" for line in aligned(rows, left=range(len(rows[0]))))
        return
    yield "what differs in their settings (empty ones left out):"
    for place, run in enumerate(names):
        each = [
            f"{name} {_shown(values[place])}"
            for name, values in found.settings.items()
            if values[place] is not None
        ]
        yield f"  {run}: {', '.join(each)}"


def _shown(value: object) -> str:
    text = "-" if value is None else str(value)
    return text if len(text) <= _MOST_SETTING else f"{text[:18]}...{text[-19:]}"


def _interval(found: "Interval | None", *, signed: bool = False) -> str:
    if found is None or found.low is None or found.high is None:
        return "none"
    write = _signed if signed else number
    return f"{write(found.low)} to {write(found.high)}"


def _signed(value: float | None) -> str:
    return "undefined" if value is None else f"{value:+.4f}"


def _p(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"
