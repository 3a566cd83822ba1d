"""What is known of each laugh of a stream beside its time: how long, how sure, who spoke before.

Enters: annotations of a recording and a label. Leaves: the moments that the label asks about, and
for each of them a number in each of `TRAITS`; which moment a row is about. No score is known here.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from laughstore.bouts import Times
from laughstore.errors import ConfigError
from laughstore.index import Stream
from laughstore.labels import (
    ClassEvents,
    LabelSpec,
    awaited_intervals,
    class_events,
    target_bouts,
)
from laughstore.naming import MIX
from laughstore.tables import UNKNOWN_SPEAKER, RecordingTables, SegmentTable
from laughstore.timebase import US_PER_SECOND, floor_frame

TRAITS: Final[dict[str, tuple[str, ...]]] = {
    "laugh_length": ("<0.5 s", "0.5-1 s", "1-2 s", ">=2 s"),
    "confidence": ("<0.5", "0.5-0.75", "0.75-1", "1"),
    "speaking_at_onset": ("main", "other", "both", "neither"),
    "first_or_answer": ("first", "answer"),
}
"""Names of the strata of each."""
UNKNOWN: Final = -1
"""In the place of a stratum's number."""
ANSWER_US: Final = 2 * US_PER_SECOND
"""A laugh within this long behind another's laughter is an answer."""
_LENGTH_EDGES_US: Final = np.array([500_000, 1_000_000, 2_000_000], np.int64)
_CONFIDENCE_EDGES: Final = np.array([0.5, 0.75, 1.0], np.float32)


