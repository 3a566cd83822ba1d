"""How many threads of torch pay."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch

_WORTH_THREADS: Final = 16
"""Outputs of a first layer. Fewer do so little with a row that memory is what they wait for, and
several threads, for each other: even a sigmoid of 4096 numbers is divided, and where something else
wants a core, as the stream does, its halves meet after milliseconds."""


@contextmanager
def threads_for(num_outputs: int) -> Iterator[None]:
    """Let torch use one thread in this block if more do not pay, and as before behind it.

    Args:
        num_outputs: H, of the first layer.
    """
    allowed = torch.get_num_threads()
    if allowed == 1 or num_outputs >= _WORTH_THREADS:
        yield
        return
    with one_thread():
        yield


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread in this block, and as many as before behind it."""
    before = torch.get_num_threads()
    try:  # a signal may come at any time
        torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(before)
