"""Stores of ever more recordings: what their metadata takes, and what a stream's start takes.

Only metadata is written, and shards that are holes (`large_index`). Times and memory are those of
fresh processes; rounds run every size once, so that all sizes meet the same noise.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from laughstore import layout
from laughstore.labels import LabelSpec
from laughstore.store import open_store
from train.streaming.selection import select

from .data import DIM, SPLIT
from .large_index import LargeStore, write_holes
from .measure import Result, summary
from .process_memory import anonymous_bytes, apart
from .scaling_epochs import BATCH, Setting, plan_epoch

_FILES = {
    "index": layout.index(1),
    "manifest": layout.STORE_JSON,
    "plan": layout.FIRST_PLAN,
    "columns": layout.columns(1),
}


@dataclass(frozen=True)
class Opened:
    """What opening took, in a fresh process."""

    open_s: float
    opened_bytes: int
    """Anonymous memory that `open_store` added."""
    used_bytes: int
    """The same, once all checksums and shards were asked for."""


@dataclass(frozen=True)
class Started:
    """What a stream's start took, in a fresh process; parts one after the other."""

    select_s: float
    plan_s: float
    first_batch_s: float
    """From a path to the first batch."""
    stream_bytes: int
    """Anonymous memory that the stream added up to its first batch, the batch included."""


def by_recordings(
    folder: Path, sizes: Sequence[int], num_started: int, repeats: int, warm_ups: int = 1
) -> list[Result]:
    """Return what stores of so many recordings take.

    Args:
        folder: for the stores.
        sizes: recordings of each, rising.
        num_started: of so many of them, the first ones, streams are started, too.
        repeats: rounds that count.
        warm_ups: rounds before them: pages of files that were just made are not in memory.
    """
    stores = {size: _written(folder, size, size in sizes[:num_started]) for size in sizes}
    opened: dict[int, list[Opened]] = {size: [] for size in sizes}
    started: dict[int, list[Started]] = {size: [] for size in sizes[:num_started]}
    for number in range(-warm_ups, repeats):
        print("warm-up" if number < 0 else f"round {number + 1} of {repeats}", flush=True)
        for size, store in stores.items():
            opened[size].append(apart(open_large, store))
            if size in started:
                started[size].append(apart(start_stream, store))
    results: list[Result] = []
    for size, store in stores.items():
        for what, path in _FILES.items():
            num_bytes = float((store / path).stat().st_size)
            results.append(_result(f"bytes of the {what}", size, "B", [num_bytes]))
        rows = [asdict(item) for item in opened[size][warm_ups:]]
        results += [
            _result("open_store", size, "s", [row["open_s"] for row in rows]),
            _result("memory of open_store", size, "B", [row["opened_bytes"] for row in rows]),
            _result("memory of the whole index", size, "B", [row["used_bytes"] for row in rows]),
        ]
        if size in started:
            rows = [asdict(item) for item in started[size][warm_ups:]]
            results += [
                _result("select rows, make targets", size, "s", [row["select_s"] for row in rows]),
                _result("plan an epoch", size, "s", [row["plan_s"] for row in rows]),
                _result("first batch", size, "s", [row["first_batch_s"] for row in rows]),
                _result("memory of a rank", size, "B", [row["stream_bytes"] for row in rows]),
            ]
    return results


def open_large(folder: Path) -> Opened:
    """Open a store and ask for all checksums and shards."""
    before = anonymous_bytes()
    began = time.perf_counter()
    index = open_store(folder).index
    open_s = time.perf_counter() - began
    opened_bytes = anonymous_bytes() - before
    assert len(index.block_crc32c) == index.num_blocks
    assert len(index.shards) == index.num_shards
    return Opened(open_s, opened_bytes, anonymous_bytes() - before)


def start_stream(folder: Path) -> Started:
    """Time the start of a stream over shards of holes: its parts, then all of it."""
    torch.set_num_threads(1)
    torch.empty(BATCH * DIM, dtype=torch.int16).zero_()  # what torch loads at first
    before = anonymous_bytes()
    began = time.perf_counter()
    stream = Setting().open(folder)
    batches = iter(stream)
    batch = next(batches)
    first_batch_s = time.perf_counter() - began
    stream_bytes = anonymous_bytes() - before
    if batch.num_real != min(BATCH, stream.selection.num_rows) or batch.x.any():
        raise AssertionError("the first batch is not one of zeros")
    batches.close()
    stream.close()
    del batch, batches, stream
    index = open_store(folder).index
    assert len(index.block_crc32c) == index.num_blocks  # no part of what is timed
    began = time.perf_counter()
    selection = select(index, SPLIT, LabelSpec())
    counts, targets = selection.block_counts, selection.targets
    selected = time.perf_counter()
    if plan_epoch(counts, targets) != selection.num_rows:
        raise AssertionError(f"not all of {selection.num_rows} rows were planned")
    planned = time.perf_counter()
    return Started(selected - began, planned - selected, first_batch_s, stream_bytes)


def _written(folder: Path, size: int, with_shards: bool) -> Path:
    store = folder / f"index-{size}"
    if not (store / "finished").exists():
        LargeStore(size).write(store)
        if with_shards:
            write_holes(store)
        (store / "finished").touch()
    LargeStore(size).check(open_store(store).index)
    return store


def _result(name: str, size: int, unit: str, values: Sequence[float]) -> Result:
    # Floats: whole numbers would not be rounded as their median is.
    return summary(name, unit, [float(value) for value in values], group=str(size))
