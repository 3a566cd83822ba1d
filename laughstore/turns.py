"""Where the speaker changes, and which rows lie close enough behind such a change. numpy only.

Enters: one recording's tables. Leaves: change points in frames, masks over rows. A prediction soon
after somebody stopped speaking is another task than one in the middle of a monologue.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from . import legacy
from .bouts import Frames, paint
from .errors import ConfigError
from .tables import RecordingTables, SegmentTable
from .timebase import floor_frame

LEGACY_ROWS: Final = 3000
"""Context and reach of the filter of the scripts before laughstore: 240 s."""


def change_points(tables: RecordingTables, *, where: str) -> NDArray[np.int64]:
    """Return the frames in which a turn ends and another follows, i64[C], rising.

    Of the annotated turns, or else of the runs of one speaker in the diarization: the last turn to
    end, or the last run to start, ends in no change.

    Args:
        tables: of one recording.
        where: names it in the message.

    Raises:
        ConfigError: there are neither turns nor a diarization.
    """
    if tables.turns is not None:
        return np.sort(floor_frame(tables.turns.end_us))[:-1]
    if not len(tables.segments):
        raise ConfigError(
            f"{where} has neither turns nor a diarization, so nobody knows where the speaker"
            " changes; leave it out with --exclude, or use --turn-within off"
        )
    return np.sort(floor_frame(_run_ends_us(tables.segments)[:-1]))


def rows_after_change(
    num_frames: int, changes: NDArray[np.int64], within: int
) -> NDArray[np.bool_]:
    """Return bool[T]: a change point c with t - within <= c < t exists."""
    return paint(num_frames, Frames(changes + 1, changes + within + 1))


def legacy_rows(tables: RecordingTables, num_frames: int, *, where: str) -> NDArray[np.bool_]:
    """Return bool[T]: the scripts before laughstore took the row.

    They took rows from 3000 on for which the turn end under a pointer lay within the 3000 rows
    before. The pointer walks through the file and never back, so it stops only at turns that end
    later than all before them.

    Args:
        tables: of one recording.
        num_frames: T.
        where: names it in the message.

    Raises:
        ConfigError: there are no turns.
    """
    if tables.turns is None:
        raise ConfigError(
            f"{where} has no turns, which the legacy filter needs; leave it out with --exclude, or"
            " use --turn-within 240s"
        )
    ends = legacy.frame_of(legacy.seconds(tables.turns.end_us))[:-1]
    rows = rows_after_change(num_frames, np.maximum.accumulate(ends), LEGACY_ROWS)
    rows[:LEGACY_ROWS] = False
    return rows


def _run_ends_us(segments: SegmentTable) -> NDArray[np.int64]:
    """i64[R]: the end of each run of one speaker, segments in the order of their starts."""
    order = np.argsort(segments.start_us, kind="stable")
    speaker, end_us = segments.speaker[order], segments.end_us[order]
    opens = np.flatnonzero(np.append(True, speaker[1:] != speaker[:-1]))
    return np.maximum.reduceat(end_us, opens)
