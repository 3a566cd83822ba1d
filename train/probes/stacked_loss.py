"""Losses of many probes over the same rows: those of one kind are computed together."""

from collections.abc import Sequence
from copy import copy
from itertools import groupby

import torch
from torch import Tensor

from ..losses import RowLoss


class StackedLoss:
    """The losses of K probes.

    Args:
        losses: of each; best with those of one class beside each other.
        device: of what they are computed from.
    """

    def __init__(self, losses: Sequence[RowLoss], device: torch.device) -> None:
        groups = [list(group) for _, group in groupby(losses, type)]
        self._losses = [together(group, device) for group in groups]
        self._sizes = [len(group) for group in groups]
        self.is_sum = torch.tensor([loss.is_sum for loss in losses], device=device)
        """bool[K]: rows of a step are added up, not averaged."""

    def of_rows(self, output: Tensor, y: Tensor) -> Tensor:
        """Return the losses f32[B, K] of answers f32[B, K] and targets f32[B, K]."""
        if len(self._losses) == 1:
            return self._losses[0].of_rows(output, y)
        parts = zip(output.split(self._sizes, 1), y.split(self._sizes, 1), strict=True)
        each = [loss.of_rows(*part) for loss, part in zip(self._losses, parts, strict=True)]
        return torch.cat(each, dim=1)


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