@dataclass(frozen=True, eq=False)
class LaughMoments:
    """K moments that a stream's rows are asked about, in order of time."""

    label: LabelSpec
    moment_us: NDArray[np.int64]
    """i64[K]: when bouts begin; of label interval, when intervals end."""
    bouts: Times
    """Of the stream."""
    traits: dict[str, NDArray[np.int64]]
    """i64[K], by the names of `TRAITS`: number of the stratum, or UNKNOWN."""

    @classmethod
    def of(cls, label: LabelSpec, tables: RecordingTables, stream: Stream) -> "LaughMoments":
        """Return the moments of a stream.

        Args:
            label: of rows that an event stands behind (`has_moments`).
            tables: of its recording.
            stream: whose roles count.

        Raises:
            ConfigError: no event stands behind rows of such a label.
        """
        if not has_moments(label):
            raise ConfigError(f"no event stands behind one row of label {label.label}")
        roles = {"main": stream.main, "other": stream.other}
        bouts = target_bouts(label, tables, **roles)
        traits = _bout_traits(bouts, class_events(label, tables, **roles), tables, stream)
        if not label.needs_intervals:
            return cls(label, bouts.start_us, bouts, traits)
        moment_us, event_us = awaited_intervals(label, tables, **roles)
        bout = _holding(bouts, event_us)
        of_moment = {
            name: np.append(values, UNKNOWN)[bout]  # number -1 is the last: none holds it
            for name, values in traits.items()
        }
        return cls(label, moment_us, bouts, of_moment)

    def of_rows(self, row: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return which moment a positive row is about: i64[n], below K; -1: none.

        Of detection and shift that is the bout whose frames hold the one asked about, of two the
        later; of onsets and intervals the next one whose window holds the row.

        Args:
            row: i64[n], rows of the stream.
        """
        rules = self.label.rules
        if self.label.kind in ("onset", "interval"):
            frame = floor_frame(self.moment_us)
            number = np.searchsorted(frame, row + rules.guard, "right")
            begins = np.append(frame - rules.span, np.iinfo(np.int64).max)
            return np.where(begins[number] <= row, number, -1)
        first, stop = self.bouts.frames()
        number = np.searchsorted(first, row + rules.lead, "right") - 1
        return np.where(np.append(stop, -1)[number] > row + rules.lead, number, -1)


def has_moments(label: LabelSpec) -> bool:
    """Tell whether an event stands behind each positive row: not of numbers, nor of legacy rules.

    Legacy rules make rows of events as they were written, not of bouts.
    """
    return label.kind != "regression" and not label.legacy


def _bout_traits(
    bouts: Times, events: ClassEvents, tables: RecordingTables, stream: Stream
) -> dict[str, NDArray[np.int64]]:
    length = np.searchsorted(_LENGTH_EDGES_US, bouts.end_us - bouts.start_us, "right")
    ours = np.flatnonzero(events.is_target)
    bout = _holding(bouts, events.times.start_us[ours])
    surest = np.zeros(len(bouts.start_us), np.float32)
    np.maximum.at(surest, bout, events.confidence[ours])
    # From the last to the first, so that the first of a bout's events has the last word.
    order = np.argsort(events.times.start_us[ours], kind="stable")[::-1]
    laugher = np.full(len(bouts.start_us), UNKNOWN_SPEAKER, np.int32)
    laugher[bout[order]] = events.speaker[ours][order]
    return {
        "laugh_length": length,
        "confidence": np.searchsorted(_CONFIDENCE_EDGES, surest, "right"),
        "speaking_at_onset": _speaking(bouts.start_us, tables, stream),
        "first_or_answer": _first_or_answer(bouts, laugher, events),
    }


def _speaking(
    onset_us: NDArray[np.int64], tables: RecordingTables, stream: Stream
) -> NDArray[np.int64]:
    """i64[B]: who had the floor in the last moment before each onset.

    A stretch of speech that begins with the laugh may be the laugh itself, and tells nothing.
    """
    unknown = np.full(len(onset_us), UNKNOWN, np.int64)
    speech = tables.segments if len(tables.segments) else tables.turns
    if speech is None or not len(speech) or stream.main == MIX:
        return unknown  # nobody wrote down who speaks, or a mix has no sides
    main, other = (
        _speaks(onset_us, speech, tables.speaker_code(name) if name is not None else None)
        for name in (stream.main, stream.other)
    )
    return np.select([main & other, main, other], [2, 0, 1], 3)


def _speaks(
    moment_us: NDArray[np.int64], speech: SegmentTable, speaker: int | None
) -> NDArray[np.bool_]:
    """bool[B]: start < moment <= end of a stretch of this speaker; they may overlap."""
    if speaker is None:
        return np.zeros(len(moment_us), np.bool_)
    its = speech.speaker == speaker
    begun = np.searchsorted(np.sort(speech.start_us[its]), moment_us, "left")
    return begun > np.searchsorted(np.sort(speech.end_us[its]), moment_us, "left")


def _first_or_answer(
    bouts: Times, laugher: NDArray[np.int32], events: ClassEvents
) -> NDArray[np.int64]:
    """i64[B]: 0 where nobody else laughed shortly before, 1 where somebody did.

    Not known where nobody knows whose the bout is, and, unless somebody surely laughed, where
    somebody may have.
    """
    found = np.full(len(bouts.start_us), UNKNOWN, np.int64)
    nameless = events.speaker == UNKNOWN_SPEAKER
    for speaker in np.unique(laugher[laugher != UNKNOWN_SPEAKER]).tolist():
        mine = laugher == speaker
        onset_us = bouts.start_us[mine]
        others = (events.speaker != speaker) & ~nameless
        answers = _laughed(onset_us, events.times, others & events.is_sure)
        maybe = _laughed(onset_us, events.times, nameless | (others & ~events.is_sure))
        found[mine] = np.select([answers, maybe], [1, UNKNOWN], 0)
    return found


def _laughed(
    onset_us: NDArray[np.int64], times: Times, chosen: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """bool[B]: one of the chosen began before the onset, and ends ANSWER_US before it or later."""
    order = np.argsort(times.start_us[chosen], kind="stable")
    starts, ends = times.start_us[chosen][order], times.end_us[chosen][order]
    never = np.full(1, np.iinfo(np.int64).min)
    latest_end = np.concatenate([never, np.maximum.accumulate(ends)])
    return latest_end[np.searchsorted(starts, onset_us, "left")] >= onset_us - ANSWER_US


def _holding(bouts: Times, moment_us: NDArray[np.int64]) -> NDArray[np.int64]:
    """i64[n]: the bout with start <= moment < end; -1: none. Bouts are disjoint."""
    number = np.searchsorted(bouts.start_us, moment_us, "right") - 1
    ends = np.append(bouts.end_us, np.iinfo(np.int64).min)
    return np.where(ends[number] > moment_us, number, -1)
