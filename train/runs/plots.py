"""Plots of an evaluation, as PNG bytes. Drawn with figure objects only: no global state."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve

from laughstore.timebase import FRAME_US, US_PER_SECOND

from ..losses import ScoreKind
from ..scoring.metrics import FrameMetrics

# Okabe and Ito's palette: told apart by colour-blind readers too.
_BLUE, _ORANGE, _GREY, _INK = "#0072B2", "#E69F00", "#999999", "#222222"
_DPI = 130
_FRAME_S = FRAME_US / US_PER_SECOND
_WORDS: dict[ScoreKind, tuple[str, str]] = {
    "probability": ("predicted probability", "P({})"),
    "order": ("score, no probability", "score of\n{}"),
    "number": ("prediction", "{}"),
}
"""What the line is called, and its axis."""


@dataclass(frozen=True, eq=False)
class Panel:
    """One stream of a timeline."""

    title: str
    frame: NDArray[np.int64]
    """i64[n]: where each score is placed (row + lead), rising."""
    score: NDArray[np.float32]
    """f4[n]."""
    ignored: NDArray[np.bool_]
    """bool[n]: the label leaves this row out."""
    bout_start_s: NDArray[np.float64]
    """f8[K]: bouts, annotated or predicted."""
    bout_end_s: NDArray[np.float64]
    """f8[K]."""
    frames_a_score: int = 1
    """Consecutive frames that a score stands for, from `frame` on."""


def precision_recall_png(
    positive: NDArray[np.bool_], score: NDArray[np.float32], metrics: FrameMetrics, *, title: str
) -> bytes:
    """Return the precision-recall curve of N rows with both classes.

    Args:
        positive: bool[N].
        score: f4[N].
        metrics: of these rows.
        title: above the axes.
    """
    base_rate, ap, lift = metrics.base_rate, metrics.average_precision, metrics.lift
    assert base_rate is not None, "a curve needs rows"
    assert ap is not None, "a curve needs positive rows"
    precision, recall, _ = precision_recall_curve(positive, score, drop_intermediate=True)
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.subplots()
    axes.step(recall, precision, where="post", color=_BLUE, lw=1.8, label=f"model, AP {ap:.3f}")
    axes.fill_between(recall, precision, step="post", color=_BLUE, alpha=0.1, lw=0)
    axes.axhline(base_rate, color=_GREY, ls="--", lw=1.4, label=f"base rate {base_rate:.3f}")
    axes.set(
        xlim=(0, 1),
        ylim=(0, 1.02),
        xlabel="recall (share of positive frames found)",
        ylabel="precision (share of found frames that are positive)",
    )
    axes.set_title(f"{title}\nAP {ap:.3f}, {lift:.1f} times the base rate", fontsize=10, loc="left")
    axes.legend(loc="center left", frameon=False)
    _tidy(axes)
    return _png(figure)


def false_alarms_png(
    false_alarms_per_hour: NDArray[np.float64],
    recall: NDArray[np.float64],
    at_threshold: tuple[float, float] | None,
    *,
    title: str,
) -> bytes:
    """Return the recall of events over their false alarms, each point a threshold.

    Args:
        false_alarms_per_hour: f8[K], of falling thresholds.
        recall: f8[K].
        at_threshold: (false alarms an hour, recall) of the threshold to decide by; None without.
        title: above the axes.
    """
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.subplots()
    axes.plot(
        false_alarms_per_hour, recall, color=_BLUE, lw=1.0, marker=".", ms=4,
        label="thresholds of validation",
    )  # fmt: skip
    if at_threshold is not None:
        axes.plot(*at_threshold, color=_ORANGE, marker="o", ls="", label="the threshold")
    # Linear up to one an hour, so that none at all has a place.
    axes.set_xscale("symlog", linthresh=1.0)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _position: f"{value:g}"))
    axes.set(
        xlim=(0, max(10.0, 1.1 * float(false_alarms_per_hour.max()))),
        ylim=(0, 1.02),
        xlabel="false alarms an hour",
        ylabel="recall (share of events found)",
    )
    axes.set_title(title, fontsize=10, loc="left")
    axes.legend(loc="best", frameon=False)
    _tidy(axes)
    return _png(figure)


def timeline_png(
    panels: Sequence[Panel],
    *,
    title: str,
    event: str,
    scores: ScoreKind,
    question: str,
    base_rate: float | None,
    threshold: float | None = None,
    bouts: str = "annotated",
) -> bytes:
    """Return the scores along time, one panel a stream.

    Args:
        panels: of one recording, at least one.
        title: above the first panel.
        event: class of the bouts.
        scores: what the scores are.
        question: what they are asked.
        base_rate: of the split; None when unknown, or nothing to compare the scores with.
        threshold: from which on a score is an alarm; None: no line is drawn.
        bouts: what they are.
    """
    levels = {"base rate": base_rate, "threshold": threshold}
    figure = Figure(figsize=(13, 1.0 + 2.1 * len(panels)), layout="constrained")
    grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False)
    for axes, panel in zip(grid[:, 0], panels, strict=True):
        _draw_panel(axes, panel, *_WORDS[scores], question, levels)
    last = grid[-1, 0]
    last.set_xlim(0, max(max(_end_s(panel) for panel in panels), _FRAME_S))
    last.xaxis.set_major_locator(MaxNLocator(12, steps=[1, 2, 3, 5, 6, 10]))
    last.xaxis.set_major_formatter(FuncFormatter(_clock))
    last.set_xlabel("time (min:s)")
    # Names of recordings hold anything, dollars too, and are no formulas.
    figure.suptitle(title, fontsize=11, x=0.01, ha="left", color=_INK, parse_math=False)
    handles, _ = grid[0, 0].get_legend_handles_labels()
    handles.append(Patch(color=_ORANGE, alpha=0.4, lw=0, label=f"{bouts} {event}"))
    if any(panel.ignored.any() for panel in panels):
        handles.append(Patch(color=_GREY, alpha=0.35, lw=0, label="ignored rows"))
    figure.legend(handles=handles, loc="outside upper right", ncols=4, frameon=False, fontsize=9)
    return _png(figure)


def _draw_panel(
    axes: Axes,
    panel: Panel,
    name: str,
    axis: str,
    question: str,
    levels: Mapping[str, float | None],
) -> None:
    for start, end in zip(panel.bout_start_s, panel.bout_end_s, strict=True):
        axes.axvspan(start, end, color=_ORANGE, alpha=0.4, lw=0)
    for first, stop in _runs(panel.frame[panel.ignored]):
        axes.axvspan(first * _FRAME_S, stop * _FRAME_S, color=_GREY, alpha=0.35, lw=0)
    for level, style in zip(levels, ("--", ":"), strict=True):
        value = levels[level]
        if value is not None:
            axes.axhline(
                value, color=_INK, ls=style, lw=0.9, alpha=0.6, label=f"{level} {value:.3f}"
            )
    # A score holds for its frames; where frames are missing, the line is broken.
    starts, score = panel.frame * _FRAME_S, panel.score.astype(np.float64)
    gaps = np.flatnonzero(np.diff(panel.frame) > panel.frames_a_score) + 1
    starts = np.insert(starts, gaps, starts[gaps - 1] + panel.frames_a_score * _FRAME_S)
    score = np.insert(score, gaps, np.nan)
    axes.step(starts, score, where="post", color=_BLUE, lw=1.0, label=name)
    # Estimates may leave the range of what they estimate.
    axes.set_ylim(min(-0.02, np.nanmin(score, initial=0)), max(1.02, np.nanmax(score, initial=0)))
    axes.set_ylabel(axis.format(question))
    axes.set_title(panel.title, fontsize=9, loc="left", color=_INK, parse_math=False)
    _tidy(axes)


def _runs(frames: NDArray[np.int64]) -> list[tuple[int, int]]:
    """[first, stop) of each run of consecutive numbers in a rising array."""
    if not len(frames):
        return []
    breaks = np.flatnonzero(np.diff(frames) > 1)
    first = frames[np.concatenate([[0], breaks + 1])]
    stop = frames[np.concatenate([breaks, [len(frames) - 1]])] + 1
    return list(zip(first.tolist(), stop.tolist(), strict=True))


def _end_s(panel: Panel) -> float:
    return float(panel.frame[-1] + panel.frames_a_score) * _FRAME_S if len(panel.frame) else 0.0


def _clock(seconds: float, _position: int | None = None) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, lw=0.6)
    axes.set_axisbelow(True)


def _png(figure: Figure) -> bytes:
    FigureCanvasAgg(figure)
    buffer = BytesIO()
    # No software version in the file: equal data give equal bytes.
    figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    return buffer.getvalue()
