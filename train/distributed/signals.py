"""Let Ctrl-C and SIGTERM end training between two steps, never within one."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from .hanging import HangingWaits


class Interruptible:
    """Turn SIGINT into KeyboardInterrupt and SIGTERM into SystemExit(143), outside `held` only.

    A signal that arrives within a `held` block is raised at its end. Of several ranks one alone
    must not leave: within a `deferred` block a signal waits until they have agreed (`end`). In
    other threads than the main one, where Python allows no handlers, nothing changes.
    """

    def __init__(self) -> None:
        self._holding = self._deferring = False
        self.pending: int | None = None
        """The signal that waits."""
        self.waits = HangingWaits()
        """Ends the process when a signal waits for ranks that do not come."""

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Handle the two signals in this block, and as before behind it."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handled = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self._handle) for number in handled}
        try:
            with self.waits.watched(handled):
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
        if not self._deferring:
            self._raise_pending()

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Raise no signal in this block but by `end`."""
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False
        self._raise_pending()

    def end(self, number: int) -> NoReturn:
        """Raise what this signal is turned into, whoever got it."""
        self.pending = None
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)

    def _raise_pending(self) -> None:
        if self.pending is not None:
            self.end(self.pending)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not (self._holding or self._deferring):
            self.end(number)
        self.pending = number
