"""The plots of an evaluation, as files: what is drawn of which scores, and where it is put.

How it is drawn stands in `train.runs.plots`.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from laughstore.files import write_atomic
from laughstore.index import Index
from laughstore.labels import LabelSpec, target_bouts
from laughstore.timebase import FRAME_US, US_PER_SECOND

from ..losses import ScoreKind
from ..scoring.metrics import FrameMetrics
from ..scoring.score import StreamScores, counted_rows
from .plots import Panel, false_alarms_png, precision_recall_png, timeline_png

logger = logging.getLogger(__name__)

METRICS_FILE: Final = "metrics.json"
_CURVE, _FALSE_ALARMS = "pr.png", "false-alarms.png"


def clear_evaluation(folder: Path) -> None:
    """Delete an older evaluation, so that none of its plots stays beside new numbers."""
    names = (METRICS_FILE, _CURVE, _FALSE_ALARMS)
    for path in (*(folder / name for name in names), *folder.glob("timeline-*.png")):
        path.unlink(missing_ok=True)


def draw_curve(
    folder: Path, streams: Sequence[StreamScores], metrics: FrameMetrics, title: str
) -> list[Path]:
    """Draw the precision-recall curve, if there is one; return its path."""
    if metrics.average_precision is None:
        logger.warning("no precision-recall curve: %s", metrics.undefined["average_precision"])
        return []
    y, score = counted_rows(streams)
    write_atomic(folder / _CURVE, precision_recall_png(y > 0, score, metrics, title=title))
    return [folder / _CURVE]


def draw_false_alarms(
    folder: Path,
    false_alarms_per_hour: NDArray[np.float64],
    recall: NDArray[np.float64],
    at_threshold: tuple[float, float] | None,
    title: str,
) -> list[Path]:
    """Draw false alarms of events against recall; return its path.

    Args:
        folder: to draw into.
        false_alarms_per_hour: f8[K], at K thresholds.
        recall: f8[K], of the same.
        at_threshold: both, of the threshold to decide by; None without one.
        title: above the axes.
    """
    png = false_alarms_png(false_alarms_per_hour, recall, at_threshold, title=title)
    write_atomic(folder / _FALSE_ALARMS, png)
    return [folder / _FALSE_ALARMS]


def draw_timelines(
    folder: Path,
    index: Index,
    groups: dict[str, list[StreamScores]],
    label: LabelSpec,
    scores: ScoreKind,
    base_rate: float | None,
    limit: int,
) -> list[Path]:
    """Draw the recordings with the most positive rows along time; return the paths.

    Args:
        folder: to draw into.
        index: of the recordings.
        groups: streams of each recording, by its id.
        label: that they were scored for.
        scores: what the scores are.
        base_rate: of the split.
        limit: most recordings to draw.
    """
    drawn = sorted(
        groups.items(),
        key=lambda item: -sum(int(np.count_nonzero(stream.y)) for stream in item[1]),
    )[:limit]
    paths = []
    for key, streams in drawn:
        recording = index.recording(key)
        path = folder / f"timeline-{key}.png"
        panels = [timeline_panel(index, stream, label) for stream in streams]
        png = timeline_png(
            panels,
            title=recording.name,
            event=label.event,
            scores=scores,
            question=question_of(label),
            base_rate=base_rate if scores == "probability" else None,
        )
        write_atomic(path, png)
        paths.append(path)
    return paths


def question_of(label: LabelSpec) -> str:
    """Return what a label asks of each row, for the axis of a plot."""
    if label.kind == "regression":
        until = label.event if label.rules.until == "onset" else "end of interval"
        return f"1 / (1 + s until\n{until})"
    if label.kind in ("onset", "interval"):
        return f"{label.event}\nwithin {label.rules.span * FRAME_US / US_PER_SECOND:g} s"
    return label.event


def timeline_panel(index: Index, scores: StreamScores, label: LabelSpec) -> Panel:
    """Return one stream's timeline; each score stands at the frame that it speaks of."""
    stream = scores.stream
    tables = index.tables(index.recording(stream.recording_id))
    bouts = target_bouts(label, tables, main=stream.main, other=stream.other)
    return Panel(
        title=scores.title,
        frame=scores.row + label.lead_frames,
        score=scores.score,
        ignored=~scores.eligible,
        bout_start_s=bouts.start_us / US_PER_SECOND,
        bout_end_s=bouts.end_us / US_PER_SECOND,
    )
