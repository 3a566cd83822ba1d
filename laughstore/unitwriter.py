"""Write one recording into a store: the shards, arrays and codes of all its streams.

A unit is idempotent: written again from frame 0 it gives the same bytes under the same names.

A full shard is synced, named and linked in a thread while the next one is filled, so that computing
does not wait for the disk. What is on disk keeps its order: a shard's bytes, its name, its link,
its codes; all shards before the arrays' metadata; the unit's record last.
"""

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import crc32c
import numpy as np
from numpy.typing import NDArray

from . import layout
from .annotations import Annotations
from .arrays import CODE_STREAMS, MISSING_CODE, code_array_json, feature_array_json, group_json
from .buildplan import BuildPlan, PlannedRecording
from .files import link_or_copy
from .manifest import FileRecord
from .naming import block_key
from .sample_events import SampleEvents
from .shard import ShardRecord, ShardWriter
from .timebase import FRAME_US, FRAMES_PER_SECOND
from .unit import UnitRecord, write_unit

_MAX_CLOSERS = 8
"""Threads that close files, and streams that wait for them, however many there are."""


class UnitWriter:
    """Write the features of one recording as they are computed; `finish` makes them a unit.

    A context manager: left without `finish`, the shards being written are removed; files already
    finished stay until `remove_unit_files`. Memory is bounded: two shards of each stream are open
    at a time, with six blocks each at most, and none of a stream that has all its frames.
    """

    def __init__(
        self,
        store: Path,
        plan: BuildPlan,
        recording: PlannedRecording,
        annotations: Annotations,
        device_kind: str | None = None,
    ) -> None:
        self._store = store
        self._recording = recording
        self._device_kind = device_kind
        self._closers = ThreadPoolExecutor(
            min(len(recording.assignments), _MAX_CLOSERS), "close-shard"
        )
        self._streams = [
            _StreamWriter(store, plan, recording, number, annotations, self._closers)
            for number in range(len(recording.assignments))
        ]
        self._ended: deque[_StreamWriter] = deque()

    def write(
        self,
        features: NDArray[np.uint16],
        codes: NDArray[np.int16],
        first_assignment: int = 0,
    ) -> None:
        """Append frames to consecutive streams. Both arrays are copied.

        Args:
            features: u2[A, n, dim] bits of bfloat16, A of the recording's assignments.
            codes: i2[A, n, 17].
            first_assignment: the first of them; the streams need not grow together.

        Raises:
            OSError: these frames or earlier ones could not be written.
        """
        streams = self._streams[first_assignment : first_assignment + len(features)]
        assert len(features) == len(codes) == len(streams), "one row an assignment"
        for stream, stream_features, stream_codes in zip(streams, features, codes, strict=True):
            stream.write(stream_features, stream_codes)
            if stream.has_ended:
                self._ended.append(stream)
        while len(self._ended) > _MAX_CLOSERS:
            self._ended.popleft().wait()

    def finish(self) -> UnitRecord:
        """Close all files and write the unit's record, last. Returns it.

        Raises:
            OSError: something could not be written; then no thread of this unit writes any more.
        """
        try:
            return self._finish()
        except BaseException:
            self._abandon()
            raise

    def _finish(self) -> UnitRecord:
        recording = self._recording
        for stream in self._streams:
            stream.end()
        for stream in self._streams:
            stream.wait()
        # Side by side, so that they share the disk's commits.
        writers = (*(stream.write_metadata for stream in self._streams), self._write_groups)
        writing = [self._closers.submit(write) for write in writers]
        metadata = [future.result() for future in writing]
        self._closers.shutdown()
        files = [
            item
            for stream, written in zip(self._streams, metadata, strict=False)
            for item in (*stream.files, *written)
        ]
        files.extend(metadata[-1])
        shards = [shard for stream in self._streams for shard in stream.shards]
        sizes = [size for shard in shards for size in shard.block_bytes or ()]
        record = UnitRecord(
            id=recording.id,
            status="done",
            files=tuple(files),
            shard_bytes=tuple(shard.num_bytes for shard in shards),
            block_crc32c=tuple(crc for shard in shards for crc in shard.block_crc32c),
            block_bytes=tuple(sizes) or None,
            device_kind=self._device_kind,
        )
        write_unit(self._store, record)
        return record

    def _write_groups(self) -> list[FileRecord]:
        parent = f"{self._recording.split}/{self._recording.id}"
        paths = [layout.zarr_json(f"{root}/{parent}") for root in (layout.FEATURES, layout.CODES)]
        return [FileRecord.write(self._store, path, group_json()) for path in paths]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._abandon()

    def _abandon(self) -> None:
        """Remove the shards that are not finished; harmless when all are, or when done before."""
        # First the threads, so that nobody renames what is removed here. All are removed, even if
        # one of them cannot be.
        with ExitStack() as stack:
            for stream in self._streams:
                stack.callback(stream.abandon)
            stack.callback(self._closers.shutdown, cancel_futures=True)


