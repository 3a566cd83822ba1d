"""From a frame's features to one answer, and from that to its score.

Inputs enter as they are stored (bfloat16); standardising them is folded into the head's first layer
when it runs, so no standardised copy of a batch is ever made and a checkpoint holds all that is
needed to score a frame.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from laughstore.errors import ConfigError, CorruptData

from .heads import HeadConfig, make_head
from .heads.dropout import row_keys
from .losses import LOSSES, ScoreKind
from .moments import Standardiser
from .row_product import row_product


class RowModel(nn.Module, ABC):
    """What scores rows: one head, or many (`train.probes.stacked`)."""

    mean: Tensor
    """f32[D], of the training rows."""
    row_shape: tuple[int, ...] = ()
    """Shape of the answer to one row."""

    @property
    @abstractmethod
    def context(self) -> int:
        """C: rows before a row that its score depends on, too."""

    @property
    @abstractmethod
    def num_outputs(self) -> int:
        """H, of the first layer."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:  # Any: JSON values
        """Return the JSON object that a model is made from again, before its tensors are loaded."""

    @abstractmethod
    def score(self, x: Tensor) -> Tensor:
        """Return scores f32[B, *row_shape] of bf16[B, D]; see `ScoreModel.score`."""


class ScoreModel(RowModel):
    """A head with the statistics of its training rows.

    Args:
        config: of the head.
        dim: D, channels of a frame.
        scores: what scores are (`train.losses.RowLoss.scores`).
    """

    inverse_std: Tensor
    log_pos_weight: Tensor
    log_balance: Tensor

    def __init__(self, config: HeadConfig, dim: int, *, scores: ScoreKind = "probability") -> None:
        super().__init__()
        self.config = config
        self.head = make_head(config, dim)
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
        seed: int = 0,
    ) -> Self:
        """Return an untrained model.

        Args:
            config: of the head.
            standardiser: of the training rows.
            pos_weight: w, weight of positive rows in the loss.
            bias: answer of the untrained head (`train.losses.RowLoss`).
            share_of_negatives: K / N, negatives of an epoch among all of the training split.
            scores: what scores are.
            seed: of the head's first weights.
        """
        model = cls(config, len(standardiser.mean), scores=scores)
        model.head.begin(seed)
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

    @property
    def num_outputs(self) -> int:
        """H, of the first layer."""
        return self.head.first.out_features

    def describe(self) -> dict[str, Any]:  # Any: JSON values
        """Return the JSON object that a model is made from again, before its tensors are loaded."""
        return {"head": self.config.to_json(), "dim": self.dim, "scores": self.scores}

    @classmethod
    def described(cls, data: Mapping[str, Any], *, dim: int, where: str) -> Self:  # Any: JSON
        """Return a model of zeros as `describe` described it.

        Raises:
            CorruptData: it did not, or not one of features of `dim` channels; the message begins
                with `where`.
        """
        try:
            head, scores = HeadConfig.from_json(data["head"]), data["scores"]
            if scores not in {loss.scores for loss in LOSSES.values()}:
                raise ConfigError(f"scores is {scores!r}")
            if data["dim"] != dim:
                raise ConfigError(f"dim is {data['dim']!r}, the features have {dim}")
        except (KeyError, TypeError, ConfigError) as error:
            raise CorruptData(
                f"{where}: describes no model of this release ({error}); restore the file, or use"
                " the release that wrote it"
            ) from error
        return cls(head, dim, scores=scores)

    def row_keys(self, frame: Tensor, *, seed: int, step: int) -> Tensor | None:
        """Return what training passes to `forward` besides rows: i64[B], or None without dropout.

        Args:
            frame: i64[B], global frame ids of the rows that are answered.
            seed: of the run.
            step: of the run.
        """
        if not self.head.drops_out:
            return None
        return row_keys(frame, seed=seed, step=step).to(self.mean.device)

    @property
    def context(self) -> int:
        """C: rows before a row that its score depends on, too."""
        return self.head.context

    def forward(
        self,
        x: Tensor,
        keys: Tensor | None = None,
        present: Tensor | None = None,
        *,
        bf16: bool = False,
    ) -> Tensor:
        """Return the head's answers, f32[B], of bf16[B, D]: what the loss is computed from.

        They are logits of classes, or numbers. With a context of C rows, answers are f32[b, n] of
        bf16[b, C + n, D]: those of the last n rows of b sequences.

        Args:
            x: bf16[B, D], or bf16[b, C + n, D].
            keys: of training, see `row_keys`; None leaves no unit out.
            present: bool[b, C + n], False in rows that there are none of; None: all are there.
            bf16: multiply frames and first layer in that precision; all else is float32.
        """
        return self.head.rest(self.first_outputs(x, present, bf16=bf16), keys)

    def first_outputs(
        self, x: Tensor, present: Tensor | None = None, *, bf16: bool = False
    ) -> Tensor:
        """Return what the head's first layer makes of standardised frames, f32[..., H].

        Of a row that is absent it is 0, whatever the mean of the features.

        Args:
            x: bf16[..., D].
            present: bool[...]; None: all are there.
            bf16: as of `forward`.
        """
        first = self.head.first
        rows = x.reshape(-1, self.dim)  # of sequences, all of them
        if bf16:
            # Standardised before: channels whose mean is large beside their spread would, folded
            # in, leave nothing of the 8 bits of a weight.
            standard = (rows.float() - self.mean) * self.inverse_std
            product = F.linear(standard.bfloat16(), first.weight.bfloat16())
            outputs = product.float() + first.bias
        else:
            weight = first.weight * self.inverse_std
            outputs = row_product(rows, weight, first.bias - weight @ self.mean)
        outputs = outputs.view(*x.shape[:-1], first.out_features)
        return outputs if present is None else outputs.masked_fill(~present[..., None], 0)

    def score(self, x: Tensor, present: Tensor | None = None) -> Tensor:
        """Return scores f32[B] of bf16[B, D], or f32[b, n] of bf16[b, C + n, D] (see `forward`)."""
        return self.scores_of(self(x, present=present))

    def scores_of(self, answer: Tensor) -> Tensor:
        """Return the scores that answers of the head (f32[...]) are.

        Weighting positive rows by w raises all logits by log w, and leaving out all but K of N
        negatives by log(N / K). Both are taken off where scores are probabilities, which are those
        under the natural rate of positives; elsewhere both are 0.
        """
        if self.scores == "number":
            return answer
        return torch.sigmoid(answer - self.log_pos_weight + self.log_balance)
