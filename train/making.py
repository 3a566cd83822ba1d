"""Batches of one epoch's order: blocks are prepared ahead, rows gathered, targets added."""

from collections.abc import Generator, Iterator, Sequence
from typing import Final, Protocol

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

_ROWS_A_TASK: Final = 2048
"""Rows that one of several threads gathers in one go, at least, so that threads hand over less
often. Not shown to be faster (docs/decisions.md)."""


class Buffers(Protocol):
    """Where features are put."""

    def next(self) -> Tensor:
        """Return int16[S * B, D] that nobody else refers to; called by any thread."""
        ...


def steps_together(share: int, num_threads: int) -> int:
    """Return S, the steps that are gathered in one go, into one buffer.

    Args:
        share: rows that a step reads.
        num_threads: that gather.
    """
    return 1 if num_threads == 1 else -(-_ROWS_A_TASK // share)


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
        buffers: for features of `steps_together` steps.
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
    if sequences is None:
        steps, length = steps_of(order, selection, source.fixed_rows, start, **share), 1
    else:
        steps = sequence_steps_of(order, sequences, source.fixed_rows, start, **share)
        length, alone = sequences.length, len(reads.step)
        reads = sequences.reads(reads)
        max_ahead = max_ahead * len(reads.step) // max(1, alone)  # as many sequences
    together = steps_together(order.plan.global_batch // world_size * length, num_threads)

    def make(steps: Sequence[Step]) -> list[Batch]:
        parts = _parts(buffers.next(), together, len(steps))
        for part, step in zip(parts, steps, strict=True):
            frames = step.frame.numpy().reshape(-1)
            source.gather(frames, part, step.rows, one_call=num_threads > 1)
        made = [
            Batch(
                x=_shaped(part, step.frame),
                y=step.y,
                weight=step.weight,
                frame=step.frame,
                epoch=order.epoch,
                step=step.number,
                num_real=step.num_real,
            )
            for part, step in zip(parts, steps, strict=True)
        ]
        made.reverse()
        return made

    with ReadAhead(
        source.prepare,
        reads.step,
        selection.blocks[reads.block],
        max_ahead=max_ahead,
        release=source.release,
        last_step=reads.last_step,
        blocks_a_call=source.blocks_a_call,
        # Threads may still gather so many steps before the one that is waited for.
        lag=(num_threads + 1) * together - 1 if num_threads > 1 else 0,
    ) as ahead:

        def prepared() -> Iterator[list[Step]]:
            waiting: list[Step] = []
            try:
                for step in steps:
                    ahead.wait(step.number)
                    waiting.append(step)
                    if len(waiting) == together:
                        yield waiting
                        waiting = []
            except Exception:
                if waiting:
                    yield waiting
                raise
            if waiting:
                yield waiting

        for made in in_order(make, prepared(), num_threads):
            while made:
                yield made.pop()  # and nobody here refers to it any more


def _parts(bits: Tensor, together: int, count: int) -> list[Tensor]:
    """Return the first of the steps' features that a buffer holds."""
    if together == 1:
        return [bits]
    size, array = len(bits) // together, bits.numpy()
    # No views of torch's, for the reason that `steps_of` gives.
    return [torch.from_numpy(array[i * size : (i + 1) * size]) for i in range(count)]


def _shaped(bits: Tensor, frame: Tensor) -> Tensor:
    """Return bf16[B, D] of int16[B, D]; of sequences, bf16[b, C + S, D]."""
    x = bits.view(torch.bfloat16)
    return x if frame.ndim == 1 else x.view(*frame.shape, -1)
