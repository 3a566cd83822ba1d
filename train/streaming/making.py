"""Batches of one epoch's order: blocks are prepared ahead, rows gathered, targets added."""

from collections.abc import Generator, Iterator
from typing import Protocol

import torch
from torch import Tensor

from .batch import Batch
from .in_order import in_order
from .order import Order
from .readahead import ReadAhead
from .selection import Selection
from .sequences import Sequences, sequence_steps_of
from .source import FrameSource
from .steps import Step, steps_of


class Buffers(Protocol):
    """Where features are put."""

    def next(self) -> Tensor:
        """Return int16[B, D] that nobody else refers to; called by any thread."""
        ...


def batches_of(
    order: Order,
    selection: Selection,
    source: FrameSource,
    buffers: Buffers,
    start: int,
    *,
    rank: int,
    world_size: int,
    stride: int,
    max_ahead: int,
    num_threads: int,
    sequences: Sequences | None = None,
) -> Generator[Batch]:
    """Yield a rank's batches of the steps start, start + stride, ...

    Args:
        order: of the epoch.
        selection: whose rows it orders.
        source: reads their frames.
        buffers: for features.
        start: first step.
        rank: of this process.
        world_size: number of ranks.
        stride: steps from one batch to the next; 1 with more than one thread.
        max_ahead: most blocks that are prepared before they are needed.
        num_threads: that gather; 1: the caller's own.
        sequences: of the selection, if they are what the order orders.

    Raises:
        CorruptData: a block was altered or cut.
        ValueError: the source was closed.
    """
    assert stride == 1 or num_threads == 1, "steps in the making are counted one by one"
    share = {"rank": rank, "world_size": world_size, "stride": stride}
    reads = order.plan.reads(start, **share)
    steps: Iterator[Step]
    if sequences is None:
        steps = steps_of(order, selection, source.fixed_rows, start, **share)
    else:
        steps = sequence_steps_of(order, sequences, source.fixed_rows, start, **share)
        alone = len(reads.step)
        reads = sequences.reads(reads)
        max_ahead = max_ahead * len(reads.step) // max(1, alone)  # as many sequences

    def make(step: Step) -> Batch:
        bits = buffers.next()
        source.gather(step.frame.numpy().reshape(-1), bits, step.rows)
        return Batch(
            x=_shaped(bits, step.frame),
            y=step.y,
            weight=step.weight,
            frame=step.frame,
            epoch=order.epoch,
            step=step.number,
            num_real=step.num_real,
        )

    with ReadAhead(
        source.prepare,
        reads.step,
        selection.blocks[reads.block],
        max_ahead=max_ahead,
        release=source.release,
        last_step=reads.last_step,
        blocks_a_call=source.blocks_a_call,
        room=source.room,
        # Threads may still gather so many steps before the one that is waited for.
        lag=num_threads if num_threads > 1 else 0,
        are_ready=None if source.releases else source.are_ready,
    ) as ahead:

        def prepared() -> Iterator[Step]:
            for step in steps:
                ahead.wait(step.number)
                yield step

        yield from in_order(make, prepared(), num_threads)


def _shaped(bits: Tensor, frame: Tensor) -> Tensor:
    """Return bf16[B, D] of int16[B, D]; of sequences, bf16[b, C + S, D]."""
    x = bits.view(torch.bfloat16)
    return x if frame.ndim == 1 else x.view(*frame.shape, -1)
