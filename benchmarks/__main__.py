"""Run every benchmark over the same frames, each in a process of its own.

    uv run --group bench python -m benchmarks [SCRIPT ...] [--quick] [--gb 4] [--dir DIR]
        [--repeats 5] [--out DIR]

A quick run, which measures nothing that anybody is shown, runs them in two processes side by side,
and others as copies of one that has imported what they need: else imports would take most of its
time.
"""

import multiprocessing
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import ExitStack
from importlib import import_module

from .report import Options, parse_options, working_folder

SCRIPTS = (
    "bench_stream",
    "bench_memmap",
    "bench_start",
    "bench_resume",
    "bench_memory",
    "bench_store",
    "bench_train",
    "bench_probes",
    "bench_extract",
    "bench_scaling",
)
_LONG = ("bench_store", "bench_extract", "bench_scaling")
_HALVES = tuple(script for script in SCRIPTS if script not in _LONG), _LONG
"""Of which quick runs take as long."""
_TIMES_THE_FRAMES = {"bench_scaling": 2.0}
"""Of what --gb says: eighths of them are measured, too."""


def main(argv: Sequence[str]) -> int:
    """Run all scripts, or those that are named. Returns the number of those that failed."""
    scripts = [word for word in argv if word in SCRIPTS]
    flags = [word for word in argv if word not in SCRIPTS]
    options = parse_options("Run every benchmark, or those that are named first.", flags)
    if options.quick and not scripts:
        return _side_by_side(flags)
    failed = _run_all(scripts or SCRIPTS, options)
    for script in failed:
        print(f"{script} failed; run it alone: python -m {__package__}.{script}", file=sys.stderr)
    return len(failed)


def _side_by_side(flags: Sequence[str]) -> int:
    command = [sys.executable, "-m", str(__package__)]
    with ExitStack() as running:
        halves = [
            running.enter_context(subprocess.Popen([*command, *half, *flags])) for half in _HALVES
        ]
        return sum(abs(half.wait()) for half in halves)


def _run_all(scripts: Sequence[str], options: Options) -> list[str]:
    """Return those that failed."""
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
        for script in scripts:
            print(f"== {script}", flush=True)
            gb = options.gb * _TIMES_THE_FRAMES.get(script, 1.0)
            began = time.monotonic()
            if not run(f"{__package__}.{script}", [*flags, "--gb", str(gb)]):
                failed.append(script)
            print(f"== {script} took {time.monotonic() - began:.0f} s", flush=True)
    return failed


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
    sys.exit(main(sys.argv[1:]))
