"""How torch computes features: what a spec fixes beside the model, set for the whole process."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from laughstore.spec import Numerics


def set_numerics(numerics: Numerics) -> None:
    """Let torch compute as a spec says, from now on."""
    _set(numerics.threads, numerics.allow_tf32, numerics.allow_tf32)


@contextmanager
def computing_as(numerics: Numerics) -> Iterator[None]:
    """Let torch compute as a spec says in this block, and as before behind it."""
    threads = torch.get_num_threads()
    matmul, cudnn = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    try:  # a signal may come at any time
        set_numerics(numerics)
        yield
    finally:
        _set(threads, bool(matmul), bool(cudnn))


def compute_dtype(numerics: Numerics) -> torch.dtype:
    """Return what the language model computes in."""
    return torch.bfloat16 if numerics.compute_dtype == "bfloat16" else torch.float32


def _set(threads: int, matmul_tf32: bool, cudnn_tf32: bool) -> None:
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    torch.backends.cuda.matmul.allow_tf32 = matmul_tf32
    torch.backends.cudnn.allow_tf32 = cudnn_tf32
