"""Before the first step and beside all others: first batch, planning, memory of the window reader.

    uv run python -m benchmarks.bench_start [--gb 4] [--dir DIR] [--repeats 5] [--quick]

The first batch is of a store as large as PodcastFillers, whose shards are sparse files of zeros:
nothing before the first step depends on what frames hold. Memory is watched over real frames.
"""

from collections.abc import Sequence

import torch

from .data import DIM, make_data
from .first_batch import first_batches, planning, stages
from .large_index import PODCAST_FILLERS, LargeStore
from .measure import measure
from .report import Options, Report, parse_options, working_folder
from .window_memory import LANES, WINDOW_BLOCKS, window_memory

NAME = "stream_start"
_PLANNED_FRAMES, _QUICK_FRAMES = 13_000_000, 130_000


def large_store(options: Options) -> LargeStore:
    """Return the store whose first batch is timed; a small one for a quick run."""
    return LargeStore(4) if options.quick else PODCAST_FILLERS


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and write benchmarks/results/stream_start.json."""
    options = parse_options("First batch, planning, and memory of the stream.", argv)
    torch.set_num_threads(1)
    store = large_store(options)
    num_planned = _QUICK_FRAMES if options.quick else _PLANNED_FRAMES
    with working_folder(options) as folder:
        large = folder / f"zeros-{store.num_recordings}"
        if not (large / "finished").exists():
            store.write(large, shards_of_zeros=True)
            (large / "finished").touch()
        data = make_data(folder, options.gb)
        report = Report.begin(NAME, options)
        results = measure(first_batches(large), repeats=options.repeats, say=print)
        results += stages(large, options.repeats)
        results += planning(num_planned, options.repeats)
        results += window_memory(data, num_workers=0)
        results += window_memory(data, num_workers=2)
    settings = {
        "frames": data.num_frames,
        "dim": DIM,
        "torch_threads": 1,
        "first_batch_of": str(store),
        "planned_frames": num_planned,
        "window_lanes": LANES,
        "window_blocks": WINDOW_BLOCKS,
    }
    report.finish(settings, results)


if __name__ == "__main__":
    main()
