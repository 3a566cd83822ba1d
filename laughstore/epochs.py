"""Event-locked analysis: the same stretch of frames around every event, in the terms of MNE.

Events become bouts exactly as labels make them (`laughstore.bouts`), so what is averaged here is
what is trained on.

Which rows a window takes: let the onset lie in frame k = floor(onset / 80 ms). With B frames
before and A after, an epoch is rows k - B to k + A - 1. Row t has heard audio strictly before
t * 80 ms, so row k, at time 0, has heard nothing of the event: rows with `times_s` <= 0 know only
what came before it, row k + 1 is the first that may have heard some of it.
"""

import operator
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Self, SupportsIndex, overload

import numpy as np
from numpy.typing import NDArray

from .bouts import Times, clean_events
from .errors import ConfigError
from .index import Index, Stream
from .labels import LabelSpec, Whose, asked_of, check_event, check_whose, target_bouts
from .tables import RecordingTables
from .timebase import FRAME_US, FRAMES_PER_SECOND, US_PER_SECOND, Span, floor_frame

if TYPE_CHECKING:
    from .store import Store

_MAX_BYTES = 1 << 30
_FULL = "full:"


class EpochEvent(NamedTuple):
    """The event that an epoch is locked to: a row of `Epochs.events`."""

    recording: str
    """Its id."""
    assignment: str
    onset_us: int
    """Start of the bout in the recording, in microseconds."""
    end_us: int
    speaker: str | None
    """Who made the bout's first event; None when unknown."""
    label: str
    """Class that was asked for."""


@dataclass(frozen=True, eq=False)
class Epochs:
    """Windows of frames around events. Frames are read when they are asked for.

    `epochs[i]` is bfloat16[frames, dim]; `epochs[2:5]`, `epochs[[0, 7]]` and `epochs[mask]` are
    Epochs; iteration yields the arrays
    in the order of `events`: by recording, assignment and onset.
    """

    store: "Store"
    before_frames: int
    """Rows before the row of the onset's frame."""
    after_frames: int
    """Rows from the row of the onset's frame on."""
    events: tuple[EpochEvent, ...]
    """One an epoch. `pandas.DataFrame(epochs.events)` is a table of them."""
    num_dropped: int
    """Events left out because their window leaves the recording."""

    @property
    def num_frames(self) -> int:
        """Rows of an epoch."""
        return self.before_frames + self.after_frames

    @property
    def times_s(self) -> NDArray[np.float64]:
        """f8[num_frames]: seconds of each row, relative to the start of the onset's frame.

        Rows at 0 and before have heard nothing of the event. The onset itself lies 0 to 80 ms
        after time 0.
        """
        frames = np.arange(-self.before_frames, self.after_frames)
        return (frames * FRAME_US).astype(np.float64) / US_PER_SECOND

    @property
    def shape(self) -> tuple[int, int, int]:
        """(epochs, frames, channels) of what `stack` returns."""
        return len(self.events), self.num_frames, self.store.index.dim

    def __len__(self) -> int:
        return len(self.events)

    @overload
    def __getitem__(self, number: SupportsIndex) -> NDArray[Any]: ...
    @overload
    def __getitem__(self, number: "slice | Sequence[int] | NDArray[Any]") -> Self: ...
    def __getitem__(
        self, number: "SupportsIndex | slice | Sequence[int] | NDArray[Any]"
    ) -> NDArray[Any] | Self:  # Any: bfloat16; of indices integers or bool
        """Return bfloat16[num_frames, dim] of one epoch, or some of the epochs.

        Args:
            number: of one epoch; or a slice, a list of numbers, or a mask bool[epochs].

        Raises:
            IndexError: there is no such epoch.
            ConfigError: a mask of another length, or no numbers.
            CorruptData, IncompleteStore, Unreachable: as `Store.frames`.
        """
        if isinstance(number, slice):
            return self._with(self.events[number])
        if not isinstance(number, SupportsIndex) or (
            isinstance(number, np.ndarray) and number.ndim
        ):
            return self._with(tuple(self.events[i] for i in self._numbers(number)))
        event = self.events[operator.index(number)]
        start = floor_frame(event.onset_us) - self.before_frames
        return self.store.frames(event.recording, event.assignment, start, start + self.num_frames)

    def __iter__(self) -> Iterator[NDArray[Any]]:
        for number in range(len(self)):
            yield self[number]

    def stack(self, *, max_bytes: int = _MAX_BYTES) -> NDArray[Any]:  # Any: bfloat16
        """Return all epochs as one array, bfloat16[epochs, frames, dim].

        Args:
            max_bytes: most that the array may take.

        Raises:
            ConfigError: it would take more; the message tells how many epochs fit.
            CorruptData, IncompleteStore, Unreachable: as `Store.frames`.
        """
        import ml_dtypes

        num, frames, dim = self.shape
        epoch_bytes = frames * dim * 2
        if num * epoch_bytes > max_bytes:
            raise ConfigError(
                f"{num} epochs of bfloat16[{frames}, {dim}] take {num * epoch_bytes} bytes,"
                f" max_bytes is {max_bytes}; take a part, epochs[:{max_bytes // epoch_bytes}], or"
                " go through them one by one"
            )
        out = np.empty(self.shape, ml_dtypes.bfloat16)
        for number in range(num):
            out[number] = self[number]
        return out

    def _with(self, events: tuple[EpochEvent, ...]) -> Self:
        return replace(self, events=events)

    def _numbers(self, chosen: Sequence[int] | NDArray[Any]) -> list[int]:
        found = np.asarray(chosen)
        if found.dtype == bool and found.shape == (len(self),):
            return np.flatnonzero(found).tolist()
        if found.ndim != 1 or (found.dtype.kind not in "iu" and len(found)):
            raise ConfigError(
                f"epochs are chosen by a list of numbers or a mask bool[{len(self)}]; this is"
                f" {found.dtype} of shape {found.shape}"
            )
        return found.tolist()

    def __repr__(self) -> str:
        num, frames, dim = self.shape
        first, stop = -self.before_frames, self.after_frames
        return (
            f"Epochs({num} epochs of bfloat16[{frames}, {dim}] at {FRAMES_PER_SECOND:g} Hz,"
            f" {first * FRAME_US / US_PER_SECOND:g} to {(stop - 1) * FRAME_US / US_PER_SECOND:g} s"
            f" around the onset's frame, {self.num_dropped} dropped at the edges)"
        )


