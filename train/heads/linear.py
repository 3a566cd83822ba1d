"""Logistic regression, or least squares: one layer."""

from torch import Tensor, nn

from . import HeadConfig
from .head import Head, linear_of_zeros


class LinearHead(Head):
    """One layer on standardised inputs, beginning at zero: the problem is convex."""

    def __init__(self, config: HeadConfig, dim: int) -> None:
        super().__init__(config, dim)
        self.first = linear_of_zeros(dim, 1)

    @property
    def last_bias(self) -> nn.Parameter:
        """f32[1]: what a head that ignores its input answers."""
        return self.first.bias

    def begin(self, seed: int) -> None:
        """Leave all weights at zero."""

    def rest(self, hidden: Tensor, keys: Tensor | None) -> Tensor:
        """Return answers f32[B] from the first layer's outputs f32[B, 1]."""
        return hidden.squeeze(-1)
