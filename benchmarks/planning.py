"""Planning an epoch: how long it takes, and what memory; of counts alone, without a store."""

import time
import tracemalloc

import numpy as np
from numpy.typing import NDArray

from train.streaming.order import Order

from .measure import Result, summary
from .process_memory import apart

BATCH, LANES, WINDOW_BLOCKS = 4096, 64, 8
"""The stream's defaults."""
PLANNED_FRAMES = 13_000_000
"""Of both assignments of PodcastFillers."""
QUICK_FRAMES = 130_000
_BALANCES = (None, 5.0)
_BLOCK_FRAMES = 128
_EVERY_POSITIVE = 25
_BYTES_OF_A_NUMBER = 8


def order_of(
    counts: NDArray[np.int64],
    targets: NDArray[np.generic],
    balance: float | None = None,
    *,
    global_batch: int = BATCH,
    epoch: int = 0,
) -> Order:
    """Return the order of an epoch, by the stream's defaults.

    Args:
        counts: i64[blocks], rows that take part.
        targets: u1[N] of these rows.
        balance: negatives for each positive row.
        global_batch: rows of a step.
        epoch: the epoch.
    """
    return Order.of(
        counts,
        targets,
        balance=balance,
        seed=0,
        epoch=epoch,
        global_batch=global_batch,
        lanes=LANES,
        window_blocks=WINDOW_BLOCKS,
        mix="windows",
    )


def planning_time(num_frames: int, repeats: int) -> list[Result]:
    """Return how long planning an epoch takes, in a process of its own; also with balance."""
    return [
        summary(
            _name(num_frames, balance),
            "ms",
            [1e3 * seconds for seconds in apart(_seconds, num_frames, balance, repeats)],
        )
        for balance in _BALANCES
    ]


def planning_memory(num_frames: int) -> list[Result]:
    """Return the most memory that planning allocates at a time, beside a number for each row.

    Numbers of rows in their order are what a plain shuffle keeps. Allocations are counted, not
    pages, so one look is enough.
    """
    rows = f"limit: a number for each of {num_frames:,} rows"
    limit = summary(rows, "MB", [num_frames * _BYTES_OF_A_NUMBER / 1e6])
    found = [limit]
    for balance in _BALANCES:
        name = f"{_name(num_frames, balance)}: most that is allocated"
        found.append(summary(name, "MB", [apart(_most_bytes, num_frames, balance) / 1e6], limit))
    return found


def _name(num_frames: int, balance: float | None) -> str:
    what = "" if balance is None else f", balance {balance:g}"
    return f"planning an epoch of {num_frames:,} frames{what}"


def _seconds(num_frames: int, balance: float | None, repeats: int) -> list[float]:
    counts, targets = _frames(num_frames)
    seconds: list[float] = []
    for _ in range(repeats):
        began = time.perf_counter()
        _plan(counts, targets, balance)
        seconds.append(time.perf_counter() - began)
    return seconds


def _most_bytes(num_frames: int, balance: float | None) -> int:
    counts, targets = _frames(num_frames)
    tracemalloc.start()  # numpy tells it of its arrays
    _plan(counts, targets, balance)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak_bytes


def _frames(num_frames: int) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    counts = np.full(-(-num_frames // _BLOCK_FRAMES), _BLOCK_FRAMES, np.int64)
    counts[-1] -= counts.sum() - num_frames
    targets = np.zeros(num_frames, np.uint8)
    targets[::_EVERY_POSITIVE] = 1
    return counts, targets


def _plan(counts: NDArray[np.int64], targets: NDArray[np.uint8], balance: float | None) -> None:
    """Make the plan of an epoch, its reads and the rows of its first step."""
    order = order_of(counts, targets, balance)
    reads = order.plan.reads()
    positions = next(order.plan.batches())
    # Negatives that are left out have no row; all others have one, and the first step needs some.
    if len(positions) != BATCH or not (reads.step == 0).any():
        raise AssertionError(f"the first step has {len(positions)} rows")
    if balance is None and order.plan.num_rows != len(targets):
        raise AssertionError(f"{order.plan.num_rows} rows of {len(targets)} are planned")
