"""How a run was trained, from the log in its folder."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ..scoring.metrics import METRICS
from .charts import MUTED, VERMILLION, Chart, axis, line, points

_MOST_POINTS: Final = 1000

type Line = Mapping[str, Any]  # Any: JSON values


def read_log(path: Path) -> list[dict[str, Any]]:  # Any: JSON values
    """Return the lines of a run's log; those up to the first that a kill has cut, none without one.

    Args:
        path: the JSON-lines file.
    """
    lines: list[dict[str, Any]] = []
    if not path.is_file():
        return lines
    for text in path.read_text("utf-8", errors="replace").splitlines():
        try:
            told = json.loads(text)
        except ValueError:
            break
        if isinstance(told, dict) and isinstance(told.get("step"), int):
            lines.append(told)
    return lines


def training_charts(lines: Sequence[Line], chosen_by: str, step: int | None) -> list[Chart]:
    """Return the charts of a run's log: of the loss, and of the metric that chose the epoch.

    Args:
        lines: of the log.
        chosen_by: name of the metric, as in METRICS.
        step: of the checkpoint that was evaluated; None if it is not known.
    """
    charts = []
    train = _thinned([item for item in lines if item.get("kind") == "train"])
    if any(item.get("loss") is not None for item in train):
        charts.append(_loss_chart(train))
    validated = [item for item in lines if item.get("kind") == "validation"]
    if any(item.get(chosen_by) is not None for item in validated):
        charts.append(_validation_chart(validated, chosen_by, step))
    return charts


def _loss_chart(lines: Sequence[Line]) -> Chart:
    steps = [item["step"] for item in lines]
    loss = line(
        steps,
        [item.get("loss") for item in lines],
        "loss",
        hovertemplate="step %{x:,}: %{y:.5f}<extra></extra>",
    )
    traces = [loss]
    layout = {"xaxis": axis("step"), "yaxis": axis("mean loss", rangemode="tozero")}
    if any(item.get("lr") is not None for item in lines):
        rates = line(
            steps,
            [item.get("lr") for item in lines],
            "learning rate (right)",
            yaxis="y2",
            hovertemplate="step %{x:,}: %{y:.2e}<extra></extra>",
        )
        rates["line"] = {"color": MUTED, "width": 1.25, "dash": "dot"}
        traces.append(rates)
        layout["yaxis2"] = axis("", overlaying="y", side="right", showgrid=False, tickformat=".0e")
        layout["yaxis2"]["rangemode"] = "tozero"
        layout["margin"] = {"r": 56}
    note = "Each point is the mean since the last line of the log."
    return Chart("loss", "Training loss", traces, layout, note)


def _validation_chart(lines: Sequence[Line], name: str, step: int | None) -> Chart:
    title = METRICS[name].title
    xs = [item.get("epoch", place) + 1 for place, item in enumerate(lines)]
    values = [item.get(name) for item in lines]
    shown = line(xs, values, title, hovertemplate="epoch %{x}: %{y:.4f}<extra></extra>")
    shown["mode"] = "lines+markers"
    traces = [shown]
    at = [
        (x, value)
        for x, value, item in zip(xs, values, lines, strict=True)
        if item["step"] == step and value is not None
    ]
    if at:
        x, value = at[-1]
        traces.append(points([x], [value], "this checkpoint", color=VERMILLION))
    layout = {"xaxis": axis("epoch", rangemode="tozero"), "yaxis": axis(title)}
    note = "On the split validation, after each epoch; it chose the best checkpoint."
    return Chart("validation", f"{title} while training", traces, layout, note)


def _thinned(lines: list[Any]) -> list[Any]:
    """Some of many lines, at equal distances; the last among them."""
    apart = -(-len(lines) // _MOST_POINTS)
    return lines if apart <= 1 else lines[(len(lines) - 1) % apart :: apart]
