"""Memory: streams and a training over real frames, planning and opening of large stores.

    uv run python -m benchmarks.bench_memory [--gb 4] [--dir DIR] [--repeats 5] [--quick]

Each is watched in processes of its own. Limits are what a plan or a size says must be held, or what
a user may ask for: no contestant's memory may grow from epoch to epoch, or with the data set.
"""

import tempfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import torch

from .data import DIM, FRAME_BYTES, BenchData, make_data
from .large_index import PODCAST_FILLERS, TEN_THOUSAND
from .measure import Result, summary
from .opening import opening_memory
from .planning import PLANNED_FRAMES, QUICK_FRAMES, planning_memory
from .process_memory import PeakMemory, anonymous_bytes, apart
from .report import Report, parse_options, working_folder
from .resuming import IMPORTS
from .stream_memory import ADDED, BATCH, EPOCHS, LANES, WINDOW_BLOCKS, stream_memory
from .training import opened

NAME = "memory"
_TRAINED_BATCH = 4096


def training_memory(data: BenchData, runs: Path) -> list[Result]:
    """Return what training the linear head holds, epoch by epoch, beside a batch.

    Its frames come from mapped files. What its libraries take when they are imported was there
    before.
    """
    batch_mb = min(_TRAINED_BATCH, data.num_frames) * FRAME_BYTES / 1e6
    limit = summary(f"limit: a batch of {_TRAINED_BATCH} rows", "MB", [batch_mb])
    added = [size / 1e6 for size in apart(_train, data.store, runs / "run")]
    return [limit, summary(f"training a linear head: {ADDED}", "MB", added, limit)]


def _train(store: Path, out: Path) -> list[int]:
    """Return the most bytes that training adds, by epoch."""
    torch.set_num_threads(1)
    for name in IMPORTS:
        import_module(name)
    before_bytes = anonymous_bytes()
    added: list[int] = []
    with opened(store, out, "cpu") as training:
        for _ in range(EPOCHS):
            with PeakMemory() as peak:
                training.train_epoch()
            training.check_rows()
            added.append(peak.bytes - before_bytes)
    return added


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and write benchmarks/results/memory.json."""
    options = parse_options("Memory of streams, training, planning and opening.", argv)
    torch.set_num_threads(1)
    num_planned = QUICK_FRAMES if options.quick else PLANNED_FRAMES
    large_stores = [PODCAST_FILLERS] if options.quick else [PODCAST_FILLERS, TEN_THOUSAND]
    with working_folder(options) as folder:
        data = make_data(folder, options.gb)
        report = Report.begin(NAME, options)
        results = stream_memory(data)
        with tempfile.TemporaryDirectory(prefix="runs-", dir=folder) as runs:
            results += training_memory(data, Path(runs))
        results += planning_memory(num_planned)
        for store in large_stores:
            results += opening_memory(store, store.found(folder), options.repeats)
    settings = {
        "frames": data.num_frames,
        "dim": DIM,
        "torch_threads": 1,
        "epochs": EPOCHS,
        "batch": BATCH,
        "window_lanes": LANES,
        "window_blocks": WINDOW_BLOCKS,
        "trained_batch": _TRAINED_BATCH,
        "planned_frames": num_planned,
        "opened": [str(store) for store in large_stores],
        "checked": "every epoch delivers all frames; a stream that adds more than it may ends the"
        " run; an opened index has all blocks and shards",
    }
    report.finish(settings, results)


if __name__ == "__main__":
    main()
