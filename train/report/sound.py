"""Sound of a report: which stretches of it are put into the page.

Where sound comes from is not known here: whoever has the recordings passes a function.
"""

import logging
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from laughstore.errors import LaughstoreError
from laughstore.timebase import US_PER_SECOND

from .timeline import Shown, stretches_around
from .worst import Spot

logger = logging.getLogger(__name__)

WHOLE_US: Final = 5 * 60 * US_PER_SECOND
"""Recordings up to this long are heard whole, if their timeline is whole; of others excerpts."""
MARGIN_US: Final = 10 * US_PER_SECOND
"""Before and after what is listed."""
MOST_US: Final = 20 * 60 * US_PER_SECOND
"""Of sound in one page: 12 MB of it, at most."""


@dataclass(frozen=True)
class Clip:
    """A stretch of a recording's sound, compressed."""

    start_us: int
    end_us: int
    media_type: str
    """Such as `audio/mpeg`."""
    data: bytes

    def to_json(self) -> dict[str, Any]:  # Any: JSON values
        """Return what the script plays."""
        return {
            "start": self.start_us / US_PER_SECOND,
            "end": self.end_us / US_PER_SECOND,
            "type": self.media_type,
            "data": b64encode(self.data).decode(),
        }


type ClipsOf = Callable[[str, Sequence[tuple[int, int]]], Sequence[Clip]]
"""(id of a recording, [start, end) of stretches in microseconds, in order) -> their sound. Raises a
LaughstoreError where there is none."""


def clips_of(
    shown: Sequence[Shown], spots: Sequence[Sequence[Spot]], clips: ClipsOf
) -> list[list[Clip]]:
    """Return the clips of each recording; the log says where there are none, or too many.

    Args:
        shown: recordings of the page, those first whose sound matters most.
        spots: what is listed of each of them.
        clips: gives their sound.
    """
    left_us, found = MOST_US, []
    for item, listed in zip(shown, spots, strict=True):
        recording = item.recording
        wanted = stretches_around(listed, MARGIN_US, recording.duration_us)
        if item.excerpts is None and recording.duration_us <= WHOLE_US:
            wanted = ((0, recording.duration_us),)
        num_us = sum(end - start for start, end in wanted)
        if not wanted:
            found.append([])
            continue
        if num_us > left_us:
            logger.warning(
                "no sound of %s: the page holds %d minutes already", recording.name, MOST_US // 60e6
            )
            found.append([])
            continue
        try:
            found.append(list(clips(recording.id, wanted)))
            left_us -= num_us
        except LaughstoreError as error:
            logger.warning("no sound of %s: %s", recording.name, error)
            found.append([])
    return found
