"""A layer's product with rows as they are stored: made float32 a few at a time, in the cache.

A float32 copy of a whole batch would be twice as large as the batch, and each step would write it
to memory once and read it twice. Here rows are read as they are, once forward and once backward.
"""

from collections.abc import Iterator
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

_BYTES: Final = 4 << 20
"""Float32 rows of a part: 256 of 4096 channels. Of 1 to 32 MiB, this was the fastest, and half of
it or twice as much within a tenth."""


def row_product(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return f32[..., H]: x times the transposed weight, plus bias; both can be derived by.

    Args:
        x: bf16[..., D], which needs no gradient.
        weight: f32[H, D].
        bias: f32[H].
    """
    # Threads would meet after each part: where they pay (`train.threads`), the plain way does, too.
    if x.device.type != "cpu" or torch.get_num_threads() > 1:
        return F.linear(x.float(), weight, bias)
    rows: Any = _RowProduct.apply(x.reshape(-1, x.shape[-1]), weight, bias)  # untyped in torch
    return rows.view(*x.shape[:-1], len(weight))


class _RowProduct(torch.autograd.Function):
    """On a CPU, by one thread."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:  # noqa: ANN401
        """Return f32[B, H]."""
        ctx.save_for_backward(x)
        out = torch.empty(len(x), len(weight))
        columns = weight.t()
        for rows, part in float_parts(x):
            torch.addmm(bias, part, columns, out=out[rows])
        return out

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,  # noqa: ANN401 (what torch hands from forward to backward)
        by_out: Tensor,
    ) -> tuple[None, Tensor, Tensor]:
        """Return the derivatives by weight and bias, f32[H, D] and f32[H], from f32[B, H]."""
        (x,) = ctx.saved_tensors
        by_weight = torch.zeros(by_out.shape[1], x.shape[1])
        columns = by_out.t()
        for rows, part in float_parts(x):
            by_weight.addmm_(columns[:, rows], part)
        return None, by_weight, by_out.sum(0)


def float_parts(x: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield slices of rows with these rows as f32[b, D], in memory that the next ones take.

    Args:
        x: bf16[B, D].
    """
    num_rows, dim = x.shape
    # A multiple of 16: a part's last rows are computed as all others are.
    step = max(1, _BYTES // (64 * dim)) * 16
    memory = torch.empty(min(step, num_rows), dim)
    for start in range(0, num_rows, step):
        rows = slice(start, min(start + step, num_rows))
        part = memory[: rows.stop - start]
        part.copy_(x[rows])
        yield rows, part
