"""Samples of stock WebDataset as tensors, checked; nothing of a sample is unpickled or executed.

    shards = Path("STORE/shards").glob("train-" + "[0-9]" * 6 + ".tar")
    dataset = webdataset.WebDataset(sorted(map(str, shards))).map(laughstore.webdataset.decode)

The digits matter: `train-*.tar` are also the shards of a split `train-clean`.

WebDataset's own `.decode()` must not be used on files of others: it runs pickles.
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .codec import Codec, decode_block, member_suffix
from .errors import ConfigError, CorruptData
from .geometry import ShardGeometry
from .naming import block_key, is_path_part
from .sealed import parse_json
from .values import integer, listed, mapping, text

if TYPE_CHECKING:
    import torch

_MEMBERS: dict[str, Codec] = {member_suffix(codec): codec for codec in ("none", "zstd")}
_MAX_JSON_BYTES = 1 << 20
"""The JSON member of the widest frames takes an eighth of it."""
_CRC = re.compile(r"[0-9a-f]{8}")
_KEPT = (
    "recording",
    "assignment",
    "start_frame",
    "spec_id",
    "annotations_id",
    "events",
    "events_cut",
)
"""Of the JSON member; the rest tells how the frames are stored."""


def decode(sample: Mapping[str, Any]) -> dict[str, Any]:  # Any: bytes, and what JSON holds
    """Return one WebDataset sample of a shard with its frames as a tensor; for `.map`.

    Args:
        sample: as `webdataset.WebDataset` yields it: `__key__`, `json`, and `bf16` or `bf16.zst`.

    Returns:
        `frames`: torch.bfloat16[num_frames, dim], 12.5 frames a second, without the rows that
        fill a ragged last block; of a raw shard it shares the memory of the sample's bytes.
        `recording`, `assignment`, `start_frame`, `spec_id`, `annotations_id`, and `events` (times
        in microseconds, as of the build) or `events_cut`, as docs/format.md says; and the keys
        of WebDataset (`__key__`, `__url__`).

    Raises:
        CorruptData: a checksum, size, dtype or name does not fit, or the sample has other members;
            the message names the sample.
    """
    where = f"sample {str(sample.get('__key__'))[:160]!r}"
    members = {name: value for name, value in sample.items() if not name.startswith("__")}
    codec = _codec(members, where=where)
    about = _about(members.pop("json"), where=where)
    data = next(iter(members.values()))
    if not isinstance(data, bytes | bytearray | memoryview):
        raise CorruptData(
            f"{where}: frames are {type(data).__name__}, not bytes; map `decode` before anything"
            " else, and do not use .decode()"
        )
    geometry = _geometry(about, where=where)
    num_frames = integer(about, "num_frames", where=where, low=1, high=geometry.block_frames)
    _check_names(about, sample.get("__key__"), codec, geometry, where=where)
    crc = text(about, "crc32c", where=where)
    if not _CRC.fullmatch(crc):
        raise CorruptData(f"{where}: crc32c is {crc[:20]!r}; restore the shard")
    rows = decode_block(data, codec, geometry, where=where, expected_crc32c=int(crc, 16))
    return {
        **{name: value for name, value in sample.items() if name.startswith("__")},
        **{name: about[name] for name in _KEPT if name in about},
        "frames": _tensor(rows[:num_frames]),
    }


def _codec(members: Mapping[str, object], *, where: str) -> Codec:
    """Tell the codec by the members there are, which must be those of a store's sample."""
    for suffix, codec in _MEMBERS.items():
        if members.keys() == {"json", suffix}:
            return codec
    found = ", ".join(sorted(members))[:80]
    raise CorruptData(
        f"{where}: has the members {found}; a store's sample has json and bf16 (or bf16.zst),"
        " nothing else is opened: do not trust this file"
    )


def _about(data: object, *, where: str) -> dict[str, Any]:  # Any: JSON values
    if not isinstance(data, bytes):
        raise CorruptData(
            f"{where}: json is {type(data).__name__}, not bytes; map `decode` before anything else"
        )
    if len(data) > _MAX_JSON_BYTES:
        raise CorruptData(f"{where}: {len(data)} bytes of JSON; do not trust this file")
    return parse_json(data, where=where)


def _geometry(about: Mapping[str, object], *, where: str) -> ShardGeometry:
    shape = listed(about.get("shape"), "shape", where=where)
    if len(shape) != 2 or about.get("dtype") != "bfloat16":
        raise CorruptData(f"{where}: not bfloat16[frames, channels]; restore the shard")
    sizes = {"frames": shape[0], "channels": shape[1]}
    frames = integer(sizes, "frames", where=where, low=1)
    channels = integer(sizes, "channels", where=where, low=1)
    try:
        return ShardGeometry(channels, frames, frames)
    except ConfigError as error:
        raise CorruptData(f"{where}: shape is {shape}: {error}") from error


def _check_names(
    about: Mapping[str, Any], key: object, codec: Codec, geometry: ShardGeometry, *, where: str
) -> None:
    """Check that the JSON is that of this member: names, number of the block, codec."""
    start_frame = integer(about, "start_frame", where=where)
    recording = text(about, "recording", where=where)
    assignment = text(about, "assignment", where=where)
    block, rest = divmod(start_frame, geometry.block_frames)
    safe = is_path_part(recording) and is_path_part(assignment)
    if rest or not safe or key != block_key(recording, assignment, block):
        raise CorruptData(f"{where}: its JSON is that of another sample; restore the shard")
    if about.get("codec", "none") != codec:
        raise CorruptData(f"{where}: its JSON names another codec than its members; restore it")
    for event in listed(about.get("events", []), "events", where=where):
        mapping(event, where=where)


def _tensor(rows: NDArray[np.uint16]) -> "torch.Tensor":
    """Return the bits of bfloat16 as a tensor that shares their memory."""
    import torch

    # DLPack, because torch.from_numpy warns of read-only memory.
    return torch.from_dlpack(rows.view(np.int16)).view(torch.bfloat16)
