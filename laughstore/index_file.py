"""Write and read the file of an index: a sealed JSON header beside a file of columns."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import layout
from .columns import Columns, encode_columns
from .errors import CorruptData, NotFound
from .folders import Folder, LocalFolder
from .geometry import ShardGeometry
from .index import SHA256_BYTES, Index, Recording, Stream
from .sealed import read_sealed, seal
from .spec import FeatureSpec
from .table_columns import table_arrays
from .tables import RecordingTables, Vocabulary
from .values import MAX_FRAMES, integer, listed, mapping, optional_text, path_part, text, texts

INDEX_FORMAT = "laughstore-index"
INDEX_VERSION = 1


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
        ("shard_sha256", "|u1", index.num_shards * SHA256_BYTES),
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
