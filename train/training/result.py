"""How a training run ended."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..probe import Probe
from ..scoring.metrics import FrameMetrics
from .course import Stopped


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


@dataclass(frozen=True)
class ProbeResult:
    """How one of many probes ended."""

    probe: Probe
    run: Path
    """Its folder, which can be evaluated like any run's."""
    epochs: int
    """Epochs done until it stopped."""
    best_epoch: int
    """From 0."""
    best: FrameMetrics
    """Validation metrics of the best epoch."""

    def to_json(self) -> dict[str, Any]:  # Any: JSON values
        """Return a JSON object."""
        return {
            "name": self.probe.name,
            "label": self.probe.label.identity(),
            "seed": self.probe.seed,
            "run": str(self.run),
            "epochs": self.epochs,
            "best_epoch": self.best_epoch,
            "validation": self.best.to_json(),
        }


@dataclass(frozen=True)
class ProbesResult:
    """How a run of many probes ended."""

    run: Path
    epochs: int
    """Epochs done."""
    steps: int
    seconds: float
    stopped: Stopped
    probes: tuple[ProbeResult, ...]

    def to_json(self) -> dict[str, Any]:  # Any: JSON values
        """Return a JSON object."""
        return {
            "run": str(self.run),
            "epochs": self.epochs,
            "steps": self.steps,
            "seconds": round(self.seconds, 3),
            "stopped": self.stopped,
            "probes": [item.to_json() for item in self.probes],
        }
