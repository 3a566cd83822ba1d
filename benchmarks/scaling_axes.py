"""The axes along which the stream's cost is measured: on each, one thing changes, the rest stays.

The group of a result is the value on the axis.
"""

from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from itertools import count
from pathlib import Path

from laughstore import layout
from laughstore.index import Index
from laughstore.store import open_store
from train.streaming.choices import Verify

from .data import FRAME_BYTES, NUM_RECORDINGS, BenchStore
from .limits import memcpy, memcpy_by_two
from .measure import Contestant, Result, Unit, measure, summary
from .mixing import Corpus, of_plan
from .scaling_epochs import (
    BATCH,
    LANES,
    WINDOW_BLOCKS,
    Epochs,
    Setting,
    memory_apart,
    plan_epoch,
)
from .scaling_ranks import ReadingRanks

_S = (Unit("s", 1, is_rate=False),)
_CRC_BYTES = 4
PARTS = (1, 2, 4, NUM_RECORDINGS)
"""Recordings of a store that are read together on the axis of sizes."""


def pattern(num_recordings: int) -> str:
    """Return the shell pattern of the ids of the first recordings, `episode-0-1a2b3c4d` and on."""
    return f"episode-[0-{num_recordings - 1}]-*"


def by_size(data: BenchStore, gb: float, repeats: int) -> list[Result]:
    """Measure parts of a store, by its recordings, and all of it."""
    with ExitStack() as stack:
        copy = memcpy()
        found = [copy]
        for part in PARTS:
            group = f"{gb * part / NUM_RECORDINGS:g}"
            setting = Setting(pattern(part))
            epochs = stack.enter_context(closing(Epochs(data.index, setting)))
            first = FirstBatch(data.store, setting)
            found += [
                epochs.contestant("FrameStream", group, copy),
                opening(data, group),
                planning(data, setting, group),
                Contestant("first batch", first.run, _S, group, check=first.check),
            ]
        return measure(found, repeats=repeats, say=print)


def by_ranks(data: BenchStore, part: int, ranks: Sequence[int], repeats: int) -> list[Result]:
    """Measure processes that share each step, beside one and two threads that copy memory."""
    with ExitStack() as stack:
        one, two = memcpy(), memcpy_by_two()
        found = [one, two]
        for number in ranks:
            together = stack.enter_context(ReadingRanks(data.store, pattern(part), number))
            limit = one if number == 1 else two
            found.append(together.contestant("FrameStream, all ranks", limit))
        return without_cores(measure(found, repeats=repeats, say=print))


def by_workers(data: BenchStore, part: int, workers: Sequence[int], repeats: int) -> list[Result]:
    """Measure workers of a DataLoader, and as many threads of the stream's own."""
    settings = [("DataLoader workers", n, Setting(pattern(part), workers=n)) for n in workers]
    threads = sorted({max(1, n) for n in workers})
    settings += [("threads", n, Setting(pattern(part), threads=n)) for n in threads]
    with ExitStack() as stack:
        one, two = memcpy(), memcpy_by_two()
        found = [one, two]
        for what, number, setting in settings:
            epochs = stack.enter_context(closing(Epochs(data.index, setting)))
            limit = two if number > 1 else one
            found.append(epochs.contestant(f"FrameStream, {what}", str(number), limit))
        return without_cores(measure(found, repeats=repeats, say=print))


def by_block(stores: Sequence[BenchStore], corpus_scale: float, repeats: int) -> list[Result]:
    """Measure stores of the same frames in blocks of other sizes."""
    readings: list[tuple[str, Verify]] = [
        ("FrameStream, verify never", "never"),
        ("FrameStream, verify always", "always"),
    ]
    with ExitStack() as stack:
        copy = memcpy()
        found = [copy]
        results: list[Result] = []
        for data in stores:
            group = str(data.index.block_frames)
            for name, verify in readings:
                epochs = Epochs(data.index, Setting(verify=verify))
                found.append(stack.enter_context(closing(epochs)).contestant(name, group, copy))
            first = FirstBatch(data.store, Setting(verify="first"))
            found.append(Contestant("first batch", first.run, _S, group, check=first.check))
            results += _of_blocks(data, corpus_scale, group)
        return measure(found, repeats=repeats, say=print) + results


