"""How a training run ended."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .course import Stopped
from .metrics import FrameMetrics


@dataclass(frozen=True)
class TrainResult:
    """How a run ended."""

    run: Path
    epochs: int
    """Epochs done."""
    steps: int
    seconds: float
    stopped: Stopped
    best_epoch: int
    """From 0."""
    best: FrameMetrics
    """Validation metrics of the best epoch."""

    def to_json(self) -> dict[str, Any]:  # Any: JSON values
        """Return a JSON object."""
        return {
            "run": str(self.run),
            "epochs": self.epochs,
            "steps": self.steps,
            "seconds": round(self.seconds, 3),
            "stopped": self.stopped,
            "best_epoch": self.best_epoch,
            "validation": self.best.to_json(),
        }
