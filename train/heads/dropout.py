"""Which hidden units are left out of a row: a function of (seed, step, frame, unit).

A generator would have to be saved to go on with a run, and would give other masks to other numbers
of ranks. This is a hash: a row has the same mask in whatever batch, process and place it comes.
"""

from typing import Final

import torch
from torch import Tensor

_GOLDEN: Final = 0x9E3779B97F4A7C15
_STEPS: Final = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, None))
"""SplitMix64's mixing: shift, then multiply (Steele, Lea and Flood, OOPSLA 2014)."""
_BITS: Final = 24
_WORD: Final = 2**64


def row_keys(frame: Tensor, *, seed: int, step: int) -> Tensor:
    """Return i64[B]: what the masks of these rows depend on.

    Args:
        frame: i64[B], global frame ids.
        seed: of the run, 0 to 2^64 - 1.
        step: of the run.
    """
    begin = _mix(torch.tensor([_signed(seed), _signed(_GOLDEN * (step + 1))]))
    return _mix(frame * _signed(_GOLDEN) + begin[0] + begin[1])


def drop_out(hidden: Tensor, keys: Tensor, share: float) -> Tensor:
    """Return f32[B, H] with a share of units at 0, and the others made larger to keep their mean.

    Args:
        hidden: f32[B, H].
        keys: i64[B], on the same device.
        share: from 0 to below 1.
    """
    units = torch.arange(1, hidden.shape[1] + 1, device=hidden.device)
    numbers = _mix(keys[:, None] + units * _signed(_GOLDEN))
    kept = _shifted(numbers, 64 - _BITS, out=numbers) >= round(share * 2**_BITS)
    return hidden * kept * (1 / (1 - share))


def _mix(words: Tensor) -> Tensor:
    """64-bit words from 64-bit words, in their place; products wrap around."""
    shifted = torch.empty_like(words)
    for bits, factor in _STEPS:
        words ^= _shifted(words, bits, out=shifted)
        if factor is not None:
            words *= _signed(factor)
    return words


def _shifted(words: Tensor, bits: int, *, out: Tensor) -> Tensor:
    """Shift right; torch would fill with the sign."""
    torch.bitwise_right_shift(words, bits, out=out)
    out &= (1 << (64 - bits)) - 1
    return out


def _signed(word: int) -> int:
    """The int64 with the bits of an unsigned word."""
    word %= _WORD
    return word - _WORD if word >= _WORD // 2 else word
