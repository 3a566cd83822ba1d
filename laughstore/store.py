"""Open a finished store for reading: recordings, arrays, frames, annotations.

Everything here is read-only. Frames come back as numpy arrays of ml_dtypes.bfloat16.
"""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import layout
from .annotations import Annotations, read_annotations
from .arrays import open_array
from .errors import ConfigError, CorruptData, NotFound
from .folders import Folder, open_folder
from .index import Index, Recording, Stream, read_index
from .manifest import Manifest, read_manifest

if TYPE_CHECKING:
    import zarr


@dataclass(frozen=True, eq=False)
class Store:
    """A finished store: its newest generation."""

    folder: Folder
    manifest: Manifest
    index: Index

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

    def stream(self, recording: str, assignment: str | None = None) -> Stream:
        """Return a stream by recording id or name, and assignment (default: the first).

        Raises:
            NotFound: there is no such recording or assignment.
        """
        streams = self.index.recording(recording).streams
        for stream in streams:
            if assignment in (None, stream.assignment):
                return stream
        names = ", ".join(stream.assignment for stream in streams)
        raise NotFound(f"{recording!r} has no assignment {assignment!r}; it has {names}")

    def array(self, recording: str, assignment: str | None = None) -> "zarr.Array":
        """Return the read-only Zarr array bfloat16[T, dim] of a stream (12.5 frames a second)."""
        return self._array(layout.FEATURES, self.stream(recording, assignment))

    def codes(self, recording: str, assignment: str | None = None) -> "zarr.Array":
        """Return the read-only Zarr array int16[T, 17] of the codes a stream was computed from."""
        return self._array(layout.CODES, self.stream(recording, assignment))

    def frames(
        self, recording: str, assignment: str | None = None, start: int = 0, stop: int | None = None
    ) -> NDArray[Any]:  # Any: numpy has no scalar type for bfloat16
        """Return bfloat16[stop - start, dim]: frames of a stream, checksums verified.

        Args:
            recording: id or original name.
            assignment: `<main>--<other>`; the first by default.
            start: first frame; row t has heard audio before t * 80 ms.
            stop: one past the last frame; the end of the stream by default.

        Raises:
            NotFound: no such stream.
            ConfigError: the range lies outside the stream.
            CorruptData: stored bytes were altered.
        """
        stream = self.stream(recording, assignment)
        stop = stream.num_frames if stop is None else stop
        if not 0 <= start <= stop <= stream.num_frames:
            raise ConfigError(
                f"frames {start} to {stop} lie outside {recording!r}, which has"
                f" {stream.num_frames} frames"
            )
        array = self._array(layout.FEATURES, stream)
        try:
            return np.asarray(array[start:stop])
        except (ValueError, FileNotFoundError) as error:
            raise CorruptData(
                f"{self.where}: {recording!r} {stream.assignment}, frames {start} to {stop}:"
                f" {error}; restore the file"
            ) from error

    def annotations(self, recording: str) -> Annotations:
        """Return what is annotated in a recording, words included."""
        item = self.index.recording(recording)
        return read_annotations(self.folder, item.annotations_id, item.split, item.id)

    def __repr__(self) -> str:
        return f"Store({self.where!r}, generation {self.manifest.generation}, {self.index!r})"

    def _local(self) -> Path:
        if self.folder.local is None:
            raise ConfigError(f"{self.where} is remote; copy it here to read its arrays")
        return self.folder.local

    def _array(self, root: str, stream: Stream) -> "zarr.Array":
        path = layout.array(root, stream.split, stream.recording_id, stream.assignment)
        array = open_array(self._local() / path)
        dim = self.index.dim if root == layout.FEATURES else array.shape[1]
        if array.shape != (stream.num_frames, dim):
            raise CorruptData(
                f"{self.folder.describe(path)}/zarr.json: shape {array.shape}, the index says"
                f" ({stream.num_frames}, {dim}); restore it"
            )
        return array


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
    index = read_index(folder.child(layout.SHARDS), PurePosixPath(manifest.index).name)
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
