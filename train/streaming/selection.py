"""Which frames of a split take part, and what their targets are.

Enters: an index, the name of a split, a label, a filter. Leaves: a `Selection`, from which the plan
is made. numpy only; no feature is read here.
"""

import hashlib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from laughstore.errors import ConfigError
from laughstore.index import Index, Stream
from laughstore.kinds import KINDS, TargetArray
from laughstore.label_counts import LabelCounts
from laughstore.labels import (
    LabelSpec,
    check_event,
    check_intervals,
    check_whose,
    frame_targets,
)
from laughstore.tables import RecordingTables
from laughstore.timebase import Span
from laughstore.turns import change_points, legacy_rows, rows_after_change

_NO_SPAN: Final = Span("0f")


@dataclass(frozen=True)
class FrameFilter:
    """Which frames may take part, whatever their label. All conditions must hold.

    Raises:
        ConfigError: a field cannot work.
    """

    min_context: Span = _NO_SPAN
    """Leave out rows that have heard less than this of their recording."""
    recordings: str | None = None
    """Only recordings whose id matches this shell pattern."""
    exclude: str | None = None
    """No recordings whose id matches this shell pattern."""
    turn_within: Span | Literal["off"] = "off"
    """Only rows at most this far behind the end of a turn that another turn follows."""
    legacy_filter: bool = False
    """Only rows that the scripts before laughstore took (label interval): after 240 s, and at most
    240 s behind the end of a turn."""

    def __post_init__(self) -> None:
        if self.min_context.frames < 0:
            raise ConfigError(f"min_context {self.min_context}: it must be 0 or more")
        if isinstance(self.turn_within, Span) and self.turn_within.frames < 1:
            raise ConfigError(
                f"turn_within {self.turn_within}: it must be longer than 0; off lets all rows pass"
            )

    def takes(self, recording_id: str) -> bool:
        """Tell whether frames of this recording may take part."""
        if self.recordings is not None and not fnmatchcase(recording_id, self.recordings):
            return False
        return self.exclude is None or not fnmatchcase(recording_id, self.exclude)

    def rows(
        self, tables: RecordingTables, num_frames: int, *, where: str
    ) -> NDArray[np.bool_] | None:
        """Return which rows of a recording's streams pass, bool[T]; None if all do.

        Args:
            tables: of the recording.
            num_frames: T.
            where: names the recording in the message.

        Raises:
            ConfigError: the recording has no turns that the filter could ask about.
        """
        first = self.min_context.frames
        if first == 0 and self.turn_within == "off" and not self.legacy_filter:
            return None
        passes = np.arange(num_frames) >= first
        if isinstance(self.turn_within, Span):
            changes = change_points(tables, where=where)
            passes &= rows_after_change(num_frames, changes, self.turn_within.frames)
        if self.legacy_filter:
            passes &= legacy_rows(tables, num_frames, where=where)
        return passes

    def describe(self) -> str:
        """Return the conditions, for people."""
        conditions = [
            f"{name} {value}"
            for name, value in (("recordings", self.recordings), ("exclude", self.exclude))
            if value is not None
        ]
        if self.min_context.frames:
            conditions.append(f"min_context {self.min_context}")
        if self.turn_within != "off":
            conditions.append(f"turn_within {self.turn_within}")
        if self.legacy_filter:
            conditions.append("legacy_filter")
        return ", ".join(conditions) or "all frames"

    def identity(self) -> dict[str, Any]:  # Any: a JSON object
        """Return the canonical JSON object of this filter, spans resolved to frames.

        What came with a later release is named only where it is used.
        """
        identity = {
            "min_context_frames": self.min_context.frames,
            "recordings": self.recordings,
            "exclude": self.exclude,
        }
        if isinstance(self.turn_within, Span):
            identity["turn_within_frames"] = self.turn_within.frames
        if self.legacy_filter:
            identity["legacy_filter"] = True
        return identity

    @classmethod
    def from_identity(cls, identity: dict[str, Any]) -> "FrameFilter":
        """Return the filter with this identity."""
        within = identity.get("turn_within_frames")
        return cls(
            Span.of_frames(identity["min_context_frames"]),
            identity["recordings"],
            identity["exclude"],
            "off" if within is None else Span.of_frames(within),
            identity.get("legacy_filter", False),
        )


