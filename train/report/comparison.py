"""Runs beside each other as one page: intervals, paired differences, and what the runs differ in.

Enters: a comparison. Leaves: one HTML file that needs no network, and holds no sound.
"""

from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any, Final

from laughstore.errors import ConfigError
from laughstore.files import make_dirs, write_atomic

from ..comparison.compared import ComparedRun, Comparison
from ..comparison.paired import Difference
from ..evaluation.bootstrap import Interval
from ..runs.folds import TRAIN_SPLIT, VALIDATION_SPLIT, shown_groups
from ..scoring.metrics import METRICS
from .charts import MUTED, PALETTE, Chart, axis, points
from .page import render
from .tables import Cell, Column, Table, number

_MOST_LETTERS: Final = 34
"""Of a run's name beside a chart; the whole name is told where the pointer is."""


def check_page(out: Path) -> None:
    """Raise a ConfigError if there is something already where a page shall be written."""
    if out.exists() or out.is_symlink():
        raise ConfigError(f"{out} exists; choose another --out, or delete it")


def write_comparison(found: Comparison, out: Path) -> None:
    """Write a comparison as a page.

    Raises:
        ConfigError: `out` exists.
    """
    check_page(out)
    data = comparison_page(found).encode()
    make_dirs(out.absolute().parent)
    write_atomic(out, data)


def comparison_page(found: Comparison) -> str:
    """Return a comparison as a page."""
    charts = _charts(found)
    return render(
        "comparison.html",
        title=f"{len(found.runs)} runs: {found.split}",
        charts=charts,
        found=found,
        metric=METRICS[found.metric].title,
        labels=list(dict.fromkeys(run.label.describe() for run in found.runs)),
        facts=_facts(found),
        warnings=list(_warnings(found)),
        shown_charts=charts,
        runs=_runs_table(found),
        differences=_differences_table(found),
        seeds=_seeds_table(found),
        settings=_settings_table(found),
    )


def _facts(found: Comparison) -> list[str]:
    facts = [
        f"split {found.split}",
        f"{METRICS[found.metric].title}, {found.better} is better",
        f"{len(found.runs):,} runs",
        f"differences from {found.baseline}",
    ]
    drawn = _an_interval(found)
    if drawn is not None:
        facts.append(f"{drawn.num_units} {drawn.unit}s drawn {drawn.draws:,} times")
    return facts


def _an_interval(found: Comparison) -> Interval | None:
    each = (run.intervals.get(found.metric) for run in found.runs)
    return next((item for item in each if item is not None and item.low is not None), None)


def _warnings(found: Comparison) -> Iterator[str]:
    """What a reader must know before the numbers."""
    if found.split == TRAIN_SPLIT:
        yield "The runs were trained on these rows: scores say how well they remember them."
    if found.split == VALIDATION_SPLIT:
        yield (
            "Each run has the epoch and the threshold that were best on these rows, which flatters"
            " all of them; test is for the last word."
        )
    known = [run for run in found.runs if run.groups_trained_on]
    if known:
        groups = {group for run in known for group in run.groups_trained_on}
        names = ", ".join(run.name for run in known)
        yield f"{shown_groups(groups)} were trained on, too, by {names}: such scores are too good."
    for line in dict.fromkeys(run.other_annotations for run in found.runs):
        if line is not None:
            yield f"{line[0].upper()}{line[1:]}."
    looks = [f"{run.name} {run.look.look}" for run in found.runs if run.look is not None]
    if looks:
        yield f"Looks at {found.split} by each run so far: {', '.join(looks)}."
    rough = _an_interval(found)
    if rough is not None and rough.is_rough:
        yield (
            f"Intervals are rough, and rather too narrow: there are only {rough.num_units}"
            f" {rough.unit}s to draw from."
        )
    reasons = {name: each[found.metric].reason for name, each in found.differences.items()}
    for reason in dict.fromkeys(reasons.values()):
        if reason is not None:
            names = ", ".join(name for name, why in reasons.items() if why == reason)
            yield f"Not compared with {found.baseline}: {names} ({reason})."


def _charts(found: Comparison) -> list[Chart]:
    title = METRICS[found.metric].title
    values = {
        run.name: (run.metrics.values.get(found.metric), run.intervals.get(found.metric))
        for run in found.runs
    }
    charts = [
        _dots(
            "values",
            f"{title} of each run",
            title,
            values,
            asked={run.name: run.asked for run in found.runs},
            note="With 95 % intervals, which tell how far other recordings would move a run;"
            " whether one run is better than another is told by differences. Only runs of one"
            " colour were asked about the same rows; others have another base rate.",
        )
    ]
    differences = {
        name: (each[found.metric].value, each[found.metric].interval)
        for name, each in found.differences.items()
        if each[found.metric].value is not None
    }
    if differences:
        better = "right" if found.better == "higher" else "left"
        charts.append(
            _dots(
                "differences",
                f"Difference from {found.baseline}",
                f"{title}, less that of the baseline",
                differences,
                note=f"With paired 95 % intervals, over the same draws; better is to the {better}.",
                zero=True,
            )
        )
    return charts


