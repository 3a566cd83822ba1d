"""Zarr v3 metadata of a store's arrays, and reading them strictly.

Metadata is made by zarr-python in memory, so that it is what zarr-python itself would write, and
saved by us, durably. A missing chunk is an error here, never fill values.
"""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from .codec import ZSTD_LEVEL, Codec
from .errors import CorruptData, NotFound
from .folders import Folder
from .geometry import ShardGeometry
from .sealed import canonical_json, parse_json, read_small

if TYPE_CHECKING:
    import zarr
    from zarr.abc.store import Store

CODE_STREAMS = 17
"""Codes of a frame: text of main, 8 codebooks of main, 8 of other (Moshi's 17 streams)."""
MISSING_CODE = -1
"""Fill value of code arrays: no code (Moshi's zero embedding)."""


def feature_array_json(
    num_frames: int,
    geometry: ShardGeometry,
    attributes: Mapping[str, object],
    codec: Codec = "none",
) -> bytes:
    """Return zarr.json of bfloat16[num_frames, dim], shards of `shard_frames`, NaN fill."""
    from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec, ZstdCodec

    from . import bfloat16 as _registers_the_dtype  # noqa: F401

    checked = [BytesCodec(endian="little"), Crc32cCodec()]
    # No checksum of zstd's own: the CRC-32C of the rows is inside.
    zstd = [] if codec == "none" else [ZstdCodec(level=ZSTD_LEVEL, checksum=False)]
    sharding = ShardingCodec(
        chunk_shape=(geometry.block_frames, geometry.dim),
        codecs=[*checked, *zstd],
        index_codecs=checked,
    )
    return _array_json(
        shape=(num_frames, geometry.dim),
        chunks=(geometry.shard_frames, geometry.dim),
        dtype="bfloat16",
        serializer=sharding,
        compressors=None,
        fill_value=float("nan"),
        dimension_names=("frame", "channel"),
        attributes=dict(attributes),
    )


def code_array_json(
    num_frames: int, geometry: ShardGeometry, attributes: Mapping[str, object]
) -> bytes:
    """Return zarr.json of int16[num_frames, 17], one chunk for each feature shard."""
    from zarr.codecs import BytesCodec, Crc32cCodec

    return _array_json(
        shape=(num_frames, CODE_STREAMS),
        chunks=(geometry.shard_frames, CODE_STREAMS),
        dtype="int16",
        serializer=BytesCodec(endian="little"),
        compressors=(Crc32cCodec(),),
        fill_value=MISSING_CODE,
        dimension_names=("frame", "stream"),
        attributes=dict(attributes),
    )


def group_json() -> bytes:
    """Return zarr.json of a group without attributes."""
    return b'{"attributes":{},"node_type":"group","zarr_format":3}\n'


def check_array_json(folder: Folder, path: str, expected: bytes) -> bytes:
    """Check that a store's zarr.json says what was written, before zarr reads or allocates by it.

    Returns its bytes: zarr must read these, for a server may send others when asked again.

    Args:
        folder: of the store.
        path: of the zarr.json in it.
        expected: what `feature_array_json` or `code_array_json` makes; attributes may differ.

    Raises:
        CorruptData: a field differs, or the file is missing or unreadable; the message names it.
    """
    where = folder.describe(path)
    try:
        data = read_small(folder, path)
        found = parse_json(data, where=where)
    except NotFound as error:
        raise CorruptData(f"{where} is missing; restore it") from error
    wanted = parse_json(expected, where=where)
    for key in sorted((wanted.keys() | found.keys()) - {"attributes"}):
        mine, theirs = canonical_json(wanted.get(key)), canonical_json(found.get(key))
        if mine != theirs:
            raise CorruptData(
                f"{where}: {key} is {theirs.decode()[:80]}, the index says {mine.decode()[:80]};"
                " restore the file"
            )
    return data


def open_array(store: "Store", *, where: str) -> "zarr.Array":
    """Open the array at the root of a Zarr store for reading; missing chunks raise.

    Args:
        store: whose metadata `check_array_json` has seen.
        where: begins the message of an error.

    Raises:
        CorruptData: its metadata cannot be read.
    """
    import zarr

    from . import bfloat16 as _registers_the_dtype  # noqa: F401

    try:
        return zarr.open_array(store, mode="r", config={"read_missing_chunks": False})
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptData(f"{where} cannot be read ({error}); restore it") from error


def _array_json(**settings: object) -> bytes:
    import zarr
    from zarr.core.buffer import default_buffer_prototype
    from zarr.core.sync import sync
    from zarr.storage import MemoryStore

    store = MemoryStore()
    zarr.create_array(  # pyright: ignore[reportCallIssue]
        store,
        filters=None,
        zarr_format=3,
        **settings,  # pyright: ignore[reportArgumentType]
    )
    data = sync(store.get("zarr.json", default_buffer_prototype()))
    assert data is not None, "zarr-python wrote no metadata"
    return canonical_json(json.loads(data.to_bytes())) + b"\n"