def by_window(
    data: BenchStore,
    part: int,
    settings: Sequence[tuple[int, int]],
    corpus_scale: float,
    repeats: int,
) -> list[Result]:
    """Measure windows of other sizes; memory is that of an epoch over the whole store.

    Args:
        data: frames.
        part: recordings whose frames are delivered on the clock.
        settings: (lanes, blocks of a window) of each.
        corpus_scale: of the corpus whose mixing is computed; 1 is PodcastFillers' size.
        repeats: rounds.
    """
    corpus = Corpus.drawn(corpus_scale)
    with ExitStack() as stack:
        copy = memcpy()
        found = [copy]
        results: list[Result] = []
        for lanes, window_blocks in settings:
            group = f"{lanes} x {window_blocks}"
            setting = Setting(pattern(part), lanes=lanes, window_blocks=window_blocks)
            epochs = stack.enter_context(closing(Epochs(data.index, setting)))
            found.append(epochs.contestant("FrameStream, files mapped", group, copy))
            mixing = of_plan(corpus, BATCH, lanes, window_blocks)
            results.append(_one("frames sharing a frame's block", group, "", mixing.sharing))
        results = measure(found, repeats=repeats, say=print) + results
    for lanes, window_blocks in settings:  # once the streams above are closed
        group = f"{lanes} x {window_blocks}"
        print(f"memory of {group}", flush=True)
        mapped = Setting(lanes=lanes, window_blocks=window_blocks)
        fetched = replace(mapped, reader="window")
        for name, setting in (("files mapped", mapped), ("window reader", fetched)):
            num_bytes = memory_apart(data.store, setting)
            results.append(_one(f"memory, {name}", group, "B", num_bytes))
    return results


class FirstBatch:
    """A new stream's first batch; closing the stream is not on the clock."""

    def __init__(self, store: Path, setting: Setting) -> None:
        self._store, self._setting = store, setting

    def run(self) -> float:
        """Open the stream and take its first batch."""
        self._stream = self._setting.open(self._store)
        self._batches = iter(self._stream)
        self._batch = next(self._batches)
        return 1.0

    def check(self) -> None:
        """Raise unless the batch is as large as it should be; let go of the stream."""
        rows = min(BATCH, self._stream.selection.num_rows)
        if self._batch.num_real != rows:
            raise AssertionError(f"the first batch has {self._batch.num_real} rows of {rows}")
        del self._batch
        self._batches.close()
        self._stream.close()


def opening(data: BenchStore, group: str) -> Contestant:
    """Return what opens a store."""
    opened: list[Index] = []

    def run() -> float:
        opened[:] = [open_store(data.store).index]
        return 1.0

    def check() -> None:
        if opened.pop().index_id != data.index.index_id:
            raise AssertionError("another store was opened")

    return Contestant("open_store", run, _S, group, check=check)


def planning(data: BenchStore, setting: Setting, group: str) -> Contestant:
    """Return what plans an epoch of a stream: another one at each call."""
    with setting.open(data.index) as stream:
        selection = stream.selection
    numbers = count()
    planned: list[int] = []

    def run() -> float:
        planned[:] = [plan_epoch(selection.block_counts, selection.targets, next(numbers))]
        return 1.0

    def check() -> None:
        if planned != [selection.num_rows]:
            raise AssertionError(f"{planned} rows of {selection.num_rows} were planned")

    return Contestant("plan an epoch", run, _S, group, check=check)


def without_cores(results: Sequence[Result]) -> list[Result]:
    """Leave out CPU seconds: those of other processes are not among them."""
    return [replace(result, cores=None) for result in results]


def _of_blocks(data: BenchStore, corpus_scale: float, group: str) -> list[Result]:
    """Return what blocks of this size cost beside time."""
    index = data.index
    mixing = of_plan(Corpus.drawn(corpus_scale, index.block_frames), BATCH, LANES, WINDOW_BLOCKS)
    shard_bytes = int(index.shard_bytes.sum())
    columns = (data.store / layout.columns(1)).stat().st_size
    return [
        _one("frames sharing a frame's block", group, "", mixing.sharing),
        _one("checksums", group, "B", _CRC_BYTES * index.num_blocks),
        _one("columns of the index", group, "B", columns),
        _one("shards beyond their frames", group, "B", shard_bytes - data.num_frames * FRAME_BYTES),
    ]


def _one(name: str, group: str, unit: str, value: float) -> Result:
    return summary(name, unit, [float(value)], group=group)
