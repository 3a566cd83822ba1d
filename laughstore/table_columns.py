"""Annotation tables of many recordings as columns of an index, one recording after the other."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .columns import Columns
from .errors import CorruptData
from .tables import (
    UNKNOWN_SPEAKER,
    EventTable,
    IntervalTable,
    RecordingTables,
    SegmentTable,
    Vocabulary,
)
from .values import MAX_INTEGER

Table = EventTable | SegmentTable | IntervalTable
_KINDS: dict[str, type[Table]] = {
    "events": EventTable,
    "segments": SegmentTable,
    "turns": SegmentTable,
    "intervals": IntervalTable,
}
_DTYPES = {"label": "<i4", "full_label": "<i4", "speaker": "<i4", "confidence": "<f4"}
"""Columns that are no times; times are microseconds, `<i8`."""


def table_arrays(tables: Sequence[RecordingTables]) -> dict[str, NDArray[Any]]:
    """Return the columns of all recordings' tables by name, for `encode_columns`."""
    arrays: dict[str, NDArray[Any]] = {}
    for group, kind in _KINDS.items():
        found = [getattr(item, group) for item in tables]
        lengths = [-1 if table is None else len(table) for table in found]
        arrays[f"{group}.lengths"] = np.array(lengths, "<i8")
        for name in (item.name for item in fields(kind)):
            dtype = _DTYPES.get(name, "<i8")
            parts = [getattr(table, name) for table in found if table is not None]
            joined = np.concatenate(parts) if parts else np.empty(0, dtype)
            arrays[f"{group}.{name}"] = joined.astype(dtype, copy=False)
    return arrays


def read_tables(
    columns: Columns,
    recordings: Sequence[tuple[int, tuple[str, ...]]],
    vocabulary: Vocabulary,
    *,
    where: str,
) -> tuple[RecordingTables, ...]:
    """Return each recording's tables; arrays are views of the columns read.

    Args:
        columns: that hold what `table_arrays` returned.
        recordings: (duration_us, speakers) of each recording, in the order of the index.
        vocabulary: of the index.
        where: begins the message of an error.

    Raises:
        CorruptData: lengths or codes do not fit together, or as `Columns.read`.
    """
    num_speakers = [len(speakers) for _, speakers in recordings]
    num_labels = {"label": len(vocabulary.labels), "full_label": len(vocabulary.full_labels)}
    groups: dict[str, list[Table | None]] = {}
    for group, kind in _KINDS.items():
        tables = _read_group(columns, group, kind, len(recordings), where=where)
        for table, count in zip(tables, num_speakers, strict=True):
            _check_codes(table, num_labels | {"speaker": count}, where=f"{where}: {group}")
        groups[group] = tables
    result: list[RecordingTables] = []
    for i, (duration_us, speakers) in enumerate(recordings):
        events, segments = groups["events"][i], groups["segments"][i]
        turns, intervals = groups["turns"][i], groups["intervals"][i]
        if not isinstance(events, EventTable) or not isinstance(segments, SegmentTable):
            raise CorruptData(f"{where}: recording {i} has no event or segment columns")
        assert turns is None or isinstance(turns, SegmentTable)
        assert intervals is None or isinstance(intervals, IntervalTable)
        result.append(
            RecordingTables(duration_us, speakers, vocabulary, events, segments, turns, intervals)
        )
    return tuple(result)


def _read_group(
    columns: Columns, group: str, kind: type[Table], num: int, *, where: str
) -> list[Table | None]:
    dtypes = {item.name: _DTYPES.get(item.name, "<i8") for item in fields(kind)}
    total = max(columns.count(f"{group}.{name}", dtype) for name, dtype in dtypes.items())
    if columns.count(f"{group}.lengths", "<i8") != num:
        raise CorruptData(f"{where}: {group} of another number of recordings")
    arrays = columns.read([f"{group}.lengths", *(f"{group}.{name}" for name in dtypes)])
    lengths = arrays.pop(f"{group}.lengths")
    ends = np.cumsum(np.maximum(lengths, 0))
    sound = (lengths >= -1).all() and (lengths <= total).all()
    if not sound or (int(ends[-1]) if num else 0) != total:
        raise CorruptData(f"{where}: lengths of {group} do not add up")
    if any(len(array) != total for array in arrays.values()):
        raise CorruptData(f"{where}: columns of {group} differ in length")
    for name, array in arrays.items():
        # Sums and products of times must not overflow; NaN is no confidence.
        if len(array) and not (array.min() >= -MAX_INTEGER and array.max() <= MAX_INTEGER):
            raise CorruptData(f"{where}: {name} holds what is no time or number; restore it")
    tables: list[Table | None] = []
    for length, end in zip(lengths.tolist(), ends.tolist(), strict=True):
        rows = slice(end - length, end)
        parts = {name: arrays[f"{group}.{name}"][rows] for name in dtypes}
        tables.append(None if length < 0 else kind(**parts))
    return tables


def _check_codes(table: Table | None, num_codes: dict[str, int], *, where: str) -> None:
    """Check that every code stands for a name: they are used as positions."""
    for name, count in num_codes.items():
        codes = getattr(table, name, None)
        if codes is None or not len(codes):
            continue
        lowest = UNKNOWN_SPEAKER if name == "speaker" else 0
        if codes.min() < lowest or codes.max() >= count:
            raise CorruptData(f"{where}: a {name} has a code that stands for nothing; restore it")
