"""Cost against data size, recordings, ranks, DataLoader workers, block size and window size.

    uv run python -m benchmarks.bench_scaling [--gb 8] [--dir DIR] [--repeats 5] [--quick]

One report an axis, scaling_<axis>.json; docs/scaling.md is made from them. All frames stand in one
store of --gb, of which parts are read by their recordings; blocks of other sizes need stores of
their own, of an eighth each. Page cache warm, one torch thread.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from .data import DIM, NUM_RECORDINGS, make_store
from .large_index import LargeStore
from .measure import Result
from .report import Options, Report, parse_options, working_folder
from .scaling_axes import by_block, by_ranks, by_size, by_window, by_workers
from .scaling_epochs import BATCH, LANES, WINDOW_BLOCKS
from .scaling_index import by_recordings

_FULL_GB = 8.0


@dataclass(frozen=True)
class Extent:
    """How far the axes reach."""

    recordings: tuple[int, ...]
    num_started: int
    """Of so many of these stores, streams are started."""
    ranks: tuple[int, ...]
    workers: tuple[int, ...]
    block_frames: tuple[int, ...]
    windows: tuple[tuple[int, int], ...]
    """(lanes, blocks of a window)."""
    corpus_scale: float
    """Of the corpus whose mixing is computed."""
    warm_ups: int
    """Rounds of fresh processes before those that count."""


FULL = Extent(
    recordings=(200, 600, 2_000, 6_000, 20_000),
    num_started=3,
    ranks=(1, 2, 4),
    workers=(0, 1, 2, 4),
    block_frames=(32, 128, 512),
    windows=((64, 2), (64, 4), (64, 8), (64, 16), (64, 32), (16, 8), (256, 8)),
    corpus_scale=1.0,
    warm_ups=1,
)
QUICK = Extent(
    recordings=(2, 4),
    num_started=1,
    ranks=(1, 2),
    workers=(0, 2),
    block_frames=(32, 128),
    windows=((16, 8),),
    corpus_scale=0.02,
    warm_ups=0,
)


def reports(
    extent: Extent, options: Options, folder: Path
) -> dict[str, Callable[[], list[Result]]]:
    """Return what measures each axis; the frames are written first."""
    gb, repeats = options.gb, options.repeats
    data = make_store(folder, gb)
    by_frames = [
        make_store(folder / "blocks", gb / NUM_RECORDINGS, block_frames=block_frames)
        for block_frames in extent.block_frames
    ]
    half, quarter = NUM_RECORDINGS // 2, NUM_RECORDINGS // 4
    scale = extent.corpus_scale
    return {
        "size": lambda: by_size(data, gb, repeats),
        "recordings": lambda: by_recordings(
            folder, extent.recordings, extent.num_started, repeats, extent.warm_ups
        ),
        "ranks": lambda: by_ranks(data, half, extent.ranks, repeats),
        "workers": lambda: by_workers(data, quarter, extent.workers, repeats),
        "blocks": lambda: by_block(by_frames, scale, repeats),
        "windows": lambda: by_window(data, quarter, extent.windows, scale, repeats),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and write benchmarks/results/scaling_<axis>.json."""
    options = parse_options(
        "Cost against data size, ranks, workers, blocks, windows.", argv, full_gb=_FULL_GB
    )
    torch.set_num_threads(1)
    extent = QUICK if options.quick else FULL
    settings = {
        "dim": DIM,
        "global_batch": BATCH,
        "lanes": LANES,
        "window_blocks": WINDOW_BLOCKS,
        "torch_threads": 1,
        "recordings_like": str(LargeStore(1)),
        "checked": "after each run: every frame delivered exactly once, over all ranks and workers;"
        " steps equal on all ranks",
    }
    with working_folder(options) as folder:
        for axis, measured in reports(extent, options, folder).items():
            print(f"-- {axis}", flush=True)
            report = Report.begin(f"scaling_{axis}", options)
            report.finish(settings, measured())


if __name__ == "__main__":
    main()
