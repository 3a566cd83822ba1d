"""How a block of frames becomes the content of its tar member, and back.

A content is exactly one inner chunk as Zarr encodes it. `none`: the rows, little-endian, then
their CRC-32C. `zstd`: that, as one zstd frame which states its size. The checksum is of the rows
for both, so that the index says the same of a block whatever its codec.

Nothing is trusted before it is checked: the size that a frame claims is compared with the size of a
block before it is decompressed into memory of that size.
"""

from typing import Literal

import crc32c
import numpy as np
from numpy.typing import NDArray

from .errors import CorruptData
from .geometry import CRC_BYTES, ShardGeometry

Codec = Literal["none", "zstd"]
CODECS: tuple[Codec, ...] = ("none", "zstd")
ZSTD_LEVEL = 1
"""Higher levels are slower and, on activations in bfloat16, hardly smaller."""
PAD_BITS = 0x7FC0
"""bfloat16 NaN: fills the frames of a ragged last block, so that using one by mistake shows."""

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_SIZE_FIELD_BYTES = (0, 2, 4, 8)
"""Of a zstd frame's content size, by the two top bits of the descriptor (RFC 8878, 3.1.1.1)."""
_DICTIONARY_FIELD_BYTES = (0, 1, 2, 4)
_MAX_FRAME_HEADER_BYTES = 18


def member_suffix(codec: Codec) -> str:
    """Return what the tar member of a block ends with, behind `<key>.`."""
    return "bf16" if codec == "none" else "bf16.zst"


def encode_block(
    frames: NDArray[np.uint16], codec: Codec, geometry: ShardGeometry
) -> tuple[memoryview, int]:
    """Encode one block.

    Args:
        frames: u2[n, dim] bits of bfloat16, 1 <= n <= block_frames; NaN fills the rest.
        codec: how the content is stored.
        geometry: of the shard.

    Returns:
        The member's content, which shares no memory with `frames`, and the CRC-32C of the block's
        rows, fill included.
    """
    assert frames.dtype == np.uint16, "frames are the bits of bfloat16"
    assert 1 <= len(frames) <= geometry.block_frames, "a block takes 1 to block_frames frames"
    content = np.empty(geometry.content_bytes, np.uint8)
    rows = content[:-CRC_BYTES].view("<u2").reshape(geometry.block_frames, geometry.dim)
    rows[: len(frames)] = frames
    rows[len(frames) :] = PAD_BITS
    crc = crc32c.crc32c(content[:-CRC_BYTES])
    content[-CRC_BYTES:] = np.frombuffer(crc.to_bytes(CRC_BYTES, "little"), np.uint8)
    if codec == "zstd":
        from numcodecs.zstd import compress

        return memoryview(compress(content, ZSTD_LEVEL)), crc
    return memoryview(content), crc


def decode_block(
    data: bytes | bytearray | memoryview,
    codec: Codec,
    geometry: ShardGeometry,
    *,
    where: str,
    expected_crc32c: int | None = None,
) -> NDArray[np.uint16]:
    """Decode one block and check it.

    Args:
        data: the member's content, as it was read.
        codec: how it is stored.
        geometry: of the shard.
        where: begins the message of an error: file and block.
        expected_crc32c: of the rows, as the store's index has it; without it a block is only
            checked against its own checksum, and another sound block passes.

    Returns:
        u2[block_frames, dim] bits of bfloat16; for codec none a view of `data`.

    Raises:
        CorruptData: the content is no block of this geometry, or its checksum is another. At most
            one block of memory has been allocated.
    """
    content = memoryview(data).cast("B") if codec == "none" else _decompress(data, geometry, where)
    if len(content) != geometry.content_bytes:
        raise CorruptData(
            f"{where}: {len(content)} bytes, a block and its checksum have"
            f" {geometry.content_bytes}; the file was altered or cut: restore it"
        )
    stored = int.from_bytes(content[-CRC_BYTES:], "little")
    found = crc32c.crc32c(content[:-CRC_BYTES])
    for expected, source in ((stored, "stored beside it is"), (expected_crc32c, "the index says")):
        if expected is not None and found != expected:
            raise CorruptData(
                f"{where}: crc32c is {found:08x}, {source} {expected:08x}; the file was altered:"
                " restore it"
            )
    rows = np.frombuffer(content, "<u2", geometry.data_bytes // 2)
    return rows.reshape(geometry.block_frames, geometry.dim)


def _decompress(
    data: bytes | bytearray | memoryview, geometry: ShardGeometry, where: str
) -> memoryview:
    from numcodecs.zstd import decompress

    claimed = zstd_content_bytes(data)
    if claimed != geometry.content_bytes:
        says = "no size" if claimed is None else f"{claimed} bytes"
        raise CorruptData(
            f"{where}: no zstd frame of {geometry.content_bytes} bytes (it says {says}); the file"
            " was altered or cut: restore it"
        )
    content = np.empty(geometry.content_bytes, np.uint8)
    try:
        # Into memory of the right size: a frame that lies about its size, or a second one behind
        # it, ends with an error instead of more memory.
        decompress(data, content)
    except (RuntimeError, ValueError) as error:
        raise CorruptData(
            f"{where}: zstd cannot read the block ({error}); the file was altered: restore it"
        ) from error
    return memoryview(content)


def zstd_content_bytes(data: bytes | bytearray | memoryview) -> int | None:
    """Return the content size that a zstd frame's header states (RFC 8878, 3.1.1.1).

    None when it states none, asks for a dictionary, or is no zstd frame.
    """
    header = bytes(memoryview(data).cast("B")[:_MAX_FRAME_HEADER_BYTES])
    if len(header) < 5 or header[:4] != _ZSTD_MAGIC:
        return None
    descriptor = header[4]
    single_segment = bool(descriptor & 0x20)
    num_bytes = _SIZE_FIELD_BYTES[descriptor >> 6]
    if num_bytes == 0 and single_segment:
        num_bytes = 1
    if num_bytes == 0 or _DICTIONARY_FIELD_BYTES[descriptor & 3] or descriptor & 0x08:
        return None
    begin = 5 if single_segment else 6  # a window descriptor stands between
    field = header[begin : begin + num_bytes]
    if len(field) < num_bytes:
        return None
    return int.from_bytes(field, "little") + (256 if num_bytes == 2 else 0)
