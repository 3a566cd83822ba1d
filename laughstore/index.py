"""The index of a store's shards: all that reading, labelling and training need.

`shards/index-<generation>.json` never changes; `shards/index.json` is a copy of the newest. With it
and its columns the `shards/` folder stands alone: geometry, checksums, recordings, event columns.

Blocks are numbered through the whole index, in the order of recordings, assignments and time.
The *global frame id* of frame t of a stream is `first_block * block_frames + t`: the same whatever
split is read; ids behind the ragged end of a stream's last block do not exist.
"""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import layout
from .columns import Columns
from .errors import ConfigError, CorruptData, NotFound
from .folders import Folder
from .geometry import CRC_BYTES, ShardGeometry
from .naming import shard_name
from .sealed import read_sealed
from .spec import FeatureSpec
from .table_columns import read_tables
from .tables import RecordingTables, Vocabulary
from .timebase import FRAME_US, FRAMES_PER_SECOND, US_PER_SECOND

SHA256_BYTES = 32


@dataclass(frozen=True, slots=True)
class Stream:
    """One recording with its roles assigned: whose events are predicted (main), who else speaks."""

    recording_id: str
    split: str
    """That its shards are named after; of the recording's split, see `Recording`."""
    assignment: str
    """Name in paths: `<main>--<other>`."""
    main: str
    other: str | None
    """None: the other party is silence."""
    num_frames: int
    first_block: int
    """Global number of its first block."""
    num_blocks: int
    first_shard: int
    """Number of its first shard in its split; the others follow."""
    num_shards: int

    def __repr__(self) -> str:
        return (
            f"Stream({self.recording_id!r}, {self.assignment!r}: {_length(self.num_frames)},"
            f" split {self.split})"
        )


@dataclass(frozen=True, slots=True)
class Recording:
    """One episode of the data set."""

    id: str
    name: str
    """As in the data set."""
    split: str
    group: str
    """Show: recordings of a group belong to one split."""
    duration_us: int
    num_frames: int
    annotations_id: str
    speakers: tuple[str, ...]
    """Longest speaking first, then others that annotations mention."""
    streams: tuple[Stream, ...]

    def __repr__(self) -> str:
        assignments = ", ".join(stream.assignment for stream in self.streams)
        return (
            f"Recording({self.name!r}, id {self.id}: {_length(self.num_frames)},"
            f" assignments {assignments}, split {self.split})"
        )


class Shard(NamedTuple):
    """One shard file as the index knows it."""

    number: int
    """In its split."""
    num_bytes: int
    stream: Stream
    first_block: int
    """Global number of its first block."""
    num_blocks: int

    @property
    def name(self) -> str:
        """Of the file in `shards/`."""
        return shard_name(self.stream.split, self.number)


