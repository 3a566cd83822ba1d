"""Frames delivered by train.FrameStream, beside its limits and its rivals.

    uv run python -m benchmarks.bench_stream [--gb 4] [--dir DIR] [--repeats 5] [--quick]

Every contestant delivers all frames once an epoch to the same consumer; a run is an epoch. One
torch thread; FrameStream's read-ahead and the readers of zarr-python, TensorStore and grain have
threads of their own, which the column `cores` shows. The C library keeps what is freed, which
loaders that make bytes of every block have need of; bench_memmap runs without.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .cold import can_forget, cold_contestants, write_anew
from .consuming import UNITS, group_of
from .data import DIM, BenchData, make_data
from .episode_files import EpisodeFiles, EpisodeLoader, episode_loaders
from .epochs import RivalEpochs, StreamEpochs
from .freed_memory import keep_freed_memory
from .limits import bare_gathers, memcpy, memcpy_by_two
from .measure import Contestant, measure
from .mixed import Ids, mixing_setting
from .peers import NOT_INSTALLED, PEERS, OpenPeer, Peer, installed, open_peers
from .report import Report, parse_options, working_folder
from .rivals import POOL_FRAMES, Memmap, WebDatasetBlocks, ZarrBlocks
from .tensorstore_blocks import TensorStoreBlocks
from .warmth import read_files

NAME = "stream"
BATCHES = (512, 4096)
PLAIN = "FrameStream, verify never"
MEMMAPS = {"numpy memmap, fresh arrays": False, "numpy memmap, tuned: reused buffer": True}
"""Whether the buffer is used again, by name."""


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
        PLAIN: StreamEpochs(data, batch, "never"),
        "FrameStream, verify never, a plain loop": StreamEpochs(data, batch, "never", drops=False),
        "FrameStream, verify first, first epoch": StreamEpochs(data, batch, "first", reopen=True),
        "FrameStream, verify first, later epochs": StreamEpochs(data, batch, "first"),
        "FrameStream, verify always": StreamEpochs(data, batch, "always"),
    }
    mapped = {name: Memmap(data, batch, reuse=reuse) for name, reuse in MEMMAPS.items()}
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
    for bare in bare_gathers(data, batch, streams[PLAIN].order(), copy, copy_by_two):
        found.add(bare)
    for name, ours in streams.items():
        # All of them have the same plan.
        ids = ours.ids_of_batches if name == PLAIN else None
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
    keeps = keep_freed_memory()
    with working_folder(options) as folder:
        data = make_data(folder, options.gb)
        settings = {
            "frames": data.num_frames,
            "dim": DIM,
            "lanes": 64,
            "window_blocks": 8,
            "torch_threads": 1,
            "freed_memory": "kept" if keeps else "as by default",
            "checked": "after each run: every frame (or every one claimed) came exactly once",
        }
        # First: what is mapped stays in memory, and files can no longer be written anew.
        if can_forget(data):
            report = Report.begin(f"{NAME}_cold", options)
            results = measure(cold_contestants(data), repeats=options.repeats, say=print)
            report.finish(settings, results, cache="cold")
        else:
            print("this file system keeps files in memory: give a --dir on a disk for cold reads")
        write_anew(data)
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
