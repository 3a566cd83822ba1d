"""Open a finished store for reading: recordings, arrays, frames, annotations, epochs.

Everything here is read-only. Frames come back as numpy arrays of ml_dtypes.bfloat16.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple, SupportsIndex

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from . import layout
from .annotations import Annotations, read_annotations
from .arrays import check_array_json, code_array_json, feature_array_json, open_array
from .closing import ClosedAtExit
from .epochs import Epochs, find_epochs
from .errors import CorruptData, NotFound
from .folders import Folder, open_folder
from .index import Index, Recording, Stream
from .index_file import read_index
from .labels import Whose
from .manifest import Manifest, read_manifest
from .reading.frame_readers import FrameReaders
from .reading.row_table import frame_range
from .timebase import FRAME_US, US_PER_SECOND, Span

if TYPE_CHECKING:
    import zarr

    from .zarr_folder import Check

_BFLOAT16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)  # Any: numpy has no scalar type for it


class Block(NamedTuple):
    """Consecutive frames of one stream: one tar sample, one inner Zarr chunk."""

    recording: str
    """Id of the recording."""
    assignment: str
    start_frame: int
    frames: NDArray[Any]  # Any: bfloat16
    """bfloat16[n, dim], n <= block_frames: fewer in a stream's last block."""

    def __repr__(self) -> str:
        shape = ", ".join(map(str, self.frames.shape))
        return (
            f"Block({self.recording!r}, {self.assignment!r}, bfloat16[{shape}] from"
            f" {self.start_frame * FRAME_US / US_PER_SECOND:g} s)"
        )


