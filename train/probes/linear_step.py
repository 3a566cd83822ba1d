"""A step of linear heads on the CPU, part by part of its rows.

A part becomes float32 in the cache, and is answered, judged and derived by while it is there: a
step reads its rows from memory once, as they are stored. Threads share the parts.
"""

import torch
from torch import Tensor

from ..row_product import float_parts
from .stacked import ProbeModel
from .stacked_loss import StackedLoss


@torch.no_grad()
def linear_step(
    model: ProbeModel, loss: StackedLoss, x: Tensor, y: Tensor, counted: Tensor
) -> Tensor:
    """Add the gradients of a step to those of the model's parameters.

    Args:
        model: of K heads that are nothing but their first layer.
        loss: of each.
        x: bf16[B, D].
        y: f32[B, K], targets.
        counted: bool[B, K]: rows that a head's label counts.

    Returns:
        f32[K]: sums of losses over those rows, which the gradients are of.
    """
    weight, bias = model.standardising_layer()

    @torch.no_grad()  # of the thread
    def of_share(rows: slice) -> tuple[Tensor, Tensor, Tensor]:
        by_weight, by_bias = torch.zeros_like(weight), torch.zeros_like(bias)
        sums = torch.zeros_like(bias)
        its_y, its_counted = y[rows], counted[rows]
        for part, features in float_parts(x[rows]):
            answers = torch.addmm(bias, features, weight.t())
            with torch.enable_grad():
                losses = loss.of_rows(answers.requires_grad_(), its_y[part]) * its_counted[part]
                summed = losses.sum(dim=0)
                (by_answers,) = torch.autograd.grad(summed.sum(), answers)
            by_weight.addmm_(by_answers.t(), features)
            by_bias += by_answers.sum(dim=0)
            sums += summed.detach()
        return by_weight, by_bias, sums

    shares = model.threads.each(len(x), of_share)
    by_weight, by_bias, sums = (torch.stack(each).sum(dim=0) for each in zip(*shares, strict=True))
    first = model.heads.first
    assert first.weight.grad is not None, "memory of `Gradients`"
    assert first.bias.grad is not None, "memory of `Gradients`"
    # The layer is weight * inverse_std, and bias - that @ mean.
    first.weight.grad += by_weight.addr_(by_bias, model.mean, alpha=-1) * model.inverse_std
    first.bias.grad += by_bias
    return sums
