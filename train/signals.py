"""Let Ctrl-C and SIGTERM end training between two steps, never within one."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interruptible:
    """Turn SIGINT into KeyboardInterrupt and SIGTERM into SystemExit(143), outside `held` only.

    A signal that arrives within a `held` block is raised at its end. In other threads than the main
    one, where Python allows no handlers, nothing changes.
    """

    def __init__(self) -> None:
        self._holding = False
        self._pending: BaseException | None = None

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Handle the two signals in this block, and as before behind it."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handled = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self._handle) for number in handled}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Finish this block before a signal is raised."""
        self._holding = True
        try:
            yield
        finally:
            self._holding = False
        if self._pending is not None:
            pending, self._pending = self._pending, None
            raise pending

    def _handle(self, number: int, frame: FrameType | None) -> None:
        error: BaseException = (
            KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)
        )
        if not self._holding:
            raise error
        self._pending = error
