"""What steps hold besides features: frame ids, targets and weights, many steps at once."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .order import Order
from .selection import Selection

FixedRows = Callable[[NDArray[np.int64]], NDArray[np.int64] | None]
"""As `FrameSource.fixed_rows`."""


class Step(NamedTuple):
    """B rows of one step."""

    number: int
    """In the epoch, from 0."""
    frame: Tensor
    """i64[B] global frame ids; -1 in pad rows."""
    y: Tensor
    """f32[B] targets; 0 in pad rows."""
    weight: Tensor
    """f32[B]: 1, or 0 in pad rows."""
    rows: NDArray[np.int64] | None
    """i64[B] rows of the matrix, where they are known and none is a pad row."""
    num_real: int
    """Rows of weight 1 of the step, over all ranks."""


def steps_of(
    order: Order,
    selection: Selection,
    fixed_rows: FixedRows,
    start: int,
    *,
    rank: int,
    world_size: int,
    stride: int,
) -> Iterator[Step]:
    """Yield a rank's steps start, start + stride, ...

    A step of 512 rows is gathered in half a millisecond: a few dozen calls of numpy would be a
    tenth of it, so they are made once for several steps (256 rows a lane, or one step), and the
    tensors of a step lie in the memory of all of them.
    """
    number = start
    for positions in order.plan.runs(start, rank=rank, world_size=world_size, stride=stride):
        is_full = int(positions.min()) >= 0
        # Pad rows take any row here, position -1 being the last one.
        picked = positions if order.rows is None else order.rows[positions]
        frames = selection.frames_of(picked)
        y = selection.targets[picked].astype(np.float32)
        weight = np.ones_like(y)
        if not is_full:
            pads = positions < 0
            frames[pads], y[pads], weight[pads] = -1, 0, 0
        rows = fixed_rows(frames) if is_full else None
        for i in range(len(frames)):
            # No views of torch's: they share one count of versions, so that a target changed in
            # place spoils gradients of the steps beside it, and saved or sent they take all along.
            frame, target, row_weight = (
                torch.from_numpy(array[i]) for array in (frames, y, weight)
            )
            here = None if rows is None else rows[i]
            yield Step(number, frame, target, row_weight, here, order.plan.num_real(number))
            number += stride
