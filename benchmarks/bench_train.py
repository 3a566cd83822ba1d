"""Training the linear head, beside what its parts take alone.

    uv run python -m benchmarks.bench_train [--gb 4] [--dir DIR] [--repeats 5] [--quick]

A run is an epoch of batches of 4096 rows over all processes: on a CPU, and where there is a GPU, on
that, too.
"""

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
import torch

from .data import DIM, make_data
from .measure import Contestant, Result, Unit, measure, summary
from .rank_processes import RankProcesses
from .report import Options, Report, parse_options, working_folder
from .training import BareProducts, Training, opened

NAME = "train"
_UNITS = (Unit("thousand frames/s", 1e-3),)
_BATCH = 4096
_THREADS = 2
"""Of torch, over all processes of a contestant that shows what processes gain."""


def on_cpu(training: Training) -> list[Contestant]:
    """Return training by one thread of torch, and its parts."""
    batches = training.batches()
    bare = BareProducts([batch.x for batch in batches])

    def in_turn() -> int:
        training.steps(batches)
        return training.stream_epoch()

    needed = _contestant(
        "limit of a step: rows made float32, and two products with them",
        lambda: bare.run(training.stream.num_steps),
        bare.check,
    )
    serial = _contestant(
        "limit of training: the steps alone, then the stream alone",
        in_turn,
        training.check_rows,
    )
    return [
        needed,
        _contestant(
            "steps, batches in memory",
            lambda: training.steps(batches),
            lambda: training.check_step(batches[0]),
            needed,
        ),
        _contestant("FrameStream", training.stream_epoch, training.check_rows),
        serial,
        _contestant("training", training.train_epoch, training.check_rows, serial),
    ]


def by_processes(
    alone: RankProcesses, with_threads: RankProcesses, together: RankProcesses
) -> list[Contestant]:
    """Return training by a process with one thread of torch's, by one with more, and by two."""

    def check() -> None:
        # Each has trained as many epochs as the others, or one more.
        found = [(item.num_epochs, item.weights()) for item in (alone, with_threads, together)]
        for (epochs, weights), (other_epochs, others) in combinations(found, 2):
            if epochs == other_epochs and not np.allclose(weights, others, rtol=1e-3, atol=1e-5):
                raise AssertionError("two processes train another head than one")

    one = _contestant("training, 1 process, 1 torch thread", alone.train_epoch, check)
    threads = f"training, 1 process, {_THREADS} torch threads"
    ranks = f"training, {together.num_ranks} processes over gloo, 1 torch thread each"
    return [
        one,
        _contestant(threads, with_threads.train_epoch, check, one),
        _contestant(ranks, together.train_epoch, check, one),
    ]


def on_gpu(training: Training) -> list[Contestant]:
    """Return training on a GPU, and its parts, each of which may run beside the others."""
    batches = training.batches()
    return [
        _contestant(
            "GPU: FrameStream, page-locked buffers",
            training.stream_epoch,
            training.check_rows,
        ),
        _contestant(
            "GPU: copies of page-locked batches",
            partial(training.copy, batches),
            lambda: training.check_copy(batches[0]),
        ),
        _contestant(
            "GPU: steps, batches in its memory",
            partial(training.steps, training.on_device(batches)),
            lambda: training.check_step(batches[0]),
        ),
        _contestant("GPU: training", training.train_epoch, training.check_rows),
    ]


def of_slowest(results: Sequence[Result]) -> Result:
    """Return the speed of training on a GPU as a part of that of its slowest part."""
    *parts, whole = (result.median for result in results)
    return summary("GPU: training, of its slowest part", "of it", [whole / min(parts)])


def _contestant(
    name: str,
    run: Callable[[], int],
    check: Callable[[], None],
    limit: Contestant | None = None,
) -> Contestant:
    return Contestant(name, lambda: float(run()), _UNITS, limit=limit, check=check)


def _measure(store: Path, folder: Path, options: Options) -> list[Result]:
    """Measure one process before others are there, then several, then a GPU."""
    results: list[Result] = []
    if options.device != "cuda":
        with opened(store, folder / "here", "cpu") as training:
            results += measure(on_cpu(training), repeats=options.repeats, say=print)
        with (
            RankProcesses(store, folder / "alone", 1, 1) as alone,
            RankProcesses(store, folder / "threads", 1, _THREADS) as with_threads,
            RankProcesses(store, folder / "together", 2, _THREADS // 2) as together,
        ):
            found = by_processes(alone, with_threads, together)
            results += measure(found, repeats=options.repeats, say=print)
    if options.device == "cuda" or (options.device == "auto" and torch.cuda.is_available()):
        with opened(store, folder / "gpu", "cuda") as training:
            found = measure(on_gpu(training), repeats=options.repeats, say=print)
        results += [*found, of_slowest(found)]
    return results


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and write benchmarks/results/train.json."""
    options = parse_options("Training the linear head, beside its parts.", argv)
    torch.set_num_threads(1)
    with working_folder(options) as folder:
        data = make_data(folder, options.gb)
        report = Report.begin(NAME, options)
        with tempfile.TemporaryDirectory(prefix="runs-", dir=folder) as runs:
            results = _measure(data.store, Path(runs), options)
    settings = {
        "frames": data.num_frames,
        "dim": DIM,
        "global_batch": _BATCH,
        "head": "linear",
        "torch_threads": 1,
        "checked": "rows of each epoch; loss and gradients of a step, by autograd; weights of two"
        " processes, by those of one",
    }
    if any(result.name.startswith("GPU: ") for result in results):
        settings["gpu"] = torch.cuda.get_device_name()
    report.finish(settings, results)


if __name__ == "__main__":
    main()
