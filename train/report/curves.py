"""The charts of an evaluation: precision-recall, ROC, calibration; and the confusion of rows.

Curves are made of exact points; where there are more than a screen can show, of some of them.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..evaluation.calibration import ReliabilityBins
from ..evaluation.false_alarms import Operated, OperatingCurve
from ..evaluation.temperature import Tempered
from ..scoring.confusion import Confusion
from ..scoring.ranking import RankedRows
from .charts import BLUE, GREEN, VERMILLION, Chart, Figure, axis, line, points, reference_line
from .tables import number, percent

_MOST_POINTS: Final = 300


def false_positive_rate(at: Confusion) -> float | None:
    """Return the share of negative rows that are alarms; None without any."""
    return at.fp / (at.fp + at.tn) if at.fp + at.tn else None


def precision_recall_chart(
    ranked: RankedRows, average_precision: float, at: Confusion | None
) -> Chart:
    """Return the precision-recall curve of rows of which some are positive.

    Args:
        ranked: the rows.
        average_precision: of them.
        at: what the threshold makes of them; None without one.
    """
    recall = ranked.hits / ranked.hits[-1]
    precision = ranked.hits / ranked.rows
    kept = _some(recall)
    base_rate = float(ranked.hits[-1] / ranked.rows[-1])
    # From recall 0 on, so that the first step is as wide as it counts.
    xs, ys = _first_at_zero(recall[kept], precision[kept])
    traces = [
        line(
            xs,
            ys,
            f"model, AP {average_precision:.3f}",
            shape="vh",
            fill="tozeroy",
            fillcolor="rgba(0,114,178,0.08)",
            hovertemplate="recall %{x:.3f}, precision %{y:.3f}<extra></extra>",
        ),
        reference_line([0, 1], [base_rate, base_rate], f"base rate {percent(base_rate)}"),
    ]
    if at is not None and at.recall is not None and at.precision is not None:
        mark = points([at.recall], [at.precision], "at the threshold", color=VERMILLION)
        traces.append(mark)
    layout = {
        "xaxis": axis("recall: share of positive rows found", range=[0, 1.01]),
        "yaxis": axis("precision", range=[0, 1.03]),
    }
    note = (
        "Precision of a score that tells nothing is the base rate, at any recall. Average precision"
        " is the area under the steps."
    )
    return Chart("precision-recall", "Precision and recall", traces, layout, note)


def roc_chart(ranked: RankedRows, auroc: float, at: Confusion | None) -> Chart:
    """Return the ROC curve of rows of both classes; the arguments are those of its neighbour."""
    hits, alarms = ranked.hits, ranked.rows - ranked.hits
    true_rate, false_rate = hits / hits[-1], alarms / alarms[-1]
    kept = np.union1d(_some(true_rate), _some(false_rate))
    traces = [
        line(
            [0.0, *false_rate[kept].tolist()],
            [0.0, *true_rate[kept].tolist()],
            f"model, AUROC {auroc:.3f}",
            hovertemplate="false %{x:.3f}, true %{y:.3f}<extra></extra>",
        ),
        reference_line([0, 1], [0, 1], "chance"),
    ]
    rate = None if at is None else false_positive_rate(at)
    if at is not None and at.recall is not None and rate is not None:
        mark = points([rate], [at.recall], "at the threshold", color=VERMILLION)
        traces.append(mark)
    layout = {
        "xaxis": axis("share of negative rows called positive", range=[0, 1.01]),
        "yaxis": axis("share of positive rows found", range=[0, 1.03]),
    }
    note = "The area is the chance that a positive row scores higher than a negative one."
    return Chart("roc", "ROC", traces, layout, note)


def calibration_chart(bins: ReliabilityBins, tempered: Tempered | None = None) -> Chart:
    """Return what bins of rows were said to be, and what came; the same at a temperature."""
    drawn = [(bins, f"{len(bins.count)} bins of equal size", BLUE)]
    after = None if tempered is None else tempered.calibration
    if tempered is not None and after is not None:
        name = f"at temperature {number(tempered.temperature.value, 2)}, fitted on validation"
        drawn.append((after.bins, name, GREEN))
    top = 1.05 * max(1e-6, *(float(x.max()) for each, *_ in drawn for x in (each.said, each.came)))
    marks = [_bins_trace(*item) for item in drawn]
    layout = {
        "xaxis": axis("mean probability said", range=[0, top]),
        "yaxis": axis("share of rows that were positive", range=[0, top]),
    }
    note = (
        "Points on the dashed line are honest probabilities; below it they promise too much. Axes"
        f" end at {number(top, 2)}: events are rare. Expected calibration error"
        f" {percent(bins.expected_error)}"
        + ("." if after is None else f", at the temperature {percent(after.bins.expected_error)}.")
    )
    title = "Are probabilities what they say?"
    traces = [reference_line([0, top], [0, top], "said = came"), *marks]
    return Chart("calibration", title, traces, layout, note)


def _bins_trace(bins: ReliabilityBins, name: str, color: str) -> Figure:
    mark = points(
        bins.said.tolist(),
        bins.came.tolist(),
        name,
        color=color,
        text=[f"{count:,} rows" for count in bins.count.tolist()],
        hovertemplate="said %{x:.4f}, came %{y:.4f}<br>%{text}<extra></extra>",
    )
    return mark | {"mode": "lines+markers", "line": {"color": color, "width": 1.5}}


def _some(rising: NDArray[np.float64]) -> NDArray[np.int64]:
    """Places of some of the points of a curve, spread along what rises; first and last among them.

    At the beginning, where few rows make large steps, they are closer together.
    """
    num = len(rising)
    if num <= _MOST_POINTS:
        return np.arange(num)
    along = np.searchsorted(rising, np.linspace(0, rising[-1], _MOST_POINTS // 2))
    first = np.geomspace(1, num, _MOST_POINTS // 2).astype(np.int64) - 1
    return np.unique(np.concatenate([[0, num - 1], first, np.minimum(along, num - 1)]))


def _first_at_zero(
    x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[list[float], list[float]]:
    return [0.0, *x.tolist()], [float(y[0]), *y.tolist()]


def trade_off_chart(curve: OperatingCurve, point: Operated | None, what: str) -> Chart:
    """Return false alarms an hour against the share of events that are found.

    Args:
        curve: at thresholds of validation.
        point: at the threshold; None without one.
        what: is found: `bouts`, say.
    """
    traces = [
        line(
            curve.false_alarms_per_hour.tolist(),
            curve.recall.tolist(),
            "thresholds chosen on validation",
            hovertemplate="%{x:.1f} an hour, %{y:.3f} found<extra></extra>",
        )
    ]
    if point is not None and point.false_alarms_per_hour is not None and point.recall is not None:
        at = [point.false_alarms_per_hour], [point.recall]
        traces.append(points(*at, "at the threshold", color=VERMILLION))
    layout = {
        "xaxis": axis("false alarms an hour", rangemode="tozero"),
        "yaxis": axis(f"share of {what} found", range=[0, 1.03]),
    }
    note = (
        "As events are counted: each is found or not, and an alarm for none of them is false. At"
        " low thresholds alarms run into each other, so that the line turns back."
    )
    return Chart("trade-off", "What finding more costs", traces, layout, note)
