"""The bytes of a shard: geometry for any dim, the worked example of docs/format.md, every fault."""

import hashlib
import io
import json
import math
import mmap
import os
import signal
import tarfile
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laughstore.codec import CODECS, PAD_BITS, Codec, decode_block, member_suffix
from laughstore.errors import ConfigError
from laughstore.geometry import HUGE_PAGE_BYTES, ShardGeometry
from laughstore.shard import EMPTY_SLOT, ShardWriter

geometries = st.builds(
    ShardGeometry,
    dim=st.integers(1, 2100).map(lambda half: 2 * half),
    block_frames=st.sampled_from([128, 256]),
    shard_frames=st.sampled_from([256, 512, 4096]),
)


@given(geometries, st.integers(1, 32))
def test_a_shard_is_a_whole_number_of_rows_with_aligned_members(geometry, num_blocks):
    num_blocks = min(num_blocks, geometry.blocks_per_shard)
    assert geometry.header_rows * geometry.row_bytes % 512 == 0
    assert geometry.header_rows * geometry.row_bytes >= 2048
    assert geometry.json_bytes >= 512
    for block in (0, num_blocks - 1):
        offset = geometry.data_offset(block)
        assert offset % 512 == 0
        assert offset % geometry.row_bytes == 0
        row = block * geometry.rows_per_block + geometry.header_rows
        assert offset == row * geometry.row_bytes
    end = geometry.shard_bytes(num_blocks)
    assert end % geometry.row_bytes == 0
    last = geometry.data_offset(num_blocks - 1) + geometry.data_bytes + 512 + 1024
    assert last + geometry.index_bytes <= end < last + geometry.index_bytes + geometry.row_bytes


