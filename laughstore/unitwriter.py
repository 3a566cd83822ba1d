"""Write one recording into a store: the shards, arrays and codes of all its streams.

A unit is idempotent: written again from frame 0 it gives the same bytes under the same names.
"""

from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Self

import crc32c
import numpy as np
from numpy.typing import NDArray

from . import layout
from .annotations import Annotations
from .arrays import CODE_STREAMS, MISSING_CODE, code_array_json, feature_array_json, group_json
from .buildplan import Assignment, BuildPlan, PlannedRecording
from .files import link_or_copy
from .manifest import FileRecord
from .naming import block_key
from .shard import ShardWriter
from .timebase import FRAME_US, FRAMES_PER_SECOND
from .unit import UnitRecord, write_unit

EVENTS_BEFORE_US = 500_000
EVENTS_AFTER_US = 10_000_000
"""A tar sample tells stock readers the events this far around its block, as of the build."""


class UnitWriter:
    """Write the features of one recording as they are computed; `finish` makes them a unit.

    A context manager: left without `finish`, the shard being written is removed; files already
    finished stay until `remove_unit_files`.
    """

    def __init__(
        self,
        store: Path,
        plan: BuildPlan,
        recording: PlannedRecording,
        annotations: Annotations,
    ) -> None:
        self._store = store
        self._recording = recording
        self._streams = [
            _StreamWriter(store, plan, recording, assignment, first_shard, annotations)
            for assignment, first_shard in zip(
                recording.assignments, recording.first_shards, strict=True
            )
        ]

    def write(self, features: NDArray[np.uint16], codes: NDArray[np.int16]) -> None:
        """Append frames to every stream.

        Args:
            features: u2[A, n, dim] bits of bfloat16, A the recording's assignments.
            codes: i2[A, n, 17].
        """
        assert len(features) == len(codes) == len(self._streams), "one row an assignment"
        for stream, stream_features, stream_codes in zip(
            self._streams, features, codes, strict=True
        ):
            stream.write(stream_features, stream_codes)

    def finish(self) -> UnitRecord:
        """Close all files and write the unit's record, last. Returns it."""
        recording = self._recording
        for stream in self._streams:
            stream.finish()
        files = [item for stream in self._streams for item in stream.files]
        for root in (layout.FEATURES, layout.CODES):
            path = layout.zarr_json(f"{root}/{recording.split}/{recording.id}")
            files.append(FileRecord.write(self._store, path, group_json()))
        record = UnitRecord(
            id=recording.id,
            status="done",
            files=tuple(files),
            shard_bytes=tuple(size for stream in self._streams for size in stream.shard_bytes),
            block_crc32c=tuple(crc for stream in self._streams for crc in stream.block_crc32c),
        )
        write_unit(self._store, record)
        return record

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for stream in self._streams:
            stream.abandon()


