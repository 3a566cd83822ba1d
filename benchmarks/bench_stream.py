"""Frames delivered by train.FrameStream, beside its limits and its rivals.

    uv run python -m benchmarks.bench_stream [--gb 4] [--dir DIR] [--repeats 5] [--quick]

Every contestant delivers all frames once an epoch to the same consumer; a run is an epoch. One
torch thread; FrameStream's read-ahead and zarr-python's readers have threads of their own, which
the column `cores` shows.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from laughstore import open_rows
from train.config import Verify
from train.gather import RowMatrix
from train.stream import FrameStream

from .cold import can_forget, cold_contestants
from .data import DIM, FRAME_BYTES, SPLIT, BenchData, make_data
from .measure import Contestant, Unit, measure
from .peers import OpenPeer, installed, open_peers
from .report import Report, parse_options, working_folder
from .rivals import POOL_FRAMES, Memmap, WebDatasetBlocks, ZarrBlocks

NAME = "stream"
BATCHES = (512, 4096)
MEMCPY_BYTES = 256 << 20
_MEMCPY_TIMES = 4
_UNITS = (Unit("GB/s", 1e-9), Unit("frames/s", 1 / FRAME_BYTES))
"""Every run returns the bytes that it delivered, so that all can be held against memcpy."""
_BYTE_UNITS = _UNITS[:1]


class Consumer:
    """Keeps the ids that frames carry: the first two channels of every row.

    Args:
        drops: let go of a batch before the next is asked for, as the trainer does, so that a loader
            may use its memory again; else after that, as a plain `for` loop does.
    """

    def __init__(self, *, drops: bool = True) -> None:
        self._drops = drops
        self._ids: list[Tensor] = []

    def take(self, batches: Iterable[Tensor]) -> None:
        """Consume i2[B, DIM] batches."""
        self._ids = []
        for bits in batches:
            self._ids.append(bits[:, :2].clone())
            if self._drops:
                del bits

    def ids(self) -> NDArray[np.int64]:
        """Return i64[N]: the ids that the frames of the last epoch carried."""
        halves = torch.cat(self._ids).to(torch.int64).numpy() & 0xFFFF
        return halves[:, 0] | halves[:, 1] << 16


class StreamEpochs:
    """Epochs of one FrameStream, or (`reopen`) the first epoch of a new one each time."""

    def __init__(
        self,
        data: BenchData,
        batch: int,
        verify: Verify,
        *,
        reopen: bool = False,
        drops: bool = True,
        threads: int = 1,
    ) -> None:
        self._data, self._batch, self._reopen, self._threads = data, batch, reopen, threads
        self._verify: Verify = verify
        self._epoch = -1
        self._frames: list[Tensor] = []
        self._consumer = Consumer(drops=drops)
        self._stream = self._open()
        if self._stream.selection.num_rows != data.num_frames:
            raise AssertionError("the label leaves frames out; contestants would differ")

    def before(self) -> None:
        """Open the stream anew if each run is to be a first epoch."""
        if self._reopen:
            self._stream.close()
            self._stream = self._open()
        self._epoch += 1

    def run(self) -> float:
        """Deliver an epoch. Returns its bytes."""
        self._stream.set_epoch(self._epoch)
        self._frames = []
        self._consumer.take(self._batches())
        return float(self._data.num_frames * FRAME_BYTES)

    def check(self) -> None:
        """Every frame came once, and was the one that its batch said."""
        said = torch.cat(self._frames).numpy()
        real = said >= 0
        if not np.array_equal(self._consumer.ids()[real], said[real]):
            raise AssertionError("FrameStream delivered other frames than it said")
        _check_once(said[real], self._data)

    def order(self) -> NDArray[np.int64]:
        """Return i64[N]: global ids of the frames in the order of epoch 0."""
        with self._open() as stream:
            said = torch.cat([batch.frame for batch in stream]).numpy()
        return said[said >= 0]

    def close(self) -> None:
        """Let go of the mapped files."""
        self._stream.close()

    def _batches(self) -> Iterator[Tensor]:
        for batch in self._stream:
            self._frames.append(batch.frame)
            yield batch.x.view(torch.int16)
            del batch

    def _open(self) -> FrameStream:
        # The default, and the trainer's way: memory of batches that were dropped is used again.
        return FrameStream(
            self._data.index,
            SPLIT,
            global_batch=self._batch,
            verify=self._verify,
            copy=False,
            threads=self._threads,
        )


class RivalEpochs:
    """Epochs of somebody else's loader."""

    def __init__(self, data: BenchData, epoch: Callable[[int], Iterator[Tensor]]) -> None:
        self._data, self._make = data, epoch
        self._epoch = -1
        self._consumer = Consumer()

    def run(self) -> float:
        """Deliver an epoch. Returns its bytes."""
        self._epoch += 1
        self._consumer.take(self._make(self._epoch))
        return float(self._data.num_frames * FRAME_BYTES)

    def ids(self) -> NDArray[np.int64]:
        """Return i64[N]: which frames the last epoch delivered, in their order."""
        return self._consumer.ids()

    def check(self) -> None:
        """Every frame came once."""
        _check_once(self.ids(), self._data)


