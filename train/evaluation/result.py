"""What an evaluation found: numbers for readers, and the JSON that is the API."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from laughstore.index import Index
from laughstore.labels import LabelSpec
from laughstore.timebase import FRAME_US, US_PER_SECOND

from ..losses import ScoreKind
from ..runs.looks import Look
from ..runs.run import Run
from ..scoring.confusion import Confusion
from ..scoring.metrics import FrameMetrics
from ..scoring.score import StreamScores
from .baselines import Baseline
from .bootstrap import Interval
from .calibration import Calibration
from .event_metrics import EventMetrics
from .null import ShiftNull
from .operating import Operating
from .recording_metrics import RecordingMetrics
from .strata import Division
from .temperature import Tempered
from .validated import OperatingPoint
from .within import WithinStreams

EVALUATION_FORMAT = "laughstore-evaluation"
EVALUATION_VERSION = 1
_US_PER_HOUR = 3600 * US_PER_SECOND


@dataclass(frozen=True)
class EvaluationResult:
    """What an evaluation found, and where it was written."""

    run: Path
    out: Path
    """Folder of what is written of it."""
    split: str
    checkpoint: Path
    label: LabelSpec
    scores: ScoreKind
    """What the run's scores are."""
    generation: int
    """Of the store, whose annotations the labels are made from."""
    index_id: str
    """Of its index."""
    fold: dict[str, int | None] | None
    """Number of folds and the run's, whose groups are the split validation; None without folds."""
    groups_trained_on: tuple[str, ...]
    """Groups (shows) of the split that the run was trained on, too: they make it look better. None
    for the split train, or where the shards are others than the run's and it has no folds."""
    annotations: Path | None
    """Labels were made from these, not from the store's."""
    other_annotations: str | None
    """One line when the run was trained on another index: its labels may have been others."""
    metrics: FrameMetrics
    point: OperatingPoint
    """The threshold of precision, recall, F1, segments and alarms, and where it was chosen."""
    confusion: Confusion | None
    """Of the rows that count, at the threshold; None without one."""
    operating: Operating | None
    """All that was fitted on validation; None where nothing could be, and of numbers."""
    look: Look | None
    """Which look this is at a split that is neither trained on nor chosen by."""
    intervals: Mapping[str, Interval]
    """Of metrics, by name."""
    null: ShiftNull | None
    """Average precision of labels rotated against the scores; None where that cannot be done, and
    of labels that are numbers."""
    calibration: Calibration | None
    """Of the rows that count; None where scores are no probabilities."""
    tempered: Tempered | None
    """The same at the temperature of validation, which is applied to nothing else; None where
    nothing was fitted."""
    within: WithinStreams | None
    """How well scores order the rows of a stream; None for labels that are numbers."""
    baselines: Mapping[str, Baseline]
    """Scores that nobody trained, on the same rows, by name."""
    events: EventMetrics
    """What the scores come to as events."""
    strata: Mapping[str, Division]
    """By kind of laugh, and by show."""
    num_ignored: int
    """Rows of the scored streams that the label leaves out."""
    num_skipped_blocks: int
    """Blocks of the split that are left out, because the run left them out as corrupt."""
    num_streams: int
    """Streams scored; those that ask the same (pair, any) count as one."""
    recordings: tuple[RecordingMetrics, ...]
    plots: tuple[Path, ...]
    opened: Run = field(repr=False, compare=False)
    """The run."""
    index: Index = field(repr=False, compare=False)
    """With the annotations that labels are made from."""
    streams: Sequence[StreamScores] = field(repr=False, compare=False)
    """All rows with their scores, the ignored ones too."""

    @property
    def hours(self) -> float:
        """Hours of counted frames; both streams of a recording count."""
        return self.metrics.num_rows * FRAME_US / _US_PER_HOUR

    def to_json(self) -> dict[str, Any]:  # Any: JSON values
        """Return a JSON object of finite numbers and nulls."""
        return {
            "format": EVALUATION_FORMAT,
            "version": EVALUATION_VERSION,
            "split": self.split,
            "checkpoint": self.checkpoint.name,
            "label": self.label.identity(),
            "label_text": self.label.describe(),
            "scores": self.scores,
            "generation": self.generation,
            "index_id": self.index_id,
            "fold": self.fold,
            "groups_trained_on": list(self.groups_trained_on),
            "annotations": None if self.annotations is None else str(self.annotations),
            "other_annotations": self.other_annotations,
            "metrics": self.metrics.to_json(),
            "operating_point": self.point.to_json(),
            "confusion": None if self.confusion is None else self.confusion.to_json(),
            "fitted_on_validation": None if self.operating is None else self.operating.to_json(),
            "look": None if self.look is None else self.look.to_json(),
            "intervals": {name: found.to_json() for name, found in self.intervals.items()},
            "circular_shift_null": None if self.null is None else self.null.to_json(),
            "calibration": None if self.calibration is None else self.calibration.to_json(),
            "calibration_at_temperature": None
            if self.tempered is None
            else self.tempered.to_json(),
            "within_streams": None if self.within is None else self.within.to_json(),
            "baselines": {name: found.to_json() for name, found in self.baselines.items()},
            "events": self.events.to_json(),
            "strata": {name: found.to_json() for name, found in self.strata.items()},
            "ignored": self.num_ignored,
            "skipped_blocks": self.num_skipped_blocks,
            "streams": self.num_streams,
            "hours": round(self.hours, 6),
            "recordings": [item.to_json() for item in self.recordings],
        }
