"""Progress on stderr: a bar on a terminal, otherwise one plain line every 30 seconds."""

import sys
import time
from typing import NoReturn

from tqdm import tqdm

_PLAIN_EVERY_S = 30.0


class TerminalProgress:
    """A `laughstore.progress.Progress` that writes to stderr; `quiet` writes nothing."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._tty = sys.stderr.isatty()
        self._bar: tqdm[NoReturn] | None = None
        self._task, self._unit = "", ""
        self._done, self._total = 0, 0
        self._began_s = self._told_s = 0.0

    def begin(self, task: str, total: int, unit: str) -> None:
        """A task begins."""
        self._task, self._unit, self._total, self._done = task, unit, total, 0
        self._began_s = self._told_s = time.monotonic()
        if self._tty and not self._quiet:
            self._bar = tqdm(
                total=total, desc=task, unit=unit, unit_scale=True, leave=False, dynamic_ncols=True
            )

    def advance(self, amount: int, note: str = "") -> None:
        """Count steps; show the note."""
        self._done += amount
        if self._bar is not None:
            if note:
                self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(amount)
        elif time.monotonic() - self._told_s >= _PLAIN_EVERY_S:
            self._told_s = time.monotonic()
            self._plain(note)

    def message(self, text: str) -> None:
        """Print a line, above the bar if there is one."""
        if self._quiet:
            return
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr, flush=True)

    def end(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _plain(self, note: str) -> None:
        elapsed_s = time.monotonic() - self._began_s
        left_s = elapsed_s * (self._total - self._done) / max(self._done, 1)
        self.message(
            f"{self._task}: {self._done} of {self._total} {self._unit}s,"
            f" {elapsed_s:.0f} s, about {left_s:.0f} s left{' (' + note + ')' if note else ''}"
        )
