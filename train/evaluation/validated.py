"""What a checkpoint's validation chose: read if it is kept, else validation is scored and fitted.

Validation is the run's own: of its store, its annotations as they are now and its fold, whatever is
evaluated. So a threshold depends on no split, no annotations and no store that it is used on.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from laughstore.errors import (
    ConfigError,
    CorruptData,
    IncompleteStore,
    NotFound,
    SpecMismatch,
)
from laughstore.index import Index
from laughstore.other_annotations import Annotate, tables_digest

from ..losses import target_kind
from ..runs.checkpoint import checkpoint_sha256
from ..runs.folds import VALIDATION_SPLIT
from ..runs.run import Run
from ..runs.trained import Trained, index_for
from .fitted import ValidationScores, fit, with_rule
from .operating import Bound, Operating, load_operating, operating_path, save_operating
from .scored_split import SplitScorer
from .thresholds import ChosenThreshold, ThresholdRule

logger = logging.getLogger(__name__)

ChosenOn = Literal["validation", "checkpoint", "given"]

_LASTING: Final = (ConfigError, CorruptData, IncompleteStore, NotFound, SpecMismatch)
"""Trying again would not help: of a store that does not answer it would."""
_UNSCORED: Final = "the run's validation cannot be scored"


@dataclass(frozen=True)
class OperatingPoint:
    """The threshold that an evaluation decides by, and where it is from."""

    threshold: float | None
    """The score from which on a row is an alarm."""
    chosen_on: ChosenOn | None
    """validation: by its rule, of the run's validation as it is now, or, where that cannot be
    scored, as it was when it was last. checkpoint: the best F1 of validation as training saw it,
    where nothing was fitted and nothing can be. given: by whoever asked. None: nowhere."""
    rule: ThresholdRule | None
    """None where it was given, and of labels that are numbers."""
    reason: str | None = None
    """Why there is no threshold."""
    on_validation: ChosenThreshold | None = None
    """What it came to there."""
    on_these_rows: bool = False
    """What is evaluated is that validation itself: its numbers are those of the choice."""

    def to_json(self) -> dict[str, Any]:  # Any: JSON values
        """Return a JSON object of finite numbers and nulls."""
        chosen = None if self.on_validation is None else self.on_validation.to_json()
        return {
            "threshold": self.threshold,
            "chosen_on": self.chosen_on,
            "rule": None if self.rule is None else str(self.rule),
            "reason": self.reason,
            "on_these_rows": self.on_these_rows,
            "validation": None
            if chosen is None
            else {name: chosen[name] for name in ("confusion", "false_alarms_per_hour")},
        }


NO_POINT: Final = OperatingPoint(None, None, None)
"""Of labels that are numbers."""


@dataclass(frozen=True)
class Validated:
    """What validation chose for a checkpoint."""

    operating: Operating | None
    """None: nothing can be fitted."""
    reason: str | None
    """Why nothing can be, or not by the rule that was asked for."""
    path: Path | None
    """Where it is kept."""

    def point(
        self,
        trained: Trained,
        rule: ThresholdRule,
        given: float | None = None,
        *,
        on_these_rows: bool = False,
    ) -> OperatingPoint:
        """Return the threshold to decide by.

        Args:
            trained: the checkpoint.
            rule: that was fitted.
            given: to be used instead.
            on_these_rows: what is evaluated is the validation that chooses.
        """
        if given is not None:
            return OperatingPoint(given, "given", None)
        chosen = None if self.operating is None else self.operating.chosen(rule)
        if chosen is not None:
            if chosen.threshold is None:
                return OperatingPoint(None, None, rule, chosen.reason)
            return OperatingPoint(chosen.threshold, "validation", rule, None, chosen, on_these_rows)
        if rule.name == "f1" and trained.threshold is not None:
            return OperatingPoint(trained.threshold, "checkpoint", rule)
        return OperatingPoint(None, None, rule, self.reason)


def own_validation(
    run: Run,
    index: Index,
    shards: Path | str | None,
    annotations: Path | None,
    annotate: Annotate,
) -> Index | str:
    """Return the index of a run's own validation, or why there is none.

    Args:
        run: of the validation.
        index: of what is evaluated.
        shards: where that is; None: the run's own.
        annotations: that labels of it are made from; None: those of the run.
        annotate: reads annotations.
    """
    same = shards is None or index.index_id == run.index_id
    if same and annotations is None:
        own = index
    else:
        try:
            own = index_for(run, shards if same else None, None, annotate)
        except _LASTING as error:
            return f"{_UNSCORED}: {error}"
    if VALIDATION_SPLIT not in own.splits:
        return f"{_UNSCORED}: {own.where} has no split validation"
    return own


def validated(
    run: Run,
    trained: Trained,
    own: Index | str,
    rule: ThresholdRule,
    scorer: SplitScorer,
) -> Validated:
    """Return what validation chose, a threshold by this rule among it; keep what is new.

    Args:
        run: of the checkpoint.
        trained: the checkpoint.
        own: index of the run's validation, or why there is none.
        rule: asked for.
        scorer: scores the validation if something has to be fitted. Where that fails, what was
            fitted before is used, and a warning tells it.
    """
    assert target_kind(run.config.label) == "classes", "numbers have no thresholds"
    found = kept = load_operating(run, str(trained.path))
    path = operating_path(run, trained.path)
    if isinstance(own, str):
        return _as_kept(kept, own, rule, path)
    bound = Bound(
        run_sha256=run.sha256,
        checkpoint=trained.path.name,
        checkpoint_sha256=checkpoint_sha256(trained.path),
        label=run.config.label.identity(),
        index_id=own.index_id,
        annotations_sha256=tables_digest(own),
    )
    if found is not None and found.bound != bound:
        found = None
    if found is not None and found.chosen(rule) is not None:
        return Validated(found, None, path)
    try:
        scored = scorer.score(own, VALIDATION_SPLIT)
    except _LASTING as error:
        return _as_kept(kept, f"{_UNSCORED}: {error}", rule, path)
    if kept is not None and found is None:
        logger.info("%s is of other annotations or another store: fitted anew", path)
    scores = ValidationScores(own, scored.streams, run.config.label)
    if found is None:
        found = fit(scores, bound, trained.model.scores)
    if found.chosen(rule) is None:
        found = with_rule(found, scores, rule)
    save_operating(run, trained.path, found)
    return Validated(found, None, path)


def _as_kept(kept: Operating | None, why: str, rule: ThresholdRule, path: Path) -> Validated:
    """What was fitted before: of the same checkpoint, and validation as it was then.

    Args:
        kept: if it was.
        why: nothing can be fitted now.
        rule: asked for.
        path: where it is kept.
    """
    if kept is None:
        logger.warning("%s", why)
        return Validated(None, why, None)
    if kept.chosen(rule) is not None:
        logger.warning("%s; what was fitted on it before is used: %s", why, path)
        return Validated(kept, None, path)
    what = f"{why}; {rule} was not fitted before"
    logger.warning("%s", what)
    return Validated(kept, what, path)
