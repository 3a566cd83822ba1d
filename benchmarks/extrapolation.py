"""What a store of so many hours takes: formulas over a few measured coefficients. Pure functions.

Formulas and units stand in docs/scaling.md, whose numbers are made by these functions. Assumed
numbers have names here and a reason beside them; all others come from the code that they describe,
or from committed results.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np

from laughstore.arrays import CODE_STREAMS
from laughstore.geometry import ShardGeometry
from laughstore.reading.rows import MAX_MAPPED_PIECES
from laughstore.timebase import FRAMES_PER_SECOND

from .data import DIM

GEOMETRY = ShardGeometry(DIM)
"""The defaults: blocks of 128 frames, shards of 4096."""
ASSIGNMENTS = 2
"""Streams of a recording: each of two speakers is main once."""
FRAMES_PER_HOUR = round(3600 * FRAMES_PER_SECOND)
"""Of one stream."""
CODES_BYTES = 2 * CODE_STREAMS
"""int16 codes of a frame."""
SMALL_IDS = 2**31
"""Global frame ids below it are kept in 4 bytes, others in 8 (train.streaming.selection)."""
_ID_BYTES_MORE = 4
WINDOW_BYTES = 2 * 64 * 8 * GEOMETRY.data_bytes
"""That a stream holds of shards it cannot map: a round of its windows and the next, at defaults."""

LM_FLOPS = 2 * 6.577e9 + 4 * 3000 * 4096 * 32
"""Floating-point operations of Moshi 7B for one row-frame: two for each of the transformer's
weights, and attention of 3000 positions of 4096 channels in 32 layers."""
MIMI_FLOPS = 0.426e9
"""Of Mimi's encoder for a frame of one speaker, in float32 (counted by torch's FlopCounter)."""
PEAK_FLOPS = 989e12
"""Of an H200, bfloat16, dense: NVIDIA's data sheet."""
PEAK_FRACTION = 0.4
"""Assumed: nobody has measured the extraction of Moshi 7B on a GPU here."""

Kind = Literal["measured", "fitted", "computed", "assumed"]
"""Where a number comes from. Fitted: a line through measured points, also beyond them. Computed:
by a formula of the layout, or from measured speeds. Assumed: a guess is in it."""
Report = Mapping[str, Any]  # Any: JSON values


@dataclass(frozen=True)
class Size:
    """An amount of audio of two speakers, as a store holds it."""

    hours: float
    recordings: int

    @classmethod
    def of_hours(cls, hours: float) -> "Size":
        """Return so many hours in recordings as long as those of PodcastFillers."""
        length = PODCAST_FILLERS.hours / PODCAST_FILLERS.recordings
        return cls(hours, max(1, round(hours / length)))

    @property
    def frames(self) -> int:
        """Of all streams."""
        return round(ASSIGNMENTS * self.hours * FRAMES_PER_HOUR)

    @property
    def streams(self) -> int:
        """Of all recordings."""
        return ASSIGNMENTS * self.recordings

    @property
    def blocks(self) -> int:
        """Every stream ends within a block: half of one is lost, on average."""
        return math.ceil(self.frames / GEOMETRY.block_frames + self.streams / 2)

    @property
    def shards(self) -> int:
        """Every stream ends within a shard."""
        return math.ceil(self.frames / GEOMETRY.shard_frames + self.streams / 2)

    @property
    def frame_bytes(self) -> int:
        """Of the features alone."""
        return self.frames * GEOMETRY.row_bytes

    @property
    def shard_bytes(self) -> int:
        """Of all shard files: whole blocks, a row of headers before each, one row behind all."""
        block_bytes = GEOMETRY.rows_per_block * GEOMETRY.row_bytes
        tail_bytes = GEOMETRY.shard_bytes(1) - block_bytes
        return self.blocks * block_bytes + self.shards * tail_bytes

    @property
    def code_bytes(self) -> int:
        """Of codes: chunks as long as shards, the last of a stream filled up."""
        return self.shards * GEOMETRY.shard_frames * CODES_BYTES

    @property
    def files(self) -> int:
        """Files and folders of features and codes.

        Of each a chunk and its folder a shard (the tar is another name of the features' chunk), and
        metadata and two folders a stream.
        """
        return 4 * self.shards + 6 * self.streams


