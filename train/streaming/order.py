"""The order of one epoch of a selection: which of its rows take part, and the plan of those."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..plan import Mix, Plan
from .balance import balanced_rows


@dataclass(frozen=True, eq=False)
class Order:
    """The order of one epoch."""

    epoch: int
    plan: Plan
    """Of M rows that take part."""
    rows: NDArray[np.int64] | None
    """i64[M], rising: which of the selection's N rows they are; None: all."""

    @classmethod
    def of(
        cls,
        counts: NDArray[np.int64],
        targets: NDArray[Any],  # Any: as the label gives them
        *,
        balance: float | None,
        seed: int,
        epoch: int,
        global_batch: int,
        lanes: int,
        window_blocks: int,
        mix: Mix,
    ) -> Self:
        """Return the order of an epoch.

        Args:
            counts: i64[blocks], eligible rows of each block.
            targets: [N] of the eligible rows; above 0 is positive.
            balance: negatives for each positive row; None: all.
            seed: as `Plan`, like the rest.
            epoch: from 0.
            global_batch: rows of a step over all ranks.
            lanes: places of the data set that a batch mixes.
            window_blocks: blocks of a lane whose rows are shuffled together.
            mix: `windows` or `global`.

        Raises:
            ConfigError: as `Plan` and `balanced_rows`.
        """
        rows = None
        if balance is not None:
            rows = balanced_rows(targets > 0, balance, seed=seed, epoch=epoch)
            ends = np.searchsorted(rows, np.cumsum(counts, dtype=np.int64))
            counts = np.diff(ends, prepend=0)
        plan = Plan(
            counts,
            seed=seed,
            epoch=epoch,
            global_batch=global_batch,
            lanes=lanes,
            window_blocks=window_blocks,
            mix=mix,
        )
        return cls(epoch, plan, rows)
