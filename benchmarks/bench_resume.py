"""Going on where a stream or a run stopped: what it costs, wherever that was.

    uv run python -m benchmarks.bench_resume [--gb 4] [--dir DIR] [--repeats 5] [--quick]

The limit is to begin at the beginning. Batches after the seek are compared with those of streams
that were never stopped: bit by bit over frames that hold something, row by row over a store as
large as PodcastFillers, whose frames are zeros, and by the plan alone for one fifty times as large.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from .data import DIM, make_data
from .large_index import PODCAST_FILLERS, TEN_THOUSAND, LargeStore
from .measure import Contestant, measure
from .report import Options, Report, parse_options, working_folder
from .resuming import resuming
from .seeking import Place, Seeks, planned_seeks

NAME = "resume"
_FAR = 1_000_000
"""Steps."""
_BATCH, _FAR_BATCH, _QUICK_BATCH = 4096, 512, 64


def over_frames(store: Path, global_batch: int) -> list[Contestant]:
    """Return streams over frames that hold something."""
    seeks = Seeks(store, global_batch, "frames in memory", bits=True)
    places = seeks.places()
    return [seeks.limit, *map(seeks.contestant, places), seeks.of_two(places[1])]


def over_zeros(store: Path, size: LargeStore) -> list[Contestant]:
    """Return streams over a large store, one of which goes on after a million steps."""
    seeks = Seeks(store, _FAR_BATCH, f"{size.num_recordings} recordings of zeros", bits=False)
    places = seeks.places()
    far = seeks.contestant(Place(*divmod(_FAR, seeks.num_steps)), _FAR)
    return [seeks.limit, *map(seeks.contestant, places), far]


def by_plan(options: Options) -> list[Contestant]:
    """Return plans of a single epoch that has a million steps; of a shorter one if quick."""
    size = PODCAST_FILLERS if options.quick else TEN_THOUSAND
    far = 10_000 if options.quick else _FAR
    return planned_seeks(size, _FAR_BATCH, (1, far // 2, far))


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and write benchmarks/results/resume.json."""
    options = parse_options("Going on where a stream or a run stopped.", argv)
    torch.set_num_threads(1)
    size = LargeStore(4) if options.quick else PODCAST_FILLERS
    batch = _QUICK_BATCH if options.quick else _BATCH
    with working_folder(options) as folder:
        zeros = size.found(folder, shards_of_zeros=True)
        data = make_data(folder, options.gb)
        report = Report.begin(NAME, options)
        results = []
        for contestants in (
            over_frames(data.store, batch),
            over_zeros(zeros, size),
            by_plan(options),
        ):
            results += measure(contestants, repeats=options.repeats, say=print)
        with tempfile.TemporaryDirectory(prefix="runs-", dir=folder) as runs:
            results += resuming(data.store, Path(runs), options.repeats, global_batch=batch)
    settings = {
        "frames": data.num_frames,
        "dim": DIM,
        "torch_threads": 1,
        "batch": batch,
        "large_store": str(size),
        "batch_of_large_stores": _FAR_BATCH,
        "checked": "batches by those of streams that were not stopped; steps by their number",
    }
    report.finish(settings, results)


if __name__ == "__main__":
    main()