def find_epochs(
    store: "Store",
    event: str,
    before: Span | str,
    after: Span | str,
    *,
    whose: Whose = "main",
    merge_gap: Span | str = "0.5s",
    min_confidence: float = 0.0,
    split: str | None = None,
    recordings: Collection[str] | None = None,
) -> Epochs:
    """Return the windows around an event's onsets. See `Store.epochs`."""
    before_frames, after_frames = _span("before", before).frames, _span("after", after).frames
    if before_frames < 0 or after_frames < 0 or before_frames + after_frames == 0:
        raise ConfigError(
            f"before {before} and after {after} must be 0 or more, and one of them more than 0"
        )
    label = LabelSpec(
        event=event,
        whose=whose,
        merge_gap=_span("merge_gap", merge_gap),
        min_confidence=min_confidence,
    )
    index = store.index
    check_event(label, index.vocabulary)
    check_whose(label, index.all_tables, index.mains)
    found: list[EpochEvent] = []
    num_dropped = 0
    for stream in _streams(index, split, recordings):
        tables = index.tables(index.recording(stream.recording_id))
        bouts = target_bouts(label, tables, main=stream.main, other=stream.other)
        start = floor_frame(bouts.start_us) - before_frames
        inside = (start >= 0) & (start + before_frames + after_frames <= stream.num_frames)
        num_dropped += int((~inside).sum())
        kept = Times(bouts.start_us[inside], bouts.end_us[inside])
        speakers = _speakers(label, tables, stream, kept.start_us)
        found.extend(
            EpochEvent(stream.recording_id, stream.assignment, onset, end, speaker, event)
            for onset, end, speaker in zip(
                kept.start_us.tolist(), kept.end_us.tolist(), speakers, strict=True
            )
        )
    return Epochs(store, before_frames, after_frames, tuple(found), num_dropped)


def _span(name: str, span: Span | str) -> Span:
    if not isinstance(span, Span | str):
        raise ConfigError(
            f"{name} is {span!r}; give it with its unit: '1s' for seconds, '25f' for frames of"
            " 80 ms"
        )
    return span if isinstance(span, Span) else Span(span)


def _streams(
    index: Index, split: str | None, recordings: Collection[str] | None
) -> Iterator[Stream]:
    """Yield the streams of these recordings (ids or names), in the order of the index."""
    if split is not None:
        index.check_split(split)
    if isinstance(recordings, str):
        raise ConfigError(f"recordings is the text {recordings!r}; give a list of ids or names")
    chosen = None
    if recordings is not None:
        chosen = {index.recording(name).id for name in recordings}
    for recording in index.recordings:
        if split in (None, recording.split) and (chosen is None or recording.id in chosen):
            yield from recording.streams


def _speakers(
    label: LabelSpec, tables: RecordingTables, stream: Stream, onsets_us: NDArray[np.int64]
) -> Sequence[str | None]:
    """Return who made the event that opens each bout; of several at once the first in the file."""
    whose = asked_of(label.whose, stream.main)
    if whose == "main":
        return [stream.main] * len(onsets_us)
    if whose == "other":
        return [stream.other] * len(onsets_us)
    events, _ = clean_events(tables)
    vocabulary, codes, name = tables.vocabulary.labels, events.label, label.event
    if name.startswith(_FULL):
        vocabulary, codes = tables.vocabulary.full_labels, events.full_label
        name = name.removeprefix(_FULL)
    counts = (codes == vocabulary.index(name)) & (
        events.confidence >= np.float32(label.min_confidence)
    )
    if whose == "pair":
        pair = [tables.speaker_code(who) for who in (stream.main, stream.other) if who is not None]
        counts &= np.isin(events.speaker, pair)
    starts, speaker = events.start_us[counts], events.speaker[counts]
    order = np.argsort(starts, kind="stable")
    openers = speaker[order[np.searchsorted(starts[order], onsets_us)]] if len(onsets_us) else []
    return [tables.speakers[code] if code >= 0 else None for code in map(int, openers)]
