"""Several trained models that score the same rows, which are read once for all of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from laughstore.errors import ConfigError

from ..model import RowModel, ScoreModel
from ..threads import threads_for
from .stream_scorer import StreamScorer


class SeveralModels(RowModel):
    """K models of features with as many channels, that read as many rows before a row.

    Each computes as it does alone: its scores are the same, bit for bit, whoever stands beside it.

    Args:
        models: on the device that does the work.
        names: of each, for messages.
    """

    def __init__(self, models: Sequence[ScoreModel], names: Sequence[str]) -> None:
        super().__init__()
        assert len({(model.dim, model.context) for model in models}) == 1, "of one shape"
        self._models, self._names = tuple(models), tuple(names)
        self.mean = models[0].mean
        self.row_shape = (len(models),)

    @property
    def context(self) -> int:
        """C: rows before a row that its scores depend on, too."""
        return self._models[0].context

    @property
    def num_outputs(self) -> int:
        """H, of the widest first layer."""
        return max(model.num_outputs for model in self._models)

    def describe(self) -> dict[str, Any]:  # Any: JSON values
        """Return the JSON object of each model, by name."""
        described = (model.describe() for model in self._models)
        return dict(zip(self._names, described, strict=True))

    def score(self, x: Tensor, present: Tensor | None = None, *, kept: int | None = None) -> Tensor:
        """Return scores f32[B, K] of bf16[B, D], the rows of one stream from its first on.

        Args:
            x: as of `StreamScorer.score`.
            present: as of `StreamScorer.score`.
            kept: as of `StreamScorer.score`.
        """
        each = []
        for model in self._models:
            with threads_for(model.num_outputs):
                each.append(StreamScorer(model).score(x, present, kept=kept))
        return torch.stack(each, dim=1)

    def check(self, scores: NDArray[np.float32]) -> None:
        """Raise a ConfigError that names the models whose scores (f4[B, K]) are not finite."""
        columns = zip(self._names, scores.T, strict=True)
        bad = [name for name, each in columns if not np.isfinite(each).all()]
        if bad:
            raise ConfigError(
                f"the scores of {', '.join(bad)} are not finite: training diverged; train again"
                " with a lower --lr"
            )
