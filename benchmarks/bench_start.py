"""Before the first step: first batch, where its time goes, and planning an epoch.

    uv run python -m benchmarks.bench_start [--dir DIR] [--repeats 5] [--quick]

The first batch is of a store as large as PodcastFillers, whose shards are sparse files of zeros:
nothing before the first step depends on what frames hold.
"""

from collections.abc import Sequence

import torch

from .data import DIM
from .first_batch import first_batches, stages
from .large_index import PODCAST_FILLERS, LargeStore
from .measure import measure
from .planning import PLANNED_FRAMES, QUICK_FRAMES, planning_time
from .report import Report, parse_options, working_folder

NAME = "stream_start"


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and write benchmarks/results/stream_start.json."""
    options = parse_options("First batch and planning of the stream.", argv)
    torch.set_num_threads(1)
    store = LargeStore(4) if options.quick else PODCAST_FILLERS
    num_planned = QUICK_FRAMES if options.quick else PLANNED_FRAMES
    with working_folder(options) as folder:
        large = store.found(folder, shards_of_zeros=True)
        report = Report.begin(NAME, options)
        results = measure(first_batches(large), repeats=options.repeats, say=print)
        results += stages(large, options.repeats)
        results += planning_time(num_planned, options.repeats)
    settings = {
        "dim": DIM,
        "torch_threads": 1,
        "first_batch_of": str(store),
        "planned_frames": num_planned,
        "checked": "rows of the first batch, by the plan; rows of a planned step",
    }
    report.finish(settings, results)


if __name__ == "__main__":
    main()
