"""How exactly torch multiplies float32, on GPUs and on CPUs, set and put back.

This module knows no torch: who computes hands it `torch.backends`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Final, Literal

Precision = Literal["ieee", "tf32"]
_INHERITED: Final = "none"
"""What a place says that goes by a more general one (`torch.backends.fp32_precision`)."""


def set_precision(backends: ModuleType, gpu: Precision) -> None:
    """Let products of float32 be this exact on GPUs, and full on CPUs, from now on.

    Args:
        backends: `torch.backends`.
        gpu: "tf32" rounds factors to 10 bits of fraction.
    """
    # Not by `allow_tf32` or `set_float32_matmul_precision`: torch refuses to tell those of a
    # process that uses these, and they do not tell all that they are set to.
    for place in _on_gpus(backends):
        place.fp32_precision = gpu
    for place in _on_cpus(backends):
        place.fp32_precision = "ieee"


@contextmanager
def precision_kept(backends: ModuleType) -> Iterator[None]:
    """Put back behind this block what `set_precision` sets in it."""
    places = (*_on_gpus(backends), *_on_cpus(backends))
    before = [(place, place.fp32_precision) for place in places]
    try:  # a signal may come at any time
        yield
    finally:
        for place, precision in before:
            place.fp32_precision = _INHERITED
            if place.fp32_precision != precision:
                place.fp32_precision = precision


def _on_gpus(
    backends: ModuleType,
) -> tuple[Any, ...]:  # Any: objects that torch's types do not know
    return backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn


def _on_cpus(backends: ModuleType) -> tuple[Any, ...]:  # Any: as above
    return backends.mkldnn.matmul, backends.mkldnn.conv, backends.mkldnn.rnn
