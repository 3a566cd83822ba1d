"""What a run was asked: which rows of which recordings, and what was right there.

Two runs can be compared draw by draw if and only if they were asked the same: the very same rows
with the very same targets, in recordings of the same groups. Features, stores, heads, losses and
all else may differ; so may paths and the ids of stores.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from laughstore.index import Index
from laughstore.labels import LabelSpec

from ..scoring.score import StreamScores
from ..streaming.selection import FrameFilter

_SHOWN: Final = 3


@dataclass(frozen=True)
class Question:
    """Rows that count, and their targets."""

    label: LabelSpec
    frames: FrameFilter
    fold: tuple[int, int] | None
    """Number of folds and the run's, if the split is a side of it."""
    groups: dict[str, str]
    """Of the recordings asked about, by id."""
    rows_sha256: str
    targets_sha256: str
    skipped: tuple[str, ...]
    """Keys of blocks that are left out as corrupt."""

    @classmethod
    def of(
        cls,
        index: Index,
        streams: Sequence[StreamScores],
        label: LabelSpec,
        frames: FrameFilter,
        *,
        fold: tuple[int, int] | None,
        skipped: Sequence[str],
    ) -> Self:
        """Return what was asked about these streams, in whatever order they are."""
        rows, targets = hashlib.sha256(), hashlib.sha256()
        for item in sorted(streams, key=lambda item: _key(item)):
            row, y = item.row[item.eligible], item.y[item.eligible]
            # The number of rows says where one stream's end.
            rows.update(f"{_key(item)} {len(row)}\n".encode())
            rows.update(row.astype("<i8").tobytes())
            targets.update(f"{y.dtype.str}\n".encode())
            targets.update(y.tobytes())
        recordings = {item.stream.recording_id for item in streams}
        return cls(
            label=label,
            frames=frames,
            fold=fold,
            groups={key: index.recording(key).group for key in sorted(recordings)},
            rows_sha256=rows.hexdigest(),
            targets_sha256=targets.hexdigest(),
            skipped=tuple(skipped),
        )

    def why_other(self, other: "Question") -> str | None:
        """Return in one line why another question is not this one, or None: it is the same."""
        if self._asked == other._asked:
            return None
        if self.label.identity() != other.label.identity():
            return f"another label: {_told(self.label, other.label)}"
        if self.frames.identity() != other.frames.identity():
            return f"another filter: {self.frames.describe()}, not {other.frames.describe()}"
        if self.fold != other.fold:
            return f"another side of folds: {_fold(self.fold)}, not {_fold(other.fold)}"
        ours, theirs = self.groups.keys(), other.groups.keys()
        if ours != theirs:
            only = [
                f"{len(a - b)} only in {name}"
                for name, a, b in (("this one", ours, theirs), ("the other", theirs, ours))
                if a - b
            ]
            return f"other recordings: {', '.join(only)}"
        if self.groups != other.groups:
            moved = [key for key in ours if self.groups[key] != other.groups[key]]
            more = ", ..." if len(moved) > _SHOWN else ""
            return f"other groups (shows) of {', '.join(sorted(moved)[:_SHOWN])}{more}"
        if self.skipped != other.skipped:
            return "other blocks are left out as corrupt"
        return "other annotations: the same label counts other rows, or has other targets"

    @property
    def _asked(self) -> tuple[object, ...]:
        return self.groups, self.rows_sha256, self.targets_sha256


def _key(item: StreamScores) -> str:
    return f"{item.stream.recording_id}/{item.stream.assignment}"


def _told(ours: LabelSpec, theirs: LabelSpec) -> str:
    """Both labels, as short as tells them apart."""
    if ours.label != theirs.label:
        return f"{ours.label}, not {theirs.label}"
    other = theirs.identity()
    differ = [
        f"{name} {value}, not {other.get(name)}"
        for name, value in ours.identity().items()
        if value != other.get(name)
    ]
    return "; ".join(differ) or f"{ours.describe()}, not {theirs.describe()}"


def _fold(fold: tuple[int, int] | None) -> str:
    return "no folds" if fold is None else f"fold {fold[1]} of {fold[0]}"