@dataclass(frozen=True, eq=False)
class Selection:
    """The rows of a split that take part, in the order of their frame ids."""

    index: Index
    split: str
    streams: tuple[Stream, ...]
    """Whose blocks these are, in block order."""
    blocks: NDArray[np.int64]
    """i64[b]: global numbers of the blocks of these streams, rising."""
    eligible: NDArray[np.bool_]
    """bool[b, F]: the frame takes part."""
    y: TargetArray
    """u1[b, F]: 1 positive; 0 negative, or not eligible. f4[b, F] of label regression: above 0
    where positive."""
    ignored: NDArray[np.bool_]
    """bool[b, F]: the filter lets the frame pass, the label ignores it."""
    left_out: NDArray[np.bool_] | None = None
    """bool[b]: the block cannot be read as it was written, and must not be; None: all can."""

    @cached_property
    def counts(self) -> LabelCounts:
        """Rows that the filter lets pass, and how many of them are positive or ignored."""
        num_ignored = int(np.count_nonzero(self.ignored))
        num_rows = int(np.count_nonzero(self.eligible)) + num_ignored
        return LabelCounts(num_rows, int(np.count_nonzero(self.y)), num_ignored)

    @property
    def num_rows(self) -> int:
        """N: rows that take part."""
        return self.counts.rows - self.counts.ignored

    @cached_property
    def block_counts(self) -> NDArray[np.int64]:
        """i64[b]: rows of each block that take part."""
        packed = np.packbits(self.eligible, axis=1)  # an eighth of the sums
        return np.bitwise_count(packed).sum(axis=1, dtype=np.int64)

    @property
    def frames(self) -> NDArray[np.int64]:
        """i64[N]: global frame ids of the rows that take part, rising; computed at every call."""
        return self._frames.astype(np.int64)

    def frames_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return i64[...]: `frames[rows]`."""
        return self._frames[rows].astype(np.int64)

    @cached_property
    def _frames(self) -> NDArray[np.signedinteger[Any]]:  # Any: of two widths
        """[N]: as `frames`, in half the memory if they fit."""
        width, streams = self.index.block_frames, self.streams
        is_small = width * self.index.num_blocks <= 2**31
        found = np.empty(self.num_rows, np.int32 if is_small else np.int64)
        first_block = start = 0
        # Stream by stream: 13 million indices at once would take 100 MB more.
        for stream in streams:
            part = self.eligible[first_block : first_block + stream.num_blocks]
            rows = np.flatnonzero(part)
            found[start : start + len(rows)] = rows + stream.first_block * width
            first_block, start = first_block + stream.num_blocks, start + len(rows)
        return found

    @cached_property
    def targets(self) -> TargetArray:
        """u1[N] or f4[N]: targets of the rows that take part."""
        return self.y[self.eligible]

    @cached_property
    def stream_starts(self) -> NDArray[np.int64]:
        """i64[S + 1]: where each stream's rows begin among the N, and N."""
        first_blocks = np.cumsum([0] + [stream.num_blocks for stream in self.streams])
        row_starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(self.block_counts)])
        return row_starts[first_blocks]

    def stream_targets(self, number: int) -> tuple[TargetArray, NDArray[np.bool_]]:
        """Return (y u1[T] or f4[T], eligible bool[T]) of all T frames of stream `number`."""
        stream = self.streams[number]
        start = int(np.searchsorted(self.blocks, stream.first_block))
        blocks = slice(start, start + stream.num_blocks)
        frames = slice(stream.num_frames)
        return self.y[blocks].reshape(-1)[frames], self.eligible[blocks].reshape(-1)[frames]

    @cached_property
    def features_digest(self) -> str:
        """SHA-256 of which blocks these are and of their checksums."""
        digest = hashlib.sha256(self.blocks.astype("<i8").tobytes())
        digest.update(self.index.block_crc32c[self.blocks].astype("<u4").tobytes())
        return digest.hexdigest()

    @cached_property
    def targets_digest(self) -> str:
        """SHA-256 of which rows take part and of their targets."""
        digest = hashlib.sha256(np.packbits(self.eligible).tobytes())
        classes = self.y.dtype == np.uint8
        digest.update((np.packbits(self.y > 0) if classes else self.y.astype("<f4")).tobytes())
        return digest.hexdigest()

    @property
    def digests(self) -> dict[str, str]:
        """Of what these rows are, by name."""
        return {"features": self.features_digest, "targets": self.targets_digest}

    def __repr__(self) -> str:
        counts = self.counts
        return (
            f"Selection(split {self.split!r}, {len(self.streams)} streams, {self.num_rows} rows,"
            f" {counts.positives} positive, {counts.ignored} ignored)"
        )


