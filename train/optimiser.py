"""AdamW and its learning rate along a run."""

import math

import torch

from .config import TrainConfig
from .model import ScoreModel

_WARM_UP_STEPS = 100
_WARM_UP_SHARE = 0.05
"""Of all steps there may be, when that is fewer."""


def learning_rate(step: int, num_steps: int, *, peak: float) -> float:
    """Return the learning rate of a step (from 0): linear warm-up, then a half cosine towards 0.

    Args:
        step: 0 to num_steps - 1.
        num_steps: steps there may be at most.
        peak: learning rate after the warm-up.
    """
    warm_up = max(1, min(_WARM_UP_STEPS, round(num_steps * _WARM_UP_SHARE)))
    if step < warm_up:
        return peak * (step + 1) / warm_up
    share = (step - warm_up) / max(1, num_steps - warm_up)
    return peak * 0.5 * (1 + math.cos(math.pi * share))


def make_optimiser(model: ScoreModel, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW; biases are not decayed, because they hold the rate of positives."""
    weights = [value for value in model.parameters() if value.ndim > 1]
    biases = [value for value in model.parameters() if value.ndim <= 1]
    groups = [
        {"params": weights, "weight_decay": config.weight_decay},
        {"params": biases, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr)
