"""From a frame's features to one answer, and from that to its score.

Inputs enter as they are stored (bfloat16); standardising them is folded into the head's first layer
when it runs, so no standardised copy of a batch is ever made and a checkpoint holds all that is
needed to score a frame.
"""

import math
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import HeadConfig
from .losses import ScoreKind
from .moments import Standardiser


class LinearHead(nn.Module):
    """Logistic regression on standardised inputs, beginning at zero: the problem is convex."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.first = nn.Linear(dim, 1)
        nn.init.zeros_(self.first.weight)
        nn.init.zeros_(self.first.bias)

    @property
    def last_bias(self) -> nn.Parameter:
        """f32[1]: what a head that ignores its input answers."""
        return self.first.bias

    def rest(self, hidden: Tensor) -> Tensor:
        """Return logits f32[B] from the first layer's outputs f32[B, 1]."""
        return hidden.squeeze(-1)


class ScoreModel(nn.Module):
    """A head with the statistics of its training rows.

    Args:
        config: of the head.
        dim: D, channels of a frame.
        scores: what scores are (`train.losses.RowLoss.scores`).
    """

    mean: Tensor
    inverse_std: Tensor
    log_pos_weight: Tensor
    log_balance: Tensor

    def __init__(self, config: HeadConfig, dim: int, *, scores: ScoreKind = "probability") -> None:
        super().__init__()
        assert config.head == "linear", "HeadConfig knows no other head"
        self.head = LinearHead(dim)
        self.scores: ScoreKind = scores
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("inverse_std", torch.ones(dim))
        self.register_buffer("log_pos_weight", torch.zeros(()))
        self.register_buffer("log_balance", torch.zeros(()))

    @classmethod
    def new(
        cls,
        config: HeadConfig,
        standardiser: Standardiser,
        *,
        pos_weight: float,
        bias: float,
        share_of_negatives: float = 1.0,
        scores: ScoreKind = "probability",
    ) -> Self:
        """Return an untrained model.

        Args:
            config: of the head.
            standardiser: of the training rows.
            pos_weight: w, weight of positive rows in the loss.
            bias: answer of the untrained head (`train.losses.RowLoss.start`).
            share_of_negatives: K / N, negatives of an epoch among all of the training split.
            scores: what scores are.
        """
        model = cls(config, len(standardiser.mean), scores=scores)
        with torch.no_grad():
            model.mean.copy_(torch.from_numpy(standardiser.mean))
            model.inverse_std.copy_(torch.from_numpy(standardiser.inverse_std))
            model.log_pos_weight.fill_(math.log(pos_weight))
            model.log_balance.fill_(math.log(share_of_negatives))
            model.head.last_bias.fill_(bias)
        return model

    @property
    def dim(self) -> int:
        """D, channels of a frame."""
        return len(self.mean)

    def forward(self, x: Tensor) -> Tensor:
        """Return the head's answers, f32[B], of bf16[B, D]: what the loss is computed from.

        They are logits of classes, or numbers.
        """
        first = self.head.first
        weight = first.weight * self.inverse_std
        bias = first.bias - weight @ self.mean
        return self.head.rest(F.linear(x.float(), weight, bias))

    def score(self, x: Tensor) -> Tensor:
        """Return scores f32[B] of bf16[B, D].

        Weighting positive rows by w raises all logits by log w, and leaving out all but K of N
        negatives by log(N / K). Both are taken off where scores are probabilities, which are those
        under the natural rate of positives; elsewhere both are 0.
        """
        answer = self(x)
        if self.scores == "number":
            return answer
        return torch.sigmoid(answer - self.log_pos_weight + self.log_balance)
