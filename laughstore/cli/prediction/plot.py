"""The plot of a prediction: scores along time, with the segments that they make."""

from typing import TYPE_CHECKING, Final

import numpy as np

from ...timebase import US_PER_SECOND

if TYPE_CHECKING:
    from .result import Prediction

_MOST_STEPS: Final = 6_000
"""Of a line; a plot is some 1,600 pixels wide."""


def prediction_plot(found: "Prediction") -> bytes:
    """Return a PNG; where a recording is long, of some frames together the highest score."""
    # Here, so that formats can be named without waiting for matplotlib.
    from train.runs.drawing import question_of
    from train.runs.plots import Panel, timeline_png

    each = max(1, -(-len(found.score) // _MOST_STEPS))
    score = found.score
    if each > 1:
        starts = np.arange(0, len(score), each)
        score = np.maximum.reduceat(score, starts)
    frame = found.first_frame + each * np.arange(len(score))
    segments = found.segments
    none = np.empty(0, np.float64)
    panel = Panel(
        title="" if each == 1 else f"of each {each} frames the highest",
        frame=frame,
        score=score,
        ignored=np.zeros(len(score), np.bool_),
        bout_start_s=none if segments is None else segments.start_us / US_PER_SECOND,
        bout_end_s=none if segments is None else segments.end_us / US_PER_SECOND,
        frames_a_score=each,
    )
    rule = found.segmenting
    return timeline_png(
        [panel],
        title=found.heard.name,
        event=found.name,
        scores=found.scores,
        question=question_of(found.label),
        base_rate=None,
        threshold=None if rule is None else rule.rule.threshold,
        bouts="predicted",
    )
