"""How loud a row is: the length of its standardised features, collected as rows are scored.

A score that nobody trained. A model that does no better has learned how much is going on, not what.
"""

from typing import Final

import numpy as np
import torch
from torch import Tensor

from ..model import ScoreModel

_ROWS: Final = 256
"""Standardised together: float32 rows of 4096 channels are 4 MiB, which caches hold."""


class RowEnergy:
    """Energies of N rows, filled in as they come by.

    Args:
        model: whose statistics standardise.
        num_rows: N.
    """

    def __init__(self, model: ScoreModel, num_rows: int) -> None:
        self._mean, self._inverse_std = model.mean, model.inverse_std
        self.values = np.zeros(num_rows, np.float32)
        """f4[N]; 0 of rows that have not come."""

    def take(self, first: int, x: Tensor) -> None:
        """Take rows `first`, `first` + 1, ... of the N: bf16[n, D] on the model's device."""
        found = row_energy(x, self._mean, self._inverse_std)
        self.values[first : first + len(x)] = found.cpu().numpy()


@torch.inference_mode()
def row_energy(x: Tensor, mean: Tensor, inverse_std: Tensor) -> Tensor:
    """Return the Euclidean length of each standardised row, f32[n], finite.

    Args:
        x: bf16[n, D], finite.
        mean: f32[D].
        inverse_std: f32[D].
    """
    found = torch.empty(len(x), device=x.device)
    # One piece of memory for all: fresh pages take as long as what is computed in them.
    rows = torch.empty(min(_ROWS, len(x)), x.shape[1], device=x.device)
    for start in range(0, len(x), _ROWS):
        part = x[start : start + _ROWS]
        # Deviations first: sums of squares of raw channels would lose what spreads little.
        standard = rows[: len(part)].copy_(part).sub_(mean).mul_(inverse_std)
        found[start : start + _ROWS] = torch.linalg.vector_norm(standard, dim=1)
    return found.clamp_(max=torch.finfo(torch.float32).max)
