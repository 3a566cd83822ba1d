"""Run every benchmark over the same frames, each in a process of its own.

uv run --group bench python -m benchmarks [--quick] [--gb 4] [--dir DIR] [--repeats 5] [--out DIR]

A quick run, which measures nothing that anybody is shown, makes all of them in one process, and
others as copies of one that has imported what they need: else imports would take most of its time.
"""

import multiprocessing
import subprocess
import sys
import time
import traceback
from importlib import import_module

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
    if options.quick:
        multiprocessing.set_start_method("forkserver")
        multiprocessing.set_forkserver_preload([f"{__package__}.bench_memory", "torch._dynamo"])
    run = _run_here if options.quick else _run_apart
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
            began = time.monotonic()
            if not run(f"{__package__}.{script}", [*flags, "--gb", str(gb)]):
                failed.append(script)
            print(f"== {script} took {time.monotonic() - began:.0f} s", flush=True)
    for script in failed:
        print(f"{script} failed; run it alone: python -m {__package__}.{script}", file=sys.stderr)
    return len(failed)


def _run_apart(module: str, flags: list[str]) -> bool:
    return subprocess.run([sys.executable, "-m", module, *flags], check=False).returncode == 0


def _run_here(module: str, flags: list[str]) -> bool:
    try:
        import_module(module).main(flags)
    except Exception:  # whatever it is, the other scripts are run
        traceback.print_exc()
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
