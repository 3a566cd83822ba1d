"""Write features while the next ones are computed: one thread behind a bounded queue.

Checksums, hashes, copies and disk waits all release Python's lock, so that they overlap with the
model's calls; the bound keeps memory constant when the disk is the slower one.
"""

import queue
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from laughstore.buildplan import BuildPlan, PlannedRecording
from laughstore.unit import UnitRecord, remove_unit_files, write_unit
from laughstore.unitwriter import UnitWriter

from .features import FeatureChunk, FeatureFailure
from .stored_annotations import stored_annotations

QUEUE_CHUNKS = 4
"""Chunks waiting to be written: at 256 frames and 4096 channels, 4 MiB each."""
_POLL_S = 0.5


class StoreWriter:
    """Takes chunks of any recordings in any interleaving and turns each recording into a unit.

    A context manager. Leaving it normally waits until all is written; leaving it by an error stops
    at once and removes the shards that were being written.

    Args:
        store: folder of a store that was begun.
        plan: the store's plan; sources are keyed by recording id.
        device_kind: that extracts, when it is another than the plan's.
    """

    def __init__(self, store: Path, plan: BuildPlan, device_kind: str | None = None) -> None:
        self._store = store
        self._plan = plan
        self._device_kind = device_kind
        self._planned: dict[str, PlannedRecording] = {item.id: item for item in plan.recordings}
        self._units: dict[str, UnitWriter] = {}
        self._num_streams_left: dict[str, int] = {}
        self._queue: queue.Queue[_Copy | FeatureFailure | None] = queue.Queue(QUEUE_CHUNKS)
        self._spare: queue.SimpleQueue[_Copy] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self._put(None)
                self._thread.join()
        finally:  # an error of the thread, or Ctrl-C while it was waited for
            self._stop.set()
            self._thread.join()
        if error is None:
            self._raise_if_failed()

    def put(self, item: FeatureChunk | FeatureFailure) -> None:
        """Queue a chunk, which is copied, or the failure of its recording; waits while it is full.

        Raises:
            OSError: an earlier chunk could not be written (a full disk, for one).
            CorruptData: a recording's annotations were altered since the build began.
        """
        if isinstance(item, FeatureFailure):
            self._put(item)
            return
        try:
            copy = self._spare.get_nowait()
        except queue.Empty:
            copy = _Copy()
        copy.fill(item)
        self._put(copy)

    def _put(self, item: "_Copy | FeatureFailure | None") -> None:
        while True:
            self._raise_if_failed()
            try:
                self._queue.put(item, timeout=_POLL_S)
            except queue.Full:
                continue
            return

    def _raise_if_failed(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                try:
                    item = self._queue.get(timeout=_POLL_S)
                except queue.Empty:
                    continue
                if item is None:
                    break
                if isinstance(item, FeatureFailure):
                    self._quarantine(item)
                else:
                    self._write(item.chunk)
                    self._spare.put(item)
        except BaseException as error:  # raised again in the caller's thread
            self._error = error
        finally:
            for unit in self._units.values():
                try:
                    unit.__exit__(None, None, None)
                except BaseException as error:  # the others are to be cleaned up all the same
                    self._error = self._error or error

    def _write(self, chunk: FeatureChunk) -> None:
        key = chunk.source.key
        if key not in self._units:
            planned = self._planned[key]
            annotations = stored_annotations(
                self._store, planned.annotations_id, planned.split, planned.id
            )
            self._units[key] = UnitWriter(
                self._store, self._plan, planned, annotations, self._device_kind
            )
            self._num_streams_left[key] = len(planned.assignments)
        num_streams, num_frames, _ = chunk.features.shape
        self._units[key].write(chunk.features, chunk.codes, chunk.source.first_assignment)
        if chunk.start_frame + num_frames == chunk.source.num_frames:
            self._num_streams_left[key] -= num_streams
        if not self._num_streams_left[key]:
            self._units[key].finish()
            del self._units[key]  # not before: what fails is cleaned up with the others

    def _quarantine(self, failure: FeatureFailure) -> None:
        unit = self._units.pop(failure.source.key, None)
        if unit is not None:
            unit.__exit__(None, None, None)
        remove_unit_files(self._store, self._plan, self._planned[failure.source.key])
        reason = str(failure.error)
        write_unit(self._store, UnitRecord(failure.source.key, "quarantined", reason))


class _Copy:
    """A copy of a chunk, in memory that the next chunks use again.

    The model's thread allocates and frees tensors of many megabytes in one order, call by call.
    Were its features freed by the writer's thread, some time later, they would leave holes that no
    tensor fits, and a build of hours would come to need more memory than one of minutes.
    """

    def __init__(self) -> None:
        self.chunk: FeatureChunk
        self._features = np.empty(0, np.uint16)
        self._codes = np.empty(0, np.int16)

    def fill(self, chunk: FeatureChunk) -> None:
        assert chunk.features.dtype == np.uint16
        assert chunk.codes.dtype == np.int16
        if self._features.size < chunk.features.size:
            self._features = np.empty(chunk.features.size, np.uint16)
        if self._codes.size < chunk.codes.size:
            self._codes = np.empty(chunk.codes.size, np.int16)
        features = self._features[: chunk.features.size].reshape(chunk.features.shape)
        codes = self._codes[: chunk.codes.size].reshape(chunk.codes.shape)
        features[:], codes[:] = chunk.features, chunk.codes
        self.chunk = FeatureChunk(chunk.source, chunk.start_frame, features, codes)
