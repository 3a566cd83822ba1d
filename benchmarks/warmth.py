"""Put frames in memory before a run, off the clock, and keep the memory that loaders free.

That they were there in the round before does not suffice: a system may take back pages that nobody
has touched for a minute (DAMON does, where it is set so), and a round takes longer. What is mapped
then meets its pages anew, which is no part of what is compared.
"""

import ctypes
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .data import DIM

_READ_BYTES = 1 << 20
_PAGE_BYTES = 4096
_TOUCHED_TOGETHER = 4096
_M_MMAP_THRESHOLD = -3
_KEPT_BYTES = 32 << 20
"""The most that glibc takes."""


def keep_freed_memory() -> None:
    """Have the C library keep memory that is freed, where it is glibc.

    By default it returns blocks of a MiB to the kernel until a process happens to have freed larger
    ones. A loader that makes bytes of every block has either its last block's memory or pages that
    the kernel must clear: for mosaicml-streaming 3.2 or 1.2 GB/s.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)


def read_files(paths: Iterable[Path]) -> None:
    """Put files in the page cache."""
    buffer = bytearray(_READ_BYTES)
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def touch_frames(
    gather: Callable[[NDArray[np.int64], Tensor], None], numbers: NDArray[np.int64]
) -> None:
    """Read frames of these numbers once, by `gather`: mapped pages that nobody reads grow old."""
    out = torch.empty((_TOUCHED_TOGETHER, DIM), dtype=torch.int16)
    for start in range(0, len(numbers), _TOUCHED_TOGETHER):
        part = numbers[start : start + _TOUCHED_TOGETHER]
        gather(part, out[: len(part)])


def touch_pages(rows: NDArray) -> None:
    """Touch a word of each page of mapped rows [N, D]."""
    if rows.size:
        rows[:, :: _PAGE_BYTES // rows.itemsize].max()
        rows[:, -1].max()  # rows need not begin at a page
