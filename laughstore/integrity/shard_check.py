"""Take an altered shard apart: which of its bytes are not what was written, and whose.

Everything in a shard but the rows follows from the index: headers and padding byte for byte, the
JSON of a sample too where the annotations of its build are at hand. Rows are checked against their
CRC-32C in the index.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import crc32c
import numpy as np

from ..annotations import Annotations
from ..codec import decode_block, member_suffix
from ..errors import CorruptData
from ..folders import Folder
from ..geometry import CRC_BYTES, TAR_BLOCK, ShardGeometry
from ..index import Index, Shard
from ..naming import block_key
from ..sample_events import EVENTS_AFTER_US, EVENTS_BEFORE_US
from ..sealed import canonical_json, parse_json
from ..shard import PREAMBLE_NAME, fit_json, tar_header, zarr_index
from ..timebase import FRAME_US


@dataclass(frozen=True, slots=True)
class Damage:
    """A stretch of a shard that is not what was written."""

    what: str
    start: int
    stop: int
    """One past its last byte, as far as is known."""
    sample: str | None = None
    in_rows: bool = False
    """Whether the rows of the sample, or their checksum beside them, cannot be read as written."""


@dataclass(frozen=True)
class ShardView:
    """A shard as an index describes it."""

    index: Index
    shard: Shard

    @property
    def geometry(self) -> ShardGeometry:
        """Of the shard."""
        return self.index.geometry

    @property
    def block_bytes(self) -> list[int]:
        """Encoded size of each block."""
        first = self.shard.first_block
        return self.index.block_bytes[first : first + self.shard.num_blocks].tolist()

    @property
    def block_crc32c(self) -> list[int]:
        """CRC-32C of the rows of each block."""
        first = self.shard.first_block
        return self.index.block_crc32c[first : first + self.shard.num_blocks].tolist()

    @property
    def num_bytes(self) -> int:
        """Size that the file has according to the sizes of its blocks."""
        if self.index.spec.codec == "none":
            return self.geometry.shard_bytes(self.shard.num_blocks)
        return self.geometry.encoded_shard_bytes(self.block_bytes)

    @property
    def tail(self) -> bytes:
        """The last bytes of the file: the Zarr index."""
        return zarr_index(self.geometry, self.block_bytes)

    def key(self, block: int) -> str:
        """Return the key of block `block` of the shard."""
        stream = self.shard.stream
        number = self.shard.first_block - stream.first_block + block
        return block_key(stream.recording_id, stream.assignment, number)

    def keys(self) -> list[str]:
        """Return the keys of all blocks."""
        return [self.key(block) for block in range(self.shard.num_blocks)]


def take_apart(
    folder: Folder,
    path: str,
    num_bytes: int,
    view: ShardView,
    annotations: Annotations | None = None,
) -> Iterator[Damage]:
    """Yield every stretch of a shard file that is not what was written, in the order of the file.

    At most one block is in memory at a time.

    Args:
        folder: of the file.
        path: of the file.
        num_bytes: that it has.
        view: what it should hold.
        annotations: of its recording as of the build; without them, or when the samples name
            others, a change of the events in a sample's JSON that leaves sound JSON is not found
            here.
    """
    geometry, sizes = view.geometry, view.block_bytes
    offsets = geometry.block_offsets(sizes).tolist()
    if annotations is not None and _is_of_others(folder, path, view, annotations):
        annotations = None
    begin, gone = 0, 0
    for block, (offset, size, crc) in enumerate(
        zip(offsets, sizes, view.block_crc32c, strict=True)
    ):
        if offset + size > num_bytes:
            gone += 1
            yield Damage("the block is cut off", offset, offset + size, view.key(block), True)
            continue
        end = min(offset + size + -size % TAR_BLOCK, num_bytes)
        try:
            data = memoryview(folder.read_range(path, begin, end - begin))
        except (CorruptData, OSError) as error:
            yield Damage(f"cannot be read ({error})", begin, end, view.key(block), True)
        else:
            head = data[: offset - begin]
            yield from _headers(head, begin, view, block, crc, annotations)
            yield from _content(data[offset - begin :], offset, size, view, block, crc)
        begin = offset + size + -size % TAR_BLOCK
    if num_bytes < view.num_bytes:
        what = f"cut: {num_bytes} of {view.num_bytes} bytes, {gone} blocks are gone"
        yield Damage(what, num_bytes, view.num_bytes)
        return
    yield from _end(folder, path, begin, view)
    if num_bytes > view.num_bytes:
        extra = num_bytes - view.num_bytes
        yield Damage(f"{extra} bytes too many behind its end", view.num_bytes, num_bytes)


def _is_of_others(folder: Folder, path: str, view: ShardView, annotations: Annotations) -> bool:
    """Whether a sample says that the shard was built with other annotations, as in an export."""
    geometry = view.geometry
    offsets = geometry.block_offsets(view.block_bytes).tolist()
    for block, (offset, crc) in enumerate(zip(offsets, view.block_crc32c, strict=True)):
        start = offset - TAR_BLOCK - geometry.json_bytes
        try:
            data = folder.read_range(path, start, geometry.json_bytes)
        except (CorruptData, OSError):
            continue
        sample = _sample(view, block, crc)
        if not _is_sound_json(data, sample, geometry.json_bytes):
            continue
        expected = fit_json(sample, _events(annotations, sample), geometry.json_bytes)
        found, ours = parse_json(data, where=path), sample["annotations_id"]
        if (
            found.get("annotations_id") == ours
            or found.keys() != parse_json(expected, where=path).keys()
        ):
            continue
        # Where nothing but the id differs it was altered: others have other events.
        found["annotations_id"] = ours
        if canonical_json(found).ljust(geometry.json_bytes) != expected:
            return True
    return False


def _headers(
    data: memoryview,
    start: int,
    view: ShardView,
    block: int,
    crc: int,
    annotations: Annotations | None,
) -> Iterator[Damage]:
    """Compare what stands before a block's content: tar headers and JSON."""
    key, geometry = view.key(block), view.geometry
    preamble = tar_header(PREAMBLE_NAME, 0) if block == 0 else b""
    before = preamble + tar_header(f"{key}.json", geometry.json_bytes)
    yield from _compare(data[: len(before)], before, start, "the tar header of its JSON", key)
    sample = _sample(view, block, crc)
    end = len(before) + geometry.json_bytes
    written = data[len(before) : end]
    what = "its JSON member"
    if annotations is not None:
        expected = fit_json(sample, _events(annotations, sample), geometry.json_bytes)
        yield from _compare(written, expected, start + len(before), what, key)
    elif not _is_sound_json(bytes(written), sample, geometry.json_bytes):
        yield Damage(f"{what} was altered", start + len(before), start + end, key)
    size = view.block_bytes[block]
    after = tar_header(f"{key}.{member_suffix(view.index.spec.codec)}", size)
    yield from _compare(data[end:], after, start + end, "the tar header of its rows", key)


