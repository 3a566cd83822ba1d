"""Products of float32 in full, on GPUs too."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def full_float32() -> Iterator[None]:
    """Round no factor of a float32 product in this block, and do as before behind it.

    A GPU may round them to TF32, 10 bits of fraction: where a variable of the environment tells
    torch so, and where features are extracted as `--allow-tf32` says. Scores would then depend on
    who asks for them.
    """
    backends = torch.backends
    before = backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32
    try:  # a signal may come at any time
        _allow_tf32(matmul=False, cudnn=False)
        yield
    finally:
        _allow_tf32(matmul=bool(before[0]), cudnn=bool(before[1]))


def _allow_tf32(*, matmul: bool, cudnn: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = matmul
    torch.backends.cudnn.allow_tf32 = cudnn
