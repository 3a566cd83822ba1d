"""What a run says of its rows: how many there are, and whether they have anything to teach."""

from typing import Any

import numpy as np

from laughstore.errors import ConfigError

from .streaming.balance import num_negatives
from .streaming.selection import Selection


def check_both_classes(selection: Selection, label: str = "") -> None:
    """Raise a ConfigError when there are rows of one class alone.

    Args:
        selection: rows that take part.
        label: named in the message, where there are several.
    """
    counts = selection.counts
    is_number = selection.y.dtype == np.float32  # which may all differ from 0
    for name, number in (("positive", counts.positives), ("negative", counts.negatives)):
        if not number and not (is_number and name == "negative"):
            of = f" of {label}" if label else ""
            raise ConfigError(
                f"split {selection.split!r} has no {name} row{of} among {selection.num_rows}:"
                " nothing can be learned or chosen from it; use another label, filter or data set"
            )


def balanced_negatives(selection: Selection, balance: float) -> int:
    """Return K, negatives of an epoch.

    Args:
        selection: rows that take part.
        balance: negatives for each positive row.

    Raises:
        ConfigError: none is left.
    """
    counts = selection.counts
    num_used = num_negatives(counts.positives, counts.negatives, balance)
    if not num_used:
        raise ConfigError(
            f"balance {balance:g} leaves no negative row beside {counts.positives} positive"
            " ones: nothing can be learned from them alone; use a larger --balance"
        )
    return num_used


def counts_of(*selections: Selection) -> dict[str, Any]:  # Any: JSON values
    """Return the counts of each split that a run keeps, as a JSON object."""
    return {
        item.split: {
            "recordings": len({stream.recording_id for stream in item.streams}),
            "streams": len(item.streams),
            "rows": item.num_rows,
            "positives": item.counts.positives,
            "ignored": item.counts.ignored,
        }
        for item in selections
    }
