"""A moving average of the weights, which is what is validated, kept and scored with.

A checkpoint has the average as its model, so whoever scores needs to know nothing of it. The
weights that steps go on from lie beside what the optimiser remembers.
"""

from collections.abc import Mapping
from copy import deepcopy
from typing import Final

import torch
from torch import Tensor

from ..model import ScoreModel

_STEPPED: Final = "stepped."
"""Begins the names of the weights that steps go on from."""


class Average:
    """The average of a model over its steps, or that model.

    Args:
        model: that is trained.
        decay: share of the old average that stays in a step; less in the first ones, so that the
            first weights are soon forgotten. None: there is no average.
    """

    def __init__(self, model: ScoreModel, decay: float | None) -> None:
        self._trained, self._decay = model, decay
        self.model = model if decay is None else deepcopy(model)
        """To score with."""

    def begin(self) -> None:
        """Begin anew, at what the weights are now."""
        self.model.load_state_dict(self._trained.state_dict())

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take the weights after a step (from 1) into the average."""
        if self._decay is None:
            return
        decay = min(self._decay, (1 + step) / (10 + step))
        weights = self._trained.parameters()
        for average, value in zip(self.model.parameters(), weights, strict=True):
            average.lerp_(value, 1 - decay)

    def stepped(self) -> dict[str, Tensor]:
        """Return the weights that steps go on from, on the CPU, to be saved beside the average."""
        return {f"{_STEPPED}{name}": value.cpu() for name, value in self._weights()}

    def resume(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Go on from what `stepped` returned, the trained model having loaded the average.

        Args:
            tensors: that and others.

        Returns:
            The others.

        Raises:
            ValueError: it is not all there.
        """
        self.begin()
        for name, value in self._weights():
            saved = tensors.get(_STEPPED + name)
            if saved is None or saved.shape != value.shape:
                raise ValueError(f"the weights {name} behind the average are not there")
            value.copy_(saved)
        return {name: value for name, value in tensors.items() if not name.startswith(_STEPPED)}

    def _weights(self) -> list[tuple[str, Tensor]]:
        """Of the trained model, when there is an average beside them."""
        if self._decay is None:
            return []
        return [(name, value.detach()) for name, value in self._trained.named_parameters()]
