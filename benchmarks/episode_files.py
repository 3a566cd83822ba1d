"""The way of the scripts that came before: one `.pt` an episode, and a frame is a sample.

An episode's file holds `{transformer_out: bf16[2, T, D], metadata: {...}}`, both assignments of its
speakers. Those scripts load a file whole, make a list of all its frames, shuffle that and let
`DataLoader` stack them to batches, so a batch has frames of one episode. Here samples are the
frames alone: what else they carry there (label, names, the number of the frame) is left out, and
frames come from one `unbind`, which is faster.

What one would do about it is here, too: map the files, and shuffle all frames, one by one or by one
gather an episode and batch.
"""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler

from train.streaming.buffers import aligned_empty

from .data import DIM, SPLIT, BenchData
from .kept_files import KeptFiles
from .rivals import flat_rows

PART = 4
"""Frame by frame, a run delivers one part of so many of the frames: every run others."""
_PAGE_CHANNELS = 2048


class EpisodeFiles:
    """The files of all episodes.

    Args:
        data: whose frames they hold.
    """

    def __init__(self, data: BenchData) -> None:
        self._data = data
        self._lengths = _lengths(data)
        self._files = KeptFiles(data, "episodes-pt", self._write)
        self.paths = self._files.paths()
        self.ids = np.split(data.frame_ids, np.cumsum(self._lengths)[:-1])
        """i64[2 T] for each episode: the frames of its file, in their order."""

    def load(self, path: Path, *, mapped: bool) -> Tensor:
        """Return bf16[2 T, D]: all frames of one file."""
        content = torch.load(path, mmap=mapped, weights_only=True)
        return content["transformer_out"].flatten(0, 1)

    def warm(self, paths: Sequence[Path]) -> None:
        """Put files in the page cache. Not timed."""
        self._files.warm(paths)

    def forget(self) -> None:
        """Leave the page cache to the others, where it is too small for all. Not timed."""
        self._files.forget()

    def _write(self, folder: Path) -> None:
        rows, first = flat_rows(self._data), 0
        for number, count in enumerate(self._lengths):
            both = torch.from_numpy(rows[first : first + count].copy()).view(torch.bfloat16)
            content = {
                "transformer_out": both.reshape(2, count // 2, DIM),
                "metadata": {"episode_name": f"episode {number}", "num_frames": count // 2},
            }
            torch.save(content, folder / f"{number:06d}.pt")
            first += count


class EpisodeLoader(Protocol):
    """Delivers all frames of episodes, or a PART of them."""

    def before(self, number: int) -> None:
        """Make ready for the epoch of this number. Not timed."""
        ...

    def epoch(self, number: int) -> Iterator[Tensor]:
        """Yield the batches i2[B, DIM] of one epoch."""
        ...

    def claimed(self, number: int) -> NDArray[np.int64]:
        """Return i64[N]: ids of the frames that the epoch delivers, in any order."""
        ...

    def after(self) -> None:
        """Let go of the files. Not timed."""
        ...


class LoadedEpisodes:
    """Episodes one after the other: loaded whole, their frames shuffled and stacked.

    Args:
        files: of all episodes; a run delivers a PART of them.
        batch: B.
    """

    def __init__(self, files: EpisodeFiles, batch: int) -> None:
        self._files, self._batch = files, batch

    def before(self, number: int) -> None:
        """Put this epoch's episodes in the page cache. Not timed."""
        self._files.warm([self._files.paths[i] for i in self._chosen(number)])

    def epoch(self, number: int) -> Iterator[Tensor]:
        """Yield the batches of one epoch."""
        paths = [self._files.paths[i] for i in self._chosen(number)]
        frames = _ShuffledFrames(self._files, paths, seed=number)
        return _bits(DataLoader(frames, batch_size=self._batch))

    def claimed(self, number: int) -> NDArray[np.int64]:
        """Return i64[N]: ids of the frames that the epoch delivers, in any order."""
        return np.concatenate([self._files.ids[i] for i in self._chosen(number)])

    def after(self) -> None:
        """Let go of the files. Not timed."""
        self._files.forget()

    def _chosen(self, number: int) -> list[int]:
        num_episodes = len(self._files.paths)
        order = np.random.default_rng(number).permutation(num_episodes)
        return order[: max(1, num_episodes // PART)].tolist()


class _ShuffledFrames(IterableDataset[Tensor]):
    """Frames of episodes, shuffled within each."""

    def __init__(self, files: EpisodeFiles, paths: Sequence[Path], *, seed: int) -> None:
        self._files, self._paths, self._seed = files, paths, seed

    def __iter__(self) -> Iterator[Tensor]:
        rng = random.Random(self._seed)
        for path in self._paths:
            samples = list(self._files.load(path, mapped=False).unbind())
            rng.shuffle(samples)
            yield from samples


class MappedEpisodes:
    """All episodes mapped, all frames permuted.

    Args:
        files: of all episodes.
        batch: B.
        gathered: a batch is one gather an episode, into one buffer, and an epoch has all frames;
            otherwise frames are taken one by one and stacked, and an epoch has a PART of them.
    """

    def __init__(self, files: EpisodeFiles, batch: int, *, gathered: bool) -> None:
        self._files, self._batch, self._gathered = files, batch, gathered
        self._ids = np.concatenate(files.ids)
        self._count = len(self._ids) if gathered else max(1, len(self._ids) // PART)
        self._buffer = torch.from_numpy(aligned_empty((batch, DIM))).view(torch.bfloat16)
        self._episodes: list[Tensor] = []

    def before(self, number: int) -> None:
        """Map all files and touch each of their pages. Not timed."""
        self._episodes = [self._files.load(path, mapped=True) for path in self._files.paths]
        for episode in self._episodes:
            episode[:, ::_PAGE_CHANNELS].view(torch.int16).amax()

    def epoch(self, number: int) -> Iterator[Tensor]:
        """Yield the batches of one epoch."""
        dataset: Dataset[Tensor] = (
            _GatheredFrames(self._episodes, self._buffer)
            if self._gathered
            else _MappedFrames(self._episodes)
        )
        sampler = RandomSampler(
            range(len(self._ids)), num_samples=self._count, generator=_generator(number)
        )
        collate: Any = _as_it_is if self._gathered else None  # Any: of batches that are lists
        return _bits(DataLoader(dataset, self._batch, sampler=sampler, collate_fn=collate))

    def claimed(self, number: int) -> NDArray[np.int64]:
        """Return i64[N]: ids of the frames that the epoch delivers, in any order."""
        order = torch.randperm(len(self._ids), generator=_generator(number))
        return self._ids[order[: self._count].numpy()]

    def after(self) -> None:
        """Unmap the files. Not timed."""
        self._episodes = []
        self._files.forget()


class _MappedFrames(Dataset[Tensor]):
    """A frame is a sample."""

    def __init__(self, episodes: Sequence[Tensor]) -> None:
        self._episodes = episodes
        self._starts = np.cumsum([0, *map(len, episodes)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> Tensor:
        episode = int(np.searchsorted(self._starts, index, "right")) - 1
        return self._episodes[episode][index - int(self._starts[episode])]


class _GatheredFrames(_MappedFrames):
    """A batch is taken at once, into one buffer; its rows come in the order of the files."""

    def __init__(self, episodes: Sequence[Tensor], buffer: Tensor) -> None:
        super().__init__(episodes)
        self._buffer = buffer

    def __getitems__(self, indices: list[int]) -> Tensor:
        rows = np.sort(np.array(indices))
        edges = np.searchsorted(rows, self._starts).tolist()
        for i, episode in enumerate(self._episodes):
            numbers = torch.from_numpy(rows[edges[i] : edges[i + 1]] - self._starts[i])
            torch.index_select(episode, 0, numbers, out=self._buffer[edges[i] : edges[i + 1]])
        return self._buffer[: len(rows)]


def episode_loaders(files: EpisodeFiles, batch: int) -> dict[str, EpisodeLoader]:
    """Return all ways of reading these files, by their names in the table."""
    return {
        f".pt an episode, as the scripts before (1 of {PART} frames)": LoadedEpisodes(files, batch),
        f".pt mapped, a sample a frame (1 of {PART} frames)": MappedEpisodes(
            files, batch, gathered=False
        ),
        ".pt mapped, tuned: a gather an episode": MappedEpisodes(files, batch, gathered=True),
    }


def _as_it_is(batch: Tensor) -> Tensor:
    return batch


def _bits(batches: DataLoader[Tensor]) -> Iterator[Tensor]:
    return (batch.view(torch.int16) for batch in batches)


def _generator(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def _lengths(data: BenchData) -> list[int]:
    """Return the frames of each recording, of both its streams together."""
    counts: dict[str, list[int]] = {}
    for stream in data.index.streams(SPLIT):
        counts.setdefault(stream.recording_id, []).append(stream.num_frames)
    assert all(len(both) == 2 and both[0] == both[1] for both in counts.values())
    return [sum(both) for both in counts.values()]
