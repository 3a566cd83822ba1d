"""How scores become named segments: the one place where threshold and rule are chosen."""

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from train.evaluation.events.segments import SegmentRule, Segments
from train.evaluation.operating import Operating, load_operating
from train.evaluation.postprocess import PostProcessing
from train.evaluation.thresholds import ThresholdRule
from train.evaluation.validated import ChosenOn
from train.runs.run import Run
from train.runs.trained import Trained

from ...errors import ConfigError
from ...label_spec import FULL, LabelSpec
from ...timebase import FRAME_US, US_PER_SECOND, Span

_MERGE_GAP_US: Final = 500_000
_MIN_DURATION_US: Final = 200_000
"""Where nothing was fitted."""


@dataclass(frozen=True)
class Segmenting:
    """How segments are made, and where their threshold is from."""

    rule: SegmentRule
    chosen_on: ChosenOn
    """validation: by what an evaluation fitted there. checkpoint: the best F1 of validation as
    training saw it. given: by whoever asked."""
    threshold_rule: str | None = None
    """By which validation chose; None where it was given."""

    def to_json(self) -> dict[str, Any]:  # Any: JSON values
        """Return a JSON object."""
        low = self.rule.low
        return {
            "threshold": self.rule.threshold,
            "chosen_on": self.chosen_on,
            "rule": self.threshold_rule,
            "low": self.rule.threshold if low is None else low,
            "median_rows": self.rule.median_rows,
            "merge_gap_s": self.rule.merge_gap_us / US_PER_SECOND,
            "min_duration_s": self.rule.min_duration_us / US_PER_SECOND,
        }


def choose_segmenting(
    run: Run,
    trained: Trained,
    *,
    threshold: float | None = None,
    threshold_by: str = "f1",
    min_duration: Span | None = None,
    merge_gap: Span | None = None,
) -> Segmenting | None:
    """Return how a checkpoint's scores become segments; None where they are numbers, not classes.

    Args:
        run: of the checkpoint.
        trained: the checkpoint.
        threshold: score from which on a row is an alarm; None: as validation chose it.
        threshold_by: by which rule it did.
        min_duration: shorter segments are dropped; None: as fitted on validation, else 0.2 s.
        merge_gap: segments no further apart are one; None: as fitted, else 0.5 s.

    Raises:
        ConfigError: there is no threshold, or a value cannot work.
    """
    label = run.config.label
    if label.kind == "regression":
        if threshold is not None:
            raise ConfigError(
                f"threshold is {threshold}: label {label.label} has values and no segments; drop it"
            )
        return None
    for name, span in (("min_duration", min_duration), ("merge_gap", merge_gap)):
        if span is not None and span.us < 0:
            raise ConfigError(f"{name} is {span}; it must be 0 or more")
    if threshold is not None and not 0 <= threshold <= 1:  # also refuses NaN
        raise ConfigError(f"threshold is {threshold}; scores lie in 0 to 1")
    operating = load_operating(run, str(trained.path))
    fitted = None if operating is None else operating.post_processing
    made = fitted or PostProcessing(_MERGE_GAP_US, min_duration_us=_MIN_DURATION_US)
    if merge_gap is not None:
        made = replace(made, merge_gap_us=merge_gap.us)
    if min_duration is not None:
        made = replace(made, min_duration_us=min_duration.us)
    if threshold is not None:
        return Segmenting(made.at(threshold), "given")
    by = str(ThresholdRule.parse(threshold_by))
    chosen, chosen_on = _of_validation(run, trained, operating, by)
    return Segmenting(made.at(chosen), chosen_on, by)


def _of_validation(
    run: Run, trained: Trained, operating: Operating | None, by: str
) -> tuple[float, ChosenOn]:
    """Return the threshold that validation chose by a rule, and where that is kept."""
    found = None if operating is None else operating.chosen(by)
    if found is not None:
        if found.threshold is None:
            raise ConfigError(
                f"{run.path}: validation has no threshold by {by} ({found.reason}); give one:"
                " --threshold X"
            )
        return found.threshold, "validation"
    if by == "f1" and trained.threshold is not None:
        return trained.threshold, "checkpoint"
    raise ConfigError(
        f"{trained.path}: no threshold by {by} was chosen on validation yet; let evaluate do it"
        f" (laughstore evaluate {run.path} --threshold-by {by}), or give one: --threshold X"
    )


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
