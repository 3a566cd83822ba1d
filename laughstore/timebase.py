"""Time in laughstore: exact integers, and the only place with these numbers.

Audio is 24 kHz; one frame is 1,920 audio samples, 80 ms, 12.5 frames a second (Mimi and Moshi,
arXiv 2410.00037). Seconds from files are decimals and become integer microseconds once, here;
no float is multiplied by 12.5 anywhere but in `laughstore.legacy`, because `int(x * 12.5)` puts
6.6 % of the times that lie exactly on a frame boundary one frame early.

Frame t is the time [80 t, 80 (t + 1)) ms. Row t of a feature array is the state at 80 t ms: it has
heard audio strictly before that moment.
"""

import math
import re
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from typing import Self, overload

import numpy as np
from numpy.typing import NDArray

from .errors import ConfigError

SAMPLE_RATE = 24_000
"""Audio samples a second that Mimi reads (Hz)."""
SAMPLES_PER_FRAME = 1_920
FRAME_US = 80_000
"""Microseconds in a frame."""
FRAMES_PER_SECOND = SAMPLE_RATE / SAMPLES_PER_FRAME
"""12.5, for display and `laughstore.legacy`: other arithmetic on times uses FRAME_US."""
US_PER_SECOND = 1_000_000


def microseconds(seconds: float | str | Decimal) -> int:
    """Return seconds as integer microseconds, read as the decimal that was written.

    Args:
        seconds: a finite number. A float is taken as its shortest decimal form, which is the text
            it was parsed from when that had at most 15 significant digits.

    Raises:
        ConfigError: the value is not a finite number.
    """
    try:
        value = seconds if isinstance(seconds, Decimal) else Decimal(str(seconds))
        return int((value * US_PER_SECOND).to_integral_value(ROUND_HALF_EVEN))
    except (InvalidOperation, OverflowError, ValueError) as error:
        raise ConfigError(f"{seconds!r} is not a finite number of seconds") from error


def is_finite_time(seconds: object) -> bool:
    """Tell whether a JSON or CSV value is a finite number of seconds."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        return False
    return isinstance(seconds, int) or math.isfinite(seconds)


@overload
def floor_frame(time_us: int) -> int: ...
@overload
def floor_frame(time_us: NDArray[np.int64]) -> NDArray[np.int64]: ...
def floor_frame(time_us: int | NDArray[np.int64]) -> int | NDArray[np.int64]:
    """Return F(t): the frame that holds this moment (integer or i64[N], microseconds)."""
    return time_us // FRAME_US


@overload
def ceil_frame(time_us: int) -> int: ...
@overload
def ceil_frame(time_us: NDArray[np.int64]) -> NDArray[np.int64]: ...
def ceil_frame(time_us: int | NDArray[np.int64]) -> int | NDArray[np.int64]:
    """Return C(t): the first frame that starts at or after this moment (microseconds)."""
    return -(-time_us // FRAME_US)


def num_frames(num_samples_24k: int) -> int:
    """Return T = ceil(samples / 1920) for a track of this many audio samples at 24 kHz."""
    return -(-num_samples_24k // SAMPLES_PER_FRAME)


def num_samples_24k(num_samples: int, sample_rate: int) -> int:
    """Return how many audio samples a track has once resampled from `sample_rate` to 24 kHz."""
    return -(-num_samples * SAMPLE_RATE // sample_rate)


def frame_seconds(frame: int) -> float:
    """Return the start of a frame in seconds, exact to the last printed microsecond."""
    return frame * FRAME_US / US_PER_SECOND


_SPAN = re.compile(r"(?P<number>-?\d+(?:\.\d+)?)(?P<unit>s|f)")
_MAX_SPAN_US = 10**9 * US_PER_SECOND
"""Far longer than any recording, and far from where sums of frames would overflow."""


@dataclass(frozen=True)
class Span:
    """A length of time written with its unit: `0.8s` in seconds or `10f` in frames (80 ms each)."""

    text: str
    """As written, for messages and run records."""

    def __post_init__(self) -> None:
        match = _SPAN.fullmatch(self.text.strip())
        if match is None or (match["unit"] == "f" and "." in match["number"]):
            number = re.fullmatch(r"-?\d+(?:\.\d+)?", self.text.strip())
            hint = "0.8s (seconds) or 10f (whole frames of 80 ms)"
            if number:
                frames = "10f" if "." in self.text else f"{self.text.strip()}f"
                hint = f"{self.text.strip()}s (seconds) or {frames} (whole frames of 80 ms)"
            raise ConfigError(f"span {self.text!r} needs a unit: write {hint}")
        number, unit = self._parts
        if abs(number) * (FRAME_US if unit == "f" else US_PER_SECOND) > _MAX_SPAN_US:
            raise ConfigError(
                f"span {self.text[:50]!r} is longer than {_MAX_SPAN_US // US_PER_SECOND:,} s, which"
                " is longer than any recording; write a shorter one"
            )

    @classmethod
    def of_frames(cls, frames: int) -> Self:
        """Return the span of this many frames."""
        return cls(f"{frames}f")

    @property
    def _parts(self) -> tuple[Decimal, str]:
        text = self.text.strip()
        return Decimal(text[:-1]), text[-1]

    @property
    def frames(self) -> int:
        """Whole frames: as written for `f`; for `s` floor(|s| * 12.5 + 1/2), 1 at least, signed."""
        number, unit = self._parts
        if unit == "f":
            return int(number)
        if number == 0:
            return 0
        magnitude = (2 * abs(microseconds(number)) + FRAME_US) // (2 * FRAME_US)
        return max(magnitude, 1) * (1 if number > 0 else -1)

    @property
    def us(self) -> int:
        """Microseconds, exact."""
        number, unit = self._parts
        return int(number) * FRAME_US if unit == "f" else microseconds(number)

    def __str__(self) -> str:
        return self.text
