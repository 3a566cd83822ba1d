"""Scores of annotated events alone: is this candidate a laugh?

PodcastFillers is not annotated throughout: people looked at candidates that a detector had found.
What is not annotated may hold laughs, so false alarms there may be none. Among candidates that
cannot be: each was looked at, and called something.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from laughstore.bouts import Frames
from laughstore.labels import CandidateEvents, LabelSpec
from laughstore.timebase import floor_frame

from ...scoring.metrics import frame_metrics


def candidate_rows(spec: LabelSpec, found: CandidateEvents) -> Frames:
    """Return the rows that are asked about each event.

    Args:
        spec: of onsets: the rows of its window; else those about its frames.
        found: K events of a stream.
    """
    if spec.kind in ("onset", "interval"):
        first = floor_frame(found.times.start_us)
        return Frames(first - spec.rules.span, first - spec.rules.guard)
    first, stop = found.times.frames()
    return Frames(first - spec.rules.lead, stop - spec.rules.lead)


def candidate_scores(
    row: NDArray[np.int64], score: NDArray[np.float32], asked: Frames
) -> NDArray[np.float32]:
    """Return f4[K]: the highest score of each event's rows; NaN where none was scored.

    Args:
        row: i64[n], rising: scored rows of a stream.
        score: f4[n].
        asked: K ranges of rows.
    """
    first = np.searchsorted(row, asked.first)
    stop = np.maximum(np.searchsorted(row, asked.stop), first)
    found = np.full(len(first), np.nan, np.float32)
    some = np.flatnonzero(stop > first)
    if len(some):
        edges = np.stack([first[some], stop[some]], axis=1).reshape(-1)
        # reduceat takes no place behind the end.
        padded = np.append(score, np.float32(-np.inf))
        found[some] = np.maximum.reduceat(padded, edges)[::2]
    return found


@dataclass(frozen=True)
class CandidateMetrics:
    """The class asked for against the others."""

    num_targets: int
    num_others: int
    num_unscored: int
    """Events none of whose rows was scored."""
    average_precision: float | None
    auroc: float | None
    by_class: Mapping[str, int]
    """Scored events of each class."""

    def to_json(self) -> dict[str, Any]:  # Any: JSON values
        """Return a JSON object of finite numbers and nulls."""
        return {
            "targets": self.num_targets,
            "others": self.num_others,
            "unscored": self.num_unscored,
            "average_precision": self.average_precision,
            "auroc": self.auroc,
            "by_class": dict(self.by_class),
        }


def candidate_metrics(
    scores: Sequence[NDArray[np.float32]],
    events: Sequence[CandidateEvents],
    class_names: Sequence[str],
) -> CandidateMetrics:
    """Return the metrics of the candidates of many streams.

    Args:
        scores: of each stream, f4[K] as `candidate_scores`.
        events: of each stream.
        class_names: of the codes; the empty one are events outside the classes.
    """
    score = np.concatenate([np.empty(0, np.float32), *scores])
    target = np.concatenate([np.empty(0, np.bool_), *(item.is_target for item in events)])
    label = np.concatenate([np.empty(0, np.int32), *(item.label for item in events)])
    scored = ~np.isnan(score)
    found = frame_metrics(target[scored].view(np.uint8), score[scored])
    counts = np.bincount(label[scored], minlength=len(class_names))
    return CandidateMetrics(
        num_targets=int(target[scored].sum()),
        num_others=int((~target[scored]).sum()),
        num_unscored=int((~scored).sum()),
        average_precision=found.average_precision,
        auroc=found.auroc,
        by_class={
            name or "(none)": int(count)
            for name, count in zip(class_names, counts, strict=True)
            if count
        },
    )