def peer_contestant(data: BenchData, peer: OpenPeer, batch: int, limit: Contestant) -> Contestant:
    """Return epochs of a loader with files of its own, which are in memory when it runs."""
    epochs = RivalEpochs(data, lambda _: peer.epoch(batch))

    def check() -> None:
        epochs.check()
        peer.forget()

    name = f"{peer.name}, blocks + vectorised pool"
    return Contestant(name, epochs.run, _UNITS, _group(batch), limit, peer.warm, check)


def memcpy() -> Contestant:
    """Return the limit of everything: one thread copies 256 MiB (bytes counted once)."""
    source = np.ones(MEMCPY_BYTES, np.uint8)
    target = np.empty_like(source)

    def run() -> float:
        for _ in range(_MEMCPY_TIMES):
            np.copyto(target, source)
        return float(_MEMCPY_TIMES * MEMCPY_BYTES)

    return Contestant("limit: memcpy of 256 MiB", run, _BYTE_UNITS)


def memcpy_by_two() -> Contestant:
    """Return the limit of two threads: each copies 256 MiB of its own."""
    sources = [np.ones(MEMCPY_BYTES, np.uint8) for _ in range(2)]
    targets = [np.empty_like(source) for source in sources]

    def copy(number: int) -> None:
        for _ in range(_MEMCPY_TIMES):
            np.copyto(targets[number], sources[number])

    def run() -> float:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(copy, range(2)))
        return float(2 * _MEMCPY_TIMES * MEMCPY_BYTES)

    return Contestant("limit: memcpy of 256 MiB by two threads", run, _BYTE_UNITS)


def with_two_torch_threads(run: Callable[[], float]) -> Callable[[], float]:
    """Return a run that may use two threads for a gather."""

    def run_with_two() -> float:
        torch.set_num_threads(2)
        try:
            return run()
        finally:
            torch.set_num_threads(1)

    return run_with_two


def bare_gathers(
    data: BenchData,
    batch: int,
    ids: NDArray[np.int64],
    copy: Contestant,
    copy_by_two: Contestant,
) -> list[Contestant]:
    """Return what FrameStream cannot beat: the same rows in the same order, and nothing else.

    Row numbers are known beforehand, pages are mapped, one buffer is used over and over.
    """
    rows = open_rows(data.index, SPLIT)
    rows.prepare(np.arange(data.index.num_blocks), verify=False)
    matrix = torch.from_dlpack(rows.matrix.view(np.int16))
    touching = RowMatrix(rows.matrix)
    numbers = rows.row_numbers(ids)
    parts = [numbers[start : start + batch] for start in range(0, len(numbers), batch)]
    buffer = torch.empty((batch, DIM), dtype=torch.int16)
    consumer = Consumer()

    def select(part: NDArray[np.int64], out: Tensor) -> None:
        torch.index_select(matrix, 0, torch.from_numpy(part), out=out)

    def touch(part: NDArray[np.int64], out: Tensor) -> None:
        touching.gather(part, out.numpy())

    def run(gather: Callable[[NDArray[np.int64], Tensor], None]) -> float:
        def batches() -> Iterator[Tensor]:
            for part in parts:
                out = buffer[: len(part)]
                gather(part, out)
                yield out

        consumer.take(batches())
        return float(len(ids) * FRAME_BYTES)

    def check() -> None:
        _check_once(consumer.ids(), data)

    group = _group(batch)
    by_one, by_two = partial(run, select), with_two_torch_threads(partial(run, select))
    touched = "bare gather of the same rows, pages touched first"
    return [
        Contestant("bare index_select of the same rows", by_one, _UNITS, group, copy, check=check),
        Contestant(touched, partial(run, touch), _UNITS, group, copy, check=check),
        Contestant(
            "bare index_select of the same rows, two torch threads",
            by_two,
            _UNITS,
            group,
            copy_by_two,
            check=check,
        ),
    ]


