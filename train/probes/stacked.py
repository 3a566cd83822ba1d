"""Many heads of one kind over the same rows: their first layers are one matrix product.

Everything a head has of its own stays its own: gradients of one never touch another's parameters,
and AdamW works on each number by itself. So each head learns what it would learn alone.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from ..heads import HeadConfig, make_head
from ..heads.head import linear_of_zeros
from ..heads.linear import LinearHead
from ..losses import ScoreKind
from ..model import RowModel, ScoreModel
from ..row_product import float_parts, row_product
from ..row_threads import RowThreads

type Tensors = dict[str, Tensor]
"""Of a head's parameters, or of what is kept for each, by the names that one head has."""
_FIRST = "first."


class StackedHeads(nn.Module):
    """K heads of zeros.

    Args:
        config: of each.
        dim: D, channels of a frame.
        num_heads: K, from 0.
    """

    def __init__(self, config: HeadConfig, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        heads: list[nn.Module] = []
        one = make_head(config, dim)
        self.width = one.first.out_features
        """H: hidden units of each."""
        # A head derived from a linear one may have more.
        self.are_first_layers = one.is_first_layer and type(one).rest is LinearHead.rest
        """The first layer is all there is: its outputs are the answers."""
        self.first = linear_of_zeros(dim, num_heads * self.width)
        for _ in range(0 if self.are_first_layers else num_heads):
            head = make_head(config, dim)
            del head.first  # a part of ours
            heads.append(head)
        self.rests = nn.ModuleList(heads)
        """What comes behind the first layer of each, if anything does."""
        self.drops_out = one.drops_out
        """Training needs a number for each row and head."""

    def forward(self, hidden: Tensor, keys: Tensor | None) -> Tensor:
        """Return answers f32[B, K].

        Args:
            hidden: f32[B, K * H], of the first layer.
            keys: i64[K, B], of training with dropout.
        """
        if self.are_first_layers:
            return hidden
        parts = hidden.unflatten(1, (self.num_heads, self.width)).unbind(1)
        each = [None] * self.num_heads if keys is None else keys
        answers = [
            head.rest(part, key)  # pyright: ignore[reportCallIssue]
            for head, part, key in zip(self.rests, parts, each, strict=True)
        ]
        return torch.stack(answers, dim=1)

    def scale_gradients(self, scale: Tensor) -> None:
        """Multiply the gradients of head k by f32[K][k]."""
        for name, value in self.named_parameters():
            assert value.grad is not None, "of a step"
            if name.startswith(_FIRST):
                value.grad.view(self.num_heads, -1).mul_(scale[:, None])
            else:
                value.grad.mul_(scale[int(name.split(".")[1])])

    def split(self, tensors: Mapping[str, Tensor]) -> list[Tensors]:
        """Return what of some tensors is of each head, as views.

        Args:
            tensors: by the names of our parameters: of their shapes, or single numbers of all.
        """
        parts: list[Tensors] = [{} for _ in range(self.num_heads)]
        for name, value in tensors.items():
            if name.startswith(_FIRST):
                each = [value] * self.num_heads if value.ndim == 0 else value.split(self.width)
                for part, item in zip(parts, each, strict=True):
                    part[name] = item
            else:
                _, number, inner = name.split(".", 2)
                parts[int(number)][inner] = value
        return parts

    @staticmethod
    def join(parts: Sequence[Tensors]) -> Tensors:
        """Return the tensors of one or more heads, by the names of a stack of just these."""
        joined: Tensors = {}
        for number, part in enumerate(parts):
            for name, value in part.items():
                if not name.startswith(_FIRST):
                    joined[f"rests.{number}.{name}"] = value
                elif number == 0:
                    each = [item[name] for item in parts]
                    joined[name] = value if value.ndim == 0 else torch.cat(each)
        return joined


class ProbeModel(RowModel):
    """Heads of several probes with the statistics of their training rows.

    Args:
        config: of each head.
        dim: D, channels of a frame.
        scores: what the scores of each are.
        threads: that share the rows of linear heads on the CPU; new ones if None.
    """

    inverse_std: Tensor
    log_pos_weight: Tensor

    def __init__(
        self,
        config: HeadConfig,
        dim: int,
        scores: Sequence[ScoreKind],
        threads: RowThreads | None = None,
    ) -> None:
        super().__init__()
        self.config, self.scores, self.row_shape = config, tuple(scores), (len(scores),)
        self.threads = threads or RowThreads()
        self.heads = StackedHeads(config, dim, len(scores))
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("inverse_std", torch.ones(dim))
        self.register_buffer("log_pos_weight", torch.zeros(len(scores)))

    @classmethod
    def of(cls, models: Sequence[ScoreModel]) -> Self:
        """Return a model that answers what each of one or more models does.

        Args:
            models: of one kind, with the same statistics; none has rows left out by balance.
        """
        first = models[0]
        model = cls(first.config, first.dim, [item.scores for item in models])
        heads = StackedHeads.join([item.head.state_dict() for item in models])
        model.heads.load_state_dict(heads)
        model.mean.copy_(first.mean)
        model.inverse_std.copy_(first.inverse_std)
        model.log_pos_weight.copy_(torch.stack([item.log_pos_weight for item in models]))
        return model

    @torch.no_grad()
    def keeping(self, kept: Sequence[int]) -> Self:
        """Return a model of some of these heads, on the same device."""
        scores: list[ScoreKind] = [self.scores[number] for number in kept]
        model = type(self)(self.config, len(self.mean), scores, self.threads)
        parts = self.heads.split(self.heads.state_dict())
        model.heads.load_state_dict(StackedHeads.join([parts[number] for number in kept]))
        model.mean.copy_(self.mean)
        model.inverse_std.copy_(self.inverse_std)
        model.log_pos_weight.copy_(self.log_pos_weight[list(kept)])
        return model.to(self.mean.device)

    @torch.no_grad()
    def alone(self, numbers: Sequence[int]) -> list[Tensors]:
        """Return copies of the parameters of some of these heads as `ScoreModel`s have them."""
        heads = self.heads.split(dict(self.heads.named_parameters()))
        return [
            {f"head.{name}": value.cpu().clone() for name, value in heads[number].items()}
            for number in numbers
        ]

    @property
    def context(self) -> int:
        """0: heads that read other rows, too, are no probes."""
        return 0

    @property
    def num_outputs(self) -> int:
        """K * H, of the first layer."""
        return self.heads.first.out_features

    def describe(self) -> dict[str, Any]:  # Any: JSON values
        """Return the JSON object that a model is made from again, before its tensors are loaded."""
        return {
            "head": self.config.to_json(),
            "dim": len(self.mean),
            "scores": list(self.scores),
        }

    def forward(self, x: Tensor, keys: Tensor | None = None) -> Tensor:
        """Return the heads' answers, f32[B, K], of bf16[B, D].

        Args:
            x: bf16[B, D].
            keys: i64[K, B], of training with dropout; None leaves no unit out.
        """
        return self.heads(row_product(x, *self.standardising_layer()), keys)

    def standardising_layer(self) -> tuple[Tensor, Tensor]:
        """Return weight f32[K * H, D] and bias f32[K * H] of the first layer on rows as stored."""
        first = self.heads.first
        weight = first.weight * self.inverse_std
        return weight, first.bias - weight @ self.mean

    def score(self, x: Tensor) -> Tensor:
        """Return scores f32[B, K] of bf16[B, D]; see `ScoreModel.score`."""
        if not (self.heads.are_first_layers and x.device.type == "cpu"):
            return self._scores_of(self(x))
        weight, bias = self.standardising_layer()

        @torch.no_grad()
        def of_share(rows: slice) -> list[Tensor]:
            parts = float_parts(x[rows])
            return [self._scores_of(torch.addmm(bias, part, weight.t())) for _, part in parts]

        return torch.cat([part for share in self.threads.each(len(x), of_share) for part in share])

    def _scores_of(self, answers: Tensor) -> Tensor:
        shares = torch.sigmoid(answers - self.log_pos_weight)
        numbers = [kind == "number" for kind in self.scores]
        if not any(numbers):
            return shares
        return torch.where(torch.tensor(numbers, device=answers.device), answers, shares)


def keep_moments(
    before: torch.optim.Optimizer,
    old: StackedHeads,
    after: torch.optim.Optimizer,
    new: StackedHeads,
    kept: Sequence[int],
) -> None:
    """Let an optimiser of some heads remember what the one of all of them did.

    Args:
        before: of the old heads.
        old: all of them.
        after: of the new heads.
        new: the kept ones.
        kept: which of the old ones they are; one or more.
    """
    names = {key for value in old.parameters() for key in before.state[value]}
    parameters = dict(new.named_parameters())
    for key in sorted(names):
        moments = {name: before.state[value][key] for name, value in old.named_parameters()}
        parts = old.split(moments)
        for name, value in StackedHeads.join([parts[number] for number in kept]).items():
            after.state[parameters[name]][key] = value.clone()