@dataclass(frozen=True, eq=False)
class Index:
    """A store's shards, recordings and annotations, without their features.

    What is large (sizes, checksums, annotation columns) is read from `columns` at first use, and
    kept. When `gc` has collected this generation meanwhile, that raises NotFound.
    """

    folder: Folder
    """Where the shard files are."""
    index_id: str
    """SHA-256 of the index's content."""
    generation: int
    spec: FeatureSpec
    geometry: ShardGeometry
    recordings: tuple[Recording, ...]
    vocabulary: Vocabulary
    columns: Columns
    num_blocks: int
    """Blocks of all splits."""
    num_shards: int
    """Shards of all splits."""
    other_tables: tuple[RecordingTables, ...] | None = field(default=None, repr=False)
    """Annotations used instead of the index's own, in the order of `recordings`; made by
    `laughstore.other_annotations`. Ids of the index and of annotations are still the store's."""

    @cached_property
    def block_crc32c(self) -> NDArray[np.uint32]:
        """u4[num_blocks]: CRC-32C of the rows of every block."""
        return self._column("block_crc32c")

    @cached_property
    def block_bytes(self) -> NDArray[np.uint32]:
        """u4[num_blocks]: bytes of every block as stored, its checksum included."""
        if self.spec.codec != "none":
            return self._column("block_bytes")
        return np.full(self.num_blocks, self.geometry.data_bytes + CRC_BYTES, np.uint32)

    @cached_property
    def shard_bytes(self) -> NDArray[np.int64]:
        """i8[num_shards]: size of every shard file."""
        return self._column("shard_bytes")

    @cached_property
    def shard_sha256(self) -> tuple[str, ...]:
        """SHA-256 of every shard file, as hex digits."""
        digests = self._column("shard_sha256").reshape(-1, SHA256_BYTES)
        return tuple(digest.tobytes().hex() for digest in digests)

    @cached_property
    def shards(self) -> tuple[Shard, ...]:
        """All shards, in block order."""
        shards: list[Shard] = []
        sizes = self.shard_bytes.tolist()
        for recording in self.recordings:
            for stream in recording.streams:
                block = stream.first_block
                for i in range(stream.num_shards):
                    num_blocks = self.geometry.blocks_in_shard(stream.num_frames, i)
                    size = sizes[len(shards)]
                    shards.append(Shard(stream.first_shard + i, size, stream, block, num_blocks))
                    block += num_blocks
        return tuple(shards)

    @property
    def mains(self) -> frozenset[str]:
        """Main speakers of all streams; `MIX` is among them if there are mixes."""
        return frozenset(stream.main for item in self.recordings for stream in item.streams)

    @cached_property
    def all_tables(self) -> tuple[RecordingTables, ...]:
        """Annotations as columns, in the order of `recordings`."""
        if self.other_tables is not None:
            return self.other_tables
        try:
            return read_tables(
                self.columns,
                [(recording.duration_us, recording.speakers) for recording in self.recordings],
                self.vocabulary,
                where=self.where,
            )
        except NotFound:
            self.check_kept()
            raise

    @property
    def where(self) -> str:
        """Where the shard files are, for messages."""
        return self.folder.describe()

    @property
    def spec_id(self) -> str:
        """Of the features in the shards."""
        return self.spec.spec_id

    @property
    def dim(self) -> int:
        """Channels of a frame."""
        return self.geometry.dim

    @property
    def block_frames(self) -> int:
        """Frames in a block."""
        return self.geometry.block_frames

    @cached_property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits, in the order in which they appear."""
        return tuple(dict.fromkeys(recording.split for recording in self.recordings))

    def streams(self, split: str) -> tuple[Stream, ...]:
        """Return the streams of a split, in block order.

        Raises:
            ConfigError: there is no such split; the message names those there are.
        """
        self.check_split(split)
        return tuple(
            stream
            for recording in self.recordings
            if recording.split == split
            for stream in recording.streams
        )

    def split_shards(self, split: str) -> tuple[Shard, ...]:
        """Return the shards of a split, in block order."""
        # By recording: where folds changed its split, its files keep the names that they have.
        ids = {stream.recording_id for stream in self.streams(split)}
        return tuple(shard for shard in self.shards if shard.stream.recording_id in ids)

    def check_split(self, split: str) -> None:
        """Raise a ConfigError, naming the splits there are, unless `split` is one of them."""
        if split not in self.splits:
            raise ConfigError(
                f"{self.where} has no split {split!r}; it has {', '.join(self.splits)}"
            )

    def check_kept(self) -> None:
        """Raise NotFound if this generation was collected since it was opened.

        Called when one of its files is missing, so that nobody is told to restore it.
        """
        name = PurePosixPath(layout.index(self.generation)).name
        if self.folder.exists(name):
            return
        try:
            newest, _ = read_sealed(self.folder, layout.INDEX_NAME)
        except (NotFound, CorruptData):
            return
        if newest.get("generation") != self.generation:
            raise NotFound(
                f"{self.where}: generation {self.generation} was collected (laughstore gc) after it"
                " was opened; open the store again"
            )

    def tables(self, recording: Recording) -> RecordingTables:
        """Return a recording's annotations as columns."""
        return self.all_tables[self._positions[recording.id]]

    def recording(self, recording_id: str) -> Recording:
        """Return the recording with this id (or original name).

        Raises:
            NotFound: there is none.
        """
        position = self._positions.get(recording_id)
        if position is None:
            raise NotFound(
                f"{self.where} has no recording {recording_id!r};"
                " list them with: laughstore inspect STORE --recordings"
            )
        return self.recordings[position]

    def stream(self, recording: str, assignment: str | None = None) -> Stream:
        """Return a stream by recording id or name, and assignment (default: the first).

        Raises:
            NotFound: there is no such recording or assignment.
        """
        streams = self.recording(recording).streams
        for stream in streams:
            if assignment in (None, stream.assignment):
                return stream
        names = ", ".join(stream.assignment for stream in streams)
        raise NotFound(f"{recording!r} has no assignment {assignment!r}; it has {names}")

    def _column(self, key: str) -> NDArray[Any]:  # Any: the column's own dtype
        try:
            return self.columns.read([key])[key]
        except NotFound:
            self.check_kept()
            raise

    @cached_property
    def _positions(self) -> dict[str, int]:
        by_name = {recording.name: i for i, recording in enumerate(self.recordings)}
        return by_name | {recording.id: i for i, recording in enumerate(self.recordings)}

    def __repr__(self) -> str:
        frames = sum(stream.num_frames for item in self.recordings for stream in item.streams)
        return (
            f"Index({len(self.recordings)} recordings,"
            f" {_length(frames, f' of bfloat16[{self.dim}]')}, {self.num_shards} shards,"
            f" splits {', '.join(self.splits)})"
        )


def _length(num_frames: int, of: str = "") -> str:
    hours = num_frames * FRAME_US / US_PER_SECOND / 3600
    return f"{num_frames} frames{of} at {FRAMES_PER_SECOND:g} Hz ({hours:.2f} h)"
