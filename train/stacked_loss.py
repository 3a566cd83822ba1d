"""Losses of many probes over the same rows: those of one kind are computed together."""

from collections.abc import Sequence
from copy import copy

import torch
from torch import Tensor

from .losses import RowLoss


class StackedLoss:
    """The losses of K probes.

    Args:
        losses: of each.
        device: of what they are computed from.
    """

    def __init__(self, losses: Sequence[RowLoss], device: torch.device) -> None:
        kinds: dict[type[RowLoss], list[int]] = {}
        for number, loss in enumerate(losses):
            kinds.setdefault(type(loss), []).append(number)
        self._groups = [
            (together([losses[number] for number in numbers], device), numbers)
            for numbers in kinds.values()
        ]
        order = [number for _, numbers in self._groups for number in numbers]
        self._places = torch.tensor(order, device=device).argsort()
        self.is_sum = torch.tensor([loss.is_sum for loss in losses], device=device)
        """bool[K]: rows of a step are added up, not averaged."""

    def of_rows(self, output: Tensor, y: Tensor) -> Tensor:
        """Return the losses f32[B, K] of answers f32[B, K] and targets f32[B, K]."""
        if len(self._groups) == 1:
            return self._groups[0][0].of_rows(output, y)
        each = [loss.of_rows(output[:, columns], y[:, columns]) for loss, columns in self._groups]
        return torch.cat(each, dim=1)[:, self._places]


def together(losses: Sequence[RowLoss], device: torch.device) -> RowLoss:
    """Return a loss of f32[B, K] whose numbers are those of K losses of one class.

    A number that differs among them becomes f32[K].
    """
    found = copy(losses[0])
    for name, value in vars(losses[0]).items():
        each = [getattr(loss, name) for loss in losses]
        if any(item != value for item in each):
            setattr(found, name, torch.tensor(each, dtype=torch.float32, device=device))
    return found
