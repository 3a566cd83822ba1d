"""What a model's numbers stand beside: scores that nobody trained, kinds of laugh, shows."""

from collections.abc import Iterator, Mapping
from typing import Final

from ..evaluation.baselines import Baseline, baseline_title
from ..evaluation.result import EvaluationResult
from ..evaluation.strata import DIVISION_TITLES, SHOW, Stratum
from ..evaluation.within import WithinStreams
from ..scoring.metrics import METRICS, FrameMetrics
from .tables import Cell, Column, Table

_OF_BASELINES: Final = ("rmse", "mae", "average_precision", "lift", "auroc")
_OF_STRATA: Final = ("rmse", "mae", "average_precision", "base_rate", "lift", "auroc", "recall")


def baselines_table(result: EvaluationResult) -> Table | None:
    """Return the model and scores that nobody trained, on the same rows; None if there are none."""
    if all(found.metrics is None for found in result.baselines.values()):
        return None
    names = [name for name in _OF_BASELINES if name in result.metrics.values]
    columns = [
        Column("Score"),
        *(Column(METRICS[name].title, numeric=True) for name in names),
        Column("Lift within a stream", numeric=True, hint="mean over streams"),
        Column("What it is"),
    ]
    rows = [_scores("this model", result.metrics, result.within, names, "")]
    for name, found in result.baselines.items():
        title = baseline_title(name, result.label)
        rows.append(_scores(title, found.metrics, found.within, names, _about(found)))
    return Table("Beside scores that nobody trained", columns, rows)


def baselines_missing(result: EvaluationResult) -> str:
    """Return why there are no baselines at all, as a sentence."""
    reasons = dict.fromkeys(found.reason or "" for found in result.baselines.values())
    return f"There are none: {'; '.join(reasons)}."


def _scores(
    title: str,
    found: FrameMetrics | None,
    within: WithinStreams | None,
    names: list[str],
    what: str,
) -> list[Cell]:
    lift = None if within is None else within.to_json()["lift_mean"]
    return [Cell.name(title), *_cells(found, names), Cell.of(lift), Cell.name(what)]


def _cells(found: FrameMetrics | None, names: list[str]) -> Iterator[Cell]:
    """A cell of each metric; a dash, and where the pointer is why, for those that are not there."""
    for name in names:
        value = None if found is None else found.values.get(name)
        why = "" if found is None else found.undefined.get(name, "")
        yield (Cell.share if METRICS[name].is_share else Cell.of)(value, why=why)


def _about(found: Baseline) -> str:
    if found.reason is not None:
        return f"Undefined: {found.reason}."
    if found.higher is not None:
        return f"{found.higher} scores higher, as in train"
    if found.known_of is not None:
        known, total = found.known_of["stream"], sum(found.known_of.values())
        return f"{known:,} of {total:,} streams were trained on"
    return ""


def kinds_table(result: EvaluationResult) -> Table | None:
    """Return the scores by kind of laugh; None where no row is about one."""
    divisions = {name: found for name, found in result.strata.items() if name != SHOW}
    shown = {
        (DIVISION_TITLES[division], name): item
        for division, found in divisions.items()
        for name, item in found.strata.items()
        if item.metrics.num_positives or item.num_events
    }
    if not shown:
        return None
    names = _named(item.metrics for item in shown.values())
    columns = [Column("Divided by"), Column("Laughs"), *_columns(names)]
    rows = [
        [Cell.name(division), Cell.name(name), *_stratum(item, names)]
        for (division, name), item in shown.items()
    ]
    for division, found in divisions.items():
        if found.num_unknown:
            unknown = [Cell.count(found.num_unknown), *(Cell.of(None) for _ in columns[3:])]
            title = DIVISION_TITLES[division]
            rows.append([Cell.name(title), Cell.name("not known"), *unknown])
    return Table("By kind of laugh", columns, rows)


def shows_table(result: EvaluationResult) -> Table | None:
    """Return the scores by show, those with the most positive rows first; None of one alone."""
    strata: Mapping[str, Stratum] = result.strata[SHOW].strata
    if len(strata) < 2:
        return None
    names = _named(item.metrics for item in strata.values())
    order = sorted(strata.items(), key=lambda pair: -pair[1].metrics.num_positives)
    rows = [[Cell.name(name), *_stratum(item, names)] for name, item in order]
    columns = [Column("Show"), *_columns(names)]
    return Table("By show", columns, rows, sorted_by=1, descending=True)


def _named(each: Iterator[FrameMetrics]) -> list[str]:
    there = {name for found in each for name in found.values}
    return [name for name in _OF_STRATA if name in there]


def _columns(names: list[str]) -> list[Column]:
    return [
        Column("Positive", numeric=True, hint="rows"),
        *(Column(METRICS[name].title, numeric=True) for name in names),
        Column("Events", numeric=True, hint="bouts or onsets that could be found"),
        Column("Found", numeric=True, hint="of them"),
    ]


def _stratum(item: Stratum, names: list[str]) -> list[Cell]:
    events = Cell.of(None) if item.num_events is None else Cell.count(item.num_events)
    return [
        Cell.count(item.metrics.num_positives),
        *_cells(item.metrics, names),
        events,
        Cell.share(item.event_recall, 1),
    ]
