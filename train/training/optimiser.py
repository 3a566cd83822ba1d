"""AdamW and its learning rate along a run."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..config import TrainConfig
from ..model import RowModel
from ..optimiser_config import OptimiserConfig

_COSINE = OptimiserConfig()
_WARM_UP_STEPS = 100
_WARM_UP_SHARE = 0.05
"""Of all steps there may be, when that is fewer."""


def learning_rate(
    step: int,
    num_steps: int,
    *,
    peak: float,
    config: OptimiserConfig = _COSINE,
    drops: int = 0,
) -> float:
    """Return the learning rate of a step (from 0): linear warm-up, then as the schedule has it.

    Args:
        step: 0 to num_steps - 1.
        num_steps: steps there may be at most.
        peak: learning rate after the warm-up.
        config: names the schedule: a half cosine towards 0, or a factor for each drop.
        drops: how often it has fallen so far (`train.training.plateau`).
    """
    if config.schedule == "plateau":
        peak *= config.plateau_factor**drops
    warm_up = max(1, min(_WARM_UP_STEPS, round(num_steps * _WARM_UP_SHARE)))
    if step < warm_up:
        return peak * (step + 1) / warm_up
    if config.schedule == "plateau":
        return peak
    share = (step - warm_up) / max(1, num_steps - warm_up)
    return peak * 0.5 * (1 + math.cos(math.pi * share))


def make_optimiser(model: RowModel, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW; biases are not decayed, because they hold the rate of positives."""
    weights = _weights(model)
    biases = [value for value in model.parameters() if value.ndim <= 1]
    groups = [
        {"params": weights, "weight_decay": config.weight_decay},
        {"params": biases, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr)


def l2_term(model: RowModel, l2: float) -> Tensor:
    """Return f32[]: half the sum of squares of all weights, times l2.

    Of the weights that see standardised channels; biases are left out, as in weight decay. Every
    rank adds all of it to its loss, whose mean over ranks then holds it once.
    """
    return l2 / 2 * torch.stack([value.square().sum() for value in _weights(model)]).sum()


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return all that an optimiser remembers, on the CPU, by `<parameter>.<name>`."""
    return {
        f"{number}.{name}": value.cpu()
        for number, values in optimiser.state_dict()["state"].items()
        for name, value in values.items()
    }


def load_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Let an optimiser remember what `optimiser_tensors` returned."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        state.setdefault(int(number), {})[name] = value
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": state, "param_groups": groups})


def _weights(model: RowModel) -> list[nn.Parameter]:
    return [value for value in model.parameters() if value.ndim > 1]
