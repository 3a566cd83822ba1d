"""How well batches mix, by the plan alone: no frame is read, and every number is the same anywhere.

    uv run python -m benchmarks.mixing            # rewrite the table of docs/mixing.md
    uv run python -m benchmarks.mixing --check    # only say whether it is up to date

The data set has the size of PodcastFillers: 199 recordings, 145 hours, two assignments each. Their
lengths are drawn, log-normal with a fixed seed.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from train.plan import Plan

DOCUMENT = Path(__file__).parent.parent / "docs" / "mixing.md"
BEGIN, END = "<!-- mixing:begin -->", "<!-- mixing:end -->"
SETTINGS = (
    (4096, 64, 8),
    (512, 64, 8),
    (4096, 64, 1),
    (4096, 64, 32),
    (4096, 16, 8),
    (4096, 256, 8),
    (4096, 256, 32),
)
"""(global batch, lanes, blocks of a window); the defaults first."""
IDEAL_BATCHES = (4096, 512)
_RECORDINGS, _HOURS, _ASSIGNMENTS = 199, 145, 2
_FRAMES_PER_HOUR = 45_000
_BLOCK_FRAMES = 128
_BLOCK_MIB = 1
_STEPS = 40
_SEED = 0


@dataclass(frozen=True)
class Mixing:
    """Means over batches."""

    blocks: float
    """Distinct blocks in a batch."""
    recordings: float
    """Distinct recordings in a batch."""
    sharing: float
    """Other frames of the batch that a frame shares its block with."""


@dataclass(frozen=True)
class Corpus:
    """Which block and which recording each row belongs to."""

    counts: NDArray[np.int64]
    """i64[blocks]: rows of each block."""
    recording_of_block: NDArray[np.int64]

    @classmethod
    def drawn(cls, scale: float = 1.0, block_frames: int = _BLOCK_FRAMES) -> "Corpus":
        """Return a corpus of PodcastFillers' size, times `scale`."""
        lengths = np.random.default_rng(_SEED).lognormal(0, 0.5, _RECORDINGS)
        frames = np.rint(lengths / lengths.sum() * scale * _HOURS * _FRAMES_PER_HOUR).astype(int)
        counts: list[int] = []
        owners: list[int] = []
        for recording, num_frames in enumerate(frames):
            full, rest = divmod(int(num_frames), block_frames)
            blocks = [block_frames] * full + ([rest] if rest else [])
            counts += blocks * _ASSIGNMENTS
            owners += [recording] * len(blocks) * _ASSIGNMENTS
        return cls(np.array(counts, np.int64), np.array(owners, np.int64))

    def mixing(self, batches: Iterator[NDArray[np.int64]]) -> Mixing:
        """Return how well batches of positions, i64[B], mix."""
        ends = np.cumsum(self.counts)
        return mixing_of_blocks(
            (np.searchsorted(ends, part[part >= 0], "right") for part in batches),
            self.recording_of_block,
        )


def mixing_of_blocks(
    batches: Iterable[NDArray[np.int64]], recording_of_block: NDArray[np.int64]
) -> Mixing:
    """Return how well batches mix.

    Args:
        batches: i64[B] each, the block of every frame.
        recording_of_block: i64[blocks].
    """
    found: list[tuple[float, float, float]] = []
    for blocks in batches:
        of_batch, rows = np.unique(blocks, return_counts=True)
        recordings = np.unique(recording_of_block[of_batch])
        sharing = float((rows * (rows - 1)).sum() / len(blocks))
        found.append((len(of_batch), len(recordings), sharing))
    return Mixing(*(float(column) for column in np.mean(found, axis=0)))


def of_plan(
    corpus: Corpus, global_batch: int, lanes: int, window_blocks: int, num_steps: int = _STEPS
) -> Mixing:
    """Return how well steps of an epoch mix, spread evenly over it."""
    plan = Plan(
        corpus.counts,
        seed=_SEED,
        epoch=0,
        global_batch=global_batch,
        lanes=lanes,
        window_blocks=window_blocks,
    )
    steps = np.linspace(0, plan.num_steps - 2, num_steps).astype(int)
    return corpus.mixing(next(plan.batches(int(step))) for step in steps)


def of_global_shuffle(corpus: Corpus, global_batch: int, num_steps: int = _STEPS) -> Mixing:
    """Return how well batches of an ideal shuffle of all rows mix."""
    rng = np.random.default_rng(_SEED)
    num_rows = int(corpus.counts.sum())
    return corpus.mixing(
        rng.choice(num_rows, global_batch, replace=False, shuffle=False) for _ in range(num_steps)
    )


def table(corpus: Corpus) -> str:
    """Return the table of docs/mixing.md."""
    rows = [
        "| global batch | lanes | blocks of a window | distinct blocks | distinct recordings"
        " | frames sharing a frame's block | window reader holds |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for global_batch, lanes, window_blocks in SETTINGS:
        found = of_plan(corpus, global_batch, lanes, window_blocks)
        held = f"{2 * lanes * window_blocks * _BLOCK_MIB / 1024:g} GiB"
        rows.append(_row((global_batch, lanes, window_blocks), found, held))
    for global_batch in IDEAL_BATCHES:
        found = of_global_shuffle(corpus, global_batch)
        rows.append(_row((global_batch, "ideal", "shuffle"), found, "all"))
    return "\n".join(rows)


def _row(setting: Sequence[object], found: Mixing, held: str) -> str:
    cells = [
        *map(str, setting),
        f"{found.blocks:.0f}",
        f"{found.recordings:.0f}",
        f"{found.sharing:.2f}",
        held,
    ]
    return "| " + " | ".join(cells) + " |"


def main(argv: Sequence[str] | None = None) -> int:
    """Rewrite or check the table. Returns 1 when it is out of date."""
    parser = argparse.ArgumentParser(description="Measure how well batches mix.")
    parser.add_argument("--check", action="store_true", help="change nothing")
    check = parser.parse_args(argv).check
    text = DOCUMENT.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    wanted = f"{before}{BEGIN}\n{table(Corpus.drawn())}\n{END}{after}"
    if text == wanted:
        return 0
    if check:
        print(f"{DOCUMENT.name} is out of date: uv run python -m benchmarks.mixing")
        return 1
    DOCUMENT.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
