"""Arrays inside JSON: base64 of little-endian bytes, so that an index of 10^5 blocks opens fast."""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .errors import CorruptData
from .tables import EventTable, IntervalTable, RecordingTables, SegmentTable, Vocabulary

Table = EventTable | SegmentTable | IntervalTable
_DTYPES = {"label": "<i4", "full_label": "<i4", "speaker": "<i4", "confidence": "<f4"}
"""Columns that are no times; times are microseconds, `<i8`."""


def encode_array(values: NDArray[Any], dtype: DTypeLike) -> str:  # Any: the column's own dtype
    """Return the base64 text of an array's little-endian bytes."""
    return base64.b64encode(np.ascontiguousarray(values, dtype).tobytes()).decode()


def decode_array(text: object, dtype: DTypeLike, length: int, *, where: str) -> NDArray[Any]:
    """Return the array of `length` items that `encode_array` wrote.

    Raises:
        CorruptData: the text is no base64 of that many items.
    """
    if not isinstance(text, str):
        raise CorruptData(f"{where}: expected base64 text, found {type(text).__name__}")
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise CorruptData(f"{where}: not base64 ({error})") from error
    item = np.dtype(dtype)
    if len(data) != length * item.itemsize:
        raise CorruptData(f"{where}: {len(data)} bytes, {length} items of {item} were promised")
    return np.frombuffer(data, item).astype(item.newbyteorder("="), copy=False)


def encode_tables(tables: Sequence[RecordingTables]) -> dict[str, object]:
    """Return the annotation columns of all recordings of an index, one after the other."""
    return {
        "events": _encode(EventTable, [item.events for item in tables]),
        "segments": _encode(SegmentTable, [item.segments for item in tables]),
        "turns": _encode(SegmentTable, [item.turns for item in tables]),
        "intervals": _encode(IntervalTable, [item.intervals for item in tables]),
    }


def decode_tables(
    data: Mapping[str, Any],  # Any: JSON values
    recordings: Sequence[tuple[int, tuple[str, ...]]],
    vocabulary: Vocabulary,
    *,
    where: str,
) -> tuple[RecordingTables, ...]:
    """Return each recording's tables; arrays are views of the decoded columns.

    Args:
        data: what `encode_tables` returned.
        recordings: (duration_us, speakers) of each recording, in the order of the index.
        vocabulary: of the index.
        where: begins the message of an error.
    """
    num = len(recordings)
    events = _decode(EventTable, data["events"], num, where=f"{where}: events")
    segments = _decode(SegmentTable, data["segments"], num, where=f"{where}: segments")
    turns = _decode(SegmentTable, data["turns"], num, where=f"{where}: turns")
    intervals = _decode(IntervalTable, data["intervals"], num, where=f"{where}: intervals")
    tables = []
    for i, (duration_us, speakers) in enumerate(recordings):
        event_rows, segment_rows = events[i], segments[i]
        if event_rows is None or segment_rows is None:
            raise CorruptData(f"{where}: recording {i} has no event or segment columns")
        tables.append(
            RecordingTables(
                duration_us, speakers, vocabulary, event_rows, segment_rows, turns[i], intervals[i]
            )
        )
    return tuple(tables)


def _encode(kind: type[Table], tables: Sequence[Table | None]) -> dict[str, object]:
    """Columns of all tables, concatenated; `lengths` has -1 where a recording has no table."""
    lengths = np.array([-1 if table is None else len(table) for table in tables], np.int64)
    columns: dict[str, object] = {"lengths": encode_array(lengths, "<i8")}
    for name in (item.name for item in fields(kind)):
        parts = [getattr(table, name) for table in tables if table is not None]
        dtype = _DTYPES.get(name, "<i8")
        joined = np.concatenate(parts) if parts else np.empty(0, dtype)
        columns[name] = encode_array(joined, dtype)
    return columns


def _decode[T: Table](
    kind: type[T], columns: Mapping[str, object], num: int, *, where: str
) -> list[T | None]:
    lengths = decode_array(columns.get("lengths"), "<i8", num, where=f"{where}.lengths")
    if (lengths < -1).any():
        raise CorruptData(f"{where}: a negative length")
    ends = np.cumsum(np.maximum(lengths, 0))
    total = int(ends[-1]) if num else 0
    arrays = {
        item.name: decode_array(
            columns.get(item.name),
            _DTYPES.get(item.name, "<i8"),
            total,
            where=f"{where}.{item.name}",
        )
        for item in fields(kind)
    }
    tables: list[T | None] = []
    for length, end in zip(lengths.tolist(), ends.tolist(), strict=True):
        if length < 0:
            tables.append(None)
        else:
            rows = slice(end - length, end)
            tables.append(kind(**{name: array[rows] for name, array in arrays.items()}))
    return tables
