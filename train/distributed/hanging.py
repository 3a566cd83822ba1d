"""End a process that was told to stop while it waits for ranks that do not come.

It waits in native code then, where Python handles no signal before gloo gives up, after minutes.
So a thread listens for signals, too, and ends the process when one has come and the wait goes on.
Nothing is saved, for the step that is waited for is not made: the run goes on from its last
checkpoint. So it must be a rank that hangs, not one that is slow: see `HANGING_S`.
"""

import logging
import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

logger = logging.getLogger(__name__)

HANGING_S: Final = 20.0
"""From the signal, or from the begin of the wait if that is later. A rank that reads from a slow
disk, saves, or scores its share of the validation may let others wait for some of it; SLURM kills
after 30 s."""
_POLL_MS: Final = 200
_OVER: Final = b"\0"
"""No signal has this number."""


class HangingWaits:
    """Knows what is waited for, and ends the process if it must."""

    def __init__(self) -> None:
        self._wait: tuple[str, float] | None = None

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Say what this block waits for, in words for a message."""
        self._wait = what, time.monotonic()
        try:
            yield
        finally:
            self._wait = None

    @contextmanager
    def watched(self, numbers: tuple[int, ...]) -> Iterator[None]:
        """Watch this block, in the main thread: signals with these numbers end a wait."""
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        thread = threading.Thread(
            target=self._watch, args=(reader, numbers), daemon=True, name="hanging-waits"
        )
        thread.start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            os.set_blocking(writer, True)
            os.write(writer, _OVER)
            thread.join()
            os.close(reader)
            os.close(writer)

    def _watch(self, reader: int, numbers: tuple[int, ...]) -> None:
        poll = select.poll()
        poll.register(reader, select.POLLIN)
        told: tuple[int, float] | None = None
        while True:
            if poll.poll(None if told is None else _POLL_MS):
                data = os.read(reader, 64)
                if _OVER in data:
                    return
                came = [number for number in data if number in numbers]
                if came and told is None:
                    told = came[0], time.monotonic()
            wait = self._wait
            if told is None or wait is None:
                continue
            number, told_s = told
            what, began_s = wait
            if time.monotonic() - max(told_s, began_s) > HANGING_S:
                logger.warning("told to stop, and %s: ended without saving that", what)
                os._exit(128 + number)
