"""The most memory that builds took, of the process and of a GPU."""

import os
import resource
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch

from .process_memory import status_bytes


@dataclass
class BuildPeaks:
    """Peaks of builds, one a round."""

    device: torch.device
    recorded_bytes: int
    """Of calls that are kept for the other contestants: not counted."""
    resident_mb: list[float] = field(default_factory=list)
    device_gb: list[float] = field(default_factory=list)

    def begin(self) -> None:
        """Forget the peak so far."""
        with suppress(OSError):  # not every kernel can: then it is the peak of the whole process
            Path("/proc/self/clear_refs").write_text("5")
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def note(self) -> None:
        """Keep the peak since `begin`."""
        self.resident_mb.append((_peak_resident_bytes() - self.recorded_bytes) / 1e6)
        if self.device.type == "cuda":
            self.device_gb.append(torch.cuda.max_memory_allocated(self.device) / 1e9)


def _peak_resident_bytes() -> int:
    found = status_bytes(os.getpid(), "VmHWM")
    return found or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
