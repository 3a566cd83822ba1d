"""What parents of several processes have in common: how children start, and how they end.

No torch here, and nothing of what the children do.
"""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

from .interrupts import EXIT_INTERRUPTED, EXIT_TERMINATED

GRACE_S: Final = 20.0
"""From SIGTERM to SIGKILL: less than the 30 s that SLURM gives a job."""
TOLD_TO_STOP: Final = {
    EXIT_INTERRUPTED: EXIT_INTERRUPTED,
    EXIT_TERMINATED: EXIT_TERMINATED,
    -signal.SIGINT: EXIT_INTERRUPTED,
    -signal.SIGTERM: EXIT_TERMINATED,
}
"""Exit codes of a child that somebody told to stop, and the one that the parent then ends with."""


def start_of(module: str) -> str:
    """Return the Python that a child runs: `main` of a module, with the parent's module path.

    `-m` would put the working folder in front of that path.
    """
    path = "import sys,json; sys.path[:]=json.loads(sys.argv.pop(1));"
    return f"{path} from {module} import main; sys.exit(main(sys.argv[1:]))"


def command_of(start: str, arguments: Sequence[str]) -> list[str]:
    """Return the words that run what `start_of` returned with these arguments."""
    return [sys.executable, "-P", "-c", start, json.dumps(sys.path), *arguments]


@contextmanager
def interrupts_blocked() -> Iterator[None]:
    """Block SIGINT in this block: in a child that starts here, too, until it can take it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_all(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End what still runs: asked first, so that it saves, or removes what it was writing."""
    try:
        for process in processes:
            process.terminate()
        until_s = time.monotonic() + GRACE_S
        for process in processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(until_s - time.monotonic(), 0))
    finally:
        for process in processes:
            process.kill()
            process.wait()


def signal_name(number: int) -> str:
    """Return the name of the signal that killed a process."""
    if number == signal.SIGKILL:
        return "SIGKILL (out of memory, if you did not send it)"
    try:
        return signal.Signals(number).name
    except ValueError:  # most real-time signals have no name
        return f"signal {number}"
