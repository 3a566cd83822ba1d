"""How scores become named segments: the one place where threshold and rule are chosen."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from train.evaluation.events.segments import SegmentRule, Segments
from train.runs.trained import Trained

from ...errors import ConfigError
from ...label_spec import FULL, LabelSpec
from ...timebase import FRAME_US, US_PER_SECOND, Span


@dataclass(frozen=True)
class Segmenting:
    """How segments are made, and where their threshold is from."""

    rule: SegmentRule
    threshold_of: Literal["checkpoint", "flag"]
    """Chosen by the validation of the checkpoint, or given."""

    def to_json(self) -> dict[str, Any]:  # Any: JSON values
        """Return a JSON object."""
        return {
            "threshold": self.rule.threshold,
            "threshold_of": self.threshold_of,
            "merge_gap_s": self.rule.merge_gap_us / US_PER_SECOND,
            "min_duration_s": self.rule.min_duration_us / US_PER_SECOND,
        }


def choose_segmenting(
    trained: Trained,
    label: LabelSpec,
    *,
    threshold: float | None,
    min_duration: Span,
    merge_gap: Span,
) -> Segmenting | None:
    """Return how a checkpoint's scores become segments; None where they are numbers, not classes.

    Args:
        trained: the checkpoint.
        label: that it was trained for.
        threshold: score from which on a row is an alarm; None: the checkpoint's own.
        min_duration: shorter segments are dropped.
        merge_gap: segments no further apart are one.

    Raises:
        ConfigError: there is no threshold, or a value cannot work.
    """
    if label.kind == "regression":
        if threshold is not None:
            raise ConfigError(
                f"threshold is {threshold}: label {label.label} has values and no segments; drop it"
            )
        return None
    for name, span in (("min_duration", min_duration), ("merge_gap", merge_gap)):
        if span.us < 0:
            raise ConfigError(f"{name} is {span}; it must be 0 or more")
    chosen = trained.threshold if threshold is None else threshold
    if chosen is None:
        raise ConfigError(
            f"{trained.path}: its training never validated it, so no threshold was chosen; give"
            " one: --threshold X"
        )
    if not np.isfinite(chosen):
        raise ConfigError(f"threshold is {chosen}; it must be a finite number")
    rule = SegmentRule(chosen, merge_gap_us=merge_gap.us, min_duration_us=min_duration.us)
    return Segmenting(rule, "checkpoint" if threshold is None else "flag")


def segment_name(label: LabelSpec) -> str:
    """Return what a segment is called: the event, or for labels that predict, within which time."""
    event = label.event.removeprefix(FULL)
    if label.kind in ("onset", "interval"):
        return f"{event}-within-{label.rules.span * FRAME_US / US_PER_SECOND:g}s"
    return event


def cut_to(segments: Segments, duration_us: int) -> Segments:
    """Return the parts of segments inside a recording.

    A score may speak of a frame before it or behind it (lead), and its last frame may be ragged.
    """
    start_us = np.clip(segments.start_us, 0, duration_us)
    end_us = np.clip(segments.end_us, 0, duration_us)
    return Segments(start_us, end_us, segments.score).only(end_us > start_us)
