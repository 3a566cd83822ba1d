"""What stands between two layers of a head."""

from collections.abc import Callable
from typing import Final

import torch.nn.functional as F
from torch import Tensor

from . import Activation

type Function = Callable[[Tensor], Tensor]

ACTIVATIONS: Final[dict[Activation, Function]] = {
    "gelu": F.gelu,
    "relu": F.relu,
    "silu": F.silu,
}
