"""Progress on stderr: a bar on a terminal, otherwise one plain line every 30 seconds.

Frames of audio are shown as hours, with the real-time factor: hours of audio in an hour.
"""

import sys
import time
from typing import NoReturn

from tqdm import tqdm

from ..timebase import FRAMES_PER_SECOND

_PLAIN_EVERY_S = 30.0
_FRAMES_PER_HOUR = FRAMES_PER_SECOND * 3600
_AUDIO_BAR = (
    "{desc}: {percentage:3.0f}%|{bar}| {n:.2f}/{total:.2f} h of audio"
    " [{elapsed}<{remaining}{postfix}]"
)


class TerminalProgress:
    """A `laughstore.progress.Progress` that writes to stderr; `quiet` writes nothing."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._tty = sys.stderr.isatty()
        self._bar: tqdm[NoReturn] | None = None
        self._task, self._unit = "", ""
        self._done, self._total = 0, 0
        self._began_s = self._told_s = 0.0
        self._is_active = False

    def begin(self, task: str, total: int, unit: str) -> None:
        """A task begins."""
        self._task, self._unit, self._total, self._done = task, unit, total, 0
        self._began_s = self._told_s = time.monotonic()
        self._is_active = True
        if self._tty and not self._quiet:
            hours = unit == "frame"
            self._bar = tqdm(
                total=total / _FRAMES_PER_HOUR if hours else total,
                desc=task,
                unit=unit,
                unit_scale=True,
                leave=False,
                dynamic_ncols=True,
                bar_format=_AUDIO_BAR if hours else None,
            )

    def advance(self, amount: int, note: str = "") -> None:
        """Count steps; show the note. A negative amount: what was lost with a process.

        Outside of a task nothing is counted.
        """
        if not self._is_active:
            return
        self._done += amount
        if self._bar is not None:
            hours = self._unit == "frame"
            if note or hours:
                note = self._real_time() if hours else note
                self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(amount / _FRAMES_PER_HOUR if hours else amount)
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
        self._is_active = False
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _real_time(self) -> str:
        """Return the real-time factor: seconds of audio done in a second."""
        elapsed_s = max(time.monotonic() - self._began_s, 1e-3)
        return f"{self._done / FRAMES_PER_SECOND / elapsed_s:.1f}x real time"

    def _plain(self, note: str) -> None:
        elapsed_s = time.monotonic() - self._began_s
        left_s = elapsed_s * (self._total - self._done) / max(self._done, 1)
        if self._unit == "frame":
            done, total = (n / _FRAMES_PER_HOUR for n in (self._done, self._total))
            self.message(
                f"{self._task}: {done:.2f} of {total:.2f} h of audio, {self._real_time()},"
                f" {clock_text(elapsed_s)}, about {clock_text(left_s)} left"
            )
            return
        self.message(
            f"{self._task}: {self._done} of {self._total} {self._unit}s,"
            f" {elapsed_s:.0f} s, about {left_s:.0f} s left{' (' + note + ')' if note else ''}"
        )


def clock_text(seconds: float) -> str:
    """Return h:mm:ss."""
    minutes, rest = divmod(max(round(seconds), 0), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