def contestants(data: BenchData) -> list[Contestant]:
    """Return all contestants over these frames."""
    copy, copy_by_two = memcpy(), memcpy_by_two()
    found = [copy, copy_by_two]
    peers = open_peers(data)
    for batch in BATCHES:
        found.extend(_contestants(data, batch, copy, copy_by_two))
        found.extend(peer_contestant(data, peer, batch, copy) for peer in peers)
    return found


def _contestants(
    data: BenchData, batch: int, copy: Contestant, copy_by_two: Contestant
) -> list[Contestant]:
    streams: dict[str, StreamEpochs] = {
        "FrameStream, verify never": StreamEpochs(data, batch, "never"),
        "FrameStream, verify never, a plain loop": StreamEpochs(data, batch, "never", drops=False),
        "FrameStream, verify first, first epoch": StreamEpochs(data, batch, "first", reopen=True),
        "FrameStream, verify first, later epochs": StreamEpochs(data, batch, "first"),
        "FrameStream, verify always": StreamEpochs(data, batch, "always"),
    }
    rivals = {
        "numpy memmap, fresh arrays": Memmap(data, batch, reuse=False).epoch,
        "numpy memmap, tuned: reused buffer": Memmap(data, batch, reuse=True).epoch,
        "webdataset, blocks + vectorised pool": WebDatasetBlocks(data, batch).epoch,
        "zarr-python, blocks + vectorised pool": ZarrBlocks(data, batch).epoch,
    }
    group = _group(batch)
    order = streams["FrameStream, verify never"].order()
    found = bare_gathers(data, batch, order, copy, copy_by_two)
    for name, ours in streams.items():
        found.append(Contestant(name, ours.run, _UNITS, group, copy, ours.before, ours.check))
    both = StreamEpochs(data, batch, "never", threads=2)
    name = "FrameStream, verify never, threads=2"
    found.append(Contestant(name, both.run, _UNITS, group, copy_by_two, both.before, both.check))
    for name, epoch in rivals.items():
        rival = RivalEpochs(data, epoch)
        found.append(Contestant(name, rival.run, _UNITS, group, copy, check=rival.check))
    return found


def _check_once(ids: NDArray[np.int64], data: BenchData) -> None:
    if not np.array_equal(np.sort(ids), data.frame_ids):
        raise AssertionError("not every frame was delivered exactly once")


def _group(batch: int) -> str:
    return f"batch {batch}"


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and write benchmarks/results/stream_cold.json and stream.json."""
    options = parse_options("Frames delivered by FrameStream, its limits and its rivals.", argv)
    torch.set_num_threads(1)
    with working_folder(options) as folder:
        data = make_data(folder, options.gb)
        settings = {
            "frames": data.num_frames,
            "dim": DIM,
            "lanes": 64,
            "window_blocks": 8,
            "torch_threads": 1,
            "checked": "after each run: every frame delivered exactly once",
        }
        # First: what is mapped stays in memory.
        if can_forget(data):
            report = Report.begin(f"{NAME}_cold", options)
            results = measure(cold_contestants(data), repeats=options.repeats, say=print)
            report.finish(settings, results, cache="cold")
        else:
            print("this file system keeps files in memory: give a --dir on a disk for cold reads")
        report = Report.begin(NAME, options)
        results = measure(contestants(data), repeats=options.repeats, say=print)
        settings |= {"pool_frames_of_rivals": POOL_FRAMES, "peers": installed()}
        report.finish(settings, results)


if __name__ == "__main__":
    main()