def _content(
    data: memoryview, start: int, size: int, view: ShardView, block: int, crc: int
) -> Iterator[Damage]:
    """Check a block's rows, the checksum beside them, and the padding."""
    key, codec = view.key(block), view.index.spec.codec
    if codec == "none":
        rows_end = size - CRC_BYTES
        found = crc32c.crc32c(data[:rows_end])
        if found != crc:
            what = f"the rows' crc32c is {found:08x}, the index says {crc:08x}"
            yield Damage(what, start, start + rows_end, key, True)
        stored = crc.to_bytes(CRC_BYTES, "little")
        what = "the checksum beside the rows"
        yield from _compare(data[rows_end:size], stored, start + rows_end, what, key, True)
    else:
        try:
            decode_block(data[:size], codec, view.geometry, where=key, expected_crc32c=crc)
        except CorruptData as error:
            what = str(error).removeprefix(f"{key}: ").partition(";")[0]
            yield Damage(f"the compressed rows: {what}", start, start + size, key, True)
    padding = data[size:]
    yield from _compare(
        padding, bytes(len(padding)), start + size, "the zeros behind its rows", key
    )


def _end(folder: Folder, path: str, begin: int, view: ShardView) -> Iterator[Damage]:
    """Compare what stands behind the last block: zeros, then the Zarr index."""
    tail = view.tail
    end = view.num_bytes
    try:
        data = memoryview(folder.read_range(path, begin, end - begin))
    except (CorruptData, OSError) as error:
        yield Damage(f"the end cannot be read ({error})", begin, end)
        return
    zeros = bytes(len(data) - len(tail))
    yield from _compare(data[: len(zeros)], zeros, begin, "the zeros behind the last block", None)
    start = end - len(tail)
    yield from _compare(data[len(zeros) :], tail, start, "the Zarr index at the end", None)


def _compare(
    found: memoryview,
    expected: bytes,
    start: int,
    what: str,
    sample: str | None,
    in_rows: bool = False,
) -> Iterator[Damage]:
    if found == expected[: len(found)]:
        return
    given = np.frombuffer(found, np.uint8)
    wanted = np.frombuffer(expected, np.uint8, len(given))
    where = np.flatnonzero(given != wanted)
    first, last = int(where[0]), int(where[-1])
    yield Damage(f"{what} was altered", start + first, start + last + 1, sample, in_rows)


def _sample(view: ShardView, block: int, crc: int) -> dict[str, object]:
    """What the JSON of a sample says, but its annotations."""
    stream, spec, geometry = view.shard.stream, view.index.spec, view.geometry
    number = view.shard.first_block - stream.first_block + block
    start_frame = number * geometry.block_frames
    sample: dict[str, object] = {
        "recording": stream.recording_id,
        "assignment": stream.assignment,
        "start_frame": start_frame,
        "num_frames": min(geometry.block_frames, stream.num_frames - start_frame),
        "shape": [geometry.block_frames, geometry.dim],
        "dtype": spec.dtype,
        "spec_id": spec.spec_id,
        "crc32c": f"{crc:08x}",
    }
    return sample if spec.codec == "none" else sample | {"codec": spec.codec}


def _events(annotations: Annotations, sample: dict[str, object]) -> dict[str, object]:
    """The events around a sample, as of the build (docs/format.md, "The JSON of a sample")."""
    sample["annotations_id"] = annotations.content_id()
    start_frame, num_frames = sample["start_frame"], sample["num_frames"]
    assert isinstance(start_frame, int)
    assert isinstance(num_frames, int)
    after_us = start_frame * FRAME_US - EVENTS_BEFORE_US
    before_us = (start_frame + num_frames) * FRAME_US + EVENTS_AFTER_US
    around = [
        asdict(event)
        for event in annotations.events
        if event.end_us > after_us and event.start_us < before_us
    ]
    return {"events": around}


def _is_sound_json(data: bytes, sample: dict[str, object], room: int) -> bool:
    """Whether this is canonical JSON that says of the block what the index says."""
    try:
        found = parse_json(data, where="sample")
        said = canonical_json(found).ljust(room)
    except (CorruptData, ValueError):
        return False
    return said == data and all(found.get(name) == value for name, value in sample.items())
