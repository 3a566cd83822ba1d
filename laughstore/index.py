"""The index of a store's shards: all that reading, labelling and training need, in one file.

`shards/index-<generation>.json` never changes; `shards/index.json` is a copy of the newest. With it
the `shards/` folder stands alone: block geometry, checksums, recordings, event columns.

Blocks are numbered through the whole index, in the order of recordings, assignments and time.
The *global frame id* of frame t of a stream is `first_block * block_frames + t`: the same whatever
split is read; ids behind the ragged end of a stream's last block do not exist.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .columns import decode_array, decode_tables, encode_array, encode_tables
from .errors import ConfigError, CorruptData, NotFound
from .geometry import ShardGeometry
from .layout import INDEX_NAME
from .naming import is_path_part, shard_name
from .sealed import seal, unseal
from .spec import FeatureSpec
from .tables import RecordingTables, Vocabulary

INDEX_FORMAT = "laughstore-index"
INDEX_VERSION = 1


@dataclass(frozen=True)
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


@dataclass(frozen=True)
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


@dataclass(frozen=True)
class Shard:
    """One shard file as the index knows it."""

    name: str
    num_bytes: int
    stream: Stream
    first_block: int
    num_blocks: int


@dataclass(frozen=True, eq=False)
class Index:
    """A store's shards, recordings and annotations, without their features."""

    folder: Path
    """Where the shard files are."""
    index_id: str
    """SHA-256 of the index's content."""
    generation: int
    spec: FeatureSpec
    geometry: ShardGeometry
    recordings: tuple[Recording, ...]
    shards: tuple[Shard, ...]
    block_crc32c: NDArray[np.uint32]
    """u4[num_blocks]."""
    vocabulary: Vocabulary
    all_tables: tuple[RecordingTables, ...]
    """In the order of `recordings`."""

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

    @property
    def num_blocks(self) -> int:
        """Blocks of all splits."""
        return len(self.block_crc32c)

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
                f"{self.folder} has no split {split!r}; it has {', '.join(self.splits)}"
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
                f"{self.folder} has no recording {recording_id!r};"
                " list them with: laughstore inspect STORE --recordings"
            )
        return self.recordings[position]

    @cached_property
    def _positions(self) -> dict[str, int]:
        by_name = {recording.name: i for i, recording in enumerate(self.recordings)}
        return by_name | {recording.id: i for i, recording in enumerate(self.recordings)}

    def __repr__(self) -> str:
        frames = sum(stream.num_frames for shard in self.recordings for stream in shard.streams)
        return (
            f"Index({len(self.recordings)} recordings, {frames} frames of bfloat16[{self.dim}] at"
            f" 12.5 Hz, {len(self.shards)} shards, splits {', '.join(self.splits)})"
        )


def encode_index(
    *,
    generation: int,
    spec: FeatureSpec,
    recordings: Sequence[Recording],
    tables: Sequence[RecordingTables],
    vocabulary: Vocabulary,
    shard_bytes: Sequence[int],
    block_crc32c: Sequence[int],
) -> bytes:
    """Return the bytes of an index file.

    Args:
        generation: number of the store's generation.
        spec: of the features.
        recordings: in the order of their blocks.
        tables: of each recording.
        vocabulary: behind the codes of the tables.
        shard_bytes: size of every shard, in block order.
        block_crc32c: of every block.
    """
    geometry = ShardGeometry(spec.dim, spec.block_frames, spec.shard_frames)
    return seal(
        {
            "format": INDEX_FORMAT,
            "version": INDEX_VERSION,
            "generation": generation,
            "spec": spec.to_json(),
            "spec_id": spec.spec_id,
            "rows_per_block": geometry.rows_per_block,
            "header_rows": geometry.header_rows,
            "recordings": [_recording_json(recording) for recording in recordings],
            "shard_bytes": encode_array(np.array(shard_bytes, np.int64), "<i8"),
            "block_crc32c": encode_array(np.array(block_crc32c, np.uint32), "<u4"),
            "vocabulary": {
                "labels": list(vocabulary.labels),
                "full_labels": list(vocabulary.full_labels),
            },
            "annotations": encode_tables(tables),
        }
    )


