"""Write the golden store of a format version: one for each codec, small enough for a repository.

    python -m tests.golden.make FOLDER

A version's golden store is written once, when the version is released, and never again: releases
after it must open it for ever.
"""

import shutil
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from laughstore.annotations import Event
from laughstore.codec import CODECS
from tests.stores import Episode, write_store

DIM = 32
BLOCK_FRAMES = 32
SHARD_FRAMES = 64
EPISODES = [
    Episode(
        "Golden: the first, \u201eEpisode 1\u201c",
        num_frames=3 * BLOCK_FRAMES + 5,
        events=[
            Event(1_000_000, 1_800_000, "Laughter", "Laughter", "SPEAKER_00"),
            Event(2_000_000, 2_400_000, "", "Breath in", None, 0.5),
        ],
    ),
    Episode("golden-2", "test", BLOCK_FRAMES, speakers=("Ann",)),
    Episode("golden-3", "test", 1),
]


def features(name: str, assignment: int, num_frames: int) -> NDArray[np.uint16]:
    """Bits that need no random generator: other versions of numpy must make them too.

    Exponents are those of small numbers, so that zstd has something to do.
    """
    place = np.arange(num_frames, dtype=np.uint32)[:, None] * DIM + np.arange(DIM, dtype=np.uint32)
    mixed = (place + np.uint32(sum(name.encode()) * 7 + assignment)) * np.uint32(2_654_435_761)
    return (0x3E00 + (mixed >> np.uint32(20)) % 512 + (mixed >> 31 << 15)).astype(np.uint16)


def write_golden(folder: Path) -> None:
    """Write `FOLDER/none` and `FOLDER/zstd`."""
    for codec in CODECS:
        path = write_store(
            folder / codec,
            EPISODES,
            features,
            dim=DIM,
            block_frames=BLOCK_FRAMES,
            shard_frames=SHARD_FRAMES,
            codec=codec,
        )
        (path / ".lock").unlink(missing_ok=True)
        for item in path.rglob("*"):
            if item.is_file():
                item.chmod(0o644)  # a repository keeps no other mode, and folders are removed


if __name__ == "__main__":
    target = Path(sys.argv[1])
    if target.exists():
        shutil.rmtree(target)
    write_golden(target)
    num_bytes = sum(item.stat().st_size for item in target.rglob("*") if item.is_file())
    print(f"{target}: {num_bytes} bytes")
