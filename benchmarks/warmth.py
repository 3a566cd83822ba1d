"""Put frames in memory before a run, off the clock.

That they were there in the round before does not suffice: a system may take back pages that nobody
has touched for a minute (DAMON does, where it is set so), and a round takes longer. What is mapped
then meets its pages anew, which is no part of what is compared.
"""

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
