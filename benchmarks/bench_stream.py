"""Frames delivered by train.FrameStream, beside its limits and its rivals.

    uv run python -m benchmarks.bench_stream [--gb 4] [--dir DIR] [--repeats 5] [--quick]

Every contestant delivers all frames once an epoch to the same consumer; a run is an epoch. One
torch thread; FrameStream's read-ahead and zarr-python's readers have threads of their own, which
the column `cores` shows.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from train.streaming.choices import Verify
from train.streaming.stream import FrameStream

from .cold import can_forget, cold_contestants
from .consuming import UNITS, Consumer, check_claimed, check_once, group_of
from .data import DIM, FRAME_BYTES, SPLIT, BenchData, make_data
from .episode_files import EpisodeFiles, EpisodeLoader, episode_loaders
from .limits import bare_gathers, memcpy, memcpy_by_two
from .measure import Contestant, measure
from .mixed import Ids, mixing_setting
from .peers import NOT_INSTALLED, PEERS, OpenPeer, Peer, installed, open_peers
from .report import Report, parse_options, working_folder
from .rivals import POOL_FRAMES, Memmap, WebDatasetBlocks, ZarrBlocks
from .tensorstore_blocks import TensorStoreBlocks
from .warmth import read_files, touch_frames

NAME = "stream"
BATCHES = (512, 4096)
_PLAIN = "FrameStream, verify never"


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
        """Put frames in memory; open the stream anew if each run is to be a first epoch."""
        if self._reopen:
            read_files(self._data.shards)
            self._stream.close()
            self._stream = self._open()
        else:
            self._stream.source.prepare(np.arange(self._data.index.num_blocks))
            touch_frames(self._stream.source.gather, self._data.frame_ids)
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

    def ids_of_batches(self) -> list[NDArray[np.int64]]:
        """Return the ids of the last epoch, batch by batch, without rows of padding."""
        return [part[part >= 0] for part in (said.numpy() for said in self._frames)]

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
    """Epochs of somebody else's loader.

    Args:
        data: whose frames it delivers.
        epoch: makes the batches of the epoch of a number.
        claimed: returns the ids of the frames that this epoch delivers; None: all.
    """

    def __init__(
        self,
        data: BenchData,
        epoch: Callable[[int], Iterator[Tensor]],
        claimed: Callable[[int], NDArray[np.int64]] | None = None,
    ) -> None:
        self._data, self._make, self._claimed = data, epoch, claimed
        self._consumer = Consumer()
        self.next_epoch = 0

    def run(self) -> float:
        """Deliver an epoch. Returns its bytes."""
        self._consumer.take(self._make(self.next_epoch))
        self.next_epoch += 1
        return float(self._consumer.num_rows * FRAME_BYTES)

    def ids(self) -> NDArray[np.int64]:
        """Return i64[N]: which frames the last epoch delivered, in their order."""
        return self._consumer.ids()

    def ids_of_batches(self) -> list[NDArray[np.int64]]:
        """Return the same, batch by batch."""
        return self._consumer.ids_of_batches()

    def check(self) -> None:
        """Every frame came once, or every frame that was claimed, and no other."""
        if self._claimed is None:
            check_once(self.ids(), self._data)
        else:
            check_claimed(self.ids(), self._claimed(self.next_epoch - 1))


@dataclass
class Field:
    """All that are measured, and whose batches are looked at for how well they mix."""

    contestants: list[Contestant] = field(default_factory=list)
    ids: dict[str, dict[str, Ids]] = field(default_factory=dict)
    """By group and name of the contestant."""

    def add(self, contestant: Contestant, ids: Ids | None = None) -> None:
        """Add one more."""
        self.contestants.append(contestant)
        if ids is not None:
            self.ids.setdefault(contestant.group, {})[contestant.name] = ids

    def add_peer(self, data: BenchData, peer: OpenPeer, batch: int, limit: Contestant) -> None:
        """Add epochs of a loader with files of its own, which are in memory when it runs."""
        epochs = RivalEpochs(data, lambda _: peer.epoch(batch))

        def check() -> None:
            epochs.check()
            peer.forget()

        name, group = f"{peer.name}, blocks + vectorised pool", group_of(batch)
        self.add(
            Contestant(name, epochs.run, UNITS, group, limit, peer.warm, check),
            epochs.ids_of_batches,
        )

    def add_episodes(
        self, data: BenchData, files: EpisodeFiles, batch: int, limit: Contestant
    ) -> None:
        """Add those that read one `.pt` file an episode."""
        for name, loader in episode_loaders(files, batch).items():
            self._add_episodes(name, loader, data, group_of(batch), limit)

    def _add_episodes(
        self, name: str, loader: EpisodeLoader, data: BenchData, group: str, limit: Contestant
    ) -> None:
        epochs = RivalEpochs(data, loader.epoch, loader.claimed)

        def before() -> None:
            loader.before(epochs.next_epoch)

        def check() -> None:
            epochs.check()
            loader.after()

        self.add(
            Contestant(name, epochs.run, UNITS, group, limit, before, check),
            epochs.ids_of_batches,
        )


def lineup(data: BenchData, peers: Iterable[type[Peer]]) -> Field:
    """Return all contestants over these frames."""
    copy, copy_by_two = memcpy(), memcpy_by_two()
    found = Field([copy, copy_by_two])
    opened, episodes = open_peers(data, peers), EpisodeFiles(data)
    for batch in BATCHES:
        _add(found, data, batch, copy, copy_by_two)
        for peer in opened:
            found.add_peer(data, peer, batch, copy)
        found.add_episodes(data, episodes, batch, copy)
    return found


def _add(
    found: Field, data: BenchData, batch: int, copy: Contestant, copy_by_two: Contestant
) -> None:
    streams: dict[str, StreamEpochs] = {
        _PLAIN: StreamEpochs(data, batch, "never"),
        "FrameStream, verify never, a plain loop": StreamEpochs(data, batch, "never", drops=False),
        "FrameStream, verify first, first epoch": StreamEpochs(data, batch, "first", reopen=True),
        "FrameStream, verify first, later epochs": StreamEpochs(data, batch, "first"),
        "FrameStream, verify always": StreamEpochs(data, batch, "always"),
    }
    mapped = {
        "numpy memmap, fresh arrays": Memmap(data, batch, reuse=False),
        "numpy memmap, tuned: reused buffer": Memmap(data, batch, reuse=True),
    }
    rivals: dict[str, tuple[Callable[[int], Iterator[Tensor]], Callable[[], None]]] = {
        name: (memmap.epoch, memmap.warm) for name, memmap in mapped.items()
    }
    loaders = [WebDatasetBlocks(data, batch), ZarrBlocks(data, batch)]
    if installed(())[TensorStoreBlocks.name] != NOT_INSTALLED:
        loaders.append(TensorStoreBlocks(data, batch))
    for loader in loaders:
        name = f"{loader.name}, blocks + vectorised pool"
        rivals[name] = loader.epoch, lambda: read_files(data.shards)
    group = group_of(batch)
    for bare in bare_gathers(data, batch, streams[_PLAIN].order(), copy, copy_by_two):
        found.add(bare)
    for name, ours in streams.items():
        # All of them have the same plan.
        ids = ours.ids_of_batches if name == _PLAIN else None
        found.add(Contestant(name, ours.run, UNITS, group, copy, ours.before, ours.check), ids)
    both = StreamEpochs(data, batch, "never", threads=2)
    name = "FrameStream, verify never, threads=2"
    found.add(Contestant(name, both.run, UNITS, group, copy_by_two, both.before, both.check))
    for name, (epoch, warm) in rivals.items():
        rival = RivalEpochs(data, epoch)
        contestant = Contestant(name, rival.run, UNITS, group, copy, warm, rival.check)
        found.add(contestant, rival.ids_of_batches)


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
            "checked": "after each run: every frame (or every one claimed) came exactly once",
        }
        # First: what is mapped stays in memory.
        if can_forget(data):
            report = Report.begin(f"{NAME}_cold", options)
            results = measure(cold_contestants(data), repeats=options.repeats, say=print)
            report.finish(settings, results, cache="cold")
        else:
            print("this file system keeps files in memory: give a --dir on a disk for cold reads")
        report = Report.begin(NAME, options)
        # A quick run is over before all are imported; tests of their own run them.
        peers = () if options.quick else PEERS
        found = lineup(data, peers)
        results = measure(found.contestants, repeats=options.repeats, say=print)
        settings |= {"pool_frames_of_rivals": POOL_FRAMES, "peers": installed(peers)}
        settings |= {"mixing": mixing_setting(found.ids, data)}
        report.finish(settings, results)


if __name__ == "__main__":
    main()
