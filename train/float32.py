"""Products of float32 in full, on GPUs and on CPUs."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from laughstore.float32 import precision_kept, set_precision


@contextmanager
def full_float32() -> Iterator[None]:
    """Round no factor of a float32 product in this block, and do as before behind it.

    A GPU may round them to TF32, 10 bits of fraction, and a CPU to bfloat16, 7 bits: where a
    variable of the environment, or whoever calls this, tells torch so, and where features are
    extracted as `--allow-tf32` says. Scores would then depend on who asks for them.
    """
    with precision_kept(torch.backends):
        set_precision(torch.backends, "ieee")
        yield
