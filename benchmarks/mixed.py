"""How well each contestant's batches mix, by the ids of the frames that it delivered.

The measure of `benchmarks.mixing`, taken after the clock has stopped. A batch that is smaller than
the others (the last one) does not count.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .data import SPLIT, BenchData
from .mixing import Mixing, mixing_of_blocks
from .quantities import markdown_table

Ids = Callable[[], Sequence[NDArray[np.int64]]]
"""Returns i64[B] for each batch of a contestant's last run."""


def mixing_of(batches: Sequence[NDArray[np.int64]], data: BenchData) -> Mixing:
    """Return how well batches of frames, by their global ids, mix."""
    num_rows = max(map(len, batches))
    whole = [part // data.index.block_frames for part in batches if len(part) == num_rows]
    return mixing_of_blocks(whole, _recording_of_block(data))


def mixing_setting(
    sources: Mapping[str, Mapping[str, Ids]], data: BenchData
) -> dict[str, dict[str, dict[str, float]]]:
    """Return the measure of all contestants, by group and name, for a report's settings."""
    return {
        group: {
            name: {key: round(value, 2) for key, value in asdict(mixing_of(ids(), data)).items()}
            for name, ids in by_name.items()
        }
        for group, by_name in sources.items()
    }


def mixing_table(report: Mapping[str, Any]) -> str:
    """Return the table of a report that has the measure, with a line above it, or nothing."""
    found = report["settings"].get("mixing")
    if not found:
        return ""
    head = [""]
    for group in found:
        head += [f"{group}: blocks", "recordings", "of its block"]
    rows = [head]
    for name in dict.fromkeys(name for by_name in found.values() for name in by_name):
        row = [name]
        for by_name in found.values():
            mixed = by_name[name]
            row += [
                f"{mixed['blocks']:.0f}",
                f"{mixed['recordings']:.0f}",
                f"{mixed['sharing']:.2f}",
            ]
        rows.append(row)
    return (
        "\n\nWhat a batch mixes, of the frames delivered: distinct blocks of 128 frames, distinct"
        " recordings, and how many other frames of the batch are of a frame's own block (means"
        " over the batches of an epoch):\n\n" + markdown_table(rows)
    )


def _recording_of_block(data: BenchData) -> NDArray[np.int64]:
    """Return i64[blocks]: the number of the recording that each block is of."""
    names: dict[str, int] = {}
    owners = np.full(data.index.num_blocks, -1)
    for stream in data.index.streams(SPLIT):
        number = names.setdefault(stream.recording_id, len(names))
        num_blocks = -(-stream.num_frames // data.index.block_frames)
        owners[stream.first_block : stream.first_block + num_blocks] = number
    return owners
