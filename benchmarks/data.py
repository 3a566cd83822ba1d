"""Frames to measure with: a real store of random bfloat16 frames, and the same frames as one file.

    uv run python -m benchmarks.data --dir DIR [--gb 4]

Frames have their real size, 4096 channels. Channels 0 to 3 hold 7 bits each of the frame's global
id, so that whoever reads a frame can be asked which one it was; the others are random. All are
numbers of magnitude 1 to 2, so heads can be trained on them. Nothing is compressed, so values cost
nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from laughstore import layout, open_shards
from laughstore.annotations import Annotations, Event, Speaker, write_annotations
from laughstore.arrays import CODE_STREAMS, MISSING_CODE
from laughstore.buildplan import (
    Assignment,
    BuildPlan,
    PlannedRecording,
    RecordingToPlan,
    begin_plan,
    make_plan,
)
from laughstore.commit import commit_plan
from laughstore.index import Index
from laughstore.naming import assignment_name, recording_id
from laughstore.spec import FeatureSpec, Numerics
from laughstore.timebase import FRAME_US
from laughstore.unitwriter import UnitWriter

from .report import parse_options, working_folder

DIM = 4096
FRAME_BYTES = 2 * DIM
SPLIT = "train"
ID_CHANNELS = 4
SPEAKERS = ("SPEAKER_00", "SPEAKER_01")
NUM_RECORDINGS = 8
_WRITE_FRAMES = 4096
"""Frames handed to the writer at once."""
_SIGN_AND_FRACTION, _FRACTION, _EXPONENT_OF_ONE = 0x807F, 0x7F, 0x3F80
_ID_SHIFTS = 7 * np.arange(ID_CHANNELS)


@dataclass(frozen=True)
class BenchStore:
    """A store of frames that carry their ids."""

    store: Path
    index: Index

    @property
    def num_frames(self) -> int:
        """N: frames of all streams."""
        return sum(stream.num_frames for stream in self.index.streams(SPLIT))

    @property
    def frame_ids(self) -> NDArray[np.int64]:
        """i64[N]: global ids of all frames, rising."""
        return np.concatenate(
            [
                np.arange(stream.num_frames) + stream.first_block * self.index.block_frames
                for stream in self.index.streams(SPLIT)
            ]
        )

    @property
    def shards(self) -> list[Path]:
        """Paths of the shards, in block order."""
        return [self.store / layout.SHARDS / shard.name for shard in self.index.split_shards(SPLIT)]


@dataclass(frozen=True)
class BenchData(BenchStore):
    """A store and a plain file of the same frames."""

    flat: Path
    """u2[N, DIM], little-endian, no header: what somebody without a store would write."""


def make_data(folder: Path, gb: float) -> BenchData:
    """Write the store and the flat file, or find them finished under `folder`.

    Args:
        folder: what is there of the same size is used again.
        gb: size of the frames in 1e9 bytes; the files take twice that.
    """
    per_stream = _frames_per_stream(gb)
    base = folder / f"finite-{per_stream}"
    store, flat = base / "store", base / "flat.u2"
    if not (flat.exists() and (store / layout.STORE_JSON).exists()):
        flat.unlink(missing_ok=True)
        partial = flat.with_suffix(".partial")
        partial.parent.mkdir(parents=True, exist_ok=True)
        num_rows = len(SPEAKERS) * sum(_lengths(per_stream))
        rows = np.memmap(partial, "<u2", "w+", shape=(num_rows, DIM))
        _write(store, per_stream, bench_spec(), rows)
        rows.flush()
        partial.replace(flat)
    return BenchData(store, open_shards(store), flat)


def make_store(folder: Path, gb: float, *, block_frames: int = 128) -> BenchStore:
    """Write a store alone, or find it finished under `folder`.

    Args:
        folder: what is there of the same size is used again.
        gb: size of the frames in 1e9 bytes.
        block_frames: frames of a block.
    """
    per_stream = _frames_per_stream(gb)
    store = folder / f"store-{per_stream}-{block_frames}"
    if not (store / layout.STORE_JSON).exists():
        _write(store, per_stream, bench_spec(block_frames=block_frames))
    return BenchStore(store, open_shards(store))


def _frames_per_stream(gb: float) -> int:
    return max(1, round(gb * 1e9 / FRAME_BYTES / NUM_RECORDINGS / len(SPEAKERS)))


def _lengths(per_stream: int) -> list[int]:
    """Frames of each recording: the longest is a few longer, so last blocks are ragged."""
    return [per_stream + i for i in range(NUM_RECORDINGS)]


def bench_spec(*, block_frames: int = 128, shard_frames: int = 4096) -> FeatureSpec:
    """Return the spec of features that no model made."""
    numerics = Numerics(
        slots=1, chunk_frames=64, threads=1, compute_dtype="float32", allow_tf32=False
    )
    return FeatureSpec(
        model="local",
        revision=None,
        weights_sha256="0" * 64,
        dim=DIM,
        numerics=numerics,
        block_frames=block_frames,
        shard_frames=shard_frames,
    )


def random_frames(num_frames: int, seed: int) -> NDArray[np.uint16]:
    """Return u2[num_frames, DIM], bits of bfloat16 numbers of magnitude 1 to 2."""
    rng = np.random.default_rng(seed)
    bits = np.frombuffer(rng.bytes(num_frames * FRAME_BYTES), np.uint16).reshape(-1, DIM)
    return bits & np.uint16(_SIGN_AND_FRACTION) | np.uint16(_EXPONENT_OF_ONE)


def id_bits(ids: NDArray[np.int64]) -> NDArray[np.uint16]:
    """Return u2[N, ID_CHANNELS]: bits of the numbers that ids below 2^28, i64[N], are kept in."""
    return (ids[:, None] >> _ID_SHIFTS & _FRACTION | _EXPONENT_OF_ONE).astype(np.uint16)


def ids_of(bits: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return i64[N]: ids from the first ID_CHANNELS channels of frames of 16-bit integers."""
    parts = bits[:, :ID_CHANNELS].astype(np.int64) & _FRACTION
    return (parts << _ID_SHIFTS).sum(axis=1)


