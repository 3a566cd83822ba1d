"""What steps hold besides features: frame ids, targets and weights, many steps at once."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .order import Order
from .selection import Selection


class Steps(NamedTuple):
    """S steps of B rows, in the order in which they are made."""

    frames: NDArray[np.int64]
    """i64[S, B] global frame ids; -1 in pad rows."""
    y: NDArray[np.float32]
    """f4[S, B] targets; 0 in pad rows."""
    weight: NDArray[np.float32]
    """f4[S, B]: 1, or 0 in pad rows."""
    is_full: bool
    """No row is a pad row."""


def steps_of(
    order: Order, selection: Selection, start: int, *, rank: int, world_size: int, stride: int
) -> Iterator[Steps]:
    """Yield a rank's steps start, start + stride, ..., some at a time.

    A step of 512 rows is gathered in a millisecond: a few dozen calls of numpy would be a tenth of
    it, so they are made once for several steps.
    """
    for positions in order.plan.runs(start, rank=rank, world_size=world_size, stride=stride):
        is_full = int(positions.min()) >= 0
        # Pad rows take any row here, position -1 being the last one.
        rows = positions if order.rows is None else order.rows[positions]
        frames = selection.frames_of(rows)
        y = selection.targets[rows].astype(np.float32)
        weight = np.ones_like(y)
        if not is_full:
            pads = positions < 0
            frames[pads], y[pads], weight[pads] = -1, 0, 0
        yield Steps(frames, y, weight, is_full)
