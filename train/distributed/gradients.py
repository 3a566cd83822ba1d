"""Gradients and loss of a step in one vector, which all ranks sum in one go.

The layout is [gradients of all parameters | numbers such as the loss], and where ranks sum it, what
they tell each other stands behind. It never changes, so neither does the order in which numbers are
added: a run that goes on gets the same bits.

Ranks sum in memory of the machine, wherever they compute: see `docs/decisions.md`.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from .ranks import TOLD, Ranks


class Gradients:
    """Memory that parameters have their gradients in.

    Args:
        parameters: of the model, all f32 on one device; their gradients lie here from now on.
        ranks: that share each step.
        num_numbers: that are summed beside the gradients; 1 is the loss alone.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], ranks: Ranks, num_numbers: int = 1
    ) -> None:
        each = list(parameters)
        self._ranks = ranks
        self._num_values = sum(item.numel() for item in each)
        self._values = torch.zeros(self._num_values + num_numbers, device=each[0].device)
        self._numbers = self._values[self._num_values :]
        is_shared = ranks.world_size > 1
        self._shared = torch.zeros(len(self._values) + TOLD) if is_shared else None
        start = 0
        for item in each:
            item.grad = self._values[start : start + item.numel()].view_as(item)
            start += item.numel()

    def of(self, loss: Tensor, step: int) -> Tensor:
        """Compute the gradients of this rank's loss; leave their mean over ranks behind.

        Args:
            loss: f32[] with its graph.
            step: that is made, from 1.

        Returns:
            f32[]: mean loss over ranks.

        Raises:
            RankLost: another rank did not come.
        """
        self.clear()
        loss.backward()
        found = self.summed(loss.detach()[None], step)
        if self._ranks.world_size > 1:
            self._values[: self._num_values] /= self._ranks.world_size
            found /= self._ranks.world_size
        return found[0]

    def clear(self) -> None:
        """Set the gradients to zero."""
        self._values.zero_()

    def summed(self, numbers: Tensor, step: int) -> Tensor:
        """Leave the sum over ranks of the gradients behind, which are this rank's so far.

        Args:
            numbers: f32[num_numbers] of this rank.
            step: that is made, from 1.

        Returns:
            f32[num_numbers]: their sum over ranks.

        Raises:
            RankLost: another rank did not come.
        """
        self._numbers.copy_(numbers)
        if self._shared is not None:
            ours = self._shared[:-TOLD]
            ours.copy_(self._values)  # what the device computes is waited for here
            self._ranks.sum_step(self._shared, step)
            self._values.copy_(ours)
        return self._numbers.clone()

    def clip(self, norm: float) -> None:
        """Shorten the gradients that `of` left behind to a norm, if theirs is larger."""
        values = self._values[: self._num_values]
        # In float64: squares of large gradients are no float32.
        length = torch.linalg.vector_norm(values, dtype=torch.float64)
        values *= (norm / length.clamp(min=norm)).float()
