"""The index of a store's shards: all that reading, labelling and training need.

`shards/index-<generation>.json` never changes; `shards/index.json` is a copy of the newest. With it
and its columns the `shards/` folder stands alone: geometry, checksums, recordings, event columns.

Blocks are numbered through the whole index, in the order of recordings, assignments and time.
The *global frame id* of frame t of a stream is `first_block * block_frames + t`: the same whatever
split is read; ids behind the ragged end of a stream's last block do not exist.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import layout
from .columns import Columns, encode_columns
from .errors import ConfigError, CorruptData, NotFound
from .folders import Folder, LocalFolder
from .geometry import CRC_BYTES, ShardGeometry
from .naming import shard_name
from .sealed import read_sealed, seal
from .spec import FeatureSpec
from .table_columns import read_tables, table_arrays
from .tables import RecordingTables, Vocabulary
from .timebase import FRAME_US, FRAMES_PER_SECOND, US_PER_SECOND
from .values import MAX_FRAMES, integer, listed, mapping, optional_text, path_part, text, texts

INDEX_FORMAT = "laughstore-index"
INDEX_VERSION = 1
_SHA256_BYTES = 32


@dataclass(frozen=True, slots=True)
class Stream:
    """One recording with its roles assigned: whose events are predicted (main), who else speaks."""

    recording_id: str
    split: str
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

    What is large (sizes, checksums, annotation columns) is read from `columns` at first use.
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

    @cached_property
    def block_crc32c(self) -> NDArray[np.uint32]:
        """u4[num_blocks]: CRC-32C of the rows of every block."""
        return self.columns.read(["block_crc32c"])["block_crc32c"]

    @cached_property
    def block_bytes(self) -> NDArray[np.uint32]:
        """u4[num_blocks]: bytes of every block as stored, its checksum included."""
        if self.spec.codec != "none":
            return self.columns.read(["block_bytes"])["block_bytes"]
        return np.full(self.num_blocks, self.geometry.data_bytes + CRC_BYTES, np.uint32)

    @cached_property
    def shard_bytes(self) -> NDArray[np.int64]:
        """i8[num_shards]: size of every shard file."""
        return self.columns.read(["shard_bytes"])["shard_bytes"]

    @cached_property
    def shard_sha256(self) -> tuple[str, ...]:
        """SHA-256 of every shard file, as hex digits."""
        digests = self.columns.read(["shard_sha256"])["shard_sha256"].reshape(-1, _SHA256_BYTES)
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

    @cached_property
    def all_tables(self) -> tuple[RecordingTables, ...]:
        """Annotations as columns, in the order of `recordings`."""
        return read_tables(
            self.columns,
            [(recording.duration_us, recording.speakers) for recording in self.recordings],
            self.vocabulary,
            where=self.where,
        )

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
        self.check_split(split)
        return tuple(shard for shard in self.shards if shard.stream.split == split)

    def check_split(self, split: str) -> None:
        """Raise a ConfigError, naming the splits there are, unless `split` is one of them."""
        if split not in self.splits:
            raise ConfigError(
                f"{self.where} has no split {split!r}; it has {', '.join(self.splits)}"
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


def encode_index(
    *,
    generation: int,
    spec: FeatureSpec,
    recordings: Sequence[Recording],
    tables: Sequence[RecordingTables],
    vocabulary: Vocabulary,
    shard_bytes: Sequence[int],
    shard_sha256: Sequence[str],
    block_crc32c: Sequence[int],
    block_bytes: Sequence[int] | None = None,
) -> tuple[bytes, bytes]:
    """Return the bytes of an index file and of its columns.

    Args:
        generation: number of the store's generation.
        spec: of the features.
        recordings: in the order of their blocks.
        tables: of each recording.
        vocabulary: behind the codes of the tables.
        shard_bytes: size of every shard, in block order.
        shard_sha256: of every shard, hex digits.
        block_crc32c: of the rows of every block.
        block_bytes: size of every block as stored; None when no codec changes it.
    """
    geometry = ShardGeometry(spec.dim, spec.block_frames, spec.shard_frames)
    digests = np.frombuffer(bytes.fromhex("".join(shard_sha256)), np.uint8)
    arrays: dict[str, NDArray[Any]] = {
        "shard_bytes": np.array(shard_bytes, np.int64),
        "shard_sha256": digests,
        "block_crc32c": np.array(block_crc32c, np.uint32),
    }
    if block_bytes is not None:
        arrays["block_bytes"] = np.array(block_bytes, np.uint32)
    name = PurePosixPath(layout.columns(generation)).name
    columns, directory = encode_columns(name, arrays | table_arrays(tables))
    header = seal(
        {
            "format": INDEX_FORMAT,
            "version": INDEX_VERSION,
            "generation": generation,
            "spec": spec.to_json(),
            "spec_id": spec.spec_id,
            "rows_per_block": geometry.rows_per_block,
            "header_rows": geometry.header_rows,
            "recordings": [_recording_json(recording) for recording in recordings],
            "vocabulary": {
                "labels": list(vocabulary.labels),
                "full_labels": list(vocabulary.full_labels),
            },
            "columns": directory,
        }
    )
    return header, columns


def read_index(folder: Path | Folder, name: str = layout.INDEX_NAME) -> Index:
    """Return the index of a `shards/` folder.

    Raises:
        NotFound: the folder or its index does not exist.
        CorruptData: the file is not what was written, or of a version this release cannot read.
    """
    folder = LocalFolder(folder) if isinstance(folder, Path) else folder
    where = folder.describe(name)
    try:
        content, digest = read_sealed(folder, name)
    except NotFound as error:
        raise NotFound(
            f"{folder.describe()} holds no {name}; give the shards folder of a finished store"
            " (STORE/shards), or finish the build with: laughstore build"
        ) from error
    if content.get("format") != INDEX_FORMAT or content.get("version") != INDEX_VERSION:
        raise CorruptData(
            f"{where}: {content.get('format')} version {content.get('version')} is not readable;"
            f" this release reads {INDEX_FORMAT} version {INDEX_VERSION}"
        )
    return _parse(folder, content, digest, where=where)


def _parse(folder: Folder, content: dict[str, Any], digest: str, *, where: str) -> Index:
    spec = FeatureSpec.from_json(mapping(content.get("spec"), where=where), where=where)
    geometry = ShardGeometry(spec.dim, spec.block_frames, spec.shard_frames)
    recordings: list[Recording] = []
    num_blocks = 0
    for item in listed(content.get("recordings"), "recordings", where=where):
        recording = _parse_recording(mapping(item, where=where), geometry, num_blocks, where=where)
        num_blocks += sum(stream.num_blocks for stream in recording.streams)
        recordings.append(recording)
    vocabulary = mapping(content.get("vocabulary"), where=where)
    index = Index(
        folder=folder,
        index_id=digest,
        generation=integer(content, "generation", where=where, low=1),
        spec=spec,
        geometry=geometry,
        recordings=tuple(recordings),
        vocabulary=Vocabulary(
            labels=texts(vocabulary.get("labels"), "labels", where=where),
            full_labels=texts(vocabulary.get("full_labels"), "full_labels", where=where),
        ),
        columns=Columns(folder, content.get("columns"), where=where),
        num_blocks=num_blocks,
        num_shards=sum(s.num_shards for recording in recordings for s in recording.streams),
    )
    _check_counts(index, where=where)
    _check_derived(content, index, where=where)
    return index


def _check_counts(index: Index, *, where: str) -> None:
    """Check that what recordings promise is what the columns hold, before anything is allocated."""
    promised = [
        ("shard_bytes", "<i8", index.num_shards),
        ("shard_sha256", "|u1", index.num_shards * _SHA256_BYTES),
        ("block_crc32c", "<u4", index.num_blocks),
    ]
    if index.spec.codec != "none":
        promised.append(("block_bytes", "<u4", index.num_blocks))
    for key, dtype, count in promised:
        found = index.columns.count(key, dtype)
        if found != count:
            raise CorruptData(f"{where}: {key} has {found} items, recordings promise {count}")
    ids = {recording.id for recording in index.recordings}
    if len(ids) != len(index.recordings):
        raise CorruptData(f"{where}: a recording's id occurs twice; do not trust this file")
    streams = [stream for recording in index.recordings for stream in recording.streams]
    runs = sorted((s.split, s.first_shard, s.first_shard + s.num_shards) for s in streams)
    for (split, _, end), (next_split, start, _) in pairwise(runs):
        if split == next_split and start < end:
            raise CorruptData(f"{where}: two streams share shard {start} of {split!r}; restore it")


def _check_derived(content: Mapping[str, object], index: Index, *, where: str) -> None:
    """Check what the index states and what follows from its spec: they must be the same."""
    derived = {
        "spec_id": index.spec.spec_id,
        "header_rows": index.geometry.header_rows,
        "rows_per_block": index.geometry.rows_per_block,
    }
    for name, value in derived.items():
        if content.get(name) != value:
            shown = str(content.get(name))[:40]
            raise CorruptData(f"{where}: {name} is {shown}, its spec gives {value}; restore it")


def _recording_json(recording: Recording) -> dict[str, object]:
    return {
        "id": recording.id,
        "name": recording.name,
        "split": recording.split,
        "group": recording.group,
        "duration_us": recording.duration_us,
        "num_frames": recording.num_frames,
        "annotations_id": recording.annotations_id,
        "speakers": list(recording.speakers),
        "streams": [
            {
                "assignment": stream.assignment,
                "main": stream.main,
                "other": stream.other,
                "first_shard": stream.first_shard,
            }
            for stream in recording.streams
        ],
    }


def _parse_recording(
    item: Mapping[str, Any], geometry: ShardGeometry, block: int, *, where: str
) -> Recording:
    num_frames = integer(item, "num_frames", where=where, low=1, high=MAX_FRAMES)
    num_blocks, num_shards = geometry.num_blocks(num_frames), geometry.num_shards(num_frames)
    recording_id = path_part(item, "id", where=where)
    split = path_part(item, "split", where=where)
    streams: list[Stream] = []
    for entry in listed(item.get("streams"), "streams", where=where):
        stream = mapping(entry, where=where)
        streams.append(
            Stream(
                recording_id=recording_id,
                split=split,
                assignment=path_part(stream, "assignment", where=where),
                main=text(stream, "main", where=where),
                other=optional_text(stream, "other", where=where),
                num_frames=num_frames,
                first_block=block,
                num_blocks=num_blocks,
                first_shard=integer(stream, "first_shard", where=where),
                num_shards=num_shards,
            )
        )
        block += num_blocks
    if not streams or len({stream.assignment for stream in streams}) != len(streams):
        raise CorruptData(f"{where}: {recording_id} has no streams, or one twice; restore it")
    return Recording(
        id=recording_id,
        name=text(item, "name", where=where),
        split=split,
        group=text(item, "group", where=where),
        duration_us=integer(item, "duration_us", where=where),
        num_frames=num_frames,
        annotations_id=path_part(item, "annotations_id", where=where),
        speakers=texts(item.get("speakers"), "speakers", where=where),
        streams=tuple(streams),
    )


def _length(num_frames: int, of: str = "") -> str:
    hours = num_frames * FRAME_US / US_PER_SECOND / 3600
    return f"{num_frames} frames{of} at {FRAMES_PER_SECOND:g} Hz ({hours:.2f} h)"