def assignments() -> tuple[Assignment, ...]:
    """Return both roles of the two speakers."""
    a, b = SPEAKERS
    return (
        Assignment(assignment_name(a, b), a, b),
        Assignment(assignment_name(b, a), b, a),
    )


def annotations(name: str, num_frames: int, num_events: int) -> Annotations:
    """Return evenly spaced laughs of 0.3 s, none so near another that rows are ignored."""
    duration_us = num_frames * FRAME_US
    starts = np.linspace(0, duration_us, num_events, endpoint=False).astype(np.int64).tolist()
    return Annotations(
        recording=name,
        duration_us=duration_us,
        speakers=tuple(Speaker(speaker, duration_us // 2) for speaker in SPEAKERS),
        events=tuple(
            Event(start, start + 300_000, "Laughter", "Laughter", SPEAKERS[i % 2])
            for i, start in enumerate(starts)
        ),
    )


def plan_of(
    lengths: Sequence[int],
    notes: Sequence[Annotations],
    spec: FeatureSpec,
    splits: Sequence[str] | None = None,
) -> BuildPlan:
    """Return the plan of recordings of these numbers of frames, two streams each.

    Args:
        lengths: numbers of frames.
        notes: annotations of each.
        spec: of the store.
        splits: of each; all are of SPLIT if None.
    """
    return make_plan(
        spec,
        "benchmark",
        [
            RecordingToPlan(
                id=recording_id(note.recording),
                name=note.recording,
                split=split,
                group=note.recording,
                num_frames=num_frames,
                assignments=assignments(),
                annotations_id=note.content_id(),
            )
            for num_frames, note, split in zip(
                lengths, notes, splits or [SPLIT] * len(notes), strict=True
            )
        ],
    )


def _write(
    store: Path, per_stream: int, spec: FeatureSpec, rows: NDArray[np.uint16] | None = None
) -> None:
    """Write a store, and the same frames one behind the other into `rows`, u2[N, DIM]."""
    lengths = _lengths(per_stream)
    notes = [
        annotations(f"episode {i}", num_frames, max(1, num_frames // 100))
        for i, num_frames in enumerate(lengths)
    ]
    plan = plan_of(lengths, notes, spec)
    begin_plan(store, plan)
    first_row = first_block = 0
    for planned, note in zip(plan.recordings, notes, strict=True):
        write_annotations(store, note, planned.split, planned.id)
        num_blocks = plan.geometry.num_blocks(planned.num_frames)
        ids = [(first_block + i * num_blocks) * spec.block_frames for i in range(len(SPEAKERS))]
        with UnitWriter(store, plan, planned, note) as writer:
            _write_unit(writer, planned, None if rows is None else rows[first_row:], ids)
        first_row += len(SPEAKERS) * planned.num_frames
        first_block += len(SPEAKERS) * num_blocks
    commit_plan(store, plan)


def _write_unit(
    writer: UnitWriter,
    planned: PlannedRecording,
    rows: NDArray[np.uint16] | None,
    first_ids: list[int],
) -> None:
    """Write a recording's streams into its unit and, one behind the other, into `rows`."""
    num_frames, num_streams = planned.num_frames, len(first_ids)
    for start in range(0, num_frames, _WRITE_FRAMES):
        count = min(_WRITE_FRAMES, num_frames - start)
        frames = random_frames(num_streams * count, first_ids[0] + start)
        frames = frames.reshape(num_streams, count, DIM)
        for stream, first_id in enumerate(first_ids):
            ids = first_id + np.arange(start, start + count)
            frames[stream, :, :ID_CHANNELS] = id_bits(ids)
            if rows is not None:
                row = stream * num_frames + start
                rows[row : row + count] = frames[stream]
        writer.write(frames, np.full((num_streams, count, CODE_STREAMS), MISSING_CODE, np.int16))
    writer.finish()


def main(argv: Sequence[str] | None = None) -> None:
    """Write the frames and say what they are."""
    options = parse_options("Write the frames that benchmarks read.", argv)
    with working_folder(options) as folder:
        data = make_data(folder, options.gb)
        print(f"{data.num_frames} frames of bf16[{DIM}], {len(data.shards)} shards: {data.index}")


if __name__ == "__main__":
    main()