def read_index(folder: Path, name: str = INDEX_NAME) -> Index:
    """Return the index of a `shards/` folder.

    Raises:
        NotFound: the folder or its index does not exist.
        CorruptData: the file is not what was written, or of a version this release cannot read.
    """
    path = folder / name
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(
            f"{folder} holds no {name}; give the shards folder of a finished store"
            " (STORE/shards), or finish the build with: laughstore build"
        ) from error
    content, digest = unseal(data, where=str(path))
    if content.get("format") != INDEX_FORMAT or content.get("version") != INDEX_VERSION:
        raise CorruptData(
            f"{path}: {content.get('format')} version {content.get('version')} is not readable;"
            f" this release reads {INDEX_FORMAT} version {INDEX_VERSION}"
        )
    try:
        return _parse(folder, content, digest, where=str(path))
    except (KeyError, TypeError) as error:
        raise CorruptData(f"{path}: field missing or of another kind ({error})") from error


def _parse(folder: Path, content: dict[str, Any], digest: str, *, where: str) -> Index:
    spec = FeatureSpec.from_json(content["spec"], where=where)
    geometry = ShardGeometry(spec.dim, spec.block_frames, spec.shard_frames)
    recordings: list[Recording] = []
    next_block = 0
    for item in content["recordings"]:
        recording = _parse_recording(item, geometry, next_block, where=where)
        next_block += sum(stream.num_blocks for stream in recording.streams)
        recordings.append(recording)
    streams = [stream for recording in recordings for stream in recording.streams]
    num_shards = sum(stream.num_shards for stream in streams)
    sizes = decode_array(content["shard_bytes"], "<i8", num_shards, where=f"{where}: shard_bytes")
    vocabulary = Vocabulary(
        labels=tuple(content["vocabulary"]["labels"]),
        full_labels=tuple(content["vocabulary"]["full_labels"]),
    )
    return Index(
        folder=folder,
        index_id=digest,
        generation=content["generation"],
        spec=spec,
        geometry=geometry,
        recordings=tuple(recordings),
        shards=_shards(streams, sizes.tolist(), geometry),
        block_crc32c=decode_array(
            content["block_crc32c"], "<u4", next_block, where=f"{where}: block_crc32c"
        ),
        vocabulary=vocabulary,
        all_tables=decode_tables(
            content["annotations"],
            [(recording.duration_us, recording.speakers) for recording in recordings],
            vocabulary,
            where=where,
        ),
    )


def _shards(
    streams: Sequence[Stream], sizes: Sequence[int], geometry: ShardGeometry
) -> tuple[Shard, ...]:
    shards: list[Shard] = []
    for stream in streams:
        first_block = stream.first_block
        for i in range(stream.num_shards):
            num_blocks = geometry.blocks_in_shard(stream.num_frames, i)
            name = shard_name(stream.split, stream.first_shard + i)
            shards.append(Shard(name, sizes[len(shards)], stream, first_block, num_blocks))
            first_block += num_blocks
    return tuple(shards)


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
    item: dict[str, Any], geometry: ShardGeometry, block: int, *, where: str
) -> Recording:
    num_frames = item["num_frames"]
    streams = []
    names = [item["id"], item["split"], *(stream["assignment"] for stream in item["streams"])]
    for name in names:
        if not is_path_part(name):
            raise CorruptData(f"{where}: {name!r} must not stand in a path; do not trust this file")
    for stream in item["streams"]:
        num_blocks = geometry.num_blocks(num_frames)
        streams.append(
            Stream(
                recording_id=item["id"],
                split=item["split"],
                assignment=stream["assignment"],
                main=stream["main"],
                other=stream["other"],
                num_frames=num_frames,
                first_block=block,
                num_blocks=num_blocks,
                first_shard=stream["first_shard"],
                num_shards=geometry.num_shards(num_frames),
            )
        )
        block += num_blocks
    return Recording(
        id=item["id"],
        name=item["name"],
        split=item["split"],
        group=item["group"],
        duration_us=item["duration_us"],
        num_frames=num_frames,
        annotations_id=item["annotations_id"],
        speakers=tuple(item["speakers"]),
        streams=tuple(streams),
    )
