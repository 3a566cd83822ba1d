"""Predictions: a run's head on the features of a user's own audio, from files or as it comes.

The one place where `extract` and `train` meet: frames come from the former, scores from the latter.

    from laughstore.cli.prediction import Predictor

    with Predictor.open("RUN", model="CHECKPOINT") as predictor:
        scores = predictor.push(samples)  # f4[k], of the k frames that these samples begin

Files are read, named and written by the modules beside it; `laughstore predict` prints. Nothing
here loads torch before a name that needs it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .predictor import Predictor

__all__ = ["Predictor"]


def __getattr__(name: str) -> object:
    if name != "Predictor":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f"{__name__}.predictor").Predictor


def __dir__() -> list[str]:
    return __all__
