"""Channel statistics kept beside a store's shards: `stats/<recording id>.json`, sealed.

A file of each recording, with an entry of each of its streams, which names by digest the rows that
it was computed from. So it is good for every generation that has these rows, whatever its
annotations, and for none that has others. The files are derived: they may be deleted, and whoever
misses one computes it again.
"""

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from laughstore import layout
from laughstore.base64_arrays import decode_array, encode_array
from laughstore.errors import CorruptData, LaughstoreError, NotFound
from laughstore.files import write_atomic
from laughstore.folders import LocalFolder
from laughstore.index import Index, Stream
from laughstore.sealed import read_sealed, seal

from .moments import Moments

logger = logging.getLogger(__name__)

STATS_FORMAT = "laughstore-stats"
STATS_VERSION = 1


class KeptMoments:
    """Moments of the streams of a store, on disk.

    Nothing is kept beside a remote store, and beside a shards folder that is in no store: what is
    around it is somebody else's.

    Args:
        index: of the store's shards.
    """

    def __init__(self, index: Index) -> None:
        self._index = index
        self._store: LocalFolder | None = None
        if index.folder.local is not None:
            store = index.folder.local.absolute().parent
            if (store / layout.STORE_JSON).is_file():
                self._store = LocalFolder(store)

    @property
    def folder(self) -> Path | None:
        """Where the files are, or would be; None where none are kept."""
        return None if self._store is None else self._store.local / layout.STATS

    def read(self, streams: Iterable[Stream]) -> dict[str, Moments]:
        """Return the moments that are kept of these streams, by `stream_key`.

        A file that was altered, or that tells of other rows, is not used; the log names it.
        """
        found: dict[str, Moments] = {}
        for recording_id, its in _by_recording(streams).items():
            try:
                found |= self._read(recording_id, its)
            except NotFound:
                continue
            except (LaughstoreError, OSError, KeyError, TypeError, AttributeError) as error:
                logger.warning("statistics are computed again: %s", error)
        return found

    def write(self, found: Mapping[str, Moments]) -> bool:
        """Keep moments, by `stream_key`; what is kept of the same recordings stays, if it is sound.

        Each file is replaced in one step. Processes that write the same one write the same numbers.

        Returns:
            Whether they are kept; where they cannot be written, the log says why.
        """
        if self._store is None:
            return False
        streams = [
            stream
            for recording in self._index.recordings
            for stream in recording.streams
            if stream_key(stream) in found
        ]
        for recording_id, some in _by_recording(streams).items():
            path = layout.stats(recording_id)
            its = self._index.recording(recording_id).streams
            left = [item for item in its if item not in some]
            kept = {**self.read(left), **found}
            data = seal(
                self._content(recording_id, [i for i in its if stream_key(i) in kept], kept)
            )
            try:
                write_atomic(self._store.path(path), data)
            except (OSError, CorruptData) as error:  # CorruptData: a link leads elsewhere
                where = self._store.describe(path)
                logger.info("statistics are not kept: %s cannot be written (%s)", where, error)
                return False
        return True

    def _content(
        self, recording_id: str, streams: Sequence[Stream], moments: Mapping[str, Moments]
    ) -> dict[str, Any]:  # Any: JSON values
        return {
            "format": STATS_FORMAT,
            "version": STATS_VERSION,
            "recording": recording_id,
            "spec_id": self._index.spec_id,
            "streams": {
                stream.assignment: {
                    "features": self._digest(stream),
                    **encode_moments(moments[stream_key(stream)]),
                }
                for stream in streams
            },
        }

    def _read(self, recording_id: str, streams: Sequence[Stream]) -> dict[str, Moments]:
        if self._store is None:
            return {}
        path = layout.stats(recording_id)
        where = self._store.describe(path)
        content, _ = read_sealed(self._store, path)
        if (content["format"], content["version"]) != (STATS_FORMAT, STATS_VERSION):
            raise CorruptData(f"{where}: not of this release")
        if (content["recording"], content["spec_id"]) != (recording_id, self._index.spec_id):
            raise CorruptData(f"{where}: of another recording, or of other features")
        found: dict[str, Moments] = {}
        for stream in streams:
            item = content["streams"].get(stream.assignment)
            if item is None:
                continue
            if (item["features"], item["n"]) != (self._digest(stream), stream.num_frames):
                raise CorruptData(f"{where}: {stream.assignment}: of other features")
            found[stream_key(stream)] = decode_moments(item, self._index.dim, where=where)
        return found

    def _digest(self, stream: Stream) -> str:
        """SHA-256 of the checksums of a stream's blocks: other rows have another."""
        last = stream.first_block + stream.num_blocks
        checksums = self._index.block_crc32c[stream.first_block : last]
        return hashlib.sha256(checksums.astype("<u4").tobytes()).hexdigest()


def stream_key(stream: Stream) -> str:
    """Return `<recording id>/<assignment>`."""
    return f"{stream.recording_id}/{stream.assignment}"


def encode_moments(moments: Moments) -> dict[str, Any]:  # Any: JSON values
    """Return a JSON object that tells every bit."""
    return {
        "n": moments.n,
        "mean": encode_array(moments.mean, "<f8"),
        "m2": encode_array(moments.m2, "<f8"),
    }


def decode_moments(item: Mapping[str, Any], dim: int, *, where: str) -> Moments:  # Any: JSON values
    """Return what `encode_moments` was given.

    Raises:
        CorruptData, KeyError, TypeError: it is none.
    """
    moments = Moments(
        n=int(item["n"]),
        mean=decode_array(item["mean"], "<f8", dim, where=where),
        m2=decode_array(item["m2"], "<f8", dim, where=where),
    )
    if not moments.finite or (moments.m2 < 0).any():
        raise CorruptData(f"{where}: holds numbers that are no mean and spread")
    return moments


def _by_recording(streams: Iterable[Stream]) -> dict[str, list[Stream]]:
    found: dict[str, list[Stream]] = {}
    for stream in streams:
        found.setdefault(stream.recording_id, []).append(stream)
    return found
