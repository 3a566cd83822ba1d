"""Frames delivered by train.FrameStream, beside its limits and its rivals.

    uv run python -m benchmarks.bench_stream [--gb 4] [--dir DIR] [--repeats 5] [--quick]

Every contestant delivers all frames once an epoch to the same consumer; a run is an epoch. One
torch thread; FrameStream's read-ahead and zarr-python's readers have threads of their own, which
the column `cores` shows.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from laughstore import open_rows
from train.config import Verify
from train.stream import FrameStream

from .data import DIM, FRAME_BYTES, SPLIT, BenchData, make_data
from .measure import Contestant, Unit, measure
from .report import Report, parse_options, working_folder
from .rivals import POOL_FRAMES, Memmap, WebDatasetBlocks, ZarrBlocks

NAME = "stream"
BATCHES = (512, 4096)
MEMCPY_BYTES = 256 << 20
_MEMCPY_TIMES = 4
_FRAME_UNITS = (Unit("frames/s", 1), Unit("GB/s", FRAME_BYTES / 1e9))
_BYTE_UNITS = (Unit("GB/s", 1e-9),)


class Consumer:
    """Sums a few channels of every batch and keeps the ids that frames carry."""

    def __init__(self) -> None:
        self.total = 0
        self._ids: list[Tensor] = []

    def take(self, batches: Iterable[Tensor]) -> None:
        """Consume i2[B, DIM] batches."""
        self._ids = []
        for bits in batches:
            self._ids.append(bits[:, :2].clone())
            self.total += int(bits[:, 2:10].sum())

    def ids(self) -> NDArray[np.int64]:
        """Return i64[N]: the ids that the frames of the last epoch carried."""
        halves = torch.cat(self._ids).to(torch.int64).numpy() & 0xFFFF
        return halves[:, 0] | halves[:, 1] << 16


class StreamEpochs:
    """Epochs of one FrameStream, or (`reopen`) the first epoch of a new one each time."""

    def __init__(self, data: BenchData, batch: int, verify: Verify, *, reopen: bool) -> None:
        self._data, self._batch, self._reopen = data, batch, reopen
        self._verify: Verify = verify
        self._epoch = -1
        self._frames: list[Tensor] = []
        self._consumer = Consumer()
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
        """Deliver an epoch. Returns its frames."""
        self._stream.set_epoch(self._epoch)
        self._frames = []
        self._consumer.take(self._batches())
        return float(self._data.num_frames)

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

    def _open(self) -> FrameStream:
        # The trainer's way: batches are used one after another, so a ring of buffers is enough.
        return FrameStream(
            self._data.index,
            SPLIT,
            global_batch=self._batch,
            verify=self._verify,
            copy=False,
        )


class RivalEpochs:
    """Epochs of somebody else's loader."""

    def __init__(self, data: BenchData, epoch: Callable[[int], Iterator[Tensor]]) -> None:
        self._data, self._make = data, epoch
        self._epoch = -1
        self._consumer = Consumer()

    def run(self) -> float:
        """Deliver an epoch. Returns its frames."""
        self._epoch += 1
        self._consumer.take(self._make(self._epoch))
        return float(self._data.num_frames)

    def check(self) -> None:
        """Every frame came once."""
        _check_once(self._consumer.ids(), self._data)


def memcpy() -> Contestant:
    """Return the limit of everything: one thread copies 256 MiB (bytes counted once)."""
    source = np.ones(MEMCPY_BYTES, np.uint8)
    target = np.empty_like(source)

    def run() -> float:
        for _ in range(_MEMCPY_TIMES):
            np.copyto(target, source)
        return float(_MEMCPY_TIMES * MEMCPY_BYTES)

    return Contestant("limit: memcpy of 256 MiB", run, _BYTE_UNITS)


def bare_gather(data: BenchData, batch: int, ids: NDArray[np.int64]) -> Contestant:
    """Return the limit of FrameStream: the same rows in the same order, and nothing else.

    Row numbers are known beforehand, pages are mapped, one buffer is used over and over.
    """
    rows = open_rows(data.index, SPLIT)
    rows.prepare(np.arange(data.index.num_blocks), verify=False)
    matrix = torch.from_dlpack(rows.matrix.view(np.int16))
    numbers = torch.from_numpy(rows.row_numbers(ids)).split(batch)
    buffer = torch.empty((batch, DIM), dtype=torch.int16)
    consumer = Consumer()

    def batches() -> Iterator[Tensor]:
        for part in numbers:
            yield torch.index_select(matrix, 0, part, out=buffer[: len(part)])

    def run() -> float:
        consumer.take(batches())
        return float(len(ids))

    def check() -> None:
        _check_once(consumer.ids(), data)

    name = "limit: bare index_select of the same rows"
    return Contestant(name, run, _FRAME_UNITS, _group(batch), check=check)


def contestants(data: BenchData) -> list[Contestant]:
    """Return all contestants over these frames."""
    copy = memcpy()
    found = [copy]
    for batch in BATCHES:
        found.extend(_contestants(data, batch))
    return found


def _contestants(data: BenchData, batch: int) -> list[Contestant]:
    streams: dict[str, StreamEpochs] = {
        "FrameStream, verify never": StreamEpochs(data, batch, "never", reopen=False),
        "FrameStream, verify first, first epoch": StreamEpochs(data, batch, "first", reopen=True),
        "FrameStream, verify first, later epochs": StreamEpochs(data, batch, "first", reopen=False),
        "FrameStream, verify always": StreamEpochs(data, batch, "always", reopen=False),
    }
    rivals = {
        "numpy memmap, fresh arrays": Memmap(data, batch, reuse=False).epoch,
        "numpy memmap, tuned: reused buffer": Memmap(data, batch, reuse=True).epoch,
        "webdataset, blocks + vectorised pool": WebDatasetBlocks(data, batch).epoch,
        "zarr-python, blocks + vectorised pool": ZarrBlocks(data, batch).epoch,
    }
    group = _group(batch)
    limit = bare_gather(data, batch, streams["FrameStream, verify never"].order())
    found = [limit]
    for name, ours in streams.items():
        found.append(
            Contestant(name, ours.run, _FRAME_UNITS, group, limit, ours.before, ours.check)
        )
    for name, epoch in rivals.items():
        rival = RivalEpochs(data, epoch)
        found.append(Contestant(name, rival.run, _FRAME_UNITS, group, limit, check=rival.check))
    return found


def _check_once(ids: NDArray[np.int64], data: BenchData) -> None:
    if not np.array_equal(np.sort(ids), data.frame_ids):
        raise AssertionError("not every frame was delivered exactly once")


def _group(batch: int) -> str:
    return f"batch {batch}"


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and write benchmarks/results/stream.json."""
    options = parse_options("Frames delivered by FrameStream, its limits and its rivals.", argv)
    report = Report.begin(NAME, options)
    torch.set_num_threads(1)
    with working_folder(options) as folder:
        data = make_data(folder, options.gb)
        results = measure(contestants(data), repeats=options.repeats, say=print)
    settings = {
        "frames": data.num_frames,
        "dim": DIM,
        "lanes": 64,
        "window_blocks": 8,
        "torch_threads": 1,
        "pool_frames_of_rivals": POOL_FRAMES,
        "checked": "after each run: every frame delivered exactly once",
    }
    report.finish(settings, results)


if __name__ == "__main__":
    main()
