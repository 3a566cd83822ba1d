"""What was fitted on the validation of a checkpoint: thresholds, segments, temperature; kept.

    RUN/operating/<checkpoint>.json    sealed; see `Operating.to_json`

Enters: a run and one of its checkpoints. Leaves: the only numbers that decisions on its scores are
made with, whatever is scored. They are made by `train.evaluation.fitted`, of scores of validation
and of nothing else; nothing here fits anything.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

from laughstore.errors import CorruptData
from laughstore.files import write_atomic
from laughstore.sealed import seal, unseal

from ..losses import ScoreKind
from ..runs.checkpoint import checkpoint_sha256
from ..runs.run import Run
from ..runs.trained import find_checkpoint
from .postprocess import PostProcessing
from .temperature import Temperature
from .thresholds import ChosenThreshold, ThresholdRule

logger = logging.getLogger(__name__)

OPERATING_FORMAT: Final = "laughstore-operating"
OPERATING_VERSION: Final = 1
_FOLDER: Final = "operating"


@dataclass(frozen=True)
class Bound:
    """Of what something was fitted: it is good for nothing else."""

    run_sha256: str
    """Of the run's config.json: features, label, filter, fold."""
    checkpoint: str
    """Its name."""
    checkpoint_sha256: str
    label: Mapping[str, Any]  # Any: JSON values
    """Identity of the label."""
    index_id: str
    """Of the index whose validation was scored."""
    annotations_sha256: str
    """Of all its tables, as labels were made from them."""

    def to_json(self) -> dict[str, Any]:  # Any: JSON values
        """Return a JSON object."""
        return {
            "run_sha256": self.run_sha256,
            "checkpoint": self.checkpoint,
            "checkpoint_sha256": self.checkpoint_sha256,
            "label": dict(self.label),
            "index_id": self.index_id,
            "annotations_sha256": self.annotations_sha256,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:  # Any: JSON values
        """Return what `to_json` wrote. Raises KeyError or TypeError when it did not."""
        return cls(**data)


@dataclass(frozen=True)
class Operating:
    """All that is fitted on validation, of a label of classes."""

    bound: Bound
    scores: ScoreKind
    """What the scores are."""
    num_rows: int
    """Of validation, that count."""
    num_positives: int
    thresholds: Mapping[str, ChosenThreshold]
    """By rule, as it is written: `f1`, `precision@0.9`."""
    temperature: Temperature
    post_processing: PostProcessing | None
    """Of segments; None of labels that have none."""
    curve: tuple[float, ...]
    """Falling: scores of validation at which false alarms are held against recall."""

    @property
    def has_chosen_segments(self) -> bool:
        """Whether `post_processing` was chosen: not where validation has no positive row."""
        best = self.chosen("f1")
        return self.post_processing is not None and best is not None and best.threshold is not None

    def chosen(self, rule: ThresholdRule | str) -> ChosenThreshold | None:
        """Return the threshold of a rule; None if it was not fitted yet (`evaluate` does it)."""
        return self.thresholds.get(str(rule))

    def with_threshold(self, chosen: ChosenThreshold) -> Self:
        """Return the same with the threshold of one more rule."""
        return replace(self, thresholds={**self.thresholds, str(chosen.rule): chosen})

    def to_json(self) -> dict[str, Any]:  # Any: JSON values
        """Return a JSON object of finite numbers and nulls."""
        return {
            "format": OPERATING_FORMAT,
            "version": OPERATING_VERSION,
            "fitted_on": "validation",
            "of": self.bound.to_json(),
            "scores": self.scores,
            "rows": self.num_rows,
            "positives": self.num_positives,
            "thresholds": [item.to_json() for item in self.thresholds.values()],
            "temperature": self.temperature.to_json(),
            "post_processing": None
            if self.post_processing is None
            else self.post_processing.to_json(),
            "curve": list(self.curve),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:  # Any: JSON values
        """Return what `to_json` wrote. Raises KeyError, TypeError, ConfigError when it did not."""
        chosen = map(ChosenThreshold.from_json, data["thresholds"])
        rule = data["post_processing"]
        return cls(
            bound=Bound.from_json(data["of"]),
            scores=data["scores"],
            num_rows=data["rows"],
            num_positives=data["positives"],
            thresholds={str(item.rule): item for item in chosen},
            temperature=Temperature.from_json(data["temperature"]),
            post_processing=None if rule is None else PostProcessing.from_json(rule),
            curve=tuple(data["curve"]),
        )


def operating_path(run: Run, checkpoint: Path) -> Path:
    """Return where what was fitted on the validation of a checkpoint is kept."""
    return run.path / _FOLDER / f"{checkpoint.name}.json"


def load_operating(run: Run, checkpoint: str = "best") -> Operating | None:
    """Return what was fitted on the validation of a checkpoint; None if nothing has been yet.

    `laughstore evaluate RUN` fits it, of runs whose label asks for classes. Nothing is scored here.

    Args:
        run: that the checkpoint is of.
        checkpoint: `best`, `last`, or the path of one.

    Raises:
        NotFound: there is no such checkpoint.
        CorruptData: its manifest, or the file that names the best, was altered.
    """
    path = find_checkpoint(run, checkpoint)
    kept = operating_path(run, path)
    try:
        found = _read(kept)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except CorruptData as error:
        logger.warning("what was fitted on validation is not used: %s", error)
        return None
    fits = (run.sha256, checkpoint_sha256(path))
    if found is None or (found.bound.run_sha256, found.bound.checkpoint_sha256) != fits:
        return None  # of another release, or of a checkpoint of the same name: fitted anew
    return found


def save_operating(run: Run, checkpoint: Path, operating: Operating) -> None:
    """Keep what was fitted, in one step; a run that cannot be written to is told in a warning."""
    path = operating_path(run, checkpoint)
    try:
        write_atomic(path, seal(operating.to_json()))
    except OSError as error:
        logger.warning(
            "%s is not kept (%s): what was fitted on validation will be fitted again", path, error
        )


def _read(path: Path) -> Operating | None:
    """What a file holds; None of another release's."""
    data, _ = unseal(path.read_bytes(), where=str(path))
    if (data.get("format"), data.get("version")) != (OPERATING_FORMAT, OPERATING_VERSION):
        return None
    return Operating.from_json(data)
