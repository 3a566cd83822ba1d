"""Products of float32 in full, on GPUs and on CPUs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch

_INHERITED: Final = "none"
"""What a place says that goes by a more general one (`torch.backends.fp32_precision`)."""


@contextmanager
def full_float32() -> Iterator[None]:
    """Round no factor of a float32 product in this block, and do as before behind it.

    A GPU may round them to TF32, 10 bits of fraction, and a CPU to bfloat16, 7 bits: where a
    variable of the environment, or whoever calls this, tells torch so, and where features are
    extracted as `--allow-tf32` says. Scores would then depend on who asks for them.
    """
    # Not by `allow_tf32` or `set_float32_matmul_precision`: torch refuses to tell those of a
    # process that uses these, and they do not tell all that they are set to.
    before = [(place, place.fp32_precision) for place in _places()]
    try:  # a signal may come at any time
        for place, _ in before:
            place.fp32_precision = "ieee"
        yield
    finally:
        for place, precision in before:
            place.fp32_precision = _INHERITED
            if place.fp32_precision != precision:
                place.fp32_precision = precision


def _places() -> tuple[Any, ...]:  # Any: objects of torch that its types do not know
    """Return what has a precision of its own and is used in heads, or may be."""
    backends: Any = torch.backends  # half of it is made as it is imported
    return (
        backends.cuda.matmul,
        backends.cudnn.conv,
        backends.mkldnn.matmul,
        backends.mkldnn.conv,
    )