@dataclass(frozen=True, eq=False, repr=False)
class Store(ClosedAtExit):
    """One generation of a finished store. Made by `open_store`; a context manager.

    Safe to use from several threads, and after a fork if it is local. What is large is read at
    first use: when `gc` has collected the generation meanwhile, that raises NotFound, and the store
    is to be opened again.
    """

    folder: Folder
    manifest: Manifest
    index: Index
    _readers: FrameReaders = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_readers", FrameReaders(self.index))

    @property
    def where(self) -> str:
        """Path or URL of the store, for messages."""
        return self.folder.describe()

    @property
    def recordings(self) -> tuple[Recording, ...]:
        """All recordings, in the order of the index."""
        return self.index.recordings

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits."""
        return self.index.splits

    def assignments(self, recording: str) -> tuple[str, ...]:
        """Return the assignments `<main>--<other>` of a recording, by id or original name.

        Raises:
            NotFound: there is no such recording.
        """
        return tuple(stream.assignment for stream in self.index.recording(recording).streams)

    def stream(self, recording: str, assignment: str | None = None) -> Stream:
        """Return a stream by recording id or name, and assignment (default: the first).

        Raises:
            NotFound: there is no such recording or assignment.
        """
        return self.index.stream(recording, assignment)

    def array(self, recording: str, assignment: str | None = None) -> "zarr.Array":
        """Return the read-only Zarr array bfloat16[T, dim] of a stream (12.5 frames a second).

        It is read from the shards. A missing shard is an error, never fill values, and so is one
        that stands in another's place: blocks are compared with the index when first read.

        Args:
            recording: id or original name.
            assignment: `<main>--<other>`; the first by default.

        Raises:
            NotFound: no such stream.
            CorruptData: its zarr.json is not what the index says, or missing. Reading it: stored
                bytes were altered, cut or changed places.
        """
        from .reading.zarr_checks import ShardChecks

        stream = self.stream(recording, assignment)
        spec, geometry = self.index.spec, self.index.geometry
        expected = feature_array_json(stream.num_frames, geometry, {}, spec.codec)
        shards = {
            layout.shard(stream.split, shard.number): shard
            for shard in self._readers.shards(stream)
        }
        check = ShardChecks(self.index, shards)
        return self._array(layout.FEATURES, stream, expected, list(shards), check)

    def codes(self, recording: str, assignment: str | None = None) -> "zarr.Array":
        """Return the read-only Zarr array int16[T, 17] of the codes a stream was computed from.

        Columns: text of main, 8 codebooks of main, 8 of other; -1: no code. Arguments and errors as
        `array`; CorruptData also when the recording's record in `units/` is missing or altered.
        """
        from .reading.zarr_checks import FileChecks, files_of_unit

        stream = self.stream(recording, assignment)
        expected = code_array_json(stream.num_frames, self.index.geometry, {})
        path = _array_path(layout.CODES, stream)
        chunks = [layout.chunk(path, number) for number in range(stream.num_shards)]
        records = files_of_unit(self.folder, self.manifest, stream.recording_id, chunks)
        check = FileChecks(self.folder, records)
        return self._array(layout.CODES, stream, expected, chunks, check)

    def frames(
        self,
        recording: str,
        assignment: str | None = None,
        start: SupportsIndex = 0,
        stop: SupportsIndex | None = None,
    ) -> NDArray[Any]:  # Any: bfloat16
        """Return bfloat16[stop - start, dim]: frames of a stream in fresh memory.

        Checksums are computed when a block is first read, and files that were cut are noticed
        always.

        Args:
            recording: id or original name.
            assignment: `<main>--<other>`; the first by default.
            start: first frame; row t has heard audio strictly before t * 80 ms.
            stop: one past the last frame; the end of the stream by default.

        Raises:
            NotFound: no such stream.
            ConfigError: the range lies outside the stream.
            CorruptData: stored bytes were altered or cut.
            IncompleteStore: a shard is missing.
            Unreachable: a remote store does not answer.
            ValueError: the store was closed.
        """
        stream = self.index.stream(recording, assignment)
        begin, end = frame_range(stream, start, stop)
        first = stream.first_block * self.index.block_frames + begin
        return self._readers.of(stream).read(first, end - begin).view(_BFLOAT16)

    def blocks(
        self,
        *,
        split: str | None = None,
        recording: str | None = None,
        assignment: str | None = None,
    ) -> Iterator[Block]:
        """Yield every block, in the order of the index; memory stays that of a few blocks.

        Args:
            split: only of this split.
            recording: only of this recording, by id or original name.
            assignment: only of this assignment.

        Raises:
            ConfigError: no such split.
            NotFound: no such recording, or nothing has this assignment.
            CorruptData, IncompleteStore, Unreachable, ValueError: as `frames`.
        """
        return self._blocks(self._select(split, recording, assignment))

    def epochs(
        self,
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
        """Return windows of frames around the onsets of events, for event-locked analysis.

        Events are cleaned and merged into bouts as labels do it. With the onset in frame
        k = floor(onset / 80 ms), an epoch is rows k - before to k + after - 1; row k, at time 0,
        has heard nothing of the event (see `laughstore.epochs`).

        Args:
            event: class, e.g. `Laughter`, or `full:NAME` for one of the full vocabulary.
            before: time before the onset, `2s` or `25f` (frames of 80 ms); 0 or more.
            after: time from the onset on; 0 or more.
            whose: events of the assignment's main speaker, the other, both (`pair`), or all there
                are (`any`). With the last two each event is met once in every assignment.
            merge_gap: events no further apart than this are one bout, with one onset.
            min_confidence: events with a lower confidence are left out.
            split: only of this split.
            recordings: only of these, by id or original name.

        Raises:
            ConfigError: a setting cannot work, the class occurs nowhere, no event has a speaker.
            NotFound: no such recording.
        """
        return find_epochs(
            self,
            event,
            before,
            after,
            whose=whose,
            merge_gap=merge_gap,
            min_confidence=min_confidence,
            split=split,
            recordings=recordings,
        )

    def annotations(self, recording: str) -> Annotations:
        """Return what is annotated in a recording, words included (times in microseconds).

        Raises:
            NotFound: no such recording; or `gc` collected this generation meanwhile.
            CorruptData: the file was altered or is missing.
        """
        item = self.index.recording(recording)
        try:
            return read_annotations(self.folder, item.annotations_id, item.split, item.id)
        except CorruptData:
            self.index.check_kept()
            raise

    def close(self) -> None:
        """Let go of files and memory; arrays that were read stay valid."""
        self._readers.close()

    def __repr__(self) -> str:
        return f"Store({self.where!r}, generation {self.manifest.generation}, {self.index!r})"

    def _select(
        self, split: str | None, recording: str | None, assignment: str | None
    ) -> list[Stream]:
        if split is not None:
            self.index.check_split(split)
        recordings = self.recordings if recording is None else [self.index.recording(recording)]
        streams = [
            stream
            for item in recordings
            if split in (None, item.split)
            for stream in item.streams
            if assignment in (None, stream.assignment)
        ]
        if not streams:
            raise NotFound(
                f"{self.where}: nothing is of split {split}, recording {recording} and assignment"
                f" {assignment} at once; list what there is with: laughstore inspect --recordings"
            )
        return streams

    def _blocks(self, streams: list[Stream]) -> Iterator[Block]:
        size = self.index.block_frames
        for stream in streams:
            together = self._readers.of(stream).blocks_at_once
            step = size * together
            for start in range(0, stream.num_frames, step):
                count = min(step, stream.num_frames - start)
                # Asked for again each time: once the store was closed there is none.
                reader = self._readers.of(stream)
                rows = reader.read(stream.first_block * size + start, count).view(_BFLOAT16)
                for offset in range(0, count, size):
                    part = rows[offset : offset + size]
                    # A block that is kept must not keep all that was read with it.
                    part = part.copy() if together > 1 else part
                    yield Block(
                        stream.recording_id,
                        stream.assignment,
                        start + offset,
                        part,
                    )

    def _array(
        self, root: str, stream: Stream, expected: bytes, chunks: list[str], check: "Check"
    ) -> "zarr.Array":
        from .zarr_folder import ZarrFolder

        metadata = layout.zarr_json(_array_path(root, stream))
        known = {metadata: check_array_json(self.folder, metadata, expected)}
        keys = {f"c/{number}/0": path for number, path in enumerate(chunks)}
        # The check knows the size of every chunk.
        store = ZarrFolder(self.folder, {"zarr.json": metadata, **keys}, check=check, known=known)
        return open_array(store, where=self.folder.describe(metadata))


def open_store(path: str | Path, generation: int | None = None) -> Store:
    """Open a finished store.

    Args:
        path: folder or URL (`s3://`, `gs://`, `hf://`, `https://`) of the store.
        generation: its number; the newest by default. Older ones stay readable until `gc`.

    Raises:
        NotFound: there is no such folder or generation.
        IncompleteStore: the build has not finished.
        CorruptData: its manifest or index was altered.
        Unreachable: a remote store does not answer.
    """
    return _open(open_folder(path), generation)


def _open(folder: Folder, generation: int | None = None) -> Store:
    manifest = read_manifest(folder, generation)
    try:
        index = read_index(folder.child(layout.SHARDS), PurePosixPath(manifest.index).name)
    except NotFound:
        # Somebody may have published the next generation and collected this one just now.
        if generation is not None or read_manifest(folder).generation == manifest.generation:
            raise
        return _open(folder)
    if index.index_id != manifest.index_id or index.spec != manifest.spec:
        raise CorruptData(
            f"{folder.describe(layout.STORE_JSON)} and {manifest.index} do not belong together;"
            " restore both"
        )
    return Store(folder, manifest, index)


def open_shards(path: str | Path) -> Index:
    """Open the shards of a store: given as STORE or as STORE/shards, which may stand alone.

    Args:
        path: folder or URL.

    Raises:
        NotFound: neither is there.
        IncompleteStore: the build has not finished.
        CorruptData: the manifest or the index was altered.
        Unreachable: a remote store does not answer.
    """
    folder = open_folder(path)
    if folder.exists(layout.STORE_JSON) or folder.exists(layout.FIRST_PLAN):
        return _open(folder).index
    if folder.exists(layout.INDEX_NAME):
        return read_index(folder)
    if folder.local is not None and not folder.local.is_dir():
        what = "is a file" if folder.local.exists() else "does not exist"
        raise NotFound(f"{folder.describe()} {what}; give a store or its shards folder")
    around = folder.parent()
    if around is not None and around.exists(layout.FIRST_PLAN):
        read_manifest(around)  # says that the build has not finished
    return read_index(folder)


def _array_path(root: str, stream: Stream) -> str:
    return layout.array(root, stream.split, stream.recording_id, stream.assignment)
