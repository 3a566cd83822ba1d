"""What all benchmark scripts share: their flags, their working folder, their JSON."""

import argparse
import json
import math
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from train.streaming.gather import IS_COMPILED

from .machine import busy_seconds, load_average, machine, versions
from .measure import MIN_REPEATS, Result

RESULTS = Path(__file__).parent / "results"
"""Numbers of record, committed: the READMEs' tables are made from them."""
_FULL_GB, _QUICK_GB = 4.0, 0.008


@dataclass(frozen=True)
class Options:
    """Flags of a benchmark script."""

    gb: float
    """Frames to measure with, in 1e9 bytes."""
    folder: Path | None
    """Where frames are written and kept; None: a temporary folder, removed afterwards."""
    repeats: int
    quick: bool
    out: Path | None
    """Folder of the JSON; None: only print."""
    device: str
    """Of models: cpu, cuda (only there), or auto (cpu, and cuda if there is one)."""


def parse_options(
    description: str, argv: Sequence[str] | None, *, full_gb: float = _FULL_GB
) -> Options:
    """Return the options of a command line (default: this process's).

    Args:
        description: of the script.
        argv: the command line.
        full_gb: frames of a run that is not quick and does not say, in 1e9 bytes.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--gb", type=float, help=f"GB of frames (default {full_gb:g})")
    parser.add_argument("--dir", type=Path, help="keep the frames here (default: temporary)")
    parser.add_argument(
        "--repeats", type=int, help=f"rounds that count (default {MIN_REPEATS}; 1 if --quick)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="a few MB, one round: does it still run?"
    )
    parser.add_argument(
        "--out", type=Path, help="folder of the JSON (default benchmarks/results; none if --quick)"
    )
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="of models (bench_extract); auto: cpu, and cuda if there is one",
    )
    flags = parser.parse_args(argv)
    least = 1 if flags.quick else MIN_REPEATS
    repeats = least if flags.repeats is None else flags.repeats
    if repeats < least:
        parser.error(f"--repeats is {repeats}; it must be at least {least}")
    if flags.gb is not None and not (math.isfinite(flags.gb) and flags.gb > 0):
        parser.error(f"--gb is {flags.gb:g}; it must be above 0")
    for flag, folder in (("--dir", flags.dir), ("--out", flags.out)):
        if folder is not None and (reason := _why_not_writable(folder)):
            parser.error(f"{flag} {folder}: {reason}; give a folder that can be written")
    gb = flags.gb or (_QUICK_GB if flags.quick else full_gb)
    out = flags.out or (None if flags.quick else RESULTS)
    return Options(gb, flags.dir, repeats, flags.quick, out, flags.device)


def _why_not_writable(folder: Path) -> str:
    """Make a folder unless it is there. Returns why nothing can be written into it; else ''."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return error.strerror or str(error)
    return "" if os.access(folder, os.W_OK | os.X_OK) else "no right to write there"


@contextmanager
def working_folder(options: Options) -> Iterator[Path]:
    """Yield the folder for frames; a temporary one is removed afterwards."""
    if options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
        yield options.folder
        return
    with tempfile.TemporaryDirectory(prefix="laughstore-bench-") as folder:
        yield Path(folder)


@dataclass(frozen=True)
class Report:
    """Opened before anything is measured, so that the load it names is not our own."""

    name: str
    options: Options
    load_before: float
    began: float
    busy_before: tuple[float, float]

    @classmethod
    def begin(cls, name: str, options: Options) -> "Report":
        """Note how busy the machine is."""
        return cls(name, options, load_average(), time.monotonic(), busy_seconds())

    def others_busy_cores(self) -> float:
        """Return how many cores others kept busy since `begin`, on average.

        Others are other processes, the kernel's own threads and, on a virtual machine, its
        neighbours (stolen time).
        """
        machine_s, ours_s = busy_seconds()
        others_s = machine_s - self.busy_before[0] - (ours_s - self.busy_before[1])
        return round(max(0.0, others_s / (time.monotonic() - self.began)), 2)

    def finish(
        self, settings: Mapping[str, object], results: Sequence[Result], *, cache: str = "warm"
    ) -> None:
        """Print the results and write `<out>/<name>.json`."""
        for result in results:
            print(describe(result))
        if self.options.out is None:
            return
        content = {
            "name": self.name,
            "machine": machine(),
            "versions": versions(),
            "settings": {
                "gb": self.options.gb,
                "quick": self.options.quick,
                "rows_copied_by": "compiled code" if IS_COMPILED else "numpy",
                **settings,
            },
            "cache": cache,
            "repeats": self.options.repeats,
            "load_average_before": self.load_before,
            "others_busy_cores": self.others_busy_cores(),
            "results": [result.to_json() for result in results],
        }
        self.options.out.mkdir(parents=True, exist_ok=True)
        path = self.options.out / f"{self.name}.json"
        path.write_text(json.dumps(content, indent=1) + "\n")
        print(f"wrote {path}")


def describe(result: Result) -> str:
    """Return one line."""
    name = f"{result.name}, {result.group}" if result.group else result.name
    of_limit = "" if result.of_limit is None else f"  {result.of_limit:.2f} of {result.limit}"
    cores = "" if result.cores is None else f"  {result.cores:.1f} cores"
    spread = f"[{result.low:.4g} to {result.high:.4g}]"
    return f"{name:62} {result.median:12.4g} {result.unit:9} {spread}{cores}{of_limit}"