class _StreamWriter:
    """Shards, code chunks and metadata of one stream; keeps at most a shard's codes in memory."""

    def __init__(
        self,
        store: Path,
        plan: BuildPlan,
        recording: PlannedRecording,
        assignment: Assignment,
        first_shard: int,
        annotations: Annotations,
    ) -> None:
        self._store = store
        self._geometry = plan.geometry
        self._spec = plan.spec
        self._recording = recording
        self._assignment = assignment
        self._first_shard = first_shard
        self._events = annotations.events
        self._pending = np.empty((self._geometry.block_frames, self._geometry.dim), np.uint16)
        self._num_pending = 0
        self._codes = np.full((self._geometry.shard_frames, CODE_STREAMS), MISSING_CODE, np.int16)
        self._num_codes = 0
        self._num_frames = 0
        self._block = 0
        self._shard = 0
        self._writer: ShardWriter | None = None
        self.files: list[FileRecord] = []
        self.shard_bytes: list[int] = []
        self.block_crc32c: list[int] = []

    def write(self, features: NDArray[np.uint16], codes: NDArray[np.int16]) -> None:
        """Append u2[n, dim] features and i2[n, 17] codes."""
        assert self._num_frames + len(features) <= self._recording.num_frames, "too many frames"
        self._num_frames += len(features)
        start = 0
        while start < len(features):
            room = self._geometry.block_frames - self._num_pending
            part = slice(start, start + room)
            taken = len(features[part])
            filled = slice(self._num_pending, self._num_pending + taken)
            self._pending[filled] = features[part]
            self._codes[self._num_codes : self._num_codes + taken] = codes[part]
            self._num_pending += taken
            self._num_codes += taken
            start += taken
            if self._num_pending == self._geometry.block_frames:
                self._flush_block()

    def finish(self) -> None:
        """Write what is pending, then the arrays' metadata."""
        recording, assignment = self._recording, self._assignment
        assert self._num_frames == recording.num_frames, "frames are missing"
        if self._num_pending:
            self._flush_block()
        self._finish_shard()
        attributes = {
            "recording": recording.name,
            "assignment": {"main": assignment.main, "other": assignment.other},
            "frame_rate_hz": FRAMES_PER_SECOND,
            "row_t_has_heard_audio_before_s": f"t * {FRAME_US} / 1000000",
            "spec_id": self._spec.spec_id,
            "spec": self._spec.to_json(),
        }
        for root, make in (
            (layout.FEATURES, feature_array_json),
            (layout.CODES, code_array_json),
        ):
            path = layout.zarr_json(self._array(root))
            data = make(recording.num_frames, self._geometry, attributes)
            self.files.append(FileRecord.write(self._store, path, data))

    def abandon(self) -> None:
        """Remove the shard that is being written, if any."""
        if self._writer is not None:
            self._writer.__exit__(None, None, None)
            self._writer = None

    def _flush_block(self) -> None:
        if self._writer is None:
            path = layout.chunk(self._array(layout.FEATURES), self._shard)
            self._writer = ShardWriter(self._store / path, self._geometry)
        num_frames = self._num_pending
        start_frame = self._block * self._geometry.block_frames
        self._writer.write_block(
            block_key(self._recording.id, self._assignment.name, self._block),
            self._pending[:num_frames],
            {
                "recording": self._recording.id,
                "assignment": self._assignment.name,
                "start_frame": start_frame,
                "num_frames": num_frames,
                "shape": [self._geometry.block_frames, self._geometry.dim],
                "dtype": self._spec.dtype,
                "spec_id": self._spec.spec_id,
                "annotations_id": self._recording.annotations_id,
            },
            {"events": self._events_around(start_frame, num_frames)},
        )
        self._block += 1
        self._num_pending = 0
        if self._block % self._geometry.blocks_per_shard == 0:
            self._finish_shard()

    def _finish_shard(self) -> None:
        if self._writer is None:
            return
        written = self._writer.commit()
        self._writer = None
        chunk = layout.chunk(self._array(layout.FEATURES), self._shard)
        shard = layout.shard(self._recording.split, self._first_shard + self._shard)
        link_or_copy(self._store / chunk, self._store / shard)
        self.files.append(FileRecord(shard, written.num_bytes, written.sha256, also=chunk))
        self.shard_bytes.append(written.num_bytes)
        self.block_crc32c.extend(written.block_crc32c)
        self._finish_codes()
        self._shard += 1

    def _finish_codes(self) -> None:
        self._codes[self._num_codes :] = MISSING_CODE
        data = self._codes.astype("<i2").tobytes()
        data += crc32c.crc32c(data).to_bytes(4, "little")
        path = layout.chunk(self._array(layout.CODES), self._shard)
        self.files.append(FileRecord.write(self._store, path, data))
        self._num_codes = 0

    def _array(self, root: str) -> str:
        recording = self._recording
        return layout.array(root, recording.split, recording.id, self._assignment.name)

    def _events_around(self, start_frame: int, num_frames: int) -> list[dict[str, object]]:
        after_us = start_frame * FRAME_US - EVENTS_BEFORE_US
        before_us = (start_frame + num_frames) * FRAME_US + EVENTS_AFTER_US
        return [
            asdict(event)
            for event in self._events
            if event.end_us > after_us and event.start_us < before_us
        ]
