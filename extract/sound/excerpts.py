"""Stretches of a recording's sound as small files, to be put into a page.

MP3, because every browser plays it; 24 kHz mono, as features are made from.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Final

import numpy as np
import soundfile
from numpy.typing import NDArray

from laughstore.errors import ConfigError
from laughstore.timebase import FRAME_US, SAMPLE_RATE, SAMPLES_PER_FRAME, ceil_frame, floor_frame

if TYPE_CHECKING:  # torch is not loaded for it
    from ..feeding import TrackReader

MEDIA_TYPE: Final = "audio/mpeg"
_SKIPPED: Final = 50
"""Frames that are read at a time where nobody listens."""


@dataclass(frozen=True)
class Excerpt:
    """A stretch of sound, from a frame's beginning to another's."""

    start_us: int
    end_us: int
    mp3: bytes


def read_excerpts(track: "TrackReader", spans_us: Sequence[tuple[int, int]]) -> list[Excerpt]:
    """Return stretches of a track, widened to whole frames; the track is read once, forwards.

    Args:
        track: at its beginning. What lies behind its end is silence.
        spans_us: [start, end) in microseconds, disjoint and in order.

    Raises:
        BadRecording: the track cannot be read further.
        ConfigError: this machine's libsndfile writes no MP3.
    """
    found, at = [], 0
    for start_us, end_us in spans_us:
        first, stop = floor_frame(start_us), ceil_frame(end_us)
        first = max(first, at)  # a frame that two stretches touch is in the first
        if stop <= first:
            continue
        _skip(track, first - at)
        wave = np.empty((stop - first) * SAMPLES_PER_FRAME, np.float32)
        track.read(wave)
        at = stop
        found.append(Excerpt(first * FRAME_US, stop * FRAME_US, encode_mp3(wave)))
    return found


def encode_mp3(wave: NDArray[np.float32]) -> bytes:
    """Return f32[n] of 24 kHz mono as MP3; what is above full scale is cut.

    Raises:
        ConfigError: this machine's libsndfile writes no MP3.
    """
    if "MP3" not in soundfile.available_formats():
        raise ConfigError(
            "libsndfile of this machine writes no MP3; install the soundfile wheel, which has one"
            " that does: pip install --force-reinstall soundfile"
        )
    file = BytesIO()
    sound = np.clip(wave, -1.0, 1.0)
    soundfile.write(file, sound, SAMPLE_RATE, format="MP3", subtype="MPEG_LAYER_III")
    return file.getvalue()


def _skip(track: "TrackReader", num_frames: int) -> None:
    scratch = np.empty(_SKIPPED * SAMPLES_PER_FRAME, np.float32)
    while num_frames > 0:
        taken = min(num_frames, _SKIPPED)
        track.read(scratch[: taken * SAMPLES_PER_FRAME])
        num_frames -= taken
