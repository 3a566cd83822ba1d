"""Random reads of 128 frames, as a notebook makes them: `Store.frames` beside memcpy and Zarr."""

from collections.abc import Callable

import numpy as np
import zarr

from laughstore import layout
from laughstore.index import Stream
from laughstore.store import Store, open_store

from .data import DIM, ID_CHANNELS, SPLIT, BenchData, ids_of
from .measure import Contestant, Unit

NUM_FRAMES = 128
_NUM_READS = 128
_UNITS = (Unit("GB/s", 1e-9), Unit(f"us a read of {NUM_FRAMES} frames", 1e6 / _NUM_READS, False))


def random_reads(data: BenchData) -> list[Contestant]:
    """Return readers of the same random ranges of the same frames, all in the page cache.

    Their blocks are verified when they are read first, in a warm-up round if there is one; `first
    touch` opens the store anew for each run.
    """
    ranges = _ranges(data)
    flat = np.memmap(data.flat, "<u2", "r").reshape(-1, DIM)
    first_row = dict(zip(data.index.streams(SPLIT), _first_rows(data), strict=True))
    buffer = np.empty((NUM_FRAMES, DIM), np.uint16)
    stores: list[Store] = [open_store(data.store)]
    fresh: list[Store] = []
    arrays = {stream: _zarr_array(data, stream) for stream in {stream for stream, _ in ranges}}
    seen: list[np.ndarray] = []

    def run(read: Callable[[Stream, int], np.ndarray]) -> float:
        num_bytes = 0
        seen.clear()
        for stream, start in ranges:
            rows = read(stream, start)
            seen.append(rows[:, :ID_CHANNELS].copy())
            num_bytes += rows.nbytes
        return float(num_bytes)

    def memcpy(stream: Stream, start: int) -> np.ndarray:
        rows = flat[first_row[stream] + start :][: _count(stream)]
        np.copyto(buffer[: len(rows)], rows)
        return buffer[: len(rows)]

    def frames(store: Store) -> Callable[[Stream, int], np.ndarray]:
        def read(stream: Stream, start: int) -> np.ndarray:
            stop = start + _count(stream)
            return store.frames(stream.recording_id, stream.assignment, start, stop)

        return read

    def by_zarr(stream: Stream, start: int) -> np.ndarray:
        return np.asarray(arrays[stream][start : start + _count(stream)])

    def reopen() -> None:
        fresh[:] = [open_store(data.store)]

    def check() -> None:
        for (stream, start), bits in zip(ranges, seen, strict=True):
            first = stream.first_block * data.index.block_frames + start
            found = ids_of(bits.view(np.uint16))
            if not np.array_equal(found, first + np.arange(_count(stream))):
                raise AssertionError(f"frames from {first} were asked for, not {found[0]}")

    limit = Contestant(
        "limit: memcpy of the same rows of one mapped file",
        lambda: run(memcpy),
        _UNITS,
        check=check,
    )
    return [
        limit,
        Contestant(
            "Store.frames, blocks verified before",
            lambda: run(frames(stores[0])),
            _UNITS,
            limit=limit,
            check=check,
        ),
        Contestant(
            "Store.frames, first touch: files mapped and blocks verified anew",
            lambda: run(frames(fresh[0])),
            _UNITS,
            limit=limit,
            before=reopen,
            check=check,
        ),
        Contestant(
            "zarr-python, arrays opened before",
            lambda: run(by_zarr),
            _UNITS,
            "",
            limit,
            check=check,
        ),
    ]


def _count(stream: Stream) -> int:
    return min(NUM_FRAMES, stream.num_frames)


def _ranges(data: BenchData) -> list[tuple[Stream, int]]:
    """Return (stream, first frame) of each read."""
    rng = np.random.default_rng(0)
    streams = data.index.streams(SPLIT)
    chosen = [streams[i] for i in rng.integers(0, len(streams), _NUM_READS).tolist()]
    return [
        (stream, int(rng.integers(0, stream.num_frames - _count(stream) + 1))) for stream in chosen
    ]


def _first_rows(data: BenchData) -> list[int]:
    """Return the row of the flat file at which each stream begins."""
    counts = [stream.num_frames for stream in data.index.streams(SPLIT)]
    return [0, *np.cumsum(counts).tolist()][:-1]


def _zarr_array(data: BenchData, stream: Stream) -> "zarr.Array":
    path = layout.array(layout.FEATURES, stream.split, stream.recording_id, stream.assignment)
    array = zarr.open_array(data.store / path, mode="r")
    assert isinstance(array, zarr.Array), "bfloat16 is registered"
    return array