def _dots(
    name: str,
    title: str,
    x_title: str,
    values: Mapping[str, tuple[float | None, Interval | None]],
    *,
    note: str,
    asked: Mapping[str, int] | None = None,
    zero: bool = False,
) -> Chart:
    """A row for each run: its number, and the interval as a bar."""
    traces: list[dict[str, Any]] = []  # Any: JSON values
    for place, (run, (value, interval)) in enumerate(values.items()):
        if value is None:
            continue
        bar: dict[str, Any] = {}
        color = PALETTE[0 if asked is None else asked[run] % len(PALETTE)]
        if interval is not None and interval.low is not None and interval.high is not None:
            bar["error_x"] = {
                "type": "data",
                "symmetric": False,
                # The number of all rows may lie outside of what is drawn.
                "array": [interval.high - value],
                "arrayminus": [value - interval.low],
                "color": color,
                "thickness": 1.5,
                "width": 4,
            }
        told = f"{escape(run)}<br>{number(value, 4)}{_told(interval)}<extra></extra>"
        traces.append(points([value], [place], escape(run), color=color, hovertemplate=told, **bar))
    layout: dict[str, Any] = {
        "showlegend": False,
        "margin": {"l": 12},
        "xaxis": axis(x_title),
        "yaxis": axis(
            "",
            tickvals=list(range(len(values))),
            ticktext=[escape(_short(run)) for run in values],
            range=[len(values) - 0.5, -0.5],
            automargin=True,
        ),
    }
    if zero:
        look = {"color": MUTED, "dash": "dash", "width": 1.25}
        ends = {"x0": 0, "x1": 0, "y0": 0, "y1": 1, "yref": "paper"}
        layout["shapes"] = [{"type": "line", "line": look, **ends}]
    return Chart(name, title, traces, layout, note, height=110 + 28 * len(values))


def _told(interval: Interval | None) -> str:
    if interval is None or interval.low is None:
        return ""
    return f" ({number(interval.low, 4)} to {number(interval.high, 4)})"


def _short(name: str) -> str:
    half = _MOST_LETTERS // 2
    return name if len(name) <= _MOST_LETTERS else f"{name[:half]}…{name[-half:]}"


def _interval_cell(interval: Interval | None, why: str = "", digits: int = 3) -> Cell:
    if interval is None or interval.low is None:
        return Cell(
            number(None), None, hint=(interval.reason or "") if interval is not None else why
        )
    low, high = number(interval.low, digits), number(interval.high, digits)
    return Cell(f"{low} to {high}", interval.low)


def _runs_table(found: Comparison) -> Table:
    title = METRICS[found.metric].title
    columns = [
        Column("run"),
        Column(title, numeric=True),
        Column("95 % interval", numeric=True),
        Column("base rate", numeric=True, hint="share of positive rows: the AP of a constant"),
        Column("lift", numeric=True, hint="AP over base rate"),
        Column("rows", numeric=True),
        Column("recordings", numeric=True),
        Column(
            "asked", numeric=True, hint="runs with equal numbers have the same rows and targets"
        ),
        Column("label"),
    ]
    return Table("Runs", columns, [_run_row(found, run) for run in found.runs])


def _run_row(found: Comparison, run: ComparedRun) -> list[Cell]:
    metrics = run.metrics
    why = metrics.undefined.get(found.metric, "")
    name = f"{run.name} ★" if run.is_best else run.name
    return [
        Cell.name(name),
        Cell.of(metrics.values.get(found.metric), why=why),
        _interval_cell(run.intervals.get(found.metric), why),
        Cell.share(metrics.base_rate, why=metrics.undefined.get("base_rate", "")),
        Cell.of(metrics.lift, why=metrics.undefined.get("lift", "")),
        Cell.count(metrics.num_rows),
        Cell.count(len(run.question.groups)),
        Cell.count(run.asked + 1),
        Cell.name(run.label.describe()),
    ]


def _differences_table(found: Comparison) -> Table | None:
    """All metrics of the runs that can be compared; None if there is none."""
    rows = [
        [Cell.name(name), Cell.name(METRICS[metric].title), *_difference_cells(item)]
        for name, each in found.differences.items()
        for metric, item in sorted(each.items(), key=lambda pair: pair[0] != found.metric)
        if item.value is not None
    ]
    columns = [
        Column("run"),
        Column("metric"),
        Column("difference", numeric=True),
        Column("95 % interval", numeric=True),
        Column("p", numeric=True, hint="two-sided, of each run and metric by itself"),
    ]
    return Table(f"Differences from {found.baseline}", columns, rows) if rows else None


def _difference_cells(item: Difference | None) -> list[Cell]:
    if item is None or item.value is None:
        return [Cell(number(None), None, hint="" if item is None else item.reason or "")] * 3
    return [
        Cell(f"{item.value:+.4f}", item.value),
        _interval_cell(item.interval, digits=4),
        Cell.of(item.p),
    ]


def _seeds_table(found: Comparison) -> Table | None:
    columns = [
        Column("runs"),
        Column("seeds", numeric=True),
        Column("mean", numeric=True),
        Column("spread", numeric=True, hint="standard deviation over the seeds"),
        Column("95 % interval of the mean", numeric=True, hint="over recordings, not over seeds"),
        Column("difference", numeric=True, hint="from the mean of the baseline's seeds"),
        Column("95 % interval", numeric=True),
        Column("p", numeric=True),
    ]
    rows = [
        [
            Cell.name(", ".join(group.names)),
            Cell.count(len(group.names)),
            Cell.of(group.mean),
            Cell.of(group.spread),
            _interval_cell(group.interval),
            *_difference_cells(group.difference),
        ]
        for group in found.seeds
    ]
    return Table("Seeds", columns, rows) if rows else None


def _settings_table(found: Comparison) -> Table | None:
    columns = [Column("setting"), *(Column(run.name) for run in found.runs)]
    rows = [
        [
            Cell.name(name),
            *(Cell.name(number(None) if value is None else str(value)) for value in values),
        ]
        for name, values in found.settings.items()
    ]
    return Table("Settings that differ", columns, rows) if rows else None
