"""Logistic regression, or least squares: one layer."""

from typing import Final

import torch
from torch import Tensor, nn

from . import HeadConfig
from .head import Head, linear_of_zeros
from .initial import uniform

_NEAR_ZERO: Final = 0.1
"""Spread of the logits, over all first weights."""


class LinearHead(Head):
    """One layer on standardised inputs, beginning at zero: the problem is convex."""

    is_first_layer = True

    def __init__(self, config: HeadConfig, dim: int) -> None:
        super().__init__(config, dim)
        self.first = linear_of_zeros(dim, 1)

    @property
    def last_bias(self) -> nn.Parameter:
        """f32[1]: what a head that ignores its input answers."""
        return self.first.bias

    def begin(self, seed: int) -> None:
        """Leave all weights at zero."""

    def begin_near_zero(self, seed: int) -> None:
        """Draw small weights: the way to the one optimum begins elsewhere for each seed."""
        dim = self.first.in_features
        with torch.no_grad():
            drawn = uniform((1, dim), _NEAR_ZERO * (3 / dim) ** 0.5, seed)
            self.first.weight.copy_(torch.from_numpy(drawn))

    def rest(self, hidden: Tensor, keys: Tensor | None) -> Tensor:
        """Return answers f32[B] from the first layer's outputs f32[B, 1]."""
        return hidden.squeeze(-1)
