"""Run every benchmark, each in a process of its own, over the same frames.

uv run python -m benchmarks [--quick] [--gb 4] [--dir DIR] [--repeats 5] [--out FOLDER]
"""

import subprocess
import sys

from .report import parse_options, working_folder

_SCRIPTS = (
    "bench_stream",
    "bench_start",
    "bench_store",
    "bench_train",
    "bench_probes",
    "bench_extract",
    "bench_scaling",
)
_TIMES_THE_FRAMES = {"bench_scaling": 2.0}
"""Of what --gb says: eighths of them are measured, too."""


def main() -> int:
    """Run all scripts. Returns the number of those that failed."""
    options = parse_options("Run every benchmark.", None)
    failed = 0
    with working_folder(options) as folder:
        flags = ["--dir", str(folder), "--repeats", str(options.repeats)]
        flags += ["--device", options.device]
        if options.quick:
            flags.append("--quick")
        if options.out is not None:
            flags += ["--out", str(options.out)]
        for script in _SCRIPTS:
            print(f"== {script}", flush=True)
            gb = options.gb * _TIMES_THE_FRAMES.get(script, 1.0)
            module = f"{__package__}.{script}"
            command = [sys.executable, "-m", module, *flags, "--gb", str(gb)]
            failed += subprocess.run(command, check=False).returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main())
