"""What Ctrl-C and SIGTERM raise, and when: never within an import.

An exception amid `import torch` would leave half a module behind, be lost in code that catches all,
or meet native code that aborts the process for it. So a signal that comes then is sent again until
the import is over; one that takes long is not waited for, and the process ends at once.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final, NoReturn

EXIT_INTERRUPTED: Final = 130
EXIT_TERMINATED: Final = 143
INTERRUPTED: Final = "laughstore: interrupted"
"""The line that Ctrl-C ends with."""
_HANDLED: Final = (signal.SIGINT, signal.SIGTERM)
_AGAIN_S: Final = 0.02
_PATIENCE_S: Final = 2.0
"""How long an import is waited for: those of torch take less, but from a slow disk."""
_IMPORTS: Final = "<frozen importlib"
"""Begins the file name of code that imports modules."""
_waiting: dict[int, float] = {}
"""By number, when signals came that will be sent again. Of a process, as its signals are."""


@contextmanager
def signals_raised() -> Iterator[None]:
    """Raise the two signals in this block, one that waits at its end, and handle them as before.

    Who ignores SIGINT, as what a shell runs in the background, goes on to do so.
    """
    before = {number: signal.getsignal(number) for number in _HANDLED}
    try:
        for number, handler in before.items():
            if number != signal.SIGINT or handler is not signal.SIG_IGN:
                signal.signal(number, raise_signal)
        yield
    except BaseException:
        _waiting.clear()  # it ends with what is raised, whatever comes then
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if _waiting:
        number = next(iter(_waiting))
        _waiting.clear()
        _raise(number)


def raise_signal(number: int, frame: FrameType | None) -> None:
    """Raise what a signal is turned into; what is being written is cleaned up on the way.

    Raises:
        KeyboardInterrupt: it is SIGINT.
        SystemExit: it is another one; the exit code tells which.
    """
    if not _is_importing(frame):
        _waiting.pop(number, None)
        _raise(number)
    came_s = _waiting.setdefault(number, time.monotonic())
    if time.monotonic() - came_s > _PATIENCE_S:
        if number == signal.SIGINT:
            os.write(sys.stderr.fileno(), f"{INTERRUPTED}\n".encode())
        os._exit(128 + number)
    again = threading.Timer(_AGAIN_S, _send_again, [number])
    again.daemon = True
    again.start()


def _send_again(number: int) -> None:
    if number in _waiting:
        os.kill(os.getpid(), number)


def _raise(number: int) -> NoReturn:
    raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)


def _is_importing(frame: FrameType | None) -> bool:
    """Whether a module is being imported by the code that was interrupted."""
    while frame is not None:
        if frame.f_code.co_filename.startswith(_IMPORTS):
            return True
        frame = frame.f_back
    return False
