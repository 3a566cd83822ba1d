"""Run every benchmark, each in a process of its own, over the same frames.

uv run --group bench python -m benchmarks [--quick] [--gb 4] [--dir DIR] [--repeats 5] [--out DIR]
"""

import subprocess
import sys
import time

from .report import parse_options, working_folder

SCRIPTS = (
    "bench_stream",
    "bench_start",
    "bench_resume",
    "bench_memory",
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
    failed: list[str] = []
    with working_folder(options) as folder:
        flags = ["--dir", str(folder), "--repeats", str(options.repeats)]
        flags += ["--device", options.device]
        if options.quick:
            flags.append("--quick")
        if options.out is not None:
            flags += ["--out", str(options.out)]
        for script in SCRIPTS:
            print(f"== {script}", flush=True)
            gb = options.gb * _TIMES_THE_FRAMES.get(script, 1.0)
            command = [sys.executable, "-m", f"{__package__}.{script}", *flags, "--gb", str(gb)]
            began = time.monotonic()
            if subprocess.run(command, check=False).returncode:
                failed.append(script)
            print(f"== {script} took {time.monotonic() - began:.0f} s", flush=True)
    for script in failed:
        print(f"{script} failed; run it alone: python -m {__package__}.{script}", file=sys.stderr)
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
