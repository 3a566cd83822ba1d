"""The events that a tar sample tells readers without an index: those around its block."""

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from .annotations import Event
from .timebase import FRAME_US

EVENTS_BEFORE_US = 500_000
EVENTS_AFTER_US = 10_000_000
"""A tar sample tells stock readers the events this far around its block, as of the build."""


class SampleEvents:
    """The events of one recording, as annotated when it was built."""

    def __init__(self, events: Sequence[Event]) -> None:
        self._events = events
        self._starts_us = np.array([event.start_us for event in events], np.int64)
        self._ends_us = np.array([event.end_us for event in events], np.int64)

    def around(self, start_frame: int, num_frames: int) -> list[dict[str, object]]:
        """Return the events around these frames, as JSON has them."""
        after_us = start_frame * FRAME_US - EVENTS_BEFORE_US
        before_us = (start_frame + num_frames) * FRAME_US + EVENTS_AFTER_US
        around = (self._ends_us > after_us) & (self._starts_us < before_us)
        return [asdict(self._events[number]) for number in np.flatnonzero(around)]
