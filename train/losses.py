"""What a step minimises, summed so that pad rows and the number of ranks change nothing."""

import math

import torch.nn.functional as F
from torch import Tensor

from .config import LossConfig


def pos_weight(config: LossConfig, *, positives: int, negatives: int) -> float:
    """Return w, the weight of a positive row, from the rows of an epoch: eligible and balanced."""
    if config.pos_weight == "none":
        return 1.0
    return negatives / positives if config.pos_weight == "auto" else float(config.pos_weight)


def prior_bias(weight: float, *, positives: int, negatives: int) -> float:
    """Return log(w pi / (1 - pi)): the best bias of a head that knows nothing else.

    Args:
        weight: w, of a positive row.
        positives: P of the rows of an epoch, above 0; pi = P / (P + K).
        negatives: K, above 0: all N, or those that balance leaves.
    """
    return math.log(weight * positives / negatives)


def bce_loss(
    logit: Tensor, y: Tensor, weight: Tensor, *, pos_weight: float, num_real: int, world_size: int
) -> Tensor:
    """Return this rank's loss, f32[].

    The mean over ranks, which is what DDP makes of gradients, is the mean over all real rows of the
    step: sum(weight * loss) * world_size / num_real.

    Args:
        logit: f32[B].
        y: f32[B], 0 or 1.
        weight: f32[B], 0 for pad rows.
        pos_weight: w, of positive rows.
        num_real: rows of the step that are no pad rows, over all ranks, at least 1.
        world_size: number of ranks.
    """
    loss = F.binary_cross_entropy_with_logits(
        logit, y, weight, pos_weight=logit.new_tensor(pos_weight), reduction="sum"
    )
    return loss * (world_size / num_real)
