"""FrameStream beside a mapped file as users write it: in a process that is as Python starts it.

    uv run python -m benchmarks.bench_memmap [--gb 4] [--dir DIR] [--repeats 5] [--quick]

`rows[numbers]` is a fresh array. One of 32 MiB or more, a batch of 4,096 frames, is pages from the
kernel, cleared for each batch and given back behind it, unless the C library is told to keep what
is freed: bench_stream, where many rivals share a process, does so.
"""

from collections.abc import Sequence

import torch

from .bench_stream import BATCHES, MEMMAPS, PLAIN
from .cold import write_anew
from .consuming import UNITS, group_of
from .data import DIM, BenchData, make_data
from .epochs import RivalEpochs, StreamEpochs
from .limits import GATHER, bare_gathers, memcpy
from .measure import Contestant, measure
from .report import Report, parse_options, working_folder
from .rivals import Memmap

NAME = "memmap"


def lineup(data: BenchData) -> list[Contestant]:
    """Return all contestants over these frames."""
    copy = memcpy()
    found = [copy]
    for batch in BATCHES:
        group = group_of(batch)
        stream = StreamEpochs(data, batch, "never")
        bare = bare_gathers(data, batch, stream.order(), copy, copy)
        found += [contestant for contestant in bare if contestant.name == GATHER]
        found.append(Contestant(PLAIN, stream.run, UNITS, group, copy, stream.before, stream.check))
        for name, reuse in MEMMAPS.items():
            memmap = Memmap(data, batch, reuse=reuse)
            epochs = RivalEpochs(data, memmap.epoch)
            found.append(
                Contestant(name, epochs.run, UNITS, group, copy, memmap.warm, epochs.check)
            )
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and write benchmarks/results/memmap.json."""
    options = parse_options("FrameStream beside a mapped file as users write it.", argv)
    torch.set_num_threads(1)
    with working_folder(options) as folder:
        data = make_data(folder, options.gb)
        write_anew(data)
        report = Report.begin(NAME, options)
        results = measure(lineup(data), repeats=options.repeats, say=print)
        settings = {
            "frames": data.num_frames,
            "dim": DIM,
            "torch_threads": 1,
            "freed_memory": "as by default",
            "checked": "after each run: every frame came exactly once",
        }
        report.finish(settings, results)


if __name__ == "__main__":
    main()
