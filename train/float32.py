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
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    try:  # a signal may come at any time
        matmul.allow_tf32 = cudnn.allow_tf32 = False
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before
