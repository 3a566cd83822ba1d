"""What every head is: a first layer that standardising is folded into, and what comes after it."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from . import HeadConfig


class Head(nn.Module, ABC):
    """A head of zeros, until it begins or is loaded.

    Args:
        config: its arguments.
        dim: D, channels of a frame.
    """

    first: nn.Linear
    """D to H: the only layer that sees a frame. `train.model` folds standardising into it."""
    drops_out: bool = False
    """Training needs a number for each row, from which it is decided what is left out of it."""

    is_first_layer: bool = False
    """Nothing comes behind the first layer, whose one output is the answer."""

    context: int = 0
    """C: rows before a row that its answer depends on, too. A head with any is given sequences."""

    @abstractmethod
    def __init__(self, config: HeadConfig, dim: int) -> None:
        super().__init__()

    @property
    @abstractmethod
    def last_bias(self) -> nn.Parameter:
        """f32[1]: what a head that ignores its input answers."""

    @abstractmethod
    def begin(self, seed: int) -> None:
        """Draw the weights that do not begin at zero, of this seed alone."""

    @abstractmethod
    def rest(self, hidden: Tensor, keys: Tensor | None) -> Tensor:
        """Return answers f32[B] from the first layer's outputs f32[B, H].

        With context, answers f32[b, n] from f32[b, C + n, H]: of the last n rows of b sequences.

        Args:
            hidden: of the first layer; 0 in rows that are absent.
            keys: i64[B] or i64[b, n], of training with dropout (`train.heads.dropout`); None leaves
                nothing out.
        """


def linear_of_zeros(num_inputs: int, num_outputs: int) -> nn.Linear:
    """Return a layer of zeros, without drawing numbers that nobody uses."""
    layer = nn.Linear(num_inputs, num_outputs, device="meta").to_empty(device="cpu")
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
