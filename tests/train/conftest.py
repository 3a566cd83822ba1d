"""A small real store in which a direction of feature space tells who is laughing."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from laughstore.annotations import Event
from laughstore.timebase import FRAME_US
from tests.stores import SPEAKERS, Episode, bf16_bits, laugh, write_store
from train import Progress, TrainConfig, TrainResult, train

DIM = 64


@pytest.fixture
def two_threads() -> Iterator[None]:
    """More than the one of other tests, in which waking a second takes longer than it saves."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def some_laughs(seed: int, num_frames: int) -> list[Event]:
    """Laughs of both speakers, some of them two events of one bout."""
    rng = np.random.default_rng(seed)
    events: list[Event] = []
    start_s, end_s = 1.0, num_frames * FRAME_US / 1e6
    while start_s < end_s - 2:
        speaker = SPEAKERS[int(rng.integers(2))]
        long_s = float(rng.uniform(0.3, 1.2))
        events.append(laugh(start_s, start_s + long_s, speaker))
        if rng.random() < 0.5:
            events.append(laugh(start_s + long_s + 0.3, start_s + long_s + 0.6, speaker))
        start_s += long_s + float(rng.uniform(1.5, 6))
    return events


@dataclass(frozen=True)
class Planted:
    """Features in which the main speaker's laughs move the mean along one direction."""

    episodes: tuple[Episode, ...]
    strength: float = 3.0

    def __call__(self, name: str, assignment: int, num_frames: int) -> NDArray[np.uint16]:
        episode = next(item for item in self.episodes if item.name == name)
        x = np.random.default_rng([assignment, *name.encode()]).standard_normal((num_frames, DIM))
        direction = np.random.default_rng(0).standard_normal(DIM)
        direction /= np.linalg.norm(direction)
        for event in episode.events:
            if event.speaker == SPEAKERS[assignment]:
                heard = slice(event.start_us // FRAME_US, -(-event.end_us // FRAME_US))
                x[heard] += self.strength * direction
        # Channels of very different size and offset, as hidden states have them; one is dead.
        scale = np.exp(2 * np.random.default_rng(1).standard_normal(DIM))
        x = x * scale + 5 * scale * np.random.default_rng(2).standard_normal(DIM)
        x[:, 7] = 0.25
        return bf16_bits(x.astype(np.float32))


def planted_episodes() -> tuple[Episode, ...]:
    lengths = {"train": (700, 515, 128, 640, 901), "validation": (600, 333)}
    return tuple(
        Episode(f"{split}, part {i}", split, frames, some_laughs(100 * len(split) + i, frames))
        for split, counts in lengths.items()
        for i, frames in enumerate(counts)
    )


@pytest.fixture(scope="session")
def planted_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shards folder of a store that tests must not change."""
    episodes = planted_episodes()
    path = tmp_path_factory.mktemp("planted") / "store"
    write_store(path, episodes, Planted(episodes), dim=DIM, block_frames=32, shard_frames=256)
    return path / "shards"


class EitherWay(Planted):
    """Laughs move frames along a direction, to one side or the other: no linear head sees them."""

    def __call__(self, name: str, assignment: int, num_frames: int) -> NDArray[np.uint16]:
        episode = next(item for item in self.episodes if item.name == name)
        rng = np.random.default_rng([assignment, *name.encode()])
        x = rng.standard_normal((num_frames, 16))
        side = rng.choice([-1.0, 1.0], num_frames)
        for event in episode.events:
            if event.speaker == SPEAKERS[assignment]:
                heard = slice(event.start_us // FRAME_US, -(-event.end_us // FRAME_US))
                x[heard, 3] += 4 * side[heard]
        return bf16_bits((50 + 7 * x).astype(np.float32))


@pytest.fixture(scope="session")
def either_way(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shards folder of a store that no linear head learns anything from."""
    episodes = planted_episodes()
    path = tmp_path_factory.mktemp("either") / "store"
    features = EitherWay(episodes)
    write_store(path, episodes, features, dim=16, block_frames=32, shard_frames=256)
    return path / "shards"


@pytest.fixture
def own_shards(planted_shards: Path, tmp_path: Path) -> Path:
    """The shards folder of a copy of that store, which the test may damage."""
    # Without what other tests computed of it.
    without = shutil.ignore_patterns("stats")
    return shutil.copytree(planted_shards.parent, tmp_path / "store", ignore=without) / "shards"


def config_for(shards: Path, out: Path, **changes) -> TrainConfig:
    quick = {"global_batch": 512, "lanes": 16, "epochs": 10, "lr": 0.02, "device": "cpu"}
    return TrainConfig(shards=shards, out=out, **{**quick, **changes})


@pytest.fixture(scope="session")
def trained(planted_shards, tmp_path_factory) -> tuple[TrainConfig, TrainResult, list[Progress]]:
    out = tmp_path_factory.mktemp("runs") / "run"
    config = config_for(planted_shards, out)
    reports: list[Progress] = []
    # Of other tests that trained on these shards: this run shall tell of computing them.
    shutil.rmtree(planted_shards.parent / "stats", ignore_errors=True)
    return config, train(config, progress=reports.append), reports
