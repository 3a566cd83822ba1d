"""How torch computes features: what a spec fixes beside the model, set for the whole process."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from laughstore.float32 import precision_kept, set_precision
from laughstore.spec import Numerics


def set_numerics(numerics: Numerics) -> None:
    """Let torch compute as a spec says, from now on."""
    _set_threads(numerics.threads)
    set_precision(torch.backends, "tf32" if numerics.allow_tf32 else "ieee")


@contextmanager
def computing_as(numerics: Numerics) -> Iterator[None]:
    """Let torch compute as a spec says in this block, and as before behind it."""
    threads = torch.get_num_threads()
    with precision_kept(torch.backends):
        try:  # a signal may come at any time
            set_numerics(numerics)
            yield
        finally:
            _set_threads(threads)


def compute_dtype(numerics: Numerics) -> torch.dtype:
    """Return what the language model computes in."""
    return torch.bfloat16 if numerics.compute_dtype == "bfloat16" else torch.float32


def _set_threads(threads: int) -> None:
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