PODCAST_FILLERS = Size(145, 199)
SIZES = (
    ("100 h", Size.of_hours(100)),
    ("PodcastFillers, 145 h", PODCAST_FILLERS),
    ("10,000 h", Size.of_hours(1e4)),
    ("100,000 h", Size.of_hours(1e5)),
    ("1,000,000 h", Size.of_hours(1e6)),
)


@dataclass(frozen=True)
class Line:
    """A straight line through measured points."""

    at_zero: float
    slope: float
    residual: float
    """The largest part of its own value by which the line misses a point."""
    first: float
    """The least x that was measured."""
    last: float
    """The largest x that was measured."""

    @classmethod
    def fitted(cls, x: Sequence[float], y: Sequence[float]) -> "Line":
        """Return the line of least squares of relative errors: small points count like large ones.

        Args:
            x: two or more numbers.
            y: as many, none of them 0.
        """
        across, up = np.array(x, float), np.array(y, float)
        terms = np.stack([1 / up, across / up], axis=1)
        (at_zero, slope), *_ = np.linalg.lstsq(terms, np.ones(len(up)))
        residual = np.abs((at_zero + slope * across - up) / up).max()
        return cls(float(at_zero), float(slope), float(residual), min(x), max(x))

    def at(self, x: float) -> float:
        """Return y."""
        return self.at_zero + self.slope * x


@dataclass(frozen=True)
class Coefficients:
    """What was measured: lines over recordings, and speeds. Bytes and seconds."""

    index_bytes: Line
    manifest_bytes: Line
    plan_bytes: Line
    columns_bytes: Line
    open_s: Line
    open_bytes: Line
    whole_bytes: Line
    select_s: Line
    plan_s: Line
    first_batch_s: Line
    rank_bytes: Line
    warm_bytes_per_s: float
    """Of one process, frames in memory."""
    cold_bytes_per_s: float | None
    """Of one process, frames from the disk of the benchmarks; None where that was not measured."""

    @property
    def lines(self) -> dict[str, Line]:
        """Lines by the names of what they are about."""
        return {name: getattr(self, field) for field, name in LINES.items()}


LINES = {
    "index_bytes": "bytes of the index",
    "manifest_bytes": "bytes of the manifest",
    "plan_bytes": "bytes of the plan",
    "columns_bytes": "bytes of the columns",
    "open_s": "open_store",
    "open_bytes": "memory of open_store",
    "whole_bytes": "memory of the whole index",
    "select_s": "select rows, make targets",
    "plan_s": "plan an epoch",
    "first_batch_s": "first batch",
    "rank_bytes": "memory of a rank",
}
"""Names of results on the axis of recordings, by fields of `Coefficients`."""


def coefficients(recordings: Report, size: Report, cold: Report | None) -> Coefficients:
    """Return what reports measured.

    Args:
        recordings: scaling_recordings.
        size: scaling_size.
        cold: stream_cold, if there is one.
    """
    assert {field.name for field in fields(Coefficients)} > LINES.keys()
    lines = {field: Line.fitted(*points(recordings, name)) for field, name in LINES.items()}
    _, warm = points(size, "FrameStream", "GB/s")
    from_disk = None
    if cold is not None:
        [from_disk] = [
            1e9 * item["median"]
            for item in cold["results"]
            if item["name"].startswith("FrameStream")
        ]
    return Coefficients(**lines, warm_bytes_per_s=1e9 * warm[-1], cold_bytes_per_s=from_disk)


def points(report: Report, name: str, unit: str | None = None) -> tuple[list[float], list[float]]:
    """Return (values on the axis, medians) of a result of a report whose groups are numbers."""
    found = [
        item
        for item in report["results"]
        if item["name"] == name and item["group"] and unit in (None, item["unit"])
    ]
    return [float(item["group"]) for item in found], [item["median"] for item in found]


