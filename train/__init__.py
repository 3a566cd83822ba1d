"""Train on the shards of a laughstore: stream, head, metrics, run folder, evaluation.

Imports laughstore, never extract. Nothing here loads torch before a name that needs it is used:
`laughstore train --help` reads `TrainConfig` alone.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from .config import TrainConfig
from .distributed.place import Place
from .evaluation.spot_search import SpotSearch
from .heads import HeadConfig
from .losses import LossConfig
from .streaming.selection import FrameFilter
from .streaming.sequence_shape import SequenceShape

if TYPE_CHECKING:
    from .comparison.compare import compare
    from .comparison.compared import Comparison
    from .evaluation.evaluate import evaluate
    from .evaluation.result import EvaluationResult
    from .evaluation.spots import FoundSpots, find_spots
    from .loop import train, train_probes
    from .report.build import Report, write_report
    from .streaming.batch import Batch
    from .streaming.device import DeviceCopies
    from .streaming.stream import FrameStream
    from .training.progress import Progress
    from .training.result import ProbesResult, TrainResult

__all__ = [
    "Batch",
    "Comparison",
    "DeviceCopies",
    "EvaluationResult",
    "FoundSpots",
    "FrameFilter",
    "FrameStream",
    "HeadConfig",
    "LossConfig",
    "Place",
    "ProbesResult",
    "Progress",
    "Report",
    "SequenceShape",
    "SpotSearch",
    "TrainConfig",
    "TrainResult",
    "compare",
    "evaluate",
    "find_spots",
    "train",
    "train_probes",
    "write_report",
]

_HOMES = {
    "Batch": "streaming.batch",
    "Comparison": "comparison.compared",
    "DeviceCopies": "streaming.device",
    "EvaluationResult": "evaluation.result",
    "FoundSpots": "evaluation.spots",
    "FrameStream": "streaming.stream",
    "ProbesResult": "training.result",
    "Progress": "training.progress",
    "Report": "report.build",
    "TrainResult": "training.result",
    "compare": "comparison.compare",
    "evaluate": "evaluation.evaluate",
    "find_spots": "evaluation.spots",
    "train": "loop",
    "train_probes": "loop",
    "write_report": "report.build",
}
"""Modules of the names that load torch."""


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