@dataclass(frozen=True)
class _Closed:
    """A shard that is whole."""

    record: ShardRecord
    files: tuple[FileRecord, ...]


class _StreamWriter:
    """Shards, code chunks and metadata of one stream; keeps at most two shards' codes in memory."""

    def __init__(
        self,
        store: Path,
        plan: BuildPlan,
        recording: PlannedRecording,
        number: int,
        annotations: Annotations,
        closers: ThreadPoolExecutor,
    ) -> None:
        self._store = store
        self._geometry = plan.geometry
        self._spec = plan.spec
        self._recording = recording
        self._assignment = recording.assignments[number]
        self._first_shard = recording.first_shards[number]
        self._events = SampleEvents(annotations.events)
        self._pending, self._codes = self._no_frames(0), self._no_codes(0)
        self._num_pending = 0
        self._num_codes = 0
        self._num_frames = 0
        self._block = 0
        self._shard = 0
        self._writer: ShardWriter | None = None
        self._closers = closers
        self._closing: tuple[ShardWriter, Future[_Closed]] | None = None
        self.files: list[FileRecord] = []
        self.shards: list[ShardRecord] = []

    @property
    def has_ended(self) -> bool:
        """Whether all frames have been written; the last shard may still be being closed."""
        return self._num_frames == self._recording.num_frames

    def write(self, features: NDArray[np.uint16], codes: NDArray[np.int16]) -> None:
        """Append u2[n, dim] features and i2[n, 17] codes."""
        assert self._num_frames + len(features) <= self._recording.num_frames, "too many frames"
        self._raise_if_failed()
        block_frames = self._geometry.block_frames
        if not self._num_frames:  # not before: of hundreds of streams a few are written at a time
            self._pending = self._no_frames(block_frames)
            self._codes = self._no_codes(self._geometry.shard_frames)
        self._num_frames += len(features)
        start = 0
        while start < len(features):
            part = slice(start, start + block_frames - self._num_pending)
            taken = len(features[part])
            self._codes[self._num_codes : self._num_codes + taken] = codes[part]
            self._num_codes += taken
            if taken == block_frames:  # a whole block needs no gathering
                self._write_block(features[part])
            else:
                self._pending[self._num_pending : self._num_pending + taken] = features[part]
                self._num_pending += taken
                if self._num_pending == block_frames:
                    self._flush_block()
            start += taken
        if self.has_ended:
            self.end()

    def end(self) -> None:
        """Write what is pending and begin to close the last shard; harmless when done before."""
        assert self.has_ended, "frames are missing"
        if self._num_pending:
            self._flush_block()
        self._close_shard()
        self._pending, self._codes = self._no_frames(0), self._no_codes(0)

    def wait(self) -> None:
        """Wait until the shard that is being closed is closed. Raises what went wrong."""
        if self._closing is None:
            return
        closed = self._closing[1].result()
        self._closing = None
        self.shards.append(closed.record)
        self.files.extend(closed.files)

    def write_metadata(self) -> list[FileRecord]:
        """Write zarr.json of both arrays, after their chunks. Runs in a thread."""
        recording, assignment = self._recording, self._assignment
        attributes = {
            "recording": recording.name,
            "assignment": {"main": assignment.main, "other": assignment.other},
            "frame_rate_hz": FRAMES_PER_SECOND,
            "row_t_has_heard_audio_before_s": f"t * {FRAME_US} / 1000000",
            "spec_id": self._spec.spec_id,
            "spec": self._spec.to_json(),
        }
        features = feature_array_json(
            recording.num_frames, self._geometry, attributes, self._spec.codec
        )
        codes = code_array_json(recording.num_frames, self._geometry, attributes)
        return [
            FileRecord.write(self._store, layout.zarr_json(self._array(root)), data)
            for root, data in ((layout.FEATURES, features), (layout.CODES, codes))
        ]

    def abandon(self) -> None:
        """Remove the shards that are not finished; no thread may be closing one."""
        closing = None if self._closing is None else self._closing[0]
        writers = (self._writer, closing)
        self._writer = self._closing = None
        with ExitStack() as stack:
            for writer in writers:
                if writer is not None:
                    stack.push(writer)

    def _flush_block(self) -> None:
        num_frames, self._num_pending = self._num_pending, 0
        self._write_block(self._pending[:num_frames])

    def _write_block(self, frames: NDArray[np.uint16]) -> None:
        if self._writer is None:
            path = layout.chunk(self._array(layout.FEATURES), self._shard)
            self._writer = ShardWriter(self._store / path, self._geometry, self._spec.codec)
        start_frame = self._block * self._geometry.block_frames
        codec = {} if self._spec.codec == "none" else {"codec": self._spec.codec}
        self._writer.write_block(
            block_key(self._recording.id, self._assignment.name, self._block),
            frames,
            {
                "recording": self._recording.id,
                "assignment": self._assignment.name,
                "start_frame": start_frame,
                "num_frames": len(frames),
                "shape": [self._geometry.block_frames, self._geometry.dim],
                "dtype": self._spec.dtype,
                "spec_id": self._spec.spec_id,
                "annotations_id": self._recording.annotations_id,
                **codec,
            },
            {"events": self._events.around(start_frame, len(frames))},
        )
        self._block += 1
        if self._block % self._geometry.blocks_per_shard == 0:
            self._close_shard()

    def _close_shard(self) -> None:
        """Hand the shard over to be closed, after the one before has been."""
        if self._writer is None:
            return
        self.wait()
        codes, self._num_codes = self._codes, 0
        self._codes = self._no_codes(self._geometry.shard_frames)
        future = self._closers.submit(self._close, self._writer, self._shard, codes)
        self._closing = self._writer, future
        self._writer = None
        self._shard += 1

    def _close(self, writer: ShardWriter, number: int, codes: NDArray[np.int16]) -> _Closed:
        """Make one shard whole: its name, its link, its codes. Runs in a thread."""
        with writer:
            record = writer.commit()
        chunk = layout.chunk(self._array(layout.FEATURES), number)
        shard = layout.shard(self._recording.split, self._first_shard + number)
        link_or_copy(self._store / chunk, self._store / shard)
        data = codes.astype("<i2").tobytes()
        data += crc32c.crc32c(data).to_bytes(4, "little")
        path = layout.chunk(self._array(layout.CODES), number)
        files = (
            FileRecord(shard, record.num_bytes, record.sha256, also=chunk),
            FileRecord.write(self._store, path, data),
        )
        return _Closed(record, files)

    def _raise_if_failed(self) -> None:
        if self._closing is not None and self._closing[1].done():
            self.wait()

    def _no_frames(self, num_frames: int) -> NDArray[np.uint16]:
        return np.empty((num_frames, self._geometry.dim), np.uint16)

    def _no_codes(self, num_frames: int) -> NDArray[np.int16]:
        return np.full((num_frames, CODE_STREAMS), MISSING_CODE, np.int16)

    def _array(self, root: str) -> str:
        recording = self._recording
        return layout.array(root, recording.split, recording.id, self._assignment.name)