@given(geometries)
def test_files_that_follow_one_another_begin_at_whole_rows_and_huge_pages(geometry):
    alignment = geometry.map_alignment
    assert alignment % geometry.row_bytes == alignment % mmap.PAGESIZE == 0
    full = geometry.shard_bytes(geometry.blocks_per_shard)
    huge = math.lcm(geometry.row_bytes, HUGE_PAGE_BYTES)
    assert (alignment == huge) == (4 * huge <= full and huge <= 16 << 20)
    assert alignment <= max(full // 4, geometry.row_bytes * mmap.PAGESIZE // 2)


def test_full_shards_of_moshi_are_mapped_in_huge_pages():
    assert ShardGeometry(4096).map_alignment == HUGE_PAGE_BYTES


@given(geometries)
def test_header_rows_are_the_fewest_that_do(geometry):
    for fewer in range(1, geometry.header_rows):
        num_bytes = fewer * geometry.row_bytes
        assert num_bytes % 512 or num_bytes < 2048


@given(geometries, st.integers(1, 20_000))
def test_every_frame_is_in_one_block_of_one_shard(geometry, num_frames):
    shards = [
        geometry.blocks_in_shard(num_frames, i) for i in range(geometry.num_shards(num_frames))
    ]
    assert sum(shards) == geometry.num_blocks(num_frames)
    assert all(0 < blocks <= geometry.blocks_per_shard for blocks in shards)
    assert geometry.blocks_in_shard(num_frames, len(shards)) == 0


@given(geometries, st.integers(1, 32))
def test_raw_blocks_stand_where_the_rows_say(geometry, num_blocks):
    num_blocks = min(num_blocks, geometry.blocks_per_shard)
    sizes = [geometry.content_bytes] * num_blocks
    offsets = [geometry.data_offset(block) for block in range(num_blocks)]
    assert geometry.block_offsets(sizes).tolist() == offsets
    assert geometry.encoded_shard_bytes(sizes) == geometry.shard_bytes(num_blocks)


@given(geometries, st.data())
def test_encoded_blocks_stand_in_order_without_holes(geometry, data):
    size = st.integers(1, geometry.max_encoded_bytes)
    sizes = data.draw(st.lists(size, min_size=1, max_size=geometry.blocks_per_shard))
    position = 512  # the preamble
    for offset, num_bytes in zip(geometry.block_offsets(sizes), sizes, strict=True):
        position += 512 + geometry.json_bytes + 512
        assert offset == position
        position += -(-num_bytes // 512) * 512
    end = geometry.encoded_shard_bytes(sizes)
    assert end % geometry.row_bytes == 0
    assert 0 <= end - position - 1024 - geometry.index_bytes < geometry.row_bytes


def test_no_blocks_have_no_offsets():
    assert ShardGeometry(64).block_offsets([]).tolist() == []


@pytest.mark.parametrize(
    "settings_",
    [{"dim": 63}, {"dim": 0}, {"dim": 64, "block_frames": 1}, {"dim": 64, "shard_frames": 100}],
)
def test_impossible_geometries_are_refused(settings_):
    with pytest.raises(ConfigError):
        ShardGeometry(**settings_)


def _write(path, geometry, blocks, sample=None, codec: Codec = "none"):
    with ShardWriter(path, geometry, codec) as writer:
        for number, frames in enumerate(blocks):
            writer.write_block(f"id/a--b/{number:06d}", frames, sample or {"start_frame": number})
        return writer.commit()


def _frames(geometry, num_frames, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 2**16, (num_frames, geometry.dim), np.uint16)


def test_the_worked_example_of_the_format(tmp_path):
    geometry = ShardGeometry(64)
    frames = np.arange(128 * 64, dtype=np.uint16).reshape(128, 64)
    record = _write(tmp_path / "x.tar", geometry, [frames])
    data = (tmp_path / "x.tar").read_bytes()
    assert len(data) == record.num_bytes == 20608 == 161 * 128
    assert data[:16] == b"__laughstore__/1"
    assert data[512:526] == b"id/a--b/000000"[:14]
    assert json.loads(data[1024:1536]) == {
        "start_frame": 0,
        "crc32c": f"{record.block_crc32c[0]:08x}",
    }
    assert data[1024:1536].endswith(b"}" + b" " * (511 - data[1024:1536].index(b"}")))
    assert data[2048:18432] == frames.tobytes()
    assert data[18432:18436] == record.block_crc32c[0].to_bytes(4, "little")
    assert data[18436:20092] == bytes(20092 - 18436)
    assert data[20092:20108] == bytes.fromhex("0008000000000000 0440000000000000")
    assert data[20108:20604] == b"\xff" * 496


# The SHA-256 of this shard is part of format 1: a change of it is a change of the format.
GOLDEN_SHA256 = "9627b935391e7eeeecdb5815ffc0fca121fb0b206dac20c0efebc4cd27176002"


def test_the_bytes_of_a_shard_never_change(tmp_path):
    geometry = ShardGeometry(64, shard_frames=512)
    rows = np.arange(300 * 64, dtype=np.uint16).reshape(300, 64)
    blocks = [rows[:128], rows[128:256], rows[256:]]
    record = _write(tmp_path / "x.tar", geometry, blocks)
    assert record.sha256 == GOLDEN_SHA256


GOLDEN_CONTENT_SHA256 = "8b959b0fbcbcd19b032a78b1033581f1b71ef2eba04c4345fe594cb1990e433a"


def test_the_content_of_a_compressed_shard_never_changes(tmp_path):
    # Not the file's bytes: how zstd packs the same content differs between its releases.
    geometry = ShardGeometry(64, shard_frames=512)
    rows = np.arange(300 * 64, dtype=np.uint16).reshape(300, 64)
    path = tmp_path / "x.tar"
    _write(path, geometry, [rows[:128], rows[128:256], rows[256:]], codec="zstd")
    content = hashlib.sha256()
    with tarfile.open(path) as archive:
        for member in archive:
            content.update(member.name.encode() + b"\n")
            reader = archive.extractfile(member)
            assert reader is not None
            data = reader.read()
            if member.name.endswith(".zst"):
                data = decode_block(data, "zstd", geometry, where=member.name).tobytes()
            content.update(data)
    assert content.hexdigest() == GOLDEN_CONTENT_SHA256


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from([64, 96, 500, 4096]),
    st.integers(1, 3),
    st.integers(1, 128),
    st.sampled_from(CODECS),
)
def test_what_is_written_is_read_back(tmp_path_factory, dim, num_blocks, last, codec):
    geometry = ShardGeometry(dim, shard_frames=512)
    path = tmp_path_factory.mktemp("shard") / "x.tar"
    blocks = [_frames(geometry, 128, seed) for seed in range(num_blocks - 1)]
    blocks.append(_frames(geometry, last, 99))
    record = _write(path, geometry, blocks, codec=codec)
    data = path.read_bytes()
    assert record.num_bytes == len(data)
    assert record.sha256 == hashlib.sha256(data).hexdigest()
    assert (record.block_bytes is None) == (codec == "none")
    sizes = record.block_bytes or (geometry.content_bytes,) * num_blocks
    assert len(data) == geometry.encoded_shard_bytes(sizes)
    offsets = geometry.block_offsets(sizes)
    index = np.frombuffer(data[-geometry.index_bytes : -4], "<u8").reshape(-1, 2)
    assert index[:num_blocks].tolist() == [list(slot) for slot in zip(offsets, sizes, strict=True)]
    assert (index[num_blocks:] == EMPTY_SLOT).all()
    assert max(sizes) <= geometry.max_encoded_bytes
    for number, frames in enumerate(blocks):
        content = data[offsets[number] : offsets[number] + sizes[number]]
        crc = record.block_crc32c[number]
        rows = decode_block(content, codec, geometry, where="x", expected_crc32c=crc)
        np.testing.assert_array_equal(rows[: len(frames)], frames)
        assert (rows[len(frames) :] == PAD_BITS).all()
    with tarfile.open(path) as archive:
        members = archive.getmembers()
    assert len(members) == 1 + 2 * num_blocks
    assert {member.name.partition(".")[2] for member in members[2::2]} == {member_suffix(codec)}


def test_a_raw_shard_is_a_matrix(tmp_path):
    geometry = ShardGeometry(96, shard_frames=512)
    blocks = [_frames(geometry, 128), _frames(geometry, 50, 1)]
    _write(tmp_path / "x.tar", geometry, blocks)
    matrix = np.fromfile(tmp_path / "x.tar", "<u2").reshape(-1, 96)
    for number, frames in enumerate(blocks):
        row = number * geometry.rows_per_block + geometry.header_rows
        np.testing.assert_array_equal(matrix[row : row + len(frames)], frames)


@pytest.mark.parametrize("codec", CODECS)
def test_the_caller_may_use_its_array_again(tmp_path, codec):
    geometry = ShardGeometry(4096)  # blocks so large that a thread hashes them
    frames = _frames(geometry, 128)
    kept = frames.copy()
    path = tmp_path / "x.tar"
    with ShardWriter(path, geometry, codec) as writer:
        for number in range(8):
            writer.write_block(f"id/a--b/{number:06d}", frames, {})
            frames[:] = number
        record = writer.commit()
    data = path.read_bytes()
    assert record.sha256 == hashlib.sha256(data).hexdigest()
    sizes = record.block_bytes or (geometry.content_bytes,) * 8
    for number, offset in enumerate(geometry.block_offsets(sizes)):
        content = data[offset : offset + sizes[number]]
        rows = decode_block(content, codec, geometry, where="x")
        np.testing.assert_array_equal(rows, frames * 0 + number - 1 if number else kept)


@pytest.mark.parametrize("most", [None, 1, 700_001])
def test_files_are_written_in_whole_huge_pages_however_little_a_disk_takes(
    tmp_path, monkeypatch, most
):
    geometry = ShardGeometry(4096) if most != 1 else ShardGeometry(64)
    num_blocks = 9 if most != 1 else 1
    ends: list[int] = []
    real = os.writev

    def writev(descriptor, parts):
        if most is not None:  # as of a disk that is nearly full
            parts = [b"".join(parts)[:most]]
        written = real(descriptor, parts)
        ends.append(written + (ends[-1] if ends else 0))
        return written

    monkeypatch.setattr(os, "writev", writev)
    path = tmp_path / "x.tar"
    blocks = [_frames(geometry, 128) + np.uint16(number) for number in range(num_blocks)]
    with ShardWriter(path, geometry) as writer:
        for number, frames in enumerate(blocks):
            writer.write_block(f"id/a--b/{number:06d}", frames, {})
        record = writer.commit()
    data = path.read_bytes()
    assert record.num_bytes == len(data) == geometry.shard_bytes(num_blocks) == ends[-1]
    assert record.sha256 == hashlib.sha256(data).hexdigest()
    for number, frames in enumerate(blocks):
        start = geometry.data_offset(number)
        assert data[start : start + geometry.data_bytes] == frames.tobytes()
    if most is None:
        assert all(end % HUGE_PAGE_BYTES == 0 for end in ends[:-1])
        assert len(ends) == -(-len(data) // HUGE_PAGE_BYTES)
    else:
        whole = range(HUGE_PAGE_BYTES, len(data), HUGE_PAGE_BYTES)
        assert set(whole) <= set(ends)


def test_more_blocks_than_a_system_writes_together_are_written_in_parts(tmp_path):
    geometry = ShardGeometry(64, 128, 1 << 19)
    frames = np.zeros((128, 64), np.uint16)  # a block of 2 KiB as stored, the smallest there is
    with ShardWriter(tmp_path / "x.tar", geometry, "zstd") as writer:
        for number in range(2100):
            writer.write_block(f"id/a--b/{number:06d}", frames, {})
        record = writer.commit()
    data = (tmp_path / "x.tar").read_bytes()
    assert record.sha256 == hashlib.sha256(data).hexdigest()
    assert len(data) == record.num_bytes


def test_optional_keys_are_left_out_by_name_when_they_do_not_fit(tmp_path):
    geometry = ShardGeometry(64)
    frames = _frames(geometry, 128)
    for events, expected in (([1, 2], {"events": [1, 2]}), ([0] * 400, {"events_cut": True})):
        path = tmp_path / f"{len(events)}.tar"
        with ShardWriter(path, geometry) as writer:
            writer.write_block("id/a--b/000000", frames, {"start_frame": 0}, {"events": events})
            writer.commit()
        with tarfile.open(path) as archive:
            member = archive.extractfile("id/a--b/000000.json")
            assert member is not None
            sample = json.load(member)
        assert expected.items() <= sample.items()
        assert len(sample) == 3


def test_a_shard_left_without_a_commit_leaves_nothing(tmp_path):
    geometry = ShardGeometry(64)
    with ShardWriter(tmp_path / "x.tar", geometry) as writer:
        writer.write_block("id/a--b/000000", _frames(geometry, 128), {})
        assert len(list(tmp_path.iterdir())) == 1
    assert list(tmp_path.iterdir()) == []


def _write_large_blocks(path, codec: Codec = "none", then=lambda: None):
    geometry = ShardGeometry(4096)
    with ShardWriter(path, geometry, codec) as writer:
        for number in range(4):
            writer.write_block(f"id/a--b/{number:06d}", _frames(geometry, 128), {})
        assert "sha256" in [thread.name for thread in threading.enumerate()]
        then()


def _interrupt():
    raise KeyboardInterrupt


def test_a_large_shard_left_without_a_commit_leaves_no_file_and_no_thread(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        _write_large_blocks(tmp_path / "x.tar", then=_interrupt)
    assert list(tmp_path.iterdir()) == []
    assert "sha256" not in [thread.name for thread in threading.enumerate()]


@pytest.mark.parametrize("codec", CODECS)
def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path, codec):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5 << 19, limits[1]))  # two and a half blocks
    try:
        with pytest.raises(OSError, match="File too large"):
            _write_large_blocks(tmp_path / "x.tar", codec)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert list(tmp_path.iterdir()) == []
    assert "sha256" not in [thread.name for thread in threading.enumerate()]


def test_tar_headers_hold_no_time_user_or_host(tmp_path):
    geometry = ShardGeometry(64)
    _write(tmp_path / "x.tar", geometry, [_frames(geometry, 128)])
    with tarfile.open(fileobj=io.BytesIO((tmp_path / "x.tar").read_bytes())) as archive:
        for member in archive:
            assert (member.mtime, member.uid, member.gid, member.uname) == (0, 0, 0, "")
            assert member.mode == 0o444