def select(
    index: Index,
    split: str,
    label: LabelSpec | None,
    frames: FrameFilter | None = None,
    *,
    advice: str = "widen --recordings, --exclude, --min-context or --turn-within, or use another"
    " label",
    may_be_empty: bool = False,
) -> Selection:
    """Return the rows of a split that take part, with their targets.

    Args:
        index: of the shards.
        split: one of the index's.
        label: which rows are positive, negative or ignored. None: every row that the filter lets
            pass takes part, and its target is 0.
        frames: which rows may take part; all if None.
        advice: what to do when nothing is left, for the message.
        may_be_empty: return a selection in which no row takes part, instead of raising.

    Raises:
        ConfigError: no such split; the event occurs nowhere; the label asks for speakers that are
            not annotated; the label or the filter for intervals or turns that a recording lacks;
            nothing is left; or label is no LabelSpec, frames no FrameFilter.
    """
    if not isinstance(label, LabelSpec | None):
        raise ConfigError(f"label is {label!r}; give a LabelSpec, such as LabelSpec('onset:0.8s')")
    frames = FrameFilter() if frames is None else frames
    if not isinstance(frames, FrameFilter):
        raise ConfigError(f"frames is {frames!r}; give a FrameFilter")
    index.check_split(split)
    if label is not None:
        if frames.legacy_filter and label.kind != "interval":
            raise ConfigError(
                f"legacy_filter is for label interval alone, not {label.label}; drop it"
            )
        check_event(label, index.vocabulary)
        check_whose(label, index.all_tables, index.mains)
    recordings = [item for item in index.recordings if item.split == split]
    taken = [item for item in recordings if frames.takes(item.id)]
    if not taken and not may_be_empty:
        raise ConfigError(
            f"none of the {len(recordings)} recordings of split {split!r} passes the filter"
            f" ({frames.describe()}); {advice}"
        )
    if label is not None:
        check_intervals(label, {recording.id: index.tables(recording) for recording in taken})
    streams = tuple(stream for recording in taken for stream in recording.streams)
    num_blocks = sum(stream.num_blocks for stream in streams)
    blocks = np.empty(num_blocks, np.int64)
    shape = (num_blocks, index.block_frames)
    eligible, ignored = np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
    y = np.zeros(shape, np.uint8 if label is None else KINDS[label.kind].dtype)
    flat_eligible, flat_ignored, flat_y = eligible.reshape(-1), ignored.reshape(-1), y.reshape(-1)
    start = 0
    for recording in taken:
        tables = index.tables(recording)
        for stream in recording.streams:
            last = stream.first_block + stream.num_blocks
            blocks[start : start + stream.num_blocks] = np.arange(stream.first_block, last)
            first_row = start * index.block_frames
            rows = slice(first_row, first_row + stream.num_frames)
            if label is None:
                flat_eligible[rows] = True
            else:
                targets = frame_targets(
                    label,
                    tables,
                    main=stream.main,
                    other=stream.other,
                    num_frames=stream.num_frames,
                )
                flat_eligible[rows], flat_ignored[rows] = ~targets.ignored, targets.ignored
                flat_y[rows] = targets.y
            passes = frames.rows(tables, stream.num_frames, where=recording.id)
            if passes is not None:
                for array in (flat_eligible, flat_ignored, flat_y):
                    array[rows][~passes] = 0
            start += stream.num_blocks
    if not eligible.any() and not may_be_empty:
        num_ignored = int(ignored.sum())
        reason = (
            f"the label ignores all {num_ignored} rows"
            if num_ignored
            else f"none passes the filter ({frames.describe()})"
        )
        raise ConfigError(
            f"no row of split {split!r} takes part: {reason} of the {len(taken)} recordings that"
            f" pass the filter; {advice}"
        )
    return Selection(index, split, streams, blocks, eligible, y, ignored)
