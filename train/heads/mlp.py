"""One hidden layer."""

import torch
from torch import Tensor, nn

from . import HeadConfig
from .activations import ACTIVATIONS
from .dropout import drop_out
from .head import Head, linear_of_zeros
from .initial import uniform


class MlpHead(Head):
    """D to H hidden units to 1.

    The last layer begins at zero, so an untrained head answers its bias, the rate of positives,
    for every row, whatever the hidden units say.
    """

    def __init__(self, config: HeadConfig, dim: int) -> None:
        super().__init__(config, dim)
        self.first = linear_of_zeros(dim, config.hidden)
        self.last = linear_of_zeros(config.hidden, 1)
        self.drops_out = config.dropout > 0
        self._activate = ACTIVATIONS[config.activation]
        self._dropout = config.dropout

    @property
    def last_bias(self) -> nn.Parameter:
        """f32[1]: what a head that ignores its input answers."""
        return self.last.bias

    def begin(self, seed: int) -> None:
        """Draw the first layer so that hidden units have about the spread of the inputs (He)."""
        hidden, dim = self.first.weight.shape
        with torch.no_grad():
            self.first.weight.copy_(
                torch.from_numpy(uniform((hidden, dim), (6 / dim) ** 0.5, seed))
            )

    def rest(self, hidden: Tensor, keys: Tensor | None) -> Tensor:
        """Return answers f32[B] from the first layer's outputs f32[B, H]."""
        hidden = self._activate(hidden)
        if keys is not None:
            hidden = drop_out(hidden, keys, self._dropout)
        return self.last(hidden).squeeze(-1)
