"""Zarr v3 metadata of a store's arrays, and reading them strictly.

Metadata is made by zarr-python in memory, so that it is what zarr-python itself would write, and
saved by us, durably. A missing chunk is an error here, never fill values.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import CorruptData, NotFound
from .geometry import ShardGeometry
from .sealed import canonical_json

if TYPE_CHECKING:
    import zarr

CODE_STREAMS = 17
"""Codes of a frame: text of main, 8 codebooks of main, 8 of other (Moshi's 17 streams)."""
MISSING_CODE = -1
"""Fill value of code arrays: no code (Moshi's zero embedding)."""


def feature_array_json(
    num_frames: int, geometry: ShardGeometry, attributes: Mapping[str, object]
) -> bytes:
    """Return zarr.json of bfloat16[num_frames, dim], shards of `shard_frames`, NaN fill."""
    from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec

    from . import bfloat16 as _registers_the_dtype  # noqa: F401

    checked = [BytesCodec(endian="little"), Crc32cCodec()]
    sharding = ShardingCodec(
        chunk_shape=(geometry.block_frames, geometry.dim), codecs=checked, index_codecs=checked
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


def open_array(path: Path) -> "zarr.Array":
    """Open one of a store's arrays for reading; missing chunks raise.

    Raises:
        NotFound: there is no array.
        CorruptData: its metadata cannot be read.
    """
    import zarr

    from . import bfloat16 as _registers_the_dtype  # noqa: F401

    if not (path / "zarr.json").is_file():
        raise NotFound(f"{path} is no Zarr array; list what there is with: laughstore inspect")
    try:
        return zarr.open_array(path, mode="r", config={"read_missing_chunks": False})
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptData(f"{path}/zarr.json cannot be read ({error}); restore it") from error


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
