"""Frames delivered by train.FrameStream, beside its limits and its rivals.

    uv run python -m benchmarks.bench_stream [--gb 4] [--dir DIR] [--repeats 5] [--quick]

Every contestant delivers all frames once an epoch to the same consumer; a run is an epoch. One
torch thread; FrameStream's read-ahead and zarr-python's readers have threads of their own, which
the column `cores` shows.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from train.streaming.choices import Verify
from train.streaming.stream import FrameStream

from .cold import can_forget, cold_contestants
from .consuming import UNITS, Consumer, check_once, group_of
from .data import DIM, FRAME_BYTES, SPLIT, BenchData, make_data
from .limits import bare_gathers, memcpy, memcpy_by_two
from .measure import Contestant, measure
from .peers import OpenPeer, installed, open_peers
from .report import Report, parse_options, working_folder
from .rivals import POOL_FRAMES, Memmap, WebDatasetBlocks, ZarrBlocks

NAME = "stream"
BATCHES = (512, 4096)


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
        check_once(said[real], self._data)

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
        check_once(self.ids(), self._data)


def peer_contestant(data: BenchData, peer: OpenPeer, batch: int, limit: Contestant) -> Contestant:
    """Return epochs of a loader with files of its own, which are in memory when it runs."""
    epochs = RivalEpochs(data, lambda _: peer.epoch(batch))

    def check() -> None:
        epochs.check()
        peer.forget()

    name = f"{peer.name}, blocks + vectorised pool"
    return Contestant(name, epochs.run, UNITS, group_of(batch), limit, peer.warm, check)


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
    group = group_of(batch)
    order = streams["FrameStream, verify never"].order()
    found = bare_gathers(data, batch, order, copy, copy_by_two)
    for name, ours in streams.items():
        found.append(Contestant(name, ours.run, UNITS, group, copy, ours.before, ours.check))
    both = StreamEpochs(data, batch, "never", threads=2)
    name = "FrameStream, verify never, threads=2"
    found.append(Contestant(name, both.run, UNITS, group, copy_by_two, both.before, both.check))
    for name, epoch in rivals.items():
        rival = RivalEpochs(data, epoch)
        found.append(Contestant(name, rival.run, UNITS, group, copy, check=rival.check))
    return found


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