def rank_bytes(size: Size, found: Coefficients) -> float:
    """Return the memory of a rank.

    Fitted where files are mapped; windows on files that cannot be, and 4 bytes a row more once ids
    take 8, are added.
    """
    more = _ID_BYTES_MORE * size.frames if has_large_ids(size) else 0
    windows = WINDOW_BYTES if size.shards > MAX_MAPPED_PIECES else 0
    return found.rank_bytes.at(size.recordings) + more + windows


def has_large_ids(size: Size) -> bool:
    """Tell whether global frame ids take 8 bytes."""
    return size.blocks * GEOMETRY.block_frames > SMALL_IDS


def epoch_bytes_per_s(size: Size, ranks: int, hours: float) -> float:
    """Return what each of so many ranks must read for an epoch in so many hours."""
    return size.frame_bytes / ranks / (3600 * hours)


def epoch_hours(size: Size, bytes_per_s: float) -> float:
    """Return how long one process reads at an epoch."""
    return size.frame_bytes / bytes_per_s / 3600


def row_frames_per_s(fraction: float = PEAK_FRACTION) -> float:
    """Return the frames that a GPU extracts at a part of its peak."""
    return PEAK_FLOPS * fraction / LM_FLOPS


def extraction_hours(size: Size, fraction: float = PEAK_FRACTION) -> float:
    """Return the GPU hours of extracting all streams, at a part of the peak."""
    return size.frames / row_frames_per_s(fraction) / 3600


@dataclass(frozen=True)
class Row:
    """One quantity at every size."""

    what: str
    unit: str
    kind: Kind
    values: tuple[float, ...]


def rows(found: Coefficients, sizes: Sequence[Size]) -> list[Row]:
    """Return the table: what each size takes."""

    def row(what: str, unit: str, kind: Kind, value: Callable[[Size], float]) -> Row:
        return Row(what, unit, kind, tuple(float(value(size)) for size in sizes))

    def line(what: str, unit: str, of: Line) -> Row:
        return row(what, unit, "fitted", lambda size: of.at(size.recordings))

    def epochs(where: str, bytes_per_s: float) -> Row:
        what = f"epochs an hour of one process, from {where}"
        return row(what, "", "computed", lambda size: 1 / epoch_hours(size, bytes_per_s))

    cold = found.cold_bytes_per_s
    return [
        row("recordings", "", "computed", lambda size: size.recordings),
        row("frames of both streams", "", "computed", lambda size: size.frames),
        row("features", "B", "computed", lambda size: size.frame_bytes),
        row("shard files", "B", "computed", lambda size: size.shard_bytes),
        row("codes", "B", "computed", lambda size: size.code_bytes),
        row("blocks", "", "computed", lambda size: size.blocks),
        row("shards", "", "computed", lambda size: size.shards),
        row("files and folders", "", "computed", lambda size: size.files),
        line("index (JSON)", "B", found.index_bytes),
        line("columns of the index", "B", found.columns_bytes),
        line("manifest (JSON)", "B", found.manifest_bytes),
        line("build plan (JSON)", "B", found.plan_bytes),
        line("open the store", "s", found.open_s),
        line("memory of the opened store", "B", found.open_bytes),
        line("the same, all checksums and shards used", "B", found.whole_bytes),
        line("select rows, make targets", "s", found.select_s),
        line("plan an epoch", "s", found.plan_s),
        line("first batch", "s", found.first_batch_s),
        row("memory of a rank", "B", "fitted", lambda size: rank_bytes(size, found)),
        row(
            "a rank of 8, an epoch an hour", "B/s", "computed", lambda s: epoch_bytes_per_s(s, 8, 1)
        ),
        row(
            "a rank of 64, an epoch an hour",
            "B/s",
            "computed",
            lambda s: epoch_bytes_per_s(s, 64, 1),
        ),
        epochs("memory", found.warm_bytes_per_s),
        *([] if cold is None else [epochs("the disk measured", cold)]),
        row("GPU hours of extraction, not measured", "h", "assumed", extraction_hours),
    ]
