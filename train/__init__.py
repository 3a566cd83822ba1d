"""Train on the shards of a laughstore: stream, head, metrics, run folder, evaluation.

Imports laughstore, never extract. Nothing here loads torch before a name that needs it is used:
`laughstore train --help` reads `TrainConfig` alone.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from .config import TrainConfig
from .distributed.place import Place
from .heads import HeadConfig
from .losses import LossConfig
from .streaming.selection import FrameFilter
from .streaming.sequence_shape import SequenceShape

if TYPE_CHECKING:
    from .comparison.compare import compare
    from .comparison.compared import Comparison
    from .evaluation.evaluate import EvaluationResult, evaluate
    from .loop import train, train_probes
    from .streaming.batch import Batch
    from .streaming.stream import FrameStream
    from .training.progress import Progress
    from .training.result import ProbesResult, TrainResult

__all__ = [
    "Batch",
    "Comparison",
    "EvaluationResult",
    "FrameFilter",
    "FrameStream",
    "HeadConfig",
    "LossConfig",
    "Place",
    "ProbesResult",
    "Progress",
    "SequenceShape",
    "TrainConfig",
    "TrainResult",
    "compare",
    "evaluate",
    "train",
    "train_probes",
]

_HOMES = {
    "Batch": "streaming.batch",
    "Comparison": "comparison.compared",
    "EvaluationResult": "evaluation.evaluate",
    "FrameStream": "streaming.stream",
    "ProbesResult": "training.result",
    "Progress": "training.progress",
    "TrainResult": "training.result",
    "compare": "comparison.compare",
    "evaluate": "evaluation.evaluate",
    "train": "loop",
    "train_probes": "loop",
}
"""Modules of the names that load torch."""


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
