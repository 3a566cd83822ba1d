"""Metrics of each recording: a line of the table, and of the report."""

from dataclasses import dataclass
from typing import Any

from ..scoring.metrics import FrameMetrics


@dataclass(frozen=True)
class RecordingMetrics:
    """Metrics of one recording, its streams together."""

    recording_id: str
    name: str
    num_streams: int
    metrics: FrameMetrics

    def to_json(self) -> dict[str, Any]:  # Any: JSON values
        """Return a JSON object."""
        return {
            "id": self.recording_id,
            "name": self.name,
            "streams": self.num_streams,
            **self.metrics.to_json(),
        }
